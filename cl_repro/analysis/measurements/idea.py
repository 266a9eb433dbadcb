"""The figure of the idea: regions where each of two tasks is solved, and the paths of training between them."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from cl_repro.analysis.data.looks import LOOKS, METHODS
from cl_repro.analysis.data.read import Measured
from cl_repro.analysis.output.figures import SOFT, Drawing, headed

WITHIN = (2.0, 5.0)  # points of the best accuracy on a task: dark and light region
COLOURS = {"accuracy_a": "#7A8CA3", "accuracy_b": "#E9B44C"}
LINES = (LOOKS["finetune"].colour, METHODS["l2"].colour, METHODS["si"].colour, LOOKS["exact"].colour)
NAMES = {"finetune": "no penalty", "l2": "equal penalty (L2)", "ewc-exact": "EWC, exact Fisher"}


def drawings(found: Measured) -> list[Drawing]:
    """The one there is, of a folder that `measure.py idea` has written."""
    commits = sorted({one.get("git_sha", "")[:7] for one in found.provenance.get("invocations", [])})
    name, drawn = found.folder.name, partial(draw, found.tables["paths"], found.tables["plane"])
    return [Drawing(name, name, f"cl_repro {'+'.join(commits)}", drawn, grid=False)]


def draw(paths: pd.DataFrame, plane: pd.DataFrame) -> Figure:
    """One panel: two tasks' regions, and one path per method."""
    figure = Figure(figsize=(9.6, 5.8), layout="constrained")  # inches
    axes = figure.add_subplot()
    best = {"accuracy_a": paths.loc[paths["step"] == 0, "accuracy_a"].iloc[0], "accuracy_b": paths["accuracy_b"].max()}
    for task, colour in COLOURS.items():
        region(axes, plane, task, best[task], colour)
    arms = list(dict.fromkeys(paths["arm"]))
    handles = []
    for i, arm in enumerate(arms):
        colour = LINES[-1] if i == len(arms) - 1 else LINES[i % (len(LINES) - 1)]
        handles.append(path(axes, paths[paths["arm"] == arm], NAMES.get(arm, arm), colour))
    begin = paths.iloc[0]
    axes.plot(begin["x"], begin["y"], "o", color="black", markersize=9, zorder=6)
    axes.annotate(
        f"after task A\nA {100 * begin['accuracy_a']:.1f} %, B {100 * begin['accuracy_b']:.1f} %",
        (begin["x"], begin["y"]), xytext=(4, -9), textcoords="offset points", ha="left", va="top", fontsize=9.5,
    )  # fmt: skip
    axes.set_aspect("equal")
    first, last = (NAMES.get(arm, arm) for arm in (arms[0], arms[-1]))
    axes.set_xlabel(f"distance in parameter space from the end of task A towards the end of {last}")
    axes.set_ylabel("distance at right angles to that")
    through = f"The plane goes through the weights after task A and the ends of {first} and of {last}"
    headed(figure, "Two tasks in a plane of parameter space, measured", f"{through}; paths are projected onto it")
    regions = [
        Patch(facecolor=colour, alpha=0.75, label=f"task {task[-1].upper()} solved") for task, colour in COLOURS.items()
    ]
    legend = figure.legend(
        handles=[*regions, *handles], loc="outside right center", title=caption(best), alignment="left"
    )
    legend.get_title().set_color(SOFT)
    return figure


def region(axes: Axes, plane: pd.DataFrame, task: str, best: float, colour: str) -> None:
    """Where a task's accuracy is within `WITHIN` points of its best."""
    table = plane.pivot(index="y", columns="x", values=task)
    near, far = (best - points / 100 for points in WITHIN)
    x, y, z = table.columns.to_numpy(), table.index.to_numpy(), table.to_numpy()
    for level, alpha in ((far, 0.35), (near, 0.55)):
        if (z >= level).any():
            axes.contourf(x, y, z, levels=[level, 1.0 + 1e-9], colors=[colour], alpha=alpha, zorder=1)
            axes.contour(x, y, z, levels=[level], colors=[colour], linewidths=1.2, zorder=2)


def path(axes: Axes, own: pd.DataFrame, name: str, colour: str) -> Any:
    """The path of one method, an arrow head at its end, and its accuracies there; returns the handle of the legend."""
    x, y, last = own["x"].to_numpy(), own["y"].to_numpy(), own.iloc[-1]
    strength = f", λ = {last['lambda']:g}" if np.isfinite(last["lambda"]) else ""
    aside = f"\nends {last['off_plane']:.2g} off the plane" if last["off_plane"] > 0.01 * np.hypot(x, y).max() else ""
    text = f"{name}{strength}\nA {100 * last['accuracy_a']:.1f} %, B {100 * last['accuracy_b']:.1f} %{aside}"
    (line,) = axes.plot(x, y, color=colour, linewidth=2.2, label=text, zorder=4)
    axes.plot(x[-1], y[-1], marker="X", color=colour, markersize=11, markeredgecolor="white", zorder=5)
    return line


def caption(best: dict[str, float]) -> str:
    """What solved means."""
    near, far = WITHIN
    return (
        f"solved: within {near:g} (dark) or {far:g} points\nof {100 * best['accuracy_a']:.1f} % (A), "
        f"{100 * best['accuracy_b']:.1f} % (B), test accuracy"
    )
