r"""Torch's layers as the importance passes see them: the formulas of `cl_repro.models.layers`, for `torch.nn` modules.

A rule maps (module, a, [D_1, ..., D_J]) to sum_n sum_j (d s_j / d theta)^2 of the module's parameters, by suffix; a is
the module's input, D_j the derivative of output column j by its output, both with one example per first index.

    Linear                       of [N, in]; with positions [N, ..., in] it is a convolution with a kernel of one pixel
    Conv1d, Conv2d               any stride, dilation, groups and kernel; zero padding given in numbers
    BatchNorm (running mu, var), LayerNorm, GroupNorm
                                 z = gamma xhat + beta elementwise: xhat is computed again, without gamma and beta
    Embedding                    the gradients of an example's equal ids are summed before they are squared
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_repro.models.layers import EPS, LINEAR, convolution_sums, norm_sums
from cl_repro.types import Tree

Rule = Callable[[Any, Tensor, Sequence[Tensor]], Tree]


def linear(module: nn.Linear, a: Tensor, deltas: Sequence[Tensor]) -> Tree:
    """W and b of z = a W^T + b; a [N, ..., in], D_j [N, ..., out]."""
    if a.dim() == 2:
        return LINEAR.sums(torch.square, a, deltas)
    return one_pixel(*(t.flatten(1, -2).mT[..., None] for t in (a, *deltas)))


def one_pixel(a: Tensor, *deltas: Tensor) -> Tree:
    """Of a convolution with a kernel of one pixel; a [N, in, L, 1], D_j [N, out, L, 1]; W [out, in, 1, 1]."""
    return convolution_sums(torch.square, a, deltas, kernel=1, stride=1, padding=0, bias=True)


def convolution(module: nn.Conv1d | nn.Conv2d, a: Tensor, deltas: Sequence[Tensor]) -> Tree:
    """W and b of a convolution; a [N, in, (H,) W], D_j [N, out, (h,) w].

    Kernels that the suite's formula does not know see their windows as the channels of a single pixel. Groups are
    convolutions of their own, side by side.
    """
    line = len(module.kernel_size) == 1  # Conv1d: an image of one row
    shape = [(k, *v) if line else v for k, v in zip((1, 1, 0, 1), sizes(module), strict=True)]
    a, *deltas = (t.unsqueeze(2) if line else t for t in (a, *deltas))
    (k, k2), (stride, stride2), (padding, padding2), dilation = shape
    if (k, stride, padding, dilation) == (k2, stride2, padding2, (1, 1)):
        of: Callable[..., Tree] = partial(
            convolution_sums, torch.square, kernel=k, stride=stride, padding=padding, bias=True
        )
    else:
        a = functional.unfold(a, shape[0], dilation=dilation, padding=shape[2], stride=shape[1])[..., None]
        deltas = [d.flatten(2)[..., None] for d in deltas]
        of = lambda a, deltas: one_pixel(a, *deltas)  # noqa: E731
    if module.groups == 1:
        return of(a, deltas)
    apart = [t.unflatten(1, (module.groups, -1)) for t in (a, *deltas)]  # [N, groups, channels, h, w]
    return torch.vmap(of, in_dims=1)(apart[0], apart[1:])


def sizes(module: Any) -> tuple[tuple[int, ...], ...]:
    """Of a convolution: kernel, stride, padding, dilation."""
    return module.kernel_size, module.stride, module.padding, module.dilation


def by_channel(normalised: Tensor, deltas: Sequence[Tensor]) -> Tree:
    """Gamma and beta [C] of z = gamma xhat + beta; xhat [N, C, ...], D_j alike: that of maps with mu 0, var 1."""
    maps = [t.reshape(*t.shape[:2], -1, 1) for t in (normalised, *deltas)]
    mean = normalised.new_zeros(normalised.shape[1])
    return norm_sums(mean, mean + (1 - EPS), torch.square, maps[0], maps[1:])


def batch_norm(module: nn.BatchNorm2d, a: Tensor, deltas: Sequence[Tensor]) -> Tree:
    """Of a [N, C, ...], with the running statistics."""
    return by_channel(functional.batch_norm(a, module.running_mean, module.running_var, eps=module.eps), deltas)


def group_norm(module: nn.GroupNorm, a: Tensor, deltas: Sequence[Tensor]) -> Tree:
    """Of a [N, C, ...]."""
    return by_channel(functional.group_norm(a, module.num_groups, eps=module.eps), deltas)


def layer_norm(module: nn.LayerNorm, a: Tensor, deltas: Sequence[Tensor]) -> Tree:
    """Of a [N, ..., *normalised shape], whose elements are the channels."""
    normalised = functional.layer_norm(a, module.normalized_shape, eps=module.eps)
    channels = torch.Size(module.normalized_shape).numel()
    parts = [t.reshape(len(a), -1, channels).mT for t in (normalised, *deltas)]
    return by_channel(parts[0], parts[1:])


def embedding(module: nn.Embedding, a: Tensor, deltas: Sequence[Tensor]) -> Tree:
    """E [ids, features] of a [N, ...] int64, D_j [N, ..., features]."""
    ids, features = module.weight.shape
    first = ids * torch.arange(len(a), device=a.device)
    pairs, at = (a.reshape(len(a), -1) + first[:, None]).unique(return_inverse=True)  # (example, id), once each
    total = deltas[0].new_zeros(ids, features)
    for d in deltas:
        g = d.new_zeros(len(pairs), features).index_add_(0, at.flatten(), d.reshape(-1, features))
        total.index_add_(0, pairs % ids, g.square())
    if module.padding_idx is not None:
        total[module.padding_idx] = 0  # its row gets no gradient
    return {"weight": total}


RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: linear,
    nn.Conv1d: convolution,
    nn.Conv2d: convolution,
    nn.BatchNorm1d: batch_norm,
    nn.BatchNorm2d: batch_norm,
    nn.BatchNorm3d: batch_norm,
    nn.GroupNorm: group_norm,
    nn.LayerNorm: layer_norm,
    nn.Embedding: embedding,
}


def squares(module: nn.Module, a: Tensor, deltas: Sequence[Tensor]) -> Tree:
    """What the module's rule says, {suffix: [*shape]}, for the parameters it has."""
    found = RULES[type(module)](module, a, deltas)
    return {suffix: found[suffix].reshape(p.shape) for suffix, p in own(module).items()}


