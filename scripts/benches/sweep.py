"""A sweep around its training: what records, locks and progress cost, jobs side by side, and how fast `status` answers.

The last two are the command as a user gives it: processes of their own in temporary folders, wall seconds.
"""

import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from benches.measure import AT_MOST, Row, Setting, cost, interleave, speedup, timed
from cl_repro import engine
from cl_repro.records import Store
from cl_repro.records.schema import BOOL, FLOAT, INT, RUNS, TEXT
from cl_repro.study import pool, provenance, study, worker
from cl_repro.study.compose import from_command_line
from cl_repro.study.config import PACKAGE, register
from cl_repro.study.grid import cells, chunk_id, make_arm
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
    return cost(name, seconds["records"], training, "s", 2.0, "%", scale=100, note=note)


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
    load = os.getloadavg()[0]
    joblib = ("hydra/launcher=workstation", "hydra.launcher.n_jobs=2")
    seconds = interleave(
        {
            "ours": in_new_folder("-m", *joblib, *overrides),
            "other": in_new_folder("-m", *overrides),
        },
        rounds,
    )
    n = next(value for value in overrides if value.startswith("lam=")).count(",") + 1
    note = f"wall time of {n} digits jobs, {rounds} rounds; needs 2 idle cores: load average before it {load:.1f}"
    return speedup(
        "joblib, 2 jobs at a time / Hydra's basic launcher", seconds["ours"], seconds["other"], "s", 1.4, note
    )


def answer(rounds: int, overrides: Sequence[str] = MNIST) -> Row:
    """`status` of a study whose runs are all there."""
    register()
    with tempfile.TemporaryDirectory() as folder:
        n = pretend(Path(folder) / "results", overrides)
        processor: list[float] = []

        def once() -> float:
            before = processor_of_children()
            seconds = command(Path(folder), "status", *overrides)
            processor.append(processor_of_children() - before)
            return seconds

        seconds = interleave({"status": once}, rounds)["status"]
    note = "wall time from the shell, all runs done; the other: processor time of the same"
    name = f"status of {n} runs"
    return Row(name, seconds, sorted(processor)[len(processor) // 2], "s", seconds, "s", 2.0, AT_MOST, note)


def pretend(results: Path, overrides: Sequence[str]) -> int:
    """Write rows of the usual size for every run of a study; how many runs."""
    arms = [make_arm(cfg) for cfg in from_command_line(overrides)]
    cfg, planned = arms[0].cfg, cells(arms)
    n_tasks = cfg["benchmark"]["n_tasks"]
    run_ids = [cell.run_id for cell in planned]
    usual = {TEXT: "eightlet", FLOAT: "0.991234", INT: "12345", BOOL: "True"}
    known = {name: usual[column.type] for name, column in RUNS.items()} | {"status": "ok", "finished": provenance.now()}
    store = Store(results / (cfg["name"] + cfg["suffix"]))
    store.put(
        "pretended",
        {
            "runs.csv": [known | {"run_id": run_id} for run_id in run_ids],
            "accuracy.csv": [
                {"run_id": run_id, "split": "test", "after_task": k - 1, "task": j, "accuracy": "0.991234"}
                for run_id in run_ids
                for k in range(n_tasks + 1)
                for j in range(n_tasks)
            ],
            "importance.csv": [
                {"run_id": run_id, "after_task": k, "trace": "0.00123456"}
                for run_id in run_ids
                for k in range(n_tasks - 1)
            ],
        },
    )
    store.merge()
    return len(run_ids)


def in_new_folder(*arguments: str) -> Callable[[], float]:
    """A candidate: wall seconds of the command in a folder that has no results yet."""

    def once() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return command(Path(folder), *arguments)

    return once


def command(folder: Path, *arguments: str) -> float:
    """Wall seconds of `python -m cl_repro ARGUMENTS` in a folder."""
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "cl_repro", *arguments], cwd=folder, env=environment, check=True, capture_output=True
    )
    return time.perf_counter() - began


def processor_of_children() -> float:
    """Processor seconds of all processes started from here that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
