"""The results store of a study, or of a measurement beside one: CSVs that grow, and rows that wait to be added to them.

Rows that are named alike are of one cell; a study names its runs by run_id. A row of the last table IS the finished
cell. Workers write one spool file per chunk (temporary name,
then rename); whoever holds the folder's lock appends spooled rows to the CSVs: provenance.json first says the sizes
before and the checksums after (`appending`), then the rows are written, then provenance.json says that they count, and
the spool files go. Until it says so, what is behind the sizes is nothing, and is written again: a kill at any moment
loses nothing and doubles nothing. Whatever else differs from the checksums is an edit from outside, and is refused.

A merge costs what its rows cost, whatever is there already: the store knows how far it has read, and its checksums go
on from there. Reading takes no lock, so that a folder may be read-only, and its writer stopped.
"""

import json
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from filelock import Timeout

from cl_repro.common.errors import UserError, told
from cl_repro.records.chunks import ASIDE, FIRST_TASK, Chunks, checkpoint_file
from cl_repro.records.columns import Table
from cl_repro.records.csvs import Row, cell_of, chunk_as_text, from_csv, names_of, to_csv
from cl_repro.records.files import (
    UNVERIFIED,
    Lock,
    append,
    checksums,
    edited,
    read_bytes,
    verifiable,
    verified,
    write_atomically,
)
from cl_repro.records.folder import missing
from cl_repro.records.schema import STUDY
from cl_repro.records.seen import Seen

OWN = ("store.lock", "report.lock")  # locks that stay
TEMPORARY = (".*.tmp", "configs/.*.tmp", ".spool/.stacks.*.tmp")  # of writers under the store's lock that were killed
UNUSED = 24 * 3600.0  # seconds after which a shared first task is nobody's
MERGE_EVERY = 100  # times as long as a merge takes


class Run(NamedTuple):
    """What is remembered of a row of the last table, where that says it."""

    status: str
    finished: str  # UTC


