"""What a method asks of the engine: when its hooks act, which of them it may leave out, and that they go together."""

from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from made_experiments import digits, first_tasks, made_experiment, run
from made_trees import error, same, single
from torch import Tensor

from cl_repro.common.losses import cross_entropy
from cl_repro.engine import Experiment, Replica
from cl_repro.engine.lifecycle import begin, learn
from cl_repro.engine.needs import acting, in_first_task
from cl_repro.engine.stack import start
from cl_repro.memory import end_of_task, reservoir
from cl_repro.methods.baselines import finetune
from cl_repro.methods.replay import replay
from cl_repro.types import Method, Needs, Step, Tree

ROWS = [Replica(3, 0.5, None), Replica(1, 2.0, None), Replica(3, 0.0, None)]


def setting(**changes: Any) -> Experiment:
    """Three tasks, plain gradient descent."""
    sgd = partial(torch.optim.SGD, lr=0.05)
    return made_experiment(first_tasks(digits(), 3), optimiser=sgd, reset_optimiser=True)._replace(**changes)


class State(NamedTuple):
    """Of the method below."""

    lam: Tensor  # []
    away: Tree  # unit vector [*shape] of each parameter, along which nothing moves
    steps: Tensor  # [] that were observed


def everything(memory: Any, **needs: Any) -> Method:
    """Replays from a memory, projects the gradient off a direction that it gets by looking at a task, and observes.

    It has a state and no `end_task`.
    """

    def init(params: Tree, lam: Tensor) -> State:
        return State(lam, {name: torch.zeros_like(p) for name, p in params.items()}, torch.zeros_like(lam))

    def loss(state: State, step: Step) -> Tensor:
        new, old = step.batch, step.recalled
        total = cross_entropy(new.z, new.label, new.active)
        return total if old is None else total + state.lam * cross_entropy(old.z, old.label, old.active)

    def project(state: State, grads: Tree) -> Tree:
        return {name: g - (g * state.away[name]).sum() * state.away[name] for name, g in grads.items()}

    def inspect(state: State, net: Any, params: Tree, *_: Any) -> State:
        return state._replace(away={name: p / p.norm().clamp(min=1e-9) for name, p in params.items()})

    def observe(state: State, seen: dict[str, Tree], change: Tree) -> State:
        return state._replace(steps=state.steps + 1)

    return Method(
        init, loss=loss, project=project, inspect=inspect, observe=observe,
        needs=Needs(memory=memory, gradients=("batch",), inspects=5)._replace(**needs),
    )  # fmt: skip


@pytest.mark.parametrize("memory", [reservoir, end_of_task])
def test_a_memory_and_a_projection_go_together_in_a_stack_as_alone(memory: Any) -> None:
    """In float64; the projected direction stays, and the memory matters."""
    method = everything(memory(12))
    together = run(setting(), method, ROWS)
    for k, row in enumerate(ROWS):
        assert error(single(together.params, k), single(run(setting(), method, [row]).params, 0)) < 1e-12
    without = run(setting(), method._replace(needs=method.needs._replace(memory=None)), ROWS)
    moved = [error(single(together.params, k), single(without.params, k)) for k in range(3)]
    assert min(moved[:2]) > 1e-3 and moved[2] < 1e-12  # lambda 0 recalls in vain


def test_the_loss_of_the_memory_is_minimised_and_then_projected() -> None:
    """Step by step, what moves is orthogonal to the direction; without it the run is that of replay."""
    experiment, method = setting(), everything(end_of_task(12))
    stack, state = start(experiment, [1]), None
    learn(experiment, stack, 0, Method(), None)
    params = {name: p[0].clone() for name, p in stack.params.items()}
    state = method.inspect(method.init(params, torch.tensor(1.0).double()), None, params)
    course = begin(experiment, stack, 1, method, state)
    assert course.aid.recalled is not None
    after = learn(experiment, stack, 1, method, state)
    assert after.steps == 12
    for name, p in stack.params.items():
        moved = p[0] - params[name]
        assert abs((moved * state.away[name]).sum()) < 1e-12 * moved.norm()
        assert moved.norm() > 0
    plain = method._replace(project=None, inspect=None, observe=None)
    expected = run(setting(), replay(end_of_task(12), "equal"), ROWS)
    assert same(run(setting(), plain, ROWS).params, expected.params)


