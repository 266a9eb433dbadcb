"""The steps of a stack on one task: down the gradient of what is minimised, as the method says."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from cl_repro.common import tree
from cl_repro.common.runtime import tf32
from cl_repro.engine.aids import BATCH, INDEPENDENT
from cl_repro.engine.batches import minibatch
from cl_repro.engine.course import DATA, Course, inputs, store
from cl_repro.engine.graphs import Recorded
from cl_repro.engine.objective import Inputs, objective, task_loss
from cl_repro.engine.stack import lift, lower, raise_axis
from cl_repro.types import Tree

REPORT_EVERY = 50  # iterations between two progress reports

Report = Callable[[int, int, float], None]  # (replica iterations done since the last report, task, loss)


def silent(done: int, task: int, loss: float) -> None:
    """The report of who wants none."""


def follow(course: Course, last: int, report: Report = silent) -> None:
    """Take the steps from where a task is to step `last`, in place."""
    first, step = course.taken, prepared(course)
    if course.experiment.cuda_graph:
        step = Recorded(step, course, last)
    for i in range(first, last):
        losses = step(course, i)
        course.taken = i + 1
        since = (i - first) % REPORT_EVERY + 1
        if since == REPORT_EVERY or course.taken == last:
            report(course.k * since, course.task, losses.detach().mean().item())


def prepared(course: Course) -> Callable[[Course, int], Tensor]:
    """The step of a task for K replicas: (course, i) -> losses [K], or [] of one; all that it changes is in place.

    The course that it is given is this one, or this one in memory that stays (`engine.graphs`).
    """
    experiment, stack, method, k = course.experiment, course.stack, course.method, course.k
    hooks = method.penalty_grad, method.project, method.observe
    penalty_grad, project, observe = (lift(hook, k) if hook else None for hook in hooks)
    leaves = {name: p.detach().requires_grad_() for name, p in lower(stack.params, k).items()}
    mine, targets = experiment.protected(leaves), experiment.protected(stack.params)

    def step(course: Course, i: int) -> Tensor:
        batch, recalled = inputs(course, i)
        grads, losses, (buffers, z) = gradient(course, leaves, batch, recalled)
        seen = observed(course, leaves, batch, grads, i) if observe else {}
        stack.buffers = raise_axis(buffers, k)
        with torch.no_grad():
            if penalty_grad:
                # In the penalty's memory, because what a method observes is the task's own, and because its layout is
                # that of the parameters: a stacked weight's gradient is transposed.
                grads |= tree.add_(penalty_grad(course.state, mine), grads)
            if project:
                grads |= project(course.state, {name: grads[name] for name in mine})
            before = tree.copied(targets) if observe else {}
            descend(stack.optimiser, stack.params, grads, k)
            if observe:
                course.state = observe(course.state, seen, lower(tree.change_since(before, targets), k))
            if method.needs.keeps_logits:
                store(course, i, raise_axis(z, k))
        return losses

    return step


def gradient(course: Course, leaves: Tree, batch: Inputs, recalled: Inputs) -> tuple[Tree, Tensor, Any]:
    """The gradient of a step by `leaves`, as the method says, or as the derivative of the objective.

    Returns gradient, losses, and what the objective returns beside them, of K replicas. A method's own way may change
    its state.
    """
    method, k, buffers = course.method, course.k, lower(course.stack.buffers, course.k)
    value = objective(course.experiment.net, method, course.aid.old)
    state = course.state if method.loss or method.project_input or method.descend else ()
    if course.experiment.channels_last and k == 1:
        batch, recalled = map(channels_last, (batch, recalled))
    of_data = [{name: 0 if name == "target" else course.each for name in of} for of in (batch, recalled)]
    if method.descend:
        way = lift(partial(method.descend, value), k, (0, 0, 0, *of_data))
        with torch.no_grad():
            course.state, found, (losses, rest) = way(state, leaves, buffers, batch, recalled)
        return found, losses, rest
    losses, rest = lift(value, k, (0, 0, 0, *of_data))(leaves, buffers, state, batch, recalled)
    found = torch.autograd.grad(losses.sum(), list(leaves.values()))
    return dict(zip(leaves, found, strict=True)), losses, rest


def channels_last(of: Inputs) -> Inputs:
    """The same, with the channels of an image's pixel side by side in memory, if they are images."""
    if not of or of["x"].dim() != 4:
        return of
    return of | {"x": of["x"].contiguous(memory_format=torch.channels_last)}


def observed(course: Course, leaves: Tree, batch: Inputs, grads: Tree, i: int) -> dict[str, Tree]:
    """The gradients that a method observes before step i: of the task's cross-entropy, as the network is evaluated.

    {"batch": gradient, "independent": gradient}, or one of them; `grads` of the step is the first, unless something
    else is in it.
    """
    experiment, method, k = course.experiment, course.method, course.k
    mine = experiment.protected(leaves)
    evaluated = lift(task_loss(experiment.net), k, (0, 0, course.each, course.each, course.each))

    def task_gradient(*data: Tensor) -> Tree:
        with tf32(False):
            losses = evaluated(leaves, lower(course.stack.buffers, k), *data)
            return dict(zip(mine, torch.autograd.grad(losses.sum(), list(mine.values())), strict=True))

    seen = {}
    if BATCH in method.needs.gradients:
        of_training = experiment.net.noise or course.stack.buffers or experiment.tf32
        if of_training or method.loss or method.project_input or method.descend:
            seen[BATCH] = task_gradient(*(batch[name] for name in DATA))
        else:
            seen[BATCH] = {name: grads[name] for name in mine}
    if course.aid.independent:
        seen[INDEPENDENT] = task_gradient(*minibatch(experiment.benchmark, course.aid.independent, course.take, i))
    return seen


def descend(optimiser: Optimizer, params: Tree, grads: Tree, k: int) -> None:
    """One step with the gradients of K replicas, as `lift` gives them, which the optimiser lets go after it."""
    for name, p in params.items():
        # contiguous: the fused optimiser reads memory in order, whatever the strides say
        p.grad = (grads[name][None] if k == 1 else grads[name]).contiguous()
    optimiser.step()
    for p in params.values():
        p.grad = None  # the next step's are then made where these are, in the cache


def warm_up(course: Course, new: Tensor) -> None:
    """Train outputs of the head alone, in place, by an optimiser of their own (Li & Hoiem 2018, section 3).

    The network is as it is evaluated. No gradient reaches other outputs, so a new optimiser leaves them as they are. Of
    the task's mini-batches the first are used. `new` [C] bool: the outputs, at least one, which compete among
    themselves.
    """
    experiment, stack, k, each = course.experiment, course.stack, course.k, course.each
    head = {name: p for name, p in stack.params.items() if name.startswith("head.")}
    leaves = {name: p.detach().requires_grad_() for name, p in lower(head, k).items()}
    rest = {name: p for name, p in lower(stack.params, k).items() if name not in head}
    optimiser = experiment.optimiser(list(head.values()))

    value = lift(task_loss(experiment.net), k, (0, 0, each, each, None))
    for i in range(course.method.needs.warm_up):
        x, label, _ = minibatch(experiment.benchmark, course.drawn, course.take, i)
        losses = value(rest | leaves, lower(stack.buffers, k), x, label, new)
        grads = torch.autograd.grad(losses.sum(), list(leaves.values()))
        descend(optimiser, head, dict(zip(head, grads, strict=True)), k)
