r"""Elastic Weight Consolidation, online: one importance, one anchor (Huszar 2018; Schwarz et al. 2018, section 3.2).

    loss = cross-entropy + (lam/2) sum_i gamma Omega_i (theta_i - theta*_i)^2
    after a task:  Omega <- F + gamma Omega,   theta* <- theta

Prefactor: lam/2, as in Kirkpatrick et al. (2017), equation 3, and the reference study (which has gamma = 1).
"""

from typing import NamedTuple

from torch import Tensor

from cl_repro.common import tree
from cl_repro.common.errors import UserError
from cl_repro.types import Method, Tree


class State(NamedTuple):
    """State of online EWC."""

    lam: Tensor  # []
    anchor: Tree  # theta*
    importance: Tree  # Omega
    weight: Tree  # lam gamma Omega, precomputed: it changes once a task


def ewc(gamma: float = 1.0) -> Method:
    """Online EWC.

    Args:
        gamma: decay of the importance of older tasks, in [0, 1].

    Returns:
        The method. Memory: three trees, whatever the number of tasks.

    Raises:
        UserError: if gamma is outside its range.
    """
    if not 0 <= gamma <= 1:
        raise UserError(f"method.gamma={gamma}: must be from 0 to 1")

    def init(params: Tree, lam: Tensor) -> State:
        zeros = tree.zeros_like(params)
        return State(lam, zeros, zeros, zeros)

    def penalty_grad(state: State, params: Tree) -> Tree:
        # (lam gamma Omega) (theta - theta*), as separate operations: bit for bit what autograd gives for the loss.
        return tree.pulled(params, state.weight, state.anchor)

    def end_task(state: State, params: Tree, importance: Tree) -> State:
        total = {name: f + gamma * state.importance[name] for name, f in importance.items()}
        weight = {name: state.lam * (gamma * omega) for name, omega in total.items()}
        return State(state.lam, tree.copied(params), total, weight)

    return Method(init, penalty_grad, end_task)
