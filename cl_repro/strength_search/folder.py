"""The results folder of a search: one CSV of all attempts, one of the accuracies at the end.

A search is one arm and seed. Its rows are written when it ends; the same command skips those that are there.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cl_repro import compose, config, grid, provenance, runtime, study
from cl_repro.errors import UserError
from cl_repro.grid import Arm
from cl_repro.progress import progress_bar
from cl_repro.records import Folder, Row, to_csv
from cl_repro.records.schema import SEARCH
from cl_repro.strength_search.procedure import Patience, Rules
from cl_repro.strength_search.training import Outcome
from cl_repro.strength_search.training import run as through_all_tasks
from cl_repro.types import Method
from cl_repro.worker import Workshop

RUNS = ("init", "penalty_grad", "end_task", "start_task", "observe", "gradients", "all_tasks")
"""Fields of a `Method`, and of what it needs, that the search runs."""


class Search(NamedTuple):
    """An arm, and how its strength is searched."""

    arm: Arm
    rules: Rules
    patience: Patience
    config_id: str


def run(overrides: Sequence[str]) -> Path:
    """Search the strength of what a command line composes, through all tasks, for every arm and seed.

    Args:
        overrides: Hydra's, e.g. study=tiny_imagenet_search scale=cpu seeds=[1]; `lam` is the strength at first.

    Returns:
        The results folder, <results_dir>/<name>; the name is the study's, or strength_search_<benchmark>.

    Raises:
        UserError: bad values, missing data, no validation rows, a folder of something else.
    """
    # The name as an override of its own: it counts less than one that is typed, and more than a study's.
    name = [] if "study" in compose.keys(overrides) else ["name=strength_search_${benchmark.name}"]
    cfgs = compose.from_command_line([*name, *overrides])
    searches = list({search.config_id: search for search in map(searched, cfgs)}.values())
    common, workshop = cfgs[0], Workshop(lambda *_: None)
    device = runtime.resolve_device(common["device"])
    arms = [search.arm for search in searches]
    for arm in arms:
        method, name = workshop.method(arm.cfg), arm.cfg["method"]["name"]
        check_runs(method, name)
        if arm.uses_lambda and method.penalty_grad is None:
            raise UserError(f"method={name}: its lambda is no penalty's strength, which is what is searched")
        if "val" not in workshop.benchmark(arm.cfg, device).splits:
            raise UserError(
                f"benchmark={arm.cfg['benchmark']['name']}: the search needs validation rows; set val_fraction=0.2, or "
                "benchmark.validation=true where there is that key"
            )
    study.check_sizes(workshop, arms, device)
    study.check_networks(workshop, arms, device)
    store = Folder(Path(common["results_dir"]) / (common["name"] + common["suffix"]))
    done = {(row["config_id"], row["seed"]) for row in store.rows(SEARCH).get("final.csv", [])}
    todo = [(search, seed) for search in searches for seed in search.arm.cfg["seeds"]]
    todo = [(search, seed) for search, seed in todo if (search.config_id, str(seed)) not in done]
    if not todo:
        return store.folder
    store.create()
    source = provenance.source()._asdict()
    origin = {**source, "torch": torch.__version__, "hardware": runtime.hardware(device)}
    store.note_invocation(
        {
            "command": provenance.command(overrides, "scripts/strength_search.py"),
            "started": provenance.now(),
            **origin,
            "config_ids": [search.config_id for search in searches],
        },
        {arm.cfg["benchmark"]["name"]: workshop.benchmark(arm.cfg, device).checksum for arm in arms},
        {s.config_id: study.public(s.arm.cfg) | {"search": settings_of(s)} for s in searches},
    )
    for search, seed in todo:
        cfg, experiment = search.arm.cfg, workshop.experiment(search.arm, device)
        began = runtime.clock(device)
        with progress_bar(
            desc=f"{search.arm.label}, seed {seed}", total=experiment.benchmark.n_tasks, unit="task"
        ) as bar:
            outcome = through_all_tasks(
                experiment,
                workshop.method(cfg),
                workshop.estimator(cfg),
                seed,
                cfg["lam"],
                search.rules,
                search.patience,
                bar.update,
            )
        stamp = origin | {"seconds": f"{runtime.clock(device) - began:.6g}", "dtype": cfg["dtype"]}
        stamp |= {"device": torch.device(device).type, "finished": provenance.now()}
        add(store, search, seed, rows_of(search, outcome, stamp))
    return store.folder


# --- what is searched ------------------------------------------------------------------------------------------------


def check_runs(method: Method, name: str) -> None:
    """Refuse a method that the search would silently make another of.

    Args:
        method: to train with.
        name: of it.

    Raises:
        UserError: a field that the search does not run is not as in `Method()`.
    """
    plain, asked = (one._asdict() | one.needs._asdict() for one in (Method(), method))
    left_out = [key for key in asked if key not in (*RUNS, "needs") and asked[key] != plain[key]]
    if left_out:
        raise UserError(
            f"method={name}: this program does not run its {', '.join(left_out)}, without which it is another method; "
            "`python -m cl_repro` does"
        )


def searched(cfg: dict[str, Any]) -> Search:
    """The search of a configuration, which is checked; settings are in `benchmark.protocol.search`.

    Raises:
        UserError: bad values.
    """
    config.check(cfg)
    config.check_one_lambda(cfg)
    given = dict((cfg["benchmark"].get("protocol") or {}).get("search") or {})
    given = {key: value for key, value in given.items() if not isinstance(value, Mapping)}  # those are of each scale
    settings = {**Rules()._asdict(), **Patience()._asdict()}
    for key, value in given.items():
        if key not in settings:
            raise UserError(f"benchmark.protocol.search.{key}: unknown key; allowed: {', '.join(settings)}")
        holds, rule = RULES[key]
        if not holds(value):
            raise UserError(f"benchmark.protocol.search.{key}={value}: must be {rule}")
    settings |= given
    rules = Rules(**{key: settings[key] for key in Rules._fields})
    patience = Patience(**{key: settings[key] for key in Patience._fields})
    arm = grid.make_arm(cfg)
    lam = cfg["lam"] if arm.uses_lambda else None
    return Search(arm, rules, patience, grid.digest([grid.science(cfg), lam, settings], 4))


Rule = tuple[Callable[[Any], bool], str]
COUNT: Rule = (lambda v: config.is_int(v) and v >= 1, "an integer of at least 1")
FRACTION: Rule = (lambda v: config.is_number(v) and 0 < v < 1, "a number between 0 and 1")
RATES: Rule = (
    lambda v: isinstance(v, list) and bool(v) and all(config.is_number(lr) and lr > 0 for lr in v),
    "a list of finite numbers above 0",
)
RULES: dict[str, Rule] = {
    "rates_first": RATES, "rates": RATES, "margin": FRACTION, "factor": FRACTION, "attempts": COUNT,
    "epochs": COUNT, "slow_after": COUNT, "slower": FRACTION, "stop_after": COUNT,
}  # fmt: skip


def settings_of(search: Search) -> dict[str, Any]:
    """Rules and patience, as plain containers."""
    both = {**search.rules._asdict(), **search.patience._asdict()}
    return {key: list(value) if isinstance(value, Sequence) else value for key, value in both.items()}


# --- the files -------------------------------------------------------------------------------------------------------


def rows_of(search: Search, outcome: Outcome, stamp: Row) -> dict[str, list[Row]]:
    """The rows of both files, but for what `add` knows; tasks count from 1."""
    cfg, accuracy = search.arm.cfg, outcome.accuracy.tolist()
    names = {group: cfg[group]["name"] for group in ("benchmark", "model", "method")}
    names["fisher"] = grid.estimator_name(cfg)
    names["status"] = "ok" if outcome.finite else "diverged"
    final = [*enumerate(accuracy, 1), ("average", sum(accuracy) / len(accuracy))]
    return {
        "attempts.csv": [
            {"task": task} | one._asdict() | {"lr": f"{one.lr:g}", "accuracy": f"{one.accuracy:.6g}"}
            | {"strength": "" if one.strength is None or not search.arm.uses_lambda else f"{one.strength:.6g}"}
            for task, attempts in enumerate(outcome.attempts, 1)
            for one in attempts
        ],
        "final.csv": [
            names | stamp | {"task": task, "accuracy": f"{value:.6g}", "schema_version": grid.SCHEMA_VERSION}
            for task, value in final
        ],
    }  # fmt: skip


def add(store: Folder, search: Search, seed: int, new: dict[str, list[Row]]) -> None:
    """Add the rows of a search; those of others may have been written by another process meanwhile."""
    key = {"config_id": search.config_id, "arm": search.arm.label, "seed": str(seed)}
    with store.lock:
        old, files = store.rows(SEARCH), {}
        for name, columns in SEARCH.items():
            rows = [
                row for row in old.get(name, []) if (row["config_id"], row["seed"]) != (search.config_id, str(seed))
            ]
            files[name] = to_csv(columns, rows + [key | row for row in new[name]])
        store.replace(files)
