"""The ledger as files: results/LEDGER.md to read, results/ledger.csv to compare with."""

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

from cl_repro.analysis.data.arms import label
from cl_repro.analysis.data.read import read_ledger
from cl_repro.analysis.data.settings import load
from cl_repro.analysis.data.study import benchmark_name
from cl_repro.analysis.kinds import folders
from cl_repro.analysis.lambdas.accuracy import (
    NOTHING,
    OTHER_PROTOCOL,
    estimate_text,
    interval_text,
    lambda_text,
    verdict_note,
)
from cl_repro.analysis.ledger.rows import NO_VERDICT, NOT_RUN, NOT_UNIQUE, SHOWN, TIME, VERDICTS, Entry, Made, entries
from cl_repro.analysis.output.markup import MINUS, TIMES, Table, markdown
from cl_repro.common.stats import AGREES, DIFFERS, TOO_FEW
from cl_repro.records import to_csv, verifiable, write_atomically
from cl_repro.records.files import UNVERIFIED
from cl_repro.records.schema import IDENTITY, LEDGER

ENOUGH = re.compile(r"(?:n = |an interval needs at least )(\d+)")  # how many seeds of ours a remark asks for

INTRODUCTION = f"""\
# Ledger

Every row of `results/published/published.csv` with our number beside it, from the CSVs under `results/` alone.
`make ledger` writes this file and `ledger.csv`; `make check` fails if a row that agrees here does not any more.

- {AGREES}, {DIFFERS}, {TOO_FEW}: by the interval of the difference, as below each table
- {SHOWN}: training times are of other hardware, so their ratios to None stand side by side without an interval; ours
  with the Fisher one example at a time, as in the reference code
- {OTHER_PROTOCOL}: the published number was made in another way than ours, so the difference decides nothing
- {NOT_UNIQUE}, {NO_VERDICT}: several numbers fit the row, or a setting is missing; the row says so
- {NOT_RUN}: there is no result of ours
"""


def write_ledger(results_dir: Path) -> list[Path]:
    """Write LEDGER.md and ledger.csv into the folder of results; returns the paths. Raises UserError as `entries`."""
    found = entries(results_dir)
    files = {"LEDGER.md": _document(found).encode(), "ledger.csv": to_csv(LEDGER, map(_record, found))}
    for name, data in files.items():
        write_atomically(results_dir / name, data)
    return [results_dir / name for name in files]


def regressions(results_dir: Path) -> list[str]:
    """What `make check` fails for: rows that agreed in results/ledger.csv and do not now, folders without checksums.

    A line for each; nothing is written.

    Raises:
        UserError: there is no ledger yet, or it is damaged; as `entries`.
    """
    before = _verdicts(read_ledger(results_dir / "ledger.csv").to_dict("records"))
    now = _verdicts([_record(entry) for entry in entries(results_dir)])
    lost = "no longer a published row"
    ours = [results_dir / name for name in folders(results_dir)]
    unverified = [f"{folder}: {UNVERIFIED}" for folder in ours if not verifiable(folder)]
    return unverified + [
        f"{', '.join(part for part in identity[:-1] if part)}: {AGREES} in the ledger, now {now.get(identity, lost)}"
        for identity, verdict in before.items()
        if verdict == AGREES and now.get(identity) != AGREES
    ]


def _verdicts(records: list[dict[str, Any]]) -> dict[tuple[str, ...], str]:
    """Verdict by identity, the last part of which counts the rows that share the others."""
    found: dict[tuple[str, ...], str] = {}
    seen: Counter = Counter()
    for record in records:
        identity = tuple(record[column] for column in IDENTITY)
        seen[identity] += 1
        found[*identity, str(seen[identity])] = record["verdict"]
    return found


