r"""What is backpropagated from the logits: arrays [N, J, C] of J columns per example.

The diagonal Fisher of an example is sum_j (J^T s_j)^2 with J = dz/dtheta and columns s_j:

    exact       S S^T = diag(p) - p p^T      the expectation over y ~ p(y|x) (van de Ven 2025, "EXACT")
    sample      s = p - onehot(y~), y~ ~ p   one draw of it
    empirical   s = p - onehot(y)            the label
    predicted   s = p - onehot(argmax p)
    importance_sample    s = sqrt(p_y~ / q_y~) (p - onehot(y~)), y~ ~ q, q_y ~ p_y |p - onehot(y)|^2

z [N, C] are the active logits and p = softmax(z). These columns are the gradient of -log p(y|x) by z.

The sensitivities sum |J^T s_j| instead (Benzing 2022, section 4 and appendix H). Their columns are the gradient by z of

    af          p_c, one column a class: p_c |d log p_c| = |d p_c|
    mas         sum_c p_c^2
    masx        (max_c p_c)^2
    mas_logits  sum_c z_c^2
    masx_logits (max_c z_c)^2
"""

from collections.abc import Iterator

import torch
from torch import Tensor


def exact(z: Tensor) -> Tensor:
    """C - 1 columns S [N, C-1, C] with S^T S = diag(p) - p p^T for each example.

    The Cholesky factor of Tanabe and Sagae (1992), by tail sums q_j = sum_{i >= j} p_i:

        s_j = sqrt(p_j q_{j+1} / q_j),   S[j, j] = s_j,   S[j, i] = -s_j p_i / q_{j+1} for i > j

    in log space, because a confident network has p far below what 1 - p can resolve: the product form is NaN in
    float32. C = 2 gives the single column sqrt(p_0 p_1) (1, -1).
    """
    return some_exact(*logs(z), 0, z.shape[1] - 1)


def exact_blocks(z: Tensor, size: int) -> Iterator[Tensor]:
    """The columns of `exact`, `size` at a time: C x C numbers are never held."""
    log_p, log_q = logs(z)
    for first in range(0, z.shape[1] - 1, size):
        yield some_exact(log_p, log_q, first, min(first + size, z.shape[1] - 1))


def logs(z: Tensor) -> tuple[Tensor, Tensor]:
    """Log p and log q, the tail sums, [N, C]."""
    lp = z.log_softmax(1)
    return lp, lp.flip(1).logcumsumexp(1).flip(1)


def some_exact(lp: Tensor, lq: Tensor, first: int, last: int) -> Tensor:
    """Columns `first` to `last` - 1 of `exact`, [N, J, C]."""
    next_lq = lq[:, first + 1 : last + 1]
    s = ((lp[:, first:last] + next_lq - lq[:, first:last]) / 2).exp()  # [N, J]
    ratio = (lp[:, None, :] - next_lq[:, :, None]).exp()  # [N, J, C], p_i / q_{j+1}: at most 1 for i > j
    from_own = torch.ones(last - first, lp.shape[1], dtype=torch.bool, device=lp.device).triu(first)
    after, own = from_own.triu(first + 1), from_own.tril(first)
    return s[:, :, None] * (own.to(lp.dtype) - torch.where(after, ratio, 0.0))


def towards(z: Tensor, y: Tensor) -> Tensor:
    """One column p - onehot(y), [N, 1, C].

    The entry of y is written -sum_{c != y} p_c: p_y - 1 loses it in float32 when the network is confident.
    """
    others = z.softmax(1).scatter(1, y[:, None], 0.0)
    return others.scatter(1, y[:, None], -others.sum(1, keepdim=True))[:, None, :]


def draw(z: Tensor, noise: Tensor) -> Tensor:
    """y~ [N] ~ softmax(z) by inverse CDF; noise [N] float64 in [0, 1).

    In float64: float32 noise would draw labels of probability 1e-11 with probability 6e-8.

    DEVIATES from the reference code, whose probabilities are rounded to float32 before a label is drawn.
    """
    cdf = z.double().softmax(1).cumsum(1)
    return (noise[:, None] >= cdf[:, :-1]).sum(1)


