"""A data set as four arrays, and the checksum that decides whether it is the real one."""

import hashlib
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cl_repro.benchmarks.data.cifar import CIFAR10, CIFAR100, read_cifar
from cl_repro.benchmarks.data.digits import read_digits
from cl_repro.benchmarks.data.mnist import read_mnist
from cl_repro.common.errors import UserError


class Arrays(NamedTuple):
    """A data set, rows in the order of its files, or in the canonical order of its reader."""

    x_train: np.ndarray  # [N, *shape] uint8
    y_train: np.ndarray  # [N] int64, original class ids
    x_test: np.ndarray  # [M, *shape] uint8
    y_test: np.ndarray  # [M] int64


READERS: dict[str, Callable[[Path], tuple[str, dict[str, np.ndarray]]]] = {
    "digits": read_digits,
    "mnist": read_mnist,
    "cifar10": partial(read_cifar, CIFAR10),
    "cifar100": partial(read_cifar, CIFAR100),
}
"""Data set -> function of the data folder that returns its origin and its arrays as stored."""

CHECKSUMS = {
    "digits": "f471d4e0ddac80de9056f74f4b2a20740b31808df2d5ef801112f70f3a8da4e7",
    "mnist": "e80cde50f59b6a4a97ad99e93adcfc161379afc801fef843cea9dd70c5bc0c2c",
    "cifar10": "20c5f1c442d5c147ca0e56aeeca4a1d47b88b82e9d6c4cbb50ba59451b634c70",
    "cifar100": "83d4bcb3e2a01a503b9c3a7a0161fac09d0c62c1720abc27f6cd98dafc0d84cb",
}
"""Data set -> `checksum` of the real data. MNIST: the original files, in their order. CIFAR: in canonical order."""


def load(name: str, data_dir: Path | str) -> Arrays:
    """Load a data set and make sure it is the real one.

    The last data sets are kept in memory: treat the arrays as read-only.

    Args:
        name: a key of `READERS`.
        data_dir: the folder that holds it (digits needs none).

    Returns:
        The arrays.

    Raises:
        UserError: unknown name, files missing (`MissingDataError`), damaged, or not the real data.
    """
    if name not in READERS:
        raise unknown(name)
    return _load(name, Path(data_dir).expanduser().absolute(), CHECKSUMS[name])


def unknown(name: str) -> UserError:
    """The error for a data set that has no reader."""
    return UserError(f"dataset={name}: unknown data set; allowed: {', '.join(READERS)}")


@lru_cache(maxsize=2)
def _load(name: str, data_dir: Path, expected: str) -> Arrays:
    try:
        origin, stored = READERS[name](data_dir)
    except OSError as error:  # of looking for files; what reading them raises is told by the readers
        raise UserError(f"{error.filename or data_dir}: cannot be read: {error.strerror}") from error
    arrays = Arrays(**{key: array.astype(np.int64) if key.startswith("y") else array for key, array in stored.items()})
    found = checksum(arrays)
    if found != expected:
        # The digits are no file of the user's: they come with a library.
        remedy = (
            "install the scikit-learn of constraints.txt" if name == "digits" else "move it away and run `make data`"
        )
        raise UserError(f"{origin}: not the real {name}: checksum {found}, expected {expected}; {remedy}")
    return arrays


def checksum(arrays: Arrays) -> str:
    """SHA-256, in hexadecimal and the same on every platform, over name, shape and bytes of each array."""
    digest = hashlib.sha256()
    for name, array in arrays._asdict().items():
        portable = array if array.dtype == np.uint8 else array.astype("<i8")
        digest.update(f"{name} {array.shape}".encode())
        digest.update(np.ascontiguousarray(portable).data)
    return digest.hexdigest()
