"""The usual style, for comparison: a module, the penalty in the loss, default Adam, items one at a time.

It computes the same as the engine (a test compares the gradients). What is timed leaves out what the usual code also
does in each step (accuracy, `.item()`, logging): the ratios are on the safe side.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from cl_repro.common import tree
from cl_repro.engine import Experiment, Stack
from cl_repro.importance.one_sample import one_sample
from cl_repro.types import Benchmark, Tree


class MLP(nn.Module):
    """Linear -> ReLU, ..., linear; the parameters have the names that `models.mlp` gives them."""

    def __init__(self, sizes: Sequence[int]) -> None:
        """`sizes`: inputs, units of each hidden layer, outputs."""
        super().__init__()
        names = [f"fc{i}" for i in range(1, len(sizes) - 1)] + ["head"]
        for name, n_in, n_out in zip(names, sizes, sizes[1:], strict=False):
            self.add_module(name, nn.Linear(n_in, n_out))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, C] of x [B, ...]."""
        *hidden, head = self.children()
        a = x.flatten(1)
        for layer in hidden:
            a = torch.relu(layer(a))
        return head(a)


class Penalty(NamedTuple):
    """What the penalty of online EWC depends on."""

    lam: float
    importance: Tree
    anchor: Tree


def loss(model: nn.Module, x: Tensor, label: Tensor, classes: Sequence[int], penalty: Penalty | None) -> Tensor:
    """Mean cross-entropy over the active logits + (lam/2) sum F (theta - theta*)^2, a term per named parameter.

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
    if penalty:
        terms = []
        for name, p in model.named_parameters():
            terms.append((penalty.importance[name] * (p - penalty.anchor[name]) ** 2).sum())
        total = total + penalty.lam * 0.5 * sum(terms)
    return total


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

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        """`images` [N, *shape] uint8, `labels` [N]."""
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        """What torchvision's ToTensor makes of image `i`, without the detour by PIL, and its label."""
        image = np.array(self.images[i], copy=True)[None]
        return torch.from_numpy(image).to(torch.float32).div(255), int(self.labels[i])


def loader(benchmark: Benchmark, rows: Tensor, labels: Tensor, batch_size: int) -> DataLoader[tuple[Tensor, int]]:
    """Shuffled mini-batches of these rows, incomplete ones dropped, in this process."""
    items = Items(benchmark.x[rows].numpy(), labels.numpy())
    return DataLoader(items, batch_size, shuffle=True, drop_last=True, num_workers=0)


def importance_loop(experiment: Experiment, stack: Stack, seed: int, labels: str, n: int) -> Callable[[], Any]:
    """The first `n` examples of a seed's first task, one at a time (`importance.one_sample`), nothing else."""
    curriculum = experiment.benchmark.curriculum(seed)
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
