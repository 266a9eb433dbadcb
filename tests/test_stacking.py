"""How many replicas one stack holds, and what happens where a device has no memory for them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cli
import pytest
import torch
from made_experiments import digits, made_experiment

from cl_repro import engine
from cl_repro.common.errors import OutOfMemoryError
from cl_repro.engine import Experiment
from cl_repro.models.convnet import convnet
from cl_repro.records import Store
from cl_repro.study import provenance, stacking, study, worker
from cl_repro.study.grid import Arm
from cl_repro.study.jobs import Job
from cl_repro.types import Benchmark, Net


def limit_of(setting: Any, experiment: Experiment) -> int:
    """Of a study of one arm, on a CPU."""
    arm = Arm("arm", {"max_replicas": setting}, "config", "stack", True)
    workshop: Any = SimpleNamespace(experiment=lambda *_: experiment)
    found = stacking.limits(workshop, [arm], "cpu", {})
    assert found.measured == {} and found.processes == 1
    return found.replicas["stack"]


def images(side: int) -> Benchmark:
    """Split digits, as images of one colour whose sides are so many pixels."""
    made = digits()
    x = torch.nn.functional.interpolate(made.x.reshape(-1, 1, 8, 8), size=side)
    return made._replace(x=x)


def convolutions(side: int) -> Net:
    """Of two channels, then one."""
    return convnet((2, 1), (), input_shape=(1, side, side), n_outputs=10)


@pytest.mark.parametrize(
    ("experiment", "expected", "stacked"),
    [
        (made_experiment(hidden=(100, 100)), 64 * 100 + 100 * 100 + 100 * 10, True),
        (made_experiment(hidden=(400, 400)), 64 * 400 + 400 * 400 + 400 * 10, False),
        # a convolution of 9 weights at every pixel, then one of 18 at every second row and column; the head
        (made_experiment(images(8), net=convolutions(8)), 64 * 18 + 16 * 18 + 16 * 10, True),
        (made_experiment(images(64), net=convolutions(64)), 4096 * 18 + 1024 * 28, False),
    ],
)
def test_a_stack_is_of_networks_with_few_multiplications(experiment: Experiment, expected: int, stacked: bool) -> None:
    assert stacking.multiply_adds(experiment) == expected
    assert (limit_of("auto", experiment) > 1) == stacked
    assert limit_of(3, experiment) == 3


@pytest.mark.parametrize(
    ("seconds", "room", "expected"),
    [
        ([8, 8, 8, 1], 9, 1),  # twice in a row nothing is won: the rest is not tried
        ([8, 8, 2, 2, 2, 1], 99, 4),
        ([8, 4, 2, 1, 1, 1], 99, 8),
        ([8, 4, 2, 1, 1, 1], 4, 4),  # K = 8 would hold more than there is
        ([8, 7.9, 7.7, 1], 99, 1),
        ([8], 0, 1),
    ],
)
def test_a_stack_has_the_size_with_the_fastest_replicas(seconds: list[float], room: float, expected: int) -> None:
    def cost_of(k: int) -> stacking.Cost:
        return stacking.Cost(seconds[k.bit_length() - 1], k)

    assert stacking.fastest(cost_of, room) == expected


@pytest.mark.parametrize("error", worker.FULL)
def test_a_size_that_the_device_has_no_memory_for_is_none(error: type[Exception]) -> None:
    def cost_of(k: int) -> stacking.Cost:
        if k > 4:
            raise error("full")
        return stacking.Cost(1 / k, k)

    assert stacking.fastest(cost_of, 99) == 4


@pytest.mark.parametrize(
    ("setting", "workers", "room", "processes"),
    [
        ("auto", "auto", 99, 6),  # K = 4, which hold 4 each, and a context of 1
        ("auto", "auto", 14, 2),
        ("auto", "auto", 4, 1),
        ("auto", 3, 99, 1),
        (1, "auto", 9, 4),
        (8, "auto", 99, 1),  # a stack that keeps the device busy by itself
        (5, "auto", 99, 1),  # no memory for so many
    ],
)
def test_small_stacks_share_a_cuda_device_as_far_as_their_measured_memory_goes(
    setting: Any, workers: Any, room: float, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time nothing is measured."""
    asked: list[int] = []

    def cost(experiment: Any, method: Any, estimator: Any, cfg: Any, k: int) -> stacking.Cost:
        asked.append(k)
        if k > 4:
            raise torch.OutOfMemoryError("full")
        return stacking.Cost(1 / k, k)

    monkeypatch.setattr(stacking, "cost", cost)
    monkeypatch.setattr(stacking, "CONTEXT", 1.0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, room / stacking.CUDA_SHARE))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "made")
    arm = Arm("arm", {"max_replicas": setting, "workers": workers}, "config", "stack", True)
    workshop: Any = SimpleNamespace(experiment=lambda *_: made_experiment(), method=str, estimator=str)
    found = stacking.limits(workshop, [arm], "cuda:0", {})
    expected = 4 if setting == "auto" else setting
    assert found.replicas == {"stack": expected}
    assert found.processes == processes
    assert len(asked) == len(set(asked))
    asked.clear()
    assert stacking.limits(workshop, [arm], "cuda:0", found.measured) == found
    assert not asked