def test_what_is_observed_is_the_gradient_of_the_task_whatever_else_is_followed() -> None:
    """Of a loss, or a way of descending, of its own."""
    seen: list[Tree] = []

    def observe(state: Any, gradients: dict[str, Tree], change: Tree) -> Any:
        seen.append(gradients["batch"])
        return state

    def doubled(objective: Any, state: Any, params: Tree, *given: Any) -> Any:
        slope, found = torch.func.grad_and_value(objective, has_aux=True)(params, given[0], state, *given[1:])
        return state, {name: 2 * g for name, g in slope.items()}, found

    def twice(state: Any, step: Step) -> Tensor:
        return 2 * cross_entropy(step.batch.z, step.batch.label, step.batch.active)

    for own in (Method(), Method(loss=twice), Method(descend=doubled)):
        needs = Needs(gradients=("batch",), from_start=True)
        learn(setting(iterations=1), start(setting(), [1]), 0, own._replace(observe=observe, needs=needs), None)
    assert error(seen[1], seen[0]) < 1e-14
    assert error(seen[2], seen[0]) < 1e-14


@pytest.mark.parametrize("k", [1, 2])
def test_a_method_needs_no_state(k: int) -> None:
    """One that halves the gradient from task 2 on takes half of the steps."""
    experiment, rows = setting(), [Replica(1, 0.0, None)] * k

    def descend(objective: Any, state: Any, params: Tree, *given: Any) -> Any:
        slope, found = torch.func.grad_and_value(objective, has_aux=True)(params, given[0], state, *given[1:])
        return state, {name: g / 2 for name, g in slope.items()}, found

    half = partial(torch.optim.SGD, lr=0.025)
    ways = [Method(project=lambda state, g: {name: v / 2 for name, v in g.items()}), Method(descend=descend)]
    for method in ways:
        stacks = []
        for of, way in ((experiment, method), (experiment._replace(optimiser=half), finetune())):
            stacks.append(start(of, [1] * k))
            learn(experiment, stacks[-1], 0, Method(), None)
            learn(of, stacks[-1], 1, way, None)
        assert error(stacks[0].params, stacks[1].params) < 1e-13
        assert not same(run(experiment, method, rows).params, run(experiment, finetune(), rows).params)


def test_hooks_that_change_a_step_act_from_the_second_task_on_or_from_the_start() -> None:
    method = everything(reservoir(3))._replace(penalty_grad=lambda state, params: params)
    assert acting(method, 1) == method
    assert acting(method, 0) == Method(method.init, inspect=method.inspect, observe=method.observe, needs=method.needs)
    early = method._replace(needs=method.needs._replace(from_start=True))
    assert acting(early, 0) == early


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (Method(), False),
        (Method(penalty_grad=lambda state, params: params, loss=lambda state, step: step.batch.z.sum()), False),
        (Method(start_task=lambda state, params: state), True),
        (Method(observe=lambda state, seen, change: state), True),
        (Method(needs=Needs(keeps_logits=True)), True),
        (Method(needs=Needs(from_start=True)), True),
    ],
)
def test_a_method_has_a_part_in_the_first_task_if_it_looks_at_it_stores_or_acts_in_it(
    method: Method, expected: bool
) -> None:
    assert in_first_task(method) == expected


def test_a_method_that_only_starts_tasks_is_told_of_the_first_with_a_state() -> None:
    told: list[Any] = []
    method = Method(lambda params, lam: lam, start_task=lambda state, params: told.append(state) or state)
    run(setting(share_first_task=True), method, [Replica(1, 7.0, None)])
    assert [float(state) for state in told] == [7.0] * 3
