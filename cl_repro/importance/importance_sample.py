r"""The exact Fisher for the price of one label: importance sampling of the labels.

    F_i = (1/N) sum_n E_{y ~ q_n} (p(y|x_n) / q_n(y)) (d log p(y|x_n) / d theta_i)^2,
    q_n(y) = p(y|x_n) |p - onehot(y)|^2 / v_n,   p / q = v_n / |p - onehot(y)|^2,   v_n = sum_y p_y |p - onehot(y)|^2

`exact` is the sum over y of p_y (J^T g_y)^2 with g_y = p - onehot(y), the gradient by the logits. `sample` draws y ~ p:
a confident network never draws the improbable labels, whose terms are the largest. q draws y by the size of its term,
as far as the logits tell (the importance sampling of least variance is by the size itself; Kahn and Marshall 1953, and
of the examples of training Alain et al. 2015). Unbiased, whatever the network. With two classes g_0 and g_1 are
parallel: one draw IS `exact`. With more, the gain over `sample` is that of a confident network: where many labels are
probable, p and q are much alike. Scale: as `fisher`, the MEAN over examples, no prefactor.

`draws` labels of an example are a systematic sample, of (u + j) / draws. Another cure by one backward pass is a random
sum of all labels' gradients, sum_y +-sqrt(p_y) d log p_y (Hutchinson's trace estimator; Sun 2026, ICLR).
"""

from cl_repro.common.errors import UserError
from cl_repro.importance import columns, fisher
from cl_repro.types import Estimator


def importance_sample(n: int | None = None, draws: int = 1) -> Estimator:
    """Labels drawn by the size of their term, weighed by p / q: `draws` backward passes.

    Args:
        n: examples used, drawn without replacement; None: all.
        draws: labels drawn for each example.

    Returns:
        The estimator.

    Raises:
        UserError: if n or draws is not at least 1.
    """
    check_draws(draws)
    return fisher.of_columns(lambda z, y, noise: columns.importance_sample(z, noise, draws), n, "exact")


def check_draws(draws: int) -> None:
    """Refuse less than one."""
    if draws < 1:
        raise UserError(f"fisher.draws={draws}: must be at least 1")
