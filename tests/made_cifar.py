"""Small made data sets that can stand in for CIFAR, and files that hold them: `.npz`, and pickles as of Python 2."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cl_repro.benchmarks.data import arrays as data
from cl_repro.benchmarks.data.cifar import CIFAR10, CIFAR100

SOURCES = {"cifar10": CIFAR10, "cifar100": CIFAR100}


def small_cifar(monkeypatch: pytest.MonkeyPatch, name: str = "cifar10", per_class: int = 2) -> data.Arrays:
    """A small data set in canonical order that counts as the real one as long as `monkeypatch` holds."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(10), per_class)

    def split() -> tuple[np.ndarray, np.ndarray]:
        x = rng.integers(0, 256, (len(y), 3, 32, 32), np.uint8)
        x[:, 0, 0, 0] = np.arange(len(y)) // 2  # decides the order, but for pairs that other bytes decide
        return canonical(x, rng.permutation(y))

    made = data.Arrays(*split(), *split())
    monkeypatch.setitem(data.CHECKSUMS, name, data.checksum(made))
    return made


def canonical(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows in the order of their pixels (channel, row, column), then of their labels."""
    order = np.lexsort([y, *x.reshape(len(x), -1).T[::-1]])
    return x[order], y[order]


def shuffled(arrays: data.Arrays, seed: int) -> data.Arrays:
    """The same rows in another order."""
    train, test = (np.random.default_rng(seed + i).permutation(len(y)) for i, y in enumerate(arrays[1::2]))
    return data.Arrays(arrays.x_train[train], arrays.y_train[train], arrays.x_test[test], arrays.y_test[test])


def write_npz(folder: Path, arrays: data.Arrays, name: str = "cifar10", **changed: np.ndarray) -> Path:
    """Write `<name>.npz`, images [N, 32, 32, 3], with some arrays exchanged; returns its path."""
    last = {key: a.transpose(0, 2, 3, 1) if key.startswith("x") else a for key, a in arrays._asdict().items()}
    np.savez(folder / f"{name}.npz", **(last | changed))
    return folder / f"{name}.npz"


def write_pickles(folder: Path, arrays: data.Arrays, name: str = "cifar10", by_column: bool = False) -> Path:
    """Write the original files; returns their folder."""
    source = SOURCES[name]
    into = folder / source.folder
    into.mkdir(parents=True)
    for names, x, y in ((source.train, *arrays[:2]), (source.test, *arrays[2:])):
        for file, rows in zip(names, np.array_split(np.arange(len(y)), len(names)), strict=True):
            (into / file).write_bytes(batch(x[rows], y[rows], source.label, by_column))
    return into


def batch(x: np.ndarray, y: np.ndarray, label: bytes = b"labels", by_column: bool = False) -> bytes:
    """One original file: images as rows of 3072 bytes, red first, and labels as a list."""
    rows = x.reshape(len(x), 3072)
    content = {b"batch_label": b"training batch 1 of 5", label: y.tolist()}
    if label == b"fine_labels":
        content |= {b"coarse_labels": [0] * len(y)}
    content |= {b"data": np.asfortranarray(rows) if by_column else rows, b"filenames": [b"a.png"] * len(y)}
    return python2_pickle(content)


def python2_pickle(value: dict[bytes, Any]) -> bytes:
    """What Python 2's `cPickle.dumps(value, 2)` gives, but for its memo: opcodes, as the original files have them."""
    return b"\x80\x02" + _opcodes(value) + b"."


def call(function: str, argument: bytes) -> "Opcodes":
    """A call of `module.function`, to be put into a pickle."""
    module, _, name = function.rpartition(".")
    return Opcodes(f"c{module}\n{name}\n".encode() + _opcodes(argument) + b"\x85R")


class Opcodes(bytes):
    """Written into a pickle as they are."""


def _opcodes(value: Any) -> bytes:
    match value:
        case Opcodes():
            return bytes(value)
        case bytes():
            return (b"U" + bytes([len(value)]) if len(value) < 256 else b"T" + struct.pack("<i", len(value))) + value
        case int():
            code = "<cB" if 0 <= value < 2**8 else "<cH" if 0 <= value < 2**16 else "<ci"
            return struct.pack(code, {"B": b"K", "H": b"M", "i": b"J"}[code[-1]], value)
        case list():
            return b"](" + b"".join(map(_opcodes, value)) + b"e"
        case dict():
            return b"}(" + b"".join(_opcodes(part) for item in value.items() for part in item) + b"u"
        case np.ndarray():
            return _array(value)
    raise TypeError(type(value))


def _array(array: np.ndarray) -> bytes:
    """Of two axes; `array.dtype.str` is a byte order and a type, such as |u1."""
    order, dtype = array.dtype.str[:1].encode(), array.dtype.str[1:].encode()
    return b"".join(
        [
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01",
            *map(_opcodes, array.shape),
            b"\x86cnumpy\ndtype\n" + _opcodes(dtype) + b"K\x00K\x01\x87R(K\x03" + _opcodes(order),
            b"NNN" + 2 * _opcodes(-1) + b"K\x00tb" + (b"\x89" if array.flags.c_contiguous else b"\x88"),
            _opcodes(array.tobytes("A")) + b"tb",
        ]
    )
