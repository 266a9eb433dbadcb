"""The search as a program: one CSV of all attempts, one of the accuracies at the end.

A cell is one arm and seed; `lam` is lambda at first. The results folder is <results_dir>/<name>; the name is the
study's, or strength_search_<benchmark>.
"""

from collections.abc import Sequence
from typing import Any

from cl_repro.common.errors import UserError
from cl_repro.common.rules import Rule, at_least, is_number
from cl_repro.measurements.program import Bench, Program, settings
from cl_repro.measurements.strength_search.procedure import Patience, Rules
from cl_repro.measurements.strength_search.training import search_all_tasks
from cl_repro.records import Row, identity
from cl_repro.records.measured import SEARCH
from cl_repro.study import compose, config, grid, study
from cl_repro.study.grid import Arm
from cl_repro.study.jobs import Job
from cl_repro.study.worker import Workshop
from cl_repro.types import Method

RUNS = ("init", "penalty_grad", "end_task", "start_task", "observe", "gradients", "all_tasks")
"""Fields of a `Method`, and of what it needs, that the search runs."""


def arms_of(overrides: Sequence[str]) -> list[Arm]:
    """The arms of a command line, with a config_id that also names lambda at first and the settings."""
    # The name as an override of its own: it counts less than one that is typed, and more than a study's.
    name = [] if "study" in compose.keys(overrides) else ["name=strength_search_${benchmark.name}"]
    return [searched(cfg) for cfg in compose.from_command_line([*name, *overrides])]


def searched(cfg: dict[str, Any]) -> Arm:
    """The arm of a configuration, which is checked."""
    config.check(cfg)
    config.check_one_lambda(cfg)
    arm = grid.make_arm(cfg)
    lam = cfg["lam"] if arm.uses_lambda else None
    return arm._replace(config_id=identity.digest([identity.science(cfg), lam, settings_of(cfg)], 4))


def check(bench: Bench, arms: list[Arm], device: str) -> None:
    """Refuse methods that the search does not run, and tasks without validation rows."""
    for arm in arms:
        method, name = bench.method(arm.cfg), arm.cfg["method"]["name"]
        check_runs(method, name)
        if arm.uses_lambda and method.penalty_grad is None:
            raise UserError(f"method={name}: its lambda is not that of a penalty, which is what is searched")
        if "val" not in bench.benchmark(arm.cfg, device).splits:
            raise UserError(
                f"benchmark={arm.cfg['benchmark']['name']}: the search needs validation rows; set val_fraction=0.2, or "
                "benchmark.validation=true where there is that key"
            )


def measure(bench: Bench, job: Job) -> dict[str, list[Row]]:
    """Search through all tasks, which count from 1."""
    [cell] = job.chunk
    arm = job.arms[cell.arm]
    cfg, asked = arm.cfg, settings_of(arm.cfg)
    outcome = search_all_tasks(
        bench.experiment(arm, job.device),
        bench.method(cfg),
        bench.estimator(cfg),
        cell.seed,
        float(cfg["lam"]),
        Rules(**{key: asked[key] for key in Rules._fields}),
        Patience(**{key: asked[key] for key in Patience._fields}),
        bench.report,
    )
    accuracy = outcome.accuracy.tolist()
    status = "ok" if outcome.finite else "diverged"
    return {
        "attempts.csv": [
            {"task": task, **one._asdict(), "strength": one.strength if arm.uses_lambda else None}
            for task, attempts in enumerate(outcome.attempts, 1)
            for one in attempts
        ],
        "final.csv": [
            {"task": task, "accuracy": value, "status": status}
            for task, value in [*enumerate(accuracy, 1), ("average", sum(accuracy) / len(accuracy))]
        ],
    }


def check_runs(method: Method, name: str) -> None:
    """Refuse a method that the search would make another of: a field that it does not run is not as in `Method()`."""
    plain, asked = (one._asdict() | one.needs._asdict() for one in (Method(), method))
    left_out = [key for key in asked if key not in (*RUNS, "needs") and asked[key] != plain[key]]
    if left_out:
        raise UserError(
            f"method={name}: this program does not run its {', '.join(left_out)}, without which it is another method; "
            "`python -m cl_repro` does"
        )


def settings_of(cfg: dict[str, Any]) -> dict[str, Any]:
    """How lambda is searched: rules and patience, as plain containers. Raises as `settings`."""
    found = settings(cfg, "search", {**Rules()._asdict(), **Patience()._asdict()}, RULES)
    return {key: list(value) if isinstance(value, Sequence) else value for key, value in found.items()}


COUNT = at_least(1)
FRACTION: Rule = (lambda v: is_number(v) and 0 < v < 1, "a number between 0 and 1")
RATES: Rule = (
    lambda v: isinstance(v, list) and bool(v) and all(is_number(lr) and lr > 0 for lr in v),
    "a list of finite numbers above 0",
)
RULES: dict[str, Rule] = {
    "rates_first": RATES, "rates": RATES, "margin": FRACTION, "factor": FRACTION, "attempts": COUNT,
    "epochs": COUNT, "slow_after": COUNT, "slower": FRACTION, "stop_after": COUNT,
}  # fmt: skip


PROGRAM = Program(
    "strength_search",
    SEARCH,
    ("config_id", "seed"),
    arms_of,
    lambda arms: {arm.config_id: study.public(arm.cfg) | {"search": settings_of(arm.cfg)} for arm in arms},
    measure,
    check,
    size=lambda bench, job: Workshop.parts(job),  # tasks
)
