"""Choosing lambda in three ways, and what may be said afterwards: tests of pairs, corrections, resamples."""

import itertools
import math

import made_results
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made_results import row

from cl_repro.analysis.data.arms import grid_of
from cl_repro.analysis.data.study import open_study
from cl_repro.analysis.lambdas.pairs import families, pair_tables
from cl_repro.analysis.lambdas.selection import (
    leave_one_seed_out,
    optimism_table,
    reselected,
    selection_table,
    selections,
)
from cl_repro.analysis.lambdas.shape import seed_mean
from cl_repro.analysis.lambdas.tables import tables_of
from cl_repro.analysis.output.markup import DASH, MINUS
from cl_repro.common.stats import bootstrap_weights, estimate, holm, paired, signed_rank

NAN, STUDY = math.nan, "split_mnist_fisher"
UP6 = [1.0, 2, 3, 4, 5, 6]


def made(tmp_path, curves, none=85.0, val=None):
    """A study and its grid from {fisher: [S, L] percent}, seeds 1.. and lambdas 1, 10, ..; None slightly uneven."""
    rows, held_out = [], {}
    for fisher, curve in curves.items():
        for (s, i), accuracy in np.ndenumerate(np.asarray(curve, dtype=float)):
            rows.append(row(f"ewc-{fisher}", "ewc", fisher, 10.0**i, s + 1, accuracy / 100))
            if fisher in (val or {}):
                held_out[rows[-1]["run_id"]] = val[fisher][s][i] / 100
    for seed in sorted({r["seed"] for r in rows}):
        rows.append(row("finetune", "finetune", "", None, seed, none / 100 + seed / 10_000))
    made_results.write(tmp_path / STUDY, rows, val=held_out)
    study = open_study(STUDY, tmp_path)
    return study, grid_of(study.runs, study.folder)


def noise(seeds, lams, seed=0, scale=0.3):
    return 99 + scale * np.random.default_rng(seed).standard_normal((seeds, lams)).clip(-3, 3)


# --- p-values --------------------------------------------------------------------------------------------------------


def test_holm_by_hand():
    # Sorted .005 .01 .03 .04 times 4 3 2 1: .02 .03 .06 .04, and never less than the one before.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.5]), [1, 1])
    assert holm([0.03]) == [0.03] and holm([]).size == 0


def test_what_was_not_tested_is_not_in_the_family():
    np.testing.assert_allclose(holm([0.01, NAN, 0.04]), [0.02, NAN, 0.04])
    assert np.isnan(holm([NAN, NAN])).all()


def test_wilcoxon_by_hand():
    assert signed_rank(UP6, np.zeros(6)) == pytest.approx(2 / 64)  # one of 2^6 signings is as extreme, on each side
    assert signed_rank(UP6[:5], np.zeros(5)) == pytest.approx(2 / 32)  # so 5 pairs cannot reach 0.05
    assert signed_rank([*UP6, NAN], [*np.zeros(6), 9]) == pytest.approx(2 / 64)
    assert signed_rank(99.1 + np.array(UP6) / 1000, np.full(6, 99.1)) == pytest.approx(2 / 64)  # however small
    assert signed_rank([3, 4], [3, 4]) == 1 and math.isnan(signed_rank([NAN], [1]))


def signings(d):
    """The two-sided p-value by all signings of the ranks of the differences that are not zero."""
    d = np.array([x for x in d if x])
    ranks = np.array([np.mean([i for i, y in enumerate(sorted(abs(d)), 1) if y == abs(x)]) for x in d])
    sums = np.array([np.dot(ranks, signs) for signs in itertools.product((0, 1), repeat=len(d))])
    seen = ranks[d > 0].sum()
    return min(1, 2 * min((sums <= seen).mean(), (sums >= seen).mean()))


@pytest.mark.parametrize("d", [(3, -1, 4, 1, -5, 9, 2, 6), (1, 1, -1, 2, 2, 2, 0, 5), (0, 0, 1, 2, 3, 4, -1, 7)])
def test_wilcoxon_is_exact_also_with_ties_and_zeros(d):
    # In tenths of a point around 99.1, where equal differences are not equal in floating point.
    assert signed_rank(99.1 + np.array(d) / 10, np.full(8, 99.1)) == pytest.approx(signings(d))


# --- pairs -----------------------------------------------------------------------------------------------------------


def points(n, *ups):
    """Curves [n, 2] that are best at the second lambda, apart by `ups`, differently in every seed."""
    base = noise(n, 1) + np.array([[-5.0, 0.0]])
    return [base - np.array([[0, up]]) * (1 + np.arange(n)[:, None] / 10) for up in ups]


