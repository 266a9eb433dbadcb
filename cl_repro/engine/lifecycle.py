"""One task of a stack: what happens before its first step, its steps, and what a stop between two of them must keep.

The engine, the measurements beside a study and the search for lambda all train by these functions, so that every
method runs in all of them as it does in the engine.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from cl_repro.common.runtime import clock, tf32
from cl_repro.engine.aids import aids, lessons, rehearsed
from cl_repro.engine.batches import batches, slots
from cl_repro.engine.course import Course, Middle, generators
from cl_repro.engine.needs import acting, trains_on
from cl_repro.engine.stack import Experiment, Stack, lift, lower, redraw
from cl_repro.engine.training import Report, follow, silent, warm_up
from cl_repro.types import Method, Tree

SPAN = 50  # steps until a task can be stopped for the first time; then twice as many, if they took less than `pause`


def begin(
    experiment: Experiment,
    stack: Stack,
    task: int,
    method: Method,
    state: Any,
    middle: Middle | None = None,
    anew: Callable[[int], Any] | None = None,
) -> Course:
    """What happens before the first step of a task; with `middle`, the task where it was stopped.

    In this order: optimiser, mini-batches and what the method asks to be drawn or computed beforehand, initial weights,
    warm-up, `Method.start_task`. The stack is trained in place. `state` is None if the method has none yet; stack and
    state are those of the moment of `middle`. `anew`: as in `Course`, for methods that ask for it.
    """
    began = clock(experiment.device)
    method, seeds = acting(method, task), sorted(set(stack.seeds))
    drawn = batches(experiment, seeds, task, trains_on(method, task), more=rehearsed(experiment, seeds, task, method))
    aid = aids(experiment, stack, task, method, drawn)
    state = () if state is None else state  # which can be lifted
    course = Course(experiment, stack, task, method, state, drawn, slots(stack, drawn), aid, anew=anew)
    if middle:
        course.taken, course.aid = middle.taken, aid._replace(targets=middle.targets, teacher=middle.teacher)
        for generator, at in zip(generators(course), middle.noise, strict=True):
            generator.set_state(at)
        return course
    course.aid = lessons(experiment, stack, task, method, aid)
    if experiment.reset_optimiser:
        stack.optimiser = experiment.optimiser(list(stack.params.values()))
    if experiment.reinit and task:
        redraw(experiment, stack, task)
    if method.needs.warm_up and aid.old is not None:
        warm_up(course, drawn.masks[task] & ~aid.old.any(0))
    if method.start_task:
        course.state = lift(method.start_task, course.k)(state, course.weights)
    stack.steps = max(stack.steps, course.steps)
    stack.seconds.train += clock(experiment.device) - began
    return course


def advance(course: Course, steps: int, report: Report = silent) -> None:
    """Take so many steps, in place; where the method asks for it, its state is made anew between two of them."""
    end, every = course.taken + steps, course.method.needs.rebuild_every if course.anew and course.task else 0
    while course.taken < end:
        if every and course.anew and course.taken and course.taken % every == 0:
            course.state = course.anew(course.task)
        last = min(end, course.taken + every - course.taken % every) if every else end
        began = clock(course.experiment.device)
        with tf32(course.experiment.tf32):
            follow(course, last, report)
        course.stack.seconds.train += clock(course.experiment.device) - began


def learning(course: Course, report: Report = silent, every: int | None = None) -> Iterator[Course]:
    """Train the stack on the task, in place, from its beginning or its middle.

    Yields the task, always the same object: now and then between two steps, where it can be stopped, and at its end.
    `every`: steps between two stops; None: as many as take some seconds.
    """
    span = every or SPAN
    while course.taken < course.steps:
        since = time.monotonic()
        advance(course, min(span, course.steps - course.taken), report)
        if not every and time.monotonic() - since < course.experiment.pause:
            span *= 2
        if course.taken < course.steps:
            yield course
    yield course


def learn(experiment: Experiment, stack: Stack, task: int, method: Method, state: Any) -> Any:
    """Train the stack on a whole task; returns the state after what the method observed."""
    course = begin(experiment, stack, task, method, state)
    advance(course, course.steps)
    return course.state


def initial(experiment: Experiment, stack: Stack, method: Method, lam: Tensor) -> Any:
    """The state of a method that has none yet, for lam [K]; () if it needs none."""
    k = len(stack.seeds)
    return lift(method.init, k)(lower(experiment.protected(stack.params), k), lower(lam, k)) if method.init else ()


def ended(experiment: Experiment, stack: Stack, method: Method, state: Any, importance: Tree) -> Any:
    """The state after a task, with the importance of that task [K, ...], or {}."""
    k = len(stack.seeds)
    if method.end_task is None:
        return state
    return lift(method.end_task, k)(state, lower(experiment.protected(stack.params), k), lower(importance, k))
