"""CIFAR-10 and CIFAR-100 (fine labels), from `<name>.npz` or from the original pickles (torchvision's layout).

The sources keep their images in different orders, so each split is put in one: by the bytes of the image (channel, row,
column: as in the original files), then by label. Every source then gives the same tensors.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cl_repro.benchmarks.data.files import damaged, labelled_images, missing, read_npz
from cl_repro.benchmarks.data.pickles import array, read_pickle


class Source(NamedTuple):
    """Where one of the two keeps what."""

    title: str
    npz: str
    folder: str
    train: Sequence[str]
    test: Sequence[str]
    label: bytes


CIFAR10 = Source(
    "CIFAR-10",
    "cifar10.npz",
    "cifar-10-batches-py",
    [f"data_batch_{i}" for i in range(1, 6)],
    ["test_batch"],
    b"labels",
)
CIFAR100 = Source("CIFAR-100", "cifar100.npz", "cifar-100-python", ["train"], ["test"], b"fine_labels")


def read_cifar(source: Source, data_dir: Path) -> tuple[str, dict[str, np.ndarray]]:
    """Read one of them from a folder: `<name>.npz` if it is there, else the folder of its pickles.

    Args:
        source: which.
        data_dir: absolute path of the folder.

    Returns:
        Where the data came from, and x_train, y_train, x_test, y_test; images [N, 3, 32, 32], in canonical order.

    Raises:
        MissingDataError: neither is complete.
        UserError: a file is damaged.
    """
    npz, folder = data_dir / source.npz, data_dir / source.folder
    arrays: dict[str, np.ndarray] = {}
    if npz.is_file():
        stored = read_npz(npz)
        for split in ("train", "test"):
            x, y = labelled_images(npz, stored, split, ((32, 32, 3), (3, 32, 32), (3072,)))
            x = x.transpose(0, 3, 1, 2) if x.shape[1:] == (32, 32, 3) else x.reshape(-1, 3, 32, 32)
            arrays |= _ordered(split, np.ascontiguousarray(x), y)
        return str(npz), arrays
    for name in (*source.train, *source.test):
        if not (folder / name).is_file():
            raise missing(source.title, f"{npz} and {folder / name}")
    for split, names in (("train", source.train), ("test", source.test)):
        batches = [_read_batch(folder / name, source.label) for name in names]
        arrays |= _ordered(split, *(np.concatenate(parts) for parts in zip(*batches, strict=True)))
    return str(folder), arrays


def _read_batch(path: Path, label: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 3, 32, 32] and labels [N] of one original file: rows of 3072 bytes, and a list of numbers."""
    batch = read_pickle(path)
    for key in (b"data", label):
        if key not in batch:
            raise damaged(path, f"no {key.decode()!r} in it")
    x, y = array(batch[b"data"], ["u1"]), batch[label]
    if x is None:
        raise damaged(path, "its images are not an array of uint8")
    if (as_array := array(y, ["u1", "i4", "i8"])) is not None:
        y = as_array.tolist()
    if x.shape[1:] != (3072,):
        raise damaged(path, f"its images have shape {list(x.shape)}, expected [N, 3072]")
    if not isinstance(y, list) or len(y) != len(x) or any(type(k) is not int or not 0 <= k < 100 for k in y):
        raise damaged(path, f"{label.decode()!r} is not a list of {len(x)} class numbers, one for each image")
    return x.reshape(-1, 3, 32, 32), np.array(y)


def _ordered(split: str, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    order = sorted(range(len(x)), key=lambda i: (x[i].tobytes(), y[i]))
    return {f"x_{split}": x[order], f"y_{split}": y[order]}
