"""Panels of the figures: correlation by task, scatter of weights, sums along training, noise of a mini-batch.

A measure has the colour that its method has in all figures; markers and dashes repeat the distinction.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.ticker import FixedLocator, LogLocator

from cl_repro.analysis.data.looks import METHODS
from cl_repro.analysis.lambdas.curve_names import course, named_beside
from cl_repro.analysis.measurements.unifying import MAIN, NO_INIT, NO_PENALTY, PUBLISHED, Figures
from cl_repro.analysis.output.figures import decades
from cl_repro.analysis.output.markup import DASH
from cl_repro.common.stats import Array, Estimate

SI, SIB, SIU, SOS = (METHODS[name].colour for name in ("si", "sib", "siu", "sos"))
PURPLE, GREY, RED, MAGENTA = "#8E44AD", "#8C8C8C", "#D62728", "#C2579C"  # controls; the full gradient; the loss
WORDS = {
    "si": "SI", "sib": "SIB", "siu": "SIU", "sos": "SOS", "mas": "MAS", "masx": "MASX", "af": "AF",
    "sqrt_fisher": "√Fisher", "fisher": "Fisher", "mas_logits": "MAS of logits", "masx_logits": "MASX of logits",
    "sos_alpha1": "SOS, alpha = 1", "af_many": "AF",
}  # fmt: skip
NOISE = "#0072B2"
UNCLIPPED = "unclipped, as published"
LAST = (UNCLIPPED, PUBLISHED)  # of a legend
FULL, DROP = "full gradient", "decrease of the loss"  # labels of sums
PLUSES = 25  # marks of the full gradient
SUMS = {"si": "sum(si)", "siu": "sum(siu)", "full": "sum(full)", "drop": "loss drop"}  # column -> published quantity
ON_THE_WAY = (100, 1000, 2000)  # iterations at which sums of the first task are published
LEGEND: dict[str, Any] = {"loc": "best", "fontsize": 8.5, "labelspacing": 0.35, "handlelength": 2.6}
TRIES = 25  # at making room for a legend
KINDS = {"_raw": " before rescaling", "_unclipped": " rescaled, unclipped", "": ""}


class Series(NamedTuple):
    """One line of a correlation panel."""

    x: str
    y: str
    colour: str
    marker: str
    dashes: Any = "-"
    kind: str = MAIN
    note: str = ""  # after the label


def word(measure: str) -> str:
    """A measure's name in figures and tables."""
    return WORDS[stem(measure)] + KINDS[measure.removeprefix(stem(measure))]


def paths(kind: str = "", controls: bool = True) -> list[Series]:
    """SI, SIB and SIU beside SOS, and SI of the control runs."""
    own = [Series(f"si{kind}", "sos", SI, "o"), Series(f"sib{kind}", "sos", SIB, "s", (0, (4, 1.5)))]
    own.append(Series(f"siu{kind}", "sos", SIU, "^", (0, (1.5, 1))))
    if controls:
        dashed = (0, (5, 2))
        own.append(Series(f"si{kind}", "sos", PURPLE, "D", dashed, NO_INIT))
        own.append(Series(f"si{kind}", "sos", GREY, "v", dashed, NO_PENALTY))
    return own


def label(one: Series, found: Figures) -> str:
    """E.g. SI and SOS; of a control with its coefficient, and with its seeds where they are not the main run's."""
    text = f"{WORDS[stem(one.x)]} {DASH} {WORDS[one.y]}{one.note}"
    return text if one.kind == MAIN else f"{text} ({control(one.kind, found)})"


def control(kind: str, found: Figures) -> str:
    """A control run's coefficient, and its seeds where they are not as many as the main run's."""
    own = found.networks[found.networks["kind"] == kind]
    what = "c = 0" if kind == NO_PENALTY else f"no re-init, c = {own['lam'].iloc[0]:g}"
    return what if len(own) == len(found.main) else f"{what}; {len(own)} seed{'s' * (len(own) != 1)}"


def stem(measure: str) -> str:
    """A measure without its kind."""
    return measure.removesuffix(next(kind for kind in KINDS if measure.endswith(kind)))


def correlation(axes: Axes, found: Figures, series: Sequence[Series]) -> None:
    """Pearson's r by task, mean with error bars of one SEM over seeds; short lines are the published values."""
    there = [(one, r) for one in series if (r := found.r(one.x, one.y, one.kind))]
    for i, (one, r) in enumerate(there):
        x = np.array(list(r)) + 0.07 * (i - (len(there) - 1) / 2)  # error bars beside each other
        bars(axes, x, list(r.values()), one, label(one, found))
        published(axes, one.colour, found.theirs(quantity(one)))
    axes.xaxis.set_major_locator(FixedLocator(found.tasks))
    beyond = 0.5 if len(found.tasks) > 1 else 1.5  # around one task alone, so that its points stay together
    axes.set_xlim(min(found.tasks) - beyond, max(found.tasks) + beyond)
    axes.set_xlabel("Task")
    axes.set_ylabel("Pearson's r")


