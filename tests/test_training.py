"""Mini-batches, the gradient they give, and the optimiser over a task boundary."""

from functools import partial
from typing import Any
from unittest import mock

import pytest
import torch
from made_experiments import digits, made_experiment, run
from made_trees import error, same

from benches import workloads
from cl_repro.benchmarks import scenarios
from cl_repro.common import rng, runtime
from cl_repro.common.errors import UserError
from cl_repro.engine import Experiment, Replica, batches, lifecycle
from cl_repro.engine.course import Course
from cl_repro.engine.stack import gathered, start
from cl_repro.importance import fisher
from cl_repro.methods.baselines import finetune
from cl_repro.methods.ewc import ewc
from cl_repro.models.convnet import convnet
from cl_repro.types import Method

SEEDS = [1, 2, 5]


def drawn_by(experiment: Experiment, method: Method, rows: list[Replica]) -> list[batches.Batches]:
    """The mini-batches of every task of a run; their rows, labels and owners."""
    with mock.patch.object(lifecycle, "follow", wraps=lifecycle.follow) as follow:
        run(experiment, method, rows)
    return [call.args[0].drawn._replace(pixels=None, noise=[]) for call in follow.call_args_list]


def test_finetune_and_ewc_train_on_the_same_batches_whatever_estimator_lambda_and_neighbours():
    experiment = made_experiment()
    expected = drawn_by(experiment, finetune(), [Replica(seed, 0.0, None) for seed in SEEDS])
    for estimator in (fisher.exact(), fisher.sample(), fisher.exact(50)):
        found = drawn_by(experiment, ewc(), [Replica(seed, 1e3, estimator) for seed in SEEDS])
        assert same(found, expected)
    alone = drawn_by(experiment, ewc(), [Replica(2, 1.0, fisher.empirical())])
    for task in range(5):
        assert torch.equal(alone[task].rows[0], expected[task].rows[1])


@pytest.mark.parametrize("shape", [(9,), (4, 9)])
def test_examples_are_gathered_as_by_indexing(shape: tuple[int, ...]):
    images = torch.randint(0, 256, (30, 3, 4, 4), dtype=torch.uint8)
    rows = torch.randint(0, 30, shape)
    assert torch.equal(gathered(images, rows), images[rows])


