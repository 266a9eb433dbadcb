"""The accuracy matrix of every arm at its best lambda: how much of each task is known after each, mean over seeds.

Read along its diagonal it shows plasticity, what a task reaches when it has been learned; down a column forgetting.
"""

from collections.abc import Iterator
from functools import partial
from itertools import groupby
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from cl_repro.analysis.comparisons.comparison import compared
from cl_repro.analysis.data.arms import grid_of, untrained
from cl_repro.analysis.data.read import read_accuracy
from cl_repro.analysis.data.settings import COMPARISON
from cl_repro.analysis.data.study import PLACE, SCENARIOS, TIMING, Study, commits, describe
from cl_repro.analysis.lambdas.accuracy import lambda_text
from cl_repro.analysis.output.figures import PADDED, Drawing, headed, literal
from cl_repro.analysis.output.markup import MINUS
from cl_repro.common.stats import Array

ACROSS = 6  # matrices beside each other
BESIDE, SMALL = 12, 0.86  # of many matrices: at most so many beside each other, inches of each
NUMBERED = 24  # matrices, up to which they have their numbers in them
SIDE = 1.55  # inches of a matrix
TITLE = 28  # characters above it, in a line
SHADES = LinearSegmentedColormap.from_list("accuracy", ["#EFEFEF", "#9ECAE1", "#08519C"])
DARK = 0.6  # of the range of shades, from where on numbers are white
NOTE = (
    "Test accuracy (%), mean over seeds, of the task asked about (columns) after each task learned (rows). Diagonal: "
    "plasticity; down a column: forgetting"
)


class Matrix(NamedTuple):
    """One arm at one lambda."""

    name: str
    group: str  # benchmark, scenario and model, where there are several
    accuracy: Array  # [T, T], percent: [task learned last, task asked about]; NaN above the diagonal
    forgotten: float  # points, the mean over seeds of a run's `forgetting`, as tables have it

    @property
    def plasticity(self) -> float:
        """Mean accuracy of tasks right after each was learned, percent."""
        return float(np.mean(np.diag(self.accuracy)))


def matrices(study: Study) -> list[Matrix]:
    """Of every arm, in every benchmark, scenario and model that a study has, at the lambda that its tables show."""
    rows = read_accuracy(study.folder)
    rows = rows[(rows["split"] == "test") & (rows["after_task"] >= 0)]  # not those before any task
    fine = study.reported[study.reported["status"] == "ok"]
    chosen: list[tuple[str, str, float, pd.DataFrame]] = []  # name, group, lambda (NaN: none), runs
    if study.kind == COMPARISON:
        for entry in compared(study):
            own = fine[(fine["config_id"] == entry.arm.config_id) & (fine["scenario"] == entry.scenario)]
            chosen.append((entry.name, SCENARIOS[entry.scenario], entry.lam, own))
    else:
        places = study.runs.groupby(PLACE)
        for key, part in places:
            grid = grid_of(part, study.folder)
            group = ", ".join(key) if len(places) > 1 else ""
            best = [(arm, float(grid.lams[i])) for arm, i in zip(grid.arms, grid.best(), strict=True) if i is not None]
            for arm, lam in [*((arm, np.nan) for arm, _ in grid.flat), *best]:
                own = fine[fine["run_id"].isin(part["run_id"]) & (fine["config_id"] == arm.config_id)]
                chosen.append((arm.label, group, lam, own))
    found = []
    for name, group, lam, own in chosen:
        at, shown = (own, name) if np.isnan(lam) else (own[own["lambda"] == lam], f"{name}\nλ = {lambda_text(lam)}")
        if at.empty:
            continue
        accuracy = mean(rows[rows["run_id"].isin(at["run_id"])])
        forgotten = 100 * float(at["forgetting"].mean())
        if idle := untrained(study.folder, at["config_id"].iloc[0]):
            accuracy[idle], forgotten = np.nan, np.nan
        found.append(Matrix(shown, group, accuracy, forgotten))
    return [one for one in found if one.accuracy.size > 1]


def mean(rows: pd.DataFrame) -> Array:
    """Rows of accuracy.csv of some runs as [task learned, task asked], percent; NaN for tasks yet to come."""
    table = rows.pivot_table(index="after_task", columns="task", values="accuracy", aggfunc="mean")
    if table.shape[0] != table.shape[1]:
        return np.empty((0, 0))  # only evaluated after the last task
    return np.where(np.tri(len(table), dtype=bool), 100 * table.to_numpy(dtype=float), np.nan)


def drawings(study: Study) -> list[Drawing]:
    """matrix_<name>; nothing of timings, and where accuracy was measured at the end alone."""
    found = matrices(study) if study.kind != TIMING else []
    if not found:
        return []
    title = describe(study.reported, places=len({one.group for one in found}) < 2)
    source = f"cl_repro {commits(study.runs)}"
    return [Drawing(f"matrix_{study.name}", f"{study.name}: {title}", source, partial(draw, found, title), grid=False)]


