"""Split benchmarks: the classes of a data set, cut into tasks of equally many.

Which classes meet in a task depends on the seed, as in the reference implementation of van de Ven
(GMvandeVen/continual-learning, data/load.py): p is a permutation of the class ids from NumPy's
legacy generator, the new label of a row is p[original label], and task k owns the new labels
{k c, ..., k c + c - 1}. Seed 0 does not permute; with `fixed_classes` no seed does. Rows keep the order of the data
set.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cl_repro.benchmarks import rows
from cl_repro.benchmarks.data.arrays import CHECKSUMS, Arrays, load
from cl_repro.benchmarks.inputs import to_input
from cl_repro.common.errors import UserError
from cl_repro.types import Benchmark, Curriculum, Task


def split(
    dataset: str,
    n_tasks: int,
    scale: float,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    train_per_task: int | None = None,
    test_per_task: int | None = None,
    pad: int | None = None,
    fixed_classes: bool | None = None,
    *,
    data_dir: Path | str,
    device: str | torch.device,
    dtype: torch.dtype = torch.float32,
) -> Benchmark:
    """Cut a data set into tasks of n_classes / n_tasks classes each.

    Args:
        dataset: digits, mnist, cifar10 or cifar100.
        n_tasks: must divide the number of classes.
        scale: pixels are divided by it (255 for bytes, 16 for digits).
        mean: of each channel of images [channels, height, width], or the one of [height, width], subtracted after that;
            None, with std, for neither.
        std: of each channel; divides what is left.
        train_per_task: random training rows that each task keeps, a function of seed and task; None: all.
        test_per_task: the same of its test rows.
        pad: pixels of value 0 that images get on each of their four sides, before all that; None: 0.
        fixed_classes: whether tasks have the classes in the order of their ids for every seed; None: no.
        data_dir: the folder that holds the data set.
        device: where the data live.
        dtype: of the network's input.

    Returns:
        The benchmark, with the uint8 images resident on the device.

    Raises:
        UserError: unknown, missing or wrong data; an argument out of range.
    """
    if pad is not None and pad < 0:
        raise UserError(f"benchmark.pad={pad}: must be at least 0, in pixels, or null for none")
    arrays = load(dataset, data_dir)
    n_classes = int(arrays.y_train.max()) + 1
    allowed = [n for n in range(1, n_classes + 1) if n_classes % n == 0]
    if not isinstance(n_tasks, int) or n_tasks not in allowed:
        raise UserError(
            f"benchmark.n_tasks={n_tasks}: must divide the {n_classes} classes of {dataset}: "
            f"one of {', '.join(map(str, allowed))}"
        )
    cuts = {"train": train_per_task, "test": test_per_task}
    for name, labels in (("train", arrays.y_train), ("test", arrays.y_test)):
        smallest = int(np.sort(np.bincount(labels))[: n_classes // n_tasks].sum())
        rows.check(name, cuts[name], smallest, f"the smallest possible task of {dataset}")
    x, x_test = (
        functional.pad(torch.from_numpy(of), (pad or 0,) * 4).to(device) for of in (arrays.x_train, arrays.x_test)
    )
    return Benchmark(
        x=x,
        x_test=x_test,
        to_input=to_input(scale, device, dtype, mean, std, arrays.x_train.shape[1:]),
        curriculum=lambda seed: _curriculum(arrays, seed, n_tasks, cuts, bool(fixed_classes), device),
        n_tasks=n_tasks,
        n_classes=n_classes,
        checksum=CHECKSUMS[dataset],
    )


def class_permutation(n_classes: int, seed: int) -> np.ndarray:
    """Which new label each original class gets, p [n_classes] int64: new label = p[original label]; seed 0: the same.

    Raises:
        UserError: seed outside NumPy's range.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"seed={seed}: must be at least 0 and below 2**32")
    if seed == 0:
        return np.arange(n_classes)
    return np.random.RandomState(seed).permutation(n_classes)


def _curriculum(
    arrays: Arrays, seed: int, n_tasks: int, cuts: Mapping[str, int | None], fixed: bool, device: str | torch.device
) -> Curriculum:
    p = class_permutation(int(arrays.y_train.max()) + 1, 0 if fixed else seed)
    y, y_test = p[arrays.y_train], p[arrays.y_test]

    def own(split: str, labels: np.ndarray, classes: np.ndarray, k: int) -> Tensor:
        whole = torch.from_numpy(np.flatnonzero(np.isin(labels, classes)))
        return rows.keep(whole, cuts[split], seed, split, k).to(device)

    tasks = tuple(
        Task(own("train", y, classes, k), own("test", y_test, classes, k), tuple(classes.tolist()))
        for k, classes in enumerate(np.arange(len(p)).reshape(n_tasks, -1))
    )
    return Curriculum(torch.from_numpy(y).to(device), torch.from_numpy(y_test).to(device), tasks)
