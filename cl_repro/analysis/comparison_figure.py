"""The picture of a comparison: accuracy against extra memory, and against compute, one row of panels per scenario."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from cl_repro.analysis import beside, epoch_curves, replay_curves, window_curves
from cl_repro.analysis.arms import setting
from cl_repro.analysis.comparison import (
    BOUND,
    DISTILLATION,
    PENALTY,
    STORING,
    STRUCTURE,
    Entry,
    bytes_text,
    compared,
    scenarios_of,
)
from cl_repro.analysis.curves import STYLE
from cl_repro.analysis.epoch_curves import with_epochs
from cl_repro.analysis.figures import literal, save
from cl_repro.analysis.replay_claims import with_sizes
from cl_repro.analysis.study import SCENARIOS, Study, benchmark_name, commits, describe
from cl_repro.analysis.window_curves import with_windows
from cl_repro.stats import estimate

COLOURS = {BOUND: "#555555", PENALTY: "#0072B2", DISTILLATION: "#009E73", STRUCTURE: "#8A3FA0", STORING: "#D55E00"}
MEANINGS = {
    BOUND: "nothing, or all data",
    PENALTY: "penalty: numbers per parameter",
    DISTILLATION: "distillation: logits or a network",
    STRUCTURE: "structure: projections, columns, sparse units",
    STORING: "replay: stored examples",
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "p", "<", ">", "h")
LEAST = 100  # bytes; what keeps less is drawn as nothing
GAP = 0.7  # decades between nothing and the least that is kept


def plot_comparison(study: Study, out: Path) -> list[Path]:
    """Draw <out>/<name>.png and .svg: what accuracy costs, or examples stored where arms differ in that; the paths."""
    style: Any = {**STYLE, "svg.hashsalt": study.name}  # with a salt, the ids in the SVG repeat
    with mpl.rc_context(style):
        found, benchmark = compared(study), benchmark_name(study.runs["benchmark"].iloc[0])
        if published := beside.pairs_of(study, found):
            theirs = " and ".join(dict.fromkeys(pair.row["source"] for pair in published))
            figure = beside.draw(study, published, f"{benchmark}: ours beside {theirs}")
        elif with_epochs(found):
            figure = epoch_curves.draw(found, f"{benchmark}: longer training")
        elif with_sizes(found):
            figure = replay_curves.draw(found, f"{benchmark}: stored examples beside EWC")
        elif with_windows(found):
            per_task = next(
                setting(study.folder, e.arm.config_id, "method.n") for e in found if e.arm.method == "context"
            )
            figure = window_curves.draw(found, f"{benchmark}: a window of examples that is looked at", per_task)
        else:
            figure = draw(found, f"{benchmark}: what accuracy costs")
        title, source = f"{study.name}: {describe(study.runs)}", f"cl_repro {commits(study.runs)}"
        return save(figure, title, source, out / study.name)


def draw(found: list[Entry], title: str) -> Figure:
    """One row per scenario: accuracy against memory (logarithmic, nothing at the left) and against compute."""
    scenarios = scenarios_of(found)
    listed = len({entry.name for entry in found}) + len({entry.family for entry in found})
    height = max(1.0 + 2.75 * len(scenarios), 0.8 + 0.25 * listed)  # the legend's, if that is higher
    figure = Figure(figsize=(12.0, height), layout="constrained")  # inches
    panels = figure.subplots(len(scenarios), 2, sharex="col", sharey="row", squeeze=False)
    marks = markers(found)
    least = min((entry.bytes for entry in found if entry.bytes >= LEAST), default=10**6)
    nothing = least / 10**GAP
    for row, scenario in zip(panels, scenarios, strict=True):
        for entry in (entry for entry in found if entry.scenario == scenario):
            memory = entry.bytes if entry.bytes >= LEAST else nothing
            for axes, x in zip(row, (memory, estimate(entry.compute).mean), strict=True):
                point(axes, x, entry, marks[entry.name])
        row[0].set_title(SCENARIOS[scenario], loc="left")
        row[0].set_ylabel("test accuracy (%)")
    memory_axis(panels[-1][0], nothing, max(entry.bytes for entry in found))
    panels[-1][1].set_xlabel("processor time of training, relative to finetune")
    figure.suptitle(literal(title), x=0.01, ha="left", fontweight="bold", fontsize=12)
    legend(figure, found, marks)
    return figure


def point(axes: Axes, x: float, entry: Entry, marker: str) -> None:
    """Mean and one standard error over seeds."""
    accuracy, colour = estimate(entry.accuracy), COLOURS[entry.family]
    hollow: Any = {"markerfacecolor": "white"} if entry.arm.fisher else {}
    axes.errorbar(
        x, accuracy.mean, np.nan_to_num(accuracy.sem), fmt=marker, color=colour, markersize=7.5, markeredgewidth=1.4,
        elinewidth=1, alpha=0.9, **hollow,
    )  # fmt: skip


def markers(found: list[Entry]) -> dict[str, str]:
    """A marker for each name, different within a family."""
    result: dict[str, str] = {}
    for family in COLOURS:
        names = list(dict.fromkeys(entry.name for entry in found if entry.family == family))
        result |= {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(names) if name not in result}
    return result


def memory_axis(axes: Axes, nothing: float, most: float) -> None:
    """Decades of bytes, and a place for nothing."""
    axes.set_xscale("log")
    powers = [10.0**p for p in range(int(np.ceil(np.log10(nothing * 10 ** (GAP / 2)))), int(np.log10(most)) + 1)]
    axes.xaxis.set_major_locator(FixedLocator([nothing, *powers]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: "none" if x == nothing else bytes_text(round(x))))
    axes.set_xlabel("extra memory (logarithmic)")


def legend(figure: Figure, found: list[Entry], marks: dict[str, str]) -> None:
    """Names at the right, by family."""
    handles: list[Line2D] = []
    for family, colour in COLOURS.items():
        own = dict.fromkeys((entry.name, bool(entry.arm.fisher)) for entry in found if entry.family == family)
        if own:
            handles.append(Line2D([], [], linestyle="", label=MEANINGS[family]))
        for name, hollow in own:
            face = "white" if hollow else colour
            handles.append(
                Line2D(
                    [],
                    [],
                    linestyle="",
                    marker=marks[name],
                    color=colour,
                    markerfacecolor=face,
                    markersize=7,
                    label=literal(name),
                )
            )
    made = figure.legend(handles=handles, loc="outside right center", handlelength=1.2, labelspacing=0.55)
    made.set_title("mean ± 1 SEM over seeds")
    for text in made.get_texts():
        if text.get_text() in MEANINGS.values():
            text.set_fontweight("bold")
            text.set_fontsize(9)
