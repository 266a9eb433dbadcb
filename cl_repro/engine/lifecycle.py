"""One task of a stack: what happens before its first step, its steps, and what a stop between two of them must keep.

The engine, the measurements beside a study and the search for a strength all train by these functions, so that every
method runs in all of them as it does in the engine.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from cl_repro.engine.aids import Aids, aids, lessons, rehearsed
from cl_repro.engine.aids import part as aids_of_part
from cl_repro.engine.batches import Batches, batches, part
from cl_repro.engine.stack import Experiment, Stack, lift, lower, redraw
from cl_repro.engine.training import Report, follow, warm_up
from cl_repro.runtime import clock, tf32
from cl_repro.types import Method, Tree

SPAN = 50  # steps until a task can be stopped for the first time; then twice as many, if they took less than `pause`


@dataclass
class Course:
    """One task in training, between two of its steps."""

    experiment: Experiment
    stack: Stack
    task: int
    method: Method
    state: Any  # of the method
    drawn: Batches
    aid: Aids
    taken: int = 0  # steps
    rebuilt: Callable[[int], Any] | None = None  # of how many tasks -> the state made anew at the weights of the moment

    @property
    def steps(self) -> int:
        """T, of the whole task."""
        return self.drawn.rows.shape[1]

    @property
    def weights(self) -> Tree:
        """Protected parameters as they are now: {name: [K, *shape]}, or [*shape] for one replica, as views."""
        return lower(self.experiment.protected(self.stack.params), len(self.stack.seeds))


class Middle(NamedTuple):
    """What the rest of a task depends on besides stack and state, which go on to change; all else is drawn again."""

    taken: int  # steps
    noise: list[Tensor]  # states of the generators: those of the mini-batches, and those of what is recalled
    targets: Tensor | None  # of the teacher; see `Aids`
    teacher: tuple[Tree, Tree] | None


def begin(
    experiment: Experiment, stack: Stack, task: int, method: Method, state: Any, middle: Middle | None = None
) -> Course:
    """What happens before the first step of a task.

    In this order: optimiser, mini-batches and what the method asks to be drawn or computed beforehand, initial weights,
    warm-up, `Method.start_task`.

    Args:
        experiment: what its replicas share.
        stack: K replicas, trained in place.
        task: 0, 1, ...
        method: whose penalty pulls, and who may observe.
        state: of the method; None if it has none yet.
        middle: where the task was stopped; stack and state are then those of that moment.

    Returns:
        The task, before its first step, or where it was stopped.
    """
    began = clock(experiment.device)
    k, seeds = len(stack.seeds), sorted(set(stack.seeds))
    drawn = batches(experiment, seeds, task, method.trains_on(task), more=rehearsed(experiment, seeds, task, method))
    aid = aids(experiment, stack, task, method, drawn)
    if middle:
        aid = aid._replace(targets=middle.targets, teacher=middle.teacher)
        course = Course(experiment, stack, task, method, state, drawn, aid, middle.taken)
        for generator, at in zip(generators(course), middle.noise, strict=True):
            generator.set_state(at)
        return course
    aid = lessons(experiment, stack, task, method, aid)
    if experiment.reset_optimiser:
        stack.optimiser = experiment.optimiser(list(stack.params.values()))
    if experiment.reinit and task:
        redraw(experiment, stack, task)
    if method.warm_up and aid.old is not None:
        warm_up(experiment, stack, drawn, drawn.masks[task] & ~aid.old.any(0), method.warm_up)
    if method.start_task:
        state = lift(method.start_task, k)(state, lower(experiment.protected(stack.params), k))
    stack.steps = max(stack.steps, drawn.rows.shape[1])
    stack.seconds.train += clock(experiment.device) - began
    return Course(experiment, stack, task, method, state, drawn, aid)


def generators(course: Course) -> list[Any]:
    """Those that every step draws from."""
    return [*course.drawn.noise, *(course.aid.recalled.noise if course.aid.recalled else [])]


def middle(course: Course) -> Middle:
    """Where a task is; stack and state are to be kept with it."""
    noise = [generator.get_state() for generator in generators(course)]
    return Middle(course.taken, noise, course.aid.targets, course.aid.teacher)


def advance(course: Course, steps: int, report: Report = lambda *_: None) -> None:
    """Take so many steps, in place."""
    end, anew = course.taken + steps, course.method.rebuild_every if course.rebuilt and course.task else 0
    while course.taken < end:
        if anew and course.rebuilt and course.taken and course.taken % anew == 0:
            course.state = course.rebuilt(course.task)
        last = min(end, course.taken + anew - course.taken % anew) if anew else end
        began = clock(course.experiment.device)
        with tf32(course.experiment.tf32):
            course.state = follow(
                course.experiment,
                course.stack,
                part(course.drawn, course.taken, last),
                course.method,
                course.state,
                lambda done, loss: report(done, course.task, loss),
                aids_of_part(course.aid, course.taken, last),
            )
        course.stack.seconds.train += clock(course.experiment.device) - began
        course.taken = last


def learning(
    experiment: Experiment,
    stack: Stack,
    task: int,
    method: Method,
    state: Any,
    report: Report = lambda *_: None,
    rebuilt: Callable[[int], Any] | None = None,
    middle: Middle | None = None,
    every: int | None = None,
) -> Iterator[Course]:
    """Train the stack on one task, in place, from its beginning or its middle.

    Others are arguments of `begin`; `report` is told about progress, `rebuilt` is for methods that ask for it (see
    `Course`), and `every` are the steps between two stops (None: as many as take some seconds).

    Yields:
        The task, always the same object: now and then between two steps, where it can be stopped, and at its end.
    """
    course, span = begin(experiment, stack, task, method, state, middle), every or SPAN
    course.rebuilt = rebuilt
    while course.taken < course.steps:
        since = time.monotonic()
        advance(course, min(span, course.steps - course.taken), report)
        if not every and time.monotonic() - since < experiment.pause:
            span *= 2
        if course.taken < course.steps:
            yield course
    yield course


def learn(experiment: Experiment, stack: Stack, task: int, method: Method, state: Any) -> Any:
    """`learning` to the end; returns the state after what the method observed."""
    *_, course = learning(experiment, stack, task, method, state)
    return course.state
