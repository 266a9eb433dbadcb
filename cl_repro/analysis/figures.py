"""What all figures share: decades on the axis of x, and files that say where they come from."""

import io
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from cl_repro.records import write_atomically


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
