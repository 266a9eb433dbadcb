r"""The quadratic penalty of Benzing (2022), section 2, and the method that gets its importance from an estimator.

    loss = cross-entropy + lam sum_i Omega_i (theta_i - theta*_i)^2
    after a task:  Omega <- Omega + omega,   theta* <- theta

omega is the importance of the task just learned. Prefactor: lam, no 1/2, so lam = 1 here is lam = 2 of `ewc`.
SI, SOS and their kin observe omega during training; here it is what an estimator measures after it (MAS, AF, Fisher).
"""

from typing import NamedTuple

from torch import Tensor

from cl_repro.common import tree
from cl_repro.common.errors import UserError
from cl_repro.types import Method, Needs, Tree


class Pull(NamedTuple):
    """State of a penalty with one anchor: of this one, and of `ewc`."""

    lam: Tensor  # []
    anchor: Tree  # theta*
    importance: Tree  # Omega
    weight: Tree  # its second derivative, here 2 lam Omega, precomputed: it changes once a task


def no_pull(params: Tree, lam: Tensor) -> Pull:
    """The penalty before the first task has ended: none."""
    zeros = tree.zeros_like(params)
    return Pull(lam, zeros, zeros, zeros)


def gradient(pull: Pull, params: Tree) -> Tree:
    """2 lam Omega (theta - theta*), as separate operations: bit for bit what autograd gives for the loss."""
    return tree.pulled(params, pull.weight, pull.anchor)


def tightened(pull: Pull, params: Tree, omega: Tree) -> Pull:
    """The penalty after one more task, that ended at these weights."""
    total = {name: old + omega[name] for name, old in pull.importance.items()}
    weight = {name: pull.lam * (2 * value) for name, value in total.items()}
    return Pull(pull.lam, tree.copied(params), total, weight)


def quadratic(rebuild_every: int = 0) -> Method:
    """The penalty with omega from the estimator of the configuration.

    Args:
        rebuild_every: steps after which theta* and Omega are made anew, of examples of all earlier tasks at the weights
            of that moment (moskomule/ewc.pytorch does so every epoch); 0: never, theta* is where a task ended.

    Returns:
        The method. Memory: three trees, and all earlier examples if it rebuilds.

    Raises:
        UserError: if rebuild_every is negative.
    """
    if rebuild_every < 0:
        raise UserError(f"method.rebuild_every={rebuild_every}: must be at least 0, in steps")
    return Method(no_pull, gradient, tightened, needs=Needs(rebuild_every=rebuild_every))
