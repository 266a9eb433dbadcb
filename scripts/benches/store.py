"""The store of a study of 100,000 runs: what one more row costs, `status`, the tables; and 1,000 chunks of one run.

The runs are made up, in the usual size.
"""

import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from benches.measure import MB, Row, Setting, cost, figure, interleave
from cl_repro.common.runtime import clock
from cl_repro.records import Store, to_csv
from cl_repro.records.columns import BOOL, FLOAT, INT, TEXT
from cl_repro.records.identity import SCHEMA_VERSION
from cl_repro.records.schema import RUNS, STUDY
from cl_repro.study import pool, provenance, study, worker
from cl_repro.study.compose import from_command_line
from cl_repro.study.config import PACKAGE, register
from cl_repro.study.grid import Arm, Cell, cells, estimator_name, make_arm
from cl_repro.study.jobs import Job

SEEDS, LAMBDAS = 200, 100  # of five estimators, and one run a seed without
N_TASKS = 5
CHUNKS = 1000
CHUNK_SECONDS = 1.0  # of training, in which bookkeeping may take 2 %
END = 100  # chunks at either end of those
# A module, and then the most memory it held (Linux), as no parent can ask: there its own counts, too.
PEAK = """
import atexit, runpy, sys
atexit.register(lambda: sys.stderr.write(open("/proc/self/status").read()))
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__")
"""


def rows(setting: Setting) -> list[Row]:
    """Rows of the results store: reading and merging as a study grows, and bookkeeping of its chunks."""
    register()
    rounds = min(setting.rounds, 3)
    return [*grown(rounds, SEEDS, LAMBDAS), bookkeeping(CHUNKS)]


def grown(rounds: int, seeds: int, lambdas: int) -> list[Row]:
    """What is done with the folder of a study that has so many seeds, and lambdas of each of its five estimators."""
    overrides = ["study=split_mnist_fisher", counted("seeds", seeds), counted("grid.lambdas", lambdas)]
    with tempfile.TemporaryDirectory() as folder:
        arms = [make_arm(cfg) for cfg in from_command_line(overrides)]
        n, place = pretend(Path(folder) / "results", arms), Path(folder) / "results" / "split_mnist_fisher"
        store, new, peaks = Store(place), itertools.count(), list[float]()

        def merge() -> float:
            seed = seeds + 1 + next(new)
            cell = Cell(0, None, seed, f"{seed:016x}")
            began = clock("cpu")
            store.put("one", {"runs.csv": [run_row(arms[0], cell)], **beside(cell.run_id)})
            store.merge()
            return clock("cpu") - began

        def status() -> float:
            used = command(Path(folder), "-c", PEAK, "cl_repro", "status", *overrides)
            peaks.append(1024 * int(used.said.rsplit("VmHWM:")[-1].split()[0]))
            return used.processor

        def tables() -> float:
            return command(Path(folder), str(PACKAGE.parent / "scripts" / "table.py"), place.name).processor

        seconds = interleave({"merge": merge, "status": status, "tables": tables}, rounds)
    note = f"{n:,} runs with {sum(map(len, beside('').values()))} rows each beside runs.csv; processor time"
    return [
        figure("one more run, to its spool file and to the CSVs", seconds["merge"], "s", 0.1, note),
        figure("status", seconds["status"], "s", 5.0, note),
        figure("status, memory", max(peaks) / MB, "MB", 500.0, note),
        figure("tables", seconds["tables"], "s", 10.0, note),
    ]


