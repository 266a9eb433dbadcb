"""Going on with a chunk, or with a first task that chunks share, where a stop or a kill has left it."""

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from filelock import Timeout

from cl_repro import engine
from cl_repro.common import runtime
from cl_repro.common.errors import told
from cl_repro.engine import checkpoint
from cl_repro.records import Lock, write_atomically
from cl_repro.records.chunks import DAMAGED, first_task_file
from cl_repro.records.identity import digest
from cl_repro.study import provenance
from cl_repro.study.jobs import Job, Stopped


class Overtaken(Exception):
    """What is trained here another process keeps by now."""


def origin(job: Job, experiment: engine.Experiment) -> checkpoint.Origin:
    """Code, libraries, machine and data of a chunk, which must be the same where it goes on."""
    return {
        **{key: str(value) for key, value in job.source._asdict().items()},
        "code": provenance.code(*job.arm.cfg["allow_targets"]),
        "torch": str(torch.__version__),
        "hardware": runtime.hardware(job.device),
        "data": experiment.benchmark.checksum,
    }


def begun(
    path: Path, experiment: engine.Experiment, seeds: list[int], origin: checkpoint.Origin
) -> engine.Progress | None:
    """What a checkpoint says; None to begin, or to begin again: of other runs, code, machine or data, or damaged."""
    with told(path, "cannot be read"):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
    try:
        found = checkpoint.load(data, experiment, seeds, origin)
    except checkpoint.Unusable as error:
        aside = path.with_suffix(DAMAGED)
        path.replace(aside)
        sys.stderr.write(f"{path}: {error}; set aside as {aside.name}, its runs begin again\n")
        return None
    if found is None:
        sys.stderr.write(f"{path}: of other runs, or other code, torch, machine or data: its runs begin again\n")
    return found


def kept(
    stages: Iterator[engine.Progress], tasks: int, job: Job, write: Callable[[engine.Progress], None]
) -> Iterator[engine.Progress]:
    """The stages of so many tasks; `write` is given one every `checkpoint_every` seconds, but not the last task's end.

    So a process that is killed, or a machine that fails, loses no more work than that. Raises `Stopped` in time before
    the deadline, and leaves a checkpoint then, too.
    """
    every = job.arm.cfg["checkpoint_every"]
    longest, since = 0.0, time.monotonic()
    written = since
    for at in stages:
        yield at
        if at.learned == tasks:
            return
        now = time.monotonic()
        longest, since = max(longest, now - since), now
        late = job.deadline is not None and now + longest > job.deadline
        if late or now + longest > written + every:
            write(at)
            written = now
        if late:
            raise Stopped


def first_task(job: Job, experiment: engine.Experiment, seeds: list[int]) -> engine.Progress:
    """A first task that chunks share, at its end: trained here, or found in the folder.

    When it has taken `checkpoint_every` seconds, one process goes on with it, keeps it, and holds its lock; the others
    wait for that one, and who is killed leaves it to the next. Raises `Stopped` where the time is over.
    """
    here = origin(job, experiment)
    path = first_task_file(job.folder, digest([engine.trunk_name(experiment, seeds), here], 8))
    lock, at = Lock(path.with_suffix(".lock")), None

    def turn() -> None:
        try:
            lock.acquire(timeout=job.left)
        except Timeout:
            raise Stopped from None

    def write(at: engine.Progress) -> None:
        if not lock.is_locked:
            turn()
            if path.exists():
                raise Overtaken
        write_atomically(path, checkpoint.dump(at, experiment, here))

    try:
        if path.exists():
            turn()
            at = begun(path, experiment, seeds, here)
        if at and at.learned:
            os.utime(path)  # it is in use: see `Store.tidy`
            return at
        [at] = deque(kept(engine.first_task(experiment, seeds, at), 1, job, write), maxlen=1)
        if lock.is_locked:
            write(at)
        return at
    except Overtaken:
        lock.release()  # before its turn comes again, to read what the other process keeps
        return first_task(job, experiment, seeds)
    finally:
        lock.release()
