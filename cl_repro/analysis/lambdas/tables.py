"""Tables of a study of accuracy against lambda: rises and widths, gaps between rises; all of them, and writing.

Rises and widths are of seed-mean curves, at the lambdas at which an arm has all its seeds. Their intervals leave seeds
out of None and every estimator together, or resample them so (`intervals`), so that gaps keep the pairing.
"""

from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cl_repro.analysis.comparisons.beside import beside_table, pairs_of
from cl_repro.analysis.comparisons.comparison import compared, comparison_tables
from cl_repro.analysis.comparisons.numbered import epochs_table, sizes_table
from cl_repro.analysis.data.arms import Grid, NamedArm, grid_of
from cl_repro.analysis.data.read import read_further
from cl_repro.analysis.data.settings import COMPARISON
from cl_repro.analysis.data.study import ARMS, CURVES, LISTING, TIMING, Study, describe, unmixed
from cl_repro.analysis.lambdas.accuracy import (
    NOTHING,
    accuracy_rows,
    accuracy_table,
    estimate_text,
    interval_text,
    lambda_text,
    listing_table,
)
from cl_repro.analysis.lambdas.intervals import interval_note, interval_of, weightings
from cl_repro.analysis.lambdas.pairs import pair_tables
from cl_repro.analysis.lambdas.selection import NO_VALIDATION, TOO_SMALL, optimism_table, selection_table, selections
from cl_repro.analysis.lambdas.shape import complete, rise, seed_mean, touches, width
from cl_repro.analysis.lambdas.timing import timing_table
from cl_repro.analysis.output.markup import MINUS, TIMES, Document, Table, told_once
from cl_repro.common.stats import Array, Interval, estimate

TRACE_NOTE = (
    f"Geometric mean over seeds {TIMES}/÷ the factor of one standard deviation (n): few examples carry a trace, so "
    "it differs from seed to seed, and a window of λ is placed by the first one's alone."
)


class Shape(NamedTuple):
    """Rise and width of one arm, log10 lambda and decades."""

    arm: NamedArm
    rise: Interval
    rises: Array  # [W], of every weighting of the seeds; paired between arms
    there: NDArray[np.bool_]  # [S], of each seed whether the arm has it
    at_most: bool  # the curve begins above half-way: the rise is the grid's first lambda, or below
    width: Interval
    edges: tuple[bool, bool]  # the range touches the grid's (lower, upper) edge


def shapes(study: Study, grid: Grid) -> list[Shape]:
    """Rise and width of every arm with a lambda, with their intervals over seeds; without lambda = 0."""
    grid = grid.penalised
    if not grid.lams.size:
        return []
    settings, log_lam, n_seeds = study.settings, np.log10(grid.lams), grid.seeds.size
    accuracy, none = complete(grid.accuracy), grid.floors[..., None]
    weight = weightings(n_seeds, settings)
    means, floors = seed_mean(accuracy, weight), seed_mean(none, weight)[..., 0]  # [W, A, L], [W, A]
    rises, widths = rise(log_lam, means, floors), width(log_lam, means, settings.width_points)  # [W, A]
    at_most = rises == np.nanmin(np.where(np.isfinite(means[0]), log_lam, np.inf), axis=1)
    if n_seeds < settings.bootstrap_from:  # where the curve of all seeds but one begins above half-way, it may be less
        rises[1:] = np.where(at_most[1:], np.nan, rises[1:])
    there = np.asarray(np.isfinite(accuracy).any(axis=2))  # [A, S]
    return [
        Shape(
            arm=arm,
            rise=interval_of(rises[:, a], there[a], settings),
            rises=rises[:, a],
            there=there[a],
            at_most=bool(at_most[0, a]),
            width=not_below_zero(interval_of(widths[:, a], there[a], settings)),
            edges=touches(log_lam, means[0, a], settings.width_points),
        )
        for a, arm in enumerate(grid.arms)
    ]


def log_traces(study: Study, grid: Grid) -> Array:
    """log10 of the trace of the importance after task 1, per arm and seed, [A, S]; mean over lambdas; NaN if absent."""
    traces = read_further(study.folder, "importance.csv")
    traces = traces[(traces["after_task"] == 0) & (traces["trace"] > 0)]
    merged = traces.merge(study.runs[["run_id", "config_id", "seed"]], on="run_id")
    merged = merged.assign(log=np.log10(merged["trace"].astype(float)))
    table = merged.pivot_table(index="config_id", columns="seed", values="log", aggfunc="mean")
    return table.reindex(index=[arm.config_id for arm in grid.arms], columns=grid.seeds).to_numpy(dtype=float)


def trace_text(logs: Array) -> str:
    """A trace over seeds, from its log10 [S]: e.g. 1.01e-02 ×/÷ 2.7 (21); without a factor for one seed."""
    logs = logs[np.isfinite(logs)]
    if not logs.size:
        return NOTHING
    factor = f" {TIMES}/÷ {10 ** logs.std(ddof=1):.1f}" if logs.size > 1 else ""
    return f"{10 ** logs.mean():.2e}{factor} ({logs.size})"


def rise_text(shape: Shape, *, brackets: bool = True) -> str:
    """A rise, with its interval if that is wanted; ≤ where the curve begins above half-way."""
    shown = shape.rise if brackets else shape.rise._replace(low=np.nan)
    return ("≤ " if shape.at_most else "") + interval_text(shown, sign="")


def not_below_zero(width: Interval) -> Interval:
    """An interval of what cannot be negative."""
    return width._replace(low=np.maximum(width.low, 0.0))


