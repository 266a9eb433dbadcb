"""What of the site is made from the code when it is built (a hook of mkdocs; the tests read it, too).

A page says where with a comment, `<!-- made: NAME -->`; NAME is a function of `MADE`. Besides, the site's first page is
the README, files of the repository that pages point to come along, and mathematics becomes MathML, which needs neither
a script nor a network.
"""

import csv
import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from cl_repro.records import schema

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
ALONG = (
    "results/figures/*.png",
    "results/tables/*.md",
    "results/LEDGER.md",
    "results/published/*.csv",
    "notebooks/*.ipynb",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "CITATION.cff",
    "LICENSE",
)
GROUPS = {"method": "Methods", "fisher": "Estimators of importances", "memory": "Memories"}
OPTIONS = "      show_root_heading: false\n      show_root_toc_entry: false\n      heading_level: 3\n"
TAG = "DEVIATES"


# --- made from the code ----------------------------------------------------------------------------------------------


def methods() -> str:
    """Every method, estimator and memory: by module its docstring, its code, and the YAML files that choose it."""
    parts = []
    for group, title in GROUPS.items():
        parts.append(f"## {title}\n")
        for module, choices in by_module(group).items():
            parts.append(f"### {', '.join(f'`{name}`' for name in choices)}\n")
            parts.append(f"`{module.replace('.', '/')}.py`\n")
            factories = "".join(f"        - {name}\n" for name in dict.fromkeys(of for of, _ in choices.values()))
            parts.append(f"::: {module}\n    options:\n{OPTIONS}      members:\n{factories}")
            parts += [f"```yaml\n# {group}={name}\n{text.strip()}\n```\n" for name, (_, text) in choices.items()]
    return "\n".join(parts)


def by_module(group: str) -> dict[str, dict[str, tuple[str, str]]]:
    """Module -> name of a choice -> (its factory's name, its YAML file's text), by name."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    folder = CONF / group
    for path in sorted(folder.rglob("*.yaml")):
        module, _, factory = target(path).rpartition(".")
        name = path.relative_to(folder).with_suffix("").as_posix()
        found.setdefault(module, {})[name] = factory, path.read_text(encoding="utf-8")
    return found


def target(path: Path) -> str:
    """The `_target_` of a YAML file, or of the one that it begins with."""
    node = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "_target_" in node:
        return node["_target_"]
    parent = next(entry for entry in node["defaults"] if isinstance(entry, str) and entry != "_self_").split("@")[0]
    return target(CONF / f"{parent[1:]}.yaml" if parent.startswith("/") else path.with_name(f"{parent}.yaml"))


def deviations() -> str:
    """What the code does otherwise than the code it follows: a list by file, in the order of their paths."""
    parts = []
    for path in sorted((*(ROOT / "cl_repro").rglob("*.py"), *CONF.rglob("*.yaml"))):
        if found := tagged(path.read_text(encoding="utf-8")):
            parts.append(f"## `{path.relative_to(ROOT).as_posix().removeprefix('cl_repro/')}`\n")
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


def columns() -> str:
    """Every column of every CSV, with its type, unit and meaning: a table for each file."""
    parts = []
    for title, files in schema.GROUPS.items():
        name, _, folder = title.rpartition(", ")
        parts.append(f"### {name}: `{folder}`\n")
        for file, own in files.items():
            lines = [f"| `{name}` | {one.type} | {one.unit} | {cell(one.meaning)} |" for name, one in own.items()]
            head = "| column | type | unit | meaning |\n|---|---|---|---|"
            parts.append(f"#### `{file}`\n\n{head}\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def cell(text: str) -> str:
    """A text in Markdown, as it is."""
    return re.sub(r"([|<*_])", r"\\\1", text)


def bench() -> str:
    """Every measured row of results/bench, a table for each of its files."""
    parts = []
    for path in sorted((ROOT / "results" / "bench").glob("*.csv")):
        with path.open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["value"]]
        lines = [f"| {row['name']} | {quantity(row)} | {aim(row)} | {row['verdict']} |" for row in rows]
        machines = "; ".join(dict.fromkeys(row["hardware"] for row in rows))
        head = "| what | result | target | |\n|---|---:|---:|---|"
        parts.append(f"### {path.stem.replace('_', ' ')}\n\n{machines}\n\n{head}\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def quantity(row: dict[str, str]) -> str:
    """The result with its unit, three digits."""
    return f"{float(row['value']):.3g} {row['value_unit']}"


def aim(row: dict[str, str]) -> str:
    """The target, if there is one."""
    return f"{row['better']} {row['target']}" if row["target"] else ""


MADE: dict[str, Callable[[], str]] = {"methods": methods, "deviations": deviations, "columns": columns, "bench": bench}


# --- the hooks -------------------------------------------------------------------------------------------------------


def on_files(files: Any, config: Any) -> Any:
    """Add the README as the first page, and what pages point to; take away what is no page."""
    from mkdocs.structure.files import File  # noqa: PLC0415 - the tests have no mkdocs

    files.remove(files.get_file_from_path(Path(__file__).name))
    files.append(File.generated(config, "index.md", abs_src_path=str(ROOT / "README.md")))
    for pattern in ALONG:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put in what is made; links of a page then begin in the folder of pages, not in the repository."""
    markdown = re.sub(r"<!-- made: (\w+) -->", lambda found: MADE[found[1]](), markdown)
    if page.file.src_uri in ("index.md", "CHANGELOG.md", "CONTRIBUTING.md"):  # the root's
        folders = r"\[([^\]]*)\]\((?:results/(?:figures|tables)|docs)\)"  # a site has no folders to look into
        return re.sub(folders, r"\1", markdown).replace("](docs/", "](")
    if page.file.src_uri.startswith("results/"):
        return markdown
    inside = page.file.src_uri.count("/")
    return markdown.replace("](" + "../" * (inside + 1), "](" + "../" * inside)


def on_page_content(content: str, **_: Any) -> str:
    """Mathematics, from what arithmatex marks to MathML."""
    from latex2mathml.converter import convert  # noqa: PLC0415 - the tests have no need of it

    def mathml(found: re.Match[str]) -> str:
        display = "block" if found[1] == "div" else "inline"
        return convert(html.unescape(found[2]), display=display)

    return re.sub(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', mathml, content, flags=re.DOTALL)
