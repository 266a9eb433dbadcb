r"""Look-ahead meta-learning: each step asks what steps on its own examples do to earlier tasks (Gupta et al. 2020).

    theta_0 = theta,   theta_j = theta_(j-1) - a g_j,   g_j = grad CE(slice j; theta_(j-1))       j = 1, ..., J
    G = (1/J) sum_j grad CE(batch and recalled; theta_j)
    a <- a + rate_step (1/J) sum_j grad CE(batch and recalled; theta_j) (g_1 + ... + g_j)
    theta <- theta - max(0, a) G

a [*shape] is a learning rate for every parameter, lambda in the beginning; products are elementwise (algorithm 1). The
first-order form: a derivative by theta or by a does not go through the gradients g. `descend` gives max(0, a) G to the
optimiser, which has to be optim=sgd with optim.lr=1: others are refused.
A step costs J gradients of both mini-batches and one more of the task's: (J + 1/2) times a step of replay.

This is the authors' variant for CIFAR (montrealrobotics/La-MAML, model/lamaml_cifar.py). Theirs for MNIST
(model/lamaml.py) takes one example an inner step (here: slices as many as the mini-batch has examples), and max(0, a)
in the inner steps, too.

DEVIATES from both of the authors' variants in that no gradient is clipped, and that nothing is recalled in the first
task, where theirs draw from what the memory holds so far.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import grad, grad_and_value

from cl_repro.common.errors import UserError
from cl_repro.common.losses import cross_entropy
from cl_repro.common.rules import NOT_NEGATIVE, require
from cl_repro.memory import Memory
from cl_repro.types import Method, Needs, Step, Tree


class State(NamedTuple):
    """State of look-ahead meta-learning."""

    lam: Tensor  # []
    rates: Tree  # a


def la_maml(memory: Memory, slices: int = 5, rate_step: float = 0.1) -> Method:
    """Look-ahead meta-learning, first-order.

    Args:
        memory: which examples are kept.
        slices: J, parts of a mini-batch, one for each inner step.
        rate_step: of the learning rates; 0: they stay as they are (the paper's C-MAML).

    Returns:
        The method. Memory: M examples and a number for every parameter.

    Raises:
        UserError: a number out of range.
    """
    if slices < 1:
        raise UserError(f"method.slices={slices}: must be at least 1")
    require("method.rate_step", rate_step, NOT_NEGATIVE)

    def init(params: Tree, lam: Tensor) -> State:
        return State(lam, {name: torch.zeros_like(p) + lam for name, p in params.items()})

    def loss(state: State, step: Step) -> Tensor:
        batch, recalled = step.batch, step.recalled
        new = cross_entropy(batch.z, batch.label, batch.active)
        return new if recalled is None else (new + cross_entropy(recalled.z, recalled.label, recalled.active)) / 2

    def descend(
        objective: Callable[..., Any],
        state: State,
        params: Tree,
        buffers: Tree,
        batch: dict[str, Tensor],
        recalled: dict[str, Tensor],
    ) -> tuple[State, Tree, Any]:
        # what no importance touches learns by lambda
        rates = {name: state.rates.get(name, state.lam) for name in params}
        theta = params
        path: Tree = {}
        total: Tree = {}
        of_rates: Tree = {}
        for j in range(slices):
            part = {name: value.tensor_split(slices)[j] for name, value in batch.items()}
            g, _ = grad(objective, has_aux=True)(theta, buffers, state, part, {})
            theta = {name: torch.addcmul(p, rates[name], g[name], value=-1) for name, p in theta.items()}
            path = {name: path[name] + g[name] if j else g[name] for name in params}
            meta, found = grad_and_value(objective, has_aux=True)(theta, buffers, state, batch, recalled)
            for name, own in meta.items():
                total[name] = total[name].add_(own) if j else own.clone()
                of_rates[name] = torch.addcmul(of_rates[name], own, path[name]) if j else own * path[name]
        learned = {name: a + (rate_step / slices) * of_rates[name] for name, a in state.rates.items()}
        gradient = {name: a.clamp(min=0) * total[name] / slices for name, a in (rates | learned).items()}
        return state._replace(rates=learned), gradient, found

    return Method(init, loss=loss, descend=descend, needs=Needs(memory=memory, from_start=True, own_rates=True))
