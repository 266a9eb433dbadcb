r"""Second-order synapses, SOS (Benzing 2022, section 3.3, table A.1 and appendix C).

    v <- beta2 v + (1 - beta2) (g_t - alpha g'_t)^2        v = 0 when a task starts, one update a step
    omega = sqrt(v_T)                                      added to Omega of `quadratic`

g_t is the gradient of the step's own mini-batch, g'_t that of an independent one; both of the task's cross-entropy,
without dropout and without the penalty. alpha = 0 at batch 256; alpha = 1, which leaves the noise alone, at 2048, where
the mean gradient would drown the Fisher. The paper's table divides v by 1 - beta2^T (`bias_correction`); its code, the
default here, does not: that weighs a first task with more steps up to 1.25 times as much.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cl_repro.common import tree
from cl_repro.common.errors import UserError
from cl_repro.methods.quadratic import Pull, gradient, no_pull, tightened
from cl_repro.types import Method, Needs, Tree


class State(NamedTuple):
    """State of SOS."""

    pull: Pull
    v: Tree  # second moment
    remaining: Tensor  # [] beta2^T: how much of v is still its start


def sos(alpha: float = 0.0, beta2: float = 0.999, bias_correction: bool = False) -> Method:
    """Second-order synapses.

    Args:
        alpha: how much of an independent batch's gradient is subtracted; 0 needs no such batch.
        beta2: decay of the second moment, at least 0 and below 1.
        bias_correction: divide v by 1 - beta2^T.

    Returns:
        The method. Memory: four trees.

    Raises:
        UserError: if alpha is not finite, or beta2 outside its range.
    """
    if not math.isfinite(alpha):
        raise UserError(f"method.alpha={alpha}: must be a finite number")
    if not 0 <= beta2 < 1:
        raise UserError(f"method.beta2={beta2}: must be at least 0 and below 1")

    def init(params: Tree, lam: Tensor) -> State:
        return State(no_pull(params, lam), tree.zeros_like(params), torch.ones_like(lam))

    def start_task(state: State, params: Tree) -> State:
        return State(state.pull, tree.zeros_like(params), torch.ones_like(state.remaining))

    def observe(state: State, gradients: dict[str, Tree], change: Tree) -> State:
        g = gradients["batch"]
        if alpha:
            g = tree.subtract(g, gradients["independent"], alpha)
        v = tree.add_products(state.v, g, g, 1 - beta2, beta2)
        return State(state.pull, v, state.remaining * beta2)

    def end_task(state: State, params: Tree, importance: Tree) -> State:
        return state._replace(pull=tightened(state.pull, params, omega(state, bias_correction)))

    return Method(
        init, lambda state, params: gradient(state.pull, params), end_task, start_task=start_task, observe=observe,
        needs=Needs(gradients=("batch", "independent") if alpha else ("batch",)),
    )  # fmt: skip


def omega(state: State, bias_correction: bool = False) -> Tree:
    """sqrt(v_T), or sqrt(v_T / (1 - beta2^T))."""
    scale = 1 - state.remaining if bias_correction else torch.ones_like(state.remaining)
    return {name: (v / scale).sqrt() for name, v in state.v.items()}
