"""Networks as usual code writes them, with torch.nn: for comparisons of speed, and test oracles."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """A basic block: two 3x3 convolutions beside a shortcut, no ReLU after the addition."""

    def __init__(self, n_in: int, n_out: int) -> None:
        """More channels go with half the resolution, and a projection in the shortcut."""
        super().__init__()
        stride = 1 if n_in == n_out else 2
        self.conv1, self.norm1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out)
        self.conv2, self.norm2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False), nn.BatchNorm2d(n_out)
        self.relu = nn.ReLU()
        self.shortcut = nn.Sequential()
        if stride == 2:
            self.shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 1, 2, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        """[N, n_in, H, W] -> [N, n_out, H / stride, W / stride]."""
        return self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x))))) + self.shortcut(x)


class SlimResNet18(nn.Module):
    """`models.slim_resnet18`."""

    def __init__(self, channels: int, n_outputs: int) -> None:
        """`channels` of the stem."""
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, 1, 1), nn.BatchNorm2d(channels), nn.ReLU())
        widths = [channels * factor for factor in (1, 1, 1, 2, 2, 4, 4, 8, 8)]
        body: list[nn.Module] = []
        for n_in, n_out in pairwise(widths):
            body += [Block(n_in, n_out), nn.ReLU()]
        pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.body = nn.Sequential(*body[:-1], *pool)  # no ReLU after the last addition
        self.head = nn.Linear(widths[-1], n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, n_outputs]."""
        return self.head(self.body(self.stem(x)))


class ConvNet(nn.Module):
    """`models.convnet` for images of 3 colours."""

    def __init__(self, channels: Sequence[int], hidden: Sequence[int], side: int, n_outputs: int) -> None:
        """`side`: of the images."""
        super().__init__()
        modules: list[nn.Module] = []
        for i, (n_in, n_out) in enumerate(pairwise([3, *channels])):
            modules.append(nn.Conv2d(n_in, n_out, 3, 1 if i == 0 else 2, 1))
            if i < len(channels) - 1:
                modules += [nn.BatchNorm2d(n_out), nn.ReLU()]
        side //= 2 ** (len(channels) - 1)
        modules.append(nn.Flatten())
        for n_in, n_out in pairwise([channels[-1] * side**2, *hidden]):
            modules += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.body = nn.Sequential(*modules)
        self.head = nn.Linear(hidden[-1] if hidden else channels[-1] * side**2, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, side, side] -> [N, n_outputs]."""
        return self.head(self.body(x))


class Attention(nn.Module):
    """A block of a vision transformer: attention and an MLP, each behind a LayerNorm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        """`width` features of each position, in `heads` parts."""
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """[N, positions, width] -> the same."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).flatten(-2))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Patches, learned positions, two blocks, the mean over positions."""

    def __init__(self, width: int, heads: int, side: int, patch: int, n_outputs: int) -> None:
        """Images of 3 colours and `side` x `side` pixels, in patches of `patch` x `patch`."""
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.positions = nn.Parameter(0.02 * torch.randn((side // patch) ** 2, width))
        self.blocks = nn.Sequential(Attention(width, heads), Attention(width, heads))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, side, side] -> [N, n_outputs]."""
        x = self.patches(x).flatten(2).mT + self.positions
        return self.head(self.norm(self.blocks(x)).mean(1))


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Linear, ReLU, ..., linear; the parameters have the names that `models.mlp` gives them."""
    *hidden, (n_in, n_out) = pairwise(sizes)
    layers: list[tuple[str, nn.Module]] = [("flatten", nn.Flatten())]
    for i, units in enumerate(hidden, 1):
        layers += [(f"fc{i}", nn.Linear(*units)), (f"relu{i}", nn.ReLU())]
    return nn.Sequential(OrderedDict([*layers, ("head", nn.Linear(n_in, n_out))]))