@pytest.mark.parametrize(("n", "p"), [(5, "n too small"), (6, "0.031")])
def test_wilcoxon_is_shown_from_six_seeds_on(tmp_path, n, p):
    a, b = points(n, 0.0, 0.2)
    study, grid = made(tmp_path, {"exact": a, "sample": b})
    cells = pair_tables(study, grid)[0].rows[0]
    assert cells[0] == f"EXACT {MINUS} SAMPLE" and cells[3:] == (str(n), p, "n too small")
    expected = paired(a[:, 1], b[:, 1], 0.95)
    assert families(study, grid)[0][0].difference == pytest.approx(expected)


def test_estimators_and_none_are_two_families(tmp_path):
    # Six pairs of one sign are 2/64 raw; one pair of estimators stays so, two pairs with None are doubled by Holm.
    a, b = points(6, 0.0, 0.2)
    estimators, others = pair_tables(*made(tmp_path, {"exact": a, "sample": b}))
    assert [r[4] for r in estimators.rows] == ["0.031"]
    assert [(r[0], r[4]) for r in others.rows] == [(f"{x} {MINUS} None", "0.062") for x in ("EXACT", "SAMPLE")]


def test_identical_arms_are_no_test_and_leave_the_family(tmp_path):
    a, b = points(6, 0.0, 0.2)
    table = pair_tables(*made(tmp_path, {"exact": a, "sample": b, "empirical": b}))[0]
    assert [r[4] for r in table.rows] == ["0.062", "0.062", "identical"]  # Holm over two, not three
    assert table.rows[2][2:] == ("0", "6", "identical", DASH)


def test_arms_that_differ_anywhere_are_not_identical(tmp_path):
    a, _ = points(6, 0.0, 0.2)
    elsewhere, lost = a.copy(), a.copy()
    elsewhere[2, 0] -= 0.1  # the best lambda is the second
    lost[2, 0] = NAN
    pairs, _ = families(*made(tmp_path, {"exact": a, "sample": elsewhere, "empirical": lost}))
    assert [pair.identical for pair in pairs] == [False, False, False]
    assert pairs[0].difference[:3] == (0, 0, 0) and pairs[0].p == 1


def test_pairs_of_a_study_without_estimators_to_compare(tmp_path):
    tables = pair_tables(*made(tmp_path, {"exact": points(6, 0.0)[0]}))
    assert [table.name for table in tables] == ["paired-none"] and tables[0].rows[0][4] == "0.031"


# --- choosing lambda -------------------------------------------------------------------------------------------------


def test_leave_one_seed_out_by_hand():
    # Column means of the others: without seed 1 (91, 94), without 2 (94, 93), without 3 (94.5, 93.5).
    accuracy = np.array([[97.0, 92], [92, 95], [90, 93]])
    np.testing.assert_array_equal(leave_one_seed_out(accuracy), [1, 0, 0])
    assert leave_one_seed_out([[97.0, 92]]).tolist() == [-1]  # nobody else chooses


def test_three_ways_by_hand(tmp_path):
    test, val = [[97.0, 92], [92, 95], [90, 93]], [[90.0, 91], [90, 91], [90, 91]]
    study, grid = made(tmp_path, {"exact": test}, val={"exact": val})
    found = selections(study, grid)
    (_, oracle, left_out, validation) = found[0]
    for choice, lams, accuracy in (
        (oracle, [10, 10, 10], [92, 95, 93]),  # means 93 and 93.33
        (left_out, [10, 1, 1], [92, 92, 90]),
        (validation, [10, 10, 10], [92, 95, 93]),
    ):
        np.testing.assert_allclose(choice.lams, lams)
        np.testing.assert_allclose(choice.accuracy, accuracy)
    cells = selection_table(study, grid, found).rows[0]
    assert cells == (
        "EXACT", "1e1", "93.33 ± 0.88 (3)", "n too small",
        "1e0 (2), 1e1 (1)", "91.33 ± 0.67 (3)", "1e1", "93.33 ± 0.88 (3)",
    )  # fmt: skip
    gap = optimism_table(study, found).rows[0]  # 0, 3, 3: mean 2, SEM 1, t 4.303
    assert gap == ("EXACT", f"+2.00 [{MINUS}2.30, +6.30]", "0 (same λ)", "3")


def test_validation_reports_the_test_accuracy_of_what_held_out_examples_choose(tmp_path):
    test, val = [[97.0, 92], [96, 95]], [[80.0, 99], [99, 81]]  # validation means 89.5 and 90, test 96.5 and 93.5
    found = selections(*made(tmp_path, {"exact": test}, val={"exact": val}))[0]
    np.testing.assert_allclose(found.validation.accuracy, [92, 95])
    np.testing.assert_allclose(found.oracle.accuracy, [97, 96])


