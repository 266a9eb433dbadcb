"""docs/methods.md: every method and estimator, from the docstrings of its module and factory and from its YAML file."""

import inspect
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from cl_repro.config import CONF, find

GROUPS = {"method": "Methods", "fisher": "Estimators of importances", "memory": "Memories"}
INTRODUCTION = """# Methods, estimators and memories

Made from docstrings and configuration files by `make docs`; edit those. Each entry has the equation with its source,
prefactor and labels, what it costs, and its configuration. `g`, `z`, `q` are gradients, logits and probabilities.
"""


def methods() -> str:
    """The whole page, Markdown.

    Returns:
        A section per group; in it one per module, with what its docstring says, and in that one per YAML file.
    """
    parts = [INTRODUCTION]
    for group, title in GROUPS.items():
        parts.append(f"## {title}\n")
        for module, choices in by_module(group).items():
            parts.append(f"### {', '.join(f'`{name}`' for name in choices)}\n")
            parts.append(f"`{module.removeprefix('cl_repro.').replace('.', '/')}.py`\n")
            parts.append(block(inspect.cleandoc(sys.modules[module].__doc__ or "")))
            for factory in dict.fromkeys(target for target, _ in choices.values()):
                parts.append(block(described(factory)))
            parts += [f"```yaml\n# {group}={name}\n{text.strip()}\n```\n" for name, (_, text) in choices.items()]
    return "\n".join(parts)


def by_module(group: str) -> dict[str, dict[str, tuple[Any, str]]]:
    """Module -> name of a choice -> (its factory, its YAML file's text), by name."""
    found: dict[str, dict[str, tuple[Any, str]]] = {}
    folder = CONF / group
    for path in sorted(folder.rglob("*.yaml")):
        factory = find(group, target(path))
        name = path.relative_to(folder).with_suffix("").as_posix()
        found.setdefault(factory.__module__, {})[name] = factory, path.read_text(encoding="utf-8")
    return found


def target(path: Path) -> str:
    """The `_target_` of a YAML file, or of the one that it begins with."""
    node: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    if "_target_" in node:
        return node["_target_"]
    parent = next(entry for entry in node["defaults"] if isinstance(entry, str) and entry != "_self_").split("@")[0]
    return target(CONF / f"{parent[1:]}.yaml" if parent.startswith("/") else path.with_name(f"{parent}.yaml"))


def described(factory: Any) -> str:
    """Signature and docstring."""
    return f"{factory.__name__}{inspect.signature(factory)}\n\n{inspect.getdoc(factory)}"


def block(text: str) -> str:
    """As it is, with its line breaks."""
    return f"```text\n{text}\n```\n"
