"""A study from composed arms to rows: check everything, plan the chunks, compute what is missing, merge."""

import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cl_repro import engine
from cl_repro.common import runtime, tree
from cl_repro.common.errors import UserError
from cl_repro.records import Store, kept
from cl_repro.study import grid, provenance, stacking, weights, window, worker
from cl_repro.study.checks import check_arms
from cl_repro.study.config import check
from cl_repro.study.grid import Arm, Cell
from cl_repro.study.jobs import Job, Stopped
from cl_repro.study.pool import Budget, compute, processes


class Ended(NamedTuple):
    """What a launch of a study leaves."""

    folder: Path
    unfinished: str  # why it is not complete, in one line; empty if it is
    stopped: bool = False  # whether it is for want of time, so that the same command gets on


class Plan(NamedTuple):
    """A study, checked and cut into chunks."""

    arms: list[Arm]
    chunks: list[list[Cell]]
    folder: Path  # of the results
    device: str
    data: dict[str, str]  # checksums
    configs: dict[str, Any]  # to be recorded, by config_id
    traces: Mapping[str, float] = {}  # that place the windows of grid=window, by config_id
    processes: int = 1  # on one CUDA device, where workers=auto
    stacks: Mapping[str, float] = {}  # what was measured of stacks, by names of `stacking.limits`

    @property
    def run_ids(self) -> set[str]:
        """Those of all cells."""
        return {cell.run_id for chunk in self.chunks for cell in chunk}


def plan(
    arms_cfg: list[dict[str, Any]],
    index: int | None = None,
    source: provenance.Source | None = None,
    began: float = 0.0,
) -> Plan:
    """Check everything a study needs, before any training but that which places windows.

    Args:
        arms_cfg: the resolved configuration of every arm; what is not science is the same in all.
        index: of the CUDA device to take, as for `runtime.resolve_device`.
        source: the code, of which the folder may keep that training; None: nothing is written.
        began: when the launch did (`time.monotonic`), where there is a source.

    Returns:
        What there is to compute.

    Raises:
        UserError: bad values, impossible pairs, missing data.
        Stopped: no time is left for that training; the next launch goes on with it.
    """
    common = arms_cfg[0]
    for cfg in arms_cfg:
        check(cfg)
    if common["save"]:
        weights.library(f"save={common['save']}")
    device = runtime.resolve_device(common["device"], index)
    workshop = worker.Workshop(lambda *_: None)
    check_arms(workshop, [grid.make_arm(cfg) for cfg in arms_cfg], device)
    folder = grid.folder_of(common)
    store = Store(folder)  # refused, if it is not ours, before anything is measured
    traces = kept(folder, window.FILE)
    deadline = Budget(common["time_budget"], began).deadline
    traces |= measured_traces(workshop, window.wanted(arms_cfg, traces), device, store, source, deadline)
    arms = [grid.make_arm(cfg) for cfg in window.placed(arms_cfg, traces)]
    limits = stacking.limits(workshop, arms, device, kept(folder, stacking.FILE))
    return Plan(
        arms,
        grid.chunks(
            arms, grid.cells(arms), limits.replicas, {arm.stack_id for arm in arms if is_apart(workshop, arm, device)}
        ),
        folder,
        device,
        checksums(workshop, arms, device),
        {arm.config_id: public(arm.cfg) for arm in arms},
        traces,
        1 if index is not None else limits.processes,  # other jobs share the devices with this one
        limits.measured,
    )


def checksums(workshop: worker.Workshop, arms: list[Arm], device: str) -> dict[str, str]:
    """Of the data, by the benchmarks' names."""
    return {arm.cfg["benchmark"]["name"]: workshop.benchmark(arm.cfg, device).checksum for arm in arms}


def is_apart(workshop: worker.Workshop, arm: Arm, device: str) -> bool:
    """Whether an arm trains for whole epochs on tasks whose lengths differ between seeds: no stack can hold two."""
    experiment = workshop.experiment(arm, device)
    if not isinstance(experiment.iterations, engine.Epochs):
        return False
    curricula = map(experiment.benchmark.curriculum, arm.cfg["seeds"])
    return len({tuple(len(task.rows) for task in curriculum.tasks) for curriculum in curricula}) > 1


def compute_missing(arms_cfg: list[dict[str, Any]], command: str, cores: int, index: int | None = None) -> Ended:
    """Compute a study's missing rows.

    Args:
        arms_cfg: as for `plan`.
        command: that asked for them, for the record.
        cores: of the machine that are this launch's.
        index: as for `plan`.

    Returns:
        The results folder, and what is missing in it.

    Raises:
        UserError: as `plan`; a results folder that is not as this program left it; a worker process that died.
    """
    began = time.monotonic()
    try:
        planned = plan(arms_cfg, index, provenance.source(), began)
    except Stopped:
        text = "no time is left to place the windows of lambda; the same command goes on with their first task"
        return Ended(grid.folder_of(arms_cfg[0]), text, stopped=True)
    store = Store(planned.folder)
    store.create()
    store.merge()  # what a launch that was killed has left
    measured = {window.FILE: planned.traces, stacking.FILE: planned.stacks}
    if any(values and store.keep(file, values) != values for file, values in measured.items()):
        planned = plan(arms_cfg, index)  # another launch was first to measure: what it found holds for all
    if text := grid.repeated(planned.arms, [cell for chunk in planned.chunks for cell in chunk]):
        print(text, file=sys.stderr)
    before = tell_lacking(planned, store)
    at_once = processes(arms_cfg[0]["workers"], planned.device, len(planned.chunks), cores, planned.processes)
    ended = launch(planned, store, command, at_once, began)
    tell_lacking(planned, store, before)
    return ended


