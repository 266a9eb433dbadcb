"""Resident data, against a DataLoader that makes a tensor of each item."""

from functools import partial

from torch import Tensor

from benches import reference
from benches.measure import Row, Setting, interleave, speedup, timed
from benches.workloads import SEED, mnist
from cl_repro.common import rng
from cl_repro.types import Benchmark, Task

BATCH, BATCHES = 128, 40  # a round


def rows(setting: Setting) -> list[Row]:
    """One mini-batch, inputs and labels."""
    benchmark, data = mnist(setting.data_dir)
    curriculum = benchmark.curriculum(SEED)
    task = curriculum.tasks[0]
    label = curriculum.y[task.rows]
    items = reference.loader(benchmark.x[task.rows], label, BATCH)
    seconds = interleave(
        {
            "ours": timed(partial(resident, benchmark, task, label), BATCHES),
            "other": timed(partial(reference.some, items, BATCHES), BATCHES),
        },
        setting.rounds,
    )
    note = f"{data}; order drawn in both; other: no worker processes, copy and /255 per item, no PIL"
    return [speedup("mini-batch of 128 / per-item DataLoader", seconds["ours"], seconds["other"], 5.0, note)]


def resident(benchmark: Benchmark, task: Task, label: Tensor) -> None:
    """The engine's way: draw the order, index the data on the device, scale."""
    order = rng.batches(rng.stream(SEED, "order", 0), len(task.rows), BATCH, BATCHES)
    for at in order:
        benchmark.to_input(benchmark.x[task.rows[at]])
        label[at]
