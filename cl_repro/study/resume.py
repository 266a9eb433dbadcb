"""Going on with a chunk, or with a first task that chunks share, where a stop or a kill has left it."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from cl_repro import engine
from cl_repro.common import runtime
from cl_repro.engine import checkpoint
from cl_repro.records import read_bytes, write_atomically
from cl_repro.records.chunks import DAMAGED
from cl_repro.study.jobs import Job, Stopped


def origin(job: Job, experiment: engine.Experiment) -> checkpoint.Origin:
    """Code, libraries, machine and data of a chunk, which must be the same where it goes on."""
    return {
        **{key: str(value) for key, value in job.source._asdict().items()},
        "torch": str(torch.__version__),
        "hardware": runtime.hardware(job.device),
        "data": experiment.benchmark.checksum,
    }


def begun(
    path: Path, experiment: engine.Experiment, seeds: list[int], origin: checkpoint.Origin
) -> engine.Progress | None:
    """What a checkpoint says; None to begin, or to begin again: of other runs, code, machine or data, or damaged."""
    if not path.exists():
        return None
    try:
        found = checkpoint.load(read_bytes(path), experiment, seeds, origin)
    except checkpoint.Unusable as error:
        aside = path.with_suffix(DAMAGED)
        path.replace(aside)
        sys.stderr.write(f"{path}: {error}; set aside as {aside.name}, its runs begin again\n")
        return None
    if found is None:
        sys.stderr.write(f"{path}: of other runs, or another commit, torch, machine or data: its runs begin again\n")
    return found


def kept(
    stages: Iterator[engine.Progress],
    tasks: int,
    path: Path,
    experiment: engine.Experiment,
    origin: checkpoint.Origin,
    job: Job,
) -> Iterator[engine.Progress]:
    """The stages of so many tasks, with a checkpoint every `checkpoint_every` seconds, but not after the last task.

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
            write_atomically(path, checkpoint.dump(at, experiment, origin))
            written = now
        if late:
            raise Stopped
