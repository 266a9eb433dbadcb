"""The three scenarios: which logits exist, which are active, and what a label means.

G. M. van de Ven, T. Tuytelaars, A. S. Tolias: Three types of incremental learning. Nature Machine
Intelligence 4 (2022). Training, importance passes and evaluation ask the same three functions, so
a mask cannot differ between them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cl_repro.common.errors import UserError
from cl_repro.types import Scenario, Task


def task() -> Scenario:
    """Task-incremental: the task is known, so only its own classes compete.

    One output per class of the benchmark, of which a task uses its own: the same as a separate
    output layer for each task.
    """
    return Scenario(
        n_outputs=lambda benchmark, tasks: benchmark.n_classes,
        label=_class_id,
        active=lambda tasks, trained, asked: tuple(sorted(tasks[asked].classes)),
    )


def domain() -> Scenario:
    """Domain-incremental: the task is unknown, and every task shares the same outputs.

    A label is the position of the class among the sorted classes of its task, so digits whose pixels
    are permuted keep their labels.
    """
    return Scenario(
        n_outputs=lambda benchmark, tasks: _common_size(tasks),
        label=_position,
        active=lambda tasks, trained, asked: tuple(range(_common_size(tasks))),
    )


def class_() -> Scenario:
    """Class-incremental: the task is unknown, and all classes seen so far compete."""
    return Scenario(
        n_outputs=lambda benchmark, tasks: benchmark.n_classes,
        label=_class_id,
        active=lambda tasks, trained, asked: tuple(sorted({c for seen in tasks[: trained + 1] for c in seen.classes})),
    )


def _class_id(y: Tensor, of: Task) -> Tensor:
    return y + of.first_class


def _position(y: Tensor, of: Task) -> Tensor:
    return torch.searchsorted(torch.tensor(sorted(of.classes), device=y.device), y + of.first_class)


def _common_size(tasks: Sequence[Task]) -> int:
    sizes = {len(of.classes) for of in tasks}
    if len(sizes) != 1:
        raise UserError(f"scenario=domain: tasks have {sorted(sizes)} classes; all must have equally many")
    return sizes.pop()
