"""What all figures share: decades on the axis of x, and files that say where they come from."""

import io
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from cl_repro.records import write_atomically
from cl_repro.stats import Array

LINEAR = 0.7  # width of the linear part of an axis with a 0, in decades


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
    figure.savefig(png_data, format="png", dpi=200, metadata={"Title": title, "Source": source, "Software": None})
    figure.savefig(svg_data, format="svg", metadata={"Title": title, "Source": source, "Date": None, "Creator": None})
    write_atomically(png, png_data.getvalue())
    write_atomically(svg, svg_data.getvalue())
    return [png, svg]
