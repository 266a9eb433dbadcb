"""The shape of accuracy against lambda: seed means, rise and width, for one curve or many resamples at once.

The peak of such a curve is decided by noise (its top is flat); where it rises is not, so the rise is what
estimators are compared by. Curves are [..., L]; the last axis is the grid of lambdas.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cl_repro.common.stats import Array


def complete(accuracy: ArrayLike) -> Array:
    """Blank the lambdas at which a curve lacks seeds, so that every mean is over the same number of seeds.

    Args:
        accuracy: [..., S, L], NaN where a run diverged or is missing.

    Returns:
        A copy, NaN at every lambda with fewer finite seeds than the curve has at its fullest lambda.
    """
    x = np.array(accuracy, dtype=float)
    n = np.isfinite(x).sum(axis=-2, keepdims=True)
    return np.where(n == n.max(axis=-1, keepdims=True, initial=0), x, np.nan)


def seed_mean(accuracy: ArrayLike, weight: ArrayLike | None = None) -> Array:
    """Mean over the seeds that are there.

    Args:
        accuracy: [..., S, L]; NaN where missing.
        weight: [R, S], how often a resample draws each seed; None: each once.

    Returns:
        [..., L], or [R, ..., L] with `weight`; NaN where no seed is there.
    """
    x = np.asarray(accuracy, dtype=float)
    w = np.ones((1, x.shape[-2])) if weight is None else np.asarray(weight, dtype=float)
    there = np.isfinite(x)
    total = np.einsum("rs,...sl->r...l", w, np.where(there, x, 0.0))
    count = np.einsum("rs,...sl->r...l", w, there.astype(float))
    mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return mean[0] if weight is None else mean


def best(curve: ArrayLike) -> NDArray[np.intp]:
    """Where the curve is highest: the smallest lambda of equals.

    Args:
        curve: [..., L]; NaN where there is no point.

    Returns:
        [...], index into the last axis; -1 where the curve has no point.
    """
    y = np.asarray(curve, dtype=float)
    if not y.shape[-1]:
        return np.full(y.shape[:-1], -1)
    there = np.isfinite(y)
    return np.where(there.any(axis=-1), np.where(there, y, -np.inf).argmax(axis=-1), -1)


def rise(log_lam: ArrayLike, curve: ArrayLike, floor: ArrayLike) -> Array:
    """Where the curve first crosses half-way between the floor (None's mean) and its own best.

    Args:
        log_lam: [L], ascending log10 lambda.
        curve: [..., L], seed means, interpolated linearly in log10 lambda; NaN points are bridged.
        floor: [...], None's mean.

    Returns:
        [...], log10 lambda; the grid's first lambda where the curve begins above half-way (so at most that);
        NaN where the best does not exceed the floor.
    """
    x, y = np.asarray(log_lam, dtype=float), _bridged(log_lam, curve)
    best = np.where(np.isnan(y), -np.inf, y).max(axis=-1)
    half = (np.asarray(floor, dtype=float) + best) / 2
    after = (y >= half[..., None]).argmax(axis=-1)
    before = np.maximum(after - 1, 0)
    y0, y1 = (np.take_along_axis(y, i[..., None], -1)[..., 0] for i in (before, after))
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = x[before] + (half - y0) / (y1 - y0) * (x[after] - x[before])
    crossing = np.where((after == 0) | np.isnan(y0), x[after], crossing)
    return np.where(best > floor, crossing, np.nan)


def width(log_lam: ArrayLike, curve: ArrayLike, points: float) -> Array:
    """Decades of lambda at which the curve is within `points` of its best: the total length of that set.

    The set need not be contiguous (a noisy dip below the threshold is left out, what lies beyond it counts), and
    it ends where the grid ends: `touches` says whether it does.

    Args:
        log_lam: [L], ascending log10 lambda.
        curve: [..., L], seed means, interpolated linearly in log10 lambda; NaN points are bridged.
        points: how far below the best still counts.

    Returns:
        [...], decades; NaN where the curve has no point.
    """
    excess = _excess(log_lam, curve, points)
    a, b = excess[..., :-1], excess[..., 1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.clip(np.maximum(a, b) / np.abs(a - b), 0, 1)  # of a segment that is crossed once
    share = np.where((a >= 0) & (b >= 0), 1.0, np.where((a < 0) & (b < 0), 0.0, share))
    length = np.nansum(share * np.diff(np.asarray(log_lam, dtype=float)), axis=-1)
    return np.where(np.isfinite(excess).any(axis=-1), length, np.nan)


def touches(log_lam: ArrayLike, curve: ArrayLike, points: float) -> tuple[bool, bool]:
    """Whether the range that `width` measures begins at one curve's first, and ends at its last, finite lambda."""
    excess = _excess(log_lam, curve, points)
    inside = excess[np.isfinite(excess)] >= 0
    return bool(inside[:1].any()), bool(inside[-1:].any())


def _excess(log_lam: ArrayLike, curve: ArrayLike, points: float) -> Array:
    """The curve above its threshold, best - points."""
    y = _bridged(log_lam, curve)
    return y - (np.where(np.isnan(y), -np.inf, y).max(axis=-1, keepdims=True) - points)


def _bridged(log_lam: ArrayLike, curve: ArrayLike) -> Array:
    """The curve with missing inner points interpolated; missing ends stay NaN."""
    x, y = np.asarray(log_lam, dtype=float), np.array(curve, dtype=float)
    for row in y.reshape(-1, x.size):
        there = np.isfinite(row)
        if there.any() and not there.all():
            row[:] = np.interp(x, x[there], row[there], left=np.nan, right=np.nan)
    return y
