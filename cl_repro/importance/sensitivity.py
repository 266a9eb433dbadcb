r"""Sensitivities: absolute instead of squared per-example gradients (Benzing 2022, section 4; appendix H: of logits).

                  omega_i, with q = softmax(z) over the active logits               backward passes
    af            (1/N) sum_n sum_y q_y |d (-log q_y) / d theta_i|                  C
    mas           (1/N) sum_n |d (sum_y q_y^2) / d theta_i|                         1
    masx          (1/N) sum_n |d (max_y q_y)^2 / d theta_i|                         1
    mas_logits    (1/N) sum_n |d (sum_y z_y^2) / d theta_i|                         1
    masx_logits   (1/N) sum_n |d (max_y z_y)^2 / d theta_i|                         1
    sqrt_fisher   sqrt((1/N) sum_n sum_y q_y (d (-log q_y) / d theta_i)^2)          C - 1
    mas_batched   (1/M) sum_B |d (1/(|B| A)) sum_{n in B} sum_y z_y^2 / d theta_i|  1 of each of M mini-batches B

Memory-aware synapses as Aljundi et al. (2018) published them are `mas_logits`; `mas` is Benzing's, of q. Scale: the
MEAN over examples, no prefactor; with `quadratic` `lam` is Benzing's c. No labels are used. The square root is of the
mean of one task: `quadratic` sums the roots of tasks. `mas_batched` is MAS as Hsu et al. (2018) computed it: the
absolute value of a mini-batch's gradient, where signs of examples cancel, of the MEAN of squares over examples and
the A active logits; the last mini-batch may be smaller and counts like a full one.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from cl_repro.importance import columns, fisher
from cl_repro.importance.batched import of_batches
from cl_repro.types import Estimator


def af(n: int | None = None) -> Estimator:
    """The absolute Fisher: of all labels, weighted by their probability. See `of_absolutes` for the argument."""
    return of_absolutes(columns.af, n)


def mas(n: int | None = None) -> Estimator:
    """Memory-aware synapses of the probabilities."""
    return of_absolutes(columns.mas, n)


def masx(n: int | None = None) -> Estimator:
    """`mas` of the most probable class alone."""
    return of_absolutes(columns.masx, n)


def mas_logits(n: int | None = None) -> Estimator:
    """Memory-aware synapses of the logits."""
    return of_absolutes(columns.mas_logits, n)


def masx_logits(n: int | None = None) -> Estimator:
    """`mas_logits` of the largest logit alone."""
    return of_absolutes(columns.masx_logits, n)


def sqrt_fisher(n: int | None = None) -> Estimator:
    """The square root of the exact Fisher of n examples."""
    return fisher.exact(n)._replace(finish=torch.sqrt)


def mas_batched(batch_size: int) -> Estimator:
    """Memory-aware synapses of mini-batches.

    Args:
        batch_size: b, examples per mini-batch.

    Returns:
        The estimator. Cost: one ordinary gradient per mini-batch.

    Raises:
        UserError: if batch_size is not at least 1.
    """
    return of_batches(lambda z, y: z.square().mean(), torch.abs, batch_size)


def of_absolutes(of_logits: Callable[[Tensor], Tensor], n: int | None) -> Estimator:
    """The mean over examples of the absolute values of what these columns backpropagate.

    Args:
        of_logits: z [N, A] -> columns [N, J, A].
        n: examples used, drawn without replacement; None: all.

    Returns:
        The estimator.

    Raises:
        UserError: if n is not at least 1.
    """
    return fisher.of_columns(lambda z, y, noise: of_logits(z), n, "exact", torch.abs)
