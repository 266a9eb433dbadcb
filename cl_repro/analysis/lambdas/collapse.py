"""Do the estimators differ in scale only? Accuracy against lambda, and against lambda times the trace of the Fisher.

The penalty is lambda F, so curves of estimators that differ by a factor fall on each other once lambda is multiplied
by the trace. The trace is that of the first task; later ones depend on lambda.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from cl_repro.analysis.data.arms import Grid, grid_of, looks_of
from cl_repro.analysis.data.study import Study, commits, describe, mixed_note, unmixed
from cl_repro.analysis.lambdas.accuracy import interval_text
from cl_repro.analysis.lambdas.curve_names import told
from cl_repro.analysis.lambdas.curves import BAND, MANY, SEM, curve, line
from cl_repro.analysis.lambdas.intervals import interval_note, interval_of, resampled_interval, weightings
from cl_repro.analysis.lambdas.later_traces import later_table
from cl_repro.analysis.lambdas.selection import TOO_SMALL
from cl_repro.analysis.lambdas.shape import seed_mean
from cl_repro.analysis.lambdas.tables import TRACE_NOTE, log_traces, shapes, trace_text
from cl_repro.analysis.output.figures import PADDED, Drawing, decades, headed, lettered
from cl_repro.analysis.output.markup import TIMES, Document, Table
from cl_repro.common.stats import Array, Interval

X_LABELS = ("Regularisation strength λ (log scale)", f"λ {TIMES} trace of the first task's Fisher (log scale)")

RISE = "A curve rises where it first crosses half-way between None and its own best"


class Collapse(NamedTuple):
    """Where the curves of A arms rise, in log10; spreads are largest minus smallest, in decades.

    Where a rise is an upper bound, spreads are lower bounds.
    """

    grid: Grid  # of these arms only
    log_traces: Array  # [A, S]
    rises: tuple[Interval, ...]  # of log10 lambda
    at_most: tuple[bool, ...]  # the curve begins above half-way: the rise is there, or below
    rescaled: tuple[Interval, ...]  # of log10 (lambda trace)
    spread: Interval
    rescaled_spread: Interval

    @property
    def log_trace(self) -> Array:
        """Mean over seeds, [A]."""
        return seed_mean(self.log_traces[..., None])[..., 0]


def collapse(study: Study) -> Collapse | None:
    """The collapse of a study of curves, with intervals over seeds.

    None if fewer than two of its arms have both a rise and a trace, or if these differ in another setting, too.
    """
    study = unmixed(study)  # a spread is a difference between arms
    if study.runs.empty:
        return None
    grid, settings = grid_of(study.runs, study.folder).penalised, study.settings
    if not grid.lams.size:
        return None
    found, traces = shapes(study, grid), log_traces(study, grid)
    log_trace = seed_mean(traces[..., None])[..., 0]
    kept = np.flatnonzero(np.isfinite(log_trace) & np.isfinite([shape.rise.centre for shape in found]))
    if kept.size < 2 or any(grid.arms[a].unlike(grid.arms[kept[0]]) for a in kept):
        return None
    n_seeds = grid.seeds.size
    # The same weightings as those of the rises, so that rise and trace stay paired.
    scale = seed_mean(traces[kept, :, None], weightings(n_seeds, settings))[..., 0]  # [W, A]
    rises, at_most = np.stack([found[a].rises for a in kept], 1), tuple(found[a].at_most for a in kept)  # [W, A], [A]
    moved, n = rises + scale, [found[a].rise.n for a in kept]
    return Collapse(
        grid=grid._replace(
            arms=tuple(grid.arms[a] for a in kept),
            accuracy=grid.accuracy[kept],
            lost=grid.lost[kept],
            left_out=grid.left_out[kept],
        ),
        log_traces=traces[kept],
        rises=tuple(found[a].rise for a in kept),
        at_most=at_most,
        rescaled=tuple(interval_of(own, found[a].there, settings) for own, a in zip(moved.T, kept, strict=True)),
        spread=resampled_interval(apart(rises, at_most), min(n), settings),
        rescaled_spread=resampled_interval(apart(moved, at_most), min(n), settings),
    )


def apart(values: Array, at_most: Sequence[bool]) -> Array:
    """Largest minus smallest of A values, [W] of [W, A]; a lower bound where some of them are upper bounds."""
    return np.where(at_most, -np.inf, values).max(axis=1) - values.min(axis=1)


def draw(found: Collapse, title: str) -> Figure:
    """Two panels with one axis of accuracy: against lambda, and against lambda times the trace."""
    figure = Figure(figsize=(12.6, 4.9), layout=PADDED)  # inches
    grid, panels, looks = found.grid, figure.subplots(1, 2, sharey=True), looks_of(found.grid)
    scales = np.zeros_like(found.log_trace), found.log_trace
    spreads = found.spread, found.rescaled_spread
    for axes, scale, label in zip(panels, scales, X_LABELS, strict=True):
        for (arm, values), style in zip(grid.flat, looks, strict=False):
            line(axes, arm, values, style)
        x = grid.lams * 10.0 ** scale[:, None]  # [A, L]
        for a, (arm, style) in enumerate(zip(grid.arms, looks[len(grid.flat) :], strict=True)):
            curve(axes, arm, x[a], grid.accuracy[a], style, a, BAND if len(grid.arms) <= MANY else BAND / 2)
        there = x[np.isfinite(grid.accuracy).any(axis=1)]
        decades(axes, there.min(), there.max(), 12)
        axes.set_xlabel(label)
        axes.tick_params(labelleft=True)
    panels[0].set_ylabel("Test accuracy after the last task (%)")
    said = "rises at least {} decades apart" if any(found.at_most) else "rises within {} decades"
    lettered(panels, [said.format(interval_text(spread, sign="")) for spread in spreads])
    headed(figure, title, ". ".join(filter(None, [SEM, RISE, grid.window_note])))
    told(figure, panels)
    return figure


def table(study: Study, found: Collapse) -> Table:
    """Rises before and after the traces are taken into account."""
    bounds = ["≤ " if bound else "" for bound in found.at_most]
    body = [
        (arm.label, bound + interval_text(rise, sign=""), trace_text(logs), bound + interval_text(moved))
        for arm, bound, rise, logs, moved in zip(
            found.grid.arms, bounds, found.rises, found.log_traces, found.rescaled, strict=True
        )
    ]
    settings, n_seeds = study.settings, found.grid.seeds.size
    least = "≥ " if any(found.at_most) else ""
    before, after = (least + interval_text(x, sign="") for x in (found.spread, found.rescaled_spread))
    explained = 1 - found.rescaled_spread.centre / found.spread.centre if found.spread.centre else np.nan
    share = "some curves begin above half-way" if least else f"the trace accounts for {explained:.0%} of the spread"
    notes = (
        "Rise: log10 λ at which the seed-mean curve first crosses half-way between None's mean and its own best. "
        f"Trace: of the Fisher after the first task. {TRACE_NOTE} Last column: their sum in logarithms, the rise on "
        f"the axis λ {TIMES} trace.",
        f"Largest minus smallest rise: {before} decades of λ, {after} decades of λ {TIMES} trace: {share}. What is "
        "left is not a matter of the first task's scale, or it is noise.",
        f"{interval_note(n_seeds, settings)} Rises and traces together. A spread has an interval from n = "
        f"{settings.bootstrap_from} seeds on; it is never negative: its interval does not reach 0 where there is none.",
        *filter(None, [mixed_note(study.runs)]),
    )
    header = ("Arm", "rise, log10 λ", "trace", f"rise, log10 (λ {TIMES} trace)")
    why = "" if found.spread.n >= settings.bootstrap_from else f" ({TOO_SMALL})"
    rows = (*body, ("spread, decades", before + why, "", after + why))
    return Table("collapse", "Do the estimators differ in scale only?", header, rows, notes)


def drawings(study: Study) -> list[Drawing]:
    """collapse_<name>; nothing where nothing can be compared."""
    if not (found := collapse(study)):
        return []
    said = describe(study.runs)
    source = f"cl_repro {commits(study.runs)}"
    return [Drawing(f"collapse_{study.name}", f"{study.name}: {said}", source, partial(draw, found, said))]


def documents(study: Study) -> list[Document]:
    """The same in numbers."""
    if not (shown := tables(study)):
        return []
    return [Document(f"collapse_{study.name}", f"{study.name}: {describe(study.runs)}", shown, study.folder)]


def tables(study: Study) -> list[Table]:
    """The rises, and the traces of later tasks below them; nothing where nothing can be compared."""
    if not (found := collapse(study)):
        return []
    return [table(study, found), *filter(None, [later_table(study, found.grid, found.rises)])]
