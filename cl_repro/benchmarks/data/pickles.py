"""Read a pickled dictionary of numpy arrays, as Python 2 or 3 wrote it, without executing what it contains.

A pickle is a program: to load one is to call the functions that it names. Here the few names that an array needs all
mean `Stored`, which only keeps what it is given, that of bytes means `latin1`, and every other name is refused. Not
even numpy runs on what a file says: its own `__setstate__` trusts a data type's flags, and takes bytes for object
pointers if they tell it to.
"""

import math
import pickle
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from cl_repro.benchmarks.data.files import damaged

ARRAY_NAMES = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    # the modules of NumPy 1 and 2
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),  # of protocol 5
}


class Stored:
    """Stands in for an array or a data type: what a pickle calls it with, and the state it gives it."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def latin1(text: str, encoding: str) -> bytes:
    """Bytes, as Python 3 writes them in protocols below 3."""
    return str(text).encode("latin1")


class Unpickler(pickle.Unpickler):
    """Refuses every name but those of arrays and bytes."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """The meaning of a name that the pickle refers to."""
        if (module, name) == ("_codecs", "encode"):
            return latin1
        if (module, name) not in ARRAY_NAMES:
            raise pickle.UnpicklingError(f"refused: it refers to {module}.{name}, and a data set needs no such thing")
        return Stored


def read_pickle(path: Path) -> dict[bytes, Any]:
    """Read a dictionary, its keys as Python 2's strings are; an array in it is a `Stored`, for `array`.

    Raises:
        UserError: not a pickle of a dictionary, damaged, or with anything in it but plain values and arrays.
    """
    try:
        with path.open("rb") as file:
            content = Unpickler(file, encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise anything
        raise damaged(path, error) from error
    if not isinstance(content, dict):
        raise damaged(path, f"it holds a {type(content).__name__}, must hold a dictionary")
    return {key.encode() if isinstance(key, str) else key: value for key, value in content.items()}


def array(stored: Any, kinds: Collection[str]) -> np.ndarray | None:
    """The array that a value of `read_pickle` describes, read-only; None if its type is none of `kinds`.

    Those are as numpy abbreviates them, e.g. u1.
    """
    match stored:
        case Stored(state=(_, tuple(shape), Stored() as kind, bool(by_column), bytes(content))):
            pass  # the pattern has bound all that is needed
        case Stored(arguments=(bytes() | bytearray() as content, Stored() as kind, tuple(shape), "C" | "F" as order)):
            by_column = order == "F"
        case _:
            return None
    match kind:
        case Stored(arguments=(bytes() | str() as name, *_), state=(_, bytes() | str() as byte_order, *_)):
            name, byte_order = (x if isinstance(x, str) else str(x, "latin1") for x in (name, byte_order))
        case _:
            return None
    if name not in kinds or byte_order not in ("|", "<"):
        return None
    dtype = np.dtype(f"<{name}")
    if not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) * dtype.itemsize != len(content):
        return None
    return np.frombuffer(bytes(content), dtype).reshape(shape, order="F" if by_column else "C")
