"""The loss of a task in training, and its gradient, between two steps: cross-entropy, without dropout or penalty."""

from typing import NamedTuple

import torch
from torch import Tensor

from cl_repro.engine.batches import minibatch
from cl_repro.engine.boundary import in_parts
from cl_repro.engine.course import Course
from cl_repro.engine.objective import task_loss
from cl_repro.engine.stack import active_mask, gathered, look, lower
from cl_repro.types import Tree


class Slope(NamedTuple):
    """A mean cross-entropy where the network is now."""

    loss: float  # nats
    gradient: Tree  # of protected parameters, {name: [*shape]}


def loss_of_batch(course: Course, i: int) -> float:
    """The loss of mini-batch i, before it is trained on."""
    with torch.no_grad():
        data = minibatch(course.experiment.benchmark, course.drawn, 0, i)
        return float(_mean(course, lower(course.stack.params, 1), *data))


def slope_of_batch(course: Course, i: int) -> Slope:
    """The loss of mini-batch i and its gradient."""
    return _slope(course, *minibatch(course.experiment.benchmark, course.drawn, 0, i))


def slope_of_task(course: Course) -> Slope:
    """The loss of all training examples of the task and its gradient, in passes of a few examples each."""
    experiment, seed = course.experiment, course.stack.seeds[0]
    curriculum = experiment.benchmark.curriculum(seed)
    own = curriculum.tasks[course.task]
    label = experiment.scenario.label(curriculum.y[own.rows], own)
    active = active_mask(experiment, curriculum, course.task, course.task)
    loss, total = 0.0, {name: torch.zeros_like(p) for name, p in course.weights.items()}

    def add(at: Tensor) -> None:
        nonlocal loss
        x = look(experiment.benchmark, gathered(experiment.benchmark.x, own.rows[at]), own.pixels)
        part = _slope(course, x, label[at], active)
        loss += part.loss * len(at) / len(label)
        for name, g in part.gradient.items():
            total[name].add_(g, alpha=len(at) / len(label))

    in_parts(add, torch.arange(len(label), device=label.device), experiment.rows_per_pass)
    return Slope(loss, total)


def _slope(course: Course, x: Tensor, label: Tensor, active: Tensor) -> Slope:
    leaves = {name: p.detach().requires_grad_() for name, p in lower(course.stack.params, 1).items()}
    loss = _mean(course, leaves, x, label, active)
    mine = course.experiment.protected(leaves)
    gradient = dict(zip(mine, torch.autograd.grad(loss, list(mine.values())), strict=True))
    return Slope(float(loss.detach()), gradient)


def _mean(course: Course, params: Tree, x: Tensor, label: Tensor, active: Tensor) -> Tensor:
    return task_loss(course.experiment.net)(params, lower(course.stack.buffers, 1), x, label, active)
