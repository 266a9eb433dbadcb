r"""The batched estimator: the square of a mini-batch's gradient, not the mini-batch's squares.

    F_i = (1/M) sum_B ((1/|B|) sum_{n in B} d log p(y_n|x_n) / d theta_i)^2      M batches, `reduction: mean`

This is what many code bases compute, because one backward pass of a batch is cheap; it is not the Fisher. With
gradients that are uncorrelated and of mean zero it is about empirical / b, so lambda must be about b times larger.
`reduction: sum` leaves out the 1/|B|: the equation in the blog post (van de Ven, ICLR blog post 2025), a factor b^2
above its code, which is `mean`. The last batch may be smaller; it counts like a full one, as in the reference.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from cl_repro.common.errors import UserError
from cl_repro.importance.fisher import check_normalisation, one_less
from cl_repro.models.layers import Elementwise
from cl_repro.types import Estimator, Net, Tree


def batched(batch_size: int, reduction: str = "mean", normalisation: str = "exact") -> Estimator:
    """Squared gradients of mini-batches with the data's labels.

    Args:
        batch_size: b, examples per mini-batch.
        reduction: `mean` or `sum` over the examples of a batch, before squaring.
        normalisation: `exact` divides by the number of batches M, `reference` by M - 1, as the reference code.

    Returns:
        The estimator. Cost: one ordinary gradient per mini-batch.

    Raises:
        UserError: if an argument is outside these rules.
    """
    if reduction not in ("mean", "sum"):
        raise UserError(f"fisher.reduction={reduction}: must be mean or sum")
    check_normalisation(normalisation)

    def divisor(n: int) -> float:
        m = -(-n // batch_size)
        return float(m) if normalisation == "exact" else one_less(m)

    made = of_batches(lambda z, y: functional.cross_entropy(z, y, reduction=reduction), torch.square, batch_size)
    return made._replace(divisor=divisor)


def of_batches(loss: Callable[[Tensor, Tensor], Tensor], f: Elementwise, batch_size: int) -> Estimator:
    """The mean over mini-batches of f of the gradient of each one's loss.

    Args:
        loss: (z [B, A], y [B]) -> [].
        f: `torch.square` or `torch.abs`.
        batch_size: b, examples per mini-batch.

    Returns:
        The estimator.

    Raises:
        UserError: if batch_size is not at least 1.
    """
    if batch_size < 1:
        raise UserError(f"fisher.batch_size={batch_size}: must be at least 1")

    def total(net: Net, params: Tree, buffers: Tree, x: Tensor, y: Tensor, noise: Tensor, active: Tensor) -> Tree:
        of_params = torch.func.grad(lambda params: loss(net.apply(params, buffers, x)[0][:, active], y))
        return {name: f(g) for name, g in of_params(params).items()}

    return Estimator(total, lambda n: n, lambda n: float(-(-n // batch_size)), batch_size)
