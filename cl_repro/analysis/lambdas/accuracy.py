"""Table (a): our accuracies beside the published ones, with differences, intervals and verdicts; and plain listings."""

import math
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import pandas as pd

from cl_repro.analysis.data.arms import Grid, NamedArm, arms_of
from cl_repro.analysis.data.settings import Settings
from cl_repro.analysis.data.study import (
    ARMS,
    PLACE,
    Study,
    benchmark_name,
    origin,
    published_estimate,
    published_row,
    source_name,
    sources,
)
from cl_repro.analysis.output.markup import DASH, MINUS, Table
from cl_repro.common.stats import Array, Comparison, Estimate, Interval, compare, estimate

NOTHING = DASH  # a cell without a value
OTHER_PROTOCOL = "other protocol"
NOT_PUBLISHED = "There are no published numbers for this study."


class Beside(NamedTuple):
    """One published number beside ours."""

    theirs: Estimate | None  # percent
    comparison: Comparison | None  # None where the row is not comparable, or there is none
    remark: str  # why there is no verdict


class Row(NamedTuple):
    """One arm of the accuracy table."""

    arm: NamedArm
    lam: float  # of the best mean; NaN for methods without lambda
    ours: Estimate  # percent
    beside: dict[str, Beside]  # by source


def accuracy_rows(study: Study, grid: Grid) -> list[Row]:
    """One row per arm, the estimators first and the methods without lambda last, as in the blog's table."""
    rows = []
    for arm, lam, values in at_best(grid):
        ours = estimate(values)
        theirs = {source: published_row(study, source, "accuracy", arm) for source in sources(study, "accuracy")}
        rows.append(Row(arm, lam, ours, {source: judge(study, row, ours) for source, row in theirs.items()}))
    return rows


def at_best(grid: Grid) -> list[tuple[NamedArm, float, Array]]:
    """Every arm with its best lambda (NaN without one) and its seeds' accuracies there, [S]."""
    curved = [
        (arm, float(grid.lams[i]), grid.accuracy[a, :, i])
        if i is not None
        else (arm, math.nan, np.full(grid.seeds.size, np.nan))
        for a, (arm, i) in enumerate(zip(grid.arms, grid.best(), strict=True))
    ]
    return curved + [(arm, math.nan, values) for arm, values in reversed(grid.flat)]


def accuracy_table(study: Study, grid: Grid, rows: list[Row]) -> Table:
    """The accuracy table of a study, with a column group per published source."""
    published = sources(study, "accuracy")
    header = ["Arm", "λ" if study.kind == ARMS else "best λ", "ours, %"]
    for source in published:
        header += [f"{source_name(source)}, %", f"ours {MINUS} theirs [interval]", "verdict"]
    body = []
    for row in rows:
        cells = [row.arm.label, lambda_text(row.lam), estimate_text(row.ours)]
        for source in published:
            theirs, comparison, remark = row.beside[source]
            cells.append(estimate_text(theirs) if theirs else NOTHING)
            cells += [interval_text(comparison.interval), verdict_text(comparison)] if comparison else [NOTHING, remark]
        body.append(tuple(cells))
    title = "Accuracy" if study.kind == ARMS else "Accuracy at the best λ"
    title += ", ours beside the published" if published else ""
    reasons = [  # why a verdict cannot be reached
        f"{row.arm.label}, {source}: {beside.comparison.note}."
        for row in rows
        for source, beside in row.beside.items()
        if beside.comparison and ":" in beside.comparison.note
    ]
    where = (
        "λ: the one of the study's configuration."
        if study.kind == ARMS
        else "Best λ: the highest seed mean on the test set, over the grid and of the same seeds that are "
        "reported, as in the published tables (optimistic: see the three ways of choosing λ)."
    )
    verdicts = verdict_note(study.settings, set(study.runs["method"])) if published else NOT_PUBLISHED
    notes = (
        "Accuracy: mean ± SEM (n seeds; SEM = sd / √n with ddof 1) of the mean test accuracy over the tasks after "
        f"the last one. {where}",
        verdicts,
        *reasons,
        *loss_notes(grid),
        origin(study.runs),
    )
    return Table("accuracy", title, tuple(header), tuple(body), notes)


def listing_table(study: Study) -> Table:
    """Every (benchmark, scenario, model, arm, configuration, lambda) with its mean over seeds."""
    body = []
    for (benchmark, scenario, model), place in study.runs.groupby(PLACE):
        for arm in arms_of(place, study.folder):
            own = place[place["config_id"] == arm.config_id]
            for lam, cell in own.groupby("lambda", dropna=False):
                lost = int((cell["status"] != "ok").sum())
                text = estimate_text(estimate(100 * cell["accuracy"].where(cell["status"] == "ok")))
                text += f", {lost} lost" if lost else ""
                body.append((arm.label, benchmark_name(benchmark), scenario, model, lambda_text(lam), text))
    notes = ["Accuracy in %: mean ± SEM (n seeds), over the tasks after the last one."]
    if any("lost" in row[-1] for row in body):
        notes.append("Lost: diverged or failed, not in the mean.")
    if any("[" in row[0] for row in body):
        notes.append("[...]: what its study calls an arm, and the settings in which arms differ.")
    header = ("Arm", "benchmark", "scenario", "model", "λ", "accuracy, %")
    return Table("runs", "Runs", header, tuple(body), (*notes, origin(study.runs)))


