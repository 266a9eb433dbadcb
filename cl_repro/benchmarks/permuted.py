"""Permuted benchmarks: every task is the whole data set, its pixels in an order of the task's own.

The orders are those of the reference implementation of Benzing (2022) (freedbee/continual_regularisation,
MNIST/worker_SI.py): successive permutations from NumPy's legacy generator, whose seed is the run's. The first task is
permuted, too. Every task has a version of every class of its own: task k of ten-class images has the classes 10 k to
10 k + 9 (van de Ven & Tolias 2019, section 3), which a domain-incremental network tells apart by position alone.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cl_repro.benchmarks import rows
from cl_repro.benchmarks.data.arrays import CHECKSUMS, load
from cl_repro.benchmarks.inputs import to_input
from cl_repro.common.errors import UserError
from cl_repro.common.rules import at_least, require
from cl_repro.types import Benchmark, Curriculum, Task


def permuted(
    dataset: str,
    n_tasks: int,
    scale: float,
    skip_first: int = 0,
    train_per_task: int | None = None,
    test_per_task: int | None = None,
    *,
    data_dir: Path | str,
    device: str | torch.device,
    dtype: torch.dtype = torch.float32,
) -> Benchmark:
    """Tasks that differ in the order of their pixels alone; new orders for every seed.

    Args:
        dataset: digits, mnist, cifar10 or cifar100. A pixel is any entry of the flattened image: those of several
            channels are permuted together.
        n_tasks: at least 1.
        scale: pixels are divided by it (255 for bytes, 16 for digits).
        skip_first: training rows, from the first on, that no task has; of MNIST they are those of its files, of CIFAR
            those of its canonical order.
        train_per_task: random training rows that each task keeps, a function of seed and task; None: all.
        test_per_task: the same of its test rows.
        data_dir: the folder that holds the data set.
        device: where the data live.
        dtype: of the network's input.

    Returns:
        The benchmark, with the uint8 images resident on the device, once, in the order of the files.

    Raises:
        UserError: unknown, missing or wrong data; an argument out of range.
    """
    inputs = to_input(scale, device, dtype)
    require("benchmark.n_tasks", n_tasks, at_least(1))
    arrays = load(dataset, data_dir)
    n_train, n_test = len(arrays.y_train), len(arrays.y_test)
    if type(skip_first) is not int or not 0 <= skip_first < n_train:
        raise UserError(
            f"benchmark.skip_first={skip_first}: must be an integer from 0 to {n_train - 1}; "
            f"{dataset} has {n_train} training rows"
        )
    rows.check("train", train_per_task, n_train - skip_first, f"every task of permuted {dataset}")
    rows.check("test", test_per_task, n_test, f"every task of permuted {dataset}")
    n_classes = int(arrays.y_train.max()) + 1
    x, y, x_test, y_test = (torch.from_numpy(of).to(device) for of in arrays)
    train, test = torch.arange(skip_first, n_train, device=device), torch.arange(n_test, device=device)

    def curriculum(seed: int) -> Curriculum:
        tasks = [
            Task(
                rows.keep(train, train_per_task, seed, "train", k),
                rows.keep(test, test_per_task, seed, "test", k),
                tuple(range(k * n_classes, (k + 1) * n_classes)),
                pixels=pixels.to(device),
                first_class=k * n_classes,
            )
            for k, pixels in enumerate(pixel_orders(arrays.x_train[0].size, n_tasks, seed))
        ]
        return Curriculum(y, y_test, tuple(tasks))

    return Benchmark(
        x=x,
        x_test=x_test,
        to_input=inputs,
        curriculum=curriculum,
        n_tasks=n_tasks,
        n_classes=n_tasks * n_classes,
        checksum=CHECKSUMS[dataset],
    )


def pixel_orders(n_pixels: int, n_tasks: int, seed: int) -> list[Tensor]:
    """The order of the P pixels in each of T tasks, T times [P] int64: input i is pixel order[i].

    The orders of fewer tasks are the first of more.
    """
    generator = np.random.RandomState(seed)
    return [torch.from_numpy(generator.permutation(n_pixels)) for _ in range(n_tasks)]
