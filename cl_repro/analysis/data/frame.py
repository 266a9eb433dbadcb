"""A results folder as one data frame for reading: one row per run, told apart without a look into its configuration."""

from pathlib import Path

import numpy as np
import pandas as pd

from cl_repro.analysis.data.arms import arms_of, settings_in_words
from cl_repro.analysis.data.read import read_runs
from cl_repro.analysis.data.study import SCENARIOS
from cl_repro.analysis.lambdas.accuracy import lambda_text

NO_LAMBDA = "none"
COLUMNS = (
    "benchmark", "scenario", "model", "arm", "settings", "lambda", "lam", "seed", "accuracy", "forgetting", "seconds",
    "status", "method", "fisher", "run_id", "config_id",
)  # fmt: skip


def read_folder(folder: str | Path) -> pd.DataFrame:
    """The runs of a results folder, one row each, in the order of the tables.

    Every key has a value in every row, so that grouping by it drops none. Columns:

    - benchmark, scenario, model: as in runs.csv.
    - arm: its name in the tables, another one for every configuration of a benchmark and scenario.
    - settings: in words, those in which it differs from other arms of its benchmark and scenario, as far as they make
      the same choice: optim=sgd, optim.lr=0.3, memory.size=200, gamma=0.5. Empty if in none, or if there is no
      configuration beside the rows.
    - lambda: text, as in the tables, e.g. 1e3; none for methods without.
    - lam: the same as a number; NaN for methods without.
    - seed.
    - accuracy: percent, the mean over tasks after the last one; NaN where the run was lost (see status).
    - forgetting: points, the mean over old tasks of the best accuracy so far minus the last; NaN likewise.
    - seconds: of training and importances.
    - status: ok, diverged or failed.
    - method, fisher, run_id, config_id: as in runs.csv; fisher is empty for methods without.

    Args:
        folder: e.g. results/split_mnist_fisher.

    Returns:
        The frame; its index counts the rows.

    Raises:
        UserError: runs.csv is missing, cut short, edited, or of another schema.
    """
    folder = Path(folder)
    runs = read_runs(folder)
    fine, parts = runs["status"] == "ok", []
    runs = runs.assign(
        lam=runs["lambda"],
        accuracy=100 * runs["accuracy"].where(fine),
        forgetting=100 * runs["forgetting"].where(fine),
        seconds=runs["seconds_train"] + runs["seconds_fisher"].fillna(0),
    )
    runs["lambda"] = [key(lam) for lam in runs["lam"]]
    for _, part in runs.groupby(["benchmark", "scenario"]):
        arms, own = arms_of(part, folder), settings_in_words(part, folder)
        place = {arm.config_id: i for i, arm in enumerate(arms)}
        names, of = {arm.config_id: arm.label for arm in arms}, part["config_id"]
        told = part.assign(arm=of.map(names), settings=of.map(own), order=of.map(place))
        parts.append(told.sort_values(["order", "lam", "seed"], kind="stable"))
    found = pd.concat(parts) if parts else runs.assign(settings="")  # an empty file
    known = {scenario: i for i, scenario in enumerate(SCENARIOS)}
    found = found.assign(order=found["scenario"].map(known).fillna(len(known)))
    return found.sort_values(["benchmark", "order"], kind="stable").reset_index(drop=True)[list(COLUMNS)]


def key(lam: float) -> str:
    """A lambda to group by: as in the tables, in full where that is rounded, and a word where there is none."""
    if np.isnan(lam):
        return NO_LAMBDA
    short = lambda_text(lam)
    return short if float(short) == lam else repr(float(lam))