def without_maximum(axes: Axes, found: Figures) -> None:
    """The same without the maximum, where that is what was published: thin lines."""
    for one in paths("_unclipped"):
        r, theirs = found.r(one.x, one.y, one.kind), found.theirs(quantity(one))
        if r and theirs:
            mean = [e.mean for e in r.values()]
            text = UNCLIPPED if one.kind == MAIN else "_"
            axes.plot(list(r), mean, color=one.colour, linewidth=1.2, linestyle=(0, (1, 1)), label=text, zorder=2.5)
            published(axes, one.colour, theirs)


def without_the_largest(axes: Axes, found: Figures, shares: Sequence[float]) -> None:
    """R of the first task without shares of the weights: those of the largest SI, SIB or SIU."""
    for i, one in enumerate(paths("_raw", controls=False)):
        r = {at: found.r(one.x, one.y, dropped=share).get(1) for at, share in enumerate(shares)}
        there = {at: e for at, e in r.items() if e}
        bars(axes, np.array(list(there)) + 0.07 * (i - 1), list(there.values()), one, label(one, found))
        for at, share in enumerate(shares):
            theirs = found.theirs(f"{quantity(one)} without {share:.0%}")
            published(axes, one.colour, {at: theirs[1]} if 1 in theirs else {})
    axes.set_ylabel("Pearson's r")


def bars(axes: Axes, x: Array, r: Sequence[Estimate], one: Series, text: str) -> None:
    """A line of means with error bars."""
    mean, sem = [e.mean for e in r], np.nan_to_num([e.sem for e in r])
    axes.errorbar(
        x, mean, yerr=sem, color=one.colour, linestyle=one.dashes, marker=one.marker, markersize=5.5, linewidth=1.6,
        elinewidth=1.2, capsize=2.5, label=text, zorder=3,
    )  # fmt: skip


def published(axes: Axes, colour: str, points: Mapping[int, float]) -> None:
    """Short lines at x, y."""
    for x, y in points.items():
        axes.plot(x, y, "_", color=colour, markersize=15, markeredgewidth=3, alpha=0.4, zorder=2)
    if points:
        axes.plot([], [], "_", color="#555555", markersize=13, markeredgewidth=3, alpha=0.4, label=PUBLISHED)


def quantity(one: Series) -> str:
    """What the published table calls it."""
    return ("" if one.kind == MAIN else f"{one.kind} ") + f"r({one.x},{one.y})"


def from_zero_to_one(axes: Axes) -> None:
    """The axis of r with ticks at 0, 0.5 and 1; lower where something is below 0."""
    axes.set_ylim(min(-0.04, lowest(axes) - 0.05), 1.05)
    axes.yaxis.set_major_locator(FixedLocator([-0.5, 0, 0.5, 1]))


def near_one(axes: Axes) -> None:
    """The axis of r from 0.9 to 1; from lower where something is below."""
    bottom = min(0.9, np.floor(20 * lowest(axes)) / 20)
    margin = 0.04 * (1 - bottom)
    axes.set_ylim(bottom - margin, 1 + margin)


def lowest(axes: Axes) -> float:
    """The smallest y of all lines and markers, error bars included; at most 1."""
    return float(min(np.min(line.get_ydata(), initial=1.0) for line in axes.lines))


def scatter(axes: Axes, found: Figures, x: str, y: str, colour: str) -> Axes:
    """Two measures of some weights after the first task; the r above them is of all weights; returns the axes."""
    assert found.scatter
    a, b = found.scatter.of[x], found.scatter.of[y]
    axes.plot(a, b, ".", color=colour, markersize=2.6, alpha=0.3, markeredgewidth=0, rasterized=True)
    axes.set_xlabel(word(x))
    axes.set_ylabel(word(y))
    axes.set_title(f"r = {found.r_of_scatter(x, y):.2f}", loc="right", fontsize=11)
    axes.ticklabel_format(style="sci", scilimits=(-2, 3), useMathText=True)
    axes.locator_params(nbins=4)
    return axes


