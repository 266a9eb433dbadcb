"""How many stored examples are worth as much as EWC: accuracy against examples of each class."""

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from cl_repro.analysis.comparison import FINETUNE, JOINT, Entry, scenarios_of
from cl_repro.analysis.figures import literal
from cl_repro.analysis.replay_claims import NAMES, curves_of
from cl_repro.analysis.study import SCENARIOS
from cl_repro.stats import estimate

SEM = "mean, bars and bands ± 1 SEM over seeds"
COLOURS = {"": "#D55E00", "insert_all": "#7A4F9E"}
BANDS = {JOINT: ("#6A51A3", "joint"), "ewc": ("#000000", "EWC, exact Fisher"), FINETUNE: ("#009E73", "None")}


def draw(found: list[Entry], title: str) -> Figure:
    """One panel per scenario."""
    scenarios = scenarios_of(found)
    figure = Figure(figsize=(1.6 + 3.5 * len(scenarios), 4.4), layout="constrained")  # inches
    shown: dict[str, Artist] = {}
    for axes, scenario in zip(figure.subplots(1, len(scenarios), squeeze=False)[0], scenarios, strict=True):
        accuracies(axes, found, scenario)
        shown |= {text: handle for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    handles, labels = list(shown.values()), list(shown)
    figure.legend(handles=handles, labels=labels, loc="outside lower center", ncols=3, title=SEM)
    figure.axes[0].set_ylabel("test accuracy (%)")
    figure.suptitle(literal(title), x=0.01, ha="left", fontweight="bold", fontsize=12)
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
    axes.set_title(SCENARIOS[scenario], loc="left")
    axes.set_xlabel("stored examples of each class")
