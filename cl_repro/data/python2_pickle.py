"""Read a pickled dictionary of numpy arrays, as Python 2 wrote them, without executing what it contains.

A pickle is a program: to load one is to call the functions that it names. Here the three names that an array needs all
mean `Stored`, which only keeps what it is given, and every other name is refused. Not even numpy runs on what a file
says: its own `__setstate__` trusts a data type's flags, and takes bytes for object pointers if they tell it to.
"""

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from cl_repro.data.files import damaged

ARRAY_NAMES = {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}


class Stored:
    """Stands in for an array or a data type: what a pickle calls it with, and the state it gives it."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Unpickler(pickle.Unpickler):
    """Refuses every name but those of an array."""

    def find_class(self, module: str, name: str) -> type:
        """The meaning of a name that the pickle refers to."""
        if (module, name) not in ARRAY_NAMES:
            raise pickle.UnpicklingError(f"refused: it refers to {module}.{name}, and a data set needs no such thing")
        return Stored


def read_pickle(path: Path) -> dict[bytes, Any]:
    """Read a dictionary; Python 2's strings come as bytes.

    Args:
        path: the file.

    Returns:
        The dictionary; an array in it is a `Stored`, for `uint8_array`.

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
    return content


def uint8_array(path: Path, stored: Any) -> np.ndarray:
    """The array that a pickle describes.

    Args:
        path: where it came from, for messages.
        stored: a value of `read_pickle`.

    Returns:
        uint8 array, read-only.

    Raises:
        UserError: not an array of bytes.
    """
    match stored:
        case Stored(state=(_, tuple(shape), Stored(arguments=(b"u1", *_)), bool(by_column), bytes(content))):
            if all(type(n) is int and n >= 0 for n in shape) and math.prod(shape) == len(content):
                return np.frombuffer(content, np.uint8).reshape(shape, order="F" if by_column else "C")
    raise damaged(path, "its images are not an array of uint8")
