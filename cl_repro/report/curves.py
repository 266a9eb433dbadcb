"""Interactive accuracy against lambda, and against lambda times the trace of the Fisher, as data for plotly."""

import json
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from cl_repro.analysis.accuracy import NOTHING, estimate_text, lambda_text
from cl_repro.analysis.arms import Arm, Grid, Look, grid_of, look
from cl_repro.analysis.collapse import X_LABELS, collapse
from cl_repro.analysis.curves import with_a_curve
from cl_repro.analysis.markup import Table
from cl_repro.analysis.study import Study, describe
from cl_repro.stats import Array, Estimate, estimate

# Matplotlib's markers: plotly's name of each, and its outline in a key of 30 x 14 with its middle at 15, 7.
MARKERS = {
    "": ("circle", ""),
    "o": ("circle", "M11 7a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z"),
    "s": ("square", "M11.5 3.5h7v7h-7z"),
    "^": ("triangle-up", "M15 2.5l4.5 8h-9z"),
    "v": ("triangle-down", "M15 11.5l4.5 -8h-9z"),
    "<": ("triangle-left", "M10.5 7l8 -4.5v9z"),
    ">": ("triangle-right", "M19.5 7l-8 -4.5v9z"),
    "D": ("diamond", "M15 2.5l4.5 4.5l-4.5 4.5l-4.5 -4.5z"),
    "P": ("cross", "M13.5 2.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z"),
    "X": ("x", "M12 2.5l3 3l3 -3l1.5 1.5l-3 3l3 3l-1.5 1.5l-3 -3l-3 3l-1.5 -1.5l3 -3l-3 -3z"),
    "*": ("star", "M15 2l1.3 3.5h3.7l-3 2.3l1.1 3.7l-3.1 -2.2l-3.1 2.2l1.1 -3.7l-3 -2.3h3.7z"),
    "p": ("pentagon", "M15 2.5l4.5 3.4l-1.7 5.1h-5.6l-1.7 -5.1z"),
    "h": ("hexagon", "M15 2.5l4 2.2v4.6l-4 2.2l-4 -2.2v-4.6z"),
}
PIXELS = 1.25  # a point of the figures on a screen
POINTS = 15  # of a line without lambda, so that it can be pointed at anywhere


class Key(NamedTuple):
    """The button of one arm, which is its legend, too."""

    label: str
    colour: str
    dashes: str  # as in stroke-dasharray
    thickness: float  # pixels
    outline: str  # of the marker, an SVG path; empty without
    filled: bool


class Chart(NamedTuple):
    """One chart."""

    title: str
    axes: tuple[str, ...]  # titles of the axes of x to choose from
    keys: tuple[Key, ...]
    window: str  # that the lambdas are a window, in words; else empty
    left_out: tuple[str, ...]  # arms that the second axis has no place for
    table: Table  # the means that the chart shows
    payload: str  # JSON: traces, layout, axes (title, range, x and hover text of every trace), arm of every trace


class Drawn(NamedTuple):
    """One trace, with its x on every axis; None on an axis that has no place for it."""

    arm: int
    x: Sequence[Sequence[float | None] | None]
    trace: go.Scatter


def charts(study: Study) -> list[Chart]:
    """A chart for each benchmark, scenario and model of a study that has a curve.

    Args:
        study: curves or listing, with an arm of two lambdas.

    Returns:
        At least one.

    Raises:
        UserError: no arm has two lambdas.
    """
    return [chart(study._replace(runs=runs)) for _, runs in with_a_curve(study)]


def chart(study: Study) -> Chart:
    """The chart of runs of one benchmark, scenario and model."""
    grid = grid_of(study.runs, study.folder)
    found = collapse(study)
    traces = {arm.config_id: log for arm, log in zip(found.grid.arms, found.log_trace, strict=True)} if found else {}
    scale = np.array([traces.get(arm.config_id, np.nan) for arm in grid.arms])
    places = [np.zeros(len(grid.arms)), *([scale] if found else [])]  # log10 of what lambda is multiplied by, [A]
    x = [grid.lams * 10.0 ** place[:, None] for place in places]  # of every axis, [A, L]
    drawn = sorted([*_flat(grid, x), *_curves(grid, x)], key=lambda one: one.trace.fill != "toself")  # bands below
    arms = [*(arm for arm, _ in grid.flat), *grid.arms]
    axes: list[dict[str, Any]] = [
        {"title": title, "range": _range(*_ends(grid, x[i])), "x": [one.x[i] for one in drawn]}
        for i, title in enumerate(X_LABELS[: len(x)])
    ]
    payload = {
        "traces": [one.trace.to_plotly_json() for one in drawn],
        "arms": [one.arm for one in drawn],
        "axes": axes,
        "layout": _layout().to_plotly_json(),
    }
    return Chart(
        title=describe(study.runs),
        axes=tuple(axis["title"] for axis in axes),
        keys=tuple(map(_key, arms, _looks(grid))),
        window=grid.window_note,
        left_out=tuple(arm.label for arm, at in zip(grid.arms, scale, strict=True) if found and np.isnan(at)),
        table=points_table(grid),
        payload=json.dumps(payload, separators=(",", ":"), allow_nan=False),
    )


