"""`make gpu`: in order, within its budget, and on from where it stopped."""

import runpy
import subprocess
from pathlib import Path
from typing import Any

import cli
import pytest

from cl_repro.study import provenance

PROGRAM = runpy.run_path(str(cli.ROOT / "scripts" / "gpu.py"))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The commands that were started, by their ends; every one takes 100 seconds, a study ends with its budget."""
    calls: list[list[str]] = []
    clock = [0.0]

    def run(command: list[str], **_: Any) -> None:
        calls.append(command[1:])
        budget = [float(word.removeprefix("time_budget=")) for word in command if word.startswith("time_budget=")]
        clock[0] += min([100.0, *budget])
        if budget and budget[0] < 100:
            raise subprocess.CalledProcessError(2, command)

    names = PROGRAM["a_slice"].__globals__
    monkeypatch.setitem(names, "STAMPS", tmp_path / ".gpu")
    monkeypatch.setattr(provenance, "source", lambda: provenance.Source("abc", dirty=False))
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    return calls


def work(name: str, seconds: float, study: bool = False) -> Any:
    return PROGRAM["Work"](name, (name,), seconds, study)


def test_a_slice_ends_in_time_and_the_next_goes_on(started: list[list[str]]) -> None:
    works = [work("tests", 90), work("bench", 120), work("one", 20, study=True), work("other", 20, study=True)]
    left = PROGRAM["a_slice"](works, 250.0)
    assert [call[0] for call in started] == ["tests", "bench", "one"]
    assert started[-1] == ["one", "time_budget=50"]
    assert [of.name for of in left] == ["one", "other"]
    assert PROGRAM["a_slice"](works, 900.0) == []
    assert [call[0] for call in started[3:]] == ["one", "other"]


def test_what_failed_is_left(started: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: list[str], **_: Any) -> None:
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", fail)
    assert [of.name for of in PROGRAM["a_slice"]([work("tests", 90)], 250.0)] == ["tests"]


@pytest.mark.slow
def test_every_command_composes() -> None:
    """The studies are those of conf/, with settings that they have."""
    for of in PROGRAM["WORK"]:
        if of.study:
            assert cli.arms(*of.command[2:])
