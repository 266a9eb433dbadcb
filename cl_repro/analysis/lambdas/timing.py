"""Table (d): training time relative to None, published and ours, in two implementations."""

from typing import NamedTuple

import numpy as np

from cl_repro.analysis.data.arms import NamedArm, arms_of, label
from cl_repro.analysis.data.looks import ONE_SAMPLE, kind_of
from cl_repro.analysis.data.study import Study, origin, published_row, sources
from cl_repro.analysis.lambdas.accuracy import NOTHING, estimate_text
from cl_repro.analysis.output.markup import Table
from cl_repro.common.errors import UserError
from cl_repro.common.stats import Estimate, estimate

ORDER = ("exact", "sample", "empirical", "exact_n", "predicted", "batched", "")  # as published: slowest first


class Timing(NamedTuple):
    """Seconds of training, Fisher passes included, by implementation."""

    fisher: str  # without the prefix; empty for None
    one_sample: Estimate
    ours: Estimate


def timings(study: Study) -> list[Timing]:
    """Mean over seeds of seconds_train + seconds_fisher, per estimator.

    Raises UserError where runs differ in more than their Fisher and how it is computed, or are of several machines.
    """
    first, *others = arms_of(study.runs, study.folder)
    if places := sorted({place for arm in others for place in arm.unlike(first)}):
        raise UserError(f"{study.folder}: its runs differ in {', '.join(places)}: their times do not compare")
    if len(machines := sorted({*study.runs["device"] + " (" + study.runs["hardware"] + ")"})) > 1:
        raise UserError(f"{study.folder}: its runs are of {'; '.join(machines)}: their times do not compare")
    runs = study.runs[study.runs["status"] == "ok"]
    runs = runs.assign(
        seconds=runs["seconds_train"] + runs["seconds_fisher"].fillna(0),
        estimator=runs["fisher"].str.removeprefix(ONE_SAMPLE),
        slow=runs["fisher"].str.startswith(ONE_SAMPLE),
    )
    runs = runs[(runs["fisher"] != "") | (runs["method"] == "finetune")]

    def rank(fisher: str) -> tuple:
        kind = kind_of(fisher)
        return (ORDER.index(kind) if kind in ORDER else len(ORDER) - 1.5, fisher)

    seconds = runs.set_index(["estimator", "slow"])["seconds"]
    return [
        Timing(fisher, *(estimate(seconds[seconds.index.isin([(fisher, slow)])]) for slow in (True, False)))
        for fisher in sorted(runs["estimator"].unique(), key=rank)
    ]


def timing_table(study: Study) -> Table:
    """Ratios to None: published, one sample at a time, ours; and our seconds."""
    rows = timings(study)
    none = next((row.ours.mean for row in rows if row.fisher == ""), np.nan)
    published = sources(study, "train_time")
    header = ["Estimator", *published, "one_sample", "ours", "one_sample, s", "ours, s"]
    body = []
    for row in rows:
        method = "ewc" if row.fisher else "finetune"
        arm = NamedArm("", method, row.fisher, label(method, row.fisher))
        # None has no Fisher: one implementation stands for both.
        slow = row.one_sample if row.fisher else row.ours
        cells = [arm.label, *(_published_ratio(study, source, arm) for source in published)]
        cells += [_ratio(slow.mean / none), _ratio(row.ours.mean / none)]
        cells += [estimate_text(slow, 1), estimate_text(row.ours, 1)]
        body.append(tuple(cells))
    notes = (
        "Ratios of mean training time to None's, Fisher passes included, evaluation not. one_sample: the Fisher one "
        "example at a time through autograd, as in the reference code; ours: the layer-wise formulas. Both train in "
        "the same way, one replica at a time with nothing shared, so None stands for both.",
        "Seconds: mean ± SEM (n seeds). Published times are of other hardware: only ratios compare.",
        origin(study.runs),
    )
    return Table("timing", "Training time relative to None", tuple(header), tuple(body), notes)


def _published_ratio(study: Study, source: str, arm: NamedArm) -> str:
    row = published_row(study, source, "train_time", arm)
    none = published_row(study, source, "train_time", NamedArm("", "finetune", "", "None"))
    return NOTHING if row is None or none is None else _ratio(row["value"] / none["value"])


def _ratio(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else NOTHING
