"""Intervals against scipy and by hand, borders of verdicts, and rises and widths of piecewise-linear curves."""

import math
from unittest.mock import ANY

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from cl_repro.analysis.lambdas.shape import best, complete, rise, seed_mean, touches, width
from cl_repro.common.stats import (
    AGREES,
    DIFFERS,
    TOO_FEW,
    Estimate,
    Interval,
    bootstrap_weights,
    compare,
    estimate,
    further,
    half_width,
    paired,
    percentile_interval,
    seeds_needed,
    verdict,
)

NAN = math.nan
X4 = np.arange(4.0)


def test_mean_and_sem_by_hand():
    # deviations -1.5 -0.5 0.5 1.5: squares sum to 5, variance 5/3, SEM sqrt(5/12)
    assert estimate([1, 2, 3, 4]) == (2.5, pytest.approx(math.sqrt(5 / 12)), 4)


def test_missing_seeds_are_left_out_of_the_mean_and_of_n():
    assert estimate([1, NAN, 2, 3, 4, math.inf]) == estimate([1, 2, 3, 4])
    one, none = estimate([7.0]), estimate([NAN])
    assert one.mean == 7 and one.n == 1 and math.isnan(one.sem)
    assert none.n == 0 and math.isnan(none.mean)


def test_interval_of_a_difference_is_welchs():
    rng = np.random.default_rng(1)
    a, b = rng.normal(99, 0.3, 5), rng.normal(98, 1.5, 30)
    reference = scipy_stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    ours = compare(estimate(a), estimate(b), delta=0.5, confidence=0.95).interval
    assert ours == pytest.approx((a.mean() - b.mean(), reference.low, reference.high, 5), rel=1e-12)


def test_paired_interval_is_scipys_and_uses_only_complete_pairs():
    rng = np.random.default_rng(2)
    a = rng.normal(99, 1, 8)
    b = a - 0.2 + rng.normal(0, 0.1, 8)
    reference = scipy_stats.ttest_rel(a, b).confidence_interval(0.9)
    expected = (np.mean(a - b), reference.low, reference.high, 8)
    assert paired(a, b, 0.9) == pytest.approx(expected)
    assert paired(np.append(a, [NAN, 50]), np.append(b, [3, NAN]), 0.9) == pytest.approx(expected)


def test_the_interval_of_a_further_run_holds_it_as_often_as_it_says():
    """4,000 times five draws, and a sixth."""
    draws = np.random.default_rng(3).normal(12, 1.5, (4000, 6))
    intervals = [further(five, 0.9) for five in draws[:, :5]]
    held = [i.low <= x <= i.high for i, x in zip(intervals, draws[:, 5], strict=True)]
    assert np.mean(held) == pytest.approx(0.9, abs=4 * math.sqrt(0.9 * 0.1 / 4000))
    assert further([1.0, NAN, 3.0], 0.95) == (2, pytest.approx(2 - 12.7062 * math.sqrt(3)), ANY, 2)
    assert math.isnan(further([1.0], 0.95).low)


def test_one_pair_gives_a_difference_without_limits():
    centre, low, high, n = paired([3.0], [1.0], 0.95)
    assert (centre, n) == (2, 1) and math.isnan(low) and math.isnan(high)


def test_identical_arms_differ_by_exactly_nothing():
    assert paired([98.0, 97, 99], [98.0, 97, 99], 0.95) == (0, 0, 0, 3)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.5, 0.5, AGREES),  # the border is inside
        (0.1, 0.5, AGREES),  # excludes 0, but is inside
        (0.1, 0.501, DIFFERS),
        (-0.501, -0.1, DIFFERS),
        (0.0, 0.501, TOO_FEW),  # 0 itself is not excluded
        (-0.501, 0.1, TOO_FEW),
        (2.0, 3.0, DIFFERS),
        (NAN, NAN, TOO_FEW),
    ],
)
def test_verdict_at_its_borders(low, high, expected):
    assert verdict(Interval((low + high) / 2, low, high, 5), delta=0.5) == expected


def test_seeds_needed_by_hand():
    # A published value without error, sd 1, half width 1: t/sqrt(n) is 2.571/2.449 at n = 6 and 2.447/2.646 at n = 7.
    assert seeds_needed(1.0, Estimate(0, 0, 10), 1.0, 0.95) == 7


@settings(deadline=None)  # a search, slow on a busy machine
@given(sd=st.floats(0.01, 3), sem=st.floats(0, 1), n=st.integers(2, 40), target=st.floats(0.1, 5))
def test_seeds_needed_is_the_smallest_that_fits(sd, sem, n, target):
    theirs = Estimate(0, sem, n)
    found = seeds_needed(sd, theirs, target, 0.95, at_most=3_000)
    widths = [float(half_width(sd / math.sqrt(k), k, theirs, 0.95)) for k in range(2, (found or 300) + 1)]
    assert all(w > target for w in widths[:-1])
    assert (widths[-1] <= target) == (found is not None)