def points_table(grid: Grid) -> Table:
    """What the chart shows by pointing at it: the mean of every arm and lambda."""
    points = [[estimate_text(estimate(column)) for column in accuracy.T] for accuracy in grid.accuracy]
    body = [(lambda_text(lam), *cells) for lam, *cells in zip(grid.lams, *points, strict=True)]
    flat = [f"{arm.label}: {estimate_text(estimate(values))}." for arm, values in grid.flat]
    notes = ("Test accuracy in %, mean ± SEM (n seeds).", *flat)
    return Table("points", "The same as a table", ("λ", *(arm.label for arm in grid.arms)), tuple(body), notes)


def _looks(grid: Grid) -> list[Look]:
    """Of all arms as the figures draw them, those without lambda first."""
    return [
        *(look(arm, position) for position, (arm, _) in enumerate(grid.flat)),
        *(look(arm, position) for position, arm in enumerate(grid.arms)),
    ]


def _ends(grid: Grid, x: Array) -> tuple[float, float]:
    """Smallest and largest x, [A, L], of a point that has an accuracy; of all points if none has."""
    there = x[np.isfinite(grid.accuracy).any(axis=1) & np.isfinite(x)]
    there = there if there.size else x[np.isfinite(x)]
    return float(there.min()), float(there.max())


def _flat(grid: Grid, x: list[Array]) -> Iterator[Drawn]:
    """Methods without lambda: a line from end to end of every axis, with a band of one SEM."""
    lines = [np.geomspace(*_ends(grid, axis), POINTS) for axis in x]
    for position, (arm, values) in enumerate(grid.flat):
        point = estimate(values)
        if not point.n:
            continue
        own = [_numbers(line) for line in lines]
        yield _line(position, own, [point] * POINTS, arm, look(arm, position), [_hover(point)] * POINTS)
        yield from _band(position, lines, [point] * POINTS, look(arm, position))


def _curves(grid: Grid, x: list[Array]) -> Iterator[Drawn]:
    """A curve per arm with a lambda, its band, and crosses where seeds were lost."""
    lowest = np.min(grid.accuracy, where=np.isfinite(grid.accuracy), initial=100.0)  # where no seed is left
    for a, arm in enumerate(grid.arms):
        style, position = look(arm, a), len(grid.flat) + a
        points = [estimate(column) for column in grid.accuracy[a].T]
        there = np.array([point.n > 0 for point in points])
        own = [_numbers(axis[a][there]) if np.isfinite(axis[a]).all() else None for axis in x]
        hover = [f"λ = {lambda_text(lam)}<br>{_hover(p)}" for lam, p in zip(grid.lams, points, strict=True) if p.n]
        yield _line(position, own, [point for point in points if point.n], arm, style, hover)
        yield from _band(position, [axis[a] for axis in x], points, style)
        lost = np.flatnonzero(grid.lost[a])
        if lost.size:
            crosses = go.Scatter(
                y=[round(points[i].mean if points[i].n else lowest, 4) for i in lost],
                mode="markers",
                marker={"symbol": "x", "size": 11, "color": style.colour, "line": {"color": "white", "width": 1}},
                text=[f"λ = {lambda_text(grid.lams[i])}<br>{_lost(int(grid.lost[a, i]))}" for i in lost],
                hovertemplate=f"{_bold(arm)}%{{text}}<extra></extra>",
            )
            yield Drawn(position, [_or_none(axis[a][lost]) for axis in x], crosses)


