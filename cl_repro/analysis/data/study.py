"""A results folder opened for analysis: its runs, what kind of study they are, and the published rows beside them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cl_repro.analysis.data.arms import NamedArm, variant
from cl_repro.analysis.data.looks import ONE_SAMPLE
from cl_repro.analysis.data.read import read_published, read_runs
from cl_repro.analysis.data.settings import Settings, load
from cl_repro.common.errors import UserError
from cl_repro.common.stats import Estimate
from cl_repro.records.schema import PUBLISHED

AD_HOC = "runs"  # the folder of runs that belong to no study, and what their rows call it
CURVES, ARMS, TIMING, LISTING = "curves", "arms", "timing", "listing"
PLACE = ["benchmark", "scenario", "model"]
SOURCES = {  # of published numbers, as readers know them and in this order; others follow
    "blog-final": "van de Ven (2025)",
    "blog-draft": "its draft",
    "hsu-2018": "Hsu et al. (2018)",
    "unifying": "Benzing (2022)",
}
WORDS = {"mnist": "MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
NAMES = {"cifar10_100": "Split CIFAR-10/100"}  # of benchmarks whose words do not make their name
TWINS = {"cpu": "CPU twin"}  # of the paper's protocol; other scales are named
SCENARIOS = {"task": "task-incremental", "domain": "domain-incremental", "class": "class-incremental"}


class Study(NamedTuple):
    """One results folder."""

    name: str  # of the folder
    folder: Path
    runs: pd.DataFrame
    kind: str  # curves: accuracy against lambda; arms: one lambda each; timing; comparison; listing: anything else
    settings: Settings
    published: pd.DataFrame  # of settings.published_study; no rows if there are none

    @property
    def reported(self) -> pd.DataFrame:
        """Runs of the seeds that are reported: without those that choose lambda alone, if others have been run."""
        others = self.runs[~self.runs["seed"].isin(self.settings.chosen_on)]
        return self.runs if others.empty else others


def open_study(name: str, results_dir: Path) -> Study:
    """Read results/<name>: its checked runs, their settings, and the published rows of their study.

    Raises:
        UserError: no rows, or a file that `read_runs` or `all_published` refuses.
    """
    folder = results_dir / name
    runs = read_runs(folder)
    if runs.empty:
        raise UserError(f"{folder / 'runs.csv'} has no rows: run the study first")
    settings = load(str(runs["study"].iloc[0]))
    published = all_published(results_dir)
    published = published[published["study"] == settings.published_study]
    kind = settings.kind or kind_of_runs(name, runs)
    return Study(name, folder, runs, kind, settings, published)


def all_published(results_dir: Path) -> pd.DataFrame:
    """published.csv: one row per published number; accuracies in percent."""
    return read_published(results_dir, "published.csv", PUBLISHED)


def kind_of_runs(name: str, runs: pd.DataFrame) -> str:
    """What can be made of the runs.

    `timing`: the arms include one-sample implementations. `curves`: one benchmark, scenario and model, one
    configuration per arm, and at least two lambdas. `arms`: the same with one lambda an arm, and at least two arms.
    `listing`: ad-hoc runs and everything else.
    """
    if runs["fisher"].str.startswith(ONE_SAMPLE).any():
        return TIMING
    one_place = len(runs.drop_duplicates(PLACE)) == 1
    one_config = (runs.groupby(["study", "arm"])["config_id"].nunique() == 1).all()
    if AD_HOC in {name, *runs["study"]} or not one_place or not one_config:
        return LISTING
    if most_lambdas(runs) > 1:
        return CURVES
    return ARMS if runs["config_id"].nunique() > 1 else LISTING


def most_lambdas(runs: pd.DataFrame) -> int:
    """How many lambdas the arm with the most of them has, 0 among them."""
    return int(runs.groupby("config_id")["lambda"].nunique().max()) if len(runs) else 0


def describe(runs: pd.DataFrame, *, places: bool = True) -> str:
    """Benchmark, scenario if it is wanted, number of seeds, and the scale if it is not the paper's."""
    there = runs.drop_duplicates(["benchmark", "scenario"])
    names = [
        benchmark_name(benchmark) + (f", {SCENARIOS.get(scenario, scenario)}" if places else "")
        for benchmark, scenario in zip(there["benchmark"], there["scenario"], strict=True)
    ]
    names = list(dict.fromkeys(names))
    n = runs["seed"].nunique()
    scales = sorted(set(runs["scale"]) - {""})
    scale = [] if scales in ([], ["paper"]) else [" and ".join(TWINS.get(one, f"scale {one}") for one in scales)]
    return ", ".join(["; ".join(names), f"{n} seed{'s' * (n != 1)}", *scale])


