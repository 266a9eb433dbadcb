"""A study from composed arms to rows: check everything, plan the chunks, compute what is missing, merge."""

import math
import multiprocessing
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cl_repro import engine, grid, provenance, runtime, stacking, tree, weights, window, worker
from cl_repro.config import NOT_ARGUMENTS, check
from cl_repro.errors import UserError
from cl_repro.grid import Arm, Cell
from cl_repro.progress import progress_bar
from cl_repro.records import Store, kept


class Ended(NamedTuple):
    """What a launch of a study leaves."""

    folder: Path
    unfinished: str  # why it is not complete, in one line; empty if it is
    stopped: bool = False  # whether it is for want of time, so that the same command gets on


class Budget:
    """Wall seconds of a launch: no task begins that would not end in time if it took as long as those before.

    This decides about the first task of a chunk, `worker.Workshop.outcomes` about the others. The first of a launch
    always begins, so that every launch gets on.
    """

    def __init__(self, seconds: float | None, began: float) -> None:
        """`seconds` from `began` (`time.monotonic`) on; None: no end."""
        self.deadline = None if seconds is None else began + seconds
        self.longest = 0.0

    def allows(self) -> bool:
        """Whether there is time for a task of another chunk."""
        return self.deadline is None or not self.longest or time.monotonic() + self.longest <= self.deadline

    def took(self, since: float, tasks: int) -> None:
        """A chunk of so many tasks that began at `since` (`time.monotonic`) has ended."""
        self.longest = max(self.longest, (time.monotonic() - since) / tasks)


class Plan(NamedTuple):
    """A study, checked and cut into chunks."""

    arms: list[Arm]
    chunks: list[list[Cell]]
    folder: Path  # of the results
    device: str
    data: dict[str, str]  # checksums
    configs: dict[str, Any]  # to be recorded, by config_id
    traces: dict[str, float]  # that place the windows of grid=window, by window.key
    processes: int  # on one CUDA device, where workers=auto
    stacks: dict[str, float]  # what was measured of stacks, by names of `stacking.limits`


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
    if common["save"]:
        weights.library(f"save={common['save']}")
    device = runtime.resolve_device(common["device"], index)
    workshop = worker.Workshop(lambda *_: None)
    check_arms(workshop, [grid.make_arm(cfg) for cfg in arms_cfg], device)
    folder = folder_of(common)
    Store(folder)  # refused, if it is not ours, before anything is measured
    traces = kept(folder, window.FILE)
    traces |= measured_traces(workshop, window.wanted(arms_cfg, traces), device)
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


def check_arms(workshop: worker.Workshop, arms: list[Arm], device: str) -> None:
    """Refuse, before any training, what cannot be trained and measured here."""
    check_memory(workshop, arms, device)
    check_sizes(workshop, arms, device)
    check_networks(workshop, arms, device)


def folder_of(cfg: dict[str, Any]) -> Path:
    """Where results go."""
    return Path(cfg["results_dir"]) / (cfg["name"] + cfg["suffix"])


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
    began = time.monotonic()
    planned = plan(arms_cfg, index)
    store = Store(planned.folder)
    store.create()
    store.merge()  # what a launch that was killed has left
    measured = {window.FILE: planned.traces, stacking.FILE: planned.stacks}
    if any(values and store.keep(file, values) != values for file, values in measured.items()):
        planned = plan(arms_cfg, index)  # another launch was first to measure: what it found holds for all
    run_ids = store.finished() & {cell.run_id for chunk in planned.chunks for cell in chunk}
    if text := weights.lacking(store.folder, run_ids, arms_cfg[0]["save"]):
        print(text, file=sys.stderr)
    at_once = processes(arms_cfg[0]["workers"], planned.device, len(planned.chunks), cores, planned.processes)
    return launch(planned, store, command, at_once, began)


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
        command: as for `run`.
        at_once: processes, at most; 1 is this one.
        began: when the launch did (`time.monotonic`).
        workshop: what computes a chunk in this process; others have that of a study.

    Returns:
        As `run`.
    """
    common = planned.arms[0].cfg
    pending = left(planned, store.finished())
    if common["retry"] == "failed":
        failed = {run_id for failure in store.failed().values() for run_id in failure["run_ids"]}
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
        jobs = [worker.Job(chunk, *here) for chunk in pending]
        compute(store, jobs, min(at_once, len(jobs)), budget, workshop)
    store.merge()
    missing = unfinished(planned, store)
    if not missing:
        store.tidy()
    return Ended(store.folder, missing, bool(missing) and stopped(planned, store, common["time_budget"]))


def left(planned: Plan, finished: Collection[str]) -> list[list[Cell]]:
    """What is not finished of every chunk, whatever other chunks the rest was part of."""
    parts = ([cell for cell in chunk if cell.run_id not in finished] for chunk in planned.chunks)
    return [part for part in parts if part]


def unfinished(planned: Plan, store: Store) -> str:
    """Why a study is not complete, in one line; empty if it is."""
    missing = store.missing(cell.run_id for chunk in planned.chunks for cell in chunk)
    if not missing:
        return ""
    text = f"{len(missing)} of {sum(map(len, planned.chunks))} runs are missing"
    if failed := store.failed():
        name, failure = next(iter(failed.items()))
        last = failure["traceback"].strip().splitlines()[-1]
        text += f"; {len(failed)} chunks failed, e.g. {store.failures / name}.json: {last}"
    return text + "; the same command computes them, retry=failed only those that failed"


def stopped(planned: Plan, store: Store, time_budget: float | None) -> bool:
    """Whether runs are missing that have not failed: those for which no time was left."""
    failed = {run_id for failure in store.failed().values() for run_id in failure["run_ids"]}
    missing = store.missing(cell.run_id for chunk in planned.chunks for cell in chunk)
    return time_budget is not None and not set(missing) <= failed


def public(cfg: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the folders of this machine, and the same for every job that shares the work."""
    own = (*provenance.FOLDERS, "analysis", "copy", "time_budget", "checkpoint_every", "save", "allow_targets")
    return {key: value for key, value in cfg.items() if key not in own}