def tell_lacking(planned: Plan, store: Store, told: str = "") -> str:
    """Say, unless it has been told, which finished runs lack the weights that are wanted; what is said."""
    finished = store.finished()
    cells = [cell for chunk in planned.chunks for cell in chunk if cell.run_id in finished]
    text = weights.lacking(store.folder, planned.arms, cells)
    if text and text != told:
        print(text, file=sys.stderr)
    return text


def launch(
    planned: Plan,
    store: Store,
    command: str,
    at_once: int,
    began: float,
    workshop: Callable[[engine.Report], worker.Workshop] = worker.Workshop,
) -> Ended:
    """Compute what is missing of a plan, in a folder that has been made.

    Args:
        planned: a study, or a measurement beside one.
        store: of its folder.
        command: as for `compute_missing`.
        at_once: processes, at most; 1 is this one.
        began: when the launch did (`time.monotonic`).
        workshop: what computes a chunk in this process; others have that of a study.

    Returns:
        As `compute_missing`.
    """
    common, stopped = planned.arms[0].cfg, False
    pending = left(planned, store.finished())
    if common["retry"] == "failed":
        failed = store.failed_runs()
        pending = [chunk for chunk in pending if any(cell.run_id in failed for cell in chunk)]
    if pending:
        source = provenance.source()
        invocation = {
            "command": command,
            "started": provenance.now(),
            **source._asdict(),
            "torch": torch.__version__,
            "hardware": runtime.hardware(planned.device),
            "config_ids": list(planned.configs),
        }
        store.note_invocation(invocation, planned.data, planned.configs)
        budget = Budget(common["time_budget"], began)
        here = (planned.arms, store.folder, planned.device, source, budget.deadline)
        jobs = [Job(chunk, *here) for chunk in pending]
        stopped = compute(store, jobs, min(at_once, len(jobs)), budget, workshop) < len(jobs)
    store.merge()
    missing = store.missing(planned.run_ids)
    if not missing:
        store.tidy()
    return Ended(store.folder, unfinished(missing, planned, store), stopped)


def left(planned: Plan, finished: Collection[str]) -> list[list[Cell]]:
    """What is not finished of every chunk, whatever other chunks the rest was part of."""
    parts = ([cell for cell in chunk if cell.run_id not in finished] for chunk in planned.chunks)
    return [part for part in parts if part]


def unfinished(missing: Collection[str], planned: Plan, store: Store) -> str:
    """Why a study of which these runs are missing is not complete, in one line; empty if it is."""
    if not missing:
        return ""
    text = f"{len(missing)} of {len(planned.run_ids)} runs are missing"
    if failed := store.failed():
        name, failure = next(iter(failed.items()))
        last = failure["traceback"].strip().splitlines()[-1]
        text += f"; {len(failed)} chunks failed, e.g. {store.failures / name}.json: {last}"
    return text + "; the same command computes them, retry=failed only those that failed"


def public(cfg: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the folders of this machine, and the same for every job that shares the work."""
    own = (*provenance.FOLDERS, "analysis", "copy", "time_budget", "checkpoint_every", "save", "allow_targets")
    return {key: value for key, value in cfg.items() if key not in own}


def measured_traces(
    workshop: worker.Workshop,
    arms_cfg: list[dict[str, Any]],
    device: str,
    store: Store,
    source: provenance.Source | None,
    deadline: float | None,
) -> dict[str, float]:
    """Traces of these arms' importances after the first task of their first seed, by config_id.

    With a source, that training is kept in the folder, as that of chunks is, and has a deadline, as that has.
    """
    result = {}
    for cfg in arms_cfg:
        arm, seed = grid.make_arm(cfg), cfg["seeds"][0]
        experiment, estimator = workshop.experiment(arm, device), workshop.estimator(cfg)
        if estimator is None:
            raise UserError(f"grid=window: {arm.label} has no Fisher whose trace could place a window; use grid=blog")
        if source:
            store.create()
            job = Job([Cell(0, None, seed, "")], [arm], store.folder, device, source, deadline)
            trunk = workshop.first_task(job, experiment)
        else:
            trunk = engine.trunk_of(experiment, [seed], workshop.trunks)
        result[arm.config_id] = tree.traces(engine.measure(experiment, trunk.stack, 0, [estimator])).item()
    return result
