"""One task of a stack in training: what its steps share, and what a stop between two of them must keep."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from cl_repro.engine.aids import Aids
from cl_repro.engine.batches import Batches
from cl_repro.engine.stack import Experiment, Stack, lower
from cl_repro.types import Method, Tree


@dataclass
class Course:
    """One task in training, between two of its steps."""

    experiment: Experiment
    stack: Stack
    task: int
    method: Method  # without hooks that do not act in this task: `needs.acting`
    state: Any  # of the method; () if it has none
    drawn: Batches
    take: int | Tensor  # where each replica's mini-batches are among those drawn: `batches.slots`
    aid: Aids
    taken: int = 0  # steps
    anew: Callable[[int], Any] | None = None  # of how many tasks -> the state made anew at the weights of the moment

    @property
    def k(self) -> int:
        """K, replicas."""
        return len(self.stack.seeds)

    @property
    def each(self) -> int | None:
        """The axis by which replicas' examples differ, for `stack.lift`; None: they all have the same."""
        return 0 if isinstance(self.take, Tensor) else None

    @property
    def steps(self) -> int:
        """T, of the whole task."""
        return self.drawn.rows.shape[1]

    @property
    def weights(self) -> Tree:
        """Protected parameters as they are now: {name: [K, *shape]}, or [*shape] for one replica, as views."""
        return lower(self.experiment.protected(self.stack.params), self.k)


class Middle(NamedTuple):
    """What the rest of a task depends on besides stack and state, which go on to change; all else is drawn again."""

    taken: int  # steps
    noise: list[Tensor]  # states of the generators: those of the mini-batches, and those of what is recalled
    targets: Tensor | None  # of the teacher; see `Aids`
    teacher: tuple[Tree, Tree] | None


def generators(course: Course) -> list[Any]:
    """Those that every step draws from."""
    return [*course.drawn.noise, *(course.aid.recalled.noise if course.aid.recalled else [])]


def middle(course: Course) -> Middle:
    """Where a task is; stack and state are to be kept with it."""
    noise = [generator.get_state() for generator in generators(course)]
    return Middle(course.taken, noise, course.aid.targets, course.aid.teacher)