def test_too_few_seeds_say_how_many_would_do():
    ours, theirs = Estimate(99.0, 0.4, 5), Estimate(99.1, 0.1, 30)
    found = compare(ours, theirs, 0.5, 0.95)
    n = seeds_needed(0.4 * math.sqrt(5), theirs, 0.5 - 0.1, 0.95)
    assert found.verdict == TOO_FEW and found.note == f"n = {n} decides at this difference" and n > 5
    more = compare(Estimate(99.0, 0.4 * math.sqrt(5 / n), n), theirs, 0.5, 0.95)
    assert more.verdict == AGREES  # and with one less not yet
    assert compare(Estimate(99.0, 0.4 * math.sqrt(5 / (n - 1)), n - 1), theirs, 0.5, 0.95).verdict == TOO_FEW


def test_a_published_sem_of_unknown_seeds_has_no_interval():
    found = compare(Estimate(10, 1.0, 3), Estimate(10.2, 0.7, 0), 5, 0.95)
    assert (found.verdict, found.note) == (TOO_FEW, "not reachable: no SEM is published")
    assert math.isnan(found.interval.low) and math.isnan(found.interval.high)


def test_too_few_seeds_say_when_no_number_would_do():
    found = compare(Estimate(85, 1.0, 5), Estimate(84, 2.0, 10), 2.5, 0.95)
    assert found == (found.interval, TOO_FEW, "not reachable at this difference: their SEM alone is too wide")


def test_an_interval_narrow_enough_but_off_centre_asks_for_what_decides_there():
    # Half width about 0.3 < 0.5, centred at 0.25: neither inside 0.5 nor off 0; half of delta would decide.
    ours, theirs = Estimate(99.25, 0.11, 5), Estimate(99.0, 0.01, 30)
    found = compare(ours, theirs, 0.5, 0.95)
    n = seeds_needed(0.11 * math.sqrt(5), theirs, 0.25, 0.95)
    assert (found.verdict, found.note) == (TOO_FEW, f"n = {n} decides at this difference")
    assert 5 < n < 20


def test_an_interval_far_off_asks_for_what_leaves_out_0():
    # Two points off: a half width of 2 decides, though only one of -1.5 would be inside 0.5.
    theirs = Estimate(99.0, 0.1, 30)
    found, n = compare(Estimate(97.0, 1.0, 5), theirs, 0.5, 0.95), seeds_needed(math.sqrt(5), theirs, 2.0, 0.95)
    assert (found.verdict, found.note) == (TOO_FEW, f"n = {n} decides at this difference")


@pytest.mark.parametrize(
    ("ours", "theirs", "note"),
    [
        (Estimate(99, NAN, 1), Estimate(99, 0.1, 10), "an interval needs at least 2"),
        (Estimate(99, 0.1, 5), Estimate(99, NAN, 0), "not reachable: no SEM is published"),
    ],
)
def test_without_a_spread_there_is_no_interval(ours, theirs, note):
    found = compare(ours, theirs, 0.5, 0.95)
    assert found.note == note and math.isnan(found.interval.low)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(3)
    ours, theirs = rng.normal(1.0, 0.2, (2_000, 5)), rng.normal(0.0, 1.0, (2_000, 10))
    hits = 0
    for x, y in zip(map(estimate, ours), map(estimate, theirs), strict=True):
        hits += abs(x.mean - y.mean - 1.0) <= half_width(x.sem, x.n, y, 0.95)
    assert hits / 2_000 == pytest.approx(0.95, abs=0.015)  # three standard errors of 2000 coin flips


def test_bootstrap_spread_is_the_analytic_sem():
    values = np.random.default_rng(4).normal(90, 2, (12, 1))
    weight = bootstrap_weights(12, 20_000, np.random.default_rng(0))
    means = seed_mean(values, weight)[:, 0]
    # A resample has the population variance of the sample, hence the factor (n - 1)/n.
    assert means.std() == pytest.approx(estimate(values).sem * math.sqrt(11 / 12), rel=0.02)
    assert (weight.sum(axis=1) == 12).all()


def test_bootstrap_interval_of_many_seeds_is_the_normal_one():
    values = np.random.default_rng(5).normal(90, 2, (300, 1))
    weight = bootstrap_weights(300, 4_000, np.random.default_rng(0))
    found = percentile_interval(values.mean(), seed_mean(values, weight)[:, 0], 0.95, 300)
    sem = estimate(values).sem
    assert (found.low, found.high) == pytest.approx((values.mean() - 1.96 * sem, values.mean() + 1.96 * sem), abs=0.02)