class Store(Chunks):
    """The results folder of one study, or of one measurement beside it."""

    def __init__(self, folder: Path, tables: Mapping[str, Table] = STUDY, key: tuple[str, ...] = ("run_id",)) -> None:
        """Open it, and refuse what another version or another hand has written. Nothing is made yet: see `create`.

        Args:
            folder: results_dir / name; it need not exist.
            tables: its CSVs; a row of the last one is a finished cell.
            key: columns that name a row's cell, none where the folder is of one cell alone. A table may lack the last
                of them: its rows are of all cells that the first ones name.

        Raises:
            UserError: it is no folder, or its content is not what provenance.json says.
        """
        super().__init__(folder)
        self.tables, self.key, self.last = tables, key, [*tables][-1]
        self.seen = {name: Seen() for name in tables}
        self.runs: dict[str, Run] = {}  # those of the last table, by run_id
        self.waiting: dict[str, set[str]] = {}  # run_ids by name of their spool file
        self.due = 0.0  # `time.monotonic`: when `merge_in_time` merges next
        for name in self.look()["files"].keys() - tables.keys():
            if name.endswith(".csv"):
                whose = "a study" if (folder / "runs.csv").exists() else "another program"
                raise UserError(f"{folder}: is the folder of {whose}; set name= to another")
            self.unedited([name])

    # --- reading ------------------------------------------------------------------------------------------------------

    def look(self) -> dict[str, Any]:
        """Take in what the tables hold by now; what has been read before is not read again.

        Returns:
            What provenance.json says.
        """
        known = self.provenance()
        while True:
            try:
                seen = {name: self.grown(name, known) for name in self.tables}
                break
            except UserError:
                if (newer := self.provenance()) == known:
                    raise
                known = newer  # another process has merged since
        self.remember(self.seen[self.last], seen[self.last])
        self.seen = seen
        return known

    def grown(self, name: str, known: dict[str, Any]) -> Seen:
        """A table as far as it counts, on from where it was seen last."""
        path, counts = self.folder / name, known.get("appending", {}).get(name)
        if counts == 0:
            return Seen()  # just being made
        if not path.exists():
            first = name not in known["previous"] and any(self.spool.glob("*.json"))  # an earlier version's, killed
            if name in known["files"] and not first:
                raise missing(path)
            return Seen()
        if not verifiable(self.folder):
            raise UserError(f"{self.folder}: {UNVERIFIED}; restore it, or move the folder away")
        with told(path, "cannot be read"):
            size = path.stat().st_size if counts is None else counts
            for start in (self.seen[name], Seen()):
                now = start.up_to(path, size)
                if now.size == size and now.checksum.hexdigest() in checksums(path, known):
                    self.seen[name] = start  # nothing, if the file is another than it was
                    return now
        raise edited(path, read_bytes(path), known)

    def remember(self, before: Seen, now: Seen) -> None:
        """Take in the runs of a part of the last table."""
        if not before.size:
            self.runs = {}
        if now.size <= before.size:
            return
        with open(self.folder / self.last, "rb") as file:
            file.seek(before.size)
            data = file.read(now.size - before.size)
        of_part = from_csv(self.folder / self.last, self.tables[self.last], data, header=not before.size)
        self.runs |= self.runs_of(of_part)

    def runs_of(self, rows: Iterable[Row]) -> dict[str, Run]:
        """What is remembered of rows of the last table."""
        return {cell_of(self.key, row): Run(row.get("status", ""), row.get("finished", "")) for row in rows}

    def read(self, names: Collection[str] = ()) -> dict[str, list[Row]]:
        """All rows of these files (by default of all), by file name; {} for files that do not exist yet."""
        known = self.look()
        return {
            name: list(from_csv(path, self.tables[name], verified(path, known, self.provenance)))
            for name in names or self.tables
            if self.seen[name].size
            for path in [self.folder / name]
        }

    def refresh(self) -> None:
        """Take in which runs have a row, or wait in the spool to get one."""
        # The spool first: what a merge by another process takes away from it is in the tables afterwards.
        now = {}
        for path in self.spool.glob("*.json"):
            with suppress(FileNotFoundError, ValueError):  # merged meanwhile; not ours: `merge` says so
                now[path.name] = self.waiting.get(path.name) or set(self.runs_of(self.spooled(path)[self.last]))
        self.waiting = now
        self.look()

    def missing(self, run_ids: Iterable[str]) -> set[str]:
        """Those that neither have a row nor wait in the spool to get one."""
        self.refresh()
        waiting = set().union(*self.waiting.values())
        return {run_id for run_id in run_ids if run_id not in self.runs and run_id not in waiting}

    def finished(self) -> set[str]:
        """run_ids that have a row or wait in the spool to get one."""
        self.refresh()
        return set(self.runs).union(*self.waiting.values())

    # --- chunks -------------------------------------------------------------------------------------------------------

    def forget_failures(self) -> None:
        """Those of chunks that are done now, by whatever chunk their runs were."""
        for chunk, failure in self.failed().items():
            if not self.missing(failure["run_ids"]):
                (self.failures / f"{chunk}.json").unlink(missing_ok=True)

    def put(self, chunk: str, rows: dict[str, list[Row]]) -> None:
        """Spool the rows of a finished chunk; files that are not named get none."""
        complete = chunk_as_text(self.tables, self.key, {name: rows.get(name, []) for name in self.tables})
        write_atomically(self.spool / f"{chunk}.json", json.dumps(complete).encode())

    def spooled(self, path: Path) -> dict[str, list[Row]]:
        """The rows of one spool file.

        Raises:
            FileNotFoundError: it has been merged.
            ValueError: it is not as `put` writes it.
        """
        try:
            return chunk_as_text(self.tables, self.key, json.loads(path.read_bytes()))
        except (AttributeError, TypeError) as error:
            raise ValueError(f"is not the rows of a chunk ({error})") from None

    # --- merging ------------------------------------------------------------------------------------------------------

    def merge(self) -> None:
        """Append all spooled rows to the CSVs; rows of runs that are there already are not doubled.

        A spool file that is not as `put` writes it is named, set aside, and its runs are computed again.
        """
        with self.lock:
            spool = sorted(self.spool.glob("*.json"))
            known = self.look()
            if not spool and "appending" not in known:
                return
            now = self.seen[self.last].checksum.hexdigest()
            if "appending" not in known and known["files"].get(self.last, now) != now:
                self.mend()
                known = self.look()
            new, added = {name: list[Row]() for name in self.tables}, set[str]()
            for path in spool:
                try:
                    part = self.spooled(path)
                except ValueError as error:
                    aside = path.with_suffix(ASIDE)
                    path.replace(aside)
                    sys.stderr.write(f"{path}: {error}; set aside as {aside.name}, and its runs are computed again\n")
                    continue
                fresh = self.runs_of(part[self.last]).keys() - self.runs.keys() - added
                of_fresh = names_of(fresh)
                for name, rows in part.items():
                    new[name] += [row for row in rows if cell_of(self.key, row) in of_fresh]
                added |= fresh
            self.append(new, known)
            left = (path for place in TEMPORARY for path in self.folder.glob(place))
            for path in (*spool, *left):
                path.unlink(missing_ok=True)

    def merge_in_time(self) -> None:
        """`merge`, but so seldom that, whatever the disk, it takes a hundredth of the time; the spool loses nothing."""
        if (began := time.monotonic()) >= self.due:
            self.merge()
            now = time.monotonic()
            self.due = now + (MERGE_EVERY - 1) * (now - began)

    def append(self, new: dict[str, list[Row]], known: dict[str, Any]) -> None:
        """Append rows, under `lock`, to tables that are as `known` says."""
        texts = {name: to_csv(self.tables[name], rows, header=not self.seen[name].size) for name, rows in new.items()}
        after = {name: self.seen[name].further(text) for name, text in texts.items()}
        known["previous"] = {name: seen.checksum.hexdigest() for name, seen in self.seen.items() if seen.size}
        known["files"] |= {name: seen.checksum.hexdigest() for name, seen in after.items()}
        known["appending"] = {name: seen.size for name, seen in self.seen.items()}
        self.write_provenance(known)
        for name, text in texts.items():
            append(self.folder / name, self.seen[name].size, text)
        del known["appending"]
        known["previous"] = {}
        self.write_provenance(known)
        self.seen = after
        self.runs |= self.runs_of(new[self.last])

    def mend(self) -> None:
        """After a merge of an earlier version that was killed between two tables, under `lock`.

        The tables that are ahead of the last one lose what it lacks; the spool still has it, or it is computed again.
        """
        rows = self.read()
        there = names_of(self.runs)
        kept = {name: [row for row in rows.get(name, []) if cell_of(self.key, row) in there] for name in self.tables}
        self.replace({name: to_csv(self.tables[name], of_file) for name, of_file in kept.items()})

    def tidy(self) -> None:
        """Remove what a complete study has left in the spool: locks, marks and temporary files of killed processes.

        A process that still waits for one of these locks, or makes it anew, finds its chunk finished and writes
        nothing; so nothing is computed twice, or missed, when a lock's file goes. Of a chunk that was stopped
        everything stays, unless its runs have been done as parts of others. A first task may be that of other studies
        and launches, too: it goes when nobody has used it for a day.
        """
        for path in self.spool.glob(f"*{FIRST_TASK}"):
            with suppress(Timeout, FileNotFoundError), Lock(path.with_suffix(".lock")).acquire(timeout=0):
                if time.time() - path.stat().st_mtime > UNUSED:
                    path.unlink()
        for path in self.spool.glob("*.lock"):
            if path.name not in OWN and not self.stopped(path.stem):
                with suppress(Timeout), Lock(path).acquire(timeout=0):
                    self.forget(path.stem)

    def stopped(self, chunk: str) -> bool:
        """Whether a chunk has a checkpoint from which it can go on."""
        if not checkpoint_file(self.folder, chunk).exists():
            return False
        try:
            return bool(self.missing(json.loads((self.spool / f"{chunk}.running").read_bytes())))
        except (FileNotFoundError, ValueError):  # the machine crashed
            return True
