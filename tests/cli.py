"""The command line, called in this process: the same code as `python -m cl_repro`, without a new interpreter."""

import runpy
import sys
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from cl_repro.__main__ import main
from cl_repro.study.compose import from_command_line

ROOT = Path(__file__).resolve().parent.parent


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> int:
    """`python -m cl_repro ARGUMENTS` in a folder; its exit status."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["cl_repro", *arguments])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def script(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str) -> int:
    """`python scripts/NAME ARGUMENTS`; its exit status."""
    path = str(ROOT / "scripts" / name)
    monkeypatch.setattr(sys, "argv", [path, *arguments])
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures and tables at the end of the command: they take longer than a small study."""
    monkeypatch.setattr("cl_repro.analysis.report", lambda *_: "")


def arms(*overrides: str) -> list[dict[str, Any]]:
    """The resolved configurations of the arms a command line composes; a process composes each of them once."""
    return deepcopy(composed(overrides))


@lru_cache
def composed(overrides: tuple[str, ...]) -> list[dict[str, Any]]:
    """`arms`, of which all who ask have one; what the environment decides is that of the first who asked."""
    return from_command_line(overrides)
