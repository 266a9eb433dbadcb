"""Four convolutions, a hidden layer, dropout: the CIFAR network of Benzing (2022, table F.1).

It is Keras's CIFAR example as Zenke et al. (2017) use it, but that all convolutions keep the resolution.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor
from torch.nn import functional

from cl_repro.common.errors import UserError
from cl_repro.common.rules import one_of, require
from cl_repro.models import layers
from cl_repro.models.layers import no_tap
from cl_repro.types import Net, Tap, Tree

PADDINGS = ("same", "valid")


def keras_cnn(
    channels: Sequence[int] = (32, 64),
    units: int = 512,
    dropout: Sequence[float] = (0.25, 0.25, 0.5),
    padding: str = "same",
    head_fan_out: int | None = None,
    *,
    input_shape: Sequence[int],
    n_outputs: int,
) -> Net:
    """Blocks of two 3x3 convolutions with ReLU and a 2x2 max-pool, a hidden layer, and heads that nothing protects.

    Weights are Glorot-uniform, biases 0. Dropout follows every pool and the hidden layer: of single activations,
    of which a noise below the rate drops one; the others are divided by 1 - rate. It is there in training only.

    Args:
        channels: of both convolutions of each block.
        units: of the hidden layer.
        dropout: its rate after each block and after the hidden layer.
        padding: of the second convolution of each block: same, or valid as in Keras's example; the first has same.
        head_fan_out: that the head's law is told: the outputs of ONE task's head where the logits are those of several
            tasks' heads; None: all.
        input_shape: (colours, height, width) of one example.
        n_outputs: C, logits of all heads.

    Returns:
        The network; its layers are called conv1, conv2, ..., fc1, head.

    Raises:
        UserError: if a size or a rate is impossible, or the examples are not images, or too small.
    """
    layers.check_images("keras_cnn", input_shape)
    check_options(channels, units, dropout, padding, head_fan_out)
    shapes = pooled(channels, padding, input_shape)
    dropped = [
        shape.numel() if rate else 0 for shape, rate in zip([*shapes, torch.Size([units])], dropout, strict=True)
    ]

    def init(generator: Generator) -> tuple[Tree, Tree]:
        params: Tree = {}
        for block, (n_in, n_out) in enumerate(pairwise([input_shape[0], *channels])):
            params |= layers.glorot_convolution(f"conv{2 * block + 1}", n_in, n_out, 3, generator)
            params |= layers.glorot_convolution(f"conv{2 * block + 2}", n_out, n_out, 3, generator)
        params |= layers.glorot_linear("fc1", shapes[-1].numel(), units, generator)
        return params | layers.glorot_linear("head", units, n_outputs, generator, fan_out=head_fan_out), {}

    def apply(
        params: Tree, buffers: Tree, x: Tensor, *, train: bool = False, tap: Tap = no_tap, noise: Tensor | None = None
    ) -> tuple[Tensor, Tree]:
        drawn = noise.split(dropped, 1) if train and noise is not None else None

        def drop(a: Tensor, after: int) -> Tensor:
            return dropped_out(a, drawn[after], dropout[after]) if drawn and dropped[after] else a

        a = layers.channels_last(x)  # [N, colours, H, W]
        for block in range(len(channels)):
            a = layers.convolution(params, f"conv{2 * block + 1}", a, tap, padding=1).relu()
            z = layers.convolution(params, f"conv{2 * block + 2}", a, tap, padding=int(padding == "same"))
            # the ReLU of a maximum is the maximum of the ReLUs, and has a quarter of the work
            a = drop(functional.max_pool2d(z, 2).relu(), block)
        a = a.permute(0, 2, 3, 1).flatten(1)  # [N, H W channels]
        a = layers.linear(params, "fc1", a, tap).relu()
        return layers.linear(params, "head", drop(a, -1), tap), buffers

    return Net(init, apply, sum(dropped), frozenset({"head.weight", "head.bias"}))


def dropped_out(a: Tensor, noise: Tensor, rate: float) -> Tensor:
    """`a` [N, units] or [N, channels, H, W] where noise >= rate, over 1 - rate, else 0; noise [N, (H W) channels]."""
    kept = (noise >= rate).to(a.dtype).div_(1 - rate)
    if a.ndim == 4:
        kept = kept.unflatten(1, (*a.shape[2:], a.shape[1])).movedim(3, 1)
    return a * kept


def pooled(channels: Sequence[int], padding: str, input_shape: Sequence[int]) -> list[torch.Size]:
    """Shape (channels, height, width) of what leaves each block."""
    result, (height, width) = [], input_shape[1:]
    for n_out in channels:
        height, width = ((side - 2 * (padding == "valid")) // 2 for side in (height, width))
        result.append(torch.Size([n_out, height, width]))
    if min(height, width) < 1:
        raise UserError(f"model=keras_cnn: {len(channels)} blocks leave nothing of images {list(input_shape)}")
    return result


def check_options(
    channels: Sequence[int], units: int, dropout: Sequence[float], padding: str, head_fan_out: int | None
) -> None:
    """Refuse empty layers, impossible rates and unknown paddings."""
    layers.check_sizes("channels", channels)
    for key, size in (("units", units), ("head_fan_out", 1 if head_fan_out is None else head_fan_out)):
        if size < 1:
            raise UserError(f"model.{key}={size}: must be at least 1")
    if len(dropout) != len(channels) + 1 or not all(0 <= rate < 1 for rate in dropout):
        raise UserError(
            f"model.dropout={list(dropout)}: must list {len(channels) + 1} rates of at least 0 and below 1, "
            "one for each block and one for the hidden layer"
        )
    require("model.padding", padding, one_of(PADDINGS))
