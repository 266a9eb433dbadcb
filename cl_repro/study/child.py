"""A process of a pool: what it is given, and that it ends with its parent."""

import os
import threading
import time
from functools import cache
from multiprocessing import parent_process
from typing import Any

import torch

from cl_repro.common import runtime
from cl_repro.study.jobs import Job
from cl_repro.study.worker import Workshop

POOL: dict[str, Any] = {}


def start(progress: Any, taken: Any, counter: Any, device: str) -> None:
    """Prepare a process of the pool; it ends when its parent does.

    Args:
        progress: shared array [replica iterations done, task, loss].
        taken: shared array, of each job the id of the process that took it last.
        counter: shared, of the processes that have started: they are dealt over the CUDA devices.
        device: of the study's chunks; `cuda` is then the one taken here.
    """
    runtime.prepare()

    def report(done: int, task: int, loss: float) -> None:
        with progress.get_lock():
            progress[0] += done
            progress[1], progress[2] = task, loss

    POOL.update(workshop=Workshop(report), taken=taken)
    end_with_parent()
    with counter.get_lock():
        index, counter.value = counter.value, counter.value + 1
    own = runtime.resolve_device(device, index)
    if own.startswith("cuda:"):
        torch.cuda.set_device(own)


@cache
def end_with_parent() -> None:
    """From now on this process, of a pool or of joblib, ends when its parent does: no orphan goes on computing."""
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=wait_for_end, args=(parent.pid,), daemon=True).start()


def wait_for_end(pid: int | None) -> None:
    """End when this process has another parent than the one that started it: `join` does not know joblib's."""
    while os.getppid() == pid:
        time.sleep(0.5)
    os._exit(1)


def compute(number: int, job: Job, wait: bool = False) -> str:
    """`Workshop.compute` in a process of the pool, which says first that it takes the job of this number."""
    POOL["taken"][number] = os.getpid()
    return POOL["workshop"].compute(job, wait)
