"""Every published number beside ours: which of our arms it is, what made ours, and the verdict.

A published row and an arm belong together where study, benchmark, scenario, method, Fisher, variant (what a study calls
an arm beside those), batch size and metric agree. Training times are of other hardware: only their ratios to None are
put side by side, ours with the Fisher one example at a time, as in the reference code.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cl_repro.analysis.comparisons.comparison import compared
from cl_repro.analysis.data.arms import grid_of, setting, variant
from cl_repro.analysis.data.looks import ONE_SAMPLE
from cl_repro.analysis.data.read import read_provenance
from cl_repro.analysis.data.settings import COMPARISON, Settings, companions, conf_dir, load
from cl_repro.analysis.data.study import (
    PLACE,
    TIMING,
    Study,
    all_published,
    commits,
    open_study,
    published_estimate,
)
from cl_repro.analysis.kinds import STUDY, folders
from cl_repro.analysis.lambdas.accuracy import OTHER_PROTOCOL, at_best, judge
from cl_repro.analysis.lambdas.timing import timings
from cl_repro.common.errors import Skipping, UserError
from cl_repro.common.stats import AGREES, DIFFERS, TOO_FEW, Estimate, Interval, estimate
from cl_repro.records.schema import IDENTITY

SHOWN, NOT_RUN, NOT_UNIQUE, NO_VERDICT = "shown", "not yet run", "not unique", "no verdict"
VERDICTS = (AGREES, DIFFERS, TOO_FEW, SHOWN, OTHER_PROTOCOL, NOT_UNIQUE, NO_VERDICT, NOT_RUN)
TIME = "train_time"


class Made(NamedTuple):
    """What made a number of ours, or would."""

    command: str  # make reproduce ...; empty where there is no such study yet
    invocations: str = ""  # the commands that were run, from provenance.json
    commit: str = ""
    hardware: str = ""
    date: str = ""  # of the last run, UTC


class Ours(NamedTuple):
    """One number of ours that a published one may stand beside."""

    study: Study
    identity: dict[str, Any]  # the columns of published.csv that it must agree with
    value: Estimate  # percent; of a training time its ratio to None
    lam: float  # NaN for methods without lambda
    runs: pd.DataFrame  # behind it


class Entry(NamedTuple):
    """One row of the ledger."""

    row: pd.Series  # of published.csv
    twins: int  # how many published rows have its identity
    theirs: Estimate  # percent; of a training time its ratio to None
    ours: Estimate | None = None
    lam: float = math.nan
    difference: Interval = Interval(math.nan, math.nan, math.nan, 0)  # ours - theirs; limits only of a comparison
    verdict: str = NOT_RUN  # one of `VERDICTS`
    remark: str = ""  # why, or how many seeds would do
    made: Made = Made("")
    settings: Settings | None = None  # by which it was judged
    would: str = ""  # of a row that is not yet run: the study that would make our number, if there is one


def entries(results_dir: Path, skipping: Skipping | None = None) -> list[Entry]:
    """One entry per row of published.csv, in its order; rows that no run of ours belongs to are `not yet run`.

    Only folders are opened that have published rows; what to do with a bad one `skipping` says, None: it is an error.

    Raises:
        UserError: there are no published numbers, or a results folder is damaged.
    """
    published = all_published(results_dir)
    if published.empty:
        raise UserError(f"no published numbers at {results_dir / 'published' / 'published.csv'}")
    known = set(published["study"])
    skipping, ours = skipping or Skipping(), list[Ours]()
    for name in folders(results_dir, STUDY):
        if load(name).published_study in known:
            with skipping.attempt(results_dir / name):
                study = open_study(name, results_dir)
                # A smoke run, or a copy of a folder, is not the study whose name it bears.
                ours += [*_numbers(study)] if study.name == study.runs["study"].iloc[0] else []
    twins = published.groupby(list(IDENTITY), dropna=False)["value"].transform("size")
    beside = companions()
    found = []
    for (_, row), n in zip(published.iterrows(), twins, strict=True):
        fitting = [one for one in ours if _fits(row, one)]
        found.append(_entry(row, _theirs(row, published), fitting, n, _recipe(row, beside)))
    return found


def _numbers(study: Study) -> Iterator[Ours]:
    """Accuracies of a study published under its own name, or that and its benchmark's; times of one made for timing."""
    published = study.settings.published_study
    if study.kind == TIMING:
        yield from _ratios(study)
    elif len(study.published) and study.name in (published, f"{published}_{study.runs['benchmark'].iloc[0]}"):
        yield from _accuracies(study)


