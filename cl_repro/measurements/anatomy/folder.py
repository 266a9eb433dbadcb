"""The anatomy of the Fisher: every estimator, on every number of examples, on one and the same trained network.

A cell is an estimator and a seed: the engine trains the first task of the seed; then the estimates that are not there
yet are made as a run makes them, timed, and compared with the exact Fisher of all examples (`passes`). The results
folder is <results_dir>/anatomy_<benchmark>, if the command line says no other name.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from cl_repro.common import runtime
from cl_repro.common.errors import UserError
from cl_repro.engine import Replica
from cl_repro.engine.replicas import healthy
from cl_repro.measurements.anatomy.measures import confidence
from cl_repro.measurements.anatomy.passes import NS, Subject, measured, seen
from cl_repro.measurements.program import Bench, Program
from cl_repro.records import Row, identity
from cl_repro.records.measured import ANATOMY
from cl_repro.study import compose, config, grid, study
from cl_repro.study.grid import Arm
from cl_repro.study.jobs import Job
from cl_repro.study.worker import Workshop
from cl_repro.types import Estimator, Method

ESTIMATORS = (
    "exact", "empirical", "sample", "predicted", "batched", "importance_sample", "exact_by_score",
    "importance_sample_by_score",
)  # fmt: skip


def arms_of(overrides: Sequence[str]) -> list[Arm]:
    """One of every estimator; all have the config_id of the network, which they share."""
    arms = ",".join(f"{{method: ewc, fisher: {name}}}" for name in ESTIMATORS)
    # The name as an override of its own: it counts more than a study's, and less than one that is typed.
    cfgs = compose.from_command_line(["name=anatomy_${benchmark.name}", *overrides, f"arms=[{arms}]"])
    for cfg in cfgs:
        config.check(cfg)
    key = first_task_id(cfgs[0], runtime.resolve_device(cfgs[0]["device"]))
    return [  # no task follows that could have a penalty
        grid.make_arm(cfg)._replace(label=cfg["fisher"]["name"], config_id=key, uses_lambda=False) for cfg in cfgs
    ]


def first_task_id(cfg: dict[str, Any], device: str) -> str:
    """Names what the weights after the first task depend on, but for the seed."""
    before = {key: value for key, value in identity.science(cfg).items() if key not in ("method", "fisher")}
    return identity.digest([before, torch.device(device).type], 4)


def measure(bench: Bench, job: Job) -> dict[str, list[Row]]:
    """The rows of estimators of a seed; those that describe its network only once."""
    experiment, seed = bench.experiment(job.arms[0], job.device), job.chunk[0].seed
    for at in bench.stages(job, experiment, Method(), [Replica(seed, 0.0, None)]):
        if at.learned:
            break
    if not healthy(at.stack).all():
        raise UserError(f"seeds=[{seed}]: the first task diverged, so there is no network to look at")
    subject, asked = Subject(experiment, at.stack, seed), [job.arms[cell.arm].label for cell in job.chunk]
    rows = bench.store(job.folder).read(["confidence.csv"]).get("confidence.csv", [])
    there = [row for row in rows if (row["config_id"], row["seed"]) == (job.arm.config_id, str(seed))]
    for row in there:
        require_recorded(subject, row)
    found = measured(subject, {arm.label: maker(bench, arm.cfg) for arm in job.arms}, asked)
    return found | {"confidence.csv": []} if there else found


def require_recorded(subject: Subject, row: Row) -> None:
    """The rows of a network that was trained again belong beside those that are there only if it is the same.

    On one kind of processor with one version of torch its cross entropy is equal but for rounding; elsewhere the same
    seed gives another network, which differs by a per cent or more.

    Raises:
        UserError: it is another.
    """
    z, y, _ = seen(subject)
    now, then = confidence(z, y).cross_entropy, float(row["cross_entropy"])
    if not math.isclose(now, then, rel_tol=1e-3):
        raise UserError(
            f"seeds=[{subject.seed}]: here its network has a cross entropy of {now:.6g} nats, that which was measured "
            f"{then:.6g} ({row['hardware']}, torch {row['torch']}); measure it there, or set name= to another"
        )


def maker(workshop: Workshop, cfg: dict[str, Any]) -> Callable[[int | None], Estimator]:
    """From n to the estimator of a configuration."""

    def make(n: int | None) -> Estimator:
        node = cfg["fisher"]
        made = workshop.estimator({"fisher": {**node, "n": n} if "n" in node else node})
        assert made is not None  # its configuration is
        return made

    return make


def resolved(arms: list[Arm]) -> dict[str, Any]:
    """The configuration that all estimators share, and theirs."""
    own = ("method", "fisher", "grid", "arms", "lam")
    shared = {key: value for key, value in study.public(arms[0].cfg).items() if key not in own}
    return {arms[0].config_id: shared | {"estimators": [arm.cfg["fisher"] for arm in arms], "n": list(NS)}}


KEY = ("config_id", "seed", "estimator")
PROGRAM = Program("anatomy", ANATOMY, KEY, arms_of, resolved, measure, one_configuration=True)
