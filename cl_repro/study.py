"""A study from composed arms to rows: check everything, plan the chunks, compute what is missing, merge."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from cl_repro import grid, provenance, runtime, worker
from cl_repro.config import check
from cl_repro.errors import UserError
from cl_repro.grid import Arm, Cell
from cl_repro.records import Store

SMALL_NETWORK = 50_000  # parameters; up to here a stack pays on a CPU (measured: 4-10x at 17,610, nothing at 478,410)
CPU_STACK = 128  # replicas of a small network
CUDA_STACK = 512
CUDA_BYTES = 16 * 2**30  # for the state of a stack
TREES = 12  # of the size of the parameters a replica may need: weights, gradients, moments, importance, anchor, ...


class Plan(NamedTuple):
    """A study, checked and cut into chunks."""

    arms: list[Arm]
    chunks: list[list[Cell]]
    folder: Path  # of the results
    device: str
    data: dict[str, str]  # checksums


def plan(arms_cfg: list[dict[str, Any]]) -> Plan:
    """Check everything a study needs, before any training.

    Args:
        arms_cfg: the resolved configuration of every arm; what is not science is the same in all.

    Returns:
        What there is to compute.

    Raises:
        UserError: bad values, impossible pairs, missing data.
    """
    common = arms_cfg[0]
    for cfg in arms_cfg:
        check(cfg)
    device = runtime.resolve_device(common["device"])
    workshop = worker.Workshop(lambda *_: None)
    arms = [grid.make_arm(cfg, workshop.method(cfg).penalty_grad is not None) for cfg in arms_cfg]
    check_sizes(workshop, arms, device)
    limit = max_replicas(common["max_replicas"], parameters(workshop, arms[0], device), device)
    return Plan(
        arms,
        grid.chunks(arms, grid.cells(arms), limit),
        Path(common["results_dir"]) / (common["name"] + common["suffix"]),
        device,
        {cfg["benchmark"]["name"]: workshop.benchmark(cfg, device).checksum for cfg in arms_cfg},
    )


def run(arms_cfg: list[dict[str, Any]]) -> Path:
    """Compute a study's missing rows.

    Args:
        arms_cfg: as for `plan`.

    Returns:
        The results folder, complete.

    Raises:
        UserError: as `plan`; a results folder that is not as this program left it; a worker process that died.
    """
    planned = plan(arms_cfg)
    store = Store(planned.folder)
    finished = store.finished()
    pending = [chunk for chunk in planned.chunks if not {cell.run_id for cell in chunk} <= finished]
    if pending:
        source = provenance.source()
        invocation = {
            "command": provenance.command(),
            "started": provenance.now(),
            **source._asdict(),
            "torch": torch.__version__,
            "hardware": runtime.hardware(planned.device),
            "config_ids": [arm.config_id for arm in planned.arms],
        }
        store.note_invocation(invocation, planned.data, {arm.config_id: public(arm.cfg) for arm in planned.arms})
        jobs = [worker.Job(chunk, planned.arms, store.folder, planned.device, source) for chunk in pending]
        compute(store, jobs, processes(arms_cfg[0]["workers"], planned.device, len(jobs)))
    store.merge()
    return store.folder


def public(cfg: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the folders of this machine."""
    return {key: value for key, value in cfg.items() if key not in ("data_dir", "results_dir")}


def check_sizes(workshop: worker.Workshop, arms: list[Arm], device: str) -> None:
    """Refuse, before any training, what some task of some seed is too small for."""
    for arm in arms:
        cfg = arm.cfg
        experiment, estimator = workshop.experiment(arm, device), workshop.estimator(cfg)
        worker.make_optimiser(cfg["optim"], [torch.zeros(1, device=device)])
        for seed in cfg["seeds"]:
            for k, task in enumerate(experiment.benchmark.curriculum(seed).tasks):
                n, needed = len(task.rows), {"batch_size": cfg["batch_size"]}
                if estimator:
                    needed |= {"fisher.n": estimator.rows(n), "fisher.batch_size": estimator.batch_size or 1}
                for key, value in needed.items():
                    if value > n:
                        raise UserError(f"{key}={value}: must be at most the {n} examples of task {k} of seed {seed}")


def parameters(workshop: worker.Workshop, arm: Arm, device: str) -> int:
    """Parameters of an arm's network."""
    params, _ = workshop.experiment(arm, device).net.init(torch.Generator())
    return sum(p.numel() for p in params.values())


def max_replicas(setting: Any, n_parameters: int, device: str) -> int:
    """Replicas in one stack: as set, or where stacking pays."""
    if setting != "auto":
        return setting
    if device.startswith("cuda"):
        return max(1, min(CUDA_STACK, CUDA_BYTES // (4 * TREES * n_parameters)))
    return CPU_STACK if n_parameters <= SMALL_NETWORK else 1


def processes(setting: Any, device: str, n_jobs: int) -> int:
    """Worker processes: as set, or one per core on a CPU and one on CUDA; never more than chunks."""
    auto = 1 if device.startswith("cuda") else runtime.cores()
    return min(auto if setting == "auto" else setting, n_jobs)


def compute(store: Store, jobs: list[worker.Job], n_processes: int) -> None:
    """Compute chunks, in this process if one is enough; merge each as it finishes."""
    with tqdm(total=sum(map(iterations, jobs)), unit="it", unit_scale=True, disable=None, smoothing=0.05) as bar:

        def show(done: float, task: float, loss: float) -> None:
            bar.set_postfix_str(f"task {int(task) + 1}, loss {loss:.4f}", refresh=False)
            bar.update(min(done, bar.total - bar.n))

        if n_processes == 1:
            workshop = worker.Workshop(show)
            for job in jobs:
                workshop.compute(job, wait=True)
                store.merge()
        else:
            compute_in_pool(store, jobs, n_processes, show)


def compute_in_pool(
    store: Store, jobs: list[worker.Job], n_processes: int, show: Callable[[float, float, float], None]
) -> None:
    """Compute chunks in worker processes."""
    context = multiprocessing.get_context("spawn")
    progress = context.Array("d", 3)  # replica iterations done, task, loss
    shown = 0.0
    with ProcessPoolExecutor(n_processes, context, worker.start, (progress,)) as pool:
        waiting: dict[Future[str], worker.Job] = {pool.submit(worker.compute, job): job for job in jobs}
        try:
            while waiting:
                done, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                now, task, loss = progress
                show(now - shown, task, loss)
                shown = now
                for future in done:
                    job = waiting.pop(future)
                    if future.result() == worker.BUSY:  # another launch is at it: look again when the rest is done
                        waiting[pool.submit(worker.compute, job, wait=True)] = job
                if done:
                    store.merge()
        except BrokenProcessPool:
            raise UserError(
                "a worker process died (killed, or out of memory); finished chunks are kept: run the same command again"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def iterations(job: worker.Job) -> int:
    """Replica iterations that a chunk reports; a shared first task is not counted."""
    cfg = job.arms[job.chunk[0].arm].cfg
    tasks = cfg["benchmark"]["n_tasks"] - cfg["share_first_task"]
    return len(job.chunk) * cfg["iterations"] * tasks
