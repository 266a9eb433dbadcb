"""How many stored examples are worth as much as EWC: accuracy against examples of each class."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from cl_repro.analysis.comparisons.comparison import FINETUNE, JOINT, Entry, scenarios_of
from cl_repro.analysis.comparisons.replay_claims import NAMES, curves_of
from cl_repro.analysis.data.looks import LOOKS, METHODS
from cl_repro.analysis.data.study import SCENARIOS
from cl_repro.analysis.lambdas.curve_names import named_beside
from cl_repro.analysis.output.figures import headed, lettered
from cl_repro.common.stats import estimate

SEM = "Mean over seeds, bars and bands ± 1 SEM"
COLOURS = {"": METHODS["replay"].colour, "insert_all": "#A6761D"}
BANDS = {
    JOINT: (LOOKS["joint"].colour, "joint"),
    "ewc": (LOOKS["exact"].colour, "EWC, exact Fisher"),
    FINETUNE: (LOOKS["finetune"].colour, "None"),
}


def draw(found: list[Entry], title: str) -> Figure:
    """One panel per scenario."""
    scenarios = scenarios_of(found)
    figure = Figure(figsize=(1.6 + 3.5 * len(scenarios), 4.4), layout="constrained")  # inches
    panels = figure.subplots(1, len(scenarios), squeeze=False)[0]
    for axes, scenario in zip(panels, scenarios, strict=True):
        accuracies(axes, found, scenario)
    panels[0].set_ylabel("test accuracy (%)")
    lettered(panels, [SCENARIOS[scenario] for scenario in scenarios])
    headed(figure, title, SEM)
    for axes in panels:
        named_beside(axes)
    return figure


def accuracies(axes: Axes, found: list[Entry], scenario: str) -> None:
    """Accuracy against examples a class; methods without examples as bands."""
    for method, (colour, name) in BANDS.items():
        for entry in (e for e in found if (e.scenario, e.arm.method) == (scenario, method)):
            mean, sem, _ = estimate(entry.accuracy)
            axes.axhline(mean, color=colour, linestyle=(0, (4, 2)), linewidth=1.6, label=name)
            axes.axhspan(mean - np.nan_to_num(sem), mean + np.nan_to_num(sem), color=colour, alpha=0.12, linewidth=0)
    for curve in curves_of(found, scenario):
        points = [estimate(entry.accuracy) for entry in curve.entries]
        axes.errorbar(
            curve.sizes, [p.mean for p in points], [np.nan_to_num(p.sem) for p in points],
            marker="o" if not curve.policy else "s", color=COLOURS[curve.policy], linewidth=2, markersize=5.5,
            label=NAMES[curve.policy],
        )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xticks(curve.sizes)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("stored examples of each class")
