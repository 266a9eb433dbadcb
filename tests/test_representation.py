"""What the head reads, measured unit by unit and example by example."""

import pytest
import torch
from made_experiments import digits, made_experiment, run
from torch.nn import functional

from cl_repro import engine
from cl_repro.engine import Replica
from cl_repro.engine.representation import overlap, representation
from cl_repro.methods.baselines import finetune
from cl_repro.models.progressive import progressive


@pytest.mark.parametrize("rows_per_pass", [7, 1000])
@pytest.mark.parametrize("seeds", [[1], [2, 1, 2]])
def test_overlap_and_active_units_are_counted_one_by_one(rows_per_pass, seeds):
    experiment = made_experiment(hidden=(9, 6), rows_per_pass=rows_per_pass)
    stack = run(experiment, finetune(), [Replica(seed, 0.0, None) for seed in seeds]).stack
    for i, (seed, found) in enumerate(zip(seeds, representation(experiment, stack), strict=True)):
        params = {name: p[i] for name, p in stack.params.items()}
        means, active = [], []
        for task in experiment.benchmark.curriculum(seed).tasks:
            h = experiment.benchmark.to_input(experiment.benchmark.x_test[task.rows_test]).flatten(1)
            for layer in ("fc1", "fc2"):
                h = functional.linear(h, params[f"{layer}.weight"], params[f"{layer}.bias"]).relu()
            means.append((h.mean(0) / h.mean(0).sum()).tolist())
            active.append(float((h > 0).double().mean()))
        pairs = [(a, b) for n, a in enumerate(means) for b in means[:n]]
        expected = sum(sum(min(x, y) for x, y in zip(a, b, strict=True)) for a, b in pairs) / len(pairs)
        assert found["overlap"] == pytest.approx(expected, rel=1e-10)
        assert found["active"] == pytest.approx(sum(active) / len(active), rel=1e-10)


def test_overlap_is_one_of_equal_rows_and_zero_of_rows_apart():
    assert overlap(torch.tensor([[1.0, 3.0], [2.0, 6.0]])) == pytest.approx(1)
    assert overlap(torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 5.0]])) == 0
    assert overlap(torch.tensor([[1.0, 1.0], [3.0, 1.0], [1.0, 3.0]])) == pytest.approx((0.75 + 0.75 + 0.5) / 3)


def test_it_is_part_of_a_run_and_left_out_where_there_is_no_head():
    experiment = made_experiment(digits(2, torch.float32), dtype=torch.float32, iterations=2)
    (outcome,) = engine.train(experiment, finetune(), [Replica(1, 0.0, None)], {})
    assert set(outcome.representation) == {"overlap", "active"}
    apart = experiment._replace(net=progressive(2, [4], input_shape=(8, 8), n_outputs=10), reset_optimiser=True)
    (outcome,) = engine.train(apart, finetune(), [Replica(1, 0.0, None)], {})
    assert outcome.representation == {}
