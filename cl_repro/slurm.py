"""SLURM without accounting: whether a job has ended is asked of the queue.

submitit asks `sacct`. Where that keeps no accounts it warns at every try, and waits for ever for a job that has died.
"""

import getpass
import subprocess
import sys

from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

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
