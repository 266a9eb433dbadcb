"""The exact diagonal Fisher by ours and by other libraries, side by side in one process: time, memory, agreement.

Every pass is over the same random images of ten classes, in float32, by each library's own way to the diagonal of the
generalised Gauss-Newton of the mean cross-entropy, which is the exact Fisher. What a library cannot do is a row without
a number that says so in its words.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from benches.measure import (
    AT_LEAST,
    AT_MOST,
    Row,
    Setting,
    cost,
    interleave,
    missing,
    speedup,
    timed,
)
from benches.modules import ConvNet, SlimResNet18
from benches.workloads import SEED
from cl_repro.benchmarks.data.torchvision_shim import prepare_torchvision
from cl_repro.common import runtime
from cl_repro.importance import diagonal_fisher

CLASSES = 10
AT_A_TIME = 64  # examples of a pass of another library; ours chooses itself
JACOBIANS = 8  # examples of laplace-torch, which holds [examples, CLASSES, parameters]
UNITS = 3  # products with unit vectors that are timed, of one for each parameter
MB = 1e6


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

    def __init__(self, width: int, heads: int, side: int, patch: int) -> None:
        """Images of 3 colours and `side` x `side` pixels, in patches of `patch` x `patch`."""
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.positions = nn.Parameter(0.02 * torch.randn((side // patch) ** 2, width))
        self.blocks = nn.Sequential(Attention(width, heads), Attention(width, heads))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, side, side] -> [N, CLASSES]."""
        x = self.patches(x).flatten(2).mT + self.positions
        return self.head(self.norm(self.blocks(x)).mean(1))


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Linear, ReLU, ..., Linear."""
    layers = [layer for n_in, n_out in pairwise(sizes) for layer in (nn.Linear(n_in, n_out), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


class Network(NamedTuple):
    """What is measured, on how many examples of which shape."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    n: int


NETWORKS = {
    "MLP 784-400-400-10": Network(partial(mlp, [784, 400, 400, CLASSES]), (784,), 512),
    "convnet 16-32-64": Network(partial(ConvNet, [16, 32, 64], [], 32, CLASSES), (3, 32, 32), 128),
    "slim ResNet-18": Network(partial(SlimResNet18, 20, CLASSES), (3, 32, 32), 64),
    "ViT of two blocks": Network(partial(VisionTransformer, 96, 4, 32, 4), (3, 32, 32), 64),
}


class Pass(NamedTuple):
    """A way to the diagonal, in the order of the parameters; or to a part of it, from which the time of all follows."""

    once: Callable[[], Tensor]
    entries: Tensor | None = None  # positions among all parameters; None: all
    examples: int | None = None  # how many of them it is over, the first; None: all


def ours(model: nn.Module, x: Tensor, y: Tensor) -> Pass:
    """`diagonal_fisher`."""
    return Pass(lambda: torch.cat([value.flatten() for value in diagonal_fisher(model, (x, y)).values()]))


def backpack(model: nn.Module, x: Tensor, y: Tensor) -> Pass:
    """DiagGGNExact of BackPACK."""
    from backpack import backpack, extend, extensions  # noqa: PLC0415 - as all of these, where it is asked for

    parameters: list[Any] = [*model.parameters()]
    extended = extend(model, use_converter=not isinstance(model, nn.Sequential))
    loss = extend(nn.CrossEntropyLoss(reduction="sum"))

    def once() -> Tensor:
        total = torch.zeros(sum(p.numel() for p in parameters))
        for part, label in zip(x.split(AT_A_TIME), y.split(AT_A_TIME), strict=True):
            with backpack(extensions.DiagGGNExact()):
                loss(extended(part), label).backward()
            total += torch.cat([p.diag_ggn_exact.flatten() for p in parameters])
            extended.zero_grad()
        return total / len(x)

    return Pass(once)


def nngeometry(model: nn.Module, x: Tensor, y: Tensor) -> Pass:
    """FIM with PMatDiag of nngeometry, closed form in the labels."""
    from nngeometry.metrics import FIM  # noqa: PLC0415
    from nngeometry.object import PMatDiag  # noqa: PLC0415
    from torch.utils.data import DataLoader, TensorDataset  # noqa: PLC0415

    loader = DataLoader(TensorDataset(x, y), batch_size=AT_A_TIME)
    return Pass(lambda: FIM(model, loader, PMatDiag, variant="classif_logits").get_diag())


def laplace_torch(model: nn.Module, x: Tensor, y: Tensor) -> Pass:
    """The diagonal of laplace-torch's default backend, from Jacobians: minutes, of all examples."""
    prepare_torchvision()  # which it imports
    from laplace.curvature import CurvlinopsGGN  # noqa: PLC0415

    backend = CurvlinopsGGN(model, "classification")

    return Pass(lambda: backend.diag(x[:JACOBIANS], y[:JACOBIANS])[1] / JACOBIANS, examples=JACOBIANS)


