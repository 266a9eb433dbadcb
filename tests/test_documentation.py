"""The pages of docs/ say what the code and the results say. Building the site of them is a step of .ci/run."""

# ruff: noqa: RUF001 - minus signs and dashes as the pages have them

import inspect
import json
import re
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import made_pages
import pytest
import yaml
from cli import ROOT

from cl_repro.study.config import CONF

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
README = ROOT / "README.md"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MODULES = re.findall(r"^::: ([\w.]+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- what is made from the code --------------------------------------------------------------------------------------


def test_a_page_says_where_everything_that_is_made_goes() -> None:
    asked = [made for page in PAGES for made in re.findall(r"<!-- made: (\w+) -->", page.read_text(encoding="utf-8"))]
    assert sorted(asked) == sorted(made_pages.MADE)
    assert all(made_pages.MADE[made]() for made in asked)


def test_every_deviation_says_from_what_and_is_a_sentence() -> None:
    entries = [line for line in made_pages.deviations().splitlines() if line.startswith("- ")]
    assert len(entries) > 15
    assert all(entry.startswith("- From ") and entry.endswith(".") for entry in entries)


def test_a_deviation_ends_with_its_paragraph() -> None:
    text = '''"""A module.

DEVIATES from A, which does this
and that.
"""

def f():
    """Do it.

    - DEVIATES from B in a word.
    - Not this.
    """
    # DEVIATES from C, as
    # a comment says.
    return 1


def g():
    """DEVIATES from D."""
'''
    assert made_pages.tagged(text) == [
        "from A, which does this and that.",
        "from B in a word.",
        "from C, as a comment says.",
        "from D.",
    ]


@pytest.mark.parametrize("group", made_pages.GROUPS)
def test_every_choice_has_its_configuration_its_code_and_its_source(group: str) -> None:
    text = made_pages.methods()
    for path in (CONF / group).rglob("*.yaml"):
        choice = path.relative_to(CONF / group).with_suffix("").as_posix()
        assert f"# {group}={choice}\n{path.read_text(encoding='utf-8').strip()}\n```" in text
        module, _, factory = made_pages.target(path).rpartition(".")
        entry = text.partition(f"\n::: {module}\n")[2].partition("\n::: ")[0]
        assert f"        - {factory}\n" in entry
        assert f"`{module.replace('.', '/')}.py`" in text
        assert inspect.getdoc(import_module(module)) and inspect.getdoc(getattr(import_module(module), factory))


def test_a_file_that_builds_on_another_has_its_factory() -> None:
    child = CONF / "method" / "der_plus_plus.yaml"
    assert "_target_" not in yaml.safe_load(child.read_text())
    assert made_pages.target(child) == "cl_repro.methods.der.der"


# --- what is written by hand -----------------------------------------------------------------------------------------


def test_the_menu_has_every_page() -> None:
    def pages(node: Any) -> list[str]:
        if isinstance(node, str):
            return [node]
        return [page for one in (node.values() if isinstance(node, dict) else node) for page in pages(one)]

    listed = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert len(listed) == len(set(listed))
    assert set(listed) - {"index.md", "CHANGELOG.md"} == {page.relative_to(DOCS).as_posix() for page in PAGES}


def text_of(page: Path) -> str:
    """What a page says; of a notebook what is written by hand."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])


def named_in(text: str) -> set[str]:
    """All names of the package with their dots, those that are imported from a module, too."""
    found = set(re.findall(r"\bcl_repro(?:\.\w+)+", text))
    for module, names in re.findall(r"^\s*from (cl_repro[\w.]*) import (\([^)]*\)|[^\n#]*)", text, re.MULTILINE):
        found |= {f"{module}.{one.split(' as ')[0].strip()}" for one in names.strip("()").split(",") if one.strip()}
    return found


def is_there(name: str) -> bool:
    try:
        resolve_name(name)
    except (AttributeError, ImportError):
        return False
    return True


@pytest.mark.parametrize("page", [README, ROOT / "CONTRIBUTING.md", *PAGES, *NOTEBOOKS], ids=name)
def test_what_a_page_points_to_is_there(page: Path) -> None:
    """Links, files and folders, and names of the code, but for those of files that a reader is told to write."""
    text = text_of(page)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith("http")]
    assert [link for link in links if not (page.parent / link).exists()] == []
    told = r"(?:^# |(?:goes| YAML) to `)((?:cl_repro|conf)/[\w/]+\.(?:py|yaml))"
    own = set(re.findall(told, text, re.MULTILINE))
    files = re.findall(r"`((?:cl_repro|conf|docs|notebooks|scripts|tests)/[\w/.]+)`", text)
    assert [file for file in files if not (ROOT / file).exists() and file not in own] == []
    to_come = tuple(path.removesuffix(".py").replace("/", ".") for path in own)
    assert [one for one in sorted(named_in(text)) if not one.startswith(to_come) and not is_there(one)] == []


def test_names_are_found_wherever_a_page_has_them() -> None:
    text = "`cl_repro.nothing.at_all`\n    from cl_repro.common import (\n        tree as t,\n        nowhere,\n    )\n"
    assert {one: is_there(one) for one in named_in(text)} == {
        "cl_repro.nothing.at_all": False,
        "cl_repro.common": True,
        "cl_repro.common.tree": True,
        "cl_repro.common.nowhere": False,
    }


NUMBER = r"[+−]?\d+\.\d+"
INTERVAL = re.compile(rf"\[({NUMBER}), ({NUMBER})\]")


def claims(text: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Intervals, and other decimal numbers, of a text without its code, mathematics, links and tables."""
    prose = re.sub(
        r"```.*?```|`[^`]*`|\]\([^)]*\)|\$\$.*?\$\$|\$[^$]*\$|^\|.*?$", " ", text, flags=re.DOTALL | re.MULTILINE
    )
    return INTERVAL.findall(prose), re.findall(rf"(?<![\w.]){NUMBER}(?![\w.]*\d)", INTERVAL.sub(" ", prose))


def same(said: str, found: str) -> bool:
    """Whether a number is the other, rounded; a sign counts where both have one (`0.2 below` is said of −0.2)."""
    digits = len(said.partition(".")[2])
    pair = [float(one.replace("−", "-")) for one in (said, found)]
    if not said.startswith(("+", "−")):
        pair = [abs(one) for one in pair]
    return abs(pair[0] - pair[1]) <= 0.5 * 10**-digits + 1e-9


def unsupported(text: str, sources: str) -> list[str]:
    """The numbers of a text that its sources do not have."""
    intervals, numbers = claims(text)
    have, have_intervals = re.findall(r"(?<![\w.])[+−-]?\d+(?:\.\d+)?(?:e-?\d+)?", sources), INTERVAL.findall(sources)
    lost = [one for one in numbers if not any(same(one, other) for other in have)]
    for low, high in intervals:
        either = [pair for other in have_intervals for pair in (other, other[::-1])]
        if not any(same(low, a) and same(high, b) for a, b in either):
            lost.append(f"[{low}, {high}]")
    return lost


@pytest.mark.parametrize("page", [page for page in PAGES if claims(page.read_text(encoding="utf-8"))[1]], ids=name)
def test_every_number_is_in_a_table_that_its_section_points_to(page: Path) -> None:
    for section in re.split(r"(?m)^(?=## )", page.read_text(encoding="utf-8")):
        paths = re.findall(r"\]\(((?:\.\./)+results/[^)#]+\.(?:md|csv))\)", section)
        sources = "\n".join((page.parent / path).read_text(encoding="utf-8") for path in paths)
        assert unsupported(section, sources) == [], section.splitlines()[:1]


def test_a_stale_number_is_found() -> None:
    sources = "| EXACT | 99.27 ± 0.09 | −0.23 [−0.42, −0.05] |"
    assert unsupported("99.3 %, 0.23 below [0.05, 0.42], −0.2 (`1.5`, $2.5$)", sources) == []
    assert unsupported("99.4 % or +0.23 [0.05, 0.43]", sources) == ["99.4", "+0.23", "[0.05, 0.43]"]


# --- the public names ------------------------------------------------------------------------------------------------


def public() -> list[tuple[str, Any]]:
    """What the modules of the API page export, by name."""
    modules = [import_module(module) for module in MODULES if hasattr(import_module(module), "__all__")]
    return [(f"{module.__name__}.{one}", getattr(module, one)) for module in modules for one in module.__all__]


def test_the_api_page_has_the_facade_and_the_importances() -> None:
    assert {f"cl_repro{part}" for part in ("", ".importance", ".study.weights", ".types")} == set(MODULES)
    names = {name for name, _ in public()}
    assert {"cl_repro.importance.diagonal_fisher", "cl_repro.importance.quadratic_penalty"} <= names
    assert {"cl_repro.run", "cl_repro.read_folder", "cl_repro.diagonal_fisher"} <= names


@pytest.mark.parametrize(("named", "thing"), public(), ids=lambda one: one if isinstance(one, str) else "")
def test_a_public_name_says_what_it_takes_gives_and_refuses(named: str, thing: Any) -> None:
    text, signature = inspect.getdoc(thing) or "", inspect.signature(thing)
    assert len(text.splitlines()) > 1, named
    missing = [one for one in signature.parameters if not re.search(rf"^    \*?{one}: ", text, re.MULTILINE)]
    assert missing == []
    assert "Returns:" in text and "Raises:" in text
