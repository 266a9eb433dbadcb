r"""Means, intervals and verdicts. Numpy and scipy only; the shape of a curve is in analysis/shape.py.

Every spread is a standard error of the mean with ddof = 1 (n - 1); accuracies are in percent, so that
differences are in points. Nothing here knows a study: the numbers that change a verdict (confidence, delta,
width, resamples) are arguments, and live in conf/analysis.yaml. A diverged or missing run is NaN.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student
from scipy.stats import wilcoxon

Array = NDArray[np.float64]
AGREES, DIFFERS, TOO_FEW = "agrees", "differs", "too few seeds"


class Estimate(NamedTuple):
    """A mean over seeds."""

    mean: float
    sem: float  # ddof = 1; NaN where n < 2
    n: int  # the finite values


class Interval(NamedTuple):
    """A centre and its confidence limits; the limits are NaN where there are too few seeds for any."""

    centre: float
    low: float
    high: float
    n: int  # seeds behind it


class Comparison(NamedTuple):
    """Ours against a published mean."""

    interval: Interval  # of ours - theirs
    verdict: str  # agrees | differs | too few seeds
    note: str  # for too few seeds: what would be enough; else empty


def estimate(values: ArrayLike) -> Estimate:
    """Mean and standard error (ddof = 1) of the finite values.

    Args:
        values: any shape, one value per seed; NaN where a seed is missing or diverged.

    Returns:
        The mean, sd / sqrt(n), and n.
    """
    x = np.asarray(values, dtype=float)
    x = x[np.isfinite(x)]
    mean = float(x.mean()) if x.size else math.nan
    sem = float(x.std(ddof=1)) / math.sqrt(x.size) if x.size > 1 else math.nan
    return Estimate(mean, sem, int(x.size))


def half_width(sem: ArrayLike, n: ArrayLike, theirs: Estimate, confidence: float) -> Array:
    r"""Half the Welch t-interval of a difference of two independent means.

    half = t_{(1 + confidence)/2, nu} sqrt(a + b),   a = sem_1^2, b = sem_2^2,
    nu = (a + b)^2 / (a^2/(n_1 - 1) + b^2/(n_2 - 1))          (Welch-Satterthwaite)

    Args:
        sem: of our mean, any shape.
        n: our number of seeds, same shape.
        theirs: the published mean; its SEM and n are taken as printed.
        confidence: two-sided, e.g. 0.95.

    Returns:
        Same shape as `sem`; NaN where n < 2 on either side.
    """
    a, b = np.square(np.asarray(sem, dtype=float)), theirs.sem**2
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = a**2 / (np.asarray(n, dtype=float) - 1) + np.float64(b**2) / (theirs.n - 1)
        half = student.ppf((1 + confidence) / 2, (a + b) ** 2 / spread) * np.sqrt(a + b)
    return np.where(theirs.n < 2, np.nan, np.where(a + b == 0, 0.0, half))


def seeds_needed(sd: float, theirs: Estimate, target: float, confidence: float, at_most: int = 100_000) -> int | None:
    """Smallest number of our seeds at which the interval's half width is at most `target`.

    Args:
        sd: standard deviation of one of our seeds, held fixed.
        theirs: the published mean; its SEM is held fixed.
        target: half width wanted, points.
        confidence: two-sided.
        at_most: where the search ends.

    Returns:
        n, or None if no n up to `at_most` is enough.
    """
    # Searched one by one: the degrees of freedom, hence the width, need not be monotone in n.
    for start, stop in ((2, 1_000), (1_001, at_most)):
        n = np.arange(start, stop + 1)
        enough = half_width(sd / np.sqrt(n), n, theirs, confidence) <= target
        if enough.any():
            return int(n[enough.argmax()])
    return None


def verdict(interval: Interval, delta: float) -> str:
    """`agrees`: the whole interval inside +-delta; `differs`: excludes 0 and is not inside; else too few seeds."""
    if -delta <= interval.low and interval.high <= delta:
        return AGREES
    if interval.low > 0 or interval.high < 0:
        return DIFFERS
    return TOO_FEW


def compare(ours: Estimate, theirs: Estimate, delta: float, confidence: float) -> Comparison:
    """Judge our mean against a published one, by the t-interval of the difference (`half_width`).

    Args:
        ours: our mean over seeds, percent.
        theirs: the published one, percent.
        delta: differences up to this many points count as agreement.
        confidence: two-sided.

    Returns:
        The interval of ours - theirs, the verdict, and for too few seeds the n that would be enough.
    """
    difference = ours.mean - theirs.mean
    half = float(half_width(ours.sem, ours.n, theirs, confidence))
    interval = Interval(difference, difference - half, difference + half, ours.n)
    decision = verdict(interval, delta)
    note = _enough(ours, theirs, delta, confidence) if decision == TOO_FEW else ""
    return Comparison(interval, decision, note)


def _enough(ours: Estimate, theirs: Estimate, delta: float, confidence: float) -> str:
    """What would turn `too few seeds` into a verdict: difference, our standard deviation and their SEM held fixed."""
    if ours.n < 2:
        return "an interval needs at least 2"
    if not theirs.sem >= 0 or theirs.n < 2:
        return "not reachable: no SEM is published"
    off = abs(ours.mean - theirs.mean)  # half a width of at most `off` leaves out 0, of at most `delta - off` is inside
    n = seeds_needed(ours.sem * math.sqrt(ours.n), theirs, max(off, delta - off), confidence)
    if n is None:
        return "not reachable at this difference: their SEM alone is too wide"
    return f"n = {n} decides at this difference"


def paired(a: ArrayLike, b: ArrayLike, confidence: float) -> Interval:
    """t-interval of the mean difference a - b, paired by seed.

    Args:
        a: [S], one value per seed.
        b: [S], the same seeds in the same order; a seed that is NaN in either is left out.
        confidence: two-sided.

    Returns:
        Mean difference, limits (NaN for fewer than 2 pairs), number of pairs.
    """
    mean, sem, n = estimate(np.asarray(a, dtype=float) - np.asarray(b, dtype=float))
    half = float(student.ppf((1 + confidence) / 2, n - 1)) * sem if n > 1 else math.nan
    return Interval(mean, mean - half, mean + half, n)


def further(values: ArrayLike, confidence: float) -> Interval:
    r"""Where one more value of the same law falls: mean +- t_{(1 + confidence)/2, n - 1} sd sqrt(1 + 1/n).

    Args:
        values: one a seed, taken as draws of a normal law; NaNs are left out.
        confidence: two-sided.

    Returns:
        Mean, limits (NaN for fewer than 2 values), number of values.
    """
    mean, sem, n = estimate(values)
    half = float(student.ppf((1 + confidence) / 2, n - 1)) * sem * math.sqrt(n + 1) if n > 1 else math.nan
    return Interval(mean, mean - half, mean + half, n)


def signed_rank(a: ArrayLike, b: ArrayLike) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test of a - b, paired by seed.

    Pairs without a difference are dropped, as Wilcoxon did. The p-value is exact up to 50 pairs, but where
    differences tie or vanish only up to 13: beyond, it is the normal approximation.

    Args:
        a: [S], one value per seed.
        b: [S], the same seeds in the same order; a seed that is NaN in either is left out.

    Returns:
        The p-value: 1 where no pair differs, NaN where there is no pair.
    """
    # Rounded, because 99.2 - 99.1 and 99.1 - 99.0 are a tie in the data but not in floating point.
    d = np.round(np.asarray(a, dtype=float) - np.asarray(b, dtype=float), 9)
    d = d[np.isfinite(d)]
    if not d.any():
        return 1.0 if d.size else math.nan
    return float(wilcoxon(d).pvalue)


