"""The chunks of a study, computed in this process or in several."""

import math
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import Any

from cl_repro import engine
from cl_repro.common import runtime
from cl_repro.common.errors import UserError
from cl_repro.common.progress import progress_bar
from cl_repro.records import Store
from cl_repro.study import child, grid, worker
from cl_repro.study.jobs import Job


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
    jobs: list[Job],
    n_processes: int,
    budget: Budget,
    workshop: Callable[[engine.Report], worker.Workshop] = worker.Workshop,
) -> int:
    """Compute chunks, in this process if one is enough, while the budget lasts; merge each as it finishes.

    One bar on standard error: replicas done, iterations, time to go, current task and its loss.

    Returns:
        Of how many chunks there is no more to compute in this launch: they are done, or failed.
    """
    measure = workshop(lambda *_: None)
    total, replicas, finished = sum(map(measure.size, jobs)), sum(len(job.chunk) for job in jobs), 0
    settled = 0
    text = f"0/{replicas} replicas"
    with progress_bar(desc=text, total=total, unit="it", unit_scale=True, smoothing=0.05) as bar:

        def show(done: float, task: float, loss: float) -> None:
            if done:
                of_task = "" if math.isnan(loss) else f", loss {loss:.4f}"
                bar.set_postfix_str(f"task {int(task) + 1}{of_task}", refresh=False)
            bar.update(min(done, bar.total - bar.n))

        def ended(job: Job, outcome: str) -> None:
            nonlocal finished, settled
            settled += outcome in (worker.DONE, worker.FAILED)
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
    return settled


def compute_in_pool(
    jobs: list[Job],
    n_processes: int,
    budget: Budget,
    show: Callable[[float, float, float], None],
    ended: Callable[[Job, str], None],
) -> None:
    """Compute chunks in worker processes, another one as long as the budget allows it.

    `show` is told iterations done, task and loss now and then, `ended` what `child.compute` said of a chunk.
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
        with ProcessPoolExecutor(n_processes, context, child.start, started) as pool:
            try:
                while True:
                    while queue and len(waiting) < n_processes and budget.allows():
                        number, wait_for_it = queue.popleft()
                        try:
                            future = pool.submit(child.compute, number, jobs[number], wait_for_it)
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


def death(codes: dict[int | None, int | None], jobs: dict[int, Job]) -> str:
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
        if code == 1:  # what Python ends with where it cannot import the script that started it
            advice = (
                "a script starts workers under `if __name__ == '__main__':` alone, as each of them imports it; "
                "or give workers=1"
            )
        return f"a worker process died before it had a chunk ({how}); {advice}"
    arms, chunk = jobs[pid].arms, jobs[pid].chunk
    first = f"{arms[chunk[0].arm].label}, seed {chunk[0].seed}"
    first += "" if chunk[0].lam is None else f", lambda {chunk[0].lam:g}"
    others = f" and {len(chunk) - 1} more" if len(chunk) > 1 else ""
    return f"a worker process died ({how}) in chunk {grid.chunk_id(chunk)} ({first}{others}); {advice}"
