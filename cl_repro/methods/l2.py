r"""Importances that need no data: of every weight the same, or its magnitude (Benzing 2022, appendix K).

    l2         Omega = 1 after every task (`constant`), or Omega = k after k tasks (`linear`)
    magnitude  Omega <- Omega + |theta|^power, at the end of each task

The penalty is that of `quadratic`: lam sum_i Omega_i (theta_i - theta*_i)^2.
"""

import torch

from cl_repro.common.errors import UserError
from cl_repro.common.rules import POSITIVE, require
from cl_repro.methods.quadratic import Pull, gradient, no_pull, tightened
from cl_repro.types import Method, Tree


def l2(growth: str = "constant") -> Method:
    """Equal importance.

    Args:
        growth: `constant` or `linear` in the number of tasks learned.

    Returns:
        The method.

    Raises:
        UserError: if growth is neither.
    """
    if growth not in ("constant", "linear"):
        raise UserError(f"method.growth={growth}: must be constant or linear")

    def end_task(pull: Pull, params: Tree, importance: Tree) -> Pull:
        one = {name: torch.ones_like(p) for name, p in params.items()}
        missing = one if growth == "linear" else {name: v - pull.importance[name] for name, v in one.items()}
        return tightened(pull, params, missing)

    return Method(no_pull, gradient, end_task)


def magnitude(power: float = 1.0) -> Method:
    """Large weights are important.

    Args:
        power: of the magnitude, finite and above 0; the paper does not say which (1 or 2).

    Returns:
        The method.

    Raises:
        UserError: if power is not.
    """
    require("method.power", power, POSITIVE)

    def end_task(pull: Pull, params: Tree, importance: Tree) -> Pull:
        return tightened(pull, params, {name: p.abs().pow(power) for name, p in params.items()})

    return Method(no_pull, gradient, end_task)
