"""The figure: error of an estimate of the Fisher against its cost, before and after the best factor."""

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from cl_repro.analysis.data.arms import label
from cl_repro.analysis.data.looks import LOOKS
from cl_repro.analysis.lambdas.curve_names import told
from cl_repro.analysis.measurements.anatomy import Anatomy
from cl_repro.analysis.output.figures import PADDED, SOFT, Drawing, decades, headed, lettered

PANELS = {"error": "as it is", "shape_error": "of the shape: after the best factor"}
ERROR = {
    "error": r"Error $\Vert F - E\,\Vert \,/\, \Vert E\,\Vert$",
    "shape_error": r"Error $\min_c\, \Vert c F - E\,\Vert \,/\, \Vert E\,\Vert$",
}
NOTE = "Lines: median of passes; dots: passes; ↑: passes beyond the axis. E: exact, of all examples"
ARROW = r"$\uparrow$"
CLOSE = 0.07  # of the width of the axis: numbers of examples nearer to each other share a label
ROOM = 1.25  # of the highest median, for what lies above


def drawings(found: Anatomy) -> list[Drawing]:
    """The one there is."""
    return [Drawing(found.name, f"{found.name}: {found.title}", found.source, partial(draw, found))]


def draw(found: Anatomy) -> Figure:
    """Medians over passes as lines from the smallest n to all, every pass as a dot."""
    figure = Figure(figsize=(12.6, 4.9), layout=PADDED)  # inches
    panels = figure.subplots(1, 2)
    for axes, column in zip(panels, PANELS, strict=True):
        panel(axes, found.passes, column)
        axes.set_ylabel(ERROR[column])
        axes.set_xlabel("Cost in training epochs (log scale)")
    lettered(panels, [f"error {name}" for name in PANELS.values()])
    headed(figure, found.title, NOTE)
    told(figure, panels[::-1])  # the second has the more room
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
        line = middle.loc[name].sort_index()  # by n, all of them last
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
    """The number of examples above the axes, at the cost of exact; those too close to each other as one label."""
    above = axes.secondary_xaxis("top")
    above.spines["top"].set_visible(False)
    low, high = np.log(axes.get_xlim())
    groups: list[list[tuple[float, str]]] = []
    for at, n in sorted(zip(cost, cost.index, strict=True)):
        name = "all" if np.isnan(n) else f"{n:.0f}"
        if groups and np.log(at / groups[-1][-1][0]) < CLOSE * (high - low):
            groups[-1].append((at, name))
        else:
            groups.append([(at, name)])
    middles = [np.exp(np.mean(np.log([at for at, _ in group]))) for group in groups]
    names = [", ".join(sorted((name for _, name in group), key=lambda name: name.zfill(9))) for group in groups]
    above.set_xticks(middles, names, fontsize=8.5, color=SOFT)
    above.tick_params(which="both", length=0)
    above.xaxis.set_minor_locator(NullLocator())
    above.set_xlabel("examples of EXACT", fontsize=8.5, color=SOFT)
