"""Why curves need not collapse on lambda x trace of the first task's Fisher: later tasks have a Fisher of their own.

The trace of a Fisher is that of a network which is more or less confident when its task ends, and of the labels that
are drawn. If those of later tasks are larger than the first's, they set how strongly a run is held; if they are
smaller, it is held less.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cl_repro.analysis.data.arms import Grid
from cl_repro.analysis.data.read import read_further
from cl_repro.analysis.data.study import Study
from cl_repro.analysis.lambdas.accuracy import NOTHING
from cl_repro.analysis.output.markup import TIMES, Table
from cl_repro.common.stats import Interval


def later_table(study: Study, grid: Grid, rises: Sequence[Interval]) -> Table | None:
    """Runs with a lambda below their arm's rise, rises in log10 lambda [A], with and without a large later Fisher.

    None if no such run has traces of later tasks.
    """
    rows = read_further(study.folder, "importance.csv")
    traces = rows.pivot_table(index="run_id", columns="after_task", values="trace")
    if 0 not in traces or traces.shape[1] < 2:
        return None
    jump = study.settings.trace_jump
    ratios = traces.drop(columns=0).div(traces[0], axis=0)
    of_runs = pd.DataFrame({"largest": ratios.max(axis=1), "log": np.log10(ratios.where(ratios > 0)).mean(axis=1)})
    runs = study.runs[study.runs["status"] == "ok"].merge(of_runs.dropna(subset="largest"), on="run_id")
    rise_of = {arm.config_id: rise.centre for arm, rise in zip(grid.arms, rises, strict=True)}
    below = runs[np.log10(runs["lambda"].where(runs["lambda"] > 0)) < runs["config_id"].map(rise_of)]
    if below.empty:
        return None
    arms = [(arm.label, below[below["config_id"] == arm.config_id]) for arm in grid.arms]
    body = tuple((label, *cells(own, jump)) for label, own in [*arms, ("all", below)])
    none = grid.none
    note = (
        "Runs with a λ below the rise of their arm's curve, by the Fisher of tasks 2 and later. Later / first: its "
        "trace over the first task's, geometric mean over tasks and runs; where it differs between arms, λ "
        f"{TIMES} trace of the first task says not all about their scale. A large one: a trace of more than {jump:g} "
        "times the first task's. Numbers of runs, and the mean of their accuracies. "
        + (f"None: {np.nanmean(none):.2f} %. " if np.isfinite(none).any() else "")
        + f"Such a run is held more strongly than λ {TIMES} trace of the first task says. All this is found after the "
        "fact: it describes these runs, and is no test."
    )
    header = ("Arm", "later / first", "runs with a large one", "accuracy, %", "runs without", "accuracy, %")
    return Table("later", "Below the rise: the Fisher of later tasks", header, body, (note,))


def cells(runs: pd.DataFrame, jump: float) -> tuple[str, ...]:
    """The typical ratio; number and mean accuracy of the runs with one above `jump`, and of the others."""
    large = runs["largest"] > jump
    parts = (runs.loc[large, "accuracy"], runs.loc[~large, "accuracy"])
    return (
        f"{10 ** runs['log'].mean():.3g}" if len(runs) else NOTHING,
        *(text for part in parts for text in (str(len(part)), f"{100 * part.mean():.2f}" if len(part) else NOTHING)),
    )