def check_memory(workshop: worker.Workshop, arms: list[Arm], device: str) -> None:
    """Refuse, before it is made, a network that has no room here with its gradient: on `meta` it has shapes alone."""
    room = runtime.memory()
    for arm in arms:
        net, generator = workshop.experiment(arm, device).net, torch.Generator()
        try:
            with torch.device("meta"):
                params, _ = net.init(generator)
            needed = 2 * sum(p.numel() for p in params.values()) * getattr(torch, arm.cfg["dtype"]).itemsize
        except RuntimeError as error:
            if "overflow" not in str(error):  # it looks at its own values: then it is made to see
                continue
            needed = sys.maxsize
        if needed > room:
            given = ", ".join(f"{k}={v}" for k, v in arm.cfg["model"].items() if k not in NOT_ARGUMENTS)
            raise UserError(
                f"model={arm.cfg['model']['name']} with {given}: needs {needed / 1e9:.3g} GB for weights and gradient, "
                f"must be at most the {room / 1e9:.3g} GB of this machine"
            )


def check_sizes(workshop: worker.Workshop, arms: list[Arm], device: str) -> None:
    """Refuse, before any training, what some task of some seed is too small for."""
    for arm in arms:
        cfg = arm.cfg
        experiment, estimator = workshop.experiment(arm, device), workshop.estimator(cfg)
        names = {group: cfg[group]["name"] for group in ("method", "optim", "model")}
        engine.check(experiment, workshop.method(cfg), cfg["seeds"], names)
        if experiment.net.columns:
            check_columns(cfg, experiment)
        for seed in cfg["seeds"]:
            for k, task in enumerate(experiment.benchmark.curriculum(seed).tasks):
                n, needed = len(task.rows), {"batch_size": cfg["batch_size"]}
                if n == 0:
                    raise UserError(f"val_fraction={cfg['val_fraction']}: leaves no example of task {k} of seed {seed}")
                if estimator:
                    estimator.divisor(n)
                    needed |= {"fisher.n": estimator.rows(n), "fisher.batch_size": estimator.batch_size or 1}
                for key, value in needed.items():
                    if value > n:
                        raise UserError(f"{key}={value}: must be at most the {n} examples of task {k} of seed {seed}")


def check_columns(cfg: dict[str, Any], experiment: engine.Experiment) -> None:
    """Refuse columns that are not one for each task, and optimisers that would move those of earlier tasks."""
    tasks, size = experiment.benchmark.curriculum(0).tasks, experiment.net.columns
    optimiser = experiment.optimiser([torch.zeros(1, device=experiment.device)])
    [group] = optimiser.param_groups
    own = [experiment.scenario.active(tasks, k, k) for k in range(len(tasks))]
    each = sum(map(len, own)) // len(tasks)
    if size != len(tasks) or own != [tuple(range(k * each, (k + 1) * each)) for k in range(len(tasks))]:
        raise UserError(f"model={cfg['model']['name']}: needs scenario=task and columns=n_tasks, one for each task")
    moves = not cfg["optim"]["reset"] and not (isinstance(optimiser, torch.optim.SGD) and not group["momentum"])
    if moves or group.get("weight_decay"):
        raise UserError(
            f"model={cfg['model']['name']} with optim={cfg['optim']['name']}: needs an optimiser that is reset for "
            "every task and has no weight decay, or it moves the columns of earlier tasks: optim=adam_reset"
        )