def _record(entry: Entry) -> dict[str, str]:
    """A row of ledger.csv: numbers to six digits, empty where there is none."""
    row, ours, timed = entry.row, entry.ours, entry.row["metric"] == TIME
    numbers = {
        "published": row["value"],
        "published_spread": row["spread"],
        "published_n": row["n_seeds"],
        "published_ratio": entry.theirs.mean if timed else math.nan,
        "ours": ours.mean if ours else math.nan,
        "ours_sem": ours.sem if ours else math.nan,
        "ours_n": ours.n if ours else math.nan,
        "ours_lambda": entry.lam,
        "difference": entry.difference.centre,
        "low": entry.difference.low,
        "high": entry.difference.high,
    }
    return {
        **row[list(IDENTITY)],
        "batch_size": _number(row["batch_size"]),
        **row[["note", "unit", "spread_kind"]],
        **{name: _number(value) for name, value in numbers.items()},
        "verdict": entry.verdict,
        "remark": entry.remark,
        **entry.made._asdict(),
    }


def _number(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def _document(found: list[Entry]) -> str:
    groups = by_study(found)
    parts = [INTRODUCTION, markdown(counts_table(found, groups))]
    return "\n".join(parts + [_section(study, rows) for study, rows in groups.items()])


def by_study(found: list[Entry]) -> dict[str, list[Entry]]:
    """The rows of each study."""
    groups: dict[str, list[Entry]] = {}
    for entry in found:
        groups.setdefault(entry.row["study"], []).append(entry)
    return groups


def counts_table(found: list[Entry], groups: dict[str, list[Entry]]) -> Table:
    """How often each verdict occurs, in all and per study."""
    counts = {study: Counter(entry.verdict for entry in rows) for study, rows in {"all": found, **groups}.items()}
    there = [verdict for verdict in VERDICTS if counts["all"][verdict]]
    body = [(study, str(n.total()), *(str(n[verdict]) for verdict in there)) for study, n in counts.items()]
    return Table("counts", "Verdicts", ("study", "rows", *there), tuple(body), (summary_line(found),))


def summary_line(found: list[Entry]) -> str:
    """How many rows have each verdict, and what would decide the rest: seeds, or minutes of a device."""
    counts = Counter(entry.verdict for entry in found)
    line = f"{len(found)} published numbers: {', '.join(f'{v} {counts[v]}' for v in VERDICTS if counts[v])}."
    if counts[TOO_FEW]:
        line += f" {TOO_FEW.capitalize()}: {', '.join(_seeds([one for one in found if one.verdict == TOO_FEW]))}."
    if counts[NOT_RUN]:
        line += f" {NOT_RUN.capitalize()}: {', '.join(_minutes([one for one in found if one.verdict == NOT_RUN]))}."
    return line


def _seeds(rows: list[Entry]) -> list[str]:
    """How many rows how many more seeds would decide, and how many none would."""
    needed = [(ENOUGH.match(entry.remark), entry.ours) for entry in rows]
    more = sorted(int(match[1]) - ours.n for match, ours in needed if match and ours)
    never = len(rows) - len(more)
    found = [f"{len(more)} for {more[0]} to {more[-1]} more seeds if the differences stay"] if more else []
    return found + ([f"{never} that no number of ours decides"] if never else [])


def _minutes(rows: list[Entry]) -> list[str]:
    """How many rows how many minutes of each device would make, all their studies together."""
    cost = {entry.would: load(entry.would).estimated_minutes if entry.would else {} for entry in rows}
    devices = dict.fromkeys(device for of in cost.values() for device in of)
    found = []
    for device in devices:
        n = sum(device in cost[entry.would] for entry in rows)
        minutes = sum(of.get(device, 0) for of in cost.values())
        found.append(f"{n} for about {minutes:,.0f} minutes of {device} (estimated)")
    unknown = sum(not cost[entry.would] for entry in rows)
    return found + ([f"{unknown} for which there is no estimate"] if unknown else [])


def _section(study: str, rows: list[Entry]) -> str:
    """The table of one study, and what made its numbers."""
    table, made = study_table(study, rows)
    return markdown(table) + ("\n" if made else "") + "".join(f"{one}\n" for one in made)


def study_table(study: str, rows: list[Entry]) -> tuple[Table, list[str]]:
    """The table of one study; and what made its numbers, or would, numbered as in its last column (Markdown)."""
    made = list(dict.fromkeys(entry.made for entry in rows if entry.made.command))
    places = [_place(entry) for entry in rows]
    shared = [name for name in places[0] if all(name in place for place in places)]
    body = tuple(_cells(entry, made, shared) for entry in rows)
    header = ("number", "source", "published", "ours", "at λ", f"ours {MINUS} published", "verdict", "made by")
    details = dict.fromkeys(entry.row["note"] for entry in rows if entry.row["note"] not in ("", *_place(entry)))
    notes = [f"Published: {'; '.join(details)}."] if details else []
    notes += _verdict_notes(rows)
    table = Table(study, ": ".join(filter(None, [study, ", ".join(shared)])), header, body, tuple(notes))
    return table, [f"{i}. {_made(one)}" for i, one in enumerate(made, 1)]


def _verdict_notes(rows: list[Entry]) -> list[str]:
    """How the rows were judged, once for all benchmarks where it is the same."""
    notes: dict[str, list[str]] = {}
    judged = [entry for entry in rows if entry.settings]
    benchmarks = list(dict.fromkeys(entry.row["benchmark"] for entry in judged))
    for name in benchmarks:
        here = [entry for entry in judged if entry.row["benchmark"] == name]
        methods, own = {entry.row["method"] for entry in here}, any(math.isfinite(e.row["delta"]) for e in here)
        said = [(verdict_note(of, methods, own), of.note) for entry in here if (of := entry.settings)]
        for note in dict.fromkeys(note for pair in said for note in pair if note):
            notes.setdefault(note, []).append(benchmark_name(name))
    return [n if len(names) == len(benchmarks) else f"{' and '.join(names)}: {n}" for n, names in notes.items()]


def _place(entry: Entry) -> list[str]:
    """What tells the rows of one study apart besides source, method and metric."""
    row = entry.row
    place = [benchmark_name(row["benchmark"]), row["scenario"], f"batch {row['batch_size']:g}"]
    return place + ([row["note"]] if entry.twins > 1 else [])


def _cells(entry: Entry, made: list[Made], shared: list[str]) -> tuple[str, ...]:
    row = entry.row
    name = [" ".join(filter(None, [label(row["method"], row["fisher"]), row["variant"].replace("_", " ")]))]
    name += ["training time" if row["metric"] == TIME else row["metric"]]
    name += [part for part in _place(entry) if part not in shared]
    remark = f", δ = {row['delta']:g}" if math.isfinite(row["delta"]) else ""
    remark += f" ({entry.remark.split(':')[0]})" if entry.remark else ""
    return (
        ", ".join(name),
        row["source"],
        _published(entry),
        _ours(entry),
        lambda_text(entry.lam),
        interval_text(entry.difference),
        entry.verdict + remark,
        f"{made.index(entry.made) + 1}." if entry.made.command else NOTHING,
    )


def _published(entry: Entry) -> str:
    """As printed, e.g. 99.12 ± 0.16 (30), 97.70 ± 0.81 sd (10), 121 ± 1 s (30), 2.28 × None."""
    row = entry.row
    timed = row["metric"] == TIME
    form = "g" if timed else ".2f"
    spread = f" ± {row['spread']:{form}}" if math.isfinite(row["spread"]) else ""
    kind = " sd" if row["spread_kind"].startswith("std") else ""
    unit = "" if row["unit"] == "percent" else f" {row['unit']}"
    n = f" ({row['n_seeds']:g})" if math.isfinite(row["n_seeds"]) else ""
    ratio = f", {entry.theirs.mean:.2f} {TIMES} None" if timed and math.isfinite(entry.theirs.mean) else ""
    return f"{row['value']:{form}}{spread}{kind}{unit}{n}{ratio}"


def _ours(entry: Entry) -> str:
    if entry.ours is None:
        return NOTHING
    if entry.row["metric"] == TIME:
        return f"{entry.ours.mean:.2f} {TIMES} None ({entry.ours.n})"
    return estimate_text(entry.ours)


def _made(made: Made) -> str:
    if not made.commit:
        return f"`{made.command}` would make it"
    ran = f", run as `{made.invocations}`" if made.invocations else ""
    return f"`{made.command}`{ran}; commit {made.commit}; {made.hardware}; {made.date}"
