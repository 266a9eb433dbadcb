"""The results store of one study: a folder with three CSVs, their provenance and their configurations.

A row of runs.csv whose run_id matches IS the finished cell. Workers write one spool file per chunk (temporary name,
then rename); whoever holds the folder's lock merges spool files into the CSVs. runs.csv is replaced last and the
spool file is removed after that, so a kill at any moment loses nothing and doubles nothing. provenance.json holds the
checksums of the CSVs before and after a merge: anything else is an edit from outside, and is refused.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

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
    "runs.csv": RUNS,  # last: it decides what is finished
}
Row = dict[str, Any]


def sha256(data: bytes) -> str:
    """Hexadecimal checksum."""
    return hashlib.sha256(data).hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write under a temporary name, flush to the disk, rename: readers see the old file or the new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


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


class Store:
    """The results folder of one study."""

    def __init__(self, folder: Path) -> None:
        """Open or create it, and refuse what another version or another hand has written.

        Args:
            folder: results_dir / name.

        Raises:
            UserError: the folder cannot be written, or its content is not what provenance.json says.
        """
        self.folder = folder
        self.spool = folder / ".spool"
        self.failures = folder / "failed"
        try:
            self.spool.mkdir(parents=True, exist_ok=True)
            (self.spool / ".gitignore").write_text("*\n")
        except OSError as error:
            raise UserError(f"{folder}: results cannot be written here: {error.strerror}") from error
        self.lock = FileLock(self.spool / "store.lock")
        with self.lock:
            self.read()

    def provenance(self) -> dict[str, Any]:
        """What provenance.json says; an empty one where there is none yet."""
        path = self.folder / "provenance.json"
        if not path.exists():
            return {"schema_version": SCHEMA_VERSION, "files": {}, "previous": {}, "data": {}, "invocations": []}
        try:
            found = json.loads(path.read_bytes())
            version = found["schema_version"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}: not readable as provenance; restore it or move the folder away") from None
        if version != SCHEMA_VERSION:
            raise UserError(
                f"{path}: written with schema version {version}, this code has {SCHEMA_VERSION}; "
                "set results_dir= or move the folder away"
            )
        return found

    def read(self) -> dict[str, list[Row]]:
        """All rows, by file name; {} for files that do not exist yet."""
        known = self.provenance()
        result: dict[str, list[Row]] = {}
        for name, columns in COLUMNS.items():
            path = self.folder / name
            if not path.exists():
                merging = name not in known["previous"] and any(self.spool.glob("*.json"))  # the first merge, killed
                if name in known["files"] and not merging:
                    raise UserError(
                        f"{path}: missing, though provenance.json knows it; restore it or move the folder away"
                    )
                continue
            data = path.read_bytes()
            if sha256(data) not in (known["files"].get(name), known["previous"].get(name)):
                raise UserError(
                    f"{path}: not as this program wrote it (its checksum differs from provenance.json): edited or "
                    "truncated? Restore it, or move the folder away"
                )
            result[name] = from_csv(path, columns, data)
        return result

    def finished(self) -> set[str]:
        """run_ids that have a row or wait in the spool to get one."""
        with self.lock:
            done = {row["run_id"] for row in self.read().get("runs.csv", [])}
        for path in self.spool.glob("*.json"):
            done |= {row["run_id"] for row in self.spooled(path)["runs.csv"]}
        return done

    def chunk_lock(self, chunk: str) -> FileLock:
        """Held by the process that computes a chunk; the kernel frees it when that process dies."""
        return FileLock(self.spool / f"{chunk}.lock")

    @contextmanager
    def running(self, chunk: str, run_ids: list[str]) -> Iterator[None]:
        """Say, while it lasts, which runs the holder of the chunk's lock computes."""
        path = self.spool / f"{chunk}.running"
        write_atomically(path, json.dumps(run_ids).encode())
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def note_failure(self, chunk: str, run_ids: list[str], text: str) -> None:
        """Record the traceback of a chunk that failed."""
        self.failures.mkdir(exist_ok=True)
        write_atomically(self.failures / f"{chunk}.json", json.dumps({"run_ids": run_ids, "traceback": text}).encode())

    def forget_failure(self, chunk: str) -> None:
        """The chunk is done now."""
        (self.failures / f"{chunk}.json").unlink(missing_ok=True)

    def failed(self) -> dict[str, dict[str, Any]]:
        """Chunks that failed and have not been done since, with run_ids and traceback."""
        return {path.stem: json.loads(path.read_bytes()) for path in sorted(self.failures.glob("*.json"))}

    def put(self, chunk: str, rows: dict[str, list[Row]]) -> None:
        """Spool the rows of a finished chunk."""
        write_atomically(self.spool / f"{chunk}.json", json.dumps(rows).encode())

    def spooled(self, path: Path) -> dict[str, list[Row]]:
        """The rows of one spool file, in text as in the CSVs."""
        found = json.loads(path.read_bytes())
        return {name: from_csv(path, COLUMNS[name], to_csv(COLUMNS[name], rows)) for name, rows in found.items()}

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
                key = [c for c in columns if c in ("run_id", "split", "after_task", "task")]
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
            for path in spool:
                path.unlink(missing_ok=True)

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
        (self.folder / "configs").mkdir(exist_ok=True)
        for config_id, cfg in configs.items():
            text = yaml.safe_dump(cfg, sort_keys=False)
            write_atomically(self.folder / "configs" / f"{config_id}.yaml", text.encode())
