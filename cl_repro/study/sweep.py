"""The tables of a sweep, once, by the command that started it: its jobs, wherever they run, note their folders."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from cl_repro import analysis
from cl_repro.common import errors
from cl_repro.records import LAUNCH, Lock
from cl_repro.study.compose import TYPED, written

NOTES = "CL_REPRO_NOTES"  # environment variable: the folder of the notes, for all jobs of a sweep


class Noted(Callback):
    """Tells the jobs of a sweep what they have in common (`hydra.callbacks` of the configuration)."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """In the process that starts the jobs, before them. What it says is set as if it had been typed.

        So it reaches jobs that are not given the environment, too, as with SLURM's --export=NONE.
        """
        os.environ[NOTES] = str(Path(config.hydra.sweep.dir).absolute())
        of_jobs = [f"+hydra.job.env_set.{name}={written(os.environ[name])}" for name in (NOTES, LAUNCH, TYPED)]
        config.hydra.overrides.hydra.extend(of_jobs)
        if "partition" in config.hydra.launcher:
            from cl_repro.study import slurm  # noqa: PLC0415 - submitit is an extra

            with errors.entry_point():  # Hydra makes a warning of what a callback raises
                slurm.check_time(config.hydra.launcher)
                for key, value in slurm.resources(config).items():
                    config.hydra.launcher[key] = value
                    config.hydra.overrides.hydra.append(f"hydra.launcher.{key}={value}")
                slurm.without_accounts()


def note(folder: Path) -> None:
    """Note, from a job of a sweep, the folder that its results are in."""
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
    if not notes:
        tidy(there)
    for folder in folders:
        draw(folder)


def tidy(there: Path) -> None:
    """Remove what Hydra has made for a sweep of which no job began, as far as nothing else is there."""
    with suppress(OSError):
        for job in there.glob("[0-9]*"):
            job.rmdir()
        (there / "multirun.yaml").unlink(missing_ok=True)
        there.rmdir()
        there.parent.rmdir()


def draw(folder: Path) -> None:
    """Draw and print the results of a folder, if there are any."""
    if (folder / "runs.csv").exists():
        # Commands may end together: the last to get the lock draws what all have written.
        with Lock(folder / ".spool" / "report.lock"):
            print(analysis.report(folder.name, folder.parent))
