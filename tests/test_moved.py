"""Code that has moved: its old names still find it, and identities are made of the first one."""

from pkgutil import resolve_name

import cli
import pytest
import torch

from cl_repro.analysis.data.conditions import flat
from cl_repro.common import moved
from cl_repro.engine import checkpoint
from cl_repro.methods.quadratic import Pull
from cl_repro.study import grid
from cl_repro.study.config import check
from cl_repro.study.factories import build

MOVES = {
    "a.memory": "a.replay.memory",  # a module
    "a.methods": "a.engine.methods",  # a package
    "a.tools.mean": "a.stats.average",  # a function, which has another name, too
    "a.grid": "a.grid.cells",  # a module that is a package now
    "a.engine": "a.training",  # a move of what has moved
    "a.replay": "a.recall",
}
NAMES = [  # first, today
    ("a.memory.ring", "a.recall.memory.ring"),
    ("a.memory:ring", "a.recall.memory:ring"),
    ("a.methods.ewc.ewc", "a.training.methods.ewc.ewc"),
    ("a.engine.follow", "a.training.follow"),
    ("a.tools.mean", "a.stats.average"),
    ("a.tools.means", "a.tools.means"),
    ("a.grid.digest", "a.grid.cells.digest"),
    ("a.memories.ring", "a.memories.ring"),
    ("torch.optim.Adam", "torch.optim.Adam"),
]


@pytest.mark.parametrize(("first", "today"), NAMES)
def test_every_name_that_something_had_is_one_name(first: str, today: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moved, "MOVED", MOVES)
    assert (moved.now(first), moved.first(first)) == (today, first)
    assert (moved.now(today), moved.first(today)) == (today, first)
    between = first.replace("a.methods", "a.engine.methods")
    assert (moved.now(between), moved.first(between)) == (today, first)


def test_every_move_leads_to_what_is_there() -> None:
    for old in moved.MOVED:
        resolve_name(moved.now(old))
        assert moved.first(moved.now(old)) == moved.first(old)


@pytest.mark.parametrize("key", ["_target_", "memory._target_"])
def test_a_configuration_with_an_old_name_is_the_same_run_and_builds_the_same(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a user's file, or of a folder of results."""
    (today,) = cli.arms("method=replay")
    before = {"_target_": "cl_repro.methods.replay.replay", "memory._target_": "cl_repro.memory.end_of_task"}[key]
    as_it_was, old = grid.make_arm(today).config_id, before.replace("cl_repro", "cl_repro.of_before")
    (given,) = cli.arms("method=replay", f"method.{key}={old}")
    of_old_code = grid.make_arm(given).config_id
    assert of_old_code != as_it_was
    committed = dict(moved.MOVED)
    for module in ("cl_repro.methods", "cl_repro.memory"):
        monkeypatch.setitem(moved.MOVED, module.replace("cl_repro", "cl_repro.of_before"), module)
    check(given)
    sizes = [build("method", cfg["method"]).needs.memory.size for cfg in (given, today)]
    assert sizes[0] == sizes[1]
    place = f"method.{key}"
    assert flat("method", given["method"])[place] == flat("method", today["method"])[place] == old
    assert len({grid.make_arm(cfg).config_id for cfg in (given, today)}) == 1

    monkeypatch.setattr(moved, "MOVED", {**committed, old: before})
    assert {grid.make_arm(cfg).config_id for cfg in (given, today)} == {of_old_code}


def test_the_state_of_a_method_that_has_moved_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    module, name, values = checkpoint.plain(Pull(torch.ones(()), {}, {}, {}))
    monkeypatch.setitem(moved.MOVED, "cl_repro.of_before", "cl_repro.methods")
    assert module == "cl_repro.methods.quadratic"
    assert isinstance(checkpoint.restored(("cl_repro.of_before.quadratic", name, values)), Pull)
