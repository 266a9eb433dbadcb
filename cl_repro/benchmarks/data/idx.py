"""The IDX format of the original MNIST files: magic, sizes, then bytes in row-major order."""

import gzip
import math
import struct
from pathlib import Path

import numpy as np

from cl_repro.benchmarks.data.files import UNREADABLE, damaged

UINT8 = 0x08  # the third byte of the magic: the type of one element


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
