"""What a study would cost, before it is launched: measured on this device, not guessed."""

import math
from typing import Any

from cl_repro import engine, grid, runtime, study, worker
from cl_repro.errors import visible
from cl_repro.records import Store
from cl_repro.status import clock

SHORT, LONG = 10, 40  # iterations per task of the two calibration runs; the difference is training alone
BYTES_PER_RUN = 2500  # of CSV text, measured: five tasks
UNITS = ("bytes", "kB", "MB", "GB", "TB")


def plan(arms_cfg: list[dict[str, Any]]) -> None:
    """Print cells, measured seconds per cell, total hours, disk and peak memory; nothing is written.

    Args:
        arms_cfg: the resolved configuration of every arm.

    Raises:
        UserError: everything a launch would refuse.
    """
    runtime.prepare()
    planned = study.plan(arms_cfg)
    finished = Store(planned.folder).finished()
    pending = study.left(planned, finished)
    runs = {cell.run_id for chunk in planned.chunks for cell in chunk}
    n_pending = sum(map(len, pending))
    print(f"{planned.folder}: {len(runs)} runs in {len(planned.chunks)} chunks, {len(runs & finished)} finished")
    if not pending:
        return
    workshop = worker.Workshop(lambda *_: None)
    per_arm: dict[str, float] = {}
    for chunk in pending:
        for cell in chunk:
            arm = planned.arms[cell.arm]
            if arm.label not in per_arm:
                same = [c for c in chunk if c.arm == cell.arm]
                per_arm[arm.label] = seconds_per_run(workshop, arm, same, planned.device)
                print(f"  {visible(arm.label)}: {per_arm[arm.label]:.2f} s a run, in stacks of {len(chunk)}")
    total = sum(per_arm[planned.arms[cell.arm].label] for chunk in pending for cell in chunk)
    n_processes = study.processes(arms_cfg[0]["workers"], planned.device, len(pending), each=planned.processes)
    unit = "GPU" if planned.device.startswith("cuda") else "core"
    print(
        f"{n_pending} runs to compute: {total / 3600:.2f} {unit}-hours, "
        f"about {clock(total / n_processes)} with {n_processes} processes; "
        f"{size(n_pending * BYTES_PER_RUN)} of disk, {size(runtime.peak_memory(planned.device))} of memory a process"
    )


def seconds_per_run(workshop: worker.Workshop, arm: grid.Arm, cells: list[grid.Cell], device: str) -> float:
    """Seconds of one of these runs, from two short ones in the same stack."""
    experiment = workshop.experiment(arm, device)
    replicas = [engine.Replica(c.seed, c.lam or 0.0, workshop.estimator(arm.cfg)) for c in cells]
    walls = []
    for iterations in (SHORT, LONG):
        began = runtime.clock(device)
        short = experiment._replace(iterations=iterations, share_first_task=False)
        engine.run(short, workshop.method(arm.cfg), replicas, {})
        walls.append(runtime.clock(device) - began)
    per_iteration = max(0.0, walls[1] - walls[0]) / (LONG - SHORT)
    fixed = max(0.0, walls[0] - SHORT * per_iteration)
    steps = engine.lengths(experiment, workshop.method(arm.cfg), cells[0].seed)
    mean = sum(steps) / len(steps)
    return (fixed + per_iteration * mean) / len(cells)


def size(n_bytes: float) -> str:
    """1.2 GB."""
    power = min(int(math.log10(max(n_bytes, 1)) / 3), len(UNITS) - 1)
    return f"{n_bytes / 1000**power:.3g} {UNITS[power]}"
