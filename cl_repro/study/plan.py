"""What a study would cost, before it is launched: measured on this device, not guessed."""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import mean
from typing import Any, NamedTuple

from cl_repro import engine
from cl_repro.benchmarks.data.files import MissingDataError
from cl_repro.common import runtime
from cl_repro.common.errors import ElsewhereError, UserError, visible
from cl_repro.engine import checkpoint
from cl_repro.records import Store, identity
from cl_repro.study import grid, pool, stacking, study, worker
from cl_repro.study.compose import from_command_line
from cl_repro.study.status import duration

SHORT, LONG = 10, 40  # iterations per task of the two calibration runs; the difference is training alone
BYTES_PER_RUN = 2500  # of CSV text, measured: five tasks
UNITS = ("bytes", "kB", "MB", "GB", "TB")
CPUS = 4  # of a job at most, with workers=auto on CPUs: one that asks for more waits longer for them
MARGIN = 1.25  # times the memory that was held when it was measured


class Resources(NamedTuple):
    """What a job of a sweep needs of its machine."""

    cpus: int  # one for each process
    memory: int  # bytes, of all its processes


def main(overrides: Sequence[str]) -> None:
    """`python -m cl_repro plan`: `plan` of what these overrides compose."""
    plan(from_command_line(overrides))


def plan(arms_cfg: list[dict[str, Any]]) -> None:
    """Print cells, measured seconds per cell, total hours, disk and peak memory; nothing is written.

    Raises a `UserError` for everything that a launch would refuse.
    """
    runtime.prepare()
    planned = study.plan(arms_cfg)
    runs, finished = planned.run_ids, Store(planned.folder).finished()
    pending = study.left(planned, finished)
    print(f"{planned.folder}: {len(runs)} runs in {len(planned.chunks)} chunks, {len(runs & finished)} finished")
    if not pending:
        return
    workshop = worker.Workshop(lambda *_: None)
    per_arm: dict[int, float] = {}
    for chunk in pending:
        for i in dict.fromkeys(cell.arm for cell in chunk):
            if i not in per_arm:
                per_arm[i] = seconds_per_run(workshop, planned, [cell for cell in chunk if cell.arm == i])
                label = visible(planned.arms[i].label)
                print(f"  {label}: {per_arm[i]:.2f} s a run, in stacks of {len(chunk)}")
    total = sum(per_arm[cell.arm] for chunk in pending for cell in chunk)
    n_pending = sum(map(len, pending))
    n_processes = pool.processes(arms_cfg[0]["workers"], planned.device, len(pending), each=planned.processes)
    unit = "GPU" if planned.device.startswith("cuda") else "core"
    print(
        f"{n_pending} runs to compute: {total / 3600:.2f} {unit}-hours, "
        f"about {duration(total / n_processes)} with {n_processes} processes; "
        f"{size(n_pending * BYTES_PER_RUN)} of disk, {size(runtime.peak_memory(planned.device))} of memory a process"
    )


def seconds_per_run(workshop: worker.Workshop, planned: study.Plan, cells: Sequence[grid.Cell]) -> float:
    """Seconds of one of these runs of one arm, from two short ones in the same stack."""
    arm, device = planned.arms[cells[0].arm], planned.device
    experiment, method = workshop.experiment(arm, device), workshop.method(arm.cfg)
    walls = []
    for iterations in (SHORT, LONG):
        began = runtime.clock(device)
        short = experiment._replace(iterations=iterations, share_first_task=False)
        engine.train(short, method, workshop.replicas(planned.arms, cells), {})
        walls.append(runtime.clock(device) - began)
    per_iteration = max(0.0, walls[1] - walls[0]) / (LONG - SHORT)
    fixed = max(0.0, walls[0] - SHORT * per_iteration)
    return (fixed + per_iteration * mean(engine.lengths(experiment, method, cells[0].seed))) / len(cells)


def needs(jobs: Sequence[list[dict[str, Any]]], cpus: int | None = None, gpus: int = 0) -> Resources:
    """What each job of a sweep needs: as much as the one that needs most.

    Every kind of chunk is computed with few steps and examples here, in this process: call it in one of its own.

    Args:
        jobs: of each the arms, as for `plan`.
        cpus: of a job, where they are given.
        gpus: of a job.

    Returns:
        The needs.

    Raises:
        ElsewhereError: the jobs are for CUDA devices, of which this machine has none, or it does not have their data.
        UserError: what a launch would refuse, if it would refuse all of the jobs.
    """
    runtime.prepare()
    place = {"auto": "cuda:0" if gpus else "cpu", "cuda": "cuda:0"}
    jobs = [[cfg | {"device": place.get(cfg["device"], cfg["device"])} for cfg in arms] for arms in jobs]
    if any(arms[0]["device"].startswith("cuda") for arms in jobs) and not runtime.cuda_devices():
        raise ElsewhereError("this machine has no CUDA device")
    shared = Counter(identity.digest([study.public(cfg) for cfg in arms], 8) for arms in jobs)  # jobs of one study
    most, refused = Resources(0, 0), None
    workshop = worker.Workshop(lambda *_: None)
    for arms in {identity.digest([alike(cfg) for cfg in arms], 8): arms for arms in reversed(jobs)}.values():
        try:
            planned = study.plan(arms)
        except MissingDataError as error:
            raise ElsewhereError(str(error)) from error
        except UserError as error:  # the job says so itself
            refused = error
            continue
        copies = shared[identity.digest([study.public(cfg) for cfg in arms], 8)]
        n_chunks, workers = math.ceil(len(planned.chunks) / copies), arms[0]["workers"]
        if workers == "auto":
            workers = cpus or (max(1, gpus) * planned.processes if gpus else CPUS)
        n = min(workers, n_chunks)
        for chunk in {
            tuple(sorted({c.arm for c in chunk})): chunk for chunk in sorted(planned.chunks, key=len)
        }.values():
            rehearse(workshop, planned, chunk)
        processes = n + (n > 1)  # one that only hands out the chunks
        held = MARGIN * processes * runtime.peak_memory("cpu")
        most = Resources(max(most.cpus, cpus or n), max(most.memory, math.ceil(held)))
    if refused and not most.cpus:
        raise refused
    return most


def alike(cfg: dict[str, Any]) -> dict[str, Any]:
    """A configuration but for what changes no need: which seeds and lambdas, not how many."""
    of_grid = cfg["grid"] | {"lambdas": len(cfg["grid"].get("lambdas") or ())}
    return study.public(cfg) | {"workers": cfg["workers"], "seeds": len(cfg["seeds"]), "lam": None, "grid": of_grid}


def rehearse(workshop: worker.Workshop, planned: study.Plan, chunk: Sequence[grid.Cell]) -> None:
    """Hold at some moment what a chunk holds: all its tasks, short, its checkpoints, and the draws of a whole task."""
    arm = planned.arms[chunk[0].arm]
    experiment, method = workshop.experiment(arm, planned.device), workshop.method(arm.cfg)
    replicas = workshop.replicas(planned.arms, chunk)
    short = stacking.shortened(experiment, method, [replica.estimator for replica in replicas])
    for at in engine.stages(short, method, replicas, {}):
        checkpoint.dump(at, experiment, {})
    next(engine.stages(experiment._replace(share_first_task=False), method, replicas, {}, every=1))


def size(n_bytes: float) -> str:
    """1.2 GB."""
    power = min(int(math.log10(max(n_bytes, 1)) / 3), len(UNITS) - 1)
    return f"{n_bytes / 1000**power:.3g} {UNITS[power]}"
