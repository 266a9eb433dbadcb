"""The published numbers with ours beside them: how often each verdict occurs, and the table of every study."""

from pathlib import Path
from typing import NamedTuple

from cl_repro.analysis.data.study import all_published
from cl_repro.analysis.ledger.files import INTRODUCTION, by_study, counts_table, study_table
from cl_repro.analysis.ledger.rows import NOT_RUN, entries
from cl_repro.analysis.output.markup import Table
from cl_repro.common.errors import Skipping


class Published(NamedTuple):
    """The published numbers of one study."""

    study: str
    table: Table
    made: list[str]  # what made our numbers, or would; code between backticks
    run: bool  # whether a number of ours is there


class Ledger(NamedTuple):
    """All published numbers."""

    counts: Table
    verdicts: list[tuple[str, int]]  # how many published numbers have each
    meanings: list[str]  # of the verdicts
    studies: list[Published]


def ledger(results_dir: Path, skipping: Skipping | None = None) -> Ledger | None:
    """Judge every published number, as `entries` does; None where there are none."""
    if all_published(results_dir).empty:
        return None
    found = entries(results_dir, skipping)
    groups = by_study(found)
    meanings = [" ".join(part.split()) for part in INTRODUCTION.split("\n- ")[1:]]
    counts = counts_table(found, groups)
    verdicts = [*zip(counts.header[2:], map(int, counts.rows[0][2:]), strict=True)]
    studies = [
        Published(name, *study_table(name, rows), run=any(entry.verdict != NOT_RUN for entry in rows))
        for name, rows in groups.items()
    ]
    return Ledger(counts, verdicts, meanings, studies)
