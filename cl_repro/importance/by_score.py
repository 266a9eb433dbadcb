r"""The right n examples: chosen with inclusion probabilities by what a forward pass says of each.

    F_i = (1/N) sum_{n in S} (1/pi_n) E_y (d log p(y|x_n) / d theta_i)^2
    s_n = tr(diag p - p p^T) = sum_y p_y (1 - p_y),   t_n = (1 - a) s_n / sum s + a / N,   pi_n = min(1, c t_n)

S is a sample of n of the N examples that has x_n with probability pi_n, c such that sum pi = n, a = `uniform_share`.
The weights 1 / (N pi_n) are Horvitz and Thompson's (1952): unbiased. On a confident network few examples carry almost
all of the Fisher; those have pi = 1 and are taken with certainty, where n examples drawn alike miss them. On a network
that is unsure of many, all s_n are much alike, and little is gained over n examples drawn alike. The share a
is mixed in before the minimum, for parameters that only easy examples move: it bounds the weights by N / (a n).

The sample is systematic, in the random order of a pass (Hartley and Rao 1962): x_n is taken if one of u, u + 1, ...,
u + n - 1 lies in its stretch of the line on which all pi stand side by side, u uniform in [0, 1). s_n is the sum of the
squared gradients by the logits, sum_y p_y |p - onehot(y)|^2; Katharopoulos and Fleuret (2018) choose the examples of
training by such a bound of a gradient's size, drawn with replacement.

Cost: a forward pass of all N examples, and the labels' backward passes of n. Scale: as `fisher`, the MEAN over all N
examples, no prefactor.
"""

from functools import partial

import torch
from torch import Tensor

from cl_repro.common.errors import UserError
from cl_repro.importance import columns
from cl_repro.importance.fisher import check_n
from cl_repro.importance.importance_sample import check_draws
from cl_repro.importance.squares import sum_over_examples
from cl_repro.types import Choice, Estimator, Net, Tree


def by_score(n: int | None = None, uniform_share: float = 0.1, draws: int | None = None) -> Estimator:
    """The exact Fisher, or that of importance-sampled labels, of examples chosen by score.

    Args:
        n: examples used; None: all.
        uniform_share: a, in [0, 1].
        draws: labels drawn for each example, as in `importance_sample`; None: all, weighted by their probability.

    Returns:
        The estimator.

    Raises:
        UserError: if an argument is outside these rules.
    """
    check_n(n)
    if not 0 <= uniform_share <= 1:
        raise UserError(f"fisher.uniform_share={uniform_share}: must be in [0, 1]")
    if draws is not None:
        check_draws(draws)

    def score(net: Net, params: Tree, buffers: Tree, x: Tensor, y: Tensor, noise: Tensor, active: Tensor) -> Tensor:
        return columns.variance(net.apply(params, buffers, x)[0][:, active])

    def total(
        net: Net,
        params: Tree,
        buffers: Tree,
        x: Tensor,
        y: Tensor,
        noise: Tensor,
        active: Tensor,
        weight: Tensor | None = None,
    ) -> Tree:
        def weighted(z: Tensor) -> Tensor:
            s = columns.exact(z) if draws is None else columns.importance_sample(z, noise, draws)
            return s if weight is None else weight.sqrt().to(z.dtype)[:, None, None] * s

        return sum_over_examples(net, params, buffers, x, active, weighted)

    choice = Choice(score, partial(pick, n=n, uniform_share=uniform_share))
    return Estimator(total, rows=lambda total: n or total, divisor=float, choice=choice)


def pick(scores: Tensor, u: Tensor, n: int | None, uniform_share: float) -> tuple[Tensor, Tensor]:
    """As `Choice.pick`; n: None is all."""
    used = n or len(scores)
    return systematic(inclusion_probabilities(scores, used, uniform_share), used, u)


def inclusion_probabilities(s: Tensor, n: int, uniform_share: float) -> Tensor:
    """The probabilities pi = min(1, c t) with sum pi = n, t = (1 - a) s / sum s + a / N.

    Args:
        s: [N] float64, at least 0.
        n: at most N.
        uniform_share: a.

    Returns:
        [N] float64. Where fewer than n of t are above 0, 1 for those and 0 for the others.
    """
    share = s / s.sum().clamp(min=torch.finfo(s.dtype).tiny)
    t = (1 - uniform_share) * share + uniform_share / len(s)
    largest = t.sort(descending=True).values
    rest = largest.flip(0).cumsum(0).flip(0)  # sum of this one and all smaller ones
    left = n - torch.arange(n, device=s.device)  # examples left, when the k largest are taken with certainty
    k = (left * largest[:n] <= rest[:n]).int().argmax(0, keepdim=True)  # the first that need not be
    c = left[k] / rest.gather(0, k)
    return torch.where(t > 0, (c * t).clamp(max=1.0), 0.0)


def systematic(pi: Tensor, n: int, u: Tensor) -> tuple[Tensor, Tensor]:
    """A systematic sample.

    Args:
        pi: [N] float64 inclusion probabilities, of sum n; less, if there are not so many.
        n: its size.
        u: [] float64, uniform in [0, 1).

    Returns:
        Positions [n] int64, and weights 1 / pi [n] float64; weight 0 of positions beyond the sum.
    """
    at = torch.searchsorted(pi.cumsum(0), u + torch.arange(n, device=pi.device), right=True)
    inside = at < len(pi)
    at = at.clamp(max=len(pi) - 1)
    return at, torch.where(inside, 1 / pi[at], 0.0)
