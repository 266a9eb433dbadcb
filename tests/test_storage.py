"""Bytes that methods keep, against counts by hand."""

from functools import partial

import pytest
import torch
from made_experiments import digits, made_experiment

from cl_repro import engine
from cl_repro.benchmarks import scenarios
from cl_repro.engine import Replica
from cl_repro.importance.fisher import empirical
from cl_repro.memory import end_of_task, reservoir
from cl_repro.methods.baselines import finetune, joint
from cl_repro.methods.context import context
from cl_repro.methods.der import der
from cl_repro.methods.ewc import ewc
from cl_repro.methods.gpm import gpm
from cl_repro.methods.l2 import l2
from cl_repro.methods.lwf import lwf
from cl_repro.methods.ogd import ogd
from cl_repro.methods.quadratic import quadratic
from cl_repro.methods.replay import replay
from cl_repro.models.progressive import progressive

LAM = 4  # bytes of float32
D = 64 * 8 + 8 + 8 * 10 + 10  # parameters of 64-8-10
IMAGE = 64 + 8  # uint8 pixels, int64 label
BENCHMARK = digits(dtype=torch.float32)
SIZES_OF = {seed: [len(task.rows) for task in BENCHMARK.curriculum(seed).tasks] for seed in range(1, 20)}
SEED, SIZES = next((seed, own) for seed, own in SIZES_OF.items() if own[0] > max(own[1:]))  # the first has no teacher
KEPT = {
    "finetune": (finetune(), {}),
    "joint": (joint(), {"examples": IMAGE * sum(SIZES[:4])}),
    "ewc": (ewc(), {"state": LAM + 4 * 3 * D}),  # anchor, importance, their product with lam
    "l2": (l2(), {"state": LAM + 4 * 3 * D}),
    "quadratic, rebuilt": (quadratic(1), {"state": LAM + 4 * 3 * D, "examples": IMAGE * sum(SIZES[:4])}),
    "replay": (replay(end_of_task(30)), {"state": 2 * LAM, "examples": IMAGE * 30}),
    "replay of nothing": (replay(end_of_task(0)), {"state": 2 * LAM}),
    "der": (der(reservoir(30)), {"state": LAM, "examples": IMAGE * 30, "logits": 4 * 10 * 30}),
    "lwf, a table": (lwf(), {"state": LAM, "teacher": 4 * 10 * max(SIZES[1:])}),
    "lwf, a network": (lwf(teacher="step"), {"state": LAM, "teacher": 4 * D}),
}


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("k", [1, 3])
def test_bytes_of_a_replica(name, k):
    method, expected = KEPT[name]
    experiment = made_experiment(BENCHMARK, scenarios.task(), (8,), torch.float32, batch_size=4, iterations=2)
    found = engine.train(experiment, method, [Replica(SEED, float(lam), empirical()) for lam in range(k)], {})
    assert [outcome.storage for outcome in found] == [expected] * k


def test_weights_of_columns_beyond_the_first_are_counted():
    """Columns of 64-8-2, the second and third with adapters alpha, V and U before the head."""
    net = progressive(5, [8], input_shape=(8, 8), n_outputs=10)
    experiment = made_experiment(BENCHMARK, scenarios.task(), (8,), torch.float32, batch_size=4, iterations=2)
    experiment = experiment._replace(net=net, reset_optimiser=True)
    [found] = engine.train(experiment, finetune(), [Replica(1, 0.0, None)], {})
    column = 64 * 8 + 8 + 8 * 2 + 2
    adapters = sum(k + k * 8 * 8 + 8 * 2 for k in range(1, 5))
    assert found.storage == {"columns": 4 * (4 * column + adapters)}


@pytest.mark.parametrize(
    "method",
    [gpm(0.9, 0.01, 50), ogd(20), context(window=70, n=30), joint(), lwf()],
    ids=["gpm", "ogd", "context", "joint", "lwf"],
)
def test_a_replica_of_a_stack_keeps_what_it_does_alone(method):
    """Bases differ in size between seeds, and tasks in examples."""
    sgd = partial(torch.optim.SGD, lr=0.05)
    experiment = made_experiment(BENCHMARK, scenarios.task(), (8,), torch.float32, optimiser=sgd, iterations=2)
    rows = [Replica(seed, 0.1, empirical()) for seed in (2, 1, 3)]
    alone = [engine.train(experiment, method, [row], {})[0].storage for row in rows]
    assert [outcome.storage for outcome in engine.train(experiment, method, rows, {})] == alone
    if method.project_input:  # OGD keeps as many gradients of each seed
        assert alone[0] != alone[1]
