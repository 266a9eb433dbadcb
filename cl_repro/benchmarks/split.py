"""Split benchmarks: the classes of a data set, cut into tasks of equally many.

Which classes meet in a task depends on the seed, as in the reference implementation of van de Ven
(GMvandeVen/continual-learning, data/load.py): p is a permutation of the class ids from NumPy's
legacy generator, the new label of a row is p[original label], and task k owns the new labels
{k c, ..., k c + c - 1}. Seed 0 does not permute. Rows keep the order of the files.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cl_repro.data.arrays import CHECKSUMS, Arrays, load
from cl_repro.errors import UserError
from cl_repro.types import Benchmark, Curriculum, Task


def split(
    dataset: str,
    n_tasks: int,
    scale: float,
    *,
    data_dir: Path | str,
    device: str | torch.device,
    dtype: torch.dtype = torch.float32,
) -> Benchmark:
    """Cut a data set into tasks of n_classes / n_tasks classes each.

    Args:
        dataset: digits or mnist.
        n_tasks: must divide the number of classes.
        scale: pixels are divided by it (255 for bytes, 16 for digits).
        data_dir: the folder that holds the data set.
        device: where the data live.
        dtype: of the network's input.

    Returns:
        The benchmark, with the uint8 images resident on the device.

    Raises:
        UserError: unknown, missing or wrong data; n_tasks or scale out of range.
    """
    if not (isinstance(scale, int | float) and math.isfinite(scale) and scale > 0):
        raise UserError(f"benchmark.scale={scale}: must be a finite number above 0")
    arrays = load(dataset, data_dir)
    n_classes = int(arrays.y_train.max()) + 1
    allowed = [n for n in range(1, n_classes + 1) if n_classes % n == 0]
    if not isinstance(n_tasks, int) or n_tasks not in allowed:
        raise UserError(
            f"benchmark.n_tasks={n_tasks}: must divide the {n_classes} classes of {dataset}: "
            f"one of {', '.join(map(str, allowed))}"
        )
    # A divisor on the device: CUDA multiplies by the reciprocal of a host scalar, which can be
    # one rounding off x / scale.
    divisor = torch.tensor(scale, dtype=dtype, device=device)

    def to_input(x: Tensor) -> Tensor:
        return x.to(dtype, copy=True).div_(divisor)

    return Benchmark(
        x=torch.from_numpy(arrays.x_train).to(device),
        x_test=torch.from_numpy(arrays.x_test).to(device),
        to_input=to_input,
        curriculum=lambda seed: _curriculum(arrays, class_permutation(n_classes, seed), n_tasks, device),
        n_tasks=n_tasks,
        n_classes=n_classes,
        checksum=CHECKSUMS[dataset],
    )


def class_permutation(n_classes: int, seed: int) -> np.ndarray:
    """Which new label each original class gets.

    Args:
        n_classes: number of classes.
        seed: of the run; 0 leaves the classes as they are.

    Returns:
        p [n_classes] int64: new label = p[original label].

    Raises:
        UserError: seed outside NumPy's range.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"seed={seed}: must be at least 0 and below 2**32")
    if seed == 0:
        return np.arange(n_classes)
    return np.random.RandomState(seed).permutation(n_classes)


def _curriculum(arrays: Arrays, p: np.ndarray, n_tasks: int, device: str | torch.device) -> Curriculum:
    y, y_test = p[arrays.y_train], p[arrays.y_test]

    def rows(labels: np.ndarray, classes: np.ndarray) -> Tensor:
        return torch.from_numpy(np.flatnonzero(np.isin(labels, classes))).to(device)

    tasks = tuple(
        Task(rows(y, classes), rows(y_test, classes), tuple(classes.tolist()))
        for classes in np.arange(len(p)).reshape(n_tasks, -1)
    )
    return Curriculum(torch.from_numpy(y).to(device), torch.from_numpy(y_test).to(device), tasks)
