r"""Sums of squared per-example gradients of any `torch.nn.Module`, three ways, and which parameter needs which.

    F = sum_n sum_j (d (s_nj . z_n) / d theta)^2         z [N, A] the active logits, s [N, J, A] constants (`columns`)

    LAYER     J backward passes of all examples at once, down to the outputs of layers; the layers' rules do the rest
    EXAMPLE   `torch.vmap`: one gradient per example, of the parameters that belong to no such layer
    SINGLE    autograd, one example and one column at a time: what the others are checked against

The columns come in blocks of a few, so that nothing holds C x C numbers for an example.

A layer is measured by its rule if it is called once, its parameters enter the graph of the logits nowhere else, and row
m of its output enters the logits of example m alone (`rows_are_examples`). That is asked of every pass; `ways` asks in
addition whether the numbers agree with SINGLE on two examples. (A layer's input that is changed in place afterwards is
autograd's error, in SINGLE.)
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cl_repro.common.errors import UserError
from cl_repro.importance.library.forward import (
    ROUNDING,
    Forward,
    check_alone,
    close,
    forward,
    logits,
    recorded,
    trainable,
)
from cl_repro.importance.library.rules import layers_of, own, squares
from cl_repro.importance.library.untouched import NO_RULE, one_by_one
from cl_repro.types import Tree

Blocks = Callable[[Tensor], Iterable[Tensor]]  # z [N, A] -> blocks [N, J, A] of columns, each J at most COLUMNS

LAYER, EXAMPLE, SINGLE = "layer", "example", "single"
COLUMNS = 16  # backpropagated before the layers square them: enough to share the cost of a layer's windows


def layer_wise(model: nn.Module, run: Forward, s: Tensor, *, proved: bool = False) -> Tree:
    """LAYER, of the parameters whose layer's rule holds; those that do not enter the logits are zero.

    `proved`: that rows are examples, so that it is not asked again.
    """
    params = trainable(model)
    total = {name: torch.zeros_like(params[name]) for name in run.idle}
    if not run.calls:
        return total
    names = {id(p): name for name, p in params.items()}

    def backward(s_j: Tensor) -> list[Tensor]:
        """Derivatives by the output of each layer, [N, ...]."""
        edges = [call.edge for call in run.calls]
        found = torch.autograd.grad(run.z, edges, s_j, retain_graph=True, allow_unused=True)  # type: ignore[arg-type]
        zero = run.z.new_zeros(())
        return [zero.expand(call.shape) if d is None else d for call, d in zip(run.calls, found, strict=True)]

    deltas = list(zip(*(backward(s_j) for s_j in s.unbind(1)), strict=True))  # by layer, by column
    good = [True] * len(deltas) if proved else rows_are_examples(backward, s, deltas)
    for call, parts, believed in zip(run.calls, deltas, good, strict=True):
        if believed:
            parameters = own(call.layer)
            for suffix, value in squares(call.layer, call.a, parts).items():
                if (name := names.get(id(parameters[suffix]))) is not None:  # a frozen one has none
                    total[name] = value
    return total


def one_row_whatever_the_example(model: nn.Module, x: Tensor) -> bool:
    """Whether an example makes one row in every layer, whatever its values: then rows are examples.

    Under `torch.vmap` no shape and no branch can depend on values, except where torch has no batching rule.
    """
    with recorded(layers_of(model)) as calls, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            one_by_one(model, {}, x)
        except Exception:  # whatever a model that autograd understands does under vmap
            return False
    without_rule = any(NO_RULE in str(warning.message) for warning in said)
    return not without_rule and all(call.shape[:1] == (1,) for uses in calls.values() for call in uses)


def rows_are_examples(
    backward: Callable[[Tensor], list[Tensor]], s: Tensor, deltas: Sequence[Sequence[Tensor]]
) -> list[bool]:
    """Of each layer, whether each row of its output enters the logits of its own example alone; one backward pass.

    Backpropagation is linear. If row m enters z_m alone, then weights w_n on the columns of examples come out as the
    factor w_m on row m, exactly; if it enters z_n, as w_n. A model that packs k_n rows of example n, in the order of
    the examples, into as many rows as examples has some row m of example m - 1 or m + 1 unless each k_n is 1.

    Args:
        backward: column [N, A] -> its derivatives D by the layers' outputs, [N, ...].
        s: [N, J, A].
        deltas: what `backward` makes of them, for each layer J tensors [N, ...].
    """
    largest = s.abs().amax(2).argmax(1)  # [N], the column of each example that says most
    groups = largest.argsort().split(largest.bincount(minlength=s.shape[1]).tolist())  # the examples of each column
    # Powers of two, so that what they multiply is rounded alike; an example's is not that of the 31 on either side.
    w = 2.0 ** (torch.arange(len(s), device=s.device, dtype=s.dtype) % 32 - 16)
    weighted = backward(w[:, None] * s.take_along_dim(largest[:, None, None], 1)[:, 0])
    return [agree(d, w, parts, groups) for d, parts in zip(weighted, deltas, strict=True)]


def agree(weighted: Tensor, w: Tensor, deltas: Sequence[Tensor], groups: Sequence[Tensor]) -> bool:
    """Whether row m of `weighted` is w_m times that of the column whose group m is in."""
    # Of each row a few random projections are compared.
    v = torch.randn(weighted[0].numel(), 4, generator=torch.Generator().manual_seed(0), device="cpu").to(weighted)
    found = weighted.flatten(1) @ v
    expected = torch.empty_like(found)
    for rows, d in zip(groups, deltas, strict=True):
        expected[rows] = w[rows, None] * (d[rows].flatten(1) @ v)
    precision = ROUNDING * torch.finfo(w.dtype).eps
    return bool(((found - expected).norm(dim=1) <= precision * expected.norm(dim=1)).all())


def example_wise(model: nn.Module, names: list[str], z: Tensor, x: Tensor, active: Tensor | None, s: Tensor) -> Tree:
    """EXAMPLE, of these parameters; none if the model computes something else than z in this way, or cannot."""
    params = trainable(model)
    # A copy per example, expanded: it needs no memory, its gradient does.
    copies = {name: params[name].detach().expand(len(x), *params[name].shape).requires_grad_() for name in names}
    try:
        found = one_by_one(model, copies, x)
    except Exception:  # whatever a model that autograd understands does under vmap: autograd measures it
        return {}
    found = found if active is None else found[:, active.to(z.device)]
    if not all(close(a, b) for a, b in zip(found.detach(), z.detach(), strict=True)):
        return {}
    total = {name: torch.zeros_like(params[name]) for name in names}
    for s_j in s.unbind(1):
        grads = torch.autograd.grad(found, list(copies.values()), s_j, retain_graph=True, materialize_grads=True)
        total = {name: total[name] + g.square().sum(0) for name, g in zip(names, grads, strict=True)}
    return total


def single(model: nn.Module, names: list[str], z: Tensor, x: Tensor, active: Tensor | None, s: Tensor) -> Tree:
    """SINGLE, of these parameters; refuses a model that computes something else than z in this way."""
    params = trainable(model)
    total = {name: torch.zeros_like(params[name]) for name in names}
    for n, (example, s_n) in enumerate(zip(x.split(1), s, strict=True)):
        alone = logits(model, example, active)[0]
        if not close(z.detach()[n], alone.detach()):
            check_alone(model, x, active, z, [n])
        for s_nj in s_n:
            leaves = [params[name] for name in names]
            grads = torch.autograd.grad(alone, leaves, s_nj, retain_graph=True, materialize_grads=True)
            total = {name: total[name] + g.square() for name, g in zip(names, grads, strict=True)}
    return total


class Ways(NamedTuple):
    """How each parameter is measured, and the numbers that are held for an example meanwhile."""

    of: dict[str, str]  # name -> LAYER, EXAMPLE or SINGLE
    proved: bool  # that rows are examples
    z: Tensor  # [N, A], the active logits of these examples
    each: int  # the example, outputs of the layers, gradient of the EXAMPLE parameters
    column: int  # the same for each column of a block: derivatives of the layers, the column itself
    slow: set[str]  # parameters that were measured one example at a time, and said to be


def ways(model: nn.Module, x: Tensor, active: Tensor | None) -> Ways:
    """The fastest way for each parameter that agrees with SINGLE, for random columns, on x: the first two examples."""
    params = trainable(model)
    run = forward(model, x, active)
    s = torch.randn(len(x), 2, run.z.shape[1], generator=torch.Generator().manual_seed(0), device="cpu").to(run.z)
    expected = single(model, list(params), run.z, x, active, s)
    check_finite(expected)
    # Where gradients cancel, ways differ by rounding errors of the others': squares of (precision) x (the largest).
    largest = max(float(value.max()) for value in expected.values())
    floors = {name: 1e3 * torch.finfo(p.dtype).eps ** 2 * largest for name, p in params.items()}

    def agreeing(found: Tree) -> list[str]:
        return [name for name, value in found.items() if close(value, expected[name], floors[name])]

    proved = one_row_whatever_the_example(model, x)
    of = dict.fromkeys(params, SINGLE) | dict.fromkeys(agreeing(layer_wise(model, run, s, proved=proved)), LAYER)
    if rest := [name for name, way in of.items() if way == SINGLE]:
        of |= dict.fromkeys(agreeing(example_wise(model, rest, run.z, x, active, s)), EXAMPLE)
    outputs = [call.shape.numel() // len(x) for call in run.calls]
    gradient = sum(params[name].numel() for name, way in of.items() if way == EXAMPLE)
    # The derivatives of all layers and the squares of one; s, and what it is made from.
    column = sum(outputs) + 4 * max(outputs, default=0) + 8 * run.z.shape[1]
    each = 4 * (x[0].numel() + sum(outputs)) + 10 * gradient
    return Ways(of, proved, run.z.detach(), each, column, set())


def sum_of_squares(model: nn.Module, plan: Ways, x: Tensor, active: Tensor | None, columns: Blocks) -> Tree:
    """F of these examples, {name: [*shape]} of the trainable parameters in their order.

    Args:
        model: evaluated, not training.
        plan: how each parameter is measured; one at a time where that way does not hold in this pass.
        x: [N, *in].
        active: [A] int64, ascending, or None for all logits.
        columns: z [N, A] -> blocks s [N, J, A]; none if one class is active: its probability is 1.

    Returns:
        The SUM over examples and columns.
    """
    run = forward(model, x, active)
    total = {name: torch.zeros_like(p) for name, p in trainable(model).items()}
    for s in columns(run.z.detach()):
        found = layer_wise(model, run, s, proved=plan.proved) if LAYER in plan.of.values() else {}
        found = {name: value for name, value in found.items() if plan.of[name] == LAYER}
        if by_example := [name for name, way in plan.of.items() if way == EXAMPLE]:
            found |= example_wise(model, by_example, run.z, x, active, s)
        if rest := [name for name in plan.of if name not in found]:
            if new := [name for name in rest if name not in plan.slow]:
                warnings.warn(f"parameters measured one example at a time, slowly: {', '.join(new)}", stacklevel=4)
                plan.slow.update(new)
            found |= single(model, rest, run.z, x, active, s)
        for name, value in total.items():
            value.add_(found[name])
    return total


def check_finite(found: Tree) -> None:
    """Refuse sums of squares that overflow, and those of derivatives that are not numbers."""
    for name, value in found.items():
        if not value.isfinite().all():
            advice = "look for NaN or very large values in x and in the parameters"
            if value.dtype != torch.float64:
                advice = f"pass model.double() and x.double(); if that does not help, {advice}"
            raise UserError(f"parameter {name!r}: its squared gradients are not finite in {value.dtype}: {advice}")
