"""The exact Fisher of convolutional networks: against training, against BackPACK, and the memory it takes."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

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
from benches.workloads import SEED, all_steps, experiment, first_task, random_data
from cl_repro.common import runtime
from cl_repro.engine.boundary import estimate
from cl_repro.engine.course import Course
from cl_repro.importance.fisher import exact
from cl_repro.models.convnet import convnet
from cl_repro.models.slim_resnet18 import slim_resnet18
from cl_repro.types import Net

SHAPE, BATCH, ROWS_PER_PASS = (3, 32, 32), 256, 64
TASK = 2000  # iterations, of the study
CHANNELS = [16, 32, 64, 128, 256]
SMALL, LARGE = 32, 96  # examples per pass whose memory is compared
NO_BACKPACK = "backpack-for-pytorch is not installed: pip install 'cl_repro[dev]'"
TRAINING = "CUDA: slim ResNet-18, training step of 256 / eager loop with a DataLoader"
PASS = "CUDA: slim ResNet-18, exact Fisher of 10,000 examples / 2000-iteration task"


class Subject(NamedTuple):
    """A network in both styles, with two outputs, so that both compute the same Fisher."""

    name: str
    net: Net
    module: Callable[[], nn.Module]
    epochs: float  # target


SUBJECTS = (
    Subject("slim ResNet-18", slim_resnet18(20, input_shape=SHAPE, n_outputs=2), partial(SlimResNet18, 20, 2), 1.5),
    Subject(
        "convnet 16-32-64-128-256",
        convnet(CHANNELS, [], input_shape=SHAPE, n_outputs=2),
        partial(ConvNet, CHANNELS, [], 32, 2),
        2.0,
    ),
)


def rows(setting: Setting) -> list[Row]:
    """Costs and memory on the CPU, and two rows that need CUDA."""
    result = []
    for subject in SUBJECTS:
        result += on_cpu(subject, BATCH, min(setting.rounds, 3))
    return [*result, memory_row(), *on_cuda(setting)]


def made(net: Net, n: int, batch: int, iterations: int, device: str = "cpu") -> Course:
    """A network at its start, and two-class tasks of n random images (times do not depend on what they show)."""
    benchmark = random_data(1, n, 10, SHAPE, device)
    return first_task(experiment(benchmark, (), batch, iterations, net=net, rows_per_pass=ROWS_PER_PASS))


def on_cpu(subject: Subject, n: int, rounds: int) -> list[Row]:
    """Processor seconds per example of the exact Fisher, of an epoch of training, and of BackPACK."""
    course = made(subject.net, n, n, 1)
    of, stack = course.experiment, course.stack
    candidates = {
        "fisher": timed(partial(estimate, of, stack.params, stack.buffers, exact(), SEED, 0), n),
        "epoch": timed(partial(all_steps, course), n),
    }
    other = diagonal_ggn(subject.module(), of.benchmark.to_input(of.benchmark.x), of.benchmark.curriculum(SEED).y)
    if other:
        candidates["backpack"] = timed(other, n)
    seconds = interleave(candidates, rounds)
    note = f"{n} random images of 3 x 32 x 32, C = 2, {ROWS_PER_PASS} at a time"
    first, second = f"{subject.name}, exact Fisher / training epoch", f"{subject.name}, exact Fisher / BackPACK"
    result = [
        cost(first, seconds["fisher"], seconds["epoch"], "s", subject.epochs, "epochs", note=f"{note}; batch {n}")
    ]
    if not other:
        return [*result, missing(second, "s", "x", 1.5, AT_LEAST, NO_BACKPACK)]
    return [*result, speedup(second, seconds["fisher"], seconds["backpack"], "s", 1.5, f"{note}; DiagGGNExact")]


def diagonal_ggn(module: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None] | None:
    """BackPACK's exact diagonal of the generalised Gauss-Newton, which is the exact Fisher; as `backpack_pass`."""
    return backpack_pass(module, x, y, "DiagGGNExact", use_converter=True)


