"""The house: its rooms, which way they import each other, and how long a file may be."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter

from cli import ROOT

PACKAGE = ROOT / "cl_repro"
ENTRANCES = {"__init__", "__main__"}  # which bring together what is in the rooms
LONGEST = 300  # lines of a file, blank ones and comments among them


def room_of(module: str) -> str:
    """`cl_repro.records.store` is in records."""
    return module.split(".")[1]


def imported(source: str) -> Iterator[str]:
    """The modules of this package that a source imports, wherever it does."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("cl_repro."))
        elif isinstance(node, ast.ImportFrom) and node.module == "cl_repro":
            yield from (f"cl_repro.{name.name}" for name in node.names if not name.name.startswith("_"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cl_repro."):
            yield str(node.module)


def rooms() -> dict[str, set[str]]:
    """What each room imports from others."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room not in ENTRANCES:
            found.setdefault(room, set()).update(map(room_of, imported(path.read_text())))
    return {room: others - {room} for room, others in found.items()}


def test_every_way_of_importing_is_seen() -> None:
    source = """
import cl_repro.common.tree
from cl_repro import engine, __version__
def f():
    from cl_repro.records.store import Store
"""
    assert sorted(imported(source)) == ["cl_repro.common.tree", "cl_repro.engine", "cl_repro.records.store"]


def test_rooms_import_one_way() -> None:
    """Whoever works in one need not know those that build on it; a circle would be named."""
    order = list(TopologicalSorter(rooms()).static_order())
    assert order[0] == "common"
    assert rooms()["common"] == set()


def test_the_rooms_are_those_of_contributing_and_import_from_those_above() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    lines = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    listed = [room for line in lines for room in re.findall(r"`(\w+)", line)]
    assert sorted(listed) == sorted(rooms())
    assert len(listed) <= 14
    place = {room: i for i, room in enumerate(listed)}
    assert [(room, one) for room, others in rooms().items() for one in others if place[one] > place[room]] == []


def test_no_file_is_too_long_to_be_read() -> None:
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in files}
    assert {name: n for name, n in lines.items() if n > LONGEST} == {}