def check_networks(workshop: worker.Workshop, arms: list[Arm], device: str) -> None:
    """Refuse, before any training, a network with a layer that an estimator cannot measure: ask it for one example."""
    for arm in arms:
        experiment, estimator = workshop.experiment(arm, device), workshop.estimator(arm.cfg)
        if estimator is None:
            continue
        stack, benchmark = engine.start(experiment, arm.cfg["seeds"][:1]), experiment.benchmark
        n_outputs = experiment.scenario.n_outputs(benchmark, benchmark.curriculum(0).tasks)
        example = (
            benchmark.to_input(benchmark.x[:1]),
            torch.zeros(1, dtype=torch.int64, device=device),
            torch.zeros(1, dtype=torch.float64, device=device),
            torch.arange(min(2, n_outputs), device=device),  # of one logit there is nothing to measure
        )
        try:
            estimator.sum(experiment.net, tree.at(stack.params, 0), tree.at(stack.buffers, 0), *example)
        except ValueError as error:
            names = f"model={arm.cfg['model']['name']} with fisher={arm.cfg['fisher']['name']}"
            raise UserError(f"{names}: {error}") from error


def measured_traces(workshop: worker.Workshop, arms_cfg: list[dict[str, Any]], device: str) -> dict[str, float]:
    """Traces of these arms' importances after the first task of their first seed, by `window.key`."""
    result = {}
    for cfg in arms_cfg:
        arm = grid.make_arm(cfg)
        experiment, estimator = workshop.experiment(arm, device), workshop.estimator(cfg)
        if estimator is None:
            raise UserError(f"grid=window: {arm.label} has no Fisher whose trace could place a window; use grid=blog")
        trunk = engine.first_task(experiment, cfg["seeds"][:1], workshop.trunks)
        result[window.key(cfg)] = tree.traces(engine.measure(experiment, trunk.stack, 0, [estimator])).item()
    return result


