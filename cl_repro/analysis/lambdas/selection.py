"""Three ways of choosing lambda, what each reports, and how optimistic the published way is.

`oracle`: the highest mean test accuracy, over the seeds that are reported, as published. `leave_one_seed_out`: for
every seed the highest mean test accuracy of the other seeds. `validation`: the highest mean accuracy on examples held
out from training. All three report test accuracy, percent, one value per seed.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cl_repro.analysis.data.arms import Grid, NamedArm, grid_of
from cl_repro.analysis.data.read import read_accuracy
from cl_repro.analysis.data.study import Study
from cl_repro.analysis.lambdas.accuracy import NOTHING, estimate_text, interval_text, lambda_text
from cl_repro.analysis.lambdas.intervals import resampled_interval, resamples
from cl_repro.analysis.lambdas.shape import best, complete, seed_mean
from cl_repro.analysis.output.markup import MINUS, Table
from cl_repro.common.stats import Array, Interval, estimate, paired

NO_VALIDATION, TOO_SMALL = "no validation runs", "n too small"


class Choice(NamedTuple):
    """A lambda for every seed, and what it reports."""

    lams: Array  # [S], NaN where none can be chosen
    accuracy: Array  # [S], percent, of the test set; NaN where the run there diverged or is missing


class Selection(NamedTuple):
    """One arm under the three ways."""

    arm: NamedArm
    oracle: Choice
    leave_one_seed_out: Choice
    validation: Choice | None  # None where no run of the arm has validation accuracies


def selections(study: Study, grid: Grid) -> list[Selection]:
    """The three ways for every arm with a lambda; `grid` is of the study's runs."""
    held_out = grid_of(study.runs.assign(accuracy=validation_accuracy(study)), study.folder).accuracy
    seeds = grid.seeds.size
    found = []
    for arm, test, val in zip(grid.arms, grid.accuracy, held_out, strict=True):
        oracle, validation = (np.repeat(best(seed_mean(complete(curve))), seeds) for curve in (test, val))
        ways = (_choice(grid.lams, test, index) for index in (oracle, leave_one_seed_out(test), validation))
        selection = Selection(arm, *ways)
        found.append(selection if np.isfinite(val).any() else selection._replace(validation=None))
    return found


def leave_one_seed_out(accuracy: ArrayLike) -> NDArray[np.intp]:
    """For every seed the lambda that the other seeds choose, among those with all of their runs.

    Args:
        accuracy: [S, L], NaN where a run diverged or is missing.

    Returns:
        [S], index of the highest mean over the other seeds; -1 where there is no other seed.
    """
    x = np.asarray(accuracy, dtype=float)
    others = np.array([np.delete(x, seed, axis=0) for seed in range(len(x))])  # [S, S - 1, L]
    return best(seed_mean(complete(others)))


def validation_accuracy(study: Study) -> pd.Series:
    """Mean over the tasks of the accuracy on held-out examples after the last task, a fraction, in the order of runs.

    NaN where a run has none, or not of every task.
    """
    rows = read_accuracy(study.folder)
    rows = rows[rows["split"] == "val"].merge(study.runs[["run_id", "n_tasks"]], on="run_id")
    rows = rows[rows["after_task"] == rows["n_tasks"] - 1]
    per_run = rows.groupby("run_id")["accuracy"].agg(["mean", "count"]).reindex(study.runs["run_id"])
    whole = per_run["count"].to_numpy() == study.runs["n_tasks"].to_numpy()
    return pd.Series(np.where(whole, per_run["mean"], np.nan), index=study.runs.index)


def reselected(accuracy: ArrayLike, weight: ArrayLike) -> Array:
    """Accuracy at the best lambda of every resample of the seeds: the choice is repeated in each.

    Args:
        accuracy: [A, S, L], NaN where a run diverged or is missing.
        weight: [R, S], how often a resample draws each seed.

    Returns:
        [R, A], the highest mean over the seeds drawn; NaN where no lambda has one.
    """
    means = seed_mean(complete(accuracy), weight)  # [R, A, L]
    highest = np.where(np.isfinite(means), means, -np.inf).max(axis=-1, initial=-np.inf)
    return np.where(np.isfinite(highest), highest, np.nan)


