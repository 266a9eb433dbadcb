"""The published numbers with ours beside them: how often each verdict occurs, and the table of every study."""

from pathlib import Path
from typing import NamedTuple

from cl_repro.analysis.accuracy import verdict_note
from cl_repro.analysis.ledger import NOT_RUN, Entry, entries
from cl_repro.analysis.ledger_files import INTRODUCTION, _cells, _counts, _made, _place
from cl_repro.analysis.markup import MINUS, Table
from cl_repro.analysis.settings import load
from cl_repro.analysis.study import all_published
from cl_repro.stats import AGREES, DIFFERS, TOO_FEW


class Published(NamedTuple):
    """The published numbers of one study."""

    study: str
    table: Table
    made: tuple[str, ...]  # what made our numbers, or would; code between backticks
    run: bool  # whether a number of ours is there


class Ledger(NamedTuple):
    """All published numbers."""

    counts: Table
    meanings: tuple[str, ...]  # of the verdicts
    studies: tuple[Published, ...]


def ledger(results_dir: Path) -> Ledger | None:
    """Judge every published number.

    Args:
        results_dir: the folder of all results.

    Returns:
        The ledger; None where there are no published numbers.

    Raises:
        UserError: a results folder is damaged.
    """
    if all_published(results_dir).empty:
        return None
    found = entries(results_dir)
    groups: dict[str, list[Entry]] = {}
    for entry in found:
        groups.setdefault(entry.row["study"], []).append(entry)
    meanings = (" ".join(part.split()) for part in INTRODUCTION.split("\n- ")[1:])
    return Ledger(
        _counts(found, groups), tuple(meanings), tuple(_of_study(name, rows) for name, rows in groups.items())
    )


def _of_study(study: str, rows: list[Entry]) -> Published:
    """As the section of a study in LEDGER.md."""
    made = list(dict.fromkeys(entry.made for entry in rows if entry.made.command))
    places = [_place(entry) for entry in rows]
    shared = [name for name in places[0] if all(name in place for place in places)]
    header = ("number", "source", "published", "ours", "at λ", f"ours {MINUS} published", "verdict", "made by")
    details = dict.fromkeys(entry.row["note"] for entry in rows if entry.row["note"] not in ("", *_place(entry)))
    notes = [f"Published: {'; '.join(details)}."] if details else []
    notes += [verdict_note(load(study))] if any(entry.verdict in (AGREES, DIFFERS, TOO_FEW) for entry in rows) else []
    table = Table(
        study,
        ": ".join([study, *([", ".join(shared)] if shared else [])]),
        header,
        tuple(_cells(entry, made, shared) for entry in rows),
        tuple(notes),
    )
    run = any(entry.verdict != NOT_RUN for entry in rows)
    return Published(study, table, tuple(f"{i}. {_made(one)}" for i, one in enumerate(made, 1)), run)