def own(module: nn.Module) -> dict[str, nn.Parameter]:
    """The module's parameters, without those of its children."""
    return dict(module.named_parameters(recurse=False, remove_duplicate=False))


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """The modules, by name, that have a rule and whose parameters are theirs alone.

    The type must be exactly torch's: a subclass may compute something else. A weight that is not a parameter of its
    module (`torch.nn.utils.parametrize`, `prune`) has no rule.
    """
    owners = Counter(id(p) for module in model.modules() for p in own(module).values())
    return {name: module for name, module in model.named_modules() if has_rule(module, owners)}


def has_rule(module: nn.Module, owners: Counter[int]) -> bool:
    """Whether the rule of its type, if there is one, measures this module."""
    if type(module) not in RULES or not {"weight"} <= own(module).keys() <= {"weight", "bias"}:
        return False
    if any(owners[id(p)] > 1 for p in own(module).values()):
        return False
    padding = getattr(module, "padding", 0)
    return (
        "forward" not in vars(module)
        and not isinstance(padding, str)
        and getattr(module, "padding_mode", "zeros") == "zeros"
    )


def dimensions(module: Any) -> int:
    """The fewest dimensions of an input that has one example per first index."""
    match module:
        case nn.Embedding():
            return 1
        case nn.LayerNorm():
            return len(module.normalized_shape) + 1
        case nn.Conv1d() | nn.Conv2d():
            return len(module.kernel_size) + 2
    return 2
