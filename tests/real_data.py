"""Where the tests find the real data sets; a test without them is skipped and says so."""

import os
from pathlib import Path

import pytest

from cl_repro.benchmarks.data.arrays import load
from cl_repro.benchmarks.data.files import MissingDataError

ROOT = Path(__file__).resolve().parents[1]


def candidates() -> list[Path]:
    """Folders that may hold the real data, the user's own first.

    Returns:
        Absolute paths, existing or not.
    """
    named = os.environ.get("CL_REPRO_DATA")
    folders = [Path(named)] if named else []
    return [folder.absolute() for folder in (*folders, ROOT / "data", ROOT.parent / "shared/data")]


def require(name: str) -> Path:
    """Folder of a real data set; skips the calling test where there is none.

    Damaged or wrong data are an error, not a reason to skip.

    Args:
        name: data set, such as mnist.

    Returns:
        The first candidate that holds it.
    """
    for folder in candidates():
        try:
            load(name, folder)
        except MissingDataError:
            continue
        return folder
    looked = ", ".join(map(str, candidates()))
    pytest.skip(f"real {name} not found in {looked}; `make data` gets it")
