"""Split CIFAR-10/100: CIFAR-10 as the first task, then the fine classes of CIFAR-100, ten at a time.

F. Benzing: Unifying importance based regularisation methods for continual learning. AISTATS 2022 (appendix F.2), after
Zenke et al. (2017). Classes and tasks are the same for every seed, and so are the rows that are trained on, unless
`train_per_task` keeps some of them, which the seed draws.

Of each task's training rows a random tenth is held out for validation and never trained on, whatever is reported.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cl_repro.benchmarks import rows
from cl_repro.benchmarks.data.arrays import CHECKSUMS, load
from cl_repro.benchmarks.inputs import to_input
from cl_repro.common import rng
from cl_repro.common.errors import UserError
from cl_repro.types import Benchmark, Curriculum, Task

DATA_SETS = ("cifar10", "cifar100")
CLASSES = 10  # of a task
MOST_TASKS = 11


def cifar10_100(
    n_tasks: int,
    scale: float,
    validation: bool = False,
    train_per_task: int | Sequence[int] | None = None,
    test_per_task: int | Sequence[int] | None = None,
    *,
    data_dir: Path | str,
    device: str | torch.device,
    dtype: torch.dtype = torch.float32,
) -> Benchmark:
    """CIFAR-10, then CIFAR-100 in tens of classes; class ids 0 to 9, then 10 + the fine label.

    Args:
        n_tasks: 6 in the paper; at most 11, which is all of CIFAR-100.
        scale: pixels are divided by it.
        validation: accuracy is reported on the validation rows, too; which rows are trained on does not depend on it.
        train_per_task: random rows, of those that are trained on, that each task (or each of n_tasks) keeps, a function
            of seed and task; None: all.
        test_per_task: the same of its test rows.
        data_dir: the folder that holds both data sets.
        device: where the data live.
        dtype: of the network's input.

    Returns:
        The benchmark, with the uint8 images of both data sets resident on the device, CIFAR-10 first.

    Raises:
        UserError: missing or wrong data; an argument out of range.
    """
    inputs = to_input(scale, device, dtype)
    if type(n_tasks) is not int or not 1 <= n_tasks <= MOST_TASKS:
        raise UserError(
            f"benchmark.n_tasks={n_tasks}: must be an integer from 1 to {MOST_TASKS}: CIFAR-10, and CIFAR-100 in tens"
        )
    kept = {"train": each("train", train_per_task, n_tasks), "test": each("test", test_per_task, n_tasks)}
    first, second = (load(name, data_dir) for name in DATA_SETS)
    second = second._replace(y_train=CLASSES + second.y_train, y_test=CLASSES + second.y_test)
    x, y, x_test, y_test = (torch.from_numpy(np.concatenate(both)) for both in zip(first, second, strict=True))
    classes = [tuple(range(CLASSES * k, CLASSES * (k + 1))) for k in range(n_tasks)]
    own = [parted(by_class(y, of)) for of in classes]
    tests = [by_class(y_test, of).sort().values for of in classes]
    for k, ((train, _), test) in enumerate(zip(own, tests, strict=True)):
        rows.check("train", kept["train"][k], len(train), f"task {k}")
        rows.check("test", kept["test"][k], len(test), f"task {k}")

    def curriculum(seed: int) -> Curriculum:
        tasks = [
            Task(
                rows.keep(own[k][0], kept["train"][k], seed, "train", k).to(device),
                rows.keep(tests[k], kept["test"][k], seed, "test", k).to(device),
                classes[k],
                rows_val=own[k][1].to(device) if validation else None,
            )
            for k in range(n_tasks)
        ]
        return Curriculum(labels, labels_test, tuple(tasks))

    labels, labels_test = y.to(device), y_test.to(device)
    return Benchmark(
        x=x.to(device),
        x_test=x_test.to(device),
        to_input=inputs,
        curriculum=curriculum,
        n_tasks=n_tasks,
        n_classes=CLASSES * n_tasks,
        checksum=", ".join(f"{name} {CHECKSUMS[name]}" for name in DATA_SETS),
        splits=("test", "val") if validation else ("test",),
    )


def each(split: str, given: int | Sequence[int] | None, n_tasks: int) -> Sequence[int | None]:
    """Rows to keep of each task; one number, or None, is for all.

    Raises:
        UserError: a list that is not of `n_tasks` numbers.
    """
    if isinstance(given, Sequence):
        if len(given) != n_tasks:
            raise UserError(
                f"benchmark.{split}_per_task={given}: must be one number, one for each of the {n_tasks} tasks, "
                "or null for all rows"
            )
        return given
    return [given] * n_tasks


def by_class(y: Tensor, classes: Sequence[int]) -> Tensor:
    """The rows of some classes, [N] int64: class by class, and in the order of the data within one."""
    return torch.cat([(y == c).nonzero()[:, 0] for c in classes])


def parted(whole: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of a task that are trained on, 9/10, and those for validation.

    Which positions of `whole` they are is a function of its length alone: as in the reference implementation, tasks of
    equal size and make-up hold out equally many rows of their first class, of their second, and so on.

    Args:
        whole: [N] int64, class by class.

    Returns:
        [9 N / 10] and the rest, each ascending.
    """
    n = len(whole)
    # DEVIATES from freedbee/continual_regularisation (CIFAR/utils.py), which stores its permutations; this is another.
    order = torch.randperm(n, generator=rng.stream(0, "cifar10_100_validation", n))
    train, val = whole[order[: 9 * n // 10]], whole[order[9 * n // 10 :]]
    return train.sort().values, val.sort().values