def _line(
    position: int, x: Sequence[Sequence[float] | None], points: list[Estimate], arm: Arm, style: Look, hover: list[str]
) -> Drawn:
    """Means, joined."""
    symbol, outline = MARKERS[style.marker]
    trace = go.Scatter(
        y=[round(point.mean, 4) for point in points],
        mode="lines+markers" if outline else "lines",
        line={"color": style.colour, "width": PIXELS * style.thickness, "dash": _dashes(style)},
        marker={
            "symbol": symbol,
            "size": PIXELS * style.size,
            "color": style.colour if style.filled else "white",
            "line": {"color": style.colour, "width": 1.6},
        },
        text=hover,
        hovertemplate=f"{_bold(arm)}%{{text}}<extra></extra>",
    )
    return Drawn(position, x, trace)


def _band(position: int, x: list[Array], points: list[Estimate], style: Look) -> Iterator[Drawn]:
    """Mean +- SEM as closed outlines, one for each stretch of points that have a SEM; nothing if there is none."""
    mean, sem = (np.array([getattr(point, name) for point in points]) for name in ("mean", "sem"))
    have = np.flatnonzero(np.isfinite(sem))
    stretches = [run for run in np.split(have, np.flatnonzero(np.diff(have) > 1) + 1) if run.size > 1]
    if not stretches:
        return

    def outline(above: Array, below: Array) -> list[float | None]:
        return [value for run in stretches for value in [*_numbers(above[run]), *_numbers(below[run][::-1]), None]][:-1]

    trace = go.Scatter(
        y=outline(mean + sem, mean - sem),
        mode="lines",
        fill="toself",
        fillcolor=f"rgba({','.join(str(int(style.colour[i : i + 2], 16)) for i in (1, 3, 5))},0.13)",
        line={"width": 0},
        hoverinfo="skip",
    )
    yield Drawn(position, [outline(axis, axis) if np.isfinite(axis).all() else None for axis in x], trace)


def _hover(point: Estimate) -> str:
    sem = f"{point.sem:.2f}" if np.isfinite(point.sem) else NOTHING
    return f"mean {point.mean:.2f} %<br>SEM {sem}<br>n = {point.n} seed{'s' * (point.n != 1)}"


def _lost(n: int) -> str:
    return f"{n} seed{'s' * (n != 1)} diverged or failed"


def _bold(arm: Arm) -> str:
    """For plotly, which reads a few tags of HTML."""
    return f"<b>{escape(arm.label)}</b><br>"


def _numbers(values: Array) -> list[float]:
    """Six digits: what a screen can show."""
    return [float(f"{value:.6g}") for value in values]


def _or_none(values: Array) -> list[float] | None:
    return _numbers(values) if np.isfinite(values).all() else None


def _range(smallest: float, largest: float) -> list[float]:
    """Ends of a logarithmic axis, log10, with the figures' margin."""
    low, high = np.log10(smallest), np.log10(largest)
    margin = 0.03 * max(high - low, 1)
    return [round(float(low - margin), 4), round(float(high + margin), 4)]


def _dashes(style: Look) -> str:
    """Matplotlib's dashes, which are in widths of the line, in pixels; plotly's and SVG's notation."""
    return (
        "solid" if style.dashes == "-" else ",".join(f"{d * style.thickness * PIXELS:.3g}px" for d in style.dashes[1])
    )


def _key(arm: Arm, style: Look) -> Key:
    dashes = "none" if style.dashes == "-" else _dashes(style).replace("px", "")
    outline = MARKERS[style.marker][1]
    return Key(arm.label, style.colour, dashes, min(PIXELS * style.thickness, 3), outline, style.filled)


def _layout() -> go.Layout:
    return go.Layout(
        height=440,
        margin={"l": 58, "r": 14, "t": 12, "b": 54},
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#1f2328"},
        paper_bgcolor="white",
        plot_bgcolor="white",
        showlegend=False,
        hovermode="closest",
        hoverlabel={"align": "left", "bgcolor": "white", "font": {"color": "#1f2328"}},
        xaxis={
            "type": "log", "tickangle": 0, "exponentformat": "power", "gridcolor": "#e4e4e4", "zeroline": False,
            "linecolor": "#57606a", "ticks": "outside", "tickcolor": "#57606a", "title": {"standoff": 12},
        },
        yaxis={
            "title": {"text": "Test accuracy after the last task (%)", "standoff": 8}, "gridcolor": "#e4e4e4",
            "zeroline": False, "linecolor": "#57606a", "automargin": True,
        },
    )  # fmt: skip
