"""What the folder of a study tells of its chunks besides their rows: which are computed, stopped, failed or damaged."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cl_repro.common.errors import UserError
from cl_repro.records.files import Lock, write_atomically
from cl_repro.records.folder import Folder

FAILURE = {"run_ids", "traceback"}
ASIDE = ".set_aside"  # the suffix of rows that were damaged
DAMAGED = ".damaged"  # and that of checkpoints
FIRST_TASK = ".first_task"  # that of first tasks


class Chunks(Folder):
    """A results folder whose rows come in chunks."""

    def __init__(self, folder: Path) -> None:
        """As `Folder`."""
        super().__init__(folder)
        self.failures = folder / "failed"

    def chunk_lock(self, chunk: str) -> Lock:
        """Held by the process that computes a chunk; the kernel frees it when that process dies."""
        return Lock(self.spool / f"{chunk}.lock")

    @contextmanager
    def running(self, chunk: str, run_ids: list[str]) -> Iterator[None]:
        """A context in which a file tells others which runs the holder of the chunk's lock is computing.

        Afterwards it tells which of them a checkpoint has.
        """
        path = self.spool / f"{chunk}.running"
        write_atomically(path, json.dumps(run_ids).encode(), lasting=False)
        try:
            yield
        finally:
            if not checkpoint_file(self.folder, chunk).exists():
                path.unlink(missing_ok=True)

    def note_failure(self, chunk: str, run_ids: list[str], text: str, launch: str | None = None) -> None:
        """Record the traceback of a chunk that failed, and the launch (the command as typed once) that tried it."""
        content = {"run_ids": run_ids, "traceback": text, "launch": launch}
        write_atomically(self.failures / f"{chunk}.json", json.dumps(content).encode())

    def failed(self) -> dict[str, dict[str, Any]]:
        """Chunks that failed and have not been done since, with run_ids and traceback."""
        found = {}
        for path in sorted(self.failures.glob("*.json")):
            with suppress(FileNotFoundError):  # done meanwhile
                found[path.stem] = noted(path)
        return found

    def failed_runs(self) -> set[str]:
        """run_ids of the chunks that failed."""
        return {run_id for failure in self.failed().values() for run_id in failure["run_ids"]}

    def set_aside(self) -> list[Path]:
        """Files of chunks that were damaged; nothing reads or removes them."""
        return sorted(path for suffix in (ASIDE, DAMAGED) for path in self.spool.glob(f"*{suffix}"))

    def forget(self, chunk: str) -> None:
        """Remove what a chunk that is done has left besides its rows, under its lock, which goes last."""
        for name in (f"{chunk}.checkpoint", f"{chunk}.running", f".{chunk}.*.tmp", f"{chunk}.lock"):
            for path in self.spool.glob(name):
                path.unlink(missing_ok=True)


def checkpoint_file(folder: Path, chunk: str) -> Path:
    """Of a chunk that was stopped between two steps: see `checkpoint`."""
    return folder / ".spool" / f"{chunk}.checkpoint"


def first_task_file(folder: Path, name: str) -> Path:
    """The checkpoint of a first task that chunks share, in its middle or at its end."""
    return folder / ".spool" / f"{name}{FIRST_TASK}"


def noted(path: Path) -> dict[str, Any]:
    """What this program noted about a chunk that failed.

    Raises:
        FileNotFoundError: it is done.
        UserError: truncated or edited.
    """
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict) or not found.keys() >= FAILURE:
        raise UserError(f"{path}: truncated or edited; remove it, and its runs are computed again")
    return found
