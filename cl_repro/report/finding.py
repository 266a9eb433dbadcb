"""What was found, in a paragraph and a figure: the beginning of the report, from the headline study's files alone."""

from typing import NamedTuple

import numpy as np

from cl_repro.analysis.data.arms import grid_of
from cl_repro.analysis.data.study import describe, open_study
from cl_repro.analysis.lambdas.accuracy import at_best, interval_text
from cl_repro.analysis.lambdas.collapse import collapse
from cl_repro.common.stats import estimate
from cl_repro.report.section import HEADLINE, Picture, Place


class Finding(NamedTuple):
    """The beginning of the report."""

    text: str
    picture: Picture


def finding(place: Place) -> Finding | None:
    """What the headline study found; None where it, or its figure, is not there."""
    if not (place.results / HEADLINE / "runs.csv").is_file():
        return None
    study = open_study(HEADLINE, place.results)
    alt = f"{describe(study.runs)}: accuracy against λ, and against λ times the trace of the Fisher"
    pictures, found = place.pictures([f"collapse_{HEADLINE}"], alt), collapse(study)
    if not pictures or not found:
        return None
    grid = grid_of(study.runs, study.folder)
    best = [estimate(values).mean for arm, _, values in at_best(grid) if arm.fisher]
    none, least = estimate(grid.none).mean, "at least " if any(found.at_most) else ""
    before, after = (least + interval_text(one, sign="") for one in (found.spread, found.rescaled_spread))
    floor = f" (without a penalty {none:.1f} %)" if np.isfinite(none) else ""
    text = (
        f"Does it matter how the Fisher of EWC is computed? At their best λ, {len(best)} ways of computing it reach "
        f"{min(best):.1f} to {max(best):.1f} %{floor}. What differs is which λ is good: between the first rise and the "
        f"last are {before} decades of λ, but {after} of λ times the trace of the Fisher."
    )
    return Finding(text, pictures[0])