def benchmark_name(benchmark: str) -> str:
    """E.g. split_mnist -> Split MNIST."""
    words = " ".join(WORDS.get(word, word) for word in benchmark.split("_"))
    return NAMES.get(benchmark, words[:1].upper() + words[1:])


def published_row(study: Study, source: str, metric: str, arm: NamedArm) -> pd.Series | None:
    """The published row of an arm by a source (blog-final), of a metric (accuracy, train_time); None if there is none.

    Matched by study, method and Fisher, that of its estimator for a one-sample arm. Where a study was published with
    several benchmarks, scenarios or variants, those of the arm's runs decide, or, of a timing, those of the study's.

    Raises:
        UserError: several rows fit.
    """
    rows = study.published
    rows = rows[(rows["source"] == source) & (rows["metric"] == metric) & (rows["method"] == arm.method)]
    rows = rows[rows["fisher"] == arm.fisher.removeprefix(ONE_SAMPLE)]
    own = study.runs[study.runs["config_id"] == arm.config_id]
    first = (study.runs if own.empty else own).iloc[0]  # a row of the timing table is several arms
    for column in ("benchmark", "scenario"):
        if len(rows) > 1:
            rows = rows[rows[column] == first[column]]
    if len(rows) > 1:
        rows = rows[rows["variant"] == ("" if own.empty else variant(first["arm"], arm.method, arm.fisher))]
    if len(rows) > 1:
        fit = f"{source}, {arm.method}, {arm.fisher or 'no Fisher'}"
        raise UserError(f"published.csv: {len(rows)} rows of {study.settings.published_study} fit {fit}")
    return rows.iloc[0] if len(rows) else None


def source_name(source: str) -> str:
    """Who published something, as readers know them."""
    return SOURCES.get(source, source)


def sources(study: Study, metric: str) -> list[str]:
    """Who published this metric for the study, in the order of the tables' columns."""
    there = set(study.published["source"][study.published["metric"] == metric])
    return [s for s in SOURCES if s in there] + sorted(there - set(SOURCES))


def published_estimate(row: pd.Series) -> Estimate:
    """Mean, SEM and n of a published row, in its unit; a published standard deviation becomes a SEM."""
    n = int(row["n_seeds"]) if np.isfinite(row["n_seeds"]) else 0
    kinds = {"sem": 1, "std": max(n, 1), "std_ddof0": max(n - 1, 1)}  # what the square of the spread is divided by
    sem = row["spread"] / np.sqrt(kinds.get(row["spread_kind"], np.nan))
    return Estimate(float(row["value"]), float(sem), n)


def commits(runs: pd.DataFrame) -> str:
    """Short commits the runs were made from, `-dirty` where the tree had changes."""
    marked = runs["git_sha"].str[:7] + np.where(runs["dirty"], "-dirty", "")
    return "+".join(sorted(marked.unique()))


def mixed_seeds(runs: pd.DataFrame) -> list[int]:
    """Seeds that were computed on several kinds of processor; how many cores a machine has does not matter."""
    kinds = runs["hardware"].str.replace(r", \d+ cores, ", ", ", regex=True).groupby(runs["seed"]).nunique()
    return [int(seed) for seed in kinds.index[kinds > 1]]


def unmixed(study: Study) -> Study:
    """The study without its mixed seeds, of which arms are paired: on another processor a seed is another network.

    A study without mixed seeds is returned as it is.
    """
    mixed = mixed_seeds(study.runs)
    return study._replace(runs=study.runs[~study.runs["seed"].isin(mixed)]) if mixed else study


def mixed_note(runs: pd.DataFrame) -> str:
    """Which seeds are mixed, in words; empty if none is."""
    if not (mixed := mixed_seeds(runs)):
        return ""
    named = ", ".join(map(str, mixed))
    return f"Not paired, as their arms mix processors, and on another a seed is another network: seeds {named}."


def origin(runs: pd.DataFrame) -> str:
    """One line on where the runs come from: commit, torch, device and hardware; and which seeds mix processors."""
    torch = ", ".join(sorted(runs["torch"].unique()))
    where = runs.drop_duplicates(["device", "hardware"])
    places = "; ".join(sorted(f"{d} ({h})" for d, h in zip(where["device"], where["hardware"], strict=True)))
    return " ".join(filter(None, [f"Runs of commit {commits(runs)}, torch {torch}, {places}.", mixed_note(runs)]))
