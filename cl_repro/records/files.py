"""Files that survive kills, full disks and rivals: written whole or not at all, and known by their checksums."""

import codecs
import fcntl
import hashlib
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cl_repro.common.errors import UserError, told

UNVERIFIED = "unverified: there is no provenance.json, so nothing says whether the files are as they were written"
PATIENCE = 5.0  # seconds for which a lock is waited for without a word


def sha256(data: bytes) -> str:
    """Hexadecimal checksum."""
    return hashlib.sha256(data).hexdigest()


def check_place(folder: Path) -> None:
    """Refuse, before anything is made, a folder that cannot be one."""
    with told(folder, "cannot be a folder"):
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"{there}: must be a folder, is a file")


def folder_name(given: str, results_dir: Path) -> str:
    """The name of a folder of results, of that name or of a path to it, as a shell completes it.

    Raises:
        UserError: a path to elsewhere, where nothing would be read or written.
    """
    home = os.path.abspath(results_dir)
    for path in (os.path.join(home, given), given):
        parent, name = os.path.split(os.path.abspath(path))
        if parent == home:
            return name
    raise UserError(f"{given}: must be a folder in {results_dir}; --results-dir says where others are")


def write_atomically(path: Path, data: bytes, lasting: bool = True) -> None:
    """Write under a temporary name, flush to the disk, rename: readers see the old file or the new one.

    What need not outlast the machine's crash (`lasting`) does not wait for the disk.
    """
    # Two machines that share the folder may have processes of one number.
    partial = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.tmp")
    with told(path, "cannot be written"):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(partial, "wb") as file:
                file.write(data)
                file.flush()
                if lasting:
                    os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError:
            with suppress(OSError):  # below a file there is nothing to remove
                partial.unlink(missing_ok=True)
            raise


def append(path: Path, size: int, data: bytes) -> None:
    """Write after the first `size` bytes of a file, whatever is there behind them, and flush to the disk."""
    with told(path, "cannot be written"), open(path, "r+b" if path.exists() else "w+b") as file:
        if file.seek(0, os.SEEK_END) == size and not data:
            return
        file.truncate(size)
        file.seek(size)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def read_bytes(path: Path) -> bytes:
    """The content of a file; where it cannot be read, that is told in one line."""
    with told(path, "cannot be read"):
        return path.read_bytes()


# --- locks ------------------------------------------------------------------------------------------------------------


class Lock(FileLock):
    """A file's lock, which says in the file who holds it; the kernel frees it when its holder dies.

    Who waits for it long is told, and so is, in one line, that the file cannot be made: the folder's fault.
    """

    def acquire(self, timeout: float | None = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """As `FileLock.acquire`."""
        try:
            if timeout is None or timeout < 0:
                try:
                    taken = super().acquire(timeout=PATIENCE, **kwargs)
                except Timeout:
                    sys.stderr.write(f"{self.lock_file}: waiting, {holder(Path(self.lock_file)) or 'held'}\n")
                    taken = super().acquire(timeout=-1, **kwargs)
            else:
                taken = super().acquire(timeout=timeout, **kwargs)
        except Timeout:
            raise
        except OSError as error:
            raise UserError(f"{self.lock_file}: cannot be written: {error.strerror}") from error
        with suppress(OSError):  # a full disk; it is held all the same
            Path(self.lock_file).write_text(f"process {os.getpid()} of {platform.node()}")
        return taken


def holder(path: Path, seconds: float = 0.0) -> str:
    """Who holds a lock and since when, in words; empty if nobody does, or not for so many seconds yet."""
    with suppress(FileNotFoundError), open(path) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            since = os.fstat(lock.fileno()).st_mtime
            if time.time() - since >= seconds:
                at = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                return f"held since {at} by {lock.read() or 'another process'}"
    return ""


# --- checksums --------------------------------------------------------------------------------------------------------


def verified(path: Path, known: Mapping[str, Any], again: Callable[[], Mapping[str, Any]]) -> bytes:
    """The content of a file, if it is as this program wrote it.

    Args:
        path: of the file.
        known: what provenance.json says: `files` and `previous` have the checksums after the last write and before it;
            `appending`, while rows are being appended, the sizes before, and what is behind them does not count yet.
        again: reads provenance.json once more; a run may have replaced both since.

    Returns:
        The content, without what is being appended.

    Raises:
        UserError: it cannot be read, or is not what was written.
    """
    while True:
        data = read_bytes(path)[: known.get("appending", {}).get(path.name)]
        if sha256(data) in checksums(path, known):
            return data
        if (newer := again()) == known:
            raise edited(path, data, known)
        known = newer


def verifiable(folder: Path) -> bool:
    """Whether something says what a folder's files were when they were written."""
    return (folder / "provenance.json").exists()


def begun(path: Path, known: Mapping[str, Any]) -> bool:
    """Whether a file has content that counts: it is there, and not just being made."""
    return path.is_file() and known.get("appending", {}).get(path.name) != 0


def checksums(path: Path, known: Mapping[str, Any]) -> set[str]:
    """Those that a file may have, by provenance.json."""
    return {known[when][path.name] for when in ("files", "previous") if path.name in known.get(when, {})}


def edited(path: Path, data: bytes, known: Mapping[str, Any]) -> UserError:
    """The error for a file that is not as it was written, with what can be seen of the reason."""
    if sha256(data.replace(b"\r\n", b"\n")) in checksums(path, known):
        return UserError(
            f"{path}: its line endings were converted (CRLF for LF), by git's core.autocrlf? Else it is as the run "
            "wrote it: `git config core.autocrlf false`, then check the file out again"
        )
    reason = not_comma_separated(data) if path.suffix == ".csv" else ""
    return UserError(
        f"{path}: edited since the run wrote it (its checksum is not in provenance.json)"
        f"{reason and ': '}{reason}; restore it, or move the folder away"
    )


def not_comma_separated(data: bytes) -> str:
    """What a spreadsheet or a full disk has made of a CSV, in words; empty if it looks like one of ours."""
    head = data.partition(b"\n")[0]
    if data.startswith(codecs.BOM_UTF8):
        return "it begins with a byte order mark (BOM), as spreadsheets write, and must not"
    for name, mark in (("semicolons", b";"), ("tabs", b"\t")):
        if mark in head and b"," not in head:
            return f"its fields are separated by {name}, as spreadsheets do, and must be by commas"
    return "" if data.endswith(b"\n") else "cut short (no newline at its end)"
