"""The figure: error of an estimate of the Fisher against its cost, before and after the best factor."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, NullLocator

from cl_repro.analysis.anatomy import Anatomy
from cl_repro.analysis.arms import LOOKS, label
from cl_repro.analysis.curves import STYLE
from cl_repro.analysis.figures import decades, save

PANELS = {
    "error": r"Error $\Vert F - E\,\Vert \,/\, \Vert E\,\Vert$, E exact of all examples",
    "shape_error": "Error of the shape: the same after the best factor",
}
ARROW, BEYOND = r"$\uparrow$", "beyond the axis"
ROOM = 1.25  # of the highest median, for what lies above


def plot_cost(found: Anatomy, out: Path) -> list[Path]:
    """Draw <out>/<name>.png and .svg; returns the paths."""
    style: Any = {**STYLE, "svg.hashsalt": found.name}
    with mpl.rc_context(style):
        return save(draw(found), f"{found.name}: {found.title}", found.source, out / found.name)


def draw(found: Anatomy) -> Figure:
    """Medians over passes as lines from the smallest n to all, every pass as a dot."""
    figure = Figure(figsize=(12.6, 4.9), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))  # inches
    panels = figure.subplots(1, 2)
    for axes, (column, text) in zip(panels, PANELS.items(), strict=True):
        panel(axes, found.passes, column)
        axes.set_ylabel(text)
        axes.set_xlabel("Cost in training epochs (log scale)")
    figure.suptitle(found.title, x=0.012, ha="left", fontweight="bold", fontsize=12)
    handles = {name: line for axes in panels for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    if BEYOND in handles:
        handles[BEYOND] = handles.pop(BEYOND)  # last
    legend = figure.legend(
        handles.values(), handles.keys(), loc="outside right center", title="median; dots: passes", alignment="left"
    )
    legend.get_title().set_color("#555555")
    return figure


def panel(axes: Axes, passes: pd.DataFrame, column: str) -> None:
    """One error against cost."""
    middle = passes.groupby(["estimator", "n"], sort=False, dropna=False)[["cost", column]].median()
    top = max(1.1, ROOM * middle[column].max())
    for name, style in LOOKS.items():
        own = passes[passes["estimator"] == name]
        if own.empty:
            continue
        above = own[column] > top
        axes.plot(own["cost"][~above], own[column][~above], ".", markersize=4, alpha=0.45, color=style.colour, zorder=2)
        if above.any():
            at = np.full(int(above.sum()), 0.965 * top)
            axes.plot(own["cost"][above], at, linestyle="", marker=ARROW, markersize=10, color=style.colour)
            axes.plot([], [], linestyle="", marker=ARROW, markersize=10, color="#444444", label=BEYOND)
        line = middle.loc[name].sort_values("cost")
        unit = int(own["unit"].iloc[0])
        axes.plot(
            line["cost"], line[column], color=style.colour, linestyle=style.dashes, linewidth=style.thickness,
            marker=style.marker, markersize=style.size, markerfacecolor=style.colour if style.filled else "white",
            markeredgecolor=style.colour, markeredgewidth=1.4, zorder=4 - 0.1 * style.size,  # the smaller on top
            label=label("ewc", name, unit if unit > 1 else None),
        )  # fmt: skip
    decades(axes, middle["cost"].min(), middle["cost"].max())
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(-0.04 * top, top)
    examples(axes, middle.loc["exact", "cost"])


def examples(axes: Axes, cost: pd.Series) -> None:
    """The number of examples above the axes, at the cost of exact."""
    above = axes.secondary_xaxis("top")
    above.spines["top"].set_visible(False)
    names = ["all" if np.isnan(n) else f"{n:.0f}" for n in cost.index]
    above.set_xticks(cost.to_numpy(), names, fontsize=8.5, color="#555555")
    above.get_xticklabels()[0].set_horizontalalignment("right")  # it may be close to the next
    above.tick_params(which="both", length=0)
    above.xaxis.set_minor_locator(NullLocator())
    above.set_xlabel("examples of the estimate", fontsize=8.5, color="#555555")