def test_batches_are_the_streams_shuffles_of_the_tasks_own_rows():
    experiment = made_experiment(iterations=60)
    for task in range(5):
        drawn = batches.batches(experiment, SEEDS, task, [task])
        for s, seed in enumerate(SEEDS):
            curriculum = experiment.benchmark.curriculum(seed)
            own = curriculum.tasks[task]
            order = rng.batches(rng.stream(seed, "order", task), len(own.rows), 16, 60)
            assert torch.equal(drawn.rows[s], own.rows[order])
            assert torch.equal(drawn.label[s], curriculum.y[drawn.rows[s]])
            assert (drawn.owner == task).all()
            assert drawn.masks[task].nonzero()[:, 0].tolist() == list(own.classes)
            epochs = [epoch.flatten().tolist() for epoch in drawn.rows[s].split(len(own.rows) // 16)]
            assert all(len(set(epoch)) == len(epoch) for epoch in epochs)


def test_a_batch_larger_than_the_task_is_refused_in_one_line():
    n = len(digits().curriculum(1).tasks[0].rows)
    assert batches.batches(made_experiment(batch_size=n), [1], 0, [0]).rows.shape == (1, 12, n)
    with pytest.raises(UserError) as caught:
        run(made_experiment(batch_size=n + 1), finetune(), [Replica(1, 0.0, None)])
    assert str(caught.value) == (
        f"batch_size={n + 1}: task 0 of seed 1 has {n} examples; "
        "incomplete batches are dropped, so the batch must not be larger than the task"
    )


# --- the gradient ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "silent"), [("task", range(2, 10)), ("class_", range(2, 10)), ("domain", ())])
def test_a_logit_that_is_not_active_is_not_trained(name, silent):
    experiment = made_experiment(scenario=getattr(scenarios, name)(), dtype=torch.float32)
    stack = start(experiment, SEEDS)
    before = {key: p.clone() for key, p in stack.params.items()}
    lifecycle.learn(experiment, stack, 0, Method(), None)
    inactive = torch.tensor([i in silent for i in range(len(before["head.bias"][0]))])
    for key in ("head.weight", "head.bias"):
        assert (stack.optimiser.state[stack.params[key]]["exp_avg"][:, inactive] == 0).all()
        moved = stack.params[key] != before[key]  # [S, C, ...]
        assert not moved[:, inactive].any()
        assert moved[:, ~inactive].float().mean() > 0.5  # a dead hidden unit moves nothing


def test_a_step_is_the_gradient_of_the_mean_loss_plus_the_penalty():
    """One step of plain gradient descent, so that the gradient can be read off the weights."""
    experiment = made_experiment(optimiser=partial(torch.optim.SGD, lr=1.0), iterations=1)
    stack = start(experiment, [1, 2])
    before = {key: p.clone() for key, p in stack.params.items()}
    pull = Method(penalty_grad=lambda state, params: {key: state * p.square() for key, p in params.items()})
    state = torch.tensor([3.0, 0.5], dtype=torch.float64)
    lifecycle.learn(experiment, stack, 1, pull, state)
    drawn = batches.batches(experiment, [1, 2], 1, [1])
    for k in range(2):
        leaves = {key: p[k].clone().requires_grad_() for key, p in before.items()}
        z = experiment.net.apply(leaves, {}, experiment.benchmark.x[drawn.rows[k, 0]].double() / 16)[0][:, 2:4]
        loss = -z.log_softmax(1)[torch.arange(16), drawn.label[k, 0] - 2].mean()
        expected = torch.autograd.grad(loss, list(leaves.values()))
        for (key, p), g in zip(before.items(), expected, strict=True):
            assert torch.allclose(p[k] - stack.params[key][k], g + state[k] * p[k].square(), rtol=1e-9, atol=1e-14)


# --- the optimiser --------------------------------------------------------------------------------------------------


def after_two_tasks(experiment: Experiment, fresh: bool) -> dict[str, torch.Tensor]:
    stack = start(experiment, SEEDS)
    lifecycle.learn(experiment, stack, 0, Method(), None)
    if fresh:
        stack.optimiser = experiment.optimiser(list(stack.params.values()))
    lifecycle.learn(experiment, stack, 1, Method(), None)
    return stack.params


def test_one_adam_goes_through_all_tasks_and_a_reset_one_is_a_new_one():
    kept, reset = made_experiment(), made_experiment(reset_optimiser=True)
    assert same(after_two_tasks(reset, fresh=False), after_two_tasks(kept, fresh=True))
    assert error(after_two_tasks(kept, fresh=False), after_two_tasks(kept, fresh=True)) > 1e-3


@pytest.mark.parametrize("reset", [False, True])
def test_adam_counts_all_steps_or_those_of_the_last_task(reset):
    stack = run(made_experiment(reset_optimiser=reset), finetune(), [Replica(1, 0.0, None)]).stack
    assert {int(state["step"]) for state in stack.optimiser.state.values()} == {12 if reset else 60}


def test_the_penalty_acts_from_the_second_task_on():
    seen: list[tuple[int, bool]] = []

    def spy(course: Course, *rest: Any) -> None:
        seen.append((course.task, course.state != ()))
        follow(course, *rest)

    follow = lifecycle.follow
    with mock.patch.object(lifecycle, "follow", spy):
        run(made_experiment(), ewc(), [Replica(1, 1.0, fisher.exact())])
    assert seen == [(0, False), (1, True), (2, True), (3, True), (4, True)]


@pytest.mark.parametrize("k", [1, 2])
def test_channels_are_last_in_training_of_one_replica_and_nowhere_else(k):
    shape = (3, 8, 8)
    net = convnet([4, 4], [8], input_shape=shape, n_outputs=4)
    data = workloads.random_data(2, 30, 10, shape, dtype=torch.float64)
    plain = workloads.experiment(data, (), 8, 4, net=net, dtype=torch.float64)
    found: dict[bool, set[bool]] = {True: set(), False: set()}

    def apply(params, buffers, x, *, train=False, **others):
        if k == 1:  # else torch does not say
            found[train].add(x.is_contiguous(memory_format=torch.channels_last))
        return net.apply(params, buffers, x, train=train, **others)

    changed = plain._replace(net=net._replace(apply=apply), channels_last=True)
    expected, result = (run(of, ewc(), [Replica(1, 1.0, fisher.exact())] * k).params for of in (plain, changed))
    assert error(result, expected) < 1e-12
    assert found == ({True: {True}, False: {False}} if k == 1 else {True: set(), False: set()})


@pytest.mark.parametrize("allowed", [False, True])
def test_tf32_is_a_setting_of_training_and_of_nothing_else(allowed):
    """What a network finds set when it is asked, in training and in the importance and test passes."""
    plain = made_experiment()
    found: dict[bool, set[tuple[bool, bool]]] = {True: set(), False: set()}

    def apply(params, buffers, x, *, train=False, **others):
        found[train].add((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
        return plain.net.apply(params, buffers, x, train=train, **others)

    runtime.prepare()
    experiment = plain._replace(net=plain.net._replace(apply=apply), tf32=allowed)
    run(experiment, ewc(), [Replica(1, 1.0, fisher.exact())])
    assert found == {True: {(allowed, allowed)}, False: {(False, False)}}
