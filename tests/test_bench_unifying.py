"""That what the unifying bench compares computes the same, and that its CUDA code runs."""

from pathlib import Path

import pytest
import torch
from made_experiments import digits, made_experiment, thinned
from made_trees import error, same

from benches import unifying, workloads
from benches.measure import Setting, interleave, verdict
from benches.workloads import all_steps
from cl_repro.benchmarks import scenarios
from cl_repro.engine import Experiment
from cl_repro.engine.stack import lower
from cl_repro.types import Tree


def small() -> Experiment:
    """Ten active logits in the last of five tasks, as the bench has them; few digits, a small network."""
    return made_experiment(thinned(digits(), 20), scenarios.class_(), hidden=(9, 7), iterations=3)


def test_the_loop_computes_what_the_passes_do() -> None:
    net, params, x, active = unifying.loop_data(small(), 6)
    assert active.tolist() == list(range(10))
    assert len(x) == 6
    by_loop = unifying.one_at_a_time(net, params, x, active)
    assert by_loop.keys() == unifying.ESTIMATORS.keys()
    y, noise = torch.zeros(6, dtype=torch.int64), torch.zeros(6, dtype=torch.float64)
    for name, make in unifying.ESTIMATORS.items():
        assert error(make(6).sum(net, params, {}, x, y, noise, active), by_loop[name]) < 1e-12


def test_every_pass_is_of_the_examples_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def estimate(of: Experiment, params: Tree, buffers: Tree, estimator: object, seed: int, task: int) -> None:
        asked.append((estimator.rows(20), estimator.divisor(20), task))

    monkeypatch.setattr(workloads, "estimate", estimate)
    found = unifying.passes(small(), 12)
    found["exact"]()
    assert asked == [(12, 12.0, 4)]
    found["all"]()
    assert asked == [(12, 12.0, 4)] * 6


def test_observed_training_is_plain_training_and_is_observed() -> None:
    """The same weights to the last bit; and what is observed follows S(si) = S(siu) + S(sib)."""
    plain, watched = unifying.plain_training(small()), unifying.observed_training(small())
    for course in (plain, watched):
        all_steps(course)
    assert same(plain.stack.params, watched.stack.params)
    assert not same(plain.stack.params, unifying.plain_training(small()).stack.params)
    si, siu, sib, sos = watched.state.acting, *watched.state.watching
    assert list(unifying.OBSERVERS) == ["si", "siu", "sib", "sos"]
    assert error({name: s + sib.path[name] for name, s in siu.path.items()}, si.path) < 1e-12
    moved = lower(plain.stack.params, 1)
    for observed in (si.path, siu.path, sib.path, sos.v):
        assert observed.keys() == moved.keys()
        assert all((value != 0).any() for value in observed.values())


def test_the_code_of_the_cuda_rows_runs_on_any_device() -> None:
    of = small()
    seconds = interleave(unifying.passes(of, 8) | unifying.training(of), 1)
    assert seconds.keys() == {"all", "exact", "observed", "plain"}
    assert all(value > 0 for value in seconds.values())


def test_without_cuda_its_rows_are_not_measured() -> None:
    rows = unifying.on_cuda(Setting(rounds=1, data_dir=Path("nowhere")))
    assert [verdict(row) for row in rows] == ["not measured"] * 2
    assert [row.target for row in rows] == [5.0, 2.2]
    assert [row.name for row in rows] == [f"CUDA: {name}" for name in (unifying.PASSES, unifying.TRACKING)]


def test_the_rows_say_which_figure_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """From made seconds: three targets met, and each missed when its ratio is worse."""
    made = {"all": 4.0, "exact": 1.0, "loop": 240.0, "observed": 2.0, "plain": 1.0}
    monkeypatch.setattr(unifying, "workload", lambda data_dir: (small(), "made data"))
    monkeypatch.setattr(unifying, "interleave", lambda candidates, rounds: {name: made[name] for name in candidates})
    setting = Setting(rounds=1, data_dir=Path("nowhere"))
    assert [(row.value, verdict(row)) for row in unifying.rows(setting)[:3]] == [
        (4.0, "met"),
        (2.0, "met"),
        (60.0, "met"),
    ]
    made |= {"all": 6.0, "observed": 3.0}
    assert [verdict(row) for row in unifying.rows(setting)[:3]] == ["not met"] * 3
