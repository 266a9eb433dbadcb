"""One task of a stack in training: what its steps share and are given, and what a stop must keep."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cl_repro.common.runtime import tf32
from cl_repro.engine.aids import Aids
from cl_repro.engine.batches import Batches, minibatch, uniform
from cl_repro.engine.objective import Inputs
from cl_repro.engine.stack import Experiment, Stack, lift, lower
from cl_repro.types import Method, Tree

DATA = ("x", "label", "active")  # of a mini-batch


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


# --- what a step is given ---------------------------------------------------------------------------------------------


def inputs(course: Course, i: int) -> tuple[Inputs, Inputs]:
    """Everything that step i is given: of the task, and of the memory (empty without one)."""
    benchmark, net, stack = course.experiment.benchmark, course.experiment.net, course.stack
    drawn, aid, take, k = course.drawn, course.aid, course.take, course.k
    batch = dict(zip(DATA, minibatch(benchmark, drawn, take, i), strict=True))
    recalled: Inputs = {}
    if aid.recalled:
        recalled = dict(zip(DATA, minibatch(benchmark, aid.recalled, take, i), strict=True))
        if stack.stored is not None:
            slot = aid.recalled.at[take, i, : aid.recalled.sizes[i]].expand(k, -1)
            recalled["target"] = lower(of_each(stack.stored, slot), k)
    if net.noise:
        for of, whose in ((batch, drawn), (recalled, aid.recalled)):
            if whose is not None:
                of["noise"] = uniform(whose, take, i, net.noise, batch["x"])
    if aid.targets is not None:
        batch["target"] = lower(of_each(aid.targets, drawn.at[take, i, : drawn.sizes[i]].expand(k, -1)), k)
    elif aid.teacher:
        batch["target"] = taught(course.experiment, aid.teacher, k, batch["x"], course.each)
    return batch, recalled


def of_each(table: Tensor, at: Tensor) -> Tensor:
    """Rows `at` [K, B] of each replica's own part of a table [K, N, C]: [K, B, C]."""
    return table.gather(1, at[..., None].expand(-1, -1, table.shape[-1]))


def store(course: Course, i: int, z: Tensor) -> None:
    """Keep the logits [K, B, C] of step i where the memory has put their examples."""
    stack, slot, memory = course.stack, course.aid.slot, course.method.needs.memory
    if slot is None or memory is None:
        return
    if stack.stored is None:
        stack.stored = z.new_zeros(len(z), memory.size + 1, z.shape[-1])
    at = slot[course.take, i, : course.drawn.sizes[i]].expand(len(z), -1)[..., None].expand(-1, -1, z.shape[-1])
    stack.stored.scatter_(1, at, z.detach())


@torch.no_grad()
def taught(experiment: Experiment, teacher: tuple[Tree, Tree], k: int, x: Tensor, each: int | None) -> Tensor:
    """Logits [K, B, C] of the teacher of each replica, or [B, C] for one, of a mini-batch."""
    out = lift(lambda p, b, given: experiment.net.apply(p, b, given)[0], k, (0, 0, each))
    with tf32(False):  # as the logits of a whole task
        return out(*(lower(of, k) for of in teacher), x)
