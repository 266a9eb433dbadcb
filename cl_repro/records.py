"""The results store of one study: a folder with five CSVs, their provenance and their configurations.

A row of runs.csv whose run_id matches IS the finished cell. Workers write one spool file per chunk (temporary name,
then rename); whoever holds the folder's lock merges spool files into the CSVs. runs.csv is replaced last and the
spool file is removed after that, so a kill at any moment loses nothing and doubles nothing. provenance.json holds the
checksums of the CSVs before and after a merge: anything else is an edit from outside, and is refused.
"""

import codecs
import csv
import hashlib
import io
import json
import os
import platform
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from cl_repro import window
from cl_repro.errors import UserError
from cl_repro.grid import SCHEMA_VERSION

RUNS = [
    "run_id",
    "config_id",
    "study",
    "scale",
    "arm",
    "benchmark",
    "scenario",
    "model",
    "method",
    "fisher",
    "lambda",
    "seed",
    "batch_size",
    "iterations",
    "n_tasks",
    "accuracy",
    "forgetting",
    "bwt",
    "fwt",
    "status",
    "seconds_train",
    "seconds_fisher",
    "seconds_eval",
    "seconds_total",
    "replicas_in_chunk",
    "shared_first_task",
    "peak_memory",
    "dtype",
    "device",
    "hardware",
    "torch",
    "git_sha",
    "dirty",
    "finished",
    "schema_version",
]
COLUMNS = {
    "accuracy.csv": ["run_id", "split", "after_task", "task", "accuracy"],
    "importance.csv": ["run_id", "after_task", "trace"],
    "storage.csv": ["run_id", "kind", "bytes"],
    "representation.csv": ["run_id", "measure", "value"],
    "runs.csv": RUNS,  # last: it decides what is finished
}
PROVENANCE = {"files": dict, "previous": dict, "data": dict, "invocations": list}
FAILURE = ("run_ids", "traceback")
Row = dict[str, Any]
LAUNCH = "CL_REPRO_LAUNCH"  # environment variable: names a command as typed once, for all jobs of its sweep


def sha256(data: bytes) -> str:
    """Hexadecimal checksum."""
    return hashlib.sha256(data).hexdigest()


class Lock(FileLock):
    """A file's lock; where the file cannot be made, that is the folder's fault and told in one line."""

    def acquire(self, *args: Any, **kwargs: Any) -> Any:
        """As `FileLock.acquire`."""
        try:
            return super().acquire(*args, **kwargs)
        except Timeout:
            raise
        except OSError as error:
            raise UserError(f"{self.lock_file}: cannot be written: {error.strerror}") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write under a temporary name, flush to the disk, rename: readers see the old file or the new one."""
    # Two machines that share the folder may have processes of one number.
    partial = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):  # below a file there is nothing to remove
            partial.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def read_bytes(path: Path) -> bytes:
    """The content of a file; where it cannot be read, that is told in one line."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def as_written(path: Path, data: bytes, known: Mapping[str, Any]) -> bool:
    """Whether a file's content is that of which provenance.json has the checksum, before or after the last write."""
    return sha256(data) in (known.get(when, {}).get(path.name) for when in ("files", "previous"))


def edited(path: Path, data: bytes, known: Mapping[str, Any]) -> UserError:
    """The error for a file that is not `as_written`, with what can be seen of the reason."""
    if as_written(path, data.replace(b"\r\n", b"\n"), known):
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


def check_place(folder: Path) -> None:
    """Refuse, before anything is made, a folder that cannot be one."""
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError as error:
        raise UserError(f"{folder}: cannot be a folder: {error.strerror}") from error
    if not there.is_dir():
        raise UserError(f"{there}: must be a folder, is a file")


