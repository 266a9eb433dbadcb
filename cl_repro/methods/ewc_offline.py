r"""Elastic Weight Consolidation, offline: one anchor per task (Kirkpatrick et al. 2017), in memory of fixed size.

    loss = cross-entropy + (lam/2) sum_t sum_i F_ti (theta_i - theta*_ti)^2

The gradient of the sum over tasks is lam A (theta - c) with A = sum_t F_t and c = sum_t F_t theta*_t / A, so two trees
serve any number of tasks. A theta - B with B = A c would cancel in float32 (relative error up to 1); instead c is kept
as a sum of two float32 numbers, c_hi + c_lo, and the gradient is lam A ((theta - c_hi) - c_lo): 2e-7.
Prefactor: lam/2.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from cl_repro.common import tree
from cl_repro.types import Method, Tree


class State(NamedTuple):
    """State of offline EWC."""

    lam: Tensor  # []
    c_hi: Tree  # centre, leading part
    c_lo: Tree  # centre, the rest
    importance: Tree  # A
    weight: Tree  # lam A


def ewc_offline() -> Method:
    """Offline EWC. Memory: four trees, whatever the number of tasks."""

    def init(params: Tree, lam: Tensor) -> State:
        zeros = tree.zeros_like(params)
        return State(lam, zeros, zeros, zeros, zeros)

    def penalty_grad(state: State, params: Tree) -> Tree:
        return tree.pulled(params, state.weight, state.c_hi, state.c_lo)

    def end_task(state: State, params: Tree, importance: Tree) -> State:
        c_hi, c_lo, total, weight = {}, {}, {}, {}
        for name, p in params.items():
            a, f, theta = state.importance[name].double(), importance[name].double(), p.double()
            c = state.c_hi[name].double() + state.c_lo[name].double()
            # c + F (theta - c) / (A + F); where nothing is important yet, the centre has no effect: take theta.
            # lerp is exact at both ends: a centre one rounding off theta is a gradient, and Adam's first step after a
            # reset makes lr of however small a gradient.
            c = torch.lerp(c, theta, (f / (a + f)).nan_to_num(1.0))
            c_hi[name] = c.to(p.dtype)
            c_lo[name] = (c - c_hi[name].double()).to(p.dtype)
            total[name] = (a + f).to(p.dtype)
            weight[name] = state.lam * total[name]
        return State(state.lam, c_hi, c_lo, total, weight)

    return Method(init, penalty_grad, end_task)
