"""Rows as a table for the terminal, and as CSV files that say where they come from."""

from pathlib import Path

import torch

from benches.measure import AT_LEAST, Row, Setting, verdict
from cl_repro.analysis.output.markup import Table, plain
from cl_repro.common import runtime
from cl_repro.records import to_csv, write_atomically
from cl_repro.records.schema import BENCH
from cl_repro.study import provenance

SI = ((1.0, ""), (1e-3, "m"), (1e-6, "u"))


def table(title: str, rows: list[Row]) -> str:
    """The rows, aligned, with their notes below."""
    header = ("what", "ours", "the other", "result", "target", "verdict")
    lines, notes = [], []
    for row in rows:
        if row.note and row.note not in notes:
            notes.append(row.note)
        mark = f" [{notes.index(row.note) + 1}]" if row.note else ""
        lines.append((row.name + mark, *figures(row), verdict(row)))
    return plain(Table("bench", title, header, tuple(lines), tuple(f"[{i}] {note}" for i, note in enumerate(notes, 1))))


def figures(row: Row) -> tuple[str, str, str, str]:
    """Ours, the other, the result and its target, with their units."""
    sign = ">=" if row.better == AT_LEAST else "<="
    target = "-" if row.target is None else f"{sign} {row.target:g} {row.value_unit}"
    return quantity(row.ours, row.unit), quantity(row.other, row.unit), quantity(row.value, row.value_unit), target


def quantity(value: float | None, unit: str) -> str:
    """Three digits and a unit; seconds as s, ms or us."""
    if value is None:
        return "-"
    if unit == "s":
        scale, prefix = next(((s, p) for s, p in SI if abs(value) >= s), SI[-1])
        value, unit = value / scale, f"{prefix}s"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.0f} {unit}" if float(value).is_integer() and unit == "replicas" else f"{value:.{digits}f} {unit}"


def write(group: str, rows: list[Row], setting: Setting, out: Path) -> Path | None:
    """Write `<out>/<group>.csv`.

    Args:
        group: name of the file.
        rows: of the group.
        setting: how they were measured.
        out: folder, made if missing.

    Returns:
        The path; None if nothing could be measured here, which leaves an earlier file alone.
    """
    path = out / f"{group}.csv"
    if path.exists() and all(row.value is None for row in rows):
        return None
    source = provenance.source()
    common = {
        "rounds": setting.rounds,
        "git_sha": source.git_sha,
        "dirty": source.dirty,
        "hardware": runtime.hardware(setting.device if group.startswith("cuda") else "cpu"),
        "torch": torch.__version__,
        "date": provenance.now(),
    }
    lines = []
    for row in rows:
        cells = {key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row._asdict().items()}
        lines.append({**cells, "verdict": verdict(row), **common})
    write_atomically(path, to_csv(BENCH, lines))
    return path
