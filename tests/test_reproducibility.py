"""What docs/reproducibility.md states: equal bits in every process, order of seeds and number of stops, at the same K.

That a run in slices is the run, for every method: `test_checkpoint`. That kills change no row: `test_faults`.
"""

import hashlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from made_experiments import SHARED, digits, first_tasks, made_experiment

from cl_repro import engine
from cl_repro.common import runtime
from cl_repro.engine import Replica, checkpoint
from cl_repro.methods.ewc import ewc

HERE = {"torch": "2"}
ROWS = [Replica(seed, lam, SHARED) for seed in (1, 2) for lam in (10.0, 1e3)]


def weights(rows: list[Replica], k: int, slices: bool = False, dtype: torch.dtype = torch.float32) -> dict:
    """What each replica's network ends with, [D], by seed and lambda; in stacks of k, in the given order."""
    experiment, result = made_experiment(first_tasks(digits(dtype=dtype), 3), dtype=dtype, iterations=6), {}
    for first in range(0, len(rows), k):
        part = rows[first : first + k]
        *_, at = engine.stages(experiment, ewc(), part, {})
        if slices:
            at = None
            for _ in range(experiment.benchmark.n_tasks):
                at = next(engine.stages(experiment, ewc(), part, {}, begun=at))
                at = checkpoint.load(checkpoint.dump(at, experiment, HERE), experiment, [r.seed for r in part], HERE)
        for i, row in enumerate(part):
            result[row.seed, row.lam] = torch.cat([p[i].flatten() for p in at.stack.params.values()]).numpy()
    return result


def digest(rows: list[Replica], k: int) -> str:
    """Of all bits of these networks."""
    runtime.prepare()
    found = weights(rows, k)
    return hashlib.sha256(b"".join(found[key].tobytes() for key in sorted(found))).hexdigest()


def seeds_only(rows: list[Replica]) -> list[tuple[int, float]]:
    """What another process is told: an estimator is no value."""
    return [(row.seed, row.lam) for row in rows]


def elsewhere(pairs: list[tuple[int, float]], k: int) -> str:
    """`digest`, in another process."""
    return digest([Replica(seed, lam, SHARED) for seed, lam in pairs], k)


@pytest.mark.parametrize("k", [1, 4])
def test_equal_bits_whatever_the_order_of_seeds_and_the_stops(k: int) -> None:
    expected = weights(ROWS, k)
    other_order = [ROWS[i] for i in (2, 3, 0, 1)]
    for found in (weights(other_order, k), weights(ROWS, k, slices=True)):
        assert all((found[key] == expected[key]).all() for key in expected)
    others = weights([Replica(3, row.lam, SHARED) if row.seed == 2 else row for row in ROWS], k)  # beside another seed
    assert all((others[key] == expected[key]).all() for key in expected if key[0] == 1)
    assert len({value.tobytes() for value in expected.values()}) == len(ROWS)  # they are different networks


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 4])
def test_equal_bits_in_every_process(k: int) -> None:
    here = digest(ROWS, k)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        assert [*pool.map(elsewhere, [seeds_only(ROWS)] * 2, [k] * 2)] == [here] * 2


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
def test_another_k_differs_in_last_bits(dtype: torch.dtype, most: float) -> None:
    """Relative to the largest weight; sums of products are added in another order."""
    one = weights(ROWS, 1, dtype=dtype)
    for k in (2, 4):
        found = weights(ROWS, k, dtype=dtype)
        for key, expected in one.items():
            assert np.abs(found[key] - expected).max() <= most * np.abs(expected).max()
