r"""Gradient projection memory: steps orthogonal to the inputs that layers had in earlier tasks (Saha et al. 2021).

    G <- G - (G M) M^T            for the gradient G [out, in] of every weight that is multiplied with layer inputs
    after a task: R [N, in] are inputs of the layer for N of its examples; with R_ = R - (R M) M^T and its right
    singular vectors v_1, v_2, ... to singular values s_1 >= s_2 >= ..., M gets v_1, ..., v_k, the fewest with
        ||R||^2 - ||R_||^2 + s_1^2 + ... + s_k^2 >= threshold ||R||^2

A bias is a weight of an input that is 1. Outputs of the head that no earlier task has used are free: with separate
heads the current one is trained as it is, a common head is projected, unless the network leaves its head unprotected:
then it is always free. Parameters that no layer input is multiplied with (batch normalisation) stay as the first task
left them. The guarantee holds for plain SGD, or momentum from zero at the start of a task (optim.reset): other
optimisers leave the space the projected gradients lie in. It does not hold with batch normalisation: its running
statistics follow later tasks, and move outputs of earlier ones without a step.

DEVIATES from the authors' code (sahagobinda/GPM), which after the first task keeps the vectors whose cumulative share
is below the threshold: one fewer than the paper's equation 5 asks for, and than it keeps after later tasks. Its
networks have no biases, and their batch normalisation uses the statistics of the batch in tests, too.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cl_repro.common.errors import UserError
from cl_repro.types import Layer, Method, Needs, Net, Tree

HEAD = "head"
ORTHOGONAL = 1e-5  # norm of M^T [v_1, ..., v_k] up to which new vectors are orthogonal to M: rounding leaves 2e-6


class State(NamedTuple):
    """State of gradient projection memory."""

    basis: Tree  # M by layer, [in (+ 1 for the bias), r], orthonormal columns, and zeros
    used: Tensor  # [C] 1 for outputs of the head that a task has used, else 0; [0] where the head is unprotected
    tasks: Tensor  # [], learned so far


def gpm(threshold: float | list[float] = 0.97, increase: float = 0.0, n: int = 300) -> Method:
    """Gradient projection memory.

    Args:
        threshold: fraction of the squared norm of a layer's inputs to be spanned, in (0, 1]; one, or one a layer.
        increase: of the threshold with each task learned, at least 0.
        n: examples of a task that are looked at.

    Returns:
        The method; lambda plays no part. Memory: at most in^2 numbers a layer.

    Raises:
        UserError: a threshold, an increase or a number out of range.
    """
    listed = threshold if isinstance(threshold, list) else [threshold]
    if not listed or not all(0 < one <= 1 for one in listed):
        raise UserError(f"method.threshold={threshold}: must be above 0 and at most 1")
    if not 0 <= increase < math.inf or n < 1:
        raise UserError(f"method.increase={increase} with method.n={n}: must be at least 0, and at least 1 example")

    def init(params: Tree, lam: Tensor) -> State:
        basis = {name: p.new_zeros(width(params, name), 0) for name, p in weights(params).items()}
        used = torch.zeros_like(params[f"{HEAD}.weight"][:, 0]) if HEAD in basis else lam.new_zeros(0)
        return State(basis, used, torch.zeros_like(lam))

    def inspect(state: State, net: Net, params: Tree, buffers: Tree, x: Tensor, label: Tensor, active: Tensor) -> State:
        rows = {name: r for name, r in layer_inputs(net, params, buffers, x).items() if name in state.basis}
        if len(listed) not in (1, len(rows)):
            raise UserError(f"method.threshold={threshold}: must be one, or one for each of {', '.join(rows)}")
        limits = [min(1.0, one + increase * int(state.tasks)) for one in listed * (len(rows) // len(listed))]
        basis = {
            name: grown(state.basis[name], r, limit) for (name, r), limit in zip(rows.items(), limits, strict=True)
        }
        used = torch.maximum(state.used, active.to(state.used)) if HEAD in state.basis else state.used
        return State(basis, used, state.tasks + 1)

    def project_input(state: State, layer: str, a: Tensor) -> tuple[Tensor, Tensor] | None:
        return None if layer == HEAD or layer not in state.basis else beside(a, state.basis[layer])

    def project(state: State, grads: Tree) -> Tree:
        result: Tree = {}
        for layer, m in state.basis.items():
            weight = f"{layer}.weight"
            if layer != HEAD and grads[weight].dim() == 2:  # `project_input` has done it
                result |= {name: grads[name] for name in (weight, f"{layer}.bias")}
            else:
                result |= across(grads, layer, m, state.used if layer == HEAD else None)
        # what no layer input is multiplied with stays
        return {name: result[name] if name in result else torch.zeros_like(g) for name, g in grads.items()}

    return Method(init, project=project, project_input=project_input, inspect=inspect, needs=Needs(inspects=n))


def weights(params: Tree) -> Tree:
    """By layer, those that layer inputs are multiplied with: matrices and kernels."""
    found = {name.removesuffix(".weight"): p for name, p in params.items() if name.endswith(".weight")}
    return {layer: p for layer, p in found.items() if p.dim() > 1}


def width(params: Tree, layer: str) -> int:
    """Inputs of a layer, one of them 1 if it has a bias."""
    return params[f"{layer}.weight"][0].numel() + (f"{layer}.bias" in params)


def beside(a: Tensor, m: Tensor) -> tuple[Tensor, Tensor] | None:
    """Inputs a [B, in], with the 1 of the bias, made orthogonal to the memory M [in + 1, r]; None if M is empty.

    Returns what is left of the inputs, [B, in], and of the 1, [B].

    G - (G M) M^T = D^T (A - (A M) M^T) for the gradient G = D^T A of a linear layer: B rows instead of `out`.
    """
    if not m.shape[1]:
        return None
    weight, bias = m[:-1], m[-1]
    along = torch.addmm(bias, a, weight)  # A M [B, r]
    return torch.addmm(a, along, weight.mT, alpha=-1), 1 - along @ bias


def across(grads: Tree, layer: str, m: Tensor, rows: Tensor | None) -> Tree:
    """G - (G M) M^T of a layer, by name; G [out, in] is its weight's gradient and, as last column, its bias'.

    Args:
        grads: of all parameters.
        layer: whose are projected.
        m: M [in, r].
        rows: [out], 1 for outputs that are projected, 0 for those that are free; None: all are.

    Returns:
        As `grads`, of this layer.
    """
    weight, bias = grads[f"{layer}.weight"], grads.get(f"{layer}.bias")
    g = weight.flatten(1)
    n = g.shape[1]
    along = g @ m[:n] if bias is None else torch.addcmul(g @ m[:n], bias[:, None], m[n])  # G M [out, r]
    if rows is not None:
        along = along * rows[:, None]
    result = {f"{layer}.weight": torch.addmm(g, along, m[:n].mT, alpha=-1).view(weight.shape)}
    return result if bias is None else result | {f"{layer}.bias": bias - along @ m[n]}


@torch.no_grad()
def layer_inputs(net: Net, params: Tree, buffers: Tree, x: Tensor) -> Tree:
    """R by layer, [N or more, in], of the network as it is evaluated."""
    rows: Tree = {}

    def tap(name: str, layer: Layer, a: Tensor, z: Tensor) -> Tensor:
        if layer.sees is not None:
            seen = layer.sees(a)
            rows[name] = torch.cat([seen, seen.new_ones(len(seen), 1)], 1) if f"{name}.bias" in params else seen
        return z

    net.apply(params, buffers, x, tap=tap)
    return rows


def grown(m: Tensor, r: Tensor, threshold: float) -> Tensor:
    """The basis M [in, r] and the right singular vectors it needs to span a fraction of R [N, in]; in float64.

    M is orthonormal to its own dtype's rounding, so up to ||R|| in eps of R_ may lie in the span of M: singular values
    up to that are taken for zero. A vector to a small value may point into that span all the same; where they do, R_ is
    projected a second time, which leaves it orthogonal to rounding (Giraud et al. 2005).
    """
    known, rows = m.double(), r.double()
    total = rows.square().sum()
    least = total.sqrt() * len(m) * torch.finfo(m.dtype).eps
    rest = rows - (rows @ known) @ known.mT
    new = fewest(rest, total, threshold, least)
    if (known.mT @ new).norm() > ORTHOGONAL:
        new = fewest(rest - (rest @ known) @ known.mT, total, threshold, least)
    return torch.cat([m, new.to(m.dtype)], 1)


def fewest(rest: Tensor, total: Tensor, threshold: float, least: Tensor) -> Tensor:
    """v_1, ..., v_k [in, k] of R_ [N, in], none to a singular value up to `least`; `total` is ||R||^2."""
    _, s, v = torch.linalg.svd(rest, full_matrices=False)
    left = rest.square().sum()
    spanned = (total - left + s.square().cumsum(0)) / total
    already = bool((total - left) / total >= threshold)
    k = 0 if already else min(int((spanned < threshold).sum()) + 1, int((s > least).sum()))
    return v[:k].mT