def test_bootstrap_repeats_with_its_seed_and_only_then():
    draws = [bootstrap_weights(5, 50, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert (draws[0] == draws[1]).all() and (draws[0] != draws[2]).any()


def test_bootstrap_has_no_limits_where_a_resample_lacks_the_quantity():
    found = percentile_interval(1.0, [1.0, 2.0, NAN], 0.95, 5)
    assert found.centre == 1 and math.isnan(found.low)
    assert math.isnan(percentile_interval(1.0, [1.0, 1.0], 0.95, n=1).low)


def test_resampled_means_equal_a_loop_over_resamples():
    rng = np.random.default_rng(6)
    accuracy = rng.normal(90, 5, (2, 4, 3))  # [A, S, L]
    accuracy[0, 1, 2] = NAN
    weight = bootstrap_weights(4, 20, rng)
    drawn = [np.repeat(np.arange(4), w.astype(int)) for w in weight]
    expected = np.array([np.nanmean(accuracy[:, seeds], axis=1) for seeds in drawn])
    np.testing.assert_allclose(seed_mean(accuracy, weight), expected)


def test_rise_is_interpolated_between_two_lambdas():
    # None 80, best 100: half-way is 90, reached half-way between lambda 10 and 100.
    assert rise(X4, [80, 80, 100, 100], 80) == 1.5
    assert rise(X4, [80, 82, 98, 100], 80) == 1.5
    assert rise(X4, [80, 80, 95, 100], 80) == pytest.approx(1 + 10 / 15)


def test_rise_is_the_first_crossing():
    assert rise(X4, [80, 100, 80, 100], 80) == 0.5


def test_rise_at_the_grids_edge_and_none_at_all():
    assert rise(X4, [99, 100, 100, 100], 80) == 0  # above half-way from the start: 0 or less
    assert math.isnan(rise(X4, [80, 79, 78, 80], 80))  # nothing above None
    assert math.isnan(rise(X4, [NAN] * 4, 80))
    assert math.isnan(rise(X4, [80, 80, 100, 100], NAN))  # no None to rise from


def test_rise_begins_where_half_is_reached():
    assert rise(X4, [80, 90, 90, 100], 80) == 1


def test_of_equal_lambdas_the_smallest_is_best():
    assert best([[1, 3, 3, 2], [NAN, 2, NAN, 2], [NAN] * 4]).tolist() == [1, 1, -1]


def test_rise_bridges_a_missing_lambda():
    assert rise(X4, [80, NAN, 100, 100], 80) == 1
    assert rise(X4, [NAN, 80, 100, NAN], 80) == 1.5
    assert rise(X4, [NAN, 100, 100, 100], 80) == 1  # begins above: the first lambda there is


def test_width_by_hand():
    # Best 100, within 2: from 8/9 (90 -> 99 crosses 98) to 4 - 8/9.
    assert width(np.arange(5.0), [90, 99, 100, 99, 90], 2) == pytest.approx(4 - 16 / 9)
    assert width(X4, [80, 100, 100, 80], 1) == pytest.approx(1 + 2 / 20)
    assert width(X4, [99.5, 100, 100, 99.5], 1) == 3


def test_width_adds_up_separate_pieces():
    assert width(np.arange(3.0), [100, 90, 100], 2) == pytest.approx(0.4)


def test_width_says_which_edge_it_touches():
    assert touches(X4, [80, 100, 100, 80], 1) == (False, False)
    assert touches(X4, [80, 100, 100, 99], 1) == (False, True)
    assert touches(X4, [99, 100, 80, 80], 1) == (True, False)
    assert touches(X4, [80, 100, 100, NAN], 1) == (False, True)  # the grid ends where seeds diverge
    assert touches(X4, [NAN] * 4, 1) == (False, False)


def test_width_of_an_unequally_spaced_grid_is_in_decades():
    assert width([0, 1, 4], [90, 100, 100], 1) == pytest.approx(3 + 0.1)


def test_curves_in_a_stack_are_measured_like_single_ones():
    rng = np.random.default_rng(7)
    curves = 85 + 14 * rng.random((6, 5, 9))
    curves[rng.random(curves.shape) < 0.15] = NAN
    floors, x = 85 + 3 * rng.random((6, 5)), np.arange(9.0)
    for function, arguments in ((rise, (floors,)), (width, (np.full((6, 5), 1.0),))):
        singles = [[function(x, curves[i, j], arguments[0][i, j]) for j in range(5)] for i in range(6)]
        stacked = function(x, curves, floors) if function is rise else function(x, curves, 1.0)
        np.testing.assert_allclose(stacked, singles)


def test_means_compare_the_same_number_of_seeds():
    accuracy = np.array([[90.0, 95, 97], [92, NAN, 99]])  # [S, L]: a seed diverged at the second lambda
    np.testing.assert_array_equal(complete(accuracy), [[90, NAN, 97], [92, NAN, 99]])
    np.testing.assert_array_equal(seed_mean(complete(accuracy)), [91, NAN, 98])
    np.testing.assert_array_equal(seed_mean(accuracy), [91, 95, 98])  # of the seeds that are there
