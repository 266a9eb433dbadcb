"""The results folder of the figures: rows of one run and seed are added or replaced, those of others stay.

Runs of one folder share everything but the strength of the penalty, the re-initialisation and the seed. The first run
and seed of a folder is looked at in detail: it alone has the full gradient of task 1, and the weights of scatter plots.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cl_repro import compose, config, grid, provenance, runtime, study
from cl_repro.engine import Experiment
from cl_repro.errors import UserError
from cl_repro.progress import progress_bar
from cl_repro.records import Folder, Row, to_csv
from cl_repro.records.schema import UNIFYING
from cl_repro.unifying.path import text
from cl_repro.unifying.watch import Found, Settings, watch
from cl_repro.worker import Workshop

SCATTER = "scatter.npz"


class Group(NamedTuple):
    """What the runs of a folder share, and what this one has of its own."""

    shared: str  # a digest: config_id
    run: str
    cfg: dict[str, Any]
    settings: Settings

    @property
    def columns(self) -> Row:
        """What networks.csv says of it."""
        names = {key: self.cfg[key]["name"] for key in ("benchmark", "model")}
        own = {"lam": f"{self.cfg['lam']:g}", "reinit": self.cfg["reinit"]}
        own |= {key: self.settings._asdict()[key] for key in ("examples", "many")}
        return {"config_id": self.shared, **names, **own}


def run(overrides: Sequence[str]) -> Path:
    """Train and measure what a command line composes.

    Args:
        overrides: Hydra's, e.g. study=unifying_figures_permuted_mnist scale=cpu lam=0 seeds=[1,2].

    Returns:
        The results folder, <results_dir>/<name>; the name is unifying_figures_<benchmark>, if nothing says another.

    Raises:
        UserError: bad values, missing data, a folder of something else.
    """
    group, experiment, workshop = prepared(overrides)
    cfg = group.cfg
    store = Folder(Path(cfg["results_dir"]) / (cfg["name"] + cfg["suffix"]))
    earlier(store, group.shared)
    store.create()
    origin = {
        **provenance.source()._asdict(),
        "torch": torch.__version__,
        "hardware": runtime.hardware(experiment.device),
    }
    command = provenance.command(overrides, "scripts/unifying.py")
    name = f"{group.shared}_{group.run}"
    store.note_invocation(
        {"command": command, "started": provenance.now(), **origin, "config_ids": [name]},
        {cfg["benchmark"]["name"]: experiment.benchmark.checksum},
        {name: study.public(cfg) | {"figures": group.settings._asdict()}},
    )
    steps = sum(map(experiment.steps, range(experiment.benchmark.n_tasks)))
    for seed in cfg["seeds"]:
        in_detail = detailed(store, group, seed)
        began = runtime.clock(experiment.device)
        with progress_bar(desc=f"{group.run}, seed {seed}", total=steps, unit="it") as bar:
            method = workshop.method(cfg)
            found = watch(
                experiment, method, cfg["method"]["xi"], seed, cfg["lam"], group.settings, in_detail, bar.update
            )
        stamp = text({"seconds": runtime.clock(experiment.device) - began}) | origin
        stamp |= {"dtype": cfg["dtype"], "device": torch.device(experiment.device).type}
        stamp |= {"finished": provenance.now(), "schema_version": grid.SCHEMA_VERSION}
        add(store, group, seed, found, group.columns | stamp)
    return store.folder


def prepared(overrides: Sequence[str]) -> tuple[Group, Experiment, Workshop]:
    """What a command line composes, checked."""
    # The name as an override of its own: it counts more than a study's, and less than one that is typed.
    cfgs = compose.from_command_line(["name=unifying_figures_${benchmark.name}", *overrides])
    cfg = cfgs[0]
    if len(cfgs) > 1:
        raise UserError(f"arms={len(cfgs)} of them: the figures follow one run; leave out arms=")
    config.check(cfg)
    config.check_one_lambda(cfg)
    if cfg["method"]["name"] != "si":
        raise UserError(f"method={cfg['method']['name']}: the figures follow a run of method=si")
    device, workshop = runtime.resolve_device(cfg["device"]), Workshop(lambda *_: None)
    settings = settings_of(cfg)
    study.check_sizes(workshop, [grid.make_arm(cfg)], device)
    shared = {key: value for key, value in grid.science(cfg).items() if key != "reinit"}
    key = grid.digest([shared, settings.examples], 4)
    label = f"c{cfg['lam']:g}" + ("_reinit" if cfg["reinit"] else "")
    return Group(key, label, cfg, settings), workshop.experiment(grid.make_arm(cfg), device), workshop


def settings_of(cfg: dict[str, Any]) -> Settings:
    """What `benchmark.protocol` says of the figures; see conf/study/unifying_figures_permuted_mnist.yaml.

    Raises:
        UserError: a key that is unknown, or a value that is no number of at least 1.
    """
    or_none = ("examples", "many", "full_every")
    protocol = cfg["benchmark"].get("protocol") or {}
    given = protocol.get("figures") or {}
    made = {
        "examples": protocol.get("importance_n", 1000),
        "many": None,
        "points": 200,
        "full_every": None,
        "dense": 100,
    }
    given = {key: value for key, value in given.items() if not isinstance(value, dict)}  # those are of each scale
    for key, value in given.items():
        if key not in made:
            raise UserError(f"benchmark.protocol.figures.{key}: unknown key; allowed: {', '.join(made)}")
        if not (config.is_int(value) and value >= 1) and not (value is None and key in or_none):
            null = ", or null for none" if key in or_none else ""
            raise UserError(f"benchmark.protocol.figures.{key}={value}: must be an integer of at least 1{null}")
    return Settings(**(made | given))


# --- the files -------------------------------------------------------------------------------------------------------


def earlier(store: Folder, shared: str) -> dict[str, list[Row]]:
    """The rows that are there already, by file.

    Raises:
        UserError: the folder is a study's, or of another configuration, or edited.
    """
    store.unedited([SCATTER])
    rows = store.rows(UNIFYING)
    if any(row["config_id"] != shared for row in rows.get("networks.csv", [])):
        raise UserError(f"{store.folder}: holds the figures of another configuration; set name= to another")
    return rows


def detailed(store: Folder, group: Group, seed: int) -> bool:
    """Whether this run and seed is the one that is looked at in detail: the first of the folder."""
    there = earlier(store, group.shared).get("networks.csv", [])
    return not there or (there[0]["run"], int(there[0]["seed"])) == (group.run, seed)


def add(store: Folder, group: Group, seed: int, found: Found, network: Row) -> None:
    """Replace the rows of a run and seed; those of the others may have been written by another process meanwhile."""
    with store.lock:
        old, files = earlier(store, group.shared), {}
        order = [(row["run"], row["seed"]) for row in old.get("networks.csv", [])] + [(group.run, str(seed))]
        place = {key: i for i, key in reversed(list(enumerate(order)))}  # as they came: the first stays the first
        for name, columns in UNIFYING.items():
            rows = [row for row in old.get(name, []) if (row["run"], row["seed"]) != (group.run, str(seed))]
            common = {"run": group.run, "seed": str(seed)} | (network if name == "networks.csv" else {})
            new = [common | row for row in found.rows[name.removesuffix(".csv")]]
            rows += [{column: row.get(column) for column in columns} for row in new]
            files[name] = to_csv(columns, sorted(rows, key=lambda row: place[row["run"], row["seed"]]))
        if found.scatter:
            files[SCATTER] = npz(found.scatter, group.run, seed)
        store.replace(files)


def npz(scatter: dict[str, NDArray[np.float32]], run: str, seed: int) -> bytes:
    """The weights of scatter plots as a compressed file, the same bytes for the same weights; no pickles in it."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, run=np.array(run), seed=np.array(seed), **scatter)
    return content.getvalue()
