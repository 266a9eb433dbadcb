"""Adam as TensorFlow writes it."""

from functools import partial

import cli
import pytest
import torch
from made_experiments import digits, made_experiment
from made_trees import copied, error, same, single
from torch import Tensor

from cl_repro.engine import Experiment, Stack, lifecycle
from cl_repro.engine.optim import AdamTF
from cl_repro.engine.stack import fork, start
from cl_repro.study import worker
from cl_repro.types import Method, Tree

LR, BETAS, EPS = 0.01, (0.9, 0.999), 1e-3
SHAPES = {"weight": (3, 4), "bias": (5,), "scale": ()}


def made_gradients(steps: int) -> list[Tree]:
    """Of sizes around EPS: there the place of eps matters."""
    generator = torch.Generator().manual_seed(1)

    def one(shape: tuple[int, ...]) -> Tensor:
        size = 10 ** torch.empty(shape, dtype=torch.float64).uniform_(-5, -1, generator=generator)
        return size * torch.randn(shape, generator=generator, dtype=torch.float64)

    return [{name: one(shape) for name, shape in SHAPES.items()} for _ in range(steps)]


def tensorflow(gradients: list[Tree]) -> Tree:
    """Theta <- theta - lr sqrt(1 - beta_2^t) / (1 - beta_1^t) m / (sqrt(v) + eps), from theta = 1."""
    result = {}
    for name, shape in SHAPES.items():
        theta, m, v = (torch.full(shape, start, dtype=torch.float64) for start in (1.0, 0.0, 0.0))
        for t, g in enumerate((of_all[name] for of_all in gradients), 1):
            m = BETAS[0] * m + (1 - BETAS[0]) * g
            v = BETAS[1] * v + (1 - BETAS[1]) * g**2
            theta = theta - LR * (1 - BETAS[1] ** t) ** 0.5 / (1 - BETAS[0] ** t) * m / (v**0.5 + EPS)
        result[name] = theta
    return result


def descended(optimiser: type[torch.optim.Adam], gradients: list[Tree], **given: bool) -> Tree:
    """What an optimiser does with them, from theta = 1."""
    params = {name: torch.ones(shape, dtype=torch.float64) for name, shape in SHAPES.items()}
    adam = optimiser(list(params.values()), lr=LR, betas=BETAS, eps=EPS, **given)
    for of_all in gradients:
        for name, p in params.items():
            p.grad = of_all[name].clone()
        adam.step()
    return params


@pytest.mark.parametrize("given", [{"fused": True}, {"foreach": True}, {"foreach": False}])
def test_steps_are_tensorflows_formula(given):
    """As far as `theta` moved, not as large as it is."""
    gradients = made_gradients(50)
    moved, expected, torchs = (
        {name: p - 1 for name, p in params.items()}
        for params in (
            descended(AdamTF, gradients, **given),
            tensorflow(gradients),
            descended(torch.optim.Adam, gradients),
        )
    )
    assert error(moved, expected) < 1e-10
    assert error(torchs, expected) > 0.1


def test_a_parameter_without_gradient_does_not_move():
    gradients = [{name: torch.zeros(shape, dtype=torch.float64) for name, shape in SHAPES.items()}] * 3
    assert all((p == 1).all() for p in descended(AdamTF, gradients, fused=True).values())


def made(reset: bool = False) -> Experiment:
    optimiser = partial(AdamTF, lr=1e-2, eps=EPS, fused=True)
    return made_experiment(digits(), optimiser=optimiser, reset_optimiser=reset)


def learned(experiment: Experiment, stack: Stack, tasks: range) -> Tree:
    for task in tasks:
        lifecycle.learn(experiment, stack, task, Method(), None)
    return stack.params


def test_a_stack_is_its_replicas():
    seeds = [3, 1, 2, 1]
    together = learned(made(), start(made(), seeds), range(2))
    for k, seed in enumerate(seeds):
        assert error(single(together, k), learned(made(), start(made(), [seed]), range(2))) < 1e-11


def test_a_fork_goes_on_where_the_first_task_ended_and_a_reset_begins_anew():
    """It must know the number of steps taken, with which eps shrinks."""
    experiment, stack = made(), start(made(), [1, 2])
    learned(experiment, stack, range(1))
    branch = fork(experiment, stack, torch.tensor([0, 1]))
    fresh = Stack([1, 2], copied(branch.params), {}, branch.optimiser)
    kept = learned(experiment, stack, range(1, 2))
    assert same(learned(experiment, branch, range(1, 2)), kept)
    assert {int(moments["step"]) for moments in branch.optimiser.state.values()} == {24}
    assert error(learned(made(reset=True), fresh, range(1, 2)), kept) > 1e-3
    assert {int(moments["step"]) for moments in fresh.optimiser.state.values()} == {12}


def test_the_configuration_is_a_new_adam_for_every_task_at_the_protocols_rate():
    (plain,) = cli.arms("optim=adam_tf")
    (given,) = cli.arms("optim=adam_tf", "+benchmark.protocol.lr=0.008")
    assert plain["optim"]["reset"] is True
    for node, lr in ((plain["optim"], 0.001), (given["optim"], 0.008)):
        optimiser = worker.make_optimiser(node, [torch.zeros(1)])
        assert isinstance(optimiser, AdamTF)
        assert optimiser.defaults["fused"]
        found = {key: optimiser.defaults[key] for key in ("lr", "betas", "eps")}
        assert found == {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-8}


def test_copies_of_a_network_that_has_taken_no_step_take_their_first():
    experiment = made_experiment(optimiser=partial(AdamTF, lr=LR))
    stack = fork(experiment, start(experiment, [1]), torch.zeros(2, dtype=torch.long))
    for p in stack.params.values():
        p.grad = torch.ones_like(p)
    stack.optimiser.step()
    assert {int(moments["step"]) for moments in stack.optimiser.state.values()} == {1}
