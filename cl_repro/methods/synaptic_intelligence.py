r"""Synaptic Intelligence and its two halves (Zenke et al. 2017; Benzing 2022, sections 3.1 and 3.2, equations 5 and 6).

    S_i = sum_t -g_t,i Delta_t,i        Delta_t = theta(t+1) - theta(t), what the optimiser did with loss and penalty
    omega_i = max(0, S_i / ((theta_i(T) - theta_i(0))^2 + xi))        added to Omega of `quadratic`; `signed`: no max

    si    g_t  is the gradient of the step's own mini-batch: it is part of Delta_t, which biases S upwards
    siu   g'_t is that of an independent mini-batch: unbiased
    sib   g_t - g'_t: the bias alone, so S(si) = S(siu) + S(sib)

Gradients are of the task's cross-entropy, without dropout and without the penalty; theta(0) is the weights at which the
task starts, after a re-initialisation. Sign: a positive S is a decrease of the loss (equation 5 lacks the minus).

DEVIATES from the code of Zenke et al. (ganguli-lab/pathint), which takes the maximum of the accumulated Omega with 0,
not of each task's part, and whose gradients are those of training, with dropout; here both are as in Benzing's.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from cl_repro.common import tree
from cl_repro.common.rules import POSITIVE, require
from cl_repro.methods.quadratic import Pull, gradient, no_pull, tightened
from cl_repro.types import Method, Needs, Tree


class State(NamedTuple):
    """State of the path integral."""

    pull: Pull
    start: Tree  # theta(0)
    path: Tree  # S


def si(xi: float, signed: bool | None = None) -> Method:
    """S = sum_t -g_t Delta_t. See `path_integral` for the arguments."""
    return path_integral(lambda g: g["batch"], ("batch",), xi, signed)


def siu(xi: float, signed: bool | None = None) -> Method:
    """S = sum_t -g'_t Delta_t: one more gradient a step."""
    return path_integral(lambda g: g["independent"], ("independent",), xi, signed)


def sib(xi: float, signed: bool | None = None) -> Method:
    """S = sum_t (g'_t - g_t) Delta_t: one more gradient a step."""

    def along(g: dict[str, Tree]) -> Tree:
        return tree.subtract(g["batch"], g["independent"])

    return path_integral(along, ("batch", "independent"), xi, signed)


def path_integral(
    along: Callable[[dict[str, Tree]], Tree], gradients: tuple[str, ...], xi: float, signed: bool | None
) -> Method:
    """The method whose importance is the loss that a gradient attributes to each weight's path.

    Args:
        along: from the gradients observed to the one that is integrated.
        gradients: to observe.
        xi: damping of the denominator, finite and above 0; 0.1 on Permuted MNIST, 0.001 on CIFAR in the paper.
        signed: whether a negative omega stays negative (Hsu et al. 2018); None: no, as above.

    Returns:
        The method. Memory: five trees.

    Raises:
        UserError: if xi is not.
    """
    require("method.xi", xi, POSITIVE)

    def init(params: Tree, lam: Tensor) -> State:
        return State(no_pull(params, lam), tree.zeros_like(params), tree.zeros_like(params))

    def start_task(state: State, params: Tree) -> State:
        return State(state.pull, tree.copied(params), tree.zeros_like(params))

    def observe(state: State, gradients: dict[str, Tree], change: Tree) -> State:
        return state._replace(path=tree.add_products(state.path, along(gradients), change, -1))

    def end_task(state: State, params: Tree, importance: Tree) -> State:
        return state._replace(pull=tightened(state.pull, params, omega(state, params, xi, bool(signed))))

    return Method(
        init, lambda state, params: gradient(state.pull, params), end_task,
        start_task=start_task, observe=observe, needs=Needs(gradients=gradients),
    )  # fmt: skip


def omega(state: State, params: Tree, xi: float, signed: bool = False) -> Tree:
    """max(0, S / ((theta(T) - theta(0))^2 + xi)); equation 6, clipped task by task (appendix F.6) unless `signed`."""
    whole = {name: s / ((params[name] - state.start[name]).square() + xi) for name, s in state.path.items()}
    return whole if signed else {name: value.clamp(min=0) for name, value in whole.items()}