def estimate_text(x: Estimate, digits: int = 2) -> str:
    """E.g. 99.12 ± 0.16 (5); without a SEM for one seed."""
    if not math.isfinite(x.mean):
        return NOTHING
    spread = f" ± {x.sem:.{digits}f}" if math.isfinite(x.sem) else ""
    return f"{_minus(f'{x.mean:.{digits}f}')}{spread}" + (f" ({x.n})" if x.n else "")


def interval_text(x: Interval, digits: int = 2, sign: str = "+") -> str:
    """E.g. +0.03 [−0.20, +0.26]; without limits where there are none; `sign` as in format specifiers."""
    if not math.isfinite(x.centre):
        return NOTHING
    centre, low, high = (_minus(f"{value:{sign}.{digits}f}") for value in x[:3])
    return f"{centre} [{low}, {high}]" if math.isfinite(x.low) and math.isfinite(x.high) else centre


def lambda_text(lam: float) -> str:
    """E.g. 1e3 for whole decades, else 250 or 0."""
    if not math.isfinite(lam):
        return NOTHING
    decade = math.log10(lam) if lam > 0 else 0.5
    return f"1e{decade:.0f}" if decade.is_integer() else f"{lam:g}"


def loss_notes(grid: Grid) -> list[str]:
    """Which cells diverged, failed, or were not run, in words, and whether λ is a window; nothing if none."""
    notes = [f"{grid.window_note}."] if grid.window else []
    for arm, accuracy, lost, left_out in zip(grid.arms, grid.accuracy, grid.lost, grid.left_out, strict=True):
        if lost.any():
            where = [f"{lambda_text(grid.lams[i])} ({lost[i]})" for i in np.flatnonzero(lost)]
            notes.append(f"{arm.label}: seeds that diverged or failed, by λ: {', '.join(where)}.")
        begun = np.isfinite(accuracy).any(axis=0) | (lost + left_out > 0)
        todo = int((~np.isfinite(accuracy[:, begun])).sum() - (lost + left_out)[begun].sum())
        if todo:
            notes.append(f"{arm.label}: {todo} of {int(begun.sum()) * grid.seeds.size} runs are missing.")
        if left_out.any():
            notes.append(f"{arm.label}: left out, because their seed or λ lacks others: {left_out.sum()} runs.")
    for arm, values in grid.flat:
        absent = int((~np.isfinite(values)).sum())
        if absent:
            notes.append(f"{arm.label}: {absent} of {values.size} seeds diverged, failed or are missing.")
    return notes


def judge(study: Study, row: pd.Series | None, ours: Estimate) -> Beside:
    """Compare one arm of a study, `ours` in percent, with its row of published.csv, or say why that is not possible."""
    if row is None:
        return Beside(None, None, NOTHING)
    theirs = published_estimate(row)
    delta = delta_of(study.settings, row)
    scales = set(study.runs["scale"])
    if row["comparable"] != "same":
        return Beside(theirs, None, OTHER_PROTOCOL)
    if not scales <= set(study.settings.verdict_scales):
        return Beside(theirs, None, f"none at scale {', '.join(sorted(scales))}")
    if math.isnan(delta):
        return Beside(theirs, None, f"no delta for {row['method']}")
    if not ours.n:
        return Beside(theirs, None, "no run of ours")
    return Beside(theirs, compare(ours, theirs, delta, study.settings.confidence), "")


def delta_of(settings: Settings, row: pd.Series) -> float:
    """How many points ours may differ from a published mean and agree: the row's own, else the method's, else NaN."""
    return row["delta"] if math.isfinite(row["delta"]) else settings.delta_points.get(row["method"], math.nan)


def verdict_text(comparison: Comparison) -> str:
    """The verdict with the short form of its note, which fits a cell: n = 12 needed, or not reachable."""
    note = comparison.note.partition(":")[0]
    return f"{comparison.verdict} ({note})" if note else comparison.verdict


def verdict_note(settings: Settings, methods: Collection[str], of_rows: bool = False) -> str:
    """What the interval and the verdict are, of some methods; `of_rows`: each published row has a delta of its own."""
    names: dict[float, list[str]] = {}
    for method, points in settings.delta_points.items():
        if method in methods:
            names.setdefault(points, []).append("None" if method == "finetune" else method)
    delta = ", ".join(f"{points:g} for {'/'.join(named)}" for points, named in names.items())
    delta = "of each row, beside it" if of_rows else f"δ = {delta}"
    return (
        f"Interval: {settings.confidence:.0%} Welch t-interval of ours {MINUS} theirs, in points; their mean, SEM "
        f"and n as printed. Verdict: agrees if the interval is inside ±δ ({delta}), differs if it excludes 0 "
        "and is not inside, else too few seeds, with the n of ours at which its half width would be δ."
    )


def _minus(text: str) -> str:
    return text.replace("-", MINUS)
