"""A data set as four arrays, and the checksum that decides whether it is the real one."""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cl_repro.data.digits import read_digits
from cl_repro.data.mnist import read_mnist
from cl_repro.errors import UserError


class Arrays(NamedTuple):
    """A data set, rows in the order of its files."""

    x_train: np.ndarray  # [N, *shape] uint8
    y_train: np.ndarray  # [N] int64, original class ids
    x_test: np.ndarray  # [M, *shape] uint8
    y_test: np.ndarray  # [M] int64


READERS = {"digits": read_digits, "mnist": read_mnist}
"""Data set -> function of the data folder that returns its origin and its arrays as stored."""

CHECKSUMS = {
    "digits": "f471d4e0ddac80de9056f74f4b2a20740b31808df2d5ef801112f70f3a8da4e7",
    "mnist": "e80cde50f59b6a4a97ad99e93adcfc161379afc801fef843cea9dd70c5bc0c2c",
}
"""Data set -> `checksum` of the real data. MNIST: the original files, in their order."""


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
        raise UserError(f"dataset={name}: unknown data set; allowed: {', '.join(READERS)}")
    return _load(name, Path(data_dir).expanduser().absolute(), CHECKSUMS[name])


@lru_cache(maxsize=2)
def _load(name: str, data_dir: Path, expected: str) -> Arrays:
    origin, stored = READERS[name](data_dir)
    arrays = Arrays(**{key: _typed(origin, key, array) for key, array in stored.items()})
    found = checksum(arrays)
    if found != expected:
        raise UserError(
            f"{origin}: not the real {name}: checksum {found}, expected {expected}; move it away and run `make data`"
        )
    return arrays


def _typed(origin: str, key: str, array: np.ndarray) -> np.ndarray:
    # Checked, because a conversion would round floats and wrap large numbers without a word.
    image = key.startswith("x")
    if array.dtype != np.uint8 if image else array.dtype.kind not in "iu":
        rule = "uint8" if image else "integers"
        raise UserError(f"{origin}: {key} is {array.dtype}, must be {rule}")
    return array if image else array.astype(np.int64)


def checksum(arrays: Arrays) -> str:
    """Fingerprint of a data set: SHA-256 over name, shape and bytes of each array.

    Args:
        arrays: the data set.

    Returns:
        64 hexadecimal digits; the same on every platform.
    """
    digest = hashlib.sha256()
    for name, array in arrays._asdict().items():
        portable = array if array.dtype == np.uint8 else array.astype("<i8")
        digest.update(f"{name} {array.shape}".encode())
        digest.update(np.ascontiguousarray(portable).data)
    return digest.hexdigest()