def _accuracies(study: Study) -> Iterator[Ours]:
    """Every arm at its best lambda, or at that which a comparison chooses."""
    if study.kind == COMPARISON:
        found = [(entry.arm, entry.lam, entry.accuracy) for entry in compared(study)]
    else:
        places = [grid_of(runs, study.folder) for _, runs in study.runs.groupby(PLACE)]
        found = [one for grid in places for one in at_best(grid)]
    for arm, lam, values in found:
        own, ours = study.runs[study.runs["config_id"] == arm.config_id], estimate(values)
        if ours.n:
            shown = {"variant": variant(own["arm"].iloc[0], arm.method, arm.fisher)}
            yield Ours(study, _identity(study, own, "accuracy", arm.method, arm.fisher) | shown, ours, lam, own)


def _ratios(study: Study) -> Iterator[Ours]:
    """Every estimator's training time, relative to None's."""
    rows = timings(study)
    none = next((row.ours.mean for row in rows if not row.fisher), math.nan)
    for row in rows:
        slow, method = (row.one_sample, "ewc") if row.fisher else (row.ours, "finetune")
        fishers = [ONE_SAMPLE + row.fisher, ""] if row.fisher else [""]
        own = study.runs[study.runs["fisher"].isin(fishers)].sort_values("fisher", ascending=False, kind="stable")
        ratio = Estimate(slow.mean / none, math.nan, slow.n)
        if math.isfinite(ratio.mean):
            yield Ours(study, _identity(study, own, TIME, method, row.fisher), ratio, math.nan, own)


def _identity(study: Study, runs: pd.DataFrame, metric: str, method: str, fisher: str) -> dict[str, Any]:
    place = runs[["benchmark", "scenario", "batch_size"]].iloc[0].to_dict()
    return {"study": study.settings.published_study, "metric": metric, "method": method, "fisher": fisher, **place}


def _fits(row: pd.Series, ours: Ours) -> bool:
    return all(row[column] == value for column, value in ours.identity.items())


def _theirs(row: pd.Series, published: pd.DataFrame) -> Estimate:
    """The published mean; of a training time the ratio to None's, NaN where that is not published."""
    theirs = published_estimate(row)
    if row["metric"] != TIME:
        return theirs
    same = [column for column in IDENTITY if column not in ("method", "fisher")]
    none = published[(published[same] == row[same]).all(axis=1) & (published["method"] == "finetune")]
    ratio = theirs.mean / none["value"].iloc[0] if len(none) == 1 else math.nan
    return Estimate(float(ratio), math.nan, theirs.n)


def _entry(row: pd.Series, theirs: Estimate, fitting: list[Ours], twins: int, would: str) -> Entry:
    """Judge one published row; `theirs` is its mean, or its ratio to None, and `fitting` what agrees with it of ours.

    `twins` published rows have its identity, and the study `would` would make our number, where that is not empty.
    """
    entry = Entry(row, twins, theirs)
    if not fitting:
        return entry._replace(made=Made(_command(would, "paper") if would else ""), would=would)
    if twins > 1 or len(fitting) > 1:
        return entry._replace(verdict=NOT_UNIQUE, remark=f"{twins} published and {len(fitting)} of our numbers fit")
    study, _, ours, lam, runs = fitting[0]
    difference = Interval(ours.mean - theirs.mean, math.nan, math.nan, ours.n)
    entry = entry._replace(ours=ours, lam=lam, difference=difference, made=_made(study, runs))
    if row["metric"] == TIME:
        return entry._replace(verdict=SHOWN)
    _, comparison, remark = judge(study, row, ours)
    if comparison:
        interval, verdict, note = comparison
        return entry._replace(difference=interval, verdict=verdict, remark=note, settings=study.settings)
    verdict, remark = (remark, "") if remark == OTHER_PROTOCOL else (NO_VERDICT, remark)
    return entry._replace(verdict=verdict, remark=remark)


def _made(study: Study, runs: pd.DataFrame) -> Made:
    """Command, commit, hardware and date of some runs; the first one's configuration tells the scale."""
    ids = set(runs["config_id"])
    noted = read_provenance(study.folder).get("invocations", [])
    commands = dict.fromkeys(one["command"] for one in noted if ids & set(one["config_ids"]))
    scale = setting(study.folder, runs["config_id"].iloc[0], "scale") or runs["scale"].iloc[0]
    return Made(
        command=_command(study.name, scale),
        invocations="; ".join(commands),
        commit=commits(runs),
        hardware="; ".join(sorted(runs["hardware"].unique())),
        date=runs["finished"].max()[:10],
    )


def _recipe(row: pd.Series, beside: dict[str, str]) -> str:
    """The study that would make our number: of that name (or of that and the benchmark's), of a time its companion."""
    timed = row["metric"] == TIME
    own = [row["study"], f"{row['study']}_{row['benchmark']}"]
    names = [name for name, study in beside.items() if study == row["study"]] if timed else own
    there = [name for name in names if (conf_dir() / "study" / f"{name}.yaml").is_file()]
    return there[0] if there else ""


def _command(study: str, scale: str) -> str:
    return f"make reproduce STUDY={study} SCALE={scale}"
