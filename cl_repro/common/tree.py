"""Arithmetic on trees (`dict[str, Tensor]`) and on stacks of them (a leading replica axis K)."""

import math
from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor

Tree = dict[str, Tensor]
"""Parameters, gradients, importances: one flat dictionary, name -> tensor."""


def zeros_like(tree: Tree) -> Tree:
    """A tree of zeros of the same shapes."""
    return {name: torch.zeros_like(value) for name, value in tree.items()}


def add(total: Tree, part: Tree) -> Tree:
    """`total + part`, name by name of `total`, in the layout of its tensors."""
    if at_once(values := list(total.values())):
        return dict(zip(total, torch._foreach_add(values, [part[name] for name in total]), strict=True))
    return {name: value + part[name] for name, value in total.items()}


def add_(total: Tree, part: Tree) -> Tree:
    """`total + part` in the memory of `total`, name by name of it."""
    if at_once(values := list(total.values())):
        torch._foreach_add_(values, [part[name] for name in total])
        return total
    for name, value in reversed(total.items()):  # the last was made last, and is still in the cache
        value.add_(part[name])
    return total


def subtract(tree: Tree, other: Tree, alpha: float = 1.0) -> Tree:
    """`tree - alpha other`, name by name."""
    mine, its = list(tree.values()), [other[name] for name in tree]
    if at_once(mine):
        return dict(zip(tree, torch._foreach_sub(mine, its, alpha=alpha), strict=True))
    return {name: torch.sub(a, b, alpha=alpha) for name, a, b in zip(tree, mine, its, strict=True)}


def add_products(total: Tree, one: Tree, other: Tree, value: float, scale: float = 1.0) -> Tree:
    """`scale total + value one other`, name by name."""
    if at_once(values := list(total.values())):
        factors = [one[name] for name in total], [other[name] for name in total]
        if scale == 1:
            return dict(zip(total, torch._foreach_addcmul(values, *factors, value), strict=True))
        scaled = torch._foreach_mul(values, scale)
        torch._foreach_addcmul_(scaled, *factors, value)
        return dict(zip(total, scaled, strict=True))
    if scale == 1:
        return {name: v.addcmul(one[name], other[name], value=value) for name, v in total.items()}
    add = Tensor.addcmul if under_vmap() else Tensor.addcmul_  # vmap would take one replica after the other in place
    return {name: add(scale * v, one[name], other[name], value=value) for name, v in total.items()}


def copied(tree: Tree) -> Tree:
    """The same values in memory of their own."""
    if at_once(values := list(tree.values())):
        made = [torch.empty_like(value) for value in values]
        torch._foreach_copy_(made, values)
        return dict(zip(tree, made, strict=True))
    return {name: value.clone() for name, value in tree.items()}


def change_since(before: Tree, now: Tree) -> Tree:
    """`now - before`, name by name; `before` may be overwritten."""
    if at_once(values := list(now.values())):
        return dict(zip(now, torch._foreach_sub(values, [before[name] for name in now]), strict=True))
    return {name: torch.sub(value, before[name], out=before[name]) for name, value in now.items()}


def pulled(params: Tree, weight: Tree, *centre: Tree) -> Tree:
    """The gradient weight (params - centre), with a centre of several parts by one difference after the other."""
    if at_once(ps := list(params.values())):
        first, *rest = ([of[name] for name in params] for of in centre)
        d = list(torch._foreach_sub(ps, first))
        for values in rest:
            torch._foreach_sub_(d, values)
        torch._foreach_mul_(d, [weight[name] for name in params])
        return dict(zip(params, d, strict=True))
    result = {}
    for name, p in params.items():
        result[name] = p - centre[0][name]
        for part in centre[1:]:
            result[name].sub_(part[name])
        result[name].mul_(weight[name])
    return result


def at_once(values: Sequence[Tensor]) -> bool:
    """Whether an operation on all of them is one kernel, whose launch costs more than the work: CUDA, outside vmap."""
    return bool(values) and values[0].is_cuda and not under_vmap()


def under_vmap() -> bool:
    """Whether tensors are those of a function that `torch.vmap`, or another transform, calls."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def divide(tree: Tree, divisor: float) -> Tree:
    """`tree / divisor`."""
    return {name: value / divisor for name, value in tree.items()}


def stack(trees: Iterable[Tree]) -> Tree:
    """Trees of one replica -> one tree with a leading axis K."""
    trees = list(trees)
    return {name: torch.stack([tree[name] for tree in trees]) for name in trees[0]}


def without(tree: Tree, names: Collection[str]) -> Tree:
    """The tree but for some of its names."""
    return {name: value for name, value in tree.items() if name not in names}


def select(tree: Tree, rows: Tensor) -> Tree:
    """Replicas `rows` [k] of a stacked tree, copied."""
    return {name: value.index_select(0, rows) for name, value in tree.items()}


def at(tree: Tree, row: int) -> Tree:
    """Replica `row` of a stacked tree, as views that share its memory."""
    return {name: value[row] for name, value in tree.items()}


def flat(tree: Tree) -> Tensor:
    """All entries as one vector [P], in the order of the tree and of its type."""
    return torch.cat([value.flatten() for value in tree.values()])


def traces(tree: Tree) -> Tensor:
    """Sum of all entries of every replica of a stacked tree, [K] float64."""
    return torch.stack([value.flatten(1).sum(1, dtype=torch.float64) for value in tree.values()]).sum(0)


def pearson(a: Tensor, b: Tensor) -> float:
    """Pearson's r of two vectors, in float64; NaN if one of them is constant or not finite."""
    a, b = a.double(), b.double()
    a, b = a - a.mean(), b - b.mean()
    size = float(a.norm() * b.norm())
    return float((a @ b / size).clamp(-1, 1)) if size else math.nan  # rounding may take it past 1
