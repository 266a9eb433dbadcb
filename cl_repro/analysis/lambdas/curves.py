"""The figure: accuracy against lambda, mean with a band of one standard error over seeds, one curve per arm."""

import math
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cl_repro.analysis.comparisons import dots
from cl_repro.analysis.data.arms import Grid, NamedArm, grid_of, looks_of
from cl_repro.analysis.data.looks import Look
from cl_repro.analysis.data.study import ARMS, PLACE, Study, commits, describe, most_lambdas
from cl_repro.analysis.lambdas.curve_names import told
from cl_repro.analysis.lambdas.shape import seed_mean
from cl_repro.analysis.output.figures import PADDED, Drawing, headed, lambdas, literal
from cl_repro.common.stats import Array, estimate

BAND = 0.13  # opacity of a band of one SEM; half of it where more than MANY curves lie over each other
MANY = 6
SEM = "Mean over seeds, band ± 1 SEM"


def drawings(study: Study) -> list[Drawing]:
    """Accuracy against lambda, or by arm where most have but one or two lambdas.

    <name>, or <name>_<benchmark>_<scenario>_<model> of each with a curve, where there are several.
    """
    groups = with_a_curve(study)
    return [
        Drawing(
            study.name if len(groups) == 1 else "_".join([study.name, *key]),
            f"{study.name}: {describe(runs)}",
            f"cl_repro {commits(runs)}",
            partial(_drawn, study, runs),
        )
        for key, runs in groups
    ]


def _drawn(study: Study, runs: pd.DataFrame) -> Figure:
    grid = grid_of(runs, study.folder)
    return dots.draw(study, grid, describe(runs)) if dots.few(runs) else draw(grid, describe(runs))


def with_a_curve(study: Study) -> list[tuple[Any, pd.DataFrame]]:
    """What has an arm with two lambdas, or is a study of arms: (benchmark, scenario, model), and its runs."""
    return [(key, runs) for key, runs in study.runs.groupby(PLACE) if study.kind == ARMS or most_lambdas(runs) > 1]


def draw(grid: Grid, title: str) -> Figure:
    """The figure of one grid: log lambda against percent."""
    figure = Figure(figsize=(9.6, 5.0), layout=PADDED)  # inches
    axes = figure.add_subplot()
    looks, lost = looks_of(grid), False
    for (arm, values), style in zip(grid.flat, looks, strict=False):
        line(axes, arm, values, style)
    for a, (arm, style) in enumerate(zip(grid.arms, looks[len(grid.flat) :], strict=True)):
        curve(axes, arm, grid.lams, grid.accuracy[a], style, a, BAND if len(grid.arms) <= MANY else BAND / 2)
        lost |= _mark_lost(axes, grid.lams, grid.accuracy[a], grid.lost[a], style)
    lambdas(axes, grid.lams)
    axes.set_xlabel("Regularisation strength λ (log scale)")
    axes.set_ylabel("Test accuracy after the last task (%)")
    crosses = "Crosses: a seed diverged or failed" if lost else ""
    headed(figure, title, ". ".join(filter(None, [SEM, crosses, grid.window_note])))
    told(figure, [axes])
    return figure


def line(axes: Axes, arm: NamedArm, values: Array, style: Look) -> None:
    """The mean of a method without lambda, values [S], with a band of one SEM."""
    mean, sem, n = estimate(values)
    if not n:
        return
    axes.axhline(mean, color=style.colour, linestyle=style.dashes, linewidth=2.0, label=literal(arm.label), zorder=2)
    if math.isfinite(sem):
        axes.axhspan(mean - sem, mean + sem, color=style.colour, alpha=BAND, linewidth=0, zorder=1)


def curve(
    axes: Axes, arm: NamedArm, lams: Array, accuracy: Array, style: Look, position: int, opacity: float = BAND
) -> None:
    """Mean with markers and a band of one SEM, over the seeds that are there. Later curves lie on top."""
    points = [estimate(column) for column in accuracy.T]
    there = np.array([point.n > 0 for point in points])
    x = lams[there]
    mean, sem = (np.array([getattr(p, name) for p in points])[there] for name in ("mean", "sem"))
    axes.fill_between(x, mean - sem, mean + sem, color=style.colour, alpha=opacity, linewidth=0, zorder=1.5)
    axes.plot(
        x,
        mean,
        color=style.colour,
        linestyle=style.dashes,
        linewidth=style.thickness,
        marker=style.marker,
        markersize=style.size,
        markerfacecolor=style.colour if style.filled else "white",
        markeredgecolor=style.colour,
        markeredgewidth=1.4,
        label=literal(arm.label),
        zorder=3 + 0.1 * position,
    )


def _mark_lost(axes: Axes, lams: Array, accuracy: Array, lost: Array, style: Look) -> bool:
    """Cross out each lambda at which a seed was lost; on the axis where no seed is left. Whether there is one."""
    mean = seed_mean(accuracy)
    mark: dict[str, Any] = {"marker": "X", "markersize": 11, "color": style.colour, "markeredgecolor": "white"}
    for i in np.flatnonzero(lost):
        if np.isfinite(mean[i]):
            axes.plot(lams[i], mean[i], **mark, zorder=6)
        else:
            axes.plot(lams[i], 0, **mark, transform=axes.get_xaxis_transform(), clip_on=False, zorder=6)
    return bool(lost.any())
