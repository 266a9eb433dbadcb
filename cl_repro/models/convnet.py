"""Five convolutions and an MLP: the CIFAR network of van de Ven et al. (2022), here trained from scratch.

3x3 convolutions with bias; the first keeps the resolution, the others halve it. All but the last are followed by
batch normalisation and ReLU; the last by neither.
"""

from collections.abc import Sequence

from torch import Generator, Tensor

from cl_repro.common import tree
from cl_repro.models import layers
from cl_repro.models.layers import no_tap
from cl_repro.types import Net, Tap, Tree


def convnet(channels: Sequence[int], hidden: Sequence[int], *, input_shape: Sequence[int], n_outputs: int) -> Net:
    """A plain convolutional network.

    Args:
        channels: of each convolution.
        hidden: units of each fully connected layer before the head.
        input_shape: (colours, height, width) of one example.
        n_outputs: C, logits.

    Returns:
        The network; its layers are called conv1, conv1.norm, ..., fc1, ..., head. Buffers: the running statistics.

    Raises:
        UserError: if a layer is empty, or the examples are not images.
    """
    layers.check_sizes("channels", channels)
    layers.check_sizes("hidden", hidden, some=False)
    layers.check_images("convnet", input_shape)
    height, width = (halved(size, len(channels) - 1) for size in input_shape[1:])
    convolutions = [f"conv{i}" for i in range(1, len(channels) + 1)]
    names = [f"fc{i}" for i in range(1, len(hidden) + 1)] + ["head"]

    def init(generator: Generator) -> tuple[Tree, Tree]:
        params: Tree = {}
        buffers: Tree = {}
        for name, n_in, n_out in zip(convolutions, [input_shape[0], *channels], channels, strict=False):
            params |= layers.init_convolution(name, n_in, n_out, 3, generator, bias=True)
            if name != convolutions[-1]:
                more = layers.init_batch_norm(f"{name}.norm", n_out)
                params, buffers = params | more[0], buffers | more[1]
        sizes = [channels[-1] * height * width, *hidden, n_outputs]
        return params | layers.init_perceptron(names, sizes, generator), buffers

    def apply(params: Tree, buffers: Tree, x: Tensor, *, train: bool = False, tap: Tap = no_tap) -> tuple[Tensor, Tree]:
        a, after = layers.channels_last(x), tree.copied(buffers) if train else buffers  # the caller's stay as they are
        for name in convolutions:
            a = layers.convolution(params, name, a, tap, stride=1 if name == convolutions[0] else 2, padding=1)
            if name != convolutions[-1]:
                a = layers.batch_norm(params, after, f"{name}.norm", a, tap, train=train).relu()
        return layers.perceptron(params, names, a.flatten(1), tap), after  # of [N, channels * height * width]

    return Net(init, apply)


def halved(size: int, times: int) -> int:
    """Positions along one side after `times` 3x3 convolutions of stride 2 and padding 1."""
    return size if times == 0 else halved(-(-size // 2), times - 1)
