"""A sweep around its training: what records, locks and progress cost, jobs side by side, and how fast `status` answers.

The last two are the command as a user gives it: processes of their own in temporary folders, wall seconds.
"""

import io
import os
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple
from unittest import mock

from benches.measure import Row, Setting, cost, figure, interleave, speedup, timed
from benches.store import command, pretend
from cl_repro import engine
from cl_repro.records import Store
from cl_repro.study import pool, provenance, study, worker
from cl_repro.study.compose import from_command_line
from cl_repro.study.config import register
from cl_repro.study.grid import chunk_id, make_arm
from cl_repro.study.jobs import Job

DIGITS = ("study=split_digits_fisher", "scale=cpu", "device=cpu", "workers=1")
JOBS = ("fisher=exact", "lam=1,10,100,1000,10000,100000", "seeds=[1]", "iterations=3000", "workers=1", "device=cpu")
MNIST = ("study=split_mnist_fisher", "scale=paper")
PROCESS_ROUNDS = 2  # at most: one takes minutes


class Trained(NamedTuple):
    """What training a chunk gave, to be recorded again without training."""

    rows: dict[str, list[dict]]
    reports: list[tuple[int, int, float]]  # to the progress bar


class Terminal(io.StringIO):
    """A standard error that the progress bar draws on."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def rows(setting: Setting) -> list[Row]:
    """Rows of sweeps: what a job costs beside its training, jobs beside each other, and the answer of `status`."""
    return [overhead(setting.rounds), beside_each_other(min(setting.rounds, PROCESS_ROUNDS)), answer(setting.rounds)]


def overhead(rounds: int, overrides: Sequence[str] = DIGITS) -> Row:
    """Processor time of a study besides its training, in % of its training.

    The study is trained once. Then `pool.compute` goes through the same chunks, reports and rows again and again, in
    an empty folder each time, with everything but the training: the difference of two long runs would drown a percent.
    """
    register()
    with tempfile.TemporaryDirectory() as folder:
        planned = study.plan(from_command_line([*overrides, f"results_dir={folder}"]))
        jobs = [Job(c, planned.arms, planned.folder, "cpu", provenance.source()) for c in planned.chunks]
        known: dict[str, Trained] = {}
        training = timed(lambda: known.update(train(jobs)), 1)()

    def recorded(self: worker.Workshop, job: Job) -> dict[str, list[dict]]:
        trained = known[chunk_id(job.chunk)]
        for done in trained.reports:
            self.report(*done)
        return trained.rows

    def record() -> None:
        with (
            tempfile.TemporaryDirectory() as folder,
            redirect_stderr(Terminal()),
            mock.patch.object(worker.Workshop, "rows", recorded),
        ):
            there = Path(folder) / "study"
            pool.compute(Store(there), [job._replace(folder=there) for job in jobs], 1, pool.Budget(None, 0.0))
            Store(there).merge()  # as `study.compute_missing` does

    seconds = interleave({"records": timed(record, 1)}, rounds)
    name = f"records, locks and progress of a study of {sum(map(len, planned.chunks))} runs / its training"
    note = f"split_digits_fisher in {len(jobs)} chunks, trained once, recorded {rounds} times, bar drawn"
    return cost(name, seconds["records"], training, 2.0, "%", note=note)


def train(jobs: Sequence[Job]) -> dict[str, Trained]:
    """All chunks in one process, without a store; by chunk."""
    reports: list[tuple[int, int, float]] = []
    report: engine.Report = lambda *done: reports.append(done)  # noqa: E731
    workshop, result = worker.Workshop(report), {}
    for job in jobs:
        found = workshop.rows(job)
        result[chunk_id(job.chunk)] = Trained(found, list(reports))
        reports.clear()
    return result


def beside_each_other(rounds: int, overrides: Sequence[str] = JOBS) -> Row:
    """Equal jobs of a sweep, two at a time with joblib, against one after the other with Hydra's basic launcher."""

    def in_new_folder(*arguments: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            return command(Path(folder), "-m", "cl_repro", "-m", *arguments).wall

    load = os.getloadavg()[0]
    joblib = ("hydra/launcher=workstation", "hydra.launcher.n_jobs=2")
    candidates = {"ours": partial(in_new_folder, *joblib, *overrides), "other": partial(in_new_folder, *overrides)}
    seconds = interleave(candidates, rounds)
    n = next(value for value in overrides if value.startswith("lam=")).count(",") + 1
    note = f"wall time of {n} digits jobs, {rounds} rounds; needs 2 idle cores: load average before it {load:.1f}"
    return speedup("joblib, 2 jobs at a time / Hydra's basic launcher", seconds["ours"], seconds["other"], 1.4, note)


def answer(rounds: int, overrides: Sequence[str] = MNIST) -> Row:
    """`status` of a study whose runs are all there."""
    register()
    with tempfile.TemporaryDirectory() as folder:
        arms = [make_arm(cfg) for cfg in from_command_line(overrides)]
        n, processor = pretend(Path(folder) / "results", arms), list[float]()

        def once() -> float:
            used = command(Path(folder), "-m", "cl_repro", "status", *overrides)
            processor.append(used.processor)
            return used.wall

        seconds = interleave({"status": once}, rounds)["status"]
    note = "wall time from the shell, all runs done; the other: processor time of the same"
    return figure(f"status of {n} runs", seconds, "s", 2.0, note, median(processor))
