"""Reading data files that may be damaged: whatever is wrong becomes one line naming the file."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from cl_repro.errors import UserError

UNREADABLE = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error)
"""What numpy, zipfile and gzip raise on a truncated, corrupted, pickled or forbidden file."""


class MissingDataError(UserError):
    """The files of a data set are not there (as opposed to there, but wrong)."""


def missing(name: str, looked_for: str) -> MissingDataError:
    """The error for a data set whose files were not found.

    Args:
        name: data set.
        looked_for: absolute path or paths, as the user should read them.

    Returns:
        The error, to be raised by the reader.
    """
    return MissingDataError(
        f"{name} not found: looked for {looked_for}; run `make data`, or say where it is "
        "with the environment variable CL_REPRO_DATA or with data_dir=<folder>"
    )


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read the four arrays of a data set from one `.npz` file; further keys are ignored.

    Args:
        path: the file.

    Returns:
        x_train, y_train, x_test, y_test, as stored.

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


def damaged(path: Path, error: Exception | str) -> UserError:
    """The error for a file that is there but cannot be read.

    Args:
        path: the file.
        error: what is wrong with it.

    Returns:
        The error, to be raised by the reader.
    """
    what = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{path}: cannot be read ({what}); move it away and run `make data`")
