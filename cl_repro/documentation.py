"""docs/methods.md and docs/deviations.md, from docstrings, comments and YAML files.

The first has every method and estimator; the second what the code does otherwise than the code it follows, from the
paragraphs that begin with the tag.
"""

import inspect
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from cl_repro.config import CONF, find

ITSELF = Path(__file__)
GROUPS = {"method": "Methods", "fisher": "Estimators of importances", "memory": "Memories"}
INTRODUCTION = """# Methods, estimators and memories

Made from docstrings and configuration files by `make docs`; edit those. Each entry has the equation with its source,
prefactor and labels, what it costs, and its configuration. `g`, `z`, `q` are gradients, logits and probabilities.
"""


TAG = "DEVIATES"
DEVIATIONS = f"""# Where the code deviates, on purpose, from the code it follows

Made by `make docs` from the paragraphs that say {TAG} in the code and its configuration; edit those. What the code base
does is known from reading it; a file without an entry does as its sources do, as far as we know.
"""


def deviations() -> str:
    """The whole page, Markdown: a list by file, in the order of their paths."""
    root = CONF.parent
    paths = sorted(path for path in (*(root / "cl_repro").rglob("*.py"), *CONF.rglob("*.yaml")) if path != ITSELF)
    parts = [DEVIATIONS]
    for path in paths:
        if found := tagged(path.read_text(encoding="utf-8")):
            parts.append(f"## `{path.relative_to(root).as_posix().removeprefix('cl_repro/')}`\n")
            parts.append("".join(f"- {text[0].upper()}{text[1:]}\n" for text in found))
    return "\n".join(parts)


def tagged(text: str) -> list[str]:
    """What follows each tag to the end of its paragraph: of a docstring, a list or a comment."""
    lines, found = text.splitlines(), []
    for i, line in enumerate(lines):
        if TAG not in line:
            continue
        words = [line.partition(TAG)[2]]
        comment = line.lstrip().startswith("#")
        for after in map(str.strip, lines[i + 1 :]):
            inside = after.removeprefix("#").strip() if comment == after.startswith("#") else ""
            if not inside or inside.startswith(("- ", '"""')):
                break
            words.append(inside)
        found.append(" ".join(words).strip().removesuffix('"""'))
    return found


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
