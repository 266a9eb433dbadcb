"""What all figures share: titles and letters, decades on an axis, and files that say where they come from."""

import hashlib
import io
import json
import re
import string
import textwrap
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cl_repro.common.stats import Array
from cl_repro.records import write_atomically

LINEAR = 0.7  # width of the linear part of an axis with a 0, in decades
PADDED = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)  # inches
SOFT = "#555555"  # of what is said beside the data
LETTERS = 13.5  # of a note, to the inch
BOLD = 9.0  # of a title, to the inch
MOST = 8  # panels that a narrow screen shows one below the other
DPI = 200  # of a PNG
CLIP = re.compile(rb'(clip-path="url\(#|<clipPath id=")(p[0-9a-f]{10})')
STYLE: Any = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same picture everywhere
    "font.size": 10.5,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.handlelength": 3.4,
    "legend.labelspacing": 0.75,
    "legend.title_fontsize": 9.5,
}


class Drawing(NamedTuple):
    """A figure that is yet to be drawn."""

    name: str  # of its files
    title: str  # in their metadata: the folder of results, and what it is of
    source: str  # there, too: program and commits
    draw: Callable[[], Figure]
    grid: bool = True

    def write(self, out: Path) -> list[Path]:
        """Draw <out>/<name>.png and .svg, in a folder that is made if missing; returns the paths."""
        with styled(self.grid):
            return save(self.draw(), self.title, self.source, out / self.name)


def styled(grid: bool = True) -> AbstractContextManager[None]:
    """Within it figures are made as all of ours look."""
    return mpl.rc_context(STYLE | {"axes.grid": grid})


def headed(figure: Figure, title: str, note: str = "") -> None:
    """The title of a figure at its upper left, and what all of it needs to be read below its panels."""
    lines = textwrap.fill(literal(title), round(BOLD * figure.get_figwidth()))
    figure.suptitle(lines, x=0.012, ha="left", fontweight="bold", fontsize=12)
    if note:
        lines = textwrap.fill(note, round(LETTERS * figure.get_figwidth()))
        figure.supxlabel(lines, x=0.012, ha="left", fontsize=8.5, color=SOFT)


def lettered(panels: Iterable[Axes], names: Iterable[str]) -> None:
    """Panels in reading order with a letter and a name each; a single one has its name alone."""
    pairs = list(zip(panels, names, strict=True))
    for letter, (axes, name) in zip(string.ascii_lowercase, pairs, strict=False):
        shown = literal(name)
        axes.set_title(rf"$\bf{{{letter}}}$  {shown}" if len(pairs) > 1 else shown, loc="left", fontsize=11)


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
    """Write <stem>.png and .svg, in a folder that is made if missing; returns the paths.

    Title (study and what it is of) and source (program and commits) are in their metadata, and nothing that changes
    between two drawings.
    """
    png, svg = (stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "svg"))
    png_data, svg_data = io.BytesIO(), io.BytesIO()
    figure.savefig(png_data, format="png", dpi=DPI)
    about = {"Title": title, "Source": source, "Date": None, "Creator": None}
    with mpl.rc_context({"svg.hashsalt": stem.name}):  # with a salt, the ids in the SVG repeat
        figure.savefig(svg_data, format="svg", metadata=about)
    texts = {"Title": title, "Source": source, "Panels": json.dumps(boxes_of(figure))}
    write_atomically(png, few_colours(png_data, texts))
    write_atomically(svg, numbered(svg_data.getvalue(), stem.name))
    return [png, svg]


def numbered(svg: bytes, name: str) -> bytes:
    """An SVG whose clip paths are named by the figure's name and a number.

    matplotlib names them by all digits of their place; the last ones, which the file does not show, are those of a
    solver whose order depends on addresses in memory.
    """
    names: dict[bytes, bytes] = {}

    def named(at: re.Match[bytes]) -> bytes:
        own = hashlib.sha256(f"{name}-{len(names)}".encode()).hexdigest()[:10]
        return at[1] + names.setdefault(at[2], f"p{own}".encode())

    return CLIP.sub(named, svg)


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
