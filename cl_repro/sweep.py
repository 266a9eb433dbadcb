"""The tables of a sweep, once, by the command that started it: its jobs, wherever they run, note their folders."""

import os
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from cl_repro import analysis
from cl_repro.records import LAUNCH, Lock

NOTES = "CL_REPRO_NOTES"  # environment variable: the folder of the notes, for all jobs of a sweep


class Noted(Callback):
    """Tells the jobs of a sweep where their notes go (`hydra.callbacks` of the configuration)."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """In the process that starts the jobs, before them."""
        os.environ[NOTES] = str(Path(config.hydra.sweep.dir).absolute())
        if "partition" in config.hydra.launcher:
            from cl_repro.slurm import without_accounts  # noqa: PLC0415 - submitit is an extra

            without_accounts()


def note(folder: Path) -> None:
    """Of a job: its results are in this folder."""
    if not (NOTES in os.environ and LAUNCH in os.environ):  # a job that was given no environment
        return
    notes = Path(os.environ[NOTES])
    notes.mkdir(parents=True, exist_ok=True)
    (notes / f"{os.environ[LAUNCH]}-{HydraConfig.get().job.num}").write_text(str(folder.absolute()), encoding="utf-8")


def show() -> None:
    """Draw and print what the jobs of this command have left, each folder once; nothing if it was no sweep."""
    there = Path(os.environ.pop(NOTES, os.devnull))
    notes = sorted(there.glob(f"{os.environ[LAUNCH]}-*")) if os.path.isdir(there) else []  # False for what has no name
    folders = dict.fromkeys(Path(os.path.relpath(path.read_text(encoding="utf-8"))) for path in notes)
    for path in notes:
        path.unlink()
    for folder in folders:
        draw(folder)


def draw(folder: Path) -> None:
    """Draw and print the results of a folder, if there are any."""
    if (folder / "runs.csv").exists():
        # Commands may end together: the last to get the lock draws what all have written.
        with Lock(folder / ".spool" / "report.lock"):
            print(analysis.report(folder.name, folder.parent))