def limits_text(study: Study, interval: Interval, sign: str = "") -> str:
    """The limits of a bootstrap interval, e.g. [99.01, 99.32], or `n too small`."""
    if interval.n < study.settings.bootstrap_from:
        return TOO_SMALL
    text = interval_text(interval, sign=sign)
    return text[text.index("[") :] if "[" in text else NOTHING


def selection_table(study: Study, grid: Grid, found: list[Selection]) -> Table:
    """What each way chooses and reports, per arm."""
    body, samples = [], reselected(grid.accuracy, resamples(grid.seeds.size, study.settings))
    for selection, own in zip(found, samples.T, strict=True):
        n = int(np.isfinite(selection.oracle.accuracy).sum())
        interval = resampled_interval(own, n, study.settings)
        cells = [selection.arm.label, *_cells(selection.oracle), limits_text(study, interval)]
        cells += _cells(selection.leave_one_seed_out)
        cells += _cells(selection.validation) if selection.validation else [NO_VALIDATION, NOTHING]
        body.append(tuple(cells))
    header = (
        "Arm",
        "oracle: λ", "oracle, %", "bootstrap",
        "leave one seed out: λ", "leave one seed out, %",
        "validation: λ", "validation, %",
    )  # fmt: skip
    notes = [
        "Test accuracy: mean ± SEM (n seeds), at the λ of the highest mean test accuracy of the same seeds (oracle, as "
        "published), of the other seeds (leave one seed out; λ with the number of seeds it was chosen for), or on "
        "examples held out from training (validation: a study of its own, trained on fewer examples).",
        f"Bootstrap: {study.settings.confidence:.0%} percentile interval over seeds with λ chosen again in each of "
        f"{study.settings.resamples} resamples (each picks its own best, so it sits somewhat high), from "
        f"n = {study.settings.bootstrap_from} seeds on.",
    ]
    for arm, _, left_out, _ in found:
        lost = int(np.isnan(left_out.accuracy).sum())
        if lost:
            notes.append(f"{arm.label}: left out, {lost} of {left_out.lams.size} seeds have no accuracy at their λ.")
    return Table("selection", "Three ways of choosing λ", header, tuple(body), tuple(notes))


def optimism_table(study: Study, found: list[Selection]) -> Table:
    """How much higher the oracle's accuracy is than what the other two ways report, paired by seed."""
    confidence, body = study.settings.confidence, []
    for arm, oracle, left_out, validation in found:
        gaps = [_gap(oracle, other, confidence) if other else NO_VALIDATION for other in (left_out, validation)]
        pairs = int(np.isfinite(oracle.accuracy - left_out.accuracy).sum())
        body.append((arm.label, *gaps, str(pairs)))
    notes = (
        f"Points of test accuracy at the oracle's λ {MINUS} at the λ of the other way; brackets: "
        f"{confidence:.0%} t-interval paired by seed, approximate: the choices share seeds, and on a complete grid no "
        "seed's gap to leave one seed out can be negative.",
    )
    header = ("Arm", f"oracle {MINUS} leave one seed out", f"oracle {MINUS} validation", "seeds")
    return Table("optimism", "Optimism of choosing λ on the seeds that are reported", header, tuple(body), notes)


def _gap(oracle: Choice, other: Choice, confidence: float) -> str:
    gap = paired(oracle.accuracy, other.accuracy, confidence)
    # Where no seed chooses another lambda, an interval of width 0 would claim more than is known.
    return "0 (same λ)" if gap.n and np.array_equal(oracle.lams, other.lams) else interval_text(gap)


def _choice(lams: Array, accuracy: Array, index: NDArray[np.intp]) -> Choice:
    """The lambdas of some indices [S], -1 for none, and each seed's accuracy [S, L] there."""
    chosen = np.where(index >= 0, lams[index], np.nan)
    there = np.take_along_axis(accuracy, np.maximum(index, 0)[:, None], axis=1)[:, 0]
    return Choice(chosen, np.where(index >= 0, there, np.nan))


def _cells(choice: Choice) -> list[str]:
    """The lambdas, with how many seeds use each where they differ, and the accuracy."""
    lams, counts = np.unique(choice.lams[np.isfinite(choice.accuracy)], return_counts=True)
    several = [f"{lambda_text(lam)} ({n})" for lam, n in zip(lams, counts, strict=True)]
    text = ", ".join(several) if len(lams) > 1 else lambda_text(lams[0]) if len(lams) else NOTHING
    return [text, estimate_text(estimate(choice.accuracy))]
