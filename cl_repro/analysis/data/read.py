"""The result files as data frames, checked: what is missing, cut short, edited or of another schema is refused.

Accuracies stay fractions here, as in the files. A file whose hash provenance.json does not know has been edited
since the run wrote it; `previous` holds the hashes from before a write that was interrupted between two files.
"""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cl_repro.analysis.data.settings import PACKAGE
from cl_repro.common.errors import UserError
from cl_repro.records import read_bytes, verified
from cl_repro.records.columns import BOOL, FLOAT, INT, TEXT, Table
from cl_repro.records.files import begun, not_comma_separated
from cl_repro.records.identity import SCHEMA_VERSION
from cl_repro.records.schema import LEDGER, RUNS, STUDY

STATUS = ("ok", "diverged", "failed")


def read_runs(folder: Path) -> pd.DataFrame:
    """runs.csv of a results folder, one row per replica, columns typed as in `records.schema`; NaN where it is empty.

    Raises UserError where it is missing, cut short, edited, of another schema version, or has impossible values.
    """
    provenance = read_provenance(folder)
    path = folder / "runs.csv"
    runs = read_table(path, RUNS, provenance)
    twice = runs["run_id"][runs["run_id"].duplicated()]
    if len(twice):
        raise UserError(f"{path}: run_id {twice.iloc[0]} occurs twice: the file has been edited")
    _refuse(path, runs, ~runs["status"].isin(STATUS), "status", f"one of {', '.join(STATUS)}")
    inside = runs["accuracy"].between(0, 1) | runs["accuracy"].isna()
    _refuse(path, runs, ~inside, "accuracy", "a fraction in [0, 1]")
    hollow = (runs["status"] == "ok") & runs["accuracy"].isna()
    _refuse(path, runs, hollow, "accuracy", "present where status is ok")
    return runs


def read_accuracy(folder: Path) -> pd.DataFrame:
    """accuracy.csv: one row per (run_id, split, after_task, task). Raises UserError like `read_runs`."""
    return read_table(folder / "accuracy.csv", STUDY["accuracy.csv"], read_provenance(folder))


def read_further(folder: Path, file: str) -> pd.DataFrame:
    """importance.csv, storage.csv or representation.csv of a results folder. Raises UserError like `read_runs`.

    No rows if there is no such file and provenance.json lists none: no run had such, or they are older than the file.
    """
    return read_optional(folder / file, STUDY[file])


class Measured(NamedTuple):
    """One folder of a measurement beside a study."""

    folder: Path
    tables: dict[str, pd.DataFrame]  # by the names of their files, without .csv
    provenance: dict[str, Any]


def read_measured(folder: Path, files: Mapping[str, Table]) -> Measured:
    """All of these files of a folder. Raises UserError like `read_runs`."""
    known = read_provenance(folder)
    tables = {Path(file).stem: read_table(folder / file, columns, known) for file, columns in files.items()}
    return Measured(folder, tables, known)


def read_optional(path: Path, columns: Table) -> pd.DataFrame:
    """As `read_table`; no rows if there is no such file and provenance.json lists none."""
    provenance = read_provenance(path.parent)
    if not begun(path, provenance) and path.name not in provenance.get("files", {}):
        return pd.DataFrame({name: pd.Series(dtype=object) for name in columns})
    return read_table(path, columns, provenance)


def read_published(results_dir: Path, file: str, columns: Table) -> pd.DataFrame:
    """Published numbers, from published/ in the results folder, else beside the package; no rows if there are none."""
    paths = [root / "published" / file for root in (results_dir, PACKAGE.parent / "results")]
    found = [path for path in paths if path.is_file()]
    return read_table(found[0], columns) if found else pd.DataFrame(columns=list(columns))


def read_ledger(path: Path) -> pd.DataFrame:
    """ledger.csv as text, one row per published number. Raises UserError where there is none, or it is damaged."""
    if not path.is_file():
        raise UserError(f"no ledger at {path}: write it with `make ledger` first")
    return read_table(path, LEDGER)


def read_provenance(folder: Path) -> dict:
    """provenance.json of a results folder; empty if there is none. Raises UserError if it is cut short."""
    path = folder / "provenance.json"
    if not path.exists():
        return {}
    try:
        provenance = json.loads(path.read_text(encoding="utf-8"))
        version, _ = provenance["schema_version"], dict(provenance["files"])
        _ = [(one["command"], list(one["config_ids"])) for one in provenance.get("invocations", [])]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(f"{path}: unreadable or cut short ({type(error).__name__}: {error})") from error
    _refuse_version(path, pd.Series([version]))
    return provenance


def read_table(path: Path, columns: Table, provenance: Mapping[str, Any] = MappingProxyType({})) -> pd.DataFrame:
    """A CSV with these columns, typed; refused if it is not as `provenance` knows it. Empty: there is no checksum."""
    if not begun(path, provenance):
        raise UserError(f"no {path.name} in {path.parent}: run the study first, or name another folder")
    content = verified(path, provenance, lambda: read_provenance(path.parent)) if provenance else read_bytes(path)
    text = rows_of(path, content)
    if "schema_version" in text:
        _refuse_version(path, text["schema_version"])
    missing = [name for name in columns if name not in text]
    if missing:
        raise UserError(f"{path}: column {missing[0]!r} is missing (columns: {', '.join(columns)})")
    return pd.DataFrame({name: _typed(path, text[name], column.type) for name, column in columns.items()})


def rows_of(path: Path, content: bytes) -> pd.DataFrame:
    """A CSV as strings. Raises UserError where a row has not as many fields as the header."""
    if reason := not_comma_separated(content):
        raise UserError(f"{path}: {reason}")
    try:
        rows = csv.reader(io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline=""), strict=True)
        n = len(next(rows))
        for line, row in enumerate(rows, start=2):
            if len(row) != n:
                raise UserError(f"{path}: line {line} has {len(row)} fields, not {n}: cut short or edited")
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a readable CSV file ({error})") from error
    # pandas alone would fill up a row that is too short.
    return pd.read_csv(io.BytesIO(content), dtype=str, na_filter=False, skip_blank_lines=False, index_col=False)


def _typed(path: Path, text: pd.Series, kind: str) -> pd.Series:
    """A column of strings as its type; empty numbers become NaN, and an integer column must have none."""
    if kind == TEXT:
        return text
    if kind == BOOL:
        value = text.str.lower().map({"true": True, "false": False})
        bad = value.isna()
    else:
        codes, different = pd.factorize(text)  # few are
        value = pd.Series(pd.to_numeric(different, errors="coerce")[codes], text.index)
        bad = value.isna()
        if kind == FLOAT:
            bad[bad] = ~text[bad].str.strip().str.lower().isin(["", "nan"])
        else:
            bad |= value % 1 != 0
    if bad.any():
        line = int(bad.to_numpy().argmax())
        raise UserError(f"{path}: line {line + 2}: {text.name} = {text.iloc[line]!r} is not a {kind}")
    return value.astype({BOOL: bool, INT: np.int64, FLOAT: float}[kind])


def _refuse(path: Path, frame: pd.DataFrame, bad: pd.Series, column: str, rule: str) -> None:
    if bad.any():
        line = int(bad.to_numpy().argmax())
        value = frame[column].iloc[line]
        raise UserError(f"{path}: line {line + 2}: {column} = {value} must be {rule}")


def _refuse_version(path: Path, versions: pd.Series) -> None:
    other = versions[versions.astype(str) != str(SCHEMA_VERSION)]
    if len(other):
        raise UserError(f"{path}: schema_version {other.iloc[0]}, but this code reads schema_version {SCHEMA_VERSION}")
