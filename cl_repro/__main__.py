"""`python -m cl_repro`, also installed as `cl-repro`: the Hydra application, and four commands beside it.

The first word `status` or `plan` is not Hydra's: it says how far a study is, or what it would cost. `translate` is a
lambda in another code base's EWC, `export` sends finished runs to other tools.
"""

import os
import signal
import sys
import traceback
import uuid
from importlib import import_module
from pathlib import Path
from textwrap import shorten
from typing import NoReturn

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from cl_repro.common import errors
from cl_repro.common.errors import UserError
from cl_repro.records import LAUNCH, check_place
from cl_repro.study import sweep
from cl_repro.study.compose import (
    ConfigurationError,
    arms_of,
    literal,
    note_typed,
    of_composition,
    one_line,
    permitted,
    typed,
)
from cl_repro.study.config import CONF, register

BESIDE_HYDRA = {  # first word -> the module whose `main` takes the others; none needs the others' imports
    "status": "cl_repro.study.status",
    "plan": "cl_repro.study.plan",
    "translate": "cl_repro.study.translate",
    "export": "cl_repro.export",
}

register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def application(cfg: DictConfig) -> None:
    """Run what was composed. In a sweep a job's mistake must not end the other jobs: Hydra raises it at the end."""
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        run(cfg)
        return
    try:
        with errors.entry_point():
            launcher = HydraConfig.get().runtime.choices["hydra/launcher"]
            if launcher != "basic":
                raise UserError(f"hydra/launcher={launcher}: a launcher starts the jobs of a sweep: it needs -m")
            run(cfg)
    except ConfigurationError as error:
        refuse(error)


def run(cfg: DictConfig) -> None:
    """Compute what is missing, then draw and print what there is; of a sweep the command that started it does."""
    overrides = list(HydraConfig.get().overrides.task)
    # Not the overrides: a file can write `hydra.overrides.task` and `hydra.sweeper.params`, too.
    arms = permitted(arms_of(cfg, overrides, str(HydraConfig.get().job.config_name)), typed())
    from cl_repro.common import runtime  # noqa: PLC0415 - slow, as torch is, and not needed above
    from cl_repro.study import child, provenance, study  # noqa: PLC0415

    child.end_with_parent()
    runtime.prepare()
    ended = study.compute_missing(arms, provenance.command(overrides), *share(HydraConfig.get(), runtime.cores()))
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        sweep.note(ended.folder)
    else:
        sweep.draw(ended.folder)
    if ended.stopped and in_slurm(HydraConfig.get()):
        signal.raise_signal(signal.SIGUSR2)  # as SLURM does at the limit: submitit queues the job again
    if ended.unfinished:
        raise UserError(ended.unfinished)


def in_slurm(hydra_cfg: HydraConf) -> bool:
    """Whether this is a job of a sweep on SLURM."""
    return "partition" in hydra_cfg.launcher and "SLURM_JOB_ID" in os.environ


def share(hydra_cfg: HydraConf, cores: int) -> tuple[int, int | None]:
    """What this job may use of its machine: all of it, unless a launcher runs others beside it.

    Args:
        hydra_cfg: Hydra's own configuration.
        cores: of the machine.

    Returns:
        Cores for `workers=auto`, and the job's number if jobs share the CUDA devices (else None).
    """
    launcher = hydra_cfg.launcher
    if hydra_cfg.mode is not RunMode.MULTIRUN:
        return cores, None
    if "n_jobs" in launcher:  # joblib; -1 is one job per core, -2 one fewer
        at_once = launcher.n_jobs if launcher.n_jobs > 0 else cores + 1 + launcher.n_jobs
        return max(1, cores // max(1, at_once)), hydra_cfg.job.num
    if "cpus_per_task" in launcher:  # submitit; a job of SLURM sees only the devices it was given
        return launcher.cpus_per_task or cores, None if "partition" in launcher else hydra_cfg.job.num
    return cores, None  # one after the other


def refuse(error: Exception) -> NoReturn:
    """One line on standard error, exit status 2."""
    text = str(error) if isinstance(error, UserError) else one_line(error)
    if "Could not load 'hydra/launcher/" in text:
        text += " It comes with: pip install 'cl_repro[launchers]'"
    errors.refuse(text)


def of_launcher(error: Exception) -> bool:
    """Whether a launcher plugin raised it: no such cluster, a setting it refuses, a job that died.

    What a job raises is a value to its launcher, and is raised outside of it again. So the last line of Hydra's or ours
    that it went through tells.
    """
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    last = next((name for name in reversed(modules) if name.startswith(("hydra", "cl_repro", "__main__"))), "")
    return last.startswith(("hydra_plugins.", "hydra._internal.core_plugins."))


def main() -> None:
    """Entry point: a user's mistake is one line on standard error, and exit status 2."""
    os.environ[LAUNCH] = uuid.uuid4().hex  # for all jobs and processes of this command
    sys.argv[1:] = map(literal, sys.argv[1:])
    note_typed(sys.argv[1:])
    # Hydra then hands its exceptions to us instead of printing them on several lines.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        with errors.entry_point():
            if sys.argv[1:] and sys.argv[1] in BESIDE_HYDRA:
                import_module(BESIDE_HYDRA[sys.argv[1]]).main(sys.argv[2:])
            else:
                try:
                    application()
                finally:  # what the jobs of a sweep have done is shown, whether one has failed or not
                    sweep.show()
    except ConfigurationError as error:
        refuse(error)
    except Exception as error:
        if of_composition(error):
            refuse(error)
        if not of_launcher(error):
            raise
        if isinstance(error, OSError) and error.filename:  # the folder that the jobs of a sweep share
            with errors.entry_point():
                check_place(Path(error.filename))
                raise UserError(f"{error.filename}: results cannot be written here: {error.strerror}") from error
        text = f"launcher: {type(error).__name__}: {shorten(str(error), 300)}"
        refuse(UserError(f"{text}; finished chunks are kept: the same command continues"))


if __name__ == "__main__":
    main()
