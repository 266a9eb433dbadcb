"""One configuration, or a study, run from Python: what `python -m cl_repro` does, with the rows instead of a table."""

import os
import uuid
from typing import TYPE_CHECKING

from cl_repro.analysis import read_folder
from cl_repro.common import runtime
from cl_repro.common.errors import UserError
from cl_repro.records import LAUNCH
from cl_repro.study import provenance, study
from cl_repro.study.compose import from_command_line
from cl_repro.study.config import register

if TYPE_CHECKING:
    import pandas as pd


def run(*overrides: str) -> "pd.DataFrame":
    """Compute what is missing of a configuration or a study, and read the results.

    Like every command of this package it uses one thread in a process: torch's threads are set to 1.

    Args:
        overrides: as typed after `python -m cl_repro`: "study=split_digits_fisher", "scale=smoke", "workers=1",
            "results_dir=somewhere". Sweeps and launchers are the command's alone.

    Returns:
        The rows of the results folder, as `read_folder` says: also those that were there before.

    Raises:
        UserError: everything that the command refuses; runs that failed.
    """
    register()
    arms = from_command_line(overrides)
    runtime.prepare()
    os.environ[LAUNCH] = uuid.uuid4().hex  # every call tries again what has failed, as every command does
    ended = study.compute_missing(arms, provenance.command(overrides), runtime.cores())
    if ended.unfinished:
        raise UserError(ended.unfinished)
    return read_folder(ended.folder)
