"""From a study to its replicas: arms x lambdas x seeds, cut into chunks of one stack each.

Chunks are a function of the study alone (and of the device's `max_replicas`), never of what is finished. A chunk is
the unit of locking, failure, resume and progress.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from cl_repro.common.errors import UserError
from cl_repro.records.identity import config_id, digest, science


class Arm(NamedTuple):
    """One line of a study: everything but lambda and seed."""

    label: str  # ewc-exact
    cfg: dict[str, Any]  # resolved, plain
    config_id: str
    stack_id: str  # arms that differ in the estimator only share it: their replicas can be one stack
    uses_lambda: bool


class Cell(NamedTuple):
    """One replica: a row of the results."""

    arm: int
    lam: float | None
    seed: int
    run_id: str


def estimator_name(cfg: Mapping[str, Any]) -> str | None:
    """What an arm's estimator is called, where it has one that its method does not imply (as mas does)."""
    fisher, method = cfg["fisher"], cfg["method"]["name"]
    return fisher["name"] if fisher and fisher["name"] != method else None


def label_of(cfg: Mapping[str, Any]) -> str:
    """What an arm is called in tables."""
    fisher = estimator_name(cfg)
    return cfg["label"] or cfg["method"]["name"] + (f"-{fisher}" if fisher else "")


def make_arm(cfg: dict[str, Any]) -> Arm:
    """Name an arm's configuration."""
    shared = {key: value for key, value in science(cfg).items() if key != "fisher"}
    return Arm(label_of(cfg), cfg, config_id(cfg), digest(shared, 4), cfg["method"]["uses_lambda"])


def folder_of(cfg: Mapping[str, Any]) -> Path:
    """Where an arm's results go."""
    return Path(cfg["results_dir"]) / (cfg["name"] + cfg["suffix"])


def cells(arms: Sequence[Arm]) -> list[Cell]:
    """All replicas of a study, seed by seed, in the order of its arms and lambdas.

    Raises:
        UserError: if an arm's lambdas are a window that has not been placed.
    """
    result: dict[str, Cell] = {}
    for seed in dict.fromkeys(s for arm in arms for s in arm.cfg["seeds"]):
        for i, arm in enumerate(arms):
            if seed not in arm.cfg["seeds"]:
                continue
            if arm.uses_lambda and arm.cfg["grid"]["lambdas"] is None:
                raise UserError(f"{arm.label}: its window of lambda is not placed yet: the first launch measures where")
            for lam in map(float, arm.cfg["grid"]["lambdas"]) if arm.uses_lambda else (None,):
                run_id = digest([arm.config_id, lam, seed], 8)
                result.setdefault(run_id, Cell(i, lam, seed, run_id))
    return list(result.values())


def repeated(arms: Sequence[Arm], all_cells: Sequence[Cell]) -> str:
    """Which arms lack runs because another arm has the same, in one line; empty if none do."""
    own = Counter(cell.arm for cell in all_cells)
    first = {arm.config_id: arm.label for arm in reversed(arms)}
    fewer = [
        f"{arm.label} is {first[arm.config_id]}"
        for i, arm in enumerate(arms)
        if own[i] < len(arm.cfg["seeds"]) * (len(arm.cfg["grid"]["lambdas"]) if arm.uses_lambda else 1)
    ]
    return (
        f"arms of one configuration: {', '.join(fewer)}; what they share is run once, as the first's" if fewer else ""
    )


def chunks(
    arms: Sequence[Arm], all_cells: Sequence[Cell], limits: Mapping[str, int], apart: Collection[str] = ()
) -> list[list[Cell]]:
    """Cut into stacks: whole seeds where they fit, else parts of one seed.

    Args:
        arms: of the study.
        all_cells: from `cells`.
        limits: K at most, by `Arm.stack_id`.
        apart: stack_ids of arms whose seeds cannot be in one stack.

    Returns:
        Chunks, ordered by their first seed, so that those that share a first task follow each other.
    """

    def stack_of(cell: Cell) -> str:
        return arms[cell.arm].stack_id

    result: list[list[Cell]] = []
    for name, members in groupby(sorted(all_cells, key=stack_of), stack_of):
        limit, joins = limits[name], False
        for _, of_seed in groupby(members, lambda cell: cell.seed):
            part = list(of_seed)
            if joins and len(result[-1]) + len(part) <= limit:
                result[-1] += part
            else:
                result += [part[i : i + limit] for i in range(0, len(part), limit)]
                joins = len(part) <= limit and name not in apart
    first = {cell.run_id: i for i, cell in enumerate(all_cells)}
    return sorted(result, key=lambda chunk: first[chunk[0].run_id])


def chunk_id(chunk: Sequence[Cell]) -> str:
    """Names a chunk by what is in it."""
    return digest([cell.run_id for cell in chunk], 6)
