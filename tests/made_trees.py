"""Made trees of tensors, states made of them, and how they are compared."""

from typing import Any

import torch
from torch import Tensor

from cl_repro.types import Method, Tree

SHAPES = {"a.weight": (6, 5), "a.bias": (6,), "scale": ()}


def random_tree(shapes: dict[str, tuple[int, ...]], seed: int, dtype: torch.dtype = torch.float64) -> Tree:
    """Normal random numbers."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in shapes.items()}


def tree(seed: int, dtype: torch.dtype = torch.float64) -> Tree:
    """Weights of a small network."""
    return random_tree(SHAPES, seed, dtype)


def positive(seed: int, dtype: torch.dtype = torch.float64) -> Tree:
    """Importances of it."""
    return {name: value.square() for name, value in tree(seed, dtype).items()}


def after(method: Method, lam: float, tasks: list[tuple[Tree, Tree]]) -> Any:
    """The state after tasks that ended with (parameters, importance)."""
    params = tasks[0][0]
    state = method.init(params, torch.tensor(lam, dtype=params["scale"].dtype))
    for params, importance in tasks:
        state = method.end_task(state, params, importance)
    return state


def single(stacked: Tree, k: int) -> Tree:
    """Replica `k`, still with its leading axis."""
    return {name: value[k : k + 1] for name, value in stacked.items()}


def copied(tree: Any) -> Any:
    """A deep copy of a tree, or of a NamedTuple or tuple of tensors and trees."""
    if isinstance(tree, Tensor):
        return tree.clone()
    if isinstance(tree, dict):
        return {name: copied(value) for name, value in tree.items()}
    return type(tree)(*map(copied, tree)) if hasattr(tree, "_fields") else tuple(map(copied, tree))


def tensors(tree: Any) -> list[Tensor]:
    """All tensors of such a structure, in order; None holds none."""
    if isinstance(tree, Tensor) or tree is None:
        return [] if tree is None else [tree]
    return [t for part in (tree.values() if isinstance(tree, dict) else tree) for t in tensors(part)]


def same(found: Any, expected: Any) -> bool:
    """Whether two such structures are equal to the last bit (the sign of a zero aside; NaN equals NaN)."""
    pairs = list(zip(tensors(found), tensors(expected), strict=True))
    return all(
        a.dtype == b.dtype and a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
        for a, b in pairs
    )


def error(found: Tree, expected: Tree) -> float:
    """The largest |found - expected| of any tensor, relative to that tensor's largest |expected|."""
    assert found.keys() == expected.keys()
    worst = 0.0
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        assert found[name].isfinite().all(), name
        scale = value.abs().max().clamp_min(torch.finfo(value.dtype).tiny)
        worst = max(worst, float((found[name].double() - value.double()).abs().max() / scale))
    return worst
