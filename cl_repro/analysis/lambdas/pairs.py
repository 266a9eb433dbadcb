"""Differences between arms at their best lambda, paired by seed, in two families of tests.

Pairs of estimators are one family; pairs with a method that has no lambda (None, joint) ask another question, whether
a penalty helps at all, and are a family of their own. Wilcoxon's p-values are Holm-corrected within each. Arms that
agree at every cell are the same computation and no test. Arms that differ in another setting besides their estimator
are not subtracted.
"""

import math
from itertools import combinations
from typing import NamedTuple

import numpy as np

from cl_repro.analysis.data.arms import Grid, NamedArm
from cl_repro.analysis.data.study import ARMS, Study
from cl_repro.analysis.lambdas.accuracy import NOTHING, at_best, interval_text, lambda_text
from cl_repro.analysis.lambdas.intervals import resampled_interval, resamples
from cl_repro.analysis.lambdas.selection import TOO_SMALL, limits_text, reselected
from cl_repro.analysis.lambdas.shape import seed_mean
from cl_repro.analysis.output.markup import MINUS, Table
from cl_repro.common.stats import Array, Interval, holm, paired, signed_rank

IDENTICAL = "identical"
FAMILIES = {"paired": "between estimators", "paired-none": "to methods without λ"}  # tables of `families`
HEADER = ("Difference", "at λ", "points", "pairs", "p", "bootstrap")


class Side(NamedTuple):
    """One arm at its best lambda."""

    arm: NamedArm
    lam: float  # NaN for methods without
    accuracy: Array  # [S], percent
    cells: Array  # [S, L], percent; [S, 1] for methods without lambda
    samples: Array  # [1 + R], mean accuracy of all seeds and of every resample, lambda chosen again in each


class Pair(NamedTuple):
    """Two arms, first minus second, points of accuracy."""

    first: Side
    second: Side
    difference: Interval  # t-interval, paired by seed
    identical: bool  # the same lambdas and seeds, and the same accuracy at each
    p: float  # Wilcoxon, Holm-corrected over the family; NaN where identical or too few pairs
    bootstrap: Interval


def families(study: Study, grid: Grid) -> tuple[list[Pair], list[Pair]]:
    """All pairs of arms that differ in one thing: those of two estimators, and those with a method without lambda."""
    sides = _sides(study, grid)
    curved = {side.arm.label: side for side in sides[: len(grid.arms)]}
    wanted = study.settings.pairs or combinations(curved, 2)
    estimators = [(curved[a], curved[b]) for a, b in wanted if a in curved and b in curved]
    others = [pair for pair in combinations(sides, 2) if pair[1].arm not in grid.arms]
    alike = [[(a, b) for a, b in pairs if a.arm.compares(b.arm)] for pairs in (estimators, others)]
    return _family(study, alike[0]), _family(study, alike[1])


def pair_tables(study: Study, grid: Grid) -> list[Table]:
    """A table per family that has a pair."""
    tables, notes = [], _notes(study, grid)
    for (name, what), pairs in zip(FAMILIES.items(), families(study, grid), strict=True):
        if pairs:
            rows = tuple(_cells(study, pair) for pair in pairs)
            tables.append(Table(name, f"Differences {what}, paired by seed", HEADER, rows, notes))
            notes = ("Columns as above; p is Holm-corrected over the pairs of this table, a family of its own.",)
    return tables


def _sides(study: Study, grid: Grid) -> list[Side]:
    """Every arm, in the order of `at_best`: those with a lambda first."""
    weight = resamples(grid.seeds.size, study.settings)
    flat = [values[:, None] for _, values in reversed(grid.flat)]
    cells = [*grid.accuracy, *flat]
    samples = [*reselected(grid.accuracy, weight).T, *(seed_mean(values, weight)[:, 0] for values in flat)]
    return [Side(*chosen, *own) for chosen, *own in zip(at_best(grid), cells, samples, strict=True)]


def _family(study: Study, pairs: list[tuple[Side, Side]]) -> list[Pair]:
    settings, found = study.settings, []
    for a, b in pairs:
        difference = paired(a.accuracy, b.accuracy, settings.confidence)
        same = bool(np.isfinite(a.cells).any()) and np.array_equal(a.cells, b.cells, equal_nan=True)
        tested = not same and difference.n >= settings.wilcoxon_from
        p = signed_rank(a.accuracy, b.accuracy) if tested else math.nan
        bootstrap = resampled_interval(a.samples - b.samples, difference.n, settings)
        found.append(Pair(a, b, difference, same, p, bootstrap))
    corrected = holm([pair.p for pair in found])
    return [pair._replace(p=float(p)) for pair, p in zip(found, corrected, strict=True)]


def _notes(study: Study, grid: Grid) -> tuple[str, ...]:
    settings, arms = study.settings, [*grid.arms, *(arm for arm, _ in grid.flat)]
    unlike = sorted({place for a, b in combinations(arms, 2) if not a.compares(b) for place in a.unlike(b)})
    chosen = "λ" if study.kind == ARMS else "best λ, chosen on the same seeds"
    return (
        f"Points of accuracy, each arm at its {chosen}; brackets: {settings.confidence:.0%} "
        "t-interval paired by seed, the primary comparison, not corrected for the number of pairs.",
        f"p: Wilcoxon's signed-rank test, two-sided, from n = {settings.wilcoxon_from} pairs on, Holm-corrected over "
        "the pairs of this table. Identical: the same accuracy at every λ and seed, so no test and not in the family.",
        f"Bootstrap: {settings.confidence:.0%} percentile interval over seeds, both λ chosen again in each of "
        f"{settings.resamples} resamples, from n = {settings.bootstrap_from} seeds on.",
        *([f"Not subtracted: arms that differ in more than one thing, {', '.join(unlike)}."] if unlike else []),
    )


def _cells(study: Study, pair: Pair) -> tuple[str, ...]:
    name = f"{pair.first.arm.label} {MINUS} {pair.second.arm.label}"
    lams = f"{lambda_text(pair.first.lam)}, {lambda_text(pair.second.lam)}"
    n = str(pair.difference.n)
    if pair.identical:
        return (name, lams, "0", n, IDENTICAL, NOTHING)
    p = TOO_SMALL if math.isnan(pair.p) else "<0.001" if pair.p < 0.001 else f"{pair.p:.3f}"
    return (name, lams, interval_text(pair.difference), n, p, limits_text(study, pair.bootstrap, sign="+"))
