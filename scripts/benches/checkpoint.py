"""A checkpoint within a task: its bytes beside what the replicas hold, and its seconds beside those it is for.

Written as `worker` does, flushed to the disk, and told in wall seconds: who waits for a disk waits.
"""

import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from torch.utils._pytree import tree_leaves

from benches.measure import MB, Row, Setting, cost, interleave
from benches.stacked import study_replicas
from benches.workloads import SEED, digits_experiment, experiment, random_data
from cl_repro import engine
from cl_repro.engine import checkpoint
from cl_repro.importance.fisher import exact
from cl_repro.methods.ewc import ewc
from cl_repro.models.slim_resnet18 import slim_resnet18
from cl_repro.records import write_atomically
from cl_repro.study.config import Schema


def rows(setting: Setting) -> list[Row]:
    """Of a stack of small networks, and of one network that is larger."""
    images = random_data(5, 1000, 100, (3, 32, 32))
    net = slim_resnet18(20, input_shape=(3, 32, 32), n_outputs=10)
    alone = experiment(images, (), 128, 2)._replace(net=net)
    stack = digits_experiment(2)
    return [
        *of("digits study, K = 70", stack, study_replicas(), setting.rounds),
        *of("slim ResNet-18, K = 1", alone, [engine.Replica(SEED, 100.0, exact(100))], setting.rounds),
    ]


def of(name: str, experiment: engine.Experiment, replicas: list[engine.Replica], rounds: int) -> list[Row]:
    """Two rows of EWC after the first step of the second task."""
    at = next(at for at in engine.stages(experiment, ewc(), replicas, {}, every=1) if at.learned and at.middle)
    stack = at.stack
    held = sum(
        leaf.nbytes
        for leaf in tree_leaves([stack.params, stack.buffers, dict(stack.optimiser.state), at.state])
        if isinstance(leaf, torch.Tensor)
    )
    make = partial(checkpoint.dump, at, experiment, {})
    with tempfile.TemporaryDirectory() as folder:

        def write() -> float:
            began = time.perf_counter()
            write_atomically(Path(folder) / "checkpoint", make())
            return time.perf_counter() - began

        seconds = interleave({"write": write}, rounds)["write"]
    every = Schema.checkpoint_every
    return [
        cost(
            f"checkpoint, {name}: written / the {every:g} s between two", seconds, every, 1.0, "%",
            note="wall time, on the disk of temporary files",
        ),
        cost(
            f"checkpoint, {name}: bytes / those of its replicas", len(make()) / MB, held / MB, 2.0, unit="MB",
            note="the other: weights, moments and the state of EWC",
        ),
    ]  # fmt: skip