def shape_table(study: Study, found: list[Shape], traces: Array) -> Table:
    """Rise, width and trace per estimator."""
    settings = study.settings
    body = []
    for shape, row in zip(found, traces, strict=True):
        rising = rise_text(shape)
        edges = " and ".join(name for name, touched in zip(("lower", "upper"), shape.edges, strict=True) if touched)
        body.append((shape.arm.label, rising, interval_text(shape.width, sign=""), edges or "no", trace_text(row)))
    notes = (
        "Rise: log10 λ at which the seed-mean curve first crosses half-way between None's mean and its own best. "
        f"Width: decades of λ (not necessarily contiguous) within {_points(settings.width_points)} of its best; where "
        "it touches an edge of the grid it is a lower bound. Both by linear interpolation in log10 λ.",
        interval_note(traces.shape[1], settings),
        f"Trace: sum of the Fisher diagonal after task 1. {TRACE_NOTE}",
        *(("λ = 0 has no logarithm: rises and widths leave it out.",) if (study.runs["lambda"] == 0).any() else ()),
    )
    header = ("Arm", "rise, log10 λ", "width, decades", "touches the grid's edge", "trace after task 1")
    return Table("shape", "Where accuracy rises, and how wide the range of good λ is", header, tuple(body), notes)


def gap_table(study: Study, found: list[Shape], traces: Array) -> Table | None:
    """Gaps between rises beside what the traces predict; None where the study lacks the arms."""
    body = []
    estimators = [(i, shape) for i, shape in enumerate(found) if shape.arm.method == "ewc"]
    for wanted, (i, a), (j, b) in product(study.settings.gaps, estimators, estimators):
        if (a.arm.fisher, b.arm.fisher) != wanted or not a.arm.compares(b.arm):
            continue
        gap = interval_of(a.rises - b.rises, np.logical_or(a.there, b.there), study.settings)
        predicted = estimate(traces[j] - traces[i])
        bound = {(True, False): "≤ ", (False, True): "≥ "}.get((a.at_most, b.at_most), "")
        measured = NOTHING if a.at_most and b.at_most else bound + interval_text(gap)
        body.append((f"{a.arm.label} {MINUS} {b.arm.label}", measured, estimate_text(predicted)))
    notes = (
        "Measured: difference of rises; brackets as of a rise, the seeds of both arms together. "
        "Predicted: log10 of the ratio of the traces after task 1, mean over seeds ± SEM (n): a Fisher k times "
        "smaller needs a λ k times larger.",
    )
    header = ("Gap between rises", "measured, decades", "predicted by the traces")
    title = "Gaps between rises"
    return Table("gaps", title, header, tuple(body), notes) if body else None


def summary_table(study: Study) -> Table:
    """The accuracy table of a study of curves in short, for the end of a run."""
    grid = grid_of(study.runs, study.folder)
    rows, by_arm = accuracy_rows(study, grid), {shape.arm.config_id: shape for shape in shapes(study, grid)}
    published = list(rows[0].beside) if rows else []
    body = []
    for row in rows:
        shape = by_arm.get(row.arm.config_id)
        cells = [row.arm.label, lambda_text(row.lam), estimate_text(row.ours)]
        cells += [rise_text(shape, brackets=False) if shape else NOTHING]
        cells += [f"{shape.width.centre:.1f}" if shape and np.isfinite(shape.width.centre) else NOTHING]
        for source in published:
            theirs, comparison, remark = row.beside[source]
            cells += [estimate_text(theirs) if theirs else NOTHING, comparison.verdict if comparison else remark]
        body.append(tuple(cells))
    header = ["Arm", "best λ", "accuracy, %", "rise", "width"]
    header += [column for source in published for column in (source, "verdict")]
    notes = (
        "mean ± SEM (seeds); rise: log10 λ half-way between None and the best; width: decades within "
        f"{_points(study.settings.width_points)} of the best" + (f"; {grid.window_note}" if grid.window else ""),
    )
    return Table("summary", describe(study.runs), tuple(header), tuple(body), notes)


def tables_of(study: Study) -> list[Table]:
    """All tables of a study, in reading order, without columns that say nothing of any arm."""
    return [told_once(table, (TOO_SMALL, NO_VALIDATION)) for table in made(study)]


def made(study: Study) -> list[Table]:
    """All tables of a study, in reading order."""
    if study.kind == TIMING:
        return [timing_table(study)]
    if study.kind == LISTING:
        return [listing_table(study)]
    if study.kind == COMPARISON:
        entries = compared(study)
        claims = [sizes_table(study.settings, entries), epochs_table(study.settings, entries)]
        tables = [beside_table(study, pairs_of(study, entries)), *comparison_tables(study, entries), *claims]
        return [table for table in tables if table.rows]
    grid = grid_of(study.runs, study.folder)
    accuracies = accuracy_table(study, grid, accuracy_rows(study, grid))
    if study.kind == ARMS:
        return [accuracies, *paired_tables(study)]
    found, traces, chosen = shapes(study, grid), log_traces(study, grid), selections(study, grid)
    return [
        accuracies,
        shape_table(study, found, traces),
        *paired_tables(study),
        selection_table(study, grid, chosen),
        optimism_table(study, chosen),
    ]


def paired_tables(study: Study) -> list[Table]:
    """Gaps between rises and differences between arms, of the seeds that do not mix processors."""
    study = unmixed(study)
    if study.runs.empty:
        return []
    grid = grid_of(study.runs, study.folder)
    gaps = gap_table(study, shapes(study, grid), log_traces(study, grid)) if study.kind == CURVES else None
    return [*([gaps] if gaps else []), *pair_tables(study, grid)]


def document(study: Study) -> Document:
    """Its tables as files."""
    return Document(study.name, f"{study.name}: {describe(study.reported)}", tables_of(study), study.folder)


def _points(points: float) -> str:
    return f"{points:g} point{'s' * (points != 1)}"
