r"""Elastic Weight Consolidation, online: one importance, one anchor (Huszar 2018; Schwarz et al. 2018, section 3.2).

    loss = cross-entropy + (lam/2) sum_i gamma Omega_i (theta_i - theta*_i)^2
    after a task:  Omega <- F + gamma Omega,   theta* <- theta

The penalty's gradient is lam gamma Omega (theta - theta*), `quadratic.gradient` with the weight lam gamma Omega.
Prefactor: lam/2, as in Kirkpatrick et al. (2017), equation 3, and the reference study (which has gamma = 1).
"""

from cl_repro.common import tree
from cl_repro.common.errors import UserError
from cl_repro.methods.quadratic import Pull, gradient, no_pull
from cl_repro.types import Method, Tree


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

    def end_task(pull: Pull, params: Tree, importance: Tree) -> Pull:
        total = {name: f + gamma * pull.importance[name] for name, f in importance.items()}
        weight = {name: pull.lam * (gamma * omega) for name, omega in total.items()}
        return Pull(pull.lam, tree.copied(params), total, weight)

    return Method(no_pull, gradient, end_task)