def processes(setting: Any, device: str, n_jobs: int, cores: int | None = None, each: int = 1) -> int:
    """Worker processes: as set, or one per core on a CPU and `each` per CUDA device, never more than chunks.

    A process that drives a CUDA device needs a core for it.
    """
    cores = cores or runtime.cores()
    if setting == "auto" and device == "cpu":
        setting = cores
    elif setting == "auto":
        devices = max(1, runtime.cuda_devices()) if device == "cuda" else 1
        setting = devices * max(1, min(each, cores // devices))
    return min(setting, n_jobs)


def compute(
    store: Store,
    jobs: list[worker.Job],
    n_processes: int,
    budget: Budget,
    workshop: Callable[[engine.Report], worker.Workshop] = worker.Workshop,
) -> None:
    """Compute chunks, in this process if one is enough, while the budget lasts; merge each as it finishes.

    One bar on standard error: replicas done, iterations, time to go, current task and its loss.
    """
    measure = workshop(lambda *_: None)
    total, replicas, finished = sum(map(measure.size, jobs)), sum(len(job.chunk) for job in jobs), 0
    text = f"0/{replicas} replicas"
    with progress_bar(desc=text, total=total, unit="it", unit_scale=True, smoothing=0.05) as bar:

        def show(done: float, task: float, loss: float) -> None:
            if done:
                of_task = "" if math.isnan(loss) else f", loss {loss:.4f}"
                bar.set_postfix_str(f"task {int(task) + 1}{of_task}", refresh=False)
            bar.update(min(done, bar.total - bar.n))

        def ended(job: worker.Job, outcome: str) -> None:
            nonlocal finished
            finished += len(job.chunk) if outcome == worker.DONE else 0
            bar.set_description(f"{finished}/{replicas} replicas")
            store.merge_in_time()

        if n_processes == 1:
            here = workshop(show)
            queue = deque((job, False) for job in jobs)
            while queue and budget.allows():
                job, wait_for_it = queue.popleft()
                since = time.monotonic()
                outcome = here.compute(job, wait_for_it)
                budget.took(since, here.parts(job) if outcome == worker.DONE else 1)
                if outcome == worker.BUSY:  # another launch is at it: the rest comes first
                    queue.append((job, True))
                ended(job, outcome)
        else:
            compute_in_pool(jobs, n_processes, budget, show, ended)


def compute_in_pool(
    jobs: list[worker.Job],
    n_processes: int,
    budget: Budget,
    show: Callable[[float, float, float], None],
    ended: Callable[[worker.Job, str], None],
) -> None:
    """Compute chunks in worker processes.

    Args:
        jobs: the chunks.
        n_processes: at once.
        budget: decides whether another chunk begins.
        show: is told iterations done, task and loss now and then.
        ended: is told what `worker.compute` said of a chunk.
    """
    if multiprocessing.get_start_method() not in multiprocessing.get_all_start_methods():
        # In a process of joblib the default is `loky`, which a child is told and does not know.
        multiprocessing.set_start_method("spawn", force=True)
    context = multiprocessing.get_context("spawn")
    progress = context.Array("d", 3)  # replica iterations done, task, loss
    taken = context.Array("i", len(jobs))
    shown = 0.0
    started = (progress, taken, context.Value("i", 0), jobs[0].device)
    queue = deque((number, False) for number in range(len(jobs)))
    waiting: dict[Future[str], tuple[int, float]] = {}
    workers: set[BaseProcess] = set()
    try:
        with ProcessPoolExecutor(n_processes, context, start_worker, started) as pool:
            try:
                while True:
                    while queue and len(waiting) < n_processes and budget.allows():
                        number, wait_for_it = queue.popleft()
                        try:
                            future = pool.submit(worker.compute, number, jobs[number], wait_for_it)
                        except OSError as error:
                            if not any(process.exitcode for process in workers):
                                raise
                            # One died while the next was being started, whose queue the pool had just closed.
                            raise BrokenProcessPool from error
                        waiting[future] = number, time.monotonic()
                        workers.update(multiprocessing.active_children())
                    if not waiting:
                        break
                    done, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                    now, task, loss = progress[:]
                    show(now - shown, task, loss)
                    shown = now
                    for future in done:
                        outcome = future.result()
                        number, since = waiting.pop(future)
                        budget.took(since, worker.Workshop.parts(jobs[number]) if outcome == worker.DONE else 1)
                        if outcome == worker.BUSY:  # another launch is at it: look again when the rest is done
                            queue.append((number, True))
                        ended(jobs[number], outcome)
            except BrokenProcessPool:
                raise
            except BaseException:  # an interruption, or the end of a job's time: nobody waits for what was begun
                pool.shutdown(wait=False, cancel_futures=True)
                for process in workers:
                    process.terminate()
                raise
    except BrokenProcessPool:  # outside of the pool, which has now waited for all its processes
        codes = {process.pid: process.exitcode for process in workers}
        raise UserError(death(codes, {taken[number]: jobs[number] for number, _ in waiting.values()})) from None


def death(codes: dict[int | None, int | None], jobs: dict[int, worker.Job]) -> str:
    """Why a pool broke, in one line: the signal, the chunk, and what to do.

    Args:
        codes: exit status of each process, the number of a signal negative. The pool itself terminates the others.
        jobs: what each process computed.
    """
    by_itself = {pid: code for pid, code in codes.items() if code not in (None, 0, -signal.SIGTERM)} or codes
    pid, code = next(iter(by_itself.items()), (None, None))
    how = signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"
    kept = "finished chunks are kept: run the same command again"
    if how == "SIGKILL":
        advice = f"the system does this where memory is short: {kept}, with fewer workers"
    elif how in ("SIGTERM", "SIGINT", "SIGHUP"):
        advice = kept
    else:
        advice = f"{kept}; should it die there again, with ONEDNN_MAX_CPU_ISA=SSE41 in the environment"
    if pid not in jobs:
        return f"a worker process died before it had a chunk ({how}); {advice}"
    arms, chunk = jobs[pid].arms, jobs[pid].chunk
    first = f"{arms[chunk[0].arm].label}, seed {chunk[0].seed}"
    first += "" if chunk[0].lam is None else f", lambda {chunk[0].lam:g}"
    others = f" and {len(chunk) - 1} more" if len(chunk) > 1 else ""
    return f"a worker process died ({how}) in chunk {grid.chunk_id(chunk)} ({first}{others}); {advice}"


def start_worker(progress: Any, taken: Any, counter: Any, device: str) -> None:
    """Prepare a process of the pool; where there are several CUDA devices, its number decides which one it takes.

    Args:
        progress: as for `worker.start`.
        taken: as for `worker.start`.
        counter: shared, of the processes that have started.
        device: of the study's chunks; `cuda` is then the one taken here.
    """
    worker.start(progress, taken)
    with counter.get_lock():
        index, counter.value = counter.value, counter.value + 1
    own = runtime.resolve_device(device, index)
    if own.startswith("cuda:"):
        torch.cuda.set_device(own)
