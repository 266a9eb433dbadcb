"""Intervals over seeds of what is made of seed-mean curves: rises, widths, gaps between rises, spreads.

From `at_least.bootstrap` seeds on, as of accuracies, the percentile bootstrap. For fewer it is too narrow: with three
seeds it holds the rise of the true curve in three studies of four. A t-interval of the jackknife's pseudo-values, one a
seed, holds it as often as it says (`tests/test_intervals.py` counts both). It needs a quantity that one seed changes a
little, such as a rise or a gap. The largest minus the smallest of several is none: below that number of seeds a spread
has no interval.
"""

import numpy as np
from numpy.typing import ArrayLike

from cl_repro.analysis.data.settings import Settings
from cl_repro.common.stats import Array, Interval, bootstrap_weights, jackknife_interval, percentile_interval


def weightings(n_seeds: int, settings: Settings) -> Array:
    """How often each seed counts, [W, S]: each once; then all but one, or, from enough seeds on, resamples."""
    if n_seeds < settings.bootstrap_from:
        return np.concatenate([np.ones((1, n_seeds)), 1 - np.eye(n_seeds)])
    return resamples(n_seeds, settings)


def resamples(n_seeds: int, settings: Settings) -> Array:
    """How often each seed counts, [1 + R, S]: each once; then as it was drawn with replacement."""
    drawn = bootstrap_weights(n_seeds, settings.resamples, np.random.default_rng(settings.seed))
    return np.concatenate([np.ones((1, n_seeds)), drawn])


def interval_of(values: Array, there: ArrayLike, settings: Settings) -> Interval:
    """The interval of a quantity.

    Args:
        values: [W], the quantity of every weighting of `weightings`.
        there: [S], of each seed of the study whether the quantity is made of it.
        settings: of the study.

    Returns:
        The quantity of all seeds and its limits; NaN limits where some weighting lacks it, or n is too small.
    """
    own = np.asarray(there, dtype=bool)
    if own.size < settings.bootstrap_from:
        return jackknife_interval(values[0], values[1:][own], settings.confidence)
    return resampled_interval(values, int(own.sum()), settings)


def resampled_interval(values: Array, n: int, settings: Settings) -> Interval:
    """As `interval_of`, of what has an interval only from `at_least.bootstrap` seeds on: values of `resamples`."""
    if n < settings.bootstrap_from:
        return Interval(float(values[0]), np.nan, np.nan, n)
    return percentile_interval(values[0], values[1:], settings.confidence, n)


def interval_note(n_seeds: int, settings: Settings) -> str:
    """What the brackets of `interval_of` are."""
    if n_seeds >= settings.bootstrap_from:
        return (
            f"Brackets: {settings.confidence:.0%} percentile bootstrap over seeds ({settings.resamples} resamples, the "
            "same for None and every arm)."
        )
    return (
        f"Brackets: {settings.confidence:.0%} t-interval of the jackknife's pseudo-values, one a seed, which is left "
        f"out of None and of every arm together (from n = {settings.bootstrap_from} seeds on a percentile bootstrap, "
        "which is too narrow for fewer). None where without some seed there is no rise, or one at the grid's edge, or "
        "where no seed changes anything."
    )
