"""time_budget: a study in slices, each of which ends in time and gets on; how a chunk is cut: test_checkpoint.py."""

from pathlib import Path

import cli
import pytest

from cl_repro.records import Store
from cl_repro.study import pool, provenance, study, worker
from cl_repro.study.jobs import Job


class Clock:
    """Stands in for `time`: every chunk takes so many seconds of it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (study, pool):
        monkeypatch.setattr(module, "time", made)
    return made


def begun(seconds: float | None, chunks: list[float], clock: Clock) -> int:
    """How many chunks of these lengths begin within a budget."""
    budget, n = pool.Budget(seconds, clock.now), 0
    for length in chunks:
        if not budget.allows():
            break
        since, n = clock.now, n + 1
        clock.now += length
        budget.took(since, 1)
    return n


@pytest.mark.parametrize(
    ("seconds", "chunks", "expected"),
    [
        (None, [50.0] * 9, 9),
        (100.0, [10.0] * 99, 10),  # to the last second
        (99.0, [10.0] * 99, 9),
        (100.0, [10.0, 60.0, 10.0, 10.0], 2),  # as long as the longest so far would end too late
        (5.0, [10.0, 10.0], 1),  # the first always begins: every launch gets on
    ],
)
def test_no_chunk_begins_that_would_end_too_late(clock, seconds, chunks, expected):
    assert begun(seconds, chunks, clock) == expected


def test_a_chunk_begins_where_there_is_time_for_one_of_its_tasks(clock):
    budget = pool.Budget(60.0, clock.now)
    clock.now += 50.0
    budget.took(1000.0, 5)
    assert budget.allows()
    clock.now += 0.1
    assert not budget.allows()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_slices_add_up_to_the_study(workers, tmp_path: Path):
    """With a budget of nothing each launch computes a task of one chunk per process, and the next continues."""
    work = ["grid.lambdas=[1,10,100,1000]", "max_replicas=1", "seeds=[1]", "iterations=2", f"workers={workers}"]
    arms = cli.arms(*work, "time_budget=1e-9", f"results_dir={tmp_path}")
    left = []
    while True:
        ended = study.compute_missing(arms, "test", cores=2)
        if not ended.unfinished:
            break
        left.append(ended.unfinished.split(";")[0])
    before = [n for n in range(4, 0, -workers) for _ in range(5)][1:]
    assert left == [f"{n} of 4 runs are missing" for n in before]
    assert len(Store(tmp_path / "runs").read()["runs.csv"]) == 4


def test_what_another_launch_computes_costs_no_budget(clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A chunk that is busy elsewhere answers at once: it is not the longest chunk so far."""
    planned = study.plan(cli.arms("grid.lambdas=[1,10]", "max_replicas=1", "seeds=[1]", "iterations=2"))
    asked = []

    def compute(self: worker.Workshop, job: Job, wait: bool) -> str:
        asked.append((job.chunk[0].lam, wait))
        if job.chunk[0].lam == 1.0 and not wait:
            return worker.BUSY
        clock.now += 10.0
        return worker.DONE

    monkeypatch.setattr(worker.Workshop, "compute", compute)
    source = provenance.Source("unknown", dirty=False)
    jobs = [Job(chunk, planned.arms, tmp_path, "cpu", source) for chunk in planned.chunks]
    pool.compute(Store(tmp_path), jobs, 1, pool.Budget(20.0, clock.now))
    assert asked == [(1.0, False), (10.0, False), (1.0, True)]
