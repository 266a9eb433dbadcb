"""What is kept of the examples of earlier tasks, and what of it each step is given: drawn beforehand, seed by seed.

Nothing here depends on a network: replicas of one seed keep and recall the same examples. Where the contents before a
task are needed, the tasks before are gone through again, from the mini-batches that they were trained on
(`aids.held_before`).
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cl_repro.common import rng
from cl_repro.memory import Contents, Item, Memory
from cl_repro.types import Curriculum


class Kept(NamedTuple):
    """One task of one seed, as its memory goes through it."""

    slot: Tensor  # [iterations, B] int64: where an example of a mini-batch goes; M: nowhere
    recalled: Tensor | None  # [iterations, B] int64, slots drawn before each step; None: the memory was empty
    items: Tensor  # [iterations, B, 2] int64: row and task of what is recalled


def kept(
    memory: Memory, contents: Contents, curriculum: Curriculum, seed: int, task: int, rows: Tensor, draws: bool
) -> Kept:
    """Take the contents of a memory, which it changes, through the mini-batches of a task of a seed.

    `rows` [iterations, B] are the mini-batches, as rows of the resident data; -1 where there is no example of the task.
    `draws`: whether as many examples as a mini-batch has are recalled at each step: uniformly, without replacement
    where the memory holds enough.
    """
    iterations, size = rows.shape
    slot = np.full((iterations, size), memory.size)
    drawn = np.zeros((iterations, size), dtype=np.int64)
    items = np.zeros((iterations, size, 2), dtype=np.int64)
    chance = torch.rand(len(curriculum.y), generator=rng.stream(seed, "memory", task), dtype=torch.float64).tolist()
    picks = rng.numpy_stream(seed, "recall", task)
    draws = draws and bool(contents.slots)
    offered: set[int] = set()
    listed, classes = rows.tolist(), curriculum.y.tolist()
    for i, batch in enumerate(listed):
        if draws:
            enough = len(contents.slots) >= size
            drawn[i] = picks.choice(len(contents.slots), size, replace=not enough)
            items[i] = [(contents.slots[s].row, contents.slots[s].task) for s in drawn[i]]
        if memory.offer is None:
            continue
        taken: dict[int, int] = {}
        for j, row in enumerate(batch):
            if row < 0 or row in offered:
                continue
            offered.add(row)
            contents.seen += 1
            item = Item(row, classes[row], task)
            at = memory.offer(contents, item, chance[row])
            if at is not None:
                contents.put(at, item)
                taken[at] = j  # of several that go to one slot, the last stays
        for at, j in taken.items():
            slot[i, j] = at
    if memory.settle is not None:
        own = [Item(row, classes[row], task) for row in sorted(set(rows.flatten().tolist()) - {-1})]
        memory.settle(contents, own, [chance[item.row] for item in own])
    return Kept(torch.from_numpy(slot), torch.from_numpy(drawn) if draws else None, torch.from_numpy(items))
