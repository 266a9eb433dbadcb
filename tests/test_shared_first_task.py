"""A first task trained once for all replicas of a seed, and the forks that go on from it."""

from functools import partial
from unittest import mock

import pytest
import torch
from made_experiments import MIXED, SHARED, digits, first_tasks, made_experiment, run
from made_trees import error, same, single
from torch import Tensor

from cl_repro.engine import Experiment, Replica, Stack, lifecycle, replicas
from cl_repro.engine.stack import Seconds, fork, start
from cl_repro.methods.baselines import finetune, joint
from cl_repro.methods.ewc import ewc
from cl_repro.methods.ewc_offline import ewc_offline
from cl_repro.types import Method

METHODS = {"finetune": finetune(), "joint": joint(), "ewc": ewc(), "ewc_offline": ewc_offline()}


@pytest.mark.parametrize("reset", [False, True], ids=["one-adam", "adam-reset"])
@pytest.mark.parametrize("method", METHODS)
def test_a_shared_first_task_changes_nothing(method, reset):
    """In float64, though the trunk has fewer replicas. Measured: no difference."""
    experiment = made_experiment(first_tasks(digits(), 3), reset_optimiser=reset)
    expected = run(experiment, METHODS[method], MIXED)
    trunks: dict[str, replicas.Trunk] = {}
    for rows in (MIXED, MIXED[::-1]):  # the second time from the trunk that the first has used
        found = run(experiment._replace(share_first_task=True), METHODS[method], rows, trunks)
        backward = rows is not MIXED
        for k in range(len(MIXED)):
            i = len(MIXED) - 1 - k if backward else k
            assert error(single(found.params, i), single(expected.params, k)) < 1e-13
            assert (found.outcomes[i].accuracy == expected.outcomes[k].accuracy).all()
            assert found.outcomes[i].traces == pytest.approx(expected.outcomes[k].traces, rel=1e-13)
    assert len(trunks) == 1


def test_a_shared_first_task_is_trained_and_measured_once():
    experiment = made_experiment(share_first_task=True)
    trunks: dict[str, replicas.Trunk] = {}
    with (
        mock.patch.object(replicas, "learning", wraps=replicas.learning) as learn,
        mock.patch.object(replicas, "measure", wraps=replicas.measure) as measure,
    ):
        for lam in (1.0, 10.0):
            run(experiment, ewc(), [Replica(s, lam, e) for s in (1, 2) for e in (SHARED, MIXED[1].estimator)], trunks)
    assert [call.args[0].task for call in learn.call_args_list] == [0, 1, 2, 3, 4, 1, 2, 3, 4]
    assert [call.args[2] for call in measure.call_args_list] == [0, 0, 1, 2, 3, 1, 2, 3]


def test_a_trunk_of_another_experiment_or_of_other_seeds_is_not_used():
    trunks: dict[str, replicas.Trunk] = {}
    experiment = made_experiment(share_first_task=True)
    for key, iterations, seed in (("a", 12, 1), ("b", 3, 1), ("b", 3, 2)):
        changed = experiment._replace(key=key, iterations=iterations)
        found = run(changed, finetune(), [Replica(seed, 0.0, None)], trunks)
        expected = run(changed._replace(share_first_task=False), finetune(), [Replica(seed, 0.0, None)])
        assert error(found.params, expected.params) < 1e-13
        assert len(trunks) == 1


def test_a_shared_first_task_counts_in_full_for_every_replica():
    """Ten seconds of training and four of evaluation of two networks are 5 and 2 for each of six, and so on."""
    experiment = made_experiment(share_first_task=True)
    rows = [Replica(seed, lam, SHARED) for seed in (1, 2) for lam in (1.0, 2.0, 3.0)]
    trunk = replicas.trunk_of(experiment, [1, 2], {})
    trunk.importance[SHARED] = replicas.measure(experiment, trunk.stack, 0, [SHARED] * 2), 8.0
    trunk.stack.seconds = Seconds(train=10.0, evaluate=4.0)
    at = replicas.forked(experiment, rows, trunk)
    replicas.shared_importance(experiment, at.stack, [SHARED] * 6, trunk)
    assert at.stack.seconds == Seconds(train=6 * 5.0, fisher=6 * 4.0, evaluate=6 * 2.0)
    assert at.stack.steps == 12
    for found in replicas.outcomes(experiment, ewc(), at):
        assert found.seconds.train == 5 and found.seconds.fisher == 4
        assert found.steps == 12  # of the longest task


# --- forks ----------------------------------------------------------------------------------------------------------

OPTIMISERS = {
    "adam": partial(torch.optim.Adam, lr=1e-2, fused=True),
    "default adam": partial(torch.optim.Adam, lr=1e-2),
    "momentum": partial(torch.optim.SGD, lr=1e-2, momentum=0.9),
}


def trained(experiment: Experiment, seeds: list[int]) -> Stack:
    stack = start(experiment, seeds)
    lifecycle.learn(experiment, stack, 0, Method(), None)
    return stack


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_fork_goes_on_as_the_original_does_because_it_has_its_moments(optimiser):
    experiment = made_experiment(optimiser=OPTIMISERS[optimiser])
    stack = trained(experiment, [1, 2])
    forked, bare = (fork(experiment, stack, torch.tensor([0, 1])) for _ in range(2))
    bare.optimiser.state.clear()
    for each in (stack, forked, bare):
        lifecycle.learn(experiment, each, 1, Method(), None)
    assert same(forked.params, stack.params)
    assert error(bare.params, stack.params) > 1e-3


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_fork_leaves_the_original_alone(optimiser):
    experiment = made_experiment(optimiser=OPTIMISERS[optimiser])
    stack = trained(experiment, [1, 2])

    def everything() -> list[Tensor]:
        moments = [t for s in stack.optimiser.state.values() for t in s.values() if isinstance(t, Tensor)]
        return [*stack.params.values(), *moments]

    before = [t.clone() for t in everything()]
    forked = fork(experiment, stack, torch.tensor([1, 0, 1]))
    assert forked.seeds == [2, 1, 2]
    lifecycle.learn(experiment, forked, 1, Method(), None)
    assert same(everything(), before)
