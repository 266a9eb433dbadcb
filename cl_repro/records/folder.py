"""A results folder: CSVs, configurations, and provenance.json, with what made them and their checksums."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from cl_repro.common.errors import UserError, told
from cl_repro.records.files import Lock, check_place, read_bytes, sha256, verified, write_atomically
from cl_repro.records.identity import SCHEMA_VERSION

PROVENANCE = {"files": dict, "previous": dict, "data": dict, "invocations": list}


def kept(folder: Path, file: str) -> dict[str, float]:
    """What was measured to plan a study, as `Folder.keep` recorded it in a file of its folder; {} if nothing was.

    Raises:
        UserError: if the file is not one of ours.
    """
    path = folder / file
    try:
        found = json.loads(path.read_bytes())
        return {str(name): float(value) for name, value in found.items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, AttributeError, TypeError):
        raise UserError(
            f"{path}: not readable as measurements; delete it, and the next launch measures them again"
        ) from None


class Folder:
    """Files of results and what made them; `Store` adds tables that grow."""

    def __init__(self, folder: Path) -> None:
        """Nothing is made yet: see `create`.

        Args:
            folder: results_dir / name; it need not exist.

        Raises:
            UserError: it is no folder.
        """
        self.folder = folder
        self.spool = folder / ".spool"
        self.lock = Lock(self.spool / "store.lock")
        check_place(folder)

    def create(self) -> None:
        """Make the folder; refuse, before anything is computed for it, one that cannot be written."""
        with told(self.folder, "results cannot be written here"):
            self.spool.mkdir(parents=True, exist_ok=True)
            if not (self.spool / ".gitignore").exists():  # a full disk would empty it
                (self.spool / ".gitignore").write_text("*\n")

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

    def keep(self, file: str, values: Mapping[str, float]) -> dict[str, float]:
        """Record what was measured to plan a study, but for what another launch has recorded before.

        Args:
            file: of the folder, as `kept` reads it.
            values: by name.

        Returns:
            `values`, as they are recorded.
        """
        with self.lock:
            before = kept(self.folder, file)
            if missing := values.keys() - before.keys():
                before |= {name: values[name] for name in missing}
                write_atomically(self.folder / file, (json.dumps(before, indent=1) + "\n").encode())
        return {name: before[name] for name in values}

    def unedited(self, names: Collection[str]) -> dict[str, bytes]:
        """Files by name; those that do not exist yet are left out.

        Raises:
            UserError: a file is missing or edited.
        """
        known, result = self.provenance(), {}
        for name in names:
            path = self.folder / name
            if path.exists():
                result[name] = verified(path, known, self.provenance)
            elif name in known["previous"]:  # the first time, the program may have been killed before it wrote it
                raise missing(path)
        return result

    def replace(self, files: Mapping[str, bytes]) -> None:
        """Write files, under `lock`. Killed at any moment, it leaves files that `unedited` accepts."""
        known = self.provenance()
        names = {*known["files"], *files}
        there = {name: self.folder / name for name in names if (self.folder / name).exists()}
        known["previous"] = {name: sha256(read_bytes(path)) for name, path in there.items()}
        known["files"] = known["files"] | {name: sha256(data) for name, data in files.items()}
        self.write_provenance(known)
        for name, data in files.items():
            write_atomically(self.folder / name, data)


def missing(path: Path) -> UserError:
    """The error for a file that was written and is not there any more."""
    return UserError(f"{path}: missing, though provenance.json knows it; restore it or move the folder away")
