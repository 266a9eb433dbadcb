"""The estimators as everyone else computes them: a loop, one backward pass at a time.

Slow and obvious. It is the oracle of the layer-wise formulas in the tests, and the arm `one_sample` of the timing
study. Same scale as `fisher`: the mean over examples of squared per-example gradients.
"""

import torch
from torch import Tensor

from cl_repro.common.rules import one_of, require
from cl_repro.importance import columns
from cl_repro.importance.batched import batched as batched_estimator
from cl_repro.importance.fisher import check_n, check_normalisation, counts
from cl_repro.types import Estimator, Net, Tree

LABELS = ("all", "sample", "true", "predicted")


def one_sample(labels: str, n: int | None = None, normalisation: str = "exact") -> Estimator:
    """One example at a time; `labels: all` takes one backward pass per class.

    Args:
        labels: `all` (exact), `sample`, `true` (empirical) or `predicted`.
        n: examples used; None: all.
        normalisation: `exact` or `reference` (see `fisher`).

    Returns:
        The estimator; it does not vectorise over replicas.

    Raises:
        UserError: if an argument is outside these rules.
    """
    require("fisher.labels", labels, one_of(LABELS))
    check_n(n)
    check_normalisation(normalisation)

    def weighted_labels(z: Tensor, y: Tensor, noise: Tensor) -> list[tuple[int, Tensor]]:
        """The labels of one example's gradients with their weights; z [1, A]."""
        one = z.new_ones(())
        if labels == "all":
            return list(enumerate(z.softmax(1)[0].unbind()))
        if labels == "sample":
            return [(int(columns.draw(z, noise)), one)]
        return [(int(y if labels == "true" else z.argmax(1)), one)]

    def total(net: Net, params: Tree, buffers: Tree, x: Tensor, y: Tensor, noise: Tensor, active: Tensor) -> Tree:
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        squares = {name: torch.zeros_like(p) for name, p in params.items()}
        for i in range(len(x)):
            z = net.apply(leaves, buffers, x[i : i + 1])[0][:, active]
            log_p = z.log_softmax(1)[0]
            pairs = weighted_labels(z.detach(), y[i : i + 1], noise[i : i + 1])
            for j, (label, weight) in enumerate(pairs):
                grads = torch.autograd.grad(-log_p[label], list(leaves.values()), retain_graph=j + 1 < len(pairs))
                for square, g in zip(squares.values(), grads, strict=True):
                    square.add_(weight * g.square())
        return squares

    rows, divisor = counts(n, normalisation)
    return Estimator(total, rows, divisor, vectorises=False)


def batched(batch_size: int, reduction: str = "mean", normalisation: str = "exact") -> Estimator:
    """The batched estimator with plain autograd; arguments and scale as `cl_repro.importance.batched`."""
    ours = batched_estimator(batch_size, reduction, normalisation)

    def square(net: Net, params: Tree, buffers: Tree, x: Tensor, y: Tensor, noise: Tensor, active: Tensor) -> Tree:
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        z = net.apply(leaves, buffers, x)[0][:, active]
        losses = -z.log_softmax(1).gather(1, y[:, None])
        grads = torch.autograd.grad(losses.mean() if reduction == "mean" else losses.sum(), list(leaves.values()))
        return {name: g.square() for name, g in zip(leaves, grads, strict=True)}

    return ours._replace(sum=square, vectorises=False)
