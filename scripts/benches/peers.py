"""The exact diagonal Fisher by ours and by other libraries, side by side in one process: time, memory, agreement.

Every pass is over the same random images of ten classes, in float32, by each library's own way to the diagonal of the
generalised Gauss-Newton of the mean cross-entropy, which is the exact Fisher. What a library cannot do is a row without
a number that says so in its words.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from benches.measure import AT_MOST, MB, Row, Setting, alone, cost, interleave, speedup, timed
from benches.modules import ConvNet, SlimResNet18, VisionTransformer, mlp
from benches.reference import backpack
from benches.workloads import SEED
from cl_repro.benchmarks.data.torchvision_shim import prepare_torchvision
from cl_repro.common import runtime
from cl_repro.importance import diagonal_fisher

CLASSES = 10
AT_A_TIME = 64  # examples of a pass of another library; ours chooses itself
JACOBIANS = 8  # examples of laplace-torch, which holds [examples, CLASSES, parameters]
UNITS = 3  # products with unit vectors that are timed, of one for each parameter


class Network(NamedTuple):
    """What is measured, on how many examples of which shape."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    n: int


NETWORKS = {
    "MLP 784-400-400-10": Network(partial(mlp, [784, 400, 400, CLASSES]), (784,), 512),
    "convnet 16-32-64": Network(partial(ConvNet, [16, 32, 64], [], 32, CLASSES), (3, 32, 32), 128),
    "slim ResNet-18": Network(partial(SlimResNet18, 20, CLASSES), (3, 32, 32), 64),
    "ViT of two blocks": Network(partial(VisionTransformer, 96, 4, 32, 4, CLASSES), (3, 32, 32), 64),
}


class Pass(NamedTuple):
    """A way to the diagonal, in the order of the parameters; or to a part of it, from which the time of all follows."""

    once: Callable[[], Tensor]
    entries: Tensor | None = None  # positions among all parameters; None: all
    examples: int | None = None  # how many of them it is over, the first; None: all


def ours(model: nn.Module, x: Tensor, y: Tensor) -> Pass:
    """`diagonal_fisher`."""
    return Pass(lambda: torch.cat([value.flatten() for value in diagonal_fisher(model, (x, y)).values()]))


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


PEERS: dict[str, tuple[Callable[[nn.Module, Tensor, Tensor], Pass], str]] = {
    "BackPACK": (lambda model, x, y: Pass(backpack(model, x, y, AT_A_TIME)), "dev"),
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
            way = made(name, peer)
            found[peer], passes[peer] = way.once().detach(), way
        except ImportError as error:
            refusals[peer] = f"{error.name} is not installed: pip install 'cl_repro[{extra}]'"
        except Exception as error:
            refusals[peer] = f"{peer} refuses: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
    exact = passes[OURS].once()
    parts = {who: share(way, len(exact), network.n) for who, way in passes.items()}
    seconds = interleave({who: timed(way.once, parts[who]) for who, way in passes.items()}, rounds) if found else {}
    memory = {who: alone(added, name, who) / MB for who in seconds}
    shape = " x ".join(map(str, network.shape))
    note = f"{network.n} random examples of {shape}, C = {CLASSES}, {len(exact)} parameters"
    result = []
    for peer in PEERS:
        time, peak, differs = (f"{name}, {what} / {peer}" for what in ("exact Fisher", "memory", "difference"))
        if peer in refusals:
            result.append(speedup(time, math.nan, math.nan, 1.0, refusals[peer]))
            continue
        way, part = passes[peer], parts[peer]
        how = note if part == 1 else f"{note}; other: extrapolated from {part:.2g} of the work"
        expected = exact if way.examples is None else made(name, OURS, way.examples).once()
        at = slice(None) if way.entries is None else way.entries
        worst = (found[peer] - expected[at]).abs().max().item() / expected.max().item()
        of_entry = "largest difference of an entry, of the largest entry"
        result += [
            speedup(time, seconds[OURS], seconds[peer], 1.0, how),
            cost(peak, memory[OURS], memory[peer], None, unit="MB", note="what a pass adds to the peak of a process"),
            Row(differs, None, None, "", 1e6 * worst, "ppm", 100.0, AT_MOST, of_entry),
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


def added(name: str, who: str) -> int:
    """Bytes that one pass adds to the peak of this process."""
    runtime.prepare()
    way = made(name, who)
    before = runtime.peak_memory("cpu")
    way.once()
    return runtime.peak_memory("cpu") - before