def curvlinops(model: nn.Module, x: Tensor, y: Tensor) -> Pass:
    """Entries of GGNLinearOperator of curvlinops, by products with unit vectors: it has no other way to all of it."""
    from curvlinops import GGNLinearOperator  # noqa: PLC0415

    parameters = [*model.parameters()]
    size = sum(p.numel() for p in parameters)
    data = [*zip(x.split(AT_A_TIME), y.split(AT_A_TIME), strict=True)]
    operator = GGNLinearOperator(model, nn.CrossEntropyLoss(), parameters, data, check_deterministic=False)
    at = torch.linspace(0, size - 1, UNITS).long()
    units = functional.one_hot(at, size).to(x.dtype).mT  # [P, UNITS]
    return Pass(lambda: (operator @ units).gather(0, at[None])[0], at)


PEERS = {
    "BackPACK": (backpack, "dev"),
    "nngeometry": (nngeometry, "peers"),
    "laplace-torch": (laplace_torch, "peers"),
    "curvlinops": (curvlinops, "peers"),
}
"""Name -> way, and the extra that the library comes with."""
OURS = "ours"


def rows(setting: Setting) -> list[Row]:
    """Three rows for each network and library: time, memory, agreement."""
    return [row for name in NETWORKS for row in of_network(name, min(setting.rounds, 3))]


def of_network(name: str, rounds: int) -> list[Row]:
    """The rows of one network."""
    network = NETWORKS[name]
    passes, refusals, found = {OURS: made(name, OURS)}, dict[str, str](), dict[str, Tensor]()
    for peer, (_, extra) in PEERS.items():
        try:
            passes[peer] = made(name, peer)
            found[peer] = passes[peer].once().detach()
        except ImportError as error:
            refusals[peer] = f"{error.name} is not installed: pip install 'cl_repro[{extra}]'"
        except Exception as error:
            refusals[peer] = f"{peer} refuses: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
    exact = passes[OURS].once()
    candidates = {
        who: timed(way.once, share(way, len(exact), network.n)) for who, way in passes.items() if who not in refusals
    }
    seconds = interleave(candidates, rounds) if len(candidates) > 1 else {}
    memory = {who: added(name, who) / MB for who in seconds}
    note = (
        f"{network.n} random examples of {' x '.join(map(str, network.shape))}, C = {CLASSES}, {len(exact)} parameters"
    )
    result = []
    for peer in PEERS:
        time, peak, differs = (f"{name}, {what} / {peer}" for what in ("exact Fisher", "memory", "difference"))
        if peer in refusals:
            result.append(missing(time, "s", "x", 1.0, AT_LEAST, refusals[peer]))
            continue
        way = passes[peer]
        part = share(way, len(exact), network.n)
        how = note if part == 1 else f"{note}; other: extrapolated from {part:.2g} of the work"
        expected = exact if way.examples is None else made(name, OURS, way.examples).once()
        at = slice(None) if way.entries is None else way.entries
        worst = (found[peer] - expected[at]).abs().max().item() / expected.max().item()
        result += [
            speedup(time, seconds[OURS], seconds[peer], "s", 1.0, how),
            cost(peak, memory[OURS], memory[peer], "MB", None, note="what a pass adds to the peak of a process"),
            Row(
                differs,
                None,
                None,
                "",
                1e6 * worst,
                "ppm",
                100.0,
                AT_MOST,
                "largest difference of an entry, of the largest entry",
            ),
        ]
    return result


def share(way: Pass, parameters: int, n: int) -> float:
    """How much of the work for all parameters and examples it does."""
    return (1 if way.entries is None else len(way.entries) / parameters) * (way.examples or n) / n


def made(name: str, who: str, n: int | None = None) -> Pass:
    """A library's way to the diagonal of a network: for all the same weights and examples, or the first n of these."""
    network = NETWORKS[name]
    torch.manual_seed(SEED)
    model = network.make().eval()
    x = torch.rand(network.n, *network.shape)
    y = torch.randint(0, CLASSES, (network.n,))
    return (ours if who == OURS else PEERS[who][0])(model, x[:n], y[:n])


# --- memory ----------------------------------------------------------------------------------------------------------


def added(name: str, who: str) -> int:
    """Bytes that one pass adds to the peak of a new process."""
    command = [sys.executable, "-m", "benches.peers", name, who]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def one_pass(name: str, who: str) -> int:
    """The same, of this process."""
    runtime.prepare()
    way = made(name, who)
    before = runtime.peak_memory("cpu")
    way.once()
    return runtime.peak_memory("cpu") - before


if __name__ == "__main__":
    print(one_pass(*sys.argv[1:]))