def backpack_pass(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    extension: str,
    size: int = ROWS_PER_PASS,
    use_converter: bool = False,
    **settings: int,
) -> Callable[[], None] | None:
    """An extension of BackPACK; None if that is not installed.

    Args:
        module: in evaluation; BackPACK changes it.
        x: [N, ...].
        y: [N] int64.
        extension: its name.
        size: examples at a time.
        use_converter: whether BackPACK takes the module apart itself.
        settings: of the extension.

    Returns:
        One pass over all examples.
    """
    try:
        from backpack import backpack, extend, extensions  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    model = extend(module.eval(), use_converter=use_converter)
    loss = extend(nn.CrossEntropyLoss(reduction="sum"))

    def once() -> None:
        for part, label in zip(x.split(size), y.split(size), strict=True):
            with backpack(getattr(extensions, extension)(**settings)):
                loss(model(part), label).backward()

    return once


# --- memory ----------------------------------------------------------------------------------------------------------


def memory_row() -> Row:
    """What each example of a pass adds to the peak of a process that does nothing else."""
    few, many = (peak_of_pass(n) for n in (SMALL, LARGE))
    per_example = (many - few) / (LARGE - SMALL) / 1e6
    return Row(
        "slim ResNet-18, exact Fisher: memory per example",
        many / 1e6,
        few / 1e6,
        "MB",
        per_example,
        "MB",
        8.0,
        AT_MOST,
        f"peak of a process with rows_per_pass={LARGE}, and with {SMALL}; their difference per example",
    )


def peak_of_pass(rows_per_pass: int) -> int:
    """Bytes: the peak of a new process that makes one pass over 2 x `LARGE` examples."""
    command = [sys.executable, "-m", "benches.convolution", str(rows_per_pass)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def one_pass(rows_per_pass: int) -> int:
    """Bytes: the peak of this process after one pass."""
    runtime.prepare()
    course = made(SUBJECTS[0].net, 2 * LARGE, 1, 1)
    of, stack = course.experiment, course.stack
    estimate(of._replace(rows_per_pass=rows_per_pass), stack.params, stack.buffers, exact(), SEED, 0)
    return runtime.peak_memory("cpu")


# --- CUDA ------------------------------------------------------------------------------------------------------------


class Items(Dataset[tuple[Tensor, int]]):
    """Images one at a time, scaled when they are asked for."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        """`images` [N, 3, 32, 32] uint8, `labels` [N]."""
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        """Image `i` as floats in [0, 1], and its label."""
        return self.images[i].to(torch.float32).div(255), int(self.labels[i])


def on_cuda(setting: Setting) -> list[Row]:
    """Training against the usual loop, and the Fisher against training; `not measured` without CUDA."""
    if not setting.device.startswith("cuda"):
        absent = "torch sees no CUDA device here"
        return [missing(TRAINING, "s", "x", 2.0, AT_LEAST, absent), missing(PASS, "s", "%", 5.0, AT_MOST, absent)]
    steps, others, fisher = seconds_on(SUBJECTS[0], setting.device, 10_000, 256, 39, setting.rounds)
    note = f"{runtime.hardware(setting.device)}; an epoch of 39 steps of 256 random images; TF32 off in both"
    return [
        speedup(TRAINING, steps, others, "s", 2.0, note),
        cost(PASS, fisher, TASK * steps, "s", 5.0, "%", 100, f"{note}; other: 2000 x the measured step"),
    ]


def seconds_on(
    subject: Subject, device: str, n: int, batch: int, iterations: int, rounds: int
) -> tuple[float, float, float]:
    """Seconds of one of our training steps, of one of the usual loop, and of the exact Fisher of n examples."""
    course = made(subject.net, n, batch, iterations, device)
    of, stack = course.experiment._replace(rows_per_pass=500), course.stack
    model = subject.module().to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    items = Items(of.benchmark.x.cpu(), of.benchmark.curriculum(SEED).y.cpu())
    loader = DataLoader(items, batch, shuffle=True, drop_last=True, pin_memory=device.startswith("cuda"))

    def usual() -> None:
        for (x, y), _ in zip(loader, range(iterations), strict=False):
            total = functional.cross_entropy(model(x.to(device)), y.to(device))
            optimiser.zero_grad()
            total.backward()
            optimiser.step()

    candidates = {
        "ours": timed(partial(all_steps, course), iterations, device),
        "usual": timed(usual, iterations, device),
        "fisher": timed(partial(estimate, of, stack.params, stack.buffers, exact(), SEED, 0), 1, device),
    }
    seconds = interleave(candidates, rounds)
    return seconds["ours"], seconds["usual"], seconds["fisher"]


def main(arguments: Sequence[str]) -> None:
    """`python -m benches.convolution ROWS`: the peak of one pass, for `peak_of_pass`."""
    print(one_pass(int(arguments[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