def bookkeeping(n: int) -> Row:
    """Processor time of locks, marks, spool files and merges of so many chunks of one run, without the training."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = ["benchmark=split_digits", counted("seeds", n), f"results_dir={folder}"]
        planned = study.plan(from_command_line([*overrides, "max_replicas=1", "device=cpu"]))
        jobs = [Job(chunk, planned.arms, planned.folder, "cpu", provenance.source()) for chunk in planned.chunks]
        begun, wall = list[float](), list[float]()

        def recorded(_: worker.Workshop, job: Job) -> dict[str, list[dict]]:
            begun.append(clock("cpu"))
            wall.append(time.perf_counter())
            [cell] = job.chunk
            return {"runs.csv": [run_row(job.arms[cell.arm], cell)], **beside(cell.run_id)}

        passed = time.monotonic  # in which each chunk has been trained
        with (
            mock.patch.object(worker.Workshop, "rows", recorded),
            mock.patch.object(time, "monotonic", lambda: passed() + CHUNK_SECONDS * len(begun)),
        ):
            pool.compute(Store(planned.folder), jobs, 1, pool.Budget(None, 0.0))
    first, last, wait = ((p[-1] - p[0]) / (len(p) - 1) for p in (begun[: END + 1], begun[-END - 1 :], wall))
    name = f"locks, marks and merges of {n:,} chunks of one run / {CHUNK_SECONDS:g} s of training each"
    note = f"the last {END} chunks, {last / first:.2f} times the first {END}; wall time {wait / CHUNK_SECONDS:.1%}"
    return cost(name, max(first, last), CHUNK_SECONDS, 2.0, "%", note=note)


def counted(key: str, n: int) -> str:
    """The override that asks for seeds 1 to n."""
    return f"{key}=[{','.join(map(str, range(1, n + 1)))}]"


# --- made-up runs -----------------------------------------------------------------------------------------------------


def run_row(arm: Arm, cell: Cell) -> dict[str, Any]:
    """A row of runs.csv."""
    cfg, usual = arm.cfg, {TEXT: "eightlet", FLOAT: "0.991234", INT: "12345", BOOL: "True"}
    own = {group: cfg[group]["name"] for group in ("benchmark", "scenario", "model", "method")}
    own |= {"run_id": cell.run_id, "config_id": arm.config_id, "study": cfg["name"], "arm": arm.label}
    own |= {"fisher": estimator_name(cfg), "lambda": cell.lam, "seed": cell.seed, "n_tasks": N_TASKS, "status": "ok"}
    own |= {"finished": provenance.now(), "schema_version": SCHEMA_VERSION}
    return {name: usual[column.type] for name, column in RUNS.items()} | own


def beside(run_id: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of the other files."""
    tasks = range(N_TASKS)
    accuracy = {"run_id": run_id, "split": "test", "accuracy": "0.991234"}
    return {
        "accuracy.csv": [accuracy | {"after_task": k, "task": j} for k in (-1, *tasks) for j in tasks],
        "importance.csv": [{"run_id": run_id, "after_task": k, "trace": "0.00123456"} for k in tasks[:-1]],
        "storage.csv": [{"run_id": run_id, "kind": kind, "bytes": 2872924} for kind in ("state", "examples")],
        "representation.csv": [{"run_id": run_id, "measure": m, "value": "0.51234"} for m in ("overlap", "active")],
    }


def pretend(results: Path, arms: Sequence[Arm]) -> int:
    """Rows of the usual size for every run of a study; how many runs."""
    planned, mark = cells(arms), "0123456789abcdef"
    files = {"runs.csv": to_csv(RUNS, [run_row(arms[cell.arm], cell) for cell in planned])}
    for name, of_one in beside(mark).items():
        text = to_csv(STUDY[name], of_one, header=False)
        each = (text.replace(mark.encode(), cell.run_id.encode()) for cell in planned)
        files[name] = to_csv(STUDY[name], []) + b"".join(each)
    store = Store(results / (arms[0].cfg["name"] + arms[0].cfg["suffix"]))
    store.create()
    store.replace(files)
    return len(planned)


class Used(NamedTuple):
    """What a command took."""

    wall: float  # seconds
    processor: float  # likewise
    said: str  # to its standard error


def command(folder: Path, *arguments: str) -> Used:
    """`python ARGUMENTS` in a folder."""
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    before, began = processor_of_children(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    return Used(time.perf_counter() - began, processor_of_children() - before, done.stderr)


def processor_of_children() -> float:
    """Processor seconds of all processes started from here that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