def to_csv(columns: Sequence[str], rows: Iterable[Row]) -> bytes:
    """Rows as CSV text; None is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def from_csv(path: Path, columns: Sequence[str], data: bytes) -> list[Row]:
    """The rows of a CSV that has exactly these columns, as text."""
    reader = csv.reader(io.StringIO(data.decode("utf-8", errors="replace"), newline=""))
    header = next(reader, None)
    if header != list(columns):
        raise UserError(
            f"{path}: its header is not the one this version writes; move the folder away or restore the file"
        )
    rows = []
    for values in reader:
        if len(values) != len(columns):
            raise UserError(
                f"{path}: line {reader.line_num} has {len(values)} fields instead of {len(columns)}: truncated?"
            )
        rows.append(dict(zip(columns, values, strict=True)))
    return rows


def from_json(path: Path, keys: Collection[str]) -> dict[str, Any]:
    """What this program wrote about a chunk, which has these keys."""
    try:
        found = json.loads(read_bytes(path))
    except UserError:
        raise
    except ValueError:
        raise not_ours(path) from None
    if not isinstance(found, dict) or not found.keys() >= set(keys):
        raise not_ours(path)
    return found


def not_ours(path: Path) -> UserError:
    """The error for what this program has not written about a chunk."""
    return UserError(f"{path}: truncated or edited; remove it, and its runs are computed again")


def checkpoint_file(folder: Path, chunk: str) -> Path:
    """Of a chunk that was stopped between two tasks: see `checkpoint`."""
    return folder / ".spool" / f"{chunk}.checkpoint"


class Store:
    """The results folder of one study."""

    def __init__(self, folder: Path) -> None:
        """Open it, and refuse what another version or another hand has written. Nothing is made yet: see `create`.

        Args:
            folder: results_dir / name; it need not exist.

        Raises:
            UserError: it is no folder, or its content is not what provenance.json says.
        """
        self.folder = folder
        self.spool = folder / ".spool"
        self.failures = folder / "failed"
        self.lock = Lock(self.spool / "store.lock")
        check_place(folder)
        with self.still():
            self.read()

    def create(self) -> None:
        """Make the folder; refuse, before anything is computed for it, one that cannot be written."""
        try:
            self.spool.mkdir(parents=True, exist_ok=True)
            if not (self.spool / ".gitignore").exists():  # a full disk would empty it
                (self.spool / ".gitignore").write_text("*\n")
        except OSError as error:
            raise UserError(f"{self.folder}: results cannot be written here: {error.strerror}") from error

    def still(self) -> AbstractContextManager[Any]:
        """No other process merges meanwhile. Where none ever has on this machine, reading makes no file, either."""
        return self.lock if self.spool.is_dir() else nullcontext()

    def provenance(self) -> dict[str, Any]:
        """What provenance.json says; an empty one where there is none yet."""
        path = self.folder / "provenance.json"
        if not path.exists():
            return {"schema_version": SCHEMA_VERSION} | {key: kind() for key, kind in PROVENANCE.items()}
        data = read_bytes(path)
        try:
            found = json.loads(data)
            version = found["schema_version"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}: not readable as provenance; restore it or move the folder away") from None
        if version != SCHEMA_VERSION:
            raise UserError(
                f"{path}: written with schema version {version}, this code has {SCHEMA_VERSION}; "
                "set results_dir= or move the folder away"
            )
        for key, kind in PROVENANCE.items():
            if not isinstance(found.get(key), kind):
                raise UserError(f"{path}: {key!r} is missing or edited; restore it or move the folder away")
        return found

    def read(self, names: Collection[str] = tuple(COLUMNS)) -> dict[str, list[Row]]:
        """All rows of these files, by file name; {} for files that do not exist yet."""
        known = self.provenance()
        result: dict[str, list[Row]] = {}
        for name in names:
            path = self.folder / name
            if not path.exists():
                merging = name not in known["previous"] and any(self.spool.glob("*.json"))  # the first merge, killed
                if name in known["files"] and not merging:
                    raise UserError(
                        f"{path}: missing, though provenance.json knows it; restore it or move the folder away"
                    )
                continue
            data = read_bytes(path)
            if not as_written(path, data, known):
                raise edited(path, data, known)
            result[name] = from_csv(path, COLUMNS[name], data)
        return result

    def finished(self) -> set[str]:
        """run_ids that have a row or wait in the spool to get one."""
        with self.still():  # for both: a merge by another process takes spool files away
            done = {row["run_id"] for row in self.read(["runs.csv"]).get("runs.csv", [])}
            for path in self.spool.glob("*.json"):
                done |= {row["run_id"] for row in self.spooled(path)["runs.csv"]}
        return done

    def chunk_lock(self, chunk: str) -> Lock:
        """Held by the process that computes a chunk; the kernel frees it when that process dies."""
        return Lock(self.spool / f"{chunk}.lock")

    @contextmanager
    def running(self, chunk: str, run_ids: list[str]) -> Iterator[None]:
        """Say, while it lasts, which runs the holder of the chunk's lock computes; after it, which a checkpoint has."""
        path = self.spool / f"{chunk}.running"
        write_atomically(path, json.dumps(run_ids).encode())
        try:
            yield
        finally:
            if not checkpoint_file(self.folder, chunk).exists():
                path.unlink(missing_ok=True)

    def note_failure(self, chunk: str, run_ids: list[str], text: str, launch: str | None = None) -> None:
        """Record the traceback of a chunk that failed, and the launch (the command as typed once) that tried it."""
        content = {"run_ids": run_ids, "traceback": text, "launch": launch}
        write_atomically(self.failures / f"{chunk}.json", json.dumps(content).encode())

    def forget_failure(self, chunk: str) -> None:
        """The chunk is done now."""
        (self.failures / f"{chunk}.json").unlink(missing_ok=True)

    def failed(self) -> dict[str, dict[str, Any]]:
        """Chunks that failed and have not been done since, with run_ids and traceback."""
        return {path.stem: from_json(path, FAILURE) for path in sorted(self.failures.glob("*.json"))}

    def put(self, chunk: str, rows: dict[str, list[Row]]) -> None:
        """Spool the rows of a finished chunk; files that are not named get none."""
        complete = {name: rows.get(name, []) for name in COLUMNS}
        write_atomically(self.spool / f"{chunk}.json", json.dumps(complete).encode())

    def spooled(self, path: Path) -> dict[str, list[Row]]:
        """The rows of one spool file, in text as in the CSVs."""
        found = from_json(path, COLUMNS)
        try:
            texts = {name: to_csv(columns, found[name]) for name, columns in COLUMNS.items()}
        except (AttributeError, TypeError, ValueError):
            raise not_ours(path) from None
        return {name: from_csv(path, COLUMNS[name], text) for name, text in texts.items()}

    def merge(self) -> None:
        """Move all spooled rows into the CSVs; rows that are there already are not doubled."""
        with self.lock:
            spool = sorted(self.spool.glob("*.json"))
            if not spool:
                return
            old = self.read()
            parts = [self.spooled(path) for path in spool]
            new = {}
            for name, columns in COLUMNS.items():
                # A part may be in accuracy.csv already, if a merge was killed before it reached runs.csv.
                key = [c for c in columns if c in ("run_id", "split", "after_task", "task", "kind", "measure")]
                rows = {tuple(r[c] for c in key): r for r in old.get(name, [])}
                for part in parts:
                    for r in part[name]:
                        rows.setdefault(tuple(r[c] for c in key), r)
                new[name] = to_csv(columns, rows.values())
            known = self.provenance()
            known["previous"] = {
                n: sha256((self.folder / n).read_bytes()) for n in COLUMNS if (self.folder / n).exists()
            }
            known["files"] = {name: sha256(data) for name, data in new.items()}
            self.write_provenance(known)
            for name, data in new.items():
                write_atomically(self.folder / name, data)
            left = self.folder.glob(".*.tmp")  # of writers that were killed: who writes here holds this lock
            for path in [*spool, *left]:
                path.unlink(missing_ok=True)

    def unedited(self, names: Collection[str]) -> dict[str, bytes]:
        """Files of a program that keeps no runs here, by name; those that do not exist yet are left out.

        Raises:
            UserError: the folder is a study's, or a file is missing or edited.
        """
        if (self.folder / "runs.csv").exists():
            raise UserError(f"{self.folder}: is the folder of a study; set name= to another")
        known, result = self.provenance(), {}
        for name in names:
            path = self.folder / name
            if not path.exists():
                if name in known["previous"]:  # the first time, the program may have been killed before it wrote it
                    raise UserError(
                        f"{path}: missing, though provenance.json knows it; restore it or move the folder away"
                    )
                continue
            data = read_bytes(path)
            if not as_written(path, data, known):
                raise edited(path, data, known)
            result[name] = data
        return result

    def replace(self, files: Mapping[str, bytes]) -> None:
        """Write such files, under `lock`. Killed at any moment, it leaves files that `unedited` accepts."""
        known = self.provenance()
        names = {*known["files"], *files}
        there = {name: self.folder / name for name in names if (self.folder / name).exists()}
        known["previous"] = {name: sha256(read_bytes(path)) for name, path in there.items()}
        known["files"] = known["files"] | {name: sha256(data) for name, data in files.items()}
        self.write_provenance(known)
        for name, data in files.items():
            write_atomically(self.folder / name, data)

    def tidy(self, chunks: Collection[str]) -> None:
        """Remove what finished chunks leave in the spool: their locks, and the marks of processes that were killed.

        A process that still waits for one of these locks, or makes it anew, finds the chunk finished and writes
        nothing; so nothing is computed twice, or missed, when a lock's file goes.
        """
        names = set(chunks)
        for path in self.spool.iterdir():
            if path.name.lstrip(".").split(".")[0] in names and path.suffix != ".json":
                path.unlink(missing_ok=True)

    def keep(self, file: str, values: dict[str, float]) -> dict[str, float]:
        """Record what was measured to plan a study, but for what another launch has recorded before.

        Args:
            file: of the folder, as `window.known` reads it.
            values: by name.

        Returns:
            `values`, as they are recorded.
        """
        with self.lock:
            before = window.known(self.folder, file)
            if missing := values.keys() - before.keys():
                before |= {name: values[name] for name in missing}
                write_atomically(self.folder / file, (json.dumps(before, indent=1) + "\n").encode())
        return {name: before[name] for name in values}

    def write_provenance(self, known: dict[str, Any]) -> None:
        """Replace provenance.json."""
        write_atomically(self.folder / "provenance.json", (json.dumps(known, indent=1) + "\n").encode())

    def note_invocation(self, invocation: dict[str, Any], data: dict[str, str], configs: dict[str, Any]) -> None:
        """Record that a command adds to this folder, with its resolved configurations."""
        with self.lock:
            known = self.provenance()
            known["data"] |= data
            known["invocations"].append(invocation)
            self.write_provenance(known)
        for config_id, cfg in configs.items():
            text = yaml.safe_dump(cfg, sort_keys=False)
            write_atomically(self.folder / "configs" / f"{config_id}.yaml", text.encode())
