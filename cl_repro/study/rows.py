"""The rows of a run."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cl_repro import engine
from cl_repro.common import runtime
from cl_repro.engine.metrics import summary
from cl_repro.records import Row
from cl_repro.records.identity import SCHEMA_VERSION
from cl_repro.study import provenance
from cl_repro.study.grid import Cell, estimator_name
from cl_repro.study.jobs import Job


def rows_of(
    job: Job, cell: Cell, experiment: engine.Experiment, outcome: engine.Outcome, shared: bool
) -> dict[str, list[Row]]:
    """All rows of one replica, by file; its first task may be shared with others."""
    run_id, of_splits = cell.run_id, {"test": outcome.accuracy, "val": outcome.validation}
    accuracy = (accuracy_rows(run_id, split, matrix) for split, matrix in of_splits.items() if matrix is not None)
    return {
        "runs.csv": [run_row(job, cell, experiment, outcome, shared)],
        "accuracy.csv": [row for of_split in accuracy for row in of_split],
        "importance.csv": [
            {"run_id": run_id, "after_task": k, "trace": f"{value:.6g}"} for k, value in enumerate(outcome.traces)
        ],
        "storage.csv": [{"run_id": run_id, "kind": kind, "bytes": n} for kind, n in outcome.storage.items()],
        "representation.csv": [
            {"run_id": run_id, "measure": measure, "value": f"{value:.6g}"}
            for measure, value in outcome.representation.items()
            if math.isfinite(value)
        ],
    }


def accuracy_rows(run_id: str, split: str, matrix: NDArray[np.float64]) -> list[Row]:
    """The rows of accuracy.csv of one replica and split; matrix [T + 1, T], row 0 before any training."""
    return [
        {"run_id": run_id, "split": split, "after_task": k - 1, "task": j, "accuracy": f"{value:.6g}"}
        for k, after in enumerate(matrix)
        for j, value in enumerate(after)
    ]


def run_row(job: Job, cell: Cell, experiment: engine.Experiment, outcome: engine.Outcome, shared: bool) -> Row:
    """The row of runs.csv of one replica."""
    arm = job.arms[cell.arm]
    cfg, seconds = arm.cfg, outcome.seconds
    result = summary(outcome.accuracy)
    numbers = {k: f"{v:.6g}" if outcome.finite and not math.isnan(v) else None for k, v in result._asdict().items()}
    return {
        "run_id": cell.run_id,
        "config_id": arm.config_id,
        "study": cfg["name"],
        "scale": cfg["suffix"].lstrip("_") or "paper",  # scales without a folder of their own differ in seeds only
        "arm": arm.label,
        **{group: cfg[group]["name"] for group in ("benchmark", "scenario", "model", "method")},
        "fisher": estimator_name(cfg),
        "lambda": cell.lam,
        "seed": cell.seed,
        "batch_size": experiment.batch_size,
        "iterations": outcome.steps,
        "n_tasks": experiment.benchmark.n_tasks,
        **numbers,  # empty if the run diverged
        "status": "ok" if outcome.finite else "diverged",
        "seconds_train": f"{seconds.train:.4f}",
        "seconds_fisher": f"{seconds.fisher:.4f}",
        "seconds_eval": f"{seconds.evaluate:.4f}",
        "seconds_total": f"{seconds.train + seconds.fisher + seconds.evaluate:.4f}",
        "replicas_in_chunk": len(job.chunk),
        "shared_first_task": shared,
        "peak_memory": runtime.peak_memory(job.device),
        **origin(job, cfg),
    }


def origin(job: Job, cfg: dict[str, Any]) -> Row:
    """The columns that say where a row comes from (`columns.ORIGIN`)."""
    return {
        "dtype": cfg["dtype"],
        "device": job.device.split(":")[0],
        "hardware": runtime.hardware(job.device),
        "torch": torch.__version__,
        "git_sha": job.source.git_sha,
        "dirty": job.source.dirty,
        "finished": provenance.now(),
        "schema_version": SCHEMA_VERSION,
    }
