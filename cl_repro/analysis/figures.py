"""What all figures share: titles, letters, names beside curves, decades, and files that say where they come from."""

import io
import json
import string
import textwrap
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cl_repro.records import write_atomically
from cl_repro.stats import Array

LINEAR = 0.7  # width of the linear part of an axis with a 0, in decades
PADDED = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)  # inches
FEW = 6  # curves at most that have their names beside them; more have a legend
SOFT = "#555555"  # of what is said beside the data
LETTERS = 13.5  # of a note, to the inch
HALO = withStroke(linewidth=2.5, foreground="white", alpha=0.85)  # of letters over a grid or a band
CONTRAST = 4.5  # of letters on white, as accessible pages have it
MOST = 8  # panels that a narrow screen shows one below the other
DPI = 200  # of a PNG
STEP, NEAR, FAR = 4, (5, 12), 40  # pixels at 100 dpi: along a curve; from it to its name; from there to others


def headed(figure: Figure, title: str, note: str = "") -> None:
    """The title of a figure at its upper left, and what all of it needs to be read below its panels."""
    figure.suptitle(literal(title), x=0.012, ha="left", fontweight="bold", fontsize=12)
    if note:
        lines = textwrap.fill(note, round(LETTERS * figure.get_figwidth()))
        figure.supxlabel(lines, x=0.012, ha="left", fontsize=8.5, color=SOFT)


def lettered(panels: Iterable[Axes], names: Iterable[str]) -> None:
    """Panels in reading order with a letter and a name each; a single one has its name alone."""
    pairs = list(zip(panels, names, strict=True))
    for letter, (axes, name) in zip(string.ascii_lowercase, pairs, strict=False):
        shown = literal(name)
        axes.set_title(rf"$\bf{{{letter}}}$  {shown}" if len(pairs) > 1 else shown, loc="left", fontsize=11)


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


def named_beside(axes: Axes, names: Mapping[str, str] | None = None, size: float = 9.5) -> None:
    """The name of every curve beside it, in its colour, where it hides the least; then no legend is needed.

    Call it when all else has been drawn, since what is free depends on the layout.

    Args:
        axes: with curves that have a label.
        names: shorter ones, by label.
        size: of the letters, points.
    """
    figure: Any = axes.figure
    figure.draw_without_rendering()  # places the panels
    scale = figure.dpi / 100
    handles, labels = axes.get_legend_handles_labels()
    lines: list[Any] = [handle[0] if isinstance(handle, ErrorbarContainer) else handle for handle in handles]
    courses = [course(line, STEP * scale) for line in lines]
    taken = [np.empty((0, 4))]  # x, y, x, y of the corners of names
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
        others = np.concatenate([np.empty((0, 2)), *(c for j, c in enumerate(courses) if j != i)])
        hidden = near(boxes, others, FAR * scale) + 3 * near(boxes, courses[i], 0) + 1e4 * overlaps(boxes, *taken)
        best = int(np.argmin(np.round(hidden + farther)))
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


def told(figure: Figure, panels: Iterable[Axes], **look: Any) -> None:
    """What the curves are: their names beside them in the first panel if they are few, else a legend at the right."""
    first, *_ = panels
    handles, labels = first.get_legend_handles_labels()
    if len(labels) <= FEW:
        named_beside(first)
        return
    made = figure.legend(handles, labels, **{"loc": "outside right center", "alignment": "left"} | look)
    made.get_title().set_color(SOFT)


def literal(text: str) -> str:
    """A user's text for matplotlib, which sets what is between dollars as a formula and leaves `_x` out of a legend."""
    return ("\N{ZERO WIDTH SPACE}" if text.startswith("_") else "") + text.replace("$", r"\$")


def lambdas(axes: Axes, lams: Array) -> None:
    """An axis for lambdas [L], ascending: logarithmic; where the first is 0, linear from there to the second."""
    if lams[0] > 0:
        decades(axes, lams[0], lams[-1])
        return
    first, last = lams[1], lams[-1]
    axes.set_xscale("symlog", linthresh=first, linscale=LINEAR)
    powers = 10.0 ** np.arange(np.ceil(np.log10(first)), np.floor(np.log10(last)) + 1)
    axes.xaxis.set_major_locator(FixedLocator([0.0, *powers] if len(powers) > 1 else list(lams)))
    if len(powers) < 2:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    margin = 0.03 * max(np.log10(last / first), 1)  # decades
    axes.set_xlim(-margin / LINEAR * first, last * 10**margin)
    axes.axvspan(0, first, color="#F3F3F3", linewidth=0, zorder=0)
    axes.annotate("linear", (first / 2, 1), xycoords=axes.get_xaxis_transform(), ha="center", va="top", fontsize=8)


def decades(axes: Axes, low: float, high: float, labels: int = 20) -> None:
    """A logarithmic axis of x from `low` to `high` with a margin, with at most that many labels."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(base=10, numticks=labels))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", bottom=False)
    axes.grid(axis="x", which="minor", visible=False)
    margin = 10 ** (0.03 * max(np.log10(high / low), 1))
    axes.set_xlim(low / margin, high * margin)


def save(figure: Figure, title: str, source: str, stem: Path) -> list[Path]:
    """Write PNG and SVG with title and source in their metadata, and nothing that changes between two drawings.

    Args:
        figure: drawn with a fixed `svg.hashsalt`, if its SVG is to repeat.
        title: study and what it is of.
        source: program and commits.
        stem: of the two paths; its folder is made if missing.

    Returns:
        The paths.
    """
    png, svg = (stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "svg"))
    png_data, svg_data = io.BytesIO(), io.BytesIO()
    figure.savefig(png_data, format="png", dpi=DPI)
    figure.savefig(svg_data, format="svg", metadata={"Title": title, "Source": source, "Date": None, "Creator": None})
    texts = {"Title": title, "Source": source, "Panels": json.dumps(boxes_of(figure))}
    write_atomically(png, few_colours(png_data, texts))
    write_atomically(svg, svg_data.getvalue())
    return [png, svg]


def boxes_of(figure: Figure) -> list[list[float]]:
    """What a narrow screen can show one below the other: [left, top, right, bottom] in fractions of the figure.

    Its panels, and before them a legend outside of these. Nothing of a single panel, where panels share the names of
    their rows, or where there are too many.
    """
    panels: list[Any] = [axes for axes in figure.axes if axes.axison]
    alone = all(any(text.get_visible() and text.get_text() for text in axes.get_yticklabels()) for axes in panels)
    if not (1 < len(panels) <= MOST and alone):
        return []
    there = [legend.get_window_extent() for legend in figure.legends] + [axes.get_tightbbox() for axes in panels]
    width, height = figure.bbox.width, figure.bbox.height
    found = [(box.x0 / width, 1 - box.y1 / height, box.x1 / width, 1 - box.y0 / height) for box in there]
    return [[round(min(max(value, 0.0), 1.0), 3) for value in box] for box in found]


def few_colours(png: io.BytesIO, texts: Mapping[str, str]) -> bytes:
    """A PNG of 256 colours, which takes a third of the room, with texts in its metadata."""
    info, made = PngInfo(), io.BytesIO()
    for key, text in texts.items():
        info.add_itxt(key, text)
    image = Image.open(png).convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    image.save(made, "PNG", optimize=True, pnginfo=info, dpi=(DPI, DPI))
    return made.getvalue()
