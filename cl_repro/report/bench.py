"""The section of `make bench`: ratios beside their targets."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cl_repro.analysis.data.read import read_table
from cl_repro.analysis.data.study import commits
from cl_repro.analysis.lambdas.accuracy import NOTHING
from cl_repro.analysis.output.markup import Table
from cl_repro.records.schema import BENCH as COLUMNS
from cl_repro.report.section import BENCH, Place, Section


def section(place: Place, paths: Sequence[Path]) -> Section:
    """What `make bench` measured, from its CSVs."""
    rows = pd.concat([read_table(path, COLUMNS).assign(memory=path.stem == "memory") for path in paths])
    titles = {False: "Speed", True: "Memory of all tensors a run holds"}
    where = "; ".join(sorted(rows["hardware"].unique()))
    origins = f"Measured at commit {commits(rows)}, torch {', '.join(sorted(rows['torch'].unique()))}, {where}."
    return Section(
        name=BENCH,
        title="What make bench measures",
        kind=BENCH,
        benchmark="",
        sentence="Ratios within one process, medians of interleaved rounds, beside their targets.",
        tables=[_measured(titles[memory], own) for memory, own in rows.groupby("memory")],
        facts=[("Origin", origins), ("Command", "`make bench`")],
        commits=commits(rows),
        links=place.links(paths),
    )


def _measured(title: str, table: pd.DataFrame) -> Table:
    """Rows of `make bench` beside their targets."""
    notes = list(dict.fromkeys(note for note in table["note"] if note))
    body = []
    for row in table.to_dict("records"):
        mark = f" [{notes.index(row['note']) + 1}]" if row["note"] else ""
        sign = "≥" if row["better"] == "at least" else "≤"
        result, target = (_quantity(row[key], row["value_unit"]) for key in ("value", "target"))
        body.append((row["name"] + mark, result, target if target == NOTHING else f"{sign} {target}", row["verdict"]))
    marked = tuple(f"[{i}] {note}" for i, note in enumerate(notes, 1))
    return Table(BENCH, title, ("What", "result", "target", "verdict"), tuple(body), marked)


def _quantity(value: float, unit: str) -> str:
    return NOTHING if pd.isna(value) else f"{value:.3g} {unit}"
