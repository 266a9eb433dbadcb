"""The command line, called in this process: the same code as `python -m cl_repro`, without a new interpreter."""

import sys
from pathlib import Path
from typing import Any

import pytest

from cl_repro.__main__ import main
from cl_repro.compose import from_command_line

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


def arms(*overrides: str) -> list[dict[str, Any]]:
    """The resolved configurations of the arms a command line composes."""
    return from_command_line(overrides)
