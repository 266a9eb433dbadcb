"""The anatomy of the Fisher: every estimator, on every number of examples, on one and the same trained network.

For each seed the engine trains the first task, or its weights are read from an earlier call; then every estimate is
made as a run makes it, timed, and compared with the exact Fisher of all examples (`passes`).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from cl_repro import compose, config, grid, provenance, runtime, study
from cl_repro.anatomy.passes import NS, Subject, cells, measured
from cl_repro.anatomy.weights import after_first_task
from cl_repro.errors import UserError
from cl_repro.records import Folder, Row, to_csv
from cl_repro.records.schema import ANATOMY
from cl_repro.types import Estimator
from cl_repro.worker import Workshop

# In this order: `sample` is compared with `empirical`.
ESTIMATORS = (
    "exact", "empirical", "sample", "predicted", "batched", "importance_sample", "exact_by_score",
    "importance_sample_by_score",
)  # fmt: skip


def run(overrides: Sequence[str]) -> Path:
    """Measure what a command line composes. Rows of these seeds are replaced, those of other seeds stay.

    Args:
        overrides: Hydra's, e.g. benchmark=split_mnist seeds=[1,2,3].

    Returns:
        The results folder, <results_dir>/<name>; the name is anatomy_<benchmark>, if the command line says no other.

    Raises:
        UserError: bad values, missing data, a folder of something else, weights that are not this network's.
    """
    cfgs = composed(overrides)
    cfg = cfgs[0]
    device, workshop = runtime.resolve_device(cfg["device"]), Workshop(lambda *_: None)
    arms = [grid.make_arm(each) for each in cfgs]
    study.check_sizes(workshop, arms, device)
    experiment, key = workshop.experiment(arms[0], device), first_task_id(cfg, device)
    store = Folder(Path(cfg["results_dir"]) / (cfg["name"] + cfg["suffix"]))
    earlier(store, key)
    store.create()
    origin = {**provenance.source()._asdict(), "torch": torch.__version__, "hardware": runtime.hardware(device)}
    command = provenance.command(overrides, "scripts/anatomy.py")
    invocation = {"command": command, "started": provenance.now(), **origin, "config_ids": [key]}
    store.note_invocation(invocation, {cfg["benchmark"]["name"]: experiment.benchmark.checksum}, {key: resolved(cfgs)})
    for seed in cfg["seeds"]:
        stack = after_first_task(experiment, seed, store.folder / "weights" / f"{key}_{seed}.pt")
        subject = Subject(experiment, stack, seed)
        found = measured(subject, cells({c["fisher"]["name"]: maker(workshop, c) for c in cfgs}, subject))
        common = {"config_id": key, "benchmark": cfg["benchmark"]["name"], "model": cfg["model"]["name"], "seed": seed}
        common |= {**origin, "dtype": cfg["dtype"], "device": torch.device(device).type, "finished": provenance.now()}
        common["schema_version"] = grid.SCHEMA_VERSION
        add(store, key, seed, {name: [common | row for row in rows] for name, rows in found.items()})
    return store.folder


def composed(overrides: Sequence[str]) -> list[dict[str, Any]]:
    """The configuration of every estimator, checked."""
    arms = ",".join(f"{{method: ewc, fisher: {name}}}" for name in ESTIMATORS)
    # The name as an override of its own: it counts more than a study's, and less than one that is typed.
    cfgs = compose.from_command_line(["name=anatomy_${benchmark.name}", *overrides, f"arms=[{arms}]"])
    for cfg in cfgs:
        config.check(cfg)
    return cfgs


def first_task_id(cfg: dict[str, Any], device: str) -> str:
    """Names what the weights after the first task depend on, but for the seed."""
    before = {key: value for key, value in grid.science(cfg).items() if key not in ("method", "fisher")}
    return grid.digest([before, torch.device(device).type], 4)


def maker(workshop: Workshop, cfg: dict[str, Any]) -> Callable[[int | None], Estimator]:
    """From n to the estimator of a configuration."""

    def make(n: int | None) -> Estimator:
        node = cfg["fisher"]
        made = workshop.estimator({"fisher": {**node, "n": n} if "n" in node else node})
        assert made is not None  # its configuration is
        return made

    return make


def resolved(cfgs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The configuration that all estimators share, and theirs."""
    own = ("method", "fisher", "grid", "arms", "lam")
    shared = {key: value for key, value in study.public(cfgs[0]).items() if key not in own}
    return shared | {"estimators": [cfg["fisher"] for cfg in cfgs], "n": list(NS)}


# --- the files -------------------------------------------------------------------------------------------------------


def earlier(store: Folder, key: str) -> dict[str, list[Row]]:
    """The rows that are there already, by file.

    Raises:
        UserError: the folder is a study's, or of another configuration, or edited.
    """
    rows = store.rows(ANATOMY)
    if any(row["config_id"] != key for of_file in rows.values() for row in of_file):
        raise UserError(f"{store.folder}: holds the anatomy of another configuration; set name= to another")
    return rows


def add(store: Folder, key: str, seed: int, new: dict[str, list[Row]]) -> None:
    """Replace the rows of a seed; those of the others may have been written by another process meanwhile."""
    with store.lock:
        old, files = earlier(store, key), {}
        for name, columns in ANATOMY.items():
            rows = [row for row in old.get(name, []) if int(row["seed"]) != seed]
            rows += [{column: row.get(column) for column in columns} for row in new[name]]
            files[name] = to_csv(columns, sorted(rows, key=lambda row: int(row["seed"])))
        store.replace(files)
