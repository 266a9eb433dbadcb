r"""Orthogonal gradient descent: steps that leave the outputs of earlier tasks as they are, to first order.

    g <- g - V (V^T g),   V [D, r] with orthonormal columns                     (Farajtabar et al. 2020, algorithm 1)
    after a task: for n examples x of it, columns d z(x) / d theta join V, made orthogonal to what is there

    variant  z
    gtl      the logit of the example's own class     (the paper's OGD-GTL)
    ave      the mean of the logits that are active   (OGD-AVE)

of the network as it is evaluated. Active are those of the task, in scenario=class those of all classes so far. Columns
that are in the space already (to a relative 1e-6) are left out; all are made orthonormal anew after each task. The
guarantee holds for plain SGD, or momentum from zero at the start of a task (optim.reset), and for a network without
batch normalisation: its running statistics follow later tasks, and move outputs of earlier ones without a step.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn import functional

from cl_repro.common.errors import UserError
from cl_repro.common.rules import POSITIVE, require
from cl_repro.types import Method, Needs, Net, Tree

DEPENDENT = 1e-6  # of a gradient's norm: what is left of it outside the space, below which it is in it
AT_ONCE = 20  # gradients computed together


class State(NamedTuple):
    """State of orthogonal gradient descent."""

    basis: Tensor  # V [D, r]; columns may be zero


def ogd(n: int = 200, variant: str = "gtl", most_bytes: float = 4e9) -> Method:
    """Orthogonal gradient descent.

    Args:
        n: examples of each task whose gradients are kept; 0: none.
        variant: gtl or ave.
        most_bytes: a basis that would need more is refused.

    Returns:
        The method; lambda plays no part. Memory: n D numbers for each task but the last.

    Raises:
        UserError: a number or a variant out of range; a basis that is too large, when it would grow.
    """
    if n < 0:
        raise UserError(f"method.n={n}: must be at least 0, in examples")
    if variant not in ("gtl", "ave"):
        raise UserError(f"method.variant={variant}: must be gtl or ave")
    require("method.most_bytes", most_bytes, POSITIVE)

    def init(params: Tree, lam: Tensor) -> State:
        return State(flat(params).new_zeros(sum(p.numel() for p in params.values()), 0))

    def inspect(state: State, net: Net, params: Tree, buffers: Tree, x: Tensor, label: Tensor, active: Tensor) -> State:
        size = state.basis.element_size() * len(state.basis) * (state.basis.shape[1] + n)
        if size > most_bytes:
            raise UserError(f"method.n={n}: the basis would take {size:.2e} bytes; must be at most {most_bytes:.2e}")
        mine = {name: p for name, p in params.items() if name not in net.unprotected}

        own_class, mean = functional.one_hot(label, len(active)), (active / active.sum()).expand(len(x), -1)
        share = own_class if variant == "gtl" else mean

        def z(own: Tree, example: Tensor, of_logits: Tensor) -> Tensor:
            return net.apply(params | own, buffers, example[None])[0][0] @ of_logits

        parts = [
            flat(vmap(grad(z), (None, 0, 0))(mine, *part), 1)
            for part in zip(x.split(AT_ONCE), share.to(x.dtype).split(AT_ONCE), strict=True)
        ]
        return State(orthonormal(state.basis, torch.cat(parts)))

    def project(state: State, grads: Tree) -> Tree:
        g = flat(grads)
        return shaped(g - state.basis @ (state.basis.mT @ g), grads)

    return Method(init, project=project, inspect=inspect if n else None, needs=Needs(inspects=n))


def flat(tree: Tree, dims: int = 0) -> Tensor:
    """All tensors of a tree as one, [..., D]; the first `dims` dimensions stay."""
    return torch.cat([value.flatten(dims) for value in tree.values()], dims)


def shaped(vector: Tensor, like: Tree) -> Tree:
    """The inverse of `flat`."""
    parts = vector.split([value.numel() for value in like.values()])
    return {name: part.view(value.shape) for (name, value), part in zip(like.items(), parts, strict=True)}


def orthonormal(basis: Tensor, rows: Tensor) -> Tensor:
    """An orthonormal basis [D, r + k] of the space of a basis [D, r] and k of the rows [m, D], by Gram and Schmidt.

    Each row is projected twice, which in float32 leaves it orthogonal to rounding (Giraud et al. 2005); rows that are
    in the space already are left out. Columns that were there are made orthonormal anew.
    """
    candidates = torch.cat([basis.mT, rows])
    found, k = torch.empty_like(candidates), 0
    for v in candidates:
        norm, rest = v.norm(), v
        for _ in range(2):
            rest = rest - found[:k].mT @ (found[:k] @ rest)
        if norm > 0 and rest.norm() > DEPENDENT * norm:
            found[k] = rest / rest.norm()
            k += 1
    return found[:k].mT.contiguous()
