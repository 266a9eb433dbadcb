"""VGG for small images: the networks of De Lange et al. (2021) for Tiny ImageNet (Benzing 2022, table 2).

3x3 convolutions that keep the resolution, each with a ReLU, in four blocks that end with a 2x2 max-pool; then two
hidden layers. Neither normalisation nor dropout. Initial weights are those of torchvision's VGG: convolutions normal
with variance 2 / (9 channels out), hidden layers normal with deviation 0.01, biases 0. The heads are drawn as PyTorch's
linear layers, and nothing protects them.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor
from torch.nn import functional

from cl_repro.common.errors import UserError
from cl_repro.common.rules import one_of, require
from cl_repro.models.layers import channels_last, check_images, convolution, init_linear, no_tap, perceptron
from cl_repro.types import Net, Tap, Tree

# Channels of the convolutions, block by block, and units of the hidden layers.
VARIANTS = {
    "small": (((64,), (64,), (64, 64), (128, 128)), (128, 128)),
    "base": (((64,), (64,), (128, 128), (256, 256)), (512, 512)),
    "wide": (((64,), (128,), (256, 256), (512, 512)), (512, 512)),
    "deep": (((64,), (64,) * 6, (128,) * 6, (256,) * 6), (512, 512)),
}
THINNEST = 64  # every width is a multiple of it
DEVIATION = 0.01  # of the initial weights of hidden layers


def vgg(variant: str, shrink: int = 1, *, input_shape: Sequence[int], n_outputs: int) -> Net:
    """One of the four networks.

    Args:
        variant: small, base, wide or deep.
        shrink: what channels and units are divided by; 1 in the paper. It must divide 64.
        input_shape: (colours, height, width) of one example.
        n_outputs: C, logits of all heads.

    Returns:
        The network; its layers are called conv1, conv2, ..., fc1, fc2, head.

    Raises:
        UserError: if the variant is unknown, nothing is left of a layer, or the examples are not images, or too small.
    """
    require("model.variant", variant, one_of(VARIANTS))
    if type(shrink) is not int or shrink < 1 or THINNEST % shrink:
        raise UserError(f"model.shrink={shrink}: must divide {THINNEST}")
    check_images("vgg", input_shape)
    blocks = [[n // shrink for n in block] for block in VARIANTS[variant][0]]
    height, width = (side // 2 ** len(blocks) for side in input_shape[1:])
    if min(height, width) < 1:
        raise UserError(f"model=vgg: {len(blocks)} max-pools leave nothing of images {list(input_shape)}")
    channels = [input_shape[0], *(n for block in blocks for n in block)]
    hidden = [n // shrink for n in VARIANTS[variant][1]]
    units = [channels[-1] * height * width, *hidden]

    def init(generator: Generator) -> tuple[Tree, Tree]:
        params: Tree = {}
        for i, (n_in, n_out) in enumerate(pairwise(channels), 1):
            shape = (n_out, n_in, 3, 3)
            params |= normal(f"conv{i}", generator, math.sqrt(2 / (9 * n_out)), *shape)
        for i, (n_in, n_out) in enumerate(pairwise(units), 1):
            params |= normal(f"fc{i}", generator, DEVIATION, n_out, n_in)
        return params | init_linear("head", units[-1], n_outputs, generator), {}

    def apply(params: Tree, buffers: Tree, x: Tensor, *, train: bool = False, tap: Tap = no_tap) -> tuple[Tensor, Tree]:
        a, i = channels_last(x), 0  # [N, colours, H, W]
        for block in blocks:
            for place in range(1, len(block) + 1):
                i += 1
                z = convolution(params, f"conv{i}", a, tap, padding=1)
                # the ReLU of a maximum is the maximum of the ReLUs, and has a quarter of the work
                a = (functional.max_pool2d(z, 2) if place == len(block) else z).relu()
        a = a.permute(0, 2, 3, 1).flatten(1)  # [N, H W channels]
        return perceptron(params, [*(f"fc{i}" for i in range(1, len(units))), "head"], a, tap), buffers

    return Net(init, apply, unprotected=frozenset({"head.weight", "head.bias"}))


def normal(name: str, generator: Generator, deviation: float, *shape: int) -> Tree:
    """W [*shape], normal with this deviation, and b = 0 [out]."""
    return {
        f"{name}.weight": torch.empty(*shape).normal_(0, deviation, generator=generator),
        f"{name}.bias": torch.zeros(shape[0]),
    }
