"""Slim ResNet-18: He et al. (2016) for small images, few channels (Lopez-Paz and Ranzato 2017, section 4).

As `reducedResNet` of the reference code of van de Ven: the stem has a bias, the pooled features are signed (no ReLU
after the last addition), and there is no max-pool.
"""

from collections.abc import Sequence

from torch import Generator, Tensor

from cl_repro.common import tree
from cl_repro.common.rules import at_least, require
from cl_repro.models import layers
from cl_repro.models.layers import no_tap
from cl_repro.types import Net, Tap, Tree

STAGES = 4
BLOCKS = 2  # per stage


def slim_resnet18(channels: int, *, input_shape: Sequence[int], n_outputs: int) -> Net:
    """A residual network of 4 stages of 2 blocks of 2 convolutions.

    Args:
        channels: of the stem and the first stage; each later stage has twice those before it at half the resolution.
        input_shape: (colours, height, width) of one example.
        n_outputs: C, logits.

    Returns:
        The network; its layers are called stem, stage1.block1.conv1, ..., head. Buffers: the running statistics.

    Raises:
        UserError: if channels is below 1, or the examples are not images.
    """
    require("model.channels", channels, at_least(1))
    layers.check_images("slim_resnet18", input_shape)
    widths = [channels * 2**stage for stage in range(STAGES)]

    def init(generator: Generator) -> tuple[Tree, Tree]:
        params, buffers = init_unit("stem", input_shape[0], channels, 3, generator, bias=True)
        before = channels
        for stage, width in enumerate(widths, 1):
            for block in range(1, BLOCKS + 1):
                name = f"stage{stage}.block{block}"
                units = [("conv1", before, 3), ("conv2", width, 3)] + [("shortcut", before, 1)] * (before != width)
                for unit, n_in, kernel in units:
                    more = init_unit(f"{name}.{unit}", n_in, width, kernel, generator)
                    params, buffers = params | more[0], buffers | more[1]
                before = width
        return params | layers.init_linear("head", widths[-1], n_outputs, generator), buffers

    def apply(params: Tree, buffers: Tree, x: Tensor, *, train: bool = False, tap: Tap = no_tap) -> tuple[Tensor, Tree]:
        after = tree.copied(buffers) if train else buffers  # the caller's stay as they are

        def unit(name: str, a: Tensor, stride: int = 1) -> Tensor:
            """Convolution, then batch normalisation; odd kernels keep the resolution at stride 1."""
            padding = params[f"{name}.weight"].shape[-1] // 2
            z = layers.convolution(params, name, a, tap, stride=stride, padding=padding)
            return layers.batch_norm(params, after, f"{name}.norm", z, tap, train=train)

        a = unit("stem", layers.channels_last(x)).relu()  # [N, channels, H, W]
        for stage in range(1, STAGES + 1):
            for block in range(1, BLOCKS + 1):
                name, last = f"stage{stage}.block{block}", (stage, block) == (STAGES, BLOCKS)
                halved = f"{name}.shortcut.weight" in params
                z = unit(f"{name}.conv2", unit(f"{name}.conv1", a, 2 if halved else 1).relu())
                z = z + (unit(f"{name}.shortcut", a, 2) if halved else a)
                a = z if last else z.relu()
        return layers.linear(params, "head", a.mean((2, 3)), tap), after

    return Net(init, apply)


def init_unit(
    name: str, n_in: int, n_out: int, kernel: int, generator: Generator, *, bias: bool = False
) -> tuple[Tree, Tree]:
    """A convolution and its normalisation."""
    params, buffers = layers.init_batch_norm(f"{name}.norm", n_out)
    return layers.init_convolution(name, n_in, n_out, kernel, generator, bias=bias) | params, buffers
