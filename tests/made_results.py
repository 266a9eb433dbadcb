"""Results folders made up for the tests: CSVs as the engine writes them, with curves whose shape is known."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd

from cl_repro.records.columns import BOOL, FLOAT, INT, TEXT
from cl_repro.records.identity import SCHEMA_VERSION
from cl_repro.records.schema import RUNS, STUDY

LAMS = 10.0 ** np.arange(14)
SEEDS = (1, 2, 3, 4, 5)
RISES = {"exact": 1.5, "exact_500": 1.6, "sample": 4.4, "empirical": 4.5, "batched": 6.5}  # log10 lambda
TRACES = {"exact": 1e-2, "exact_500": 6e-3, "sample": 1e-5, "empirical": 1e-5, "batched": 1e-7}
FLOOR, BEST = 87.0, 99.1  # percent: None, and the top of every curve


def any_row(run_id: str, **other) -> dict:
    """A row of runs.csv of which only its types are right; `other` replaces any column."""
    usual = {TEXT: "x", FLOAT: "0.5", INT: "1", BOOL: "True"}
    return {name: usual[column.type] for name, column in RUNS.items()} | {"run_id": run_id} | other


def row(arm: str, method: str, fisher: str, lam: float | None, seed: int, accuracy: float, **other) -> dict:
    """One row of runs.csv; `accuracy` a fraction, NaN for a diverged run; `other` replaces any column."""
    config_id = hashlib.sha256(arm.encode()).hexdigest()[:8]
    run_id = hashlib.sha256(f"{arm} {lam} {seed} {other.get('benchmark')}".encode()).hexdigest()[:16]
    values = {
        "run_id": run_id, "config_id": config_id, "study": "split_mnist_fisher", "scale": "paper", "arm": arm,
        "benchmark": "split_mnist", "scenario": "task", "model": "mlp", "method": method, "fisher": fisher,
        "lambda": lam, "seed": seed, "batch_size": 128, "iterations": 2000, "n_tasks": 5, "accuracy": accuracy,
        "forgetting": 0.01, "bwt": -0.01, "fwt": 0.0, "status": "ok" if np.isfinite(accuracy) else "diverged",
        "seconds_train": 30.0, "seconds_fisher": 0.5, "seconds_eval": 0.2, "seconds_total": 30.7,
        "replicas_in_chunk": 1, "shared_first_task": True, "peak_memory": 10**9, "dtype": "float32", "device": "cpu",
        "hardware": "a processor", "torch": "2.13.0+cpu", "git_sha": "0123456789abcdef", "dirty": False,
        "finished": "2026-11-21T06:00:00+00:00", "schema_version": SCHEMA_VERSION,
    }  # fmt: skip
    return {**values, **other}


def fisher_rows(seeds=SEEDS, fishers=tuple(RISES), noise: float = 0.15, **other) -> list[dict]:
    """None and the estimators: logistic rises at `RISES`, a slow decline at the far end, noise per seed and run."""
    rng = np.random.default_rng(0)
    floors = FLOOR + 2.0 * rng.standard_normal(len(seeds))
    rows = [
        row("finetune", "finetune", "", None, seed, floor / 100, **other)
        for seed, floor in zip(seeds, floors, strict=True)
    ]
    log_lam = np.log10(LAMS)
    for fisher in fishers:
        up = 1 / (1 + np.exp(-2.5 * (log_lam - RISES[fisher])))
        down = 0.35 * np.maximum(log_lam - RISES[fisher] - 4, 0)
        for seed, floor in zip(seeds, floors, strict=True):
            curve = floor + (BEST - floor) * up - down + noise * rng.standard_normal(log_lam.size)
            rows += [
                row(f"ewc-{fisher}", "ewc", fisher, lam, seed, min(value / 100, 1.0), **other)
                for lam, value in zip(LAMS, curve, strict=True)
            ]
    return rows


def timing_rows(seeds=(1, 2, 3)) -> list[dict]:
    """None 100 s; one_sample at the published ratios of blog-draft plus the seed in seconds; ours 2 s over None."""
    ratios = {"exact": 2.46, "sample": 1.92, "empirical": 1.86, "exact_500": 1.19, "batched": 1.18}
    own = {"study": "split_mnist_timing", "shared_first_task": False}
    rows = []
    for seed in seeds:
        rows.append(row("finetune", "finetune", "", None, seed, 0.87, **own, seconds_train=100.0, seconds_fisher=0.0))
        for fisher, ratio in ratios.items():
            for prefix, seconds in (("", 2.0), ("one_sample/", 100 * ratio - 100 + seed - 2)):
                name = f"{prefix}{fisher}"
                timed = {**own, "seconds_train": 100.0, "seconds_fisher": seconds}
                rows.append(row(f"ewc-{name}", "ewc", name, 1e4, seed, 0.99, **timed))
    return rows


def write(
    folder: Path, rows: list[dict], provenance: bool = True, val: dict[str, float] | None = None, command: str = ""
) -> Path:
    """Write runs.csv, accuracy.csv, importance.csv and provenance.json of `rows` into `folder`.

    `val`: accuracies on held-out examples, by run_id; `command`: what made all rows, for provenance.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    runs = pd.DataFrame(rows)[list(RUNS)]
    per_task = [(r["run_id"], "test", 4, task, r["accuracy"]) for r in rows for task in range(5)]
    per_task += [(run_id, "val", 4, task, value) for run_id, value in (val or {}).items() for task in range(5)]
    traces = [
        (r["run_id"], after, TRACES[r["fisher"]] * (1 + 0.1 * r["seed"]) * (1 + after))
        for r in rows
        if r["fisher"] in TRACES
        for after in range(4)
    ]
    runs.to_csv(folder / "runs.csv", index=False)
    pd.DataFrame(per_task, columns=list(STUDY["accuracy.csv"])).to_csv(folder / "accuracy.csv", index=False)
    pd.DataFrame(traces, columns=list(STUDY["importance.csv"])).to_csv(folder / "importance.csv", index=False)
    if provenance:
        write_provenance(folder, command=command)
    return folder


def write_provenance(
    folder: Path, version: int = SCHEMA_VERSION, previous: dict | None = None, command: str = ""
) -> None:
    """Write provenance.json with the hashes of the CSVs as they are now, and the command that made every row."""
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.csv"))}
    content = {"schema_version": version, "files": files, "previous": previous or {}}
    if command:
        ids = sorted(pd.read_csv(folder / "runs.csv", dtype=str)["config_id"].unique())
        content["invocations"] = [{"command": command, "config_ids": ids}]
    (folder / "provenance.json").write_text(json.dumps(content))
