"""The engine, given the reference's initial weights and mini-batches, follows the reference's losses (protocol 8)."""

from functools import partial

import pytest
import real_data
import reference_streams
import torch
from made_experiments import made_experiment

from cl_repro import engine
from cl_repro.benchmarks.split import split
from cl_repro.engine import batches, lifecycle, training
from cl_repro.types import Method

LOSSES = {1: 0.696396, 2: 0.636056, 3: 0.556556, 5: 0.371507, 10: 0.152217, 20: 0.010774, 50: 0.090933, 100: 0.008129}
AFTER_100 = {  # sum, norm
    "fc1.weight": (136.96944, 12.723827),
    "fc1.bias": (0.44720, 0.455204),
    "fc2.weight": (227.01169, 12.151795),
    "fc2.bias": (1.75334, 0.611044),
    "head.weight": (2.38885, 1.844275),
}


def test_initial_weights_are_the_references() -> None:
    params = reference_streams.initial_weights(1)
    sums = {"fc1.weight": -3.709616, "fc1.bias": -0.590637, "fc2.weight": -17.211911, "head.bias": 0.081026}
    for name, value in sums.items():
        assert params[name].sum().item() == pytest.approx(value, abs=2e-5)
    assert params["head.weight"].norm().item() == pytest.approx(1.805021, abs=1e-6)
    assert reference_streams.draw64() == 4609241134255416867


def test_shuffle_recipe() -> None:
    torch.manual_seed(0)
    expected = [6, 15, 11, 13, 9, 2, 1, 17, 16, 8, 5, 12, 18, 3, 19, 10, 14, 4, 7, 0]
    assert reference_streams.loader_permutation(20).tolist() == expected


def test_engine_follows_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = real_data.require("mnist")
    benchmark = split("mnist", 5, 255.0, data_dir=folder, device="cpu")
    experiment = made_experiment(
        benchmark,
        hidden=(400, 400),
        dtype=torch.float32,
        optimiser=partial(torch.optim.Adam, lr=1e-3, fused=True),
        iterations=100,
        batch_size=128,
    )
    params = {name: p[None] for name, p in reference_streams.initial_weights(1).items()}
    stack = engine.Stack([1], params, {}, experiment.optimiser(list(params.values())))
    task = benchmark.curriculum(1).tasks[0]
    order = reference_streams.mini_batches(len(task.rows), 128, 100)
    assert order[0, :5].tolist() == [9263, 5543, 4105, 2806, 3723]
    monkeypatch.setattr(batches.rng, "batches", lambda *_: order)
    monkeypatch.setattr(training, "REPORT_EVERY", 1)
    course = lifecycle.begin(experiment, stack, 0, Method(), None)
    drawn = course.drawn
    assert drawn.rows[0, 0, :5].tolist() == [47252, 28225, 20984, 14248, 19021]
    losses: list[float] = []
    training.follow(course, course.steps, lambda done, task, loss: losses.append(loss))
    for iteration, expected in LOSSES.items():
        assert losses[iteration - 1] == pytest.approx(expected, abs=2e-6 if iteration < 20 else 2e-4)
    for name, (total, norm) in AFTER_100.items():
        assert stack.params[name].sum().item() == pytest.approx(total, rel=2e-3, abs=1e-3)
        assert stack.params[name].norm().item() == pytest.approx(norm, rel=1e-3)
