"""Interactive accuracy against lambda, and against lambda times the trace of the Fisher."""

from collections.abc import Iterator, Sequence

import numpy as np
import plotly.graph_objects as go

from cl_repro.analysis.data.arms import Grid, grid_of, looks_of
from cl_repro.analysis.data.looks import Look
from cl_repro.analysis.data.settings import COMPARISON
from cl_repro.analysis.data.study import Study, describe, most_lambdas
from cl_repro.analysis.lambdas.accuracy import estimate_text, lambda_text
from cl_repro.analysis.lambdas.collapse import X_LABELS, collapse
from cl_repro.analysis.lambdas.curves import BAND, MANY, with_a_curve
from cl_repro.analysis.output.markup import Table
from cl_repro.common.stats import Array, estimate
from cl_repro.report.chart import (
    POINTS,
    Chart,
    Drawn,
    assembled,
    band,
    drawn_line,
    flat_line,
    hovered,
    key,
    numbers,
    template,
)


def charts(study: Study) -> list[Chart]:
    """A chart for each benchmark, scenario and model of a study that has a curve; a comparison's networks share one."""
    if study.kind == COMPARISON:
        groups = [runs for _, runs in study.runs.groupby(["benchmark", "scenario"]) if most_lambdas(runs) > 1]
    else:
        groups = [runs for _, runs in with_a_curve(study)]
    return [chart(study._replace(runs=runs)) for runs in groups]


def chart(study: Study) -> Chart:
    """The chart of runs of one benchmark, scenario and model; of a comparison against lambda alone."""
    whole = grid_of(study.runs, study.folder)
    grid = whole.penalised
    compares = study.kind == COMPARISON  # few of its methods have a trace, and their windows differ in kind
    found = None if compares else collapse(study)
    traces = {arm.config_id: log for arm, log in zip(found.grid.arms, found.log_trace, strict=True)} if found else {}
    scale = np.array([traces.get(arm.config_id, np.nan) for arm in grid.arms])
    places = [np.zeros(len(grid.arms)), *([scale] if found else [])]  # log10 of what lambda is multiplied by, [A]
    x = [grid.lams * 10.0 ** place[:, None] for place in places]  # of every axis, [A, L]
    arms, looks = [*(arm for arm, _ in grid.flat), *grid.arms], looks_of(grid)
    return assembled(
        title=describe(study.runs),
        axes=[(title, *_ends(grid, x[i])) for i, title in enumerate(X_LABELS[: len(x)])],
        drawn=[*_flat(whole, x, looks), *_curves(grid, x, looks[len(grid.flat) :])],
        keys=[key(arm.label, style) for arm, style in zip(arms, looks, strict=True)],
        table=points_table(whole),
        window="" if compares else grid.window_note,
        left_out=tuple(arm.label for arm, at in zip(grid.arms, scale, strict=True) if found and np.isnan(at)),
    )


def points_table(grid: Grid) -> Table:
    """What the chart shows by pointing at it: the mean of every arm and lambda."""
    points = [[estimate_text(estimate(column)) for column in accuracy.T] for accuracy in grid.accuracy]
    body = [(lambda_text(lam), *cells) for lam, *cells in zip(grid.lams, *points, strict=True)]
    flat = [f"{arm.label}: {estimate_text(estimate(values))}." for arm, values in grid.flat]
    notes = ("Test accuracy in %, mean ± SEM (n seeds).", *flat)
    return Table("points", "The same as a table", ("λ", *(arm.label for arm in grid.arms)), tuple(body), notes)


def _ends(grid: Grid, x: Array) -> tuple[float, float]:
    """Smallest and largest x, [A, L], of a point that has an accuracy; of all points if none has."""
    there = x[np.isfinite(grid.accuracy).any(axis=1) & np.isfinite(x)]
    there = there if there.size else x[np.isfinite(x)]
    return float(there.min()), float(there.max())


def _flat(grid: Grid, x: list[Array], looks: Sequence[Look]) -> Iterator[Drawn]:
    """Methods without lambda, and lambda = 0: a line from end to end of every axis, with a band of one SEM."""
    lines = [np.geomspace(*_ends(grid.penalised, axis), POINTS) for axis in x]
    flat = [(arm.label, values) for arm, values in grid.flat]
    if grid.lams[0] == 0:
        flat += [(f"{arm.label}, λ = 0", cells[:, 0]) for arm, cells in zip(grid.arms, grid.accuracy, strict=True)]
    for position, ((name, values), style) in enumerate(zip(flat, looks, strict=False)):
        point = estimate(values)
        if point.n:
            yield from flat_line(position, lines, point, name, style)


def _curves(grid: Grid, x: list[Array], looks: Sequence[Look]) -> Iterator[Drawn]:
    """A curve per arm with a lambda, its band, and crosses where seeds were lost."""
    lowest = np.min(grid.accuracy, where=np.isfinite(grid.accuracy), initial=100.0)  # where no seed is left
    for a, arm in enumerate(grid.arms):
        style, position = looks[a], len(grid.flat) + a
        points = [estimate(column) for column in grid.accuracy[a].T]
        there = np.array([point.n > 0 for point in points])
        own = [numbers(axis[a][there]) if np.isfinite(axis[a]).all() else None for axis in x]
        hover = [f"λ = {lambda_text(lam)}<br>{hovered(p)}" for lam, p in zip(grid.lams, points, strict=True) if p.n]
        yield drawn_line(position, own, [point for point in points if point.n], arm.label, style, hover)
        yield from band(position, [axis[a] for axis in x], points, style, BAND if len(looks) <= MANY else BAND / 2)
        lost = np.flatnonzero(grid.lost[a])
        if lost.size:
            crosses = go.Scatter(
                y=[round(points[i].mean if points[i].n else lowest, 4) for i in lost],
                mode="markers",
                marker={"symbol": "x", "size": 11, "color": style.colour, "line": {"color": "white", "width": 1}},
                text=[f"λ = {lambda_text(grid.lams[i])}<br>{_lost(int(grid.lost[a, i]))}" for i in lost],
                hovertemplate=template(arm.label),
            )
            yield Drawn(position, [_or_none(axis[a][lost]) for axis in x], crosses)


def _lost(n: int) -> str:
    return f"{n} seed{'s' * (n != 1)} diverged or failed"


def _or_none(values: Array) -> list[float] | None:
    return numbers(values) if np.isfinite(values).all() else None
