"""The pieces of an interactive chart of accuracies, as data for plotly: lines, bands, buttons, axes."""

import json
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from cl_repro.analysis.data.looks import Look
from cl_repro.analysis.lambdas.accuracy import NOTHING
from cl_repro.analysis.lambdas.curves import BAND
from cl_repro.analysis.output.markup import Table
from cl_repro.common.stats import Array, Estimate

# Matplotlib's markers: plotly's name of each, and its outline in a key of 30 x 14 with its middle at 15, 7.
MARKERS = {
    "": ("circle", ""),
    "o": ("circle", "M11 7a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z"),
    "s": ("square", "M11.5 3.5h7v7h-7z"),
    "^": ("triangle-up", "M15 2.5l4.5 8h-9z"),
    "v": ("triangle-down", "M15 11.5l4.5 -8h-9z"),
    "<": ("triangle-left", "M10.5 7l8 -4.5v9z"),
    ">": ("triangle-right", "M19.5 7l-8 -4.5v9z"),
    "d": ("diamond-tall", "M15 2l3 5l-3 5l-3 -5z"),
    "D": ("diamond", "M15 2.5l4.5 4.5l-4.5 4.5l-4.5 -4.5z"),
    "P": ("cross", "M13.5 2.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z"),
    "X": ("x", "M12 2.5l3 3l3 -3l1.5 1.5l-3 3l3 3l-1.5 1.5l-3 -3l-3 3l-1.5 -1.5l3 -3l-3 -3z"),
    "*": ("star", "M15 2l1.3 3.5h3.7l-3 2.3l1.1 3.7l-3.1 -2.2l-3.1 2.2l1.1 -3.7l-3 -2.3h3.7z"),
    "p": ("pentagon", "M15 2.5l4.5 3.4l-1.7 5.1h-5.6l-1.7 -5.1z"),
    "8": ("octagon", "M13.2 2.6h3.6l2.6 2.6v3.6l-2.6 2.6h-3.6l-2.6 -2.6v-3.6z"),
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


def assembled(
    title: str,
    axes: Sequence[tuple[str, float, float]],
    drawn: Iterable[Drawn],
    keys: Iterable[Key],
    table: Table,
    window: str = "",
    left_out: tuple[str, ...] = (),
    ticks: Sequence[int] | None = None,
) -> Chart:
    """A chart of traces, bands below lines.

    `axes` has title, smallest and largest x of each axis to choose from; every trace has an x for each, and belongs to
    the arm of a key, by its position. `ticks` are those of x, if they are not to be decades; all else is as in `Chart`.
    """
    traces = sorted(drawn, key=lambda one: one.trace.fill != "toself")
    payload = {
        "traces": [one.trace.to_plotly_json() for one in traces],
        "arms": [one.arm for one in traces],
        "axes": [
            {"title": name, "range": _range(low, high), "x": [one.x[i] for one in traces]}
            for i, (name, low, high) in enumerate(axes)
        ],
        "layout": _layout(ticks).to_plotly_json(),
    }
    text = json.dumps(payload, separators=(",", ":"), allow_nan=False)
    return Chart(title, tuple(name for name, *_ in axes), tuple(keys), window, left_out, table, text)


def flat_line(position: int, x: list[Array], point: Estimate, name: str, style: Look) -> Iterator[Drawn]:
    """One mean along all x of every axis, with a band of one SEM."""
    n = len(x[0])
    yield drawn_line(position, [numbers(axis) for axis in x], [point] * n, name, style, [hovered(point)] * n)
    yield from band(position, x, [point] * n, style)


def drawn_line(
    position: int, x: Sequence[Sequence[float] | None], points: list[Estimate], name: str, style: Look, hover: list[str]
) -> Drawn:
    """The line of an arm: its means over seeds, joined, and what pointing at one tells."""
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
        hovertemplate=template(name),
    )
    return Drawn(position, x, trace)


def band(position: int, x: list[Array], points: list[Estimate], style: Look, opacity: float = BAND) -> Iterator[Drawn]:
    """Mean +- SEM as closed outlines, one for each stretch of points that have a SEM; nothing if there is none."""
    mean, sem = (np.array([getattr(point, name) for point in points]) for name in ("mean", "sem"))
    have = np.flatnonzero(np.isfinite(sem))
    stretches = [run for run in np.split(have, np.flatnonzero(np.diff(have) > 1) + 1) if run.size > 1]
    if not stretches:
        return

    def outline(above: Array, below: Array) -> list[float | None]:
        return [value for run in stretches for value in [*numbers(above[run]), *numbers(below[run][::-1]), None]][:-1]

    trace = go.Scatter(
        y=outline(mean + sem, mean - sem),
        mode="lines",
        fill="toself",
        fillcolor=f"rgba({','.join(str(int(style.colour[i : i + 2], 16)) for i in (1, 3, 5))},{opacity:g})",
        line={"width": 0},
        hoverinfo="skip",
    )
    yield Drawn(position, [outline(axis, axis) if np.isfinite(axis).all() else None for axis in x], trace)


def hovered(point: Estimate) -> str:
    """What pointing at a mean tells of it."""
    sem = f"{point.sem:.2f}" if np.isfinite(point.sem) else NOTHING
    return f"mean {point.mean:.2f} %<br>SEM {sem}<br>n = {point.n} seed{'s' * (point.n != 1)}"


def template(name: str) -> str:
    """The name above each point's own text, for plotly, which reads a few tags of HTML."""
    return f"<b>{escape(name).replace('%', '&#37;')}</b><br>%{{text}}<extra></extra>"


def numbers(values: Array) -> list[float]:
    """Six digits: what a screen can show."""
    return [float(f"{value:.6g}") for value in values]


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


def key(name: str, style: Look) -> Key:
    """The button of an arm that is drawn so."""
    dashes = "none" if style.dashes == "-" else _dashes(style).replace("px", "")
    return Key(name, style.colour, dashes, min(PIXELS * style.thickness, 3), MARKERS[style.marker][1], style.filled)


def _layout(ticks: Sequence[int] | None) -> go.Layout:
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
            "tickvals": ticks,
        },
        yaxis={
            "title": {"text": "Test accuracy after the last task (%)", "standoff": 8}, "gridcolor": "#e4e4e4",
            "zeroline": False, "linecolor": "#57606a", "automargin": True,
        },
    )  # fmt: skip
