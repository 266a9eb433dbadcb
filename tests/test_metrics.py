"""The field's summary numbers on matrices small enough for a pencil."""

import numpy as np
import pytest

from cl_repro.engine.metrics import summary

# Row 0: untrained. Row k + 1: after task k. Column j: test accuracy on task j.
THREE = np.array(
    [
        [0.50, 0.40, 0.30],
        [0.90, 0.45, 0.20],
        [0.95, 0.80, 0.60],
        [0.70, 0.85, 0.99],
    ]
)


def test_three_tasks_by_hand():
    found = summary(THREE)
    assert found.accuracy == pytest.approx((0.70 + 0.85 + 0.99) / 3)
    # task 0 was best after task 1; task 1 is better now than ever before: a negative term
    assert found.forgetting == pytest.approx(((0.95 - 0.70) + (0.80 - 0.85)) / 2)
    # since each was learned
    assert found.bwt == pytest.approx(((0.70 - 0.90) + (0.85 - 0.80)) / 2)
    # just before each is learned, against the untrained network
    assert found.fwt == pytest.approx(((0.45 - 0.40) + (0.60 - 0.30)) / 2)


def test_two_tasks_by_hand():
    found = summary(np.array([[0.5, 0.5], [1.0, 0.7], [0.6, 0.9]]))
    assert tuple(found) == pytest.approx((0.75, 0.4, -0.4, 0.2))


def test_the_best_so_far_may_be_before_the_task_was_learned():
    """Chaudhry et al. (2018) take the maximum over all earlier moments, whatever was learned then."""
    found = summary(np.array([[0.5, 0.5, 0.5], [1.0, 0.9, 0.5], [1.0, 0.6, 0.5], [1.0, 0.5, 1.0]]))
    assert found.forgetting == pytest.approx((0.0 + (0.9 - 0.5)) / 2)
    assert found.bwt == pytest.approx((0.0 + (0.5 - 0.6)) / 2)


def test_a_network_that_forgets_nothing():
    found = summary(np.array([[0.5, 0.5], [1.0, 0.5], [1.0, 1.0]]))
    assert tuple(found) == (1.0, 0.0, 0.0, 0.0)


def test_one_task_has_no_transfer():
    found = summary(np.array([[0.5], [0.8]]))
    assert found.accuracy == 0.8
    assert all(np.isnan([found.forgetting, found.bwt, found.fwt]))
