"""What the search trains, with the engine: one replica on one task, epoch by epoch, and from task to task."""

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cl_repro.common import tree
from cl_repro.engine import Experiment, Report, Stack, measure
from cl_repro.engine.boundary import accuracy, evaluate
from cl_repro.engine.lifecycle import advance, begin
from cl_repro.engine.needs import trains_on
from cl_repro.engine.replicas import healthy
from cl_repro.engine.stack import active_mask, lower, start
from cl_repro.measurements.strength_search.procedure import (
    Attempt,
    Found,
    Patience,
    Rules,
    Trial,
    search,
    until_stalled,
)
from cl_repro.methods.baselines import finetune
from cl_repro.types import Estimator, Method, Tree


class Learner(NamedTuple):
    """A network between two tasks, or at the best epoch of one."""

    params: Tree  # {name: [1, *shape]}
    buffers: Tree
    state: Any  # of the method


class Outcome(NamedTuple):
    """What one sequence of tasks leaves."""

    attempts: list[list[Attempt]]  # of each task
    accuracy: NDArray[np.float64]  # [T], on test rows, after the last task
    finite: bool  # nothing that was kept has overflowed


def search_all_tasks(
    experiment: Experiment,
    method: Method,
    estimator: Estimator | None,
    seed: int,
    strength: float,
    rules: Rules,
    patience: Patience,
    report: Report = lambda *_: None,
) -> Outcome:
    """All tasks of one seed, each searched with the lambda that the one before ended with.

    The first task is searched as the others are: no penalty pulls there yet, so its first attempt is the fine-tuning.
    `strength` is lambda at first; a method without a penalty has one attempt. The experiment's iterations do not count.
    `report` is told that a task is done.
    """
    stack, n_tasks = start(experiment, [seed]), experiment.benchmark.n_tasks
    one = torch.ones((), dtype=experiment.dtype, device=experiment.device)
    state = method.init(lower(experiment.protected(stack.params), 1), one) if method.init else None
    learner, attempts = Learner(stack.params, stack.buffers, state), []
    if method.penalty_grad is None:
        rules = rules._replace(attempts=1)

    def searched(task: int) -> Found[Learner]:
        train = partial(trained, experiment, seed, task, patience)
        return search(
            learner,
            strength,
            rules.rates if task else rules.rates_first,
            lambda start, lr: train(start, lr, finetune()),
            lambda start, lr, c: train(start, lr, scaled(method, c)),
            rules,
        )

    for task in range(n_tasks):
        found = searched(task)
        learner, strength = found.end, found.strength
        attempts.append(found.attempts)
        if task + 1 < n_tasks and method.end_task:
            stack = stack_of(experiment, seed, learner)
            importance = lower(measure(experiment, stack, task, [estimator]), 1) if estimator else {}
            params = lower(experiment.protected(stack.params), 1)
            learner = learner._replace(state=method.end_task(learner.state, params, importance))
        report(1, task, math.nan)
    stack = stack_of(experiment, seed, learner)
    return Outcome(attempts, evaluate(experiment, stack, n_tasks - 1)[0], bool(healthy(stack).all()))


def scaled(method: Method, strength: float) -> Method:
    """The method whose state was made with lam = 1, at another lambda: every penalty here is linear in it."""
    penalty_grad = method.penalty_grad
    if penalty_grad is None:
        return method
    return method._replace(
        penalty_grad=lambda state, params: {name: strength * pull for name, pull in penalty_grad(state, params).items()}
    )


def trained(
    experiment: Experiment, seed: int, task: int, patience: Patience, start: Learner, lr: float, method: Method
) -> Trial[Learner]:
    """Train a copy on one task, and keep its best epoch.

    `start` stays as it is, the optimiser is made anew, and the mini-batches are the seed's, the same for every copy.
    The learner of the best epoch has the state that the method had then.
    """
    curriculum = experiment.benchmark.curriculum(seed)
    own = curriculum.tasks[task]
    assert own.rows_val is not None  # the caller has checked that the benchmark has some
    images = experiment.benchmark.x[own.rows_val]
    label = experiment.scenario.label(curriculum.y[own.rows_val], own)
    active = active_mask(experiment, curriculum, task, task)
    steps = sum(len(curriculum.tasks[k].rows) for k in trains_on(method, task)) // experiment.batch_size
    stack = stack_of(experiment, seed, start)
    course = begin(experiment._replace(iterations=patience.epochs * steps), stack, task, method, start.state)

    @torch.no_grad()
    def right() -> float:
        return accuracy(experiment, stack.params, stack.buffers, images, label, active, own.pixels).item()

    def epoch(lr: float) -> float:
        for group in stack.optimiser.param_groups:
            group["lr"] = lr
        advance(course, steps)
        return right() if healthy(stack).all() else math.nan

    return until_stalled(
        start, lr, epoch, lambda: Learner(tree.copied(stack.params), tree.copied(stack.buffers), course.state), patience
    )


def stack_of(experiment: Experiment, seed: int, learner: Learner) -> Stack:
    """A copy of a learner, to be trained with a new optimiser."""
    params = tree.copied(learner.params)
    return Stack([seed], params, tree.copied(learner.buffers), experiment.optimiser(list(params.values())))
