"""Reading data files that may be damaged: whatever is wrong becomes one line naming the file."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cl_repro.common.errors import UserError

UNREADABLE = (OSError, EOFError, ValueError, MemoryError, zipfile.BadZipFile, zlib.error)
"""What numpy, zipfile and gzip raise on a truncated, corrupted, pickled or forbidden file, or one of no end."""


class MissingDataError(UserError):
    """The files of a data set are not there (as opposed to there, but wrong)."""


def missing(name: str, looked_for: str) -> MissingDataError:
    """The error for a data set whose files were not found; `looked_for`: absolute path or paths, for the user."""
    return MissingDataError(
        f"{name} not found: looked for {looked_for}; run `make data`, or say where it is "
        "with the environment variable CL_REPRO_DATA or with data_dir=<folder>"
    )


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read x_train, y_train, x_test and y_test, as stored, from one `.npz` file; further keys are ignored.

    Raises:
        UserError: the file is damaged or lacks an array.
    """
    keys = ("x_train", "y_train", "x_test", "y_test")
    try:
        # Pickled arrays could run code: a data set needs none.
        with np.load(path, allow_pickle=False) as stored:
            absent = [key for key in keys if key not in stored]
            if absent:
                raise UserError(f"{path}: no array {absent[0]!r}; it must hold {', '.join(keys)}")
            return {key: stored[key] for key in keys}
    except UserError:
        raise
    except (*UNREADABLE, AttributeError, TypeError) as error:
        # numpy hands back a bare array, not an archive, for a .npy file named .npz.
        raise damaged(path, error) from error


def labelled_images(
    path: Path, stored: Mapping[str, np.ndarray], split: str, shapes: Sequence[tuple[int, ...]]
) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of one split, where they are as data sets are stored by one program or another.

    Args:
        path: of the file, for messages.
        stored: what `read_npz` has read.
        split: train or test.
        shapes: that an image may have, the usual one first.

    Returns:
        Images [N, *shape] uint8; labels [N] int64, also of such as are stored as [N, 1].

    Raises:
        UserError: other shapes, or other values than whole numbers.
    """
    x, y = stored[f"x_{split}"], stored[f"y_{split}"]
    if x.shape[1:] not in shapes:
        usual = ", ".join(map(str, ("N", *shapes[0])))
        raise UserError(f"{path}: x_{split} has shape {list(x.shape)}, must be [{usual}]")
    if y.shape not in ((len(x),), (len(x), 1)):
        raise UserError(f"{path}: y_{split} has shape {list(y.shape)}, must be [{len(x)}], a label for each image")
    return whole(path, f"x_{split}", x, np.uint8), whole(path, f"y_{split}", y.reshape(-1), np.int64)


def whole(path: Path, key: str, array: np.ndarray, dtype: type) -> np.ndarray:
    """The array as integers of a type, if every value is one: rounding or wrapping would be silent."""
    if array.dtype.kind in "iufb":
        with np.errstate(invalid="ignore"):  # NaN and the like are no integers
            converted: np.ndarray = array.astype(dtype)
        if np.array_equal(converted, array):
            return converted
    rule = "uint8, or whole numbers from 0 to 255" if dtype is np.uint8 else "integers"
    raise UserError(f"{path}: {key} is {array.dtype}, must be {rule}")


def damaged(path: Path, error: Exception | str) -> UserError:
    """The error for a file that is there but cannot be read."""
    what = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{path}: cannot be read ({what}); move it away and run `make data`")
