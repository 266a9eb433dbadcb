"""A study from composed arms to rows: check everything, plan the chunks, compute what is missing, merge."""

import multiprocessing
from collections import deque
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


class Ended(NamedTuple):
    """What a launch of a study leaves."""

    folder: Path
    unfinished: str  # why it is not complete, in one line; empty if it is


class Plan(NamedTuple):
    """A study, checked and cut into chunks."""

    arms: list[Arm]
    chunks: list[list[Cell]]
    folder: Path  # of the results
    device: str
    data: dict[str, str]  # checksums


def plan(arms_cfg: list[dict[str, Any]], index: int | None = None) -> Plan:
    """Check everything a study needs, before any training.

    Args:
        arms_cfg: the resolved configuration of every arm; what is not science is the same in all.
        index: of the CUDA device to take, as for `runtime.resolve_device`.

    Returns:
        What there is to compute.

    Raises:
        UserError: bad values, impossible pairs, missing data.
    """
    common = arms_cfg[0]
    for cfg in arms_cfg:
        check(cfg)
    device = runtime.resolve_device(common["device"], index)
    workshop = worker.Workshop(lambda *_: None)
    arms = [grid.make_arm(cfg) for cfg in arms_cfg]
    check_sizes(workshop, arms, device)
    limit = max_replicas(common["max_replicas"], parameters(workshop, arms[0], device), device)
    return Plan(
        arms,
        grid.chunks(arms, grid.cells(arms), limit),
        Path(common["results_dir"]) / (common["name"] + common["suffix"]),
        device,
        {cfg["benchmark"]["name"]: workshop.benchmark(cfg, device).checksum for cfg in arms_cfg},
    )


def run(arms_cfg: list[dict[str, Any]], command: str, cores: int, index: int | None = None) -> Ended:
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
    planned = plan(arms_cfg, index)
    store = Store(planned.folder)
    finished = store.finished()
    pending = [chunk for chunk in planned.chunks if not {cell.run_id for cell in chunk} <= finished]
    if arms_cfg[0]["retry"] == "failed":
        failed = store.failed()
        pending = [chunk for chunk in pending if grid.chunk_id(chunk) in failed]
    if pending:
        source = provenance.source()
        invocation = {
            "command": command,
            "started": provenance.now(),
            **source._asdict(),
            "torch": torch.__version__,
            "hardware": runtime.hardware(planned.device),
            "config_ids": [arm.config_id for arm in planned.arms],
        }
        store.note_invocation(invocation, planned.data, {arm.config_id: public(arm.cfg) for arm in planned.arms})
        jobs = [worker.Job(chunk, planned.arms, store.folder, planned.device, source) for chunk in pending]
        compute(store, jobs, processes(arms_cfg[0]["workers"], planned.device, len(jobs), cores))
    store.merge()
    return Ended(store.folder, unfinished(planned, store))


def unfinished(planned: Plan, store: Store) -> str:
    """Why a study is not complete, in one line; empty if it is."""
    missing = {cell.run_id for chunk in planned.chunks for cell in chunk} - store.finished()
    if not missing:
        return ""
    text = f"{len(missing)} of {sum(map(len, planned.chunks))} runs are missing"
    if failed := store.failed():
        name, failure = next(iter(failed.items()))
        last = failure["traceback"].strip().splitlines()[-1]
        text += f"; {len(failed)} chunks failed, e.g. {store.failures / name}.json: {last}"
    return text + "; the same command computes them, retry=failed only those that failed"


def public(cfg: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the folders of this machine, and the same for every job that shares the work."""
    return {key: value for key, value in cfg.items() if key not in ("data_dir", "results_dir", "copy")}


def check_sizes(workshop: worker.Workshop, arms: list[Arm], device: str) -> None:
    """Refuse, before any training, what some task of some seed is too small for."""
    for arm in arms:
        cfg = arm.cfg
        experiment, estimator = workshop.experiment(arm, device), workshop.estimator(cfg)
        workshop.method(cfg)
        worker.make_optimiser(cfg["optim"], [torch.zeros(1, device=device)])
        for seed in cfg["seeds"]:
            for k, task in enumerate(experiment.benchmark.curriculum(seed).tasks):
                n, needed = len(task.rows), {"batch_size": cfg["batch_size"]}
                if estimator:
                    estimator.divisor(n)
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


def processes(setting: Any, device: str, n_jobs: int, cores: int | None = None) -> int:
    """Worker processes: as set, or one per core on a CPU and one per CUDA device; never more than chunks."""
    if setting == "auto":
        setting = {"cpu": cores or runtime.cores(), "cuda": max(1, runtime.cuda_devices())}.get(device, 1)
    return min(setting, n_jobs)


def compute(store: Store, jobs: list[worker.Job], n_processes: int) -> None:
    """Compute chunks, in this process if one is enough; merge each as it finishes."""
    with tqdm(total=sum(map(iterations, jobs)), unit="it", unit_scale=True, disable=None, smoothing=0.05) as bar:

        def show(done: float, task: float, loss: float) -> None:
            bar.set_postfix_str(f"task {int(task) + 1}, loss {loss:.4f}", refresh=False)
            bar.update(min(done, bar.total - bar.n))

        if n_processes == 1:
            workshop = worker.Workshop(show)
            queue = deque((job, False) for job in jobs)
            while queue:
                job, wait_for_it = queue.popleft()
                if workshop.compute(job, wait_for_it) == worker.BUSY:  # another launch is at it: the rest comes first
                    queue.append((job, True))
                store.merge()
        else:
            compute_in_pool(store, jobs, n_processes, show)


def compute_in_pool(
    store: Store, jobs: list[worker.Job], n_processes: int, show: Callable[[float, float, float], None]
) -> None:
    """Compute chunks in worker processes."""
    if multiprocessing.get_start_method() not in multiprocessing.get_all_start_methods():
        # In a process of joblib the default is `loky`, which a child is told and does not know.
        multiprocessing.set_start_method("spawn", force=True)
    context = multiprocessing.get_context("spawn")
    progress = context.Array("d", 3)  # replica iterations done, task, loss
    shown = 0.0
    started = (progress, context.Value("i", 0), jobs[0].device)
    with ProcessPoolExecutor(n_processes, context, start_worker, started) as pool:
        waiting: dict[Future[str], worker.Job] = {pool.submit(worker.compute, job): job for job in jobs}
        try:
            while waiting:
                done, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                now, task, loss = progress[:]
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


def start_worker(progress: Any, counter: Any, device: str) -> None:
    """Prepare a process of the pool; where there are several CUDA devices, its number decides which one it takes.

    Args:
        progress: as for `worker.start`.
        counter: shared, of the processes that have started.
        device: of the study's chunks; `cuda` is then the one taken here.
    """
    worker.start(progress)
    with counter.get_lock():
        index, counter.value = counter.value, counter.value + 1
    own = runtime.resolve_device(device, index)
    if own.startswith("cuda:"):
        torch.cuda.set_device(own)


def iterations(job: worker.Job) -> int:
    """Replica iterations that a chunk reports; a shared first task is not counted."""
    cfg = job.arms[job.chunk[0].arm].cfg
    tasks = cfg["benchmark"]["n_tasks"] - cfg["share_first_task"]
    return len(job.chunk) * cfg["iterations"] * tasks
