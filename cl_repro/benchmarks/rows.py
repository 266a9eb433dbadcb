"""Random rows of a task: what the small twins of a benchmark train and test on."""

import torch
from torch import Tensor

from cl_repro.common import rng
from cl_repro.common.errors import UserError

WORDS = {"train": "training", "test": "test"}


def check(split: str, n: object, most: int, of: str) -> None:
    """Refuse a number of rows that a task cannot keep: no integer from 1 to `most`, and not None for all.

    `split` is train or test; `of` says whose rows they are.
    """
    if n is not None and (type(n) is not int or not 1 <= n <= most):
        raise UserError(
            f"benchmark.{split}_per_task={n}: must be an integer from 1 to {most}, the {WORDS[split]} rows of "
            f"{of}, or null for all rows"
        )


def keep(own: Tensor, n: int | None, seed: int, split: str, task: int) -> Tensor:
    """Random rows of a task, a function of seed, split and task alone.

    Args:
        own: [N] int64, the rows of the task.
        n: how many to keep; the rows of a smaller n are among those of a larger one. None: all.
        seed: of the run.
        split: train or test, of which each has a draw of its own.
        task: 0, 1, ...

    Returns:
        [n] int64, in the order of `own`.
    """
    if n is None:
        return own
    shuffled = torch.randperm(len(own), generator=rng.stream(seed, f"{split}_per_task", task))
    return own[shuffled[:n].sort().values.to(own.device)]
