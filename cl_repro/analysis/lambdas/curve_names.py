"""The names of curves beside them, in their colours, where they hide the least: no eye goes to a legend and back."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from cl_repro.common.stats import Array

FEW = 6  # curves at most that have their names beside them; more have a legend
HALO = withStroke(linewidth=2.5, foreground="white", alpha=0.85)  # of letters over a grid or a band
CONTRAST = 4.5  # of letters on white, as accessible pages have it
WRONG = 20  # what a place costs that is as near to another curve
STEP, NEAR, FAR = 4, (5, 12), 40  # pixels at 100 dpi: along a curve; from it to its name; from there to others


def told(figure: Figure, panels: Iterable[Axes]) -> None:
    """What the curves are: their names beside them in the first panel if they are few, else a legend at the right."""
    first, *_ = panels
    handles, labels = first.get_legend_handles_labels()
    if len(labels) <= FEW:
        named_beside(first)
        return
    figure.legend(handles, labels, loc="outside right center", alignment="left")


def named_beside(axes: Axes, names: Mapping[str, str] | None = None, size: float = 9.5) -> None:
    """The name of every labelled curve beside it, in its colour, where it hides the least; then no legend is needed.

    Call it when all else has been drawn, since what is free depends on the layout. `names`: shorter ones, by label.
    """
    figure: Any = axes.figure
    figure.draw_without_rendering()  # places the panels
    scale = figure.dpi / 100
    handles, labels = axes.get_legend_handles_labels()
    lines: list[Any] = [handle[0] if isinstance(handle, ErrorbarContainer) else handle for handle in handles]
    courses = [course(line, STEP * scale) for line in lines]
    hiding = [np.concatenate([c, *bars(h, STEP * scale)]) for c, h in zip(courses, handles, strict=True)]
    there = [text.get_window_extent() for text in axes.texts]
    taken = [np.array([[box.x0, box.y0, box.x1, box.y1] for box in there]).reshape(-1, 4)]  # corners of names
    box = axes.get_window_extent()
    drawn = [i for i, points in enumerate(courses) if len(points)]
    for i in sorted(drawn, key=lambda i: len(courses[i])):  # first what has the fewest places
        name = (names or {}).get(labels[i], labels[i])
        text = axes.text(
            0, 0, name, color=inked(lines[i].get_color()), fontsize=size, fontweight="bold", va="bottom",
            transform=None, zorder=8, path_effects=[HALO],
        )  # fmt: skip
        text.set_in_layout(False)
        extent = text.get_window_extent()
        w, h = extent.width, extent.height
        rings = [places(courses[i][::3], w, h, gap * scale) for gap in NEAR]
        farther = np.repeat(5.0 * np.arange(len(NEAR)), [len(ring) for ring in rings])
        corners = np.concatenate(rings)
        inside = (
            (corners[:, 0] >= box.x0) & (corners[:, 1] >= box.y0)
            & (corners[:, 0] + w <= box.x1) & (corners[:, 1] + h <= box.y1)
        )  # fmt: skip
        if inside.any():
            corners, farther = corners[inside], farther[inside]
        boxes = np.hstack([corners, corners + np.array([w, h])])
        others = np.concatenate([np.empty((0, 2)), *(h for j, h in enumerate(hiding) if j != i)])
        hidden = near(boxes, others, FAR * scale) + 3 * near(boxes, hiding[i], 0) + 1e4 * overlaps(boxes, *taken)
        beyond = apart(boxes, courses[i]) - apart(boxes, others) if len(others) else np.zeros(len(boxes))
        taken_for = WRONG * np.clip(1 + beyond / (NEAR[0] * scale), 0, 3)  # nearer to another curve than to its own
        best = int(np.argmin(np.round(hidden + farther + taken_for)))
        taken.append(boxes[best : best + 1])
        text.set_transform(axes.transAxes)
        text.set_position(tuple(axes.transAxes.inverted().transform(corners[best])))


def course(line: Any, step: float) -> Array:
    """A curve as points [N, 2] in pixels, as far apart as `step`."""
    xy = np.asarray(line.get_transform().transform(line.get_xydata()), dtype=float)
    xy = xy[np.isfinite(xy).all(axis=1)]
    if len(xy) < 2 or line.get_linestyle() in ("None", "none", ""):
        return xy
    parts = [
        a + (b - a) * np.linspace(0, 1, 1 + int(np.hypot(*(b - a)) // step), endpoint=False)[:, None]
        for a, b in pairwise(xy)
    ]
    return np.concatenate([*parts, xy[-1:]])


def bars(handle: Any, step: float) -> Iterator[Array]:
    """The error bars of a curve, as points [N, 2] in pixels."""
    for collection in handle[2] if isinstance(handle, ErrorbarContainer) else ():
        for segment in collection.get_segments():
            (a, b) = collection.get_transform().transform(segment)
            if np.isfinite([a, b]).all():
                yield a + (b - a) * np.linspace(0, 1, 2 + int(np.hypot(*(b - a)) // step))[:, None]


def places(points: Array, w: float, h: float, gap: float) -> Array:
    """Lower left corners [M, 2] of boxes of w x h beside each point: right, left, above, below and at the corners."""
    away = gap + 0.05 * h
    right, left, above, below = away, -w - away, away, -h - away
    middle, centre = -h / 2, -w / 2
    around = [
        (right, middle), (left, middle), (centre, above), (centre, below), (right, above), (right, below),
        (left, above), (left, below),
    ]  # fmt: skip
    return np.concatenate([points + offset for offset in around])


def apart(boxes: Array, points: Array) -> Array:
    """How far the nearest point [N, 2] is from each box [M, 4]."""
    x, y = points[None, :, 0], points[None, :, 1]
    dx = np.maximum(0, np.maximum(boxes[:, 0, None] - x, x - boxes[:, 2, None]))
    dy = np.maximum(0, np.maximum(boxes[:, 1, None] - y, y - boxes[:, 3, None]))
    return np.hypot(dx, dy).min(axis=1)


def near(boxes: Array, points: Array, margin: float) -> Array:
    """How many points [N, 2] each box [M, 4] has inside, or within a margin, where they count the less the farther."""
    x, y = points[None, :, 0], points[None, :, 1]
    dx = np.maximum(0, np.maximum(boxes[:, 0, None] - x, x - boxes[:, 2, None]))
    dy = np.maximum(0, np.maximum(boxes[:, 1, None] - y, y - boxes[:, 3, None]))
    away = np.hypot(dx, dy)
    inside = 10.0 * (away == 0)
    return (inside + np.maximum(0, 1 - away / margin) if margin else inside).sum(axis=1)


def overlaps(boxes: Array, *taken: Array) -> Array:
    """How many of the boxes that are taken each box [M, 4] overlaps."""
    there = np.concatenate(taken)
    apart = (
        (boxes[:, 0, None] >= there[:, 2]) | (boxes[:, 2, None] <= there[:, 0])
        | (boxes[:, 1, None] >= there[:, 3]) | (boxes[:, 3, None] <= there[:, 1])
    )  # fmt: skip
    return (~apart).sum(axis=1)


def inked(colour: str) -> str:
    """A colour, darkened until letters in it can be read on white."""
    rgb: Array = np.array(to_rgb(colour))
    while 1.05 / (luminance(rgb) + 0.05) < CONTRAST:
        rgb = 0.95 * rgb
    return to_hex((rgb[0], rgb[1], rgb[2]))


def luminance(rgb: Array) -> float:
    """Relative luminance of an sRGB colour, as the Web Content Accessibility Guidelines 2.1 define it."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))