def draw_many(found: list[Matrix], title: str) -> Figure:
    """Shades alone, a row of names above two or three rows of matrices a group: as wide as a page, and not higher."""
    groups = {group: {one.name.partition("\n")[0]: one for one in own} for group, own in by_group(found)}
    names = list(dict.fromkeys(name for own in groups.values() for name in own))
    lines = -(-len(names) // BESIDE)
    across = -(-len(names) // lines)
    figure = Figure(figsize=(1.1 + SMALL * across, 1.5 + (SMALL * len(groups) + 0.42) * lines), layout=PADDED)  # inches
    panels = figure.subplots(len(groups) * lines, across, squeeze=False)
    low = 10 * np.floor(min(np.nanmin(one.accuracy) for one in found) / 10)
    for i, name in enumerate([*names, *[""] * (lines * across - len(names))]):
        for j, (group, own) in enumerate(groups.items()):
            axes = panels[len(groups) * (i // across) + j, i % across]
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if j == 0:
                axes.set_title("\n".join(wrap(literal(name), 12, break_long_words=False)), loc="left", fontsize=8)
            if i % across == 0:
                axes.set_ylabel(group.replace("-", "-\n"), fontsize=9, rotation=0, ha="right", va="center")
            if name in own:
                values = np.ma.masked_invalid(own[name].accuracy)
                shades = axes.pcolormesh(values, cmap=SHADES, vmin=low, vmax=100, edgecolor="white", linewidth=0.6)
                axes.set_ylim(len(values), 0)
                axes.set_aspect("equal")
    where: Any = {"location": "bottom", "shrink": 0.3, "aspect": 30, "fraction": 0.03, "pad": 0.02}
    figure.colorbar(shades, ax=panels, label="accuracy (%)", **where)
    headed(figure, f"{title}: accuracy of every task after every task", NOTE)
    return figure


def by_group(found: list[Matrix]) -> Iterator[tuple[str, Iterator[Matrix]]]:
    """Those of one benchmark, scenario and model together."""
    return groupby(found, key=lambda one: one.group)


def draw(found: list[Matrix], title: str) -> Figure:
    """A small matrix for each arm, all of one scale of shades."""
    if len(found) > NUMBERED:
        return draw_many(found, title)
    groups = {group: [*own] for group, own in by_group(found)}
    across = min(ACROSS, max(map(len, groups.values())))
    down = sum(-(-len(own) // across) for own in groups.values())
    figure = Figure(figsize=(0.7 + (SIDE + 0.25) * across, 0.9 + (SIDE + 0.75) * down), layout=PADDED)  # inches
    panels = figure.subplots(down, across, squeeze=False)
    low = min(np.nanmin(one.accuracy) for one in found)
    row = 0
    for group, own in groups.items():
        rows = panels[row : row + -(-len(own) // across)]
        row += len(rows)
        for i, axes in enumerate(rows.flat):
            if i >= len(own):
                axes.set_axis_off()
                continue
            shades = shaded(axes, own[i], 10 * np.floor(low / 10), numbered=len(found) <= NUMBERED)
            if i % across == 0:
                axes.set_ylabel(f"{group}\nlearned" if group else "learned", fontsize=8)
            if i + across >= len(own):
                axes.set_xlabel("asked", fontsize=8)
    if len(found) > NUMBERED:
        where: Any = {"location": "top", "shrink": 0.3, "aspect": 30, "fraction": 0.02, "pad": 0.01, "anchor": (0, 0)}
        figure.colorbar(shades, ax=panels, label="accuracy (%)", **where)
    headed(figure, f"{title}: accuracy of every task after every task", NOTE)
    return figure


def shaded(axes: Axes, one: Matrix, low: float, numbered: bool) -> QuadMesh:
    """One matrix, with its numbers if it is to have them; returns what has its shades."""
    n, values = len(one.accuracy), np.ma.masked_invalid(one.accuracy)
    shades = axes.pcolormesh(values, cmap=SHADES, vmin=low, vmax=100, edgecolor="white", linewidth=0.8)
    size = 8 - 0.25 * max(n - 5, 0)
    for i in range(n if numbered else 0):
        for j in range(i + 1):
            shade = (one.accuracy[i, j] - low) / max(100 - low, 1e-9)
            if np.isnan(shade):
                continue
            axes.text(
                j + 0.5, i + 0.52, f"{one.accuracy[i, j]:.0f}", ha="center", va="center", fontsize=size,
                color="white" if shade > DARK else "#1f2328",
            )  # fmt: skip
    axes.set_xticks(np.arange(n) + 0.5, [str(i + 1) for i in range(n)], fontsize=7)
    axes.set_yticks(np.arange(n) + 0.5, [str(i + 1) for i in range(n)], fontsize=7)
    axes.set_ylim(n, 0)
    axes.set_aspect("equal")
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    lines = [part for line in literal(one.name).splitlines() for part in wrap(line, TITLE)]
    if np.isnan(one.forgotten):
        lines += ["trained once, at the end"]
    else:
        lines += [f"learned {one.plasticity:.1f}, forgot {one.forgotten:.1f}".replace("-", MINUS)]
    axes.set_title("\n".join(lines), loc="left", fontsize=8, linespacing=1.25)
    return shades
