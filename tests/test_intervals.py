"""Intervals of rises, widths and gaps: how often they hold the truth, counted, and what they are by hand."""

import math
from functools import partial

import made_results
import numpy as np
import pytest

from cl_repro.analysis.data.arms import grid_of
from cl_repro.analysis.data.settings import load
from cl_repro.analysis.data.study import open_study
from cl_repro.analysis.lambdas.collapse import collapse, table
from cl_repro.analysis.lambdas.intervals import interval_of, weightings
from cl_repro.analysis.lambdas.shape import rise, seed_mean, width
from cl_repro.analysis.lambdas.tables import gap_table, log_traces, shape_table, shapes
from cl_repro.common.stats import jackknife_interval, paired, percentile_interval

MNIST = "split_mnist_fisher"
SETTINGS = load(MNIST)
LOG_LAM = np.arange(14.0)
RISES = (2.3, 5.4)  # of the two arms, about
NAN = math.nan

# --- coverage --------------------------------------------------------------------------------------------------------


def drawn(rng: np.random.Generator, studies: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies [studies, 2 arms, n, L] and None's [studies, n], with the spreads of results/split_mnist_fisher.

    A seed has its own None, which is the foot of its curves, and its own rise; low lambdas are noisier than high ones.
    """
    floor = 85 + 2.8 * rng.standard_normal((studies, 1, n, 1))
    at = np.array(RISES)[:, None, None] + 0.3 * rng.standard_normal((studies, 2, n, 1))
    up = 1 / (1 + np.exp(-2.5 * (LOG_LAM - at)))
    curve = floor + (99.1 - floor) * up - 0.35 * np.maximum(LOG_LAM - at - 4, 0)
    return curve + (1.5 * (1 - up) + 0.15) * rng.standard_normal(curve.shape), floor[:, 0, :, 0]


def measured(weight: np.ndarray, accuracy: np.ndarray, none: np.ndarray) -> dict[str, np.ndarray]:
    """Rise and width of the first arm and the gap between both, [W, studies], for every weighting of the seeds."""
    means, floors = seed_mean(accuracy, weight), seed_mean(none[..., None], weight)
    rises, widths = rise(LOG_LAM, means, floors), width(LOG_LAM, means, 1.0)
    return {"rise": rises[..., 0], "width": widths[..., 0], "gap": rises[..., 1] - rises[..., 0]}


def coverage(n: int, studies: int, bootstrap_from: int = 10, resamples: int = 200) -> dict[str, float]:
    """How many of made-up studies have an interval that holds what an endless number of seeds would show."""
    rng = np.random.default_rng(n)
    settings = SETTINGS._replace(bootstrap_from=bootstrap_from, resamples=resamples)
    truth = measured(np.ones((1, 20_000)), *drawn(rng, 1, 20_000))
    found = measured(weightings(n, settings), *drawn(rng, studies, n))
    hits = dict.fromkeys(found, 0)
    for name, values in found.items():
        for one in values.T:
            interval = interval_of(one, np.ones(n), settings)
            hits[name] += interval.low <= truth[name][0, 0] <= interval.high
    return {name: count / studies for name, count in hits.items()}


@pytest.mark.parametrize("n", [3, 5, 9])
def test_below_ten_seeds_intervals_hold_the_truth_as_often_as_they_say(n):
    for name, share in coverage(n, studies=800).items():
        assert share == pytest.approx(0.95, abs=0.025), name  # three standard errors of 800 coin flips


@pytest.mark.parametrize(("n", "at_most"), [(3, 0.80), (5, 0.88)])
def test_a_bootstrap_of_so_few_seeds_would_not(n, at_most):
    assert max(coverage(n, studies=200, bootstrap_from=2).values()) < at_most


def test_from_ten_seeds_on_the_bootstrap_does_nearly():
    assert all(0.87 < share < 0.97 for share in coverage(10, studies=200).values())


# --- what they are ---------------------------------------------------------------------------------------------------


def test_the_jackknife_of_a_mean_is_the_t_interval():
    x = np.random.default_rng(1).normal(90, 2, 5)
    left_out = [np.delete(x, s).mean() for s in range(5)]
    assert jackknife_interval(x.mean(), left_out, 0.95) == pytest.approx(paired(x, np.zeros(5), 0.95))


def test_the_half_width_is_that_of_the_pseudo_values():
    # theta = max: 7; without a seed 7, 7, 5. Pseudo-values 3 * 7 - 2 * (7, 7, 5) = 7, 7, 11; sd 4 / sqrt 3, t 4.3027.
    found = jackknife_interval(7.0, [7.0, 7.0, 5.0], 0.95)
    assert found.high - found.centre == pytest.approx(4.302653 * (4 / math.sqrt(3)) / math.sqrt(3))


@pytest.mark.parametrize("left_out", [[1.0, 2.0, NAN], [1.0, 1.0, 1.0], [1.0, 1.0 + 1e-14], [1.0], []])
def test_no_limits_where_nothing_is_known_of_the_spread(left_out):
    found = jackknife_interval(1.0, left_out, 0.95)
    assert found.centre == 1 and math.isnan(found.low) and math.isnan(found.high)


def opened(folder, n, **changes):
    rows = made_results.fisher_rows(seeds=range(1, n + 1), fishers=("exact", "empirical"), **changes)
    made_results.write(folder / MNIST, rows)
    study = open_study(MNIST, folder)
    return study, grid_of(study.runs, study.folder)


def test_five_seeds_have_the_jackknifes_intervals_by_a_loop(tmp_path):
    study, grid = opened(tmp_path, 5)
    log_lam, found = np.log10(grid.lams), shapes(study, grid)

    def rises(seeds):
        return rise(log_lam, grid.accuracy[:, seeds].mean(axis=1), grid.none[seeds].mean())

    left_out = np.array([rises(np.delete(np.arange(5), s)) for s in range(5)])
    for a, shape in enumerate(found):
        assert shape.rise == pytest.approx(jackknife_interval(rises(np.arange(5))[a], left_out[:, a], 0.95))
    widths = [width(log_lam, np.delete(grid.accuracy[0], s, axis=0).mean(axis=0), 1.0) for s in range(5)]
    expected = jackknife_interval(width(log_lam, grid.accuracy[0].mean(axis=0), 1.0), widths, 0.95)
    assert found[0].width == pytest.approx(expected)
    gap = jackknife_interval(np.subtract(*rises(np.arange(5))[::-1]), left_out[:, 1] - left_out[:, 0], 0.95)
    shown = gap_table(study, found, log_traces(study, grid)).rows[0][1]
    assert shown == f"+{gap.centre:.2f} [+{gap.low:.2f}, +{gap.high:.2f}]"
    assert "t-interval of the jackknife's pseudo-values" in " ".join(
        shape_table(study, found, log_traces(study, grid)).notes
    )


def test_an_arm_that_lacks_seeds_has_the_interval_of_those_it_has(tmp_path):
    """A width, which is made of no other arm. Seeds that it lacks say nothing of its spread.

    A gap is of the seeds of either arm: without any of them it is another.
    """
    of_three, five = tmp_path / "three", tmp_path / "five"
    rows = made_results.fisher_rows(seeds=range(1, 6), fishers=("exact", "empirical"))
    made_results.write(of_three / MNIST, [r for r in rows if r["seed"] <= 3])
    made_results.write(five / MNIST, [r for r in rows if r["seed"] <= 3 or r["fisher"] != "exact"])
    three, whole = (open_study(MNIST, folder) for folder in (of_three, five))
    alone, lacking = (shapes(one, grid_of(one.runs, one.folder)) for one in (three, whole))
    assert alone[0].width == pytest.approx(lacking[0].width) and lacking[0].width.n == 3
    assert lacking[1].width.n == 5 and lacking[1].width != alone[1].width
    gaps = lacking[1].rises - lacking[0].rises
    gap, logs = jackknife_interval(gaps[0], gaps[1:], 0.95), log_traces(whole, grid_of(whole.runs, whole.folder))
    shown = gap_table(whole, lacking, logs).rows[0][1]
    assert gaps.size == 1 + 5 and shown == f"+{gap.centre:.2f} [+{gap.low:.2f}, +{gap.high:.2f}]"


def test_ten_seeds_have_the_percentiles_of_the_bootstrap(tmp_path):
    study, grid = opened(tmp_path, 10)
    found = shapes(study, grid)
    for shape in found:
        assert shape.rise == percentile_interval(shape.rises[0], shape.rises[1:], 0.95, 10)
        assert shape.rises.size == 1 + SETTINGS.resamples
    notes = " ".join(shape_table(study, found, log_traces(study, grid)).notes)
    assert "95% percentile bootstrap over seeds" in notes and "jackknife" not in notes


@pytest.mark.parametrize(("n", "shown"), [(9, False), (10, True)])
def test_a_spread_has_an_interval_from_ten_seeds_on(tmp_path, n, shown):
    study, _ = opened(tmp_path, n)
    found = collapse(study)
    for interval in (found.spread, found.rescaled_spread):
        assert math.isfinite(interval.low) is shown
    for cell in table(study, found).rows[-1][1::2]:
        assert cell.endswith("]" if shown else " (n too small)")


def test_a_rise_at_the_edge_without_one_seed_has_no_limits(tmp_path):
    """All five: between 1 and 10. Without the fifth: above half-way already at 1, so at most 1, who knows how far."""
    made = partial(made_results.row, "ewc-exact", "ewc", "exact")
    rows = [made_results.row("finetune", "finetune", "", None, s, 0.80) for s in range(1, 6)]
    for s in range(1, 6):
        curve = (0.80, 0.99, 0.99 + s / 1e4) if s == 5 else (0.90 + s / 1e3, 0.99, 0.99)
        rows += [made(lam, s, accuracy) for lam, accuracy in zip((1.0, 10.0, 100.0), curve, strict=True)]
    made_results.write(tmp_path / MNIST, rows)
    study = open_study(MNIST, tmp_path)
    [shape] = shapes(study, grid_of(study.runs, study.folder))
    assert 0 < shape.rise.centre < 1 and not shape.at_most
    assert math.isnan(shape.rises[5]) and math.isnan(shape.rise.low)
