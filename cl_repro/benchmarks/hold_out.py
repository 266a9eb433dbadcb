"""A validation split for any benchmark: lambda can then be chosen without looking at the test set."""

import torch

from cl_repro.common import rng
from cl_repro.common.errors import UserError
from cl_repro.types import Benchmark, Curriculum, Task


def hold_out(benchmark: Benchmark, fraction: float) -> Benchmark:
    """Hold out a random part of every task's training rows: no training or importance pass of that task sees it.

    Where tasks share their images, as permuted benchmarks do, another task may train on one, otherwise permuted.

    Args:
        benchmark: any without validation rows.
        fraction: of each task's rows, between 0 and 1; rounded to a number of rows of at least 1.

    Returns:
        The same benchmark with `rows_val`; which rows is a function of seed and task alone.

    Raises:
        UserError: the benchmark has validation rows of its own.
    """
    if "val" in benchmark.splits:
        raise UserError(
            f"val_fraction={fraction}: must be null where benchmark.validation=true gives validation rows already"
        )

    def curriculum(seed: int) -> Curriculum:
        whole = benchmark.curriculum(seed)
        return whole._replace(tasks=tuple(part(task, seed, k) for k, task in enumerate(whole.tasks)))

    def part(task: Task, seed: int, k: int) -> Task:
        n = len(task.rows)
        n_val = max(1, round(fraction * n))
        shuffled = torch.randperm(n, generator=rng.stream(seed, "validation", k))
        val, train = shuffled[:n_val].sort().values, shuffled[n_val:].sort().values
        return task._replace(rows=task.rows[train.to(task.rows.device)], rows_val=task.rows[val.to(task.rows.device)])

    return benchmark._replace(curriculum=curriculum, splits=(*benchmark.splits, "val"))
