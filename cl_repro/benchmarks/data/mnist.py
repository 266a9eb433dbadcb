"""MNIST from `mnist.npz` (Keras' layout) or from the original files (torchvision's layout).

Those have the IDX format: magic, sizes, then bytes in row-major order.
"""

import gzip
import math
import struct
from pathlib import Path

import numpy as np

from cl_repro.benchmarks.data.files import UNREADABLE, damaged, labelled_images, missing, read_npz

UINT8 = 0x08  # the third byte of the magic: the type of one element
RAW = Path("MNIST", "raw")
PARTS = {
    "x_train": ("train-images-idx3-ubyte", 3),
    "y_train": ("train-labels-idx1-ubyte", 1),
    "x_test": ("t10k-images-idx3-ubyte", 3),
    "y_test": ("t10k-labels-idx1-ubyte", 1),
}


def read_mnist(data_dir: Path) -> tuple[str, dict[str, np.ndarray]]:
    """Read MNIST from a folder: `mnist.npz` if it is there, else `MNIST/raw/*-ubyte[.gz]`.

    Args:
        data_dir: absolute path of the folder.

    Returns:
        Where the data came from, and x_train, y_train, x_test, y_test.

    Raises:
        MissingDataError: neither is complete.
        UserError: a file is damaged.
    """
    npz, raw = data_dir / "mnist.npz", data_dir / RAW
    arrays: dict[str, np.ndarray] = {}
    if npz.is_file():
        stored = read_npz(npz)
        for split in ("train", "test"):
            x, y = labelled_images(npz, stored, split, ((28, 28), (784,), (1, 28, 28), (28, 28, 1)))
            arrays |= {f"x_{split}": x.reshape(-1, 28, 28), f"y_{split}": y}
        return str(npz), arrays
    for part, (name, ndim) in PARTS.items():
        found = [path for path in (raw / name, raw / f"{name}.gz") if path.is_file()]
        if not found:
            raise missing("MNIST", f"{npz} and {raw / name}[.gz]")
        arrays[part] = read_idx(found[0], ndim)
    return str(raw), arrays


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Read one IDX file of bytes.

    Args:
        path: the file; a name that ends in `.gz` is decompressed.
        ndim: number of axes it must have (1: labels, 3: images).

    Returns:
        uint8 array with `ndim` axes.

    Raises:
        UserError: wrong magic, truncated, trailing bytes, or a damaged `.gz`.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except UNREADABLE as error:
        raise damaged(path, error) from error
    magic = bytes([0, 0, UINT8, ndim])
    if data[:4] != magic:
        raise damaged(path, f"magic 0x{data[:4].hex()}, expected 0x{magic.hex()}")
    start = 4 + 4 * ndim  # after the magic, one big-endian int32 per axis
    if len(data) < start:
        raise damaged(path, f"truncated header: {len(data)} bytes, expected at least {start}")
    shape = struct.unpack(f">{ndim}I", data[4:start])
    expected = start + math.prod(shape)
    if len(data) != expected:
        what = "truncated" if len(data) < expected else "too long"
        raise damaged(path, f"{what}: {len(data)} bytes, its header promises {expected}")
    return np.frombuffer(bytearray(data), np.uint8, offset=start).reshape(shape)
