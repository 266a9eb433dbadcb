"""Small made data sets that can stand in for the real ones, and ways to write them to files."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from cl_repro.benchmarks.data import arrays as data
from cl_repro.benchmarks.data import mnist


def idx_bytes(array: np.ndarray) -> bytes:
    """An IDX file of bytes, written from the description of the format."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def small_mnist(monkeypatch: pytest.MonkeyPatch) -> data.Arrays:
    """A small data set that counts as the real MNIST as long as `monkeypatch` holds."""
    rng = np.random.default_rng(0)
    small = data.Arrays(
        rng.integers(0, 256, (12, 28, 28), np.uint8),
        rng.integers(0, 10, 12),
        rng.integers(0, 256, (5, 28, 28), np.uint8),
        rng.integers(0, 10, 5),
    )
    monkeypatch.setitem(data.CHECKSUMS, "mnist", data.checksum(small))
    return small


def mnist_like(monkeypatch: pytest.MonkeyPatch, folder: Path, per_class: int) -> Path:
    """A folder with made images, equally many of every class, that count as the real MNIST."""
    rng = np.random.default_rng(0)
    y = np.tile(np.arange(10), per_class)
    x = rng.integers(0, 64, (len(y), 28, 28), np.uint8)
    x[np.arange(len(y)), y, y] = 255  # what there is to learn
    made = data.Arrays(x, y, x[:100], y[:100])
    monkeypatch.setitem(data.CHECKSUMS, "mnist", data.checksum(made))
    folder.mkdir(parents=True, exist_ok=True)
    write_npz(folder, made)
    return folder


def write_npz(folder: Path, arrays: data.Arrays, **changed: np.ndarray) -> Path:
    """Write `mnist.npz` with some arrays exchanged; returns its path."""
    np.savez(folder / "mnist.npz", **(arrays._asdict() | changed))
    return folder / "mnist.npz"


def write_raw(folder: Path, arrays: data.Arrays, suffix: str = "") -> Path:
    """Write the four IDX files, packed if the suffix is `.gz`; returns their folder."""
    raw = folder / mnist.RAW
    raw.mkdir(parents=True)
    for part, (name, _) in mnist.PARTS.items():
        content = idx_bytes(getattr(arrays, part))
        (raw / f"{name}{suffix}").write_bytes(gzip.compress(content) if suffix else content)
    return raw


def assert_same(found: tuple, expected: tuple) -> None:
    """Same arrays, same types."""
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)


def one_line(error: pytest.ExceptionInfo) -> str:
    """The message of an error, which must be a single line."""
    message = str(error.value)
    assert "\n" not in message
    return message
