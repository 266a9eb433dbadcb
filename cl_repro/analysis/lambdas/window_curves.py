"""How long must a window of examples be: accuracy against its length, and what evaluation costs."""

import re

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from cl_repro.analysis.comparisons.comparison import FINETUNE, JOINT, Entry, scenarios_of
from cl_repro.analysis.data.looks import LOOKS, METHODS
from cl_repro.analysis.data.study import SCENARIOS
from cl_repro.analysis.lambdas.curve_names import named_beside
from cl_repro.analysis.output.figures import headed, lettered
from cl_repro.common.stats import estimate

LABEL = re.compile(r"\[window_(?P<length>\d+)\]$")
COLOUR = METHODS["context"].colour
BANDS = {
    JOINT: LOOKS["joint"].colour,
    "replay": METHODS["replay"].colour,
    FINETUNE: LOOKS["finetune"].colour,
}


def with_windows(found: list[Entry]) -> bool:
    """Whether there are arms that differ in the length of their window."""
    return any(LABEL.search(entry.arm.label) for entry in found)


def draw(found: list[Entry], title: str, per_task: int | None) -> Figure:
    """One column per scenario: accuracy above, processor time of evaluation below.

    Args:
        found: what was compared.
        title: of the figure.
        per_task: examples of a task that enter the window, where it is known.

    Returns:
        The figure.
    """
    scenarios = scenarios_of(found)
    figure = Figure(figsize=(1.4 + 4.2 * len(scenarios), 6.0), layout="constrained")  # inches
    above, below = figure.subplots(2, len(scenarios), squeeze=False, sharex=True, height_ratios=(2, 1))
    for accuracy, cost, scenario in zip(above, below, scenarios, strict=True):
        own = [entry for entry in found if entry.scenario == scenario]
        lengths = accuracies(accuracy, own)
        ratios = [estimate(entry.asking).mean for _, entry in of_windows(own)]
        cost.plot(lengths, ratios, "o-", color=COLOUR, linewidth=2, markersize=5.5)
        cost.margins(y=0.15)
        cost.set_ylim(0)
        cost.set_xlabel("length of the window (examples)")
        if per_task:
            tasks_in_it(accuracy, per_task, max(lengths))
    above[0].set_ylabel("test accuracy (%)")
    below[0].set_ylabel("evaluation, relative\nto finetune")
    names = [f"{what}, {SCENARIOS[scenario]}" for what in ("accuracy", "cost") for scenario in scenarios]
    lettered([*above, *below], names)
    headed(figure, title, "Mean over seeds, bars and bands ± 1 SEM")
    for axes in above:
        named_beside(axes)
    return figure


def of_windows(own: list[Entry]) -> list[tuple[int, Entry]]:
    """Length and entry, the shortest window first."""
    matches = [(LABEL.search(entry.arm.label), entry) for entry in own]
    return sorted(((int(m["length"]), entry) for m, entry in matches if m), key=lambda pair: pair[0])


def accuracies(axes: Axes, own: list[Entry]) -> list[int]:
    """Accuracy against the length; methods without a window as bands. Returns the lengths."""
    for entry in own:
        if entry.arm.method in BANDS:
            mean, sem, _ = estimate(entry.accuracy)
            colour = BANDS[entry.arm.method]
            axes.axhline(mean, color=colour, linestyle=(0, (4, 2)), linewidth=1.6, label=entry.name)
            axes.axhspan(mean - np.nan_to_num(sem), mean + np.nan_to_num(sem), color=colour, alpha=0.12, linewidth=0)
    pairs = of_windows(own)
    lengths, points = [length for length, _ in pairs], [estimate(entry.accuracy) for _, entry in pairs]
    axes.errorbar(
        lengths, [p.mean for p in points], [np.nan_to_num(p.sem) for p in points],
        marker="o", color=COLOUR, linewidth=2, markersize=5.5, label="attention over the window",
    )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(lengths)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    return lengths


def tasks_in_it(axes: Axes, per_task: int, most: int) -> None:
    """Where the window is as long as whole tasks."""
    for k in range(1, most // per_task + 1):
        axes.axvline(per_task * k, color="#888888", linewidth=0.8, linestyle=":")
        name = f"{k} task" if k == 1 else str(k)
        axes.annotate(
            name, (per_task * k, 0.0), xycoords=axes.get_xaxis_transform(), xytext=(-3, 3), ha="right", va="bottom",
            textcoords="offset points", fontsize=8, color="#666666",
        )  # fmt: skip
