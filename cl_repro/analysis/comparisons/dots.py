"""Accuracy by arm, each at its best lambda, beside what was published: where arms have too few lambdas for curves."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cl_repro.analysis.data.arms import Grid, look
from cl_repro.analysis.data.looks import LOOKS
from cl_repro.analysis.data.study import Study, source_name, sources
from cl_repro.analysis.lambdas.accuracy import accuracy_rows, at_best, lambda_text
from cl_repro.analysis.output.figures import PADDED, SOFT, headed, literal
from cl_repro.common.stats import paired

CURVE = 3  # lambdas of most arms, from which on accuracy is drawn against lambda
MARKERS = ("D", "s", "^")  # of published values, by their source


def few(runs: pd.DataFrame) -> bool:
    """Whether most arms of some runs have too few lambdas for a curve."""
    return bool(runs.dropna(subset="lambda").groupby("config_id")["lambda"].nunique().median() < CURVE)


def draw(study: Study, grid: Grid, title: str) -> Figure:
    """A row an arm: mean with its t-interval, published means with their standard errors, None as a line."""
    rows = [row for row in accuracy_rows(study, grid) if (row.arm.method, row.arm.fisher) != ("finetune", "")]
    values = {arm.config_id: accuracies for arm, _, accuracies in at_best(grid)}
    figure = Figure(figsize=(9.6, 1.7 + 0.36 * len(rows)), layout=PADDED)  # inches
    axes = figure.add_subplot()
    if np.isfinite(grid.none).any():
        none = LOOKS["finetune"]
        axes.axvline(float(np.nanmean(grid.none)), color=none.colour, linestyle=none.dashes, linewidth=2, label="None")
    there = sources(study, "accuracy")
    for y, row in enumerate(rows):
        interval = paired(values[row.arm.config_id], np.zeros(grid.seeds.size), study.settings.confidence)
        whiskers = np.nan_to_num([[interval.centre - interval.low], [interval.high - interval.centre]])
        axes.errorbar(
            interval.centre, y, xerr=whiskers, fmt="o", color=look(row.arm, y).colour, markersize=7, elinewidth=1.8,
            capsize=3, zorder=3,
        )  # fmt: skip
        for marker, source in zip(MARKERS, there, strict=False):
            if (found := row.beside[source]).theirs:
                axes.errorbar(
                    found.theirs.mean, y, xerr=np.nan_to_num(found.theirs.sem), fmt=marker, color=SOFT, markersize=6,
                    markerfacecolor="white", elinewidth=1.2, capsize=2, zorder=2,
                )  # fmt: skip
    names = [row.arm.label + (f"  λ = {lambda_text(row.lam)}" if np.isfinite(row.lam) else "") for row in rows]
    axes.set_yticks(range(len(rows)), [literal(name) for name in names])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("Test accuracy after the last task (%)")
    same = all(one.comparison for row in rows for one in row.beside.values() if one.theirs)
    other = "" if same else ", of another scale"
    shown = [f"hollow: {source_name(source)}, mean ± 1 SEM{other}" for source in there if any(r.beside for r in rows)]
    said = [f"Filled: ours, mean over seeds at the best λ, {study.settings.confidence:.0%} t-interval", *shown]
    said += ["dashed: None"] if np.isfinite(grid.none).any() else []
    headed(figure, title, ". ".join(filter(None, ["; ".join(said), grid.window_note])))
    return figure
