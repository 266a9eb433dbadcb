"""Slow and obvious references of the importances: a loop over examples, plain autograd, nothing shared.

Everything here is a SUM over examples (or mini-batches) in float64; `units` says what it is divided by.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from cl_repro.types import Net, Tree


def gradient(net: Net, params: Tree, x: Tensor, label: int, active: list[int]) -> tuple[Tree, list[float]]:
    """The gradient of log p(label | x) of ONE example x [*shape], and the probabilities of the active logits."""
    leaves = {name: p.detach().double().clone().requires_grad_() for name, p in params.items()}
    z = net.apply(leaves, {}, x.double()[None])[0][0]
    log_p = torch.stack([z[i] for i in active]).log_softmax(0)
    log_p[label].backward()
    return {name: leaf.grad for name, leaf in leaves.items()}, log_p.detach().exp().tolist()


def weighted_squares(parts: Iterable[tuple[float, Tree]], params: Tree) -> Tree:
    """Sum of weight * gradient^2."""
    total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in params.items()}
    for weight, part in parts:
        for name, g in part.items():
            total[name] = total[name] + weight * g * g
    return total


def exact(net: Net, params: Tree, x: Tensor, active: list[int]) -> Tree:
    """sum_n sum_c p(c|x_n) (d log p(c|x_n) / d theta)^2 over the active classes."""

    def parts() -> Iterable[tuple[float, Tree]]:
        for example in x:
            for label in range(len(active)):
                g, p = gradient(net, params, example, label, active)
                yield p[label], g

    return weighted_squares(parts(), params)


def labelled(net: Net, params: Tree, x: Tensor, labels: Iterable[int], active: list[int]) -> Tree:
    """sum_n (d log p(label_n|x_n) / d theta)^2; labels are positions in `active`."""
    gradients = [gradient(net, params, example, int(y), active)[0] for example, y in zip(x, labels, strict=True)]
    return weighted_squares([(1.0, g) for g in gradients], params)


def drawn_labels(net: Net, params: Tree, x: Tensor, noise: Iterable[float], active: list[int]) -> list[int]:
    """Inverse CDF: the first label whose cumulative probability exceeds the noise."""
    labels = []
    for example, u in zip(x, noise, strict=True):
        p = gradient(net, params, example, 0, active)[1]
        label, below = 0, p[0]
        while u >= below and label < len(p) - 1:
            label += 1
            below += p[label]
        labels.append(label)
    return labels


def predicted_labels(net: Net, params: Tree, x: Tensor, active: list[int]) -> list[int]:
    """The most probable label of each example."""
    probabilities = [gradient(net, params, example, 0, active)[1] for example in x]
    return [p.index(max(p)) for p in probabilities]


def batched(
    net: Net, params: Tree, x: Tensor, labels: Iterable[int], active: list[int], batch_size: int, reduction: str
) -> Tree:
    """Sum over mini-batches of the squared mean (or sum) of their examples' gradients; the last may be smaller."""
    gradients = [gradient(net, params, example, int(y), active)[0] for example, y in zip(x, labels, strict=True)]
    squares = []
    for start in range(0, len(gradients), batch_size):
        batch = gradients[start : start + batch_size]
        whole = {name: torch.stack([g[name] for g in batch]).sum(0) for name in params}
        if reduction == "mean":
            whole = {name: g / len(batch) for name, g in whole.items()}
        squares.append((1.0, whole))
    return weighted_squares(squares, params)


def units(total: int, n: int | None, normalisation: str) -> tuple[int, int]:
    """How many units (examples or mini-batches) enter the sum, and its divisor.

    `reference` is the loop of the reference code (GMvandeVen/continual-learning): its divisor is the last index.
    """
    if normalisation == "exact":
        return (n or total, n or total)
    used, index = 0, 0
    for index in range(total):
        if n is not None and index > n:
            break
        used += 1
    return used, index