def sums(axes: Axes, found: Figures, task: int) -> None:
    """Summed contributions of SI and SIU, along the full gradient if it is known, and the decrease of the loss."""
    rows = found.path(task)
    t = rows["iteration"]
    axes.plot(t, rows["si"], color=SI, linewidth=2, label="SI")
    axes.plot(t, rows["siu"], color=SIU, linewidth=2, label="SIU")
    exact = rows[rows["full"].notna()]
    if len(exact):
        few = exact.iloc[:: max(1, len(exact) // PLUSES)]
        every = exact["full_every"].iloc[0]
        label = FULL + (f" (one step in {every:.0f})" if every > 1 else "")
        axes.plot(few["iteration"], few["full"], "+", color=RED, markersize=7, markeredgewidth=1.3, label=label)
    axes.plot(t, rows["drop"], color=MAGENTA, linewidth=1.2, label=DROP)
    if not found.twin:  # a twin's sums are of another size
        for colour, (column, quantity) in zip((SI, SIU, RED, MAGENTA), SUMS.items(), strict=True):
            if rows[column].isna().all():
                continue
            values = {i: found.theirs(f"{quantity} at {i}") for i in ON_THE_WAY} | {t.iloc[-1]: found.theirs(quantity)}
            published(axes, colour, {i: value[task] for i, value in values.items() if task in value})
    axes.set_xlabel("Iteration")
    axes.locator_params(axis="x", nbins=4, integer=True)
    axes.margins(y=0.14)  # for names


def name_sums(axes: Axes) -> None:
    """Names beside the curves of `sums`, short ones."""
    labels = axes.get_legend_handles_labels()[1]
    short = {DROP: "loss"} | {label: FULL for label in labels if label.startswith(FULL)}
    named_beside(axes, short, size=9)


def norms(axes: Axes, found: Figures) -> None:
    """Squared lengths of a mini-batch's noise and of the full gradient, and their ratio, along the first task."""
    rows = found.noise
    t = rows["iteration"]
    noise, full = r"$\Vert\, g - g_\mathrm{full} \Vert^2$", r"$\Vert\, g_\mathrm{full} \Vert^2$"
    axes.plot(t, rows["noise"] / rows["signal"], color=GREY, linewidth=1.0, label="noise / full gradient")
    axes.plot(t, rows["noise"], color=NOISE, linewidth=1.3, label=f"noise, {noise}")
    axes.plot(t, rows["signal"], color=RED, linewidth=1.3, label=f"full gradient, {full}")
    axes.locator_params(axis="x", integer=True)
    axes.set_yscale("log")
    axes.set_xlabel("Iteration")
    axes.set_ylabel("Squared length, or ratio (log scale)")


def exceedance(axes: Axes, found: Figures) -> None:
    """Fraction of iterations whose ratio of noise to full gradient is at least x."""
    ratio = np.sort(found.noise["noise"] / found.noise["signal"])
    axes.step(ratio, 1 - np.arange(len(ratio)) / len(ratio), where="pre", color=NOISE, linewidth=2)
    axes.axvline(1, color="#555555", linewidth=1, linestyle=(0, (2, 2)))
    decades(axes, ratio[0], ratio[-1])
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 3)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("Ratio of noise to full gradient, x (log scale)")
    axes.set_ylabel("Fraction of iterations with a ratio ≥ x")


def entries(axes: Sequence[Axes]) -> dict[str, Any]:
    """Each name of a legend once, with its mark; what is not a series of its own comes last."""
    marks = {name: line for one in axes for line, name in zip(*one.get_legend_handles_labels(), strict=True)}
    return marks | {name: marks.pop(name) for name in LAST if name in marks}


def legend_within(axes: Sequence[Axes]) -> None:
    """One legend for several panels, in the one and the place where it hides the least of the data."""
    marks = entries(axes)
    figure: Any = axes[0].figure
    figure.draw_without_rendering()  # places the panels
    made = [(one, one.legend(marks.values(), marks.keys(), **LEGEND)) for one in axes]
    hidden = [covered(one, legend) for one, legend in made]
    kept = int(np.argmin(hidden))
    for i, (_, legend) in enumerate(made):
        if i != kept:
            legend.remove()
    for _ in range(TRIES):
        if not covered(*made[kept]):
            return
        made[kept][1].set_loc("lower left")  # where room is made
        low, high = axes[0].get_ylim()
        for one in axes:
            one.set_ylim(low - 0.1 * (high - low), high)
        figure.draw_without_rendering()


def covered(axes: Axes, legend: Legend) -> int:
    """How many points of curves lie below a legend."""
    box = legend.get_window_extent()
    points = [course(line, 4.0) for line in axes.lines]
    return sum(int(box.count_contains(xy)) for xy in points if len(xy))
