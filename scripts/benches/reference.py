"""The usual style, for comparison: a module, the penalty in the loss, default Adam, items one at a time.

It computes the same as the engine (a test compares the gradients). What is timed leaves out what the usual code also
does in each step (accuracy, `.item()`, logging): the ratios are on the safe side.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from cl_repro.common import tree
from cl_repro.engine.course import Course
from cl_repro.importance.one_sample import one_sample
from cl_repro.types import Benchmark

Penalty = Callable[[nn.Module], Tensor]
"""What is added to the loss: `quadratic_penalty`, with an importance, an anchor and a strength."""


def loss(model: nn.Module, x: Tensor, label: Tensor, classes: Sequence[int], penalty: Penalty | None) -> Tensor:
    """Mean cross-entropy over the active logits, and the penalty, a term per named parameter.

    Args:
        model: the network.
        x: [B, ...].
        label: [B] int64, logit indices.
        classes: the active logits, ascending and adjacent.
        penalty: None: no penalty.

    Returns:
        Scalar, nats.
    """
    total = functional.cross_entropy(model(x)[:, list(classes)], label - classes[0])
    return total + penalty(model) if penalty else total


def step(optimiser: Optimizer, total: Tensor) -> None:
    """One step of an optimiser on a loss."""
    optimiser.zero_grad()
    total.backward()
    optimiser.step()


def train(
    model: nn.Module,
    optimiser: Optimizer,
    benchmark: Benchmark,
    batches: Any,
    classes: Sequence[int],
    penalty: Penalty | None,
) -> None:
    """One step per mini-batch of one seed, drawn before; the data are resident, as ours."""
    for rows, label in zip(batches.rows[0], batches.label[0], strict=True):
        step(optimiser, loss(model, benchmark.to_input(benchmark.x[rows]), label, classes, penalty))


class Items(Dataset[tuple[Tensor, int]]):
    """Images one at a time, each made a float tensor in [0, 1] when it is asked for."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        """`images` [N, *shape] uint8, `labels` [N]."""
        self.images, self.labels = images.cpu().numpy(), labels.cpu().numpy()

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        """What torchvision's ToTensor makes of image `i`, without the detour by PIL, and its label."""
        image = np.array(self.images[i], copy=True)
        return torch.from_numpy(image).to(torch.float32).div(255), int(self.labels[i])


def loader(images: Tensor, labels: Tensor, batch_size: int, pin_memory: bool = False) -> DataLoader[Any]:
    """Shuffled mini-batches, incomplete ones dropped, made in this process."""
    return DataLoader(Items(images, labels), batch_size, shuffle=True, drop_last=True, pin_memory=pin_memory)


def some(batches: DataLoader[Any], n: int) -> list[Any]:
    """The first n mini-batches."""
    return [batch for _, batch in zip(range(n), batches, strict=False)]


def importance_loop(course: Course, labels: str, n: int) -> Callable[[], Any]:
    """The first `n` examples of the first task, one at a time (`importance.one_sample`), nothing else."""
    experiment, stack = course.experiment, course.stack
    curriculum = experiment.benchmark.curriculum(stack.seeds[0])
    task = curriculum.tasks[0]
    rows, device = task.rows[:n], task.rows.device
    active = torch.tensor(task.classes, device=device)
    return partial(
        one_sample(labels).sum,
        experiment.net,
        tree.at(stack.params, 0),
        {},
        experiment.benchmark.to_input(experiment.benchmark.x[rows]),
        torch.searchsorted(active, curriculum.y[rows]),
        torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(device),
        active,
    )


NO_BACKPACK = "backpack-for-pytorch is not installed: pip install 'cl_repro[dev]'"


def backpack(
    module: nn.Module, x: Tensor, y: Tensor, at_a_time: int, extension: str = "DiagGGNExact", **settings: int
) -> Callable[[], Tensor]:
    """A diagonal of the generalised Gauss-Newton by BackPACK; DiagGGNExact is the exact Fisher.

    Args:
        module: in evaluation; BackPACK changes it.
        x: [N, ...].
        y: [N] int64.
        at_a_time: examples of a pass.
        extension: its name.
        settings: of the extension.

    Returns:
        One pass over all examples -> [P], their mean, in the order of the parameters.

    Raises:
        ImportError: it is not installed.
    """
    from backpack import backpack, extend, extensions  # noqa: PLC0415 - an extra

    parameters: list[Any] = [*module.parameters()]
    extended = extend(module, use_converter=not isinstance(module, nn.Sequential))
    loss, made = extend(nn.CrossEntropyLoss(reduction="sum")), getattr(extensions, extension)(**settings)

    def once() -> Tensor:
        total = torch.zeros(sum(p.numel() for p in parameters), dtype=x.dtype)
        for part, label in zip(x.split(at_a_time), y.split(at_a_time), strict=True):
            with backpack(made):
                loss(extended(part), label).backward()
            total += torch.cat([getattr(p, made.savefield).flatten() for p in parameters])
            extended.zero_grad()
        return total / len(x)

    return once