def test_what_is_measured_is_the_start_of_the_run_on_fewer_examples() -> None:
    """Both tasks of K replicas, with their seeds in turn."""
    made = made_experiment(batch_size=8, rows_per_pass=20)
    thin = stacking.thinned(made.benchmark, 30).curriculum(3)
    whole = made.benchmark.curriculum(3)
    for of, full in zip(thin.tasks, whole.tasks, strict=True):
        assert torch.equal(of.rows, full.rows[:30]) and torch.equal(of.rows_test, full.rows_test[:30])


TINY = ["iterations=3", "grid.lambdas=[1,10,100,1000,10000]", "seeds=[1]", "max_replicas=5", "fisher=sample"]


@pytest.mark.parametrize("error", worker.FULL)
def test_a_chunk_goes_on_by_halves_where_memory_runs_out(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five replicas become 3 and 2, the 3 become 2 and 1; the rows say so, and are those of such stacks."""
    stages = engine.stages

    def cramped(experiment: Any, method: Any, replicas: Any, *rest: Any) -> Any:
        if len(replicas) > 2:
            raise error("out of memory")
        return stages(experiment, method, replicas, *rest)

    monkeypatch.setattr(engine, "stages", cramped)
    assert not study.compute_missing(cli.arms(*TINY, f"results_dir={tmp_path}"), "test", cores=1).unfinished
    rows = Store(tmp_path / "runs").read()["runs.csv"]
    sizes = {float(row["lambda"]): row["replicas_in_chunk"] for row in rows}
    assert sizes == {1: "2", 10: "2", 100: "1", 1000: "2", 10000: "2"}
    assert [line.split(": ")[1] for line in capsys.readouterr().err.splitlines()] == [
        "going on with 3 instead of 5 replicas",
        "going on with 2 instead of 3 replicas",
    ]
    assert [path.name for path in (tmp_path / "runs" / ".spool").iterdir() if path.suffix not in (".lock", "")] == []


def test_a_half_that_fails_leaves_the_other_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = engine.stages

    def cramped(experiment: Any, method: Any, replicas: Any, *rest: Any) -> Any:
        if len(replicas) > 3:
            raise torch.OutOfMemoryError("out of memory")
        if replicas[0].lam == 1.0:
            raise RuntimeError("of this half")
        return stages(experiment, method, replicas, *rest)

    monkeypatch.setattr(engine, "stages", cramped)
    ended = study.compute_missing(cli.arms(*TINY, f"results_dir={tmp_path}", "time_budget=60"), "test", cores=1)
    assert ended.unfinished.startswith("3 of 5 runs are missing; 1 chunks failed") and not ended.stopped
    again = cli.arms(*TINY, f"results_dir={tmp_path}", "seeds=[2]", "retry=failed", "time_budget=60")
    assert not study.compute_missing(again, "test", cores=1).stopped, "nothing was pending"


def test_one_replica_that_does_not_fit_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory in training is the chunk's failure; with one example per pass, it is told in one line."""
    job = Job(
        study.plan(cli.arms(*TINY[:1], "grid=one", *TINY[2:])).chunks[0],
        study.plan(cli.arms(*TINY[:1], "grid=one", *TINY[2:])).arms,
        tmp_path,
        "cpu",
        provenance.Source("abc", dirty=False),
    )

    def full(error: Exception) -> Any:
        def stages(*_: Any) -> Any:
            raise error

        return stages

    shop = worker.Workshop(lambda *_: None)
    monkeypatch.setattr(engine, "stages", full(torch.OutOfMemoryError("CUDA out of memory")))
    assert shop.compute(job) == worker.FAILED
    monkeypatch.setattr(engine, "stages", full(OutOfMemoryError("out of memory on cuda:0 with 1 examples per pass")))
    with pytest.raises(OutOfMemoryError, match="with 1 examples per pass"):
        shop.compute(job)
