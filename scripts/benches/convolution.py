"""The exact Fisher of convolutional networks: against training, against BackPACK, and the memory it takes."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from benches import reference
from benches.measure import MB, NO_CUDA, Row, Setting, alone, cost, figure, interleave, speedup, timed
from benches.modules import ConvNet, SlimResNet18
from benches.workloads import SEED, experiment, first_task, one_pass, random_data, training
from cl_repro.common import runtime
from cl_repro.engine.course import Course
from cl_repro.importance.fisher import exact
from cl_repro.models.convnet import convnet
from cl_repro.models.slim_resnet18 import slim_resnet18
from cl_repro.types import Net

SHAPE, BATCH, ROWS_PER_PASS = (3, 32, 32), 256, 64
TASK = 2000  # iterations, of the study
CHANNELS = [16, 32, 64, 128, 256]
SMALL, LARGE = 32, 96  # examples per pass whose memory is compared


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
    costs = [row for subject in SUBJECTS for row in on_cpu(subject, BATCH, min(setting.rounds, 3))]
    return [*costs, memory_row(), *on_cuda(setting)]


def made(net: Net, n: int, batch: int, iterations: int, device: str = "cpu", rows_per_pass: int = 64) -> Course:
    """A network at its start, and two-class tasks of n random images (times do not depend on what they show)."""
    benchmark = random_data(1, n, 10, SHAPE, device)
    return first_task(experiment(benchmark, (), batch, iterations, net=net, rows_per_pass=rows_per_pass))


def on_cpu(subject: Subject, n: int, rounds: int) -> list[Row]:
    """Processor seconds per example of the exact Fisher, of an epoch of training, and of BackPACK."""
    course = made(subject.net, n, n, 1)
    candidates = {"fisher": one_pass(course, exact(), n), "epoch": training(course, n)}
    benchmark, known = (
        course.experiment.benchmark,
        f"{n} random images of 3 x 32 x 32, C = 2, {ROWS_PER_PASS} at a time",
    )
    x, y = benchmark.to_input(benchmark.x), benchmark.curriculum(SEED).y
    try:
        candidates["backpack"] = timed(reference.backpack(subject.module().eval(), x, y, ROWS_PER_PASS), n)
        note = f"{known}; DiagGGNExact"
    except ImportError:
        note = reference.NO_BACKPACK
    seconds = interleave(candidates, rounds)
    name, ours = f"{subject.name}, exact Fisher", seconds["fisher"]
    epochs = cost(
        f"{name} / training epoch", ours, seconds["epoch"], subject.epochs, "epochs", note=f"{known}; batch {n}"
    )
    return [epochs, speedup(f"{name} / BackPACK", ours, seconds.get("backpack", math.nan), 1.5, note)]


def memory_row() -> Row:
    """What each example of a pass adds to the peak of a process that does nothing else."""
    few, many = (alone(peak_of_pass, n) / MB for n in (SMALL, LARGE))
    note = f"peak of a process with rows_per_pass={LARGE}, and with {SMALL}; their difference per example"
    name, per_example = "slim ResNet-18, exact Fisher: memory per example", (many - few) / (LARGE - SMALL)
    return figure(name, per_example, "MB", 8.0, note, few)._replace(ours=many)


def peak_of_pass(rows_per_pass: int) -> int:
    """Bytes: the peak of this process after one pass over 2 x `LARGE` examples."""
    runtime.prepare()
    one_pass(made(SUBJECTS[0].net, 2 * LARGE, 1, 1, rows_per_pass=rows_per_pass), exact())()
    return runtime.peak_memory("cpu")


# --- CUDA ------------------------------------------------------------------------------------------------------------


def on_cuda(setting: Setting) -> list[Row]:
    """Training against the usual loop, and the Fisher against training; `not measured` without CUDA."""
    seconds, note = NO_CUDA
    if setting.cuda:
        seconds = seconds_on(SUBJECTS[0], setting.device, 10_000, 256, 39, setting.rounds)
        hardware = runtime.hardware(setting.device)
        note = f"{hardware}; an epoch of 39 steps of 256 random images; TF32 off in both"
    name, ours, of_task = (
        "CUDA: slim ResNet-18",
        seconds["ours"],
        note + "; other: 2000 x the measured step" * setting.cuda,
    )
    loop = f"{name}, training step of 256 / eager loop with a DataLoader"
    fisher = f"{name}, exact Fisher of 10,000 examples / 2000-iteration task"
    return [
        speedup(loop, ours, seconds["usual"], 2.0, note),
        cost(fisher, seconds["fisher"], TASK * ours, 5.0, "%", note=of_task),
    ]


def seconds_on(subject: Subject, device: str, n: int, batch: int, iterations: int, rounds: int) -> dict[str, float]:
    """Seconds of one of our training steps, of one of the usual loop, and of the exact Fisher of n examples."""
    course = made(subject.net, n, batch, iterations, device, rows_per_pass=500)
    benchmark, model = course.experiment.benchmark, subject.module().to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = reference.loader(benchmark.x, benchmark.curriculum(SEED).y, batch, pin_memory=device.startswith("cuda"))

    def usual() -> None:
        for (x, y), _ in zip(loader, range(iterations), strict=False):
            reference.step(optimiser, functional.cross_entropy(model(x.to(device)), y.to(device)))

    candidates = {
        "ours": training(course),
        "usual": timed(usual, iterations, device),
        "fisher": one_pass(course, exact()),
    }
    return interleave(candidates, rounds)
