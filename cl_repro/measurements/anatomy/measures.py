r"""How large an importance is, where it sits, how far it is from another, and how confident the network is behind it.

The penalty is lambda F: a factor in F is a factor in lambda. So next to the error ||F - E|| / ||E|| stands the error
of the shape, what is left of it after the best factor: min_c ||c F - E|| / ||E|| = sqrt(1 - cos^2(F, E)).

On a confident network of two active classes, with p the probability of the wrong label and g the gradient of the
difference of the two logits, an example adds p (1 - p) g^2 to exact and p^2 g^2 to empirical; sample adds p^2 g^2, or
with probability p the much larger (1 - p)^2 g^2: unbiased, and nearly always empirical. `Confidence` has the sums.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cl_repro.common.tree import flat, pearson
from cl_repro.types import Tree


class Reference(NamedTuple):
    """An importance that others are compared with."""

    vector: Tensor  # [P] float64
    there: Tensor  # [P] bool, where it is not zero: the entries that are ranked
    ranks: Tensor  # of those, float64


class Distance(NamedTuple):
    """How far an importance is from a reference; NaN where there is nothing to compare."""

    error: float  # ||F - E|| / ||E||
    shape_error: float  # the same after the best factor: 0 for every multiple of E, 1 for F at right angles, or 0
    rank_correlation: float  # Spearman's, over the entries where E is not zero


class Confidence(NamedTuple):
    """A network on its training examples; wrong is the probability of all labels but the data's."""

    examples: int
    cross_entropy: float  # mean, nats
    errors: int
    wrong_median: float
    wrong_mean: float
    wrong_max: float
    wrong_expected: float  # the sum: how many wrong labels a pass of `sample` draws in expectation
    top_ten_share: float  # of that sum, by the ten most uncertain examples
    exact_weight: float  # mean over examples of sum_y p(y) ||p - onehot(y)||^2, the squared logit gradient of exact
    empirical_weight: float  # mean of ||p - onehot(label)||^2, that of empirical


def layer_shares(tree: Tree) -> dict[str, float]:
    """Share of the trace by layer, which is a parameter's name up to its last dot; NaN if the trace is 0."""
    sums: dict[str, float] = {}
    for name, value in tree.items():
        layer = name.rpartition(".")[0] or name
        sums[layer] = sums.get(layer, 0.0) + float(value.sum(dtype=torch.float64))
    total = math.fsum(sums.values())
    return {layer: value / total if total else math.nan for layer, value in sums.items()}


def reference(tree: Tree) -> Reference:
    """Prepare an importance for `distance`; the ranks of millions of entries are worth keeping."""
    vector = flat(tree).double()
    return Reference(vector, vector != 0, ranks(vector[vector != 0]))


def distance(found: Tensor, expected: Reference) -> Distance:
    """How far `found` [P] float64 is from the reference."""
    e, size = expected.vector, float(expected.vector.norm())
    if not size:
        return Distance(math.nan, math.nan, math.nan)
    square = float(found @ found)
    factor = float(found @ e) / square if square else 0.0
    # The norm itself, not sqrt(1 - cos^2): that cannot tell 1e-9 from 0.
    shape = float((factor * found - e).norm()) / size
    return Distance(float((found - e).norm()) / size, shape, pearson(ranks(found[expected.there]), expected.ranks))


def ranks(x: Tensor) -> Tensor:
    """1 for the smallest; equal entries share their mean rank. [P] -> [P] float64."""
    _, group, size = x.unique(return_inverse=True, return_counts=True)
    return (size.cumsum(0) - (size - 1) / 2).double()[group]


def confidence(z: Tensor, y: Tensor) -> Confidence:
    """What logits z [N, A] say about labels y [N], positions in A."""
    log_p = z.double().log_softmax(1)
    p = log_p.exp()
    wrong = p.scatter(1, y[:, None], 0.0).sum(1)  # 1 - p(label) cannot resolve less than 1e-16
    others = torch.stack([p[:, :c].sum(1) + p[:, c + 1 :].sum(1) for c in range(p.shape[1])], 1)  # 1 - p, likewise
    # -log p(label), where float64 cannot tell p(label) from 1 either
    nats = torch.where(wrong < 0.5, -torch.log1p(-wrong), -log_p.gather(1, y[:, None])[:, 0])
    expected = float(wrong.sum())
    return Confidence(
        examples=len(z),
        cross_entropy=float(nats.mean()),
        errors=int((z.argmax(1) != y).sum()),
        wrong_median=float(wrong.median()),
        wrong_mean=float(wrong.mean()),
        wrong_max=float(wrong.max()),
        wrong_expected=expected,
        top_ten_share=float(wrong.topk(min(10, len(wrong))).values.sum()) / expected if expected else math.nan,
        exact_weight=float((p * others).sum(1).mean()),
        empirical_weight=float((wrong.square() + p.scatter(1, y[:, None], 0.0).square().sum(1)).mean()),
    )