def test_validation_needs_every_task_after_the_last_one(tmp_path):
    test, val = [[97.0, 92], [96, 95]], [[80.0, 99], [99, 81]]
    study, grid = made(tmp_path, {"exact": test}, val={"exact": val})
    path = study.folder / "accuracy.csv"
    lines = path.read_text().splitlines(keepends=True)
    earlier = [line.replace("val,4,", "val,3,") for line in lines]
    for content in (earlier, [line for line in lines if "val,4,2," not in line]):
        path.write_text("".join(content))
        made_results.write_provenance(study.folder)
        found = selections(study, grid)
        assert found[0].validation is None
        assert selection_table(study, grid, found).rows[0][6:] == ("no validation runs", DASH)
        assert optimism_table(study, found).rows[0][2] == "no validation runs"


def test_a_seed_lost_at_the_lambda_the_others_choose_is_told(tmp_path):
    study, grid = made(tmp_path, {"exact": [[90.0, NAN], [91, 95], [90, 96]]})
    found = selections(study, grid)
    assert np.isnan(found[0].leave_one_seed_out.accuracy).tolist() == [True, False, False]
    table = selection_table(study, grid, found)
    assert table.rows[0][5].endswith("(2)")
    assert "EXACT: left out, 1 of 3 seeds have no accuracy at their λ." in table.notes


@given(arrays(float, st.tuples(st.integers(2, 6), st.integers(1, 5)), elements=st.floats(80, 100)))
def test_no_seeds_gap_to_leave_one_seed_out_is_negative(accuracy):
    # sum_s x_s(best) >= sum_s x_s(left out), and the reverse without seed s: so x_s(best) >= x_s(left out).
    best = accuracy[:, accuracy.mean(axis=0).argmax()]
    left_out = accuracy[np.arange(len(accuracy)), leave_one_seed_out(accuracy)]
    assert (best >= left_out - 1e-9).all()


def test_the_winners_curse_is_the_oracles_alone():
    # Fourteen lambdas of the same true accuracy, 99: the best of them looks better, and is not.
    draws = [noise(10, 14, seed) for seed in range(300)]
    oracle = estimate([x.mean(axis=0).max() for x in draws])
    left_out = estimate([x[np.arange(10), leave_one_seed_out(x)].mean() for x in draws])
    assert oracle.mean - 99 == pytest.approx(1.70 * 0.3 / math.sqrt(10), abs=0.01)  # E max of 14 normals: 1.70 sd
    assert abs(left_out.mean - 99) < 3 * left_out.sem < 0.03


def test_the_optimism_gap_of_noise_is_positive(tmp_path):
    study, grid = made(tmp_path, {"exact": noise(20, 40)}, val={"exact": noise(20, 40, seed=1)})
    _, left_out, validation, n = optimism_table(study, selections(study, grid)).rows[0]
    assert all(float(gap.split(" ")[0]) > 0.05 for gap in (left_out, validation)) and n == "20"


# --- bootstrap -------------------------------------------------------------------------------------------------------


def test_resamples_choose_lambda_again_like_a_loop():
    accuracy = np.stack([noise(6, 5), noise(6, 5, seed=1)])
    accuracy[1, 2, 3] = NAN  # a lambda with a lost seed is no candidate
    weight = bootstrap_weights(6, 50, np.random.default_rng(0))
    expected = []
    for counts in weight.astype(int):
        drawn = np.repeat(accuracy, counts, axis=1)  # [A, S, L]
        means = [arm[:, np.isfinite(own).all(axis=0)].mean(axis=0) for arm, own in zip(drawn, accuracy, strict=True)]
        expected.append([curve[curve.argmax()] for curve in means])
    np.testing.assert_allclose(reselected(accuracy, weight), expected)


@pytest.mark.parametrize(("n", "shown"), [(9, False), (10, True)])
def test_the_bootstrap_is_shown_from_ten_seeds_on(tmp_path, n, shown):
    curves = {"exact": noise(n, 4), "sample": noise(n, 4, seed=1) - 1}
    tables = {table.name: table for table in tables_of(made(tmp_path, curves)[0])}
    if not shown:
        for name in ("selection", "paired", "paired-none"):
            assert "bootstrap" not in tables[name].header
            assert "bootstrap (n too small)" in tables[name].notes[-1]
        return
    texts = [tables["selection"].rows[0][3], tables["paired"].rows[0][5], tables["paired-none"].rows[0][5]]
    weight = bootstrap_weights(n, 2000, np.random.default_rng(0))
    samples = reselected(np.array([*curves.values()]), weight)
    none = seed_mean(85 + np.arange(1, n + 1)[:, None] / 100, weight)
    expected = [samples[:, :1], samples[:, :1] - samples[:, 1:], samples[:, :1] - none]
    for text, values, sign in zip(texts, expected, ("", "+", "+"), strict=True):
        low, high = np.quantile(values, [0.025, 0.975])
        assert text == (f"[{low:{sign}.2f}, {high:{sign}.2f}]" if shown else "n too small")
