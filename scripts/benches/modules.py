"""The convolutional networks as usual code writes them, with torch.nn: for comparisons of speed, and test oracles."""

from collections.abc import Sequence
from itertools import pairwise

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