def importance_sample(z: Tensor, noise: Tensor, draws: int = 1) -> Tensor:
    """Columns sqrt(p_y / q_y / draws) (p - onehot(y)) of labels y ~ q by inverse CDF, [N, draws, C].

    With g_y = p - onehot(y), q_y = p_y |g_y|^2 / v and v = sum_c p_c |g_c|^2 = `variance(z)` the weight is
    p_y / q_y = v / |g_y|^2: every column is sqrt(v / draws) times a unit vector, and with C = 2, where g_0 and g_1 are
    parallel, the column of `exact`, whatever the draw. With m the most probable label and r = sum_{c != m} p_c

        |g_m|^2 = r^2 + sum_{c != m} p_c^2,   |g_y|^2 = 1 - 2 p_y + sum_c p_c^2 for y != m, where p_y is at most 1/2

    so that nothing is left of a subtraction of equals: 1 - p_m has lost what a confident network has. C x C numbers
    are never held. The draws are systematic, of (noise + j) / draws, j = 0 ... draws - 1.

    Args:
        z: [N, C].
        noise: [N] float64 uniform in [0, 1), for the reason that `draw` gives.
        draws: labels of each example.

    Returns:
        [N, draws, C] in the dtype of z; 0 where r underflows.
    """
    p = z.softmax(1)
    top, m = p.max(1, keepdim=True)
    rest = p.scatter(1, m, 0.0)
    r = rest.sum(1, keepdim=True, dtype=torch.float64)
    squares = torch.linalg.vector_norm(rest, dim=1, keepdim=True, dtype=torch.float64).square()  # sum_{c != m} p_c^2
    of_top = r.square() + squares  # |g_m|^2
    of_others = (1 + top.double().square() + squares).to(z.dtype) - 2 * p  # |g_y|^2
    cdf = (p * of_others).scatter(1, m, (top * of_top).to(z.dtype)).cumsum(1, dtype=torch.float64)  # v times that of q
    v = cdf[:, -1:]
    u = (noise[:, None] + torch.arange(draws, device=z.device)) / draws
    y = torch.searchsorted(cdf, v * u, right=True).clamp(max=z.shape[1] - 1)  # [N, draws]
    size = torch.where(y == m, of_top, of_others.gather(1, y).double())
    scale = (v / (draws * size.clamp(min=1e-300))).sqrt()
    own = scale * torch.where(y == m, r, 1 - p.gather(1, y).double())
    return (scale[:, :, None].to(z.dtype) * p[:, None, :]).scatter(2, y[:, :, None], -own[:, :, None].to(z.dtype))


def variance(z: Tensor) -> Tensor:
    """tr(diag(p) - p p^T) = sum_c p_c (1 - p_c), [N] float64: what the columns of `exact` amount to.

    Of the most probable label 1 - p is the sum of the others, which a subtraction would lose.
    """
    p = z.double().softmax(1)
    top, m = p.max(1, keepdim=True)
    rest = p.scatter(1, m, 0.0)
    return (rest * (1 - rest)).sum(1) + top[:, 0] * rest.sum(1)


def af(z: Tensor) -> Tensor:
    """C columns dp_c/dz, [N, C, C]: the rows of diag(p) - p p^T.

    Its diagonal is written p_c sum_{i != c} p_i: p_c (1 - p_c) loses it in float32 when the network is confident.
    """
    p = z.softmax(1)
    own = torch.eye(z.shape[1], dtype=torch.bool, device=z.device)
    products = (p[:, :, None] * p[:, None, :]).masked_fill(own, 0.0)
    return torch.diag_embed(products.sum(2)) - products


def mas(z: Tensor) -> Tensor:
    """One column sum_c 2 p_c dp_c/dz, [N, 1, C]: 2 p_i (p_i - sum_c p_c^2) without cancelling."""
    return 2 * z.softmax(1)[:, None, :] @ af(z)


def masx(z: Tensor) -> Tensor:
    """One column 2 p_m dp_m/dz = -2 p_m^2 (p - onehot(m)) with m = argmax p, [N, 1, C]."""
    return -2 * z.softmax(1).amax(1).square()[:, None, None] * towards(z, z.argmax(1))


def mas_logits(z: Tensor) -> Tensor:
    """One column 2 z, [N, 1, C]."""
    return 2 * z[:, None, :]


def masx_logits(z: Tensor) -> Tensor:
    """One column 2 z_m onehot(m) with m = argmax z, [N, 1, C]."""
    largest, m = z.max(1, keepdim=True)
    return torch.zeros_like(z).scatter(1, m, 2 * largest)[:, None, :]