def holm(p: ArrayLike) -> Array:
    r"""Holm's step-down correction of a family of p-values.

    With p_(1) <= ... <= p_(m): corrected p_(i) = max_{j <= i} min(1, (m - j + 1) p_(j))        (Holm 1979)

    Args:
        p: any number of p-values; a NaN is no test and not in the family.

    Returns:
        The corrected p-values in the order given, NaN where p is.
    """
    x = np.asarray(p, dtype=float)
    order = np.argsort(x)[: np.isfinite(x).sum()]  # NaN sorts last
    corrected = np.full(x.shape, np.nan)
    corrected[order] = np.maximum.accumulate(np.minimum(1, np.arange(order.size, 0, -1) * x[order]))
    return corrected


def jackknife_interval(point: float, left_out: ArrayLike, confidence: float) -> Interval:
    r"""t-interval of what is made of all seeds together, a curve's rise say, by Tukey's jackknife.

    u_s = n theta - (n - 1) theta_(s)          the pseudo-value of seed s: theta_(s) is theta of the seeds but s
    half = t_{(1 + confidence)/2, n - 1} sd(u) / sqrt(n),   sd(u) = (n - 1) sd(theta_(s)),   ddof = 1

    (Tukey 1958; Efron & Tibshirani 1993, chapter 11.) Of a mean it is the t-interval of the mean.

    Args:
        point: theta, of the seeds as they are.
        left_out: [n], theta_(s) of each seed that theta is made of.
        confidence: two-sided.

    Returns:
        theta -+ half. NaN limits for fewer than 2 seeds, where a theta_(s) is missing, and where they are all the same:
        an interval of width 0 would claim more than is known.
    """
    x = np.asarray(left_out, dtype=float)
    half, n = math.nan, x.size
    if n > 1 and np.ptp(x) > 1e-9:  # else equal, but for rounding; NaN is not above it either
        half = float(student.ppf((1 + confidence) / 2, n - 1) * (n - 1) * x.std(ddof=1) / math.sqrt(n))
    return Interval(float(point), point - half, point + half, n)


def bootstrap_weights(n_seeds: int, resamples: int, rng: np.random.Generator) -> Array:
    """Draw seeds with replacement: [R, S], how often each resample holds each seed."""
    return rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=resamples).astype(float)


def percentile_interval(point: float, samples: ArrayLike, confidence: float, n: int) -> Interval:
    """Percentile bootstrap interval; NaN limits for fewer than 2 seeds or a quantity a resample lacks.

    Args:
        point: the quantity of the seeds as they are.
        samples: [R], the quantity of every resample.
        confidence: two-sided.
        n: number of seeds resampled.

    Returns:
        The point and the (1 -+ confidence)/2 quantiles.
    """
    x = np.asarray(samples, dtype=float)
    tail = (1 - confidence) / 2
    # np.quantile hands NaN on: an interval of only those resamples that have a rise would be too narrow.
    low, high = np.quantile(x, [tail, 1 - tail]) if n > 1 else (math.nan, math.nan)
    return Interval(float(point), float(low), float(high), n)
