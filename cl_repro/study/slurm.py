"""What a sweep on SLURM needs besides submitit: its jobs' CPUs and memory, and an end where nobody keeps accounts.

submitit asks `sacct` whether a job has ended. Where that keeps no accounts it warns at every try, and waits for ever
for a job that has died: the queue is asked then.
"""

import getpass
import math
import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig
from submitit.slurm.slurm import SlurmExecutor, SlurmInfoWatcher, SlurmJob

from cl_repro.common.errors import ElsewhereError, UserError
from cl_repro.study.compose import CompositionError, arms_of, one_line, permitted, typed

EARLY = 60  # seconds by which SLURM may send its signal before it was asked to
OTHERWISE = {"cpus_per_task": 4, "mem_gb": 8}  # where a job's needs cannot be measured
COMMAND = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%N"]


class Queue(SlurmInfoWatcher):
    """States of jobs from `squeue`; one that the queue has forgotten is over."""

    def _make_command(self) -> list[str] | None:
        return [*COMMAND, f"--user={getpass.getuser()}"] if self._registered - self._finished else None

    def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
        """{job: {"State": ...}} of what `squeue` has printed."""
        text = string if isinstance(string, str) else string.decode()
        return {job: {"State": "ENDED"} for job in self._registered} | super().read_info(
            f"JobID|State|NodeList\n{text}"
        )


def without_accounts() -> None:
    """Ask the queue where nobody keeps accounts, and say so."""
    try:
        asked = subprocess.run(["sacct", "--noheader"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return  # submitit says what is missing
    if asked.returncode:
        SlurmJob.watcher = Queue(delay_s=30)
        print("sacct keeps no accounts here: the queue is asked instead", file=sys.stderr)


def check_time(launcher: DictConfig) -> None:
    """Refuse jobs that SLURM may tell to stop as soon as they begin."""
    least = launcher.signal_delay_s + EARLY
    if 60 * launcher.timeout_min <= least:
        raise UserError(
            f"hydra.launcher.timeout_min={launcher.timeout_min}: must be more than {least / 60:g} minutes: "
            f"signal_delay_s={launcher.signal_delay_s}, and the minute by which SLURM may send its signal early"
        )


def resources(config: DictConfig) -> dict[str, int]:
    """What a sweep's jobs ask for where nothing is typed: CPUs and memory, as measured in a process of its own here.

    Args:
        config: of the sweep.

    Returns:
        Settings of the launcher, which standard error says, too.

    Raises:
        UserError: what all jobs would refuse; that process was killed.
    """
    launcher = config.hydra.launcher
    asked = {
        "cpus_per_task": ("cpus_per_task", "cpus_per_gpu"),
        "mem_gb": ("mem_gb", "mem_per_cpu", "mem_per_gpu"),
    }
    asked = {key: of for key, of in asked.items() if all(launcher[name] is None for name in of)}
    if not asked or SlurmExecutor.affinity() < 0:  # without SLURM submitit says what is missing
        return {}
    print("measuring what a job needs, with a few steps of every kind of chunk", file=sys.stderr)
    gpus = launcher.gpus_per_node or launcher.gpus_per_task or int("gpu" in (launcher.gres or ""))
    found, why = measured(jobs(config), launcher.cpus_per_task, gpus)
    found = {key: found[key] for key in asked}
    text = " and ".join(f"hydra.launcher.{key}={value}" for key, value in found.items())
    print(f"a job asks for {text}, {why}", file=sys.stderr)
    return found


def measured(of: list[list[dict[str, Any]]], cpus: int | None, gpus: int) -> tuple[dict[str, int], str]:
    """Settings of the launcher for these jobs, and where they come from."""
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            found = process.submit(needed, of, cpus, gpus).result()
    except ElsewhereError as error:
        return OTHERWISE, f"not measured: {error}"
    except BrokenProcessPool:
        raise UserError(
            "the process that measures what a job needs was killed, as the system does where memory is short: type "
            "hydra.launcher.cpus_per_task= and hydra.launcher.mem_gb=, and nothing is measured"
        ) from None
    return found, "as measured here"


def needed(of: list[list[dict[str, Any]]], cpus: int | None, gpus: int) -> dict[str, int]:
    """`plan.needs` as settings of the launcher."""
    from cl_repro.study import plan  # noqa: PLC0415 - torch, which the process that starts a sweep does without

    needs = plan.needs(of, cpus, gpus)
    return {"cpus_per_task": needs.cpus, "mem_gb": math.ceil(needs.memory / 2**30)}


def jobs(config: DictConfig) -> list[list[dict[str, Any]]]:
    """The arms of each job of a sweep whose configuration fits; the others say themselves that it does not.

    Raises:
        UserError: none fits.
    """
    given = config.hydra.sweeper.get("params") or {}
    overrides = [*(f"{key}={value}" for key, value in given.items()), *config.hydra.overrides.task]
    [split] = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(overrides), max_batch_size=None)
    name, found, refused = config.hydra.job.config_name, [], UserError("no job")
    for of_job in split:
        try:
            found.append(permitted(arms_of(hydra.compose(name, overrides=of_job), of_job, name), typed()))
        except UserError as error:
            refused = error
        except CompositionError as error:
            refused = UserError(one_line(error))
    if not found:
        raise refused
    return found
