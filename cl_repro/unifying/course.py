"""Training on one task in slices: between two of them the network can be looked at.

`begin` and `advance` are `engine.training.learn`, cut open: the same mini-batches, noise and steps, bit for bit.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cl_repro.engine import Experiment, Stack
from cl_repro.engine.aids import INDEPENDENT, Aids
from cl_repro.engine.batches import Batches, batches, minibatch, part
from cl_repro.engine.boundary import in_parts
from cl_repro.engine.stack import active_mask, gathered, look, lower, redraw
from cl_repro.engine.training import follow, loss_function
from cl_repro.errors import UserError
from cl_repro.runtime import tf32
from cl_repro.types import Method, Tree

RUNS = ("init", "penalty_grad", "end_task", "start_task", "observe", "gradients", "trains_on")
"""Fields of a `Method` that a program on `begin` and `advance` can run: the others are the engine's alone."""


class Course(NamedTuple):
    """One task of one network: what it is trained on, and by what method."""

    experiment: Experiment
    stack: Stack  # one replica
    task: int
    method: Method
    drawn: Batches  # one mini-batch more than is trained on: the loss at the end is one of examples to come
    independent: Batches | None

    @property
    def steps(self) -> int:
        """T, iterations of the task."""
        return self.experiment.steps(self.task)

    @property
    def weights(self) -> Tree:
        """Protected parameters as they are now, {name: [*shape]}, as views."""
        return lower(self.experiment.protected(self.stack.params), 1)


def check_runs(method: Method, name: str, runs: Sequence[str] = RUNS) -> None:
    """Refuse a method that a program would silently make another of.

    Args:
        method: to train with.
        name: of it.
        runs: fields of `Method` that the program runs.

    Raises:
        UserError: a field that it does not run is not as in `Method()`.
    """
    plain = Method()
    left_out = [key for key in Method._fields if key not in runs and getattr(method, key) != getattr(plain, key)]
    if left_out:
        raise UserError(
            f"method={name}: this program does not run its {', '.join(left_out)}, without which it is another method; "
            "`python -m cl_repro` does"
        )


def begin(experiment: Experiment, stack: Stack, task: int, method: Method, state: Any) -> tuple[Course, Any]:
    """What happens before the first step of a task: optimiser, initial weights, mini-batches.

    Args:
        experiment: what trains.
        stack: one replica.
        task: 0, 1, ...
        method: whose penalty pulls, and who may observe.
        state: of the method.

    Returns:
        The task in training, and the state of the method.
    """
    if experiment.reset_optimiser:
        stack.optimiser = experiment.optimiser(list(stack.params.values()))
    if experiment.reinit and task:
        redraw(experiment, stack, task)
    one_more = experiment._replace(iterations=experiment.steps(task) + 1)
    trains_on = method.trains_on(task)
    course = Course(
        experiment,
        stack,
        task,
        method,
        batches(one_more, stack.seeds, task, trains_on),
        batches(one_more, stack.seeds, task, trains_on, INDEPENDENT) if INDEPENDENT in method.gradients else None,
    )
    return course, method.start_task(state, course.weights) if method.start_task else state


def advance(course: Course, state: Any, first: int, last: int) -> Any:
    """Take the steps `first` to `last - 1`; returns the state of the method."""
    with tf32(course.experiment.tf32):
        return follow(
            course.experiment,
            course.stack,
            part(course.drawn, first, last),
            course.method,
            state,
            lambda done, loss: None,
            Aids(part(course.independent, first, last)) if course.independent else Aids(),
        )


# --- the task's cross-entropy, without dropout and without the penalty ------------------------------------------------


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
    return loss_function(course.experiment.net, train=False)(params, lower(course.stack.buffers, 1), x, label, active)[
        0
    ]
