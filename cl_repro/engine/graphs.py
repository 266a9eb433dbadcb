"""A training step in memory that stays, so that CUDA can record it once and then run it without Python.

A recorded step reads and writes where it did when it was recorded. So the mini-batch of a step is copied to one place,
and what the step makes of the method's state and the network's buffers goes back to where it was.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from cl_repro.engine.aids import Aids
from cl_repro.engine.batches import PER_STEP, Batches, part
from cl_repro.engine.course import Course

EAGER = 3  # steps before the recording, which load kernels and make what is made at a first step
LEAST = 100  # steps that a recording pays for
CAPTURABLE = (torch.optim.Adam, torch.optim.SGD)  # what their steps depend on is in tensors

Step = Callable[[Course, int], Tensor]  # (course, i) -> losses [K] or []


def obstacle(course: Course, last: int) -> str:
    """Why steps cannot be one recording; empty if they can."""
    optimiser = course.stack.optimiser
    if type(optimiser) not in CAPTURABLE:
        return f"{type(optimiser).__name__} counts its steps in Python"
    if course.experiment.net.noise:
        return "the network draws random numbers"
    return "mini-batches differ in size" if len(set(course.drawn.sizes[course.taken : last].tolist())) > 1 else ""


class Recorded:
    """`step`, recorded when it has been taken a few times; on a CPU taken in the same memory, without a recording."""

    def __init__(self, step: Step, course: Course, last: int) -> None:
        """Nothing is recorded yet; `step` is taken from where the course is to step `last`."""
        self.step, self.course, self.first = step, course, course.taken
        self.on_cuda = course.experiment.device.startswith("cuda")
        self.eager = last - course.taken < LEAST
        self.again: Callable[[], None] | None = None
        if reason := obstacle(course, last):
            self.refuse(reason)

    def refuse(self, reason: str) -> None:
        """Go on without a recording."""
        self.eager = True
        say(f"cuda_graph=true: steps are taken one by one, because {reason}")

    def __call__(self, course: Course, i: int) -> Tensor:
        """Step i of the course, as `step` takes it: losses."""
        if not self.eager and i - self.first >= EAGER and self.again is None:
            self.again = self.prepared()
        if self.eager or self.again is None:
            return self.step(course, i)
        load(self.near.drawn, course.drawn, i)
        for held, source in zip(mini_batches(self.near.aid), mini_batches(course.aid), strict=True):
            load(held, source, i)
        if self.near.aid.slot is not None and course.aid.slot is not None:
            self.near.aid.slot.copy_(course.aid.slot[:, i : i + 1])
        self.again()
        course.state = self.near.state
        return self.losses

    def prepared(self) -> Callable[[], None] | None:
        """The step between fixed places, recorded where there is CUDA; None if it cannot be."""
        aid = self.course.aid
        near = aid._replace(
            independent=held(aid.independent) if aid.independent else None,
            recalled=held(aid.recalled) if aid.recalled else None,
            slot=None if aid.slot is None else aid.slot[:, :1].clone(),
        )
        state = tree_map(lambda t: t.clone() if isinstance(t, Tensor) else t, self.course.state)
        self.near = replace(self.course, drawn=held(self.course.drawn), aid=near, state=state)
        self.losses = torch.zeros(0)
        return self.recorded() if self.on_cuda else self.in_place

    def in_place(self) -> None:
        """One step of the mini-batch that is held; its results are where its arguments were."""
        stack, state, buffers = self.course.stack, self.near.state, self.course.stack.buffers
        losses = self.step(self.near, 0)
        put_back((state, buffers), (self.near.state, stack.buffers))
        self.near.state, stack.buffers, self.losses = state, buffers, losses.detach()

    def recorded(self) -> Callable[[], None] | None:
        """`in_place` as a graph of kernels."""
        stack = self.course.stack
        groups = [group for group in stack.optimiser.param_groups if "capturable" in group]
        buffers = stack.buffers
        try:
            for group in groups:
                group["capturable"] = True
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.in_place()
            return graph.replay
        except RuntimeError as error:
            stack.buffers = buffers
            self.refuse(" ".join(str(error).split()))
            return None
        finally:
            for group in groups:
                group["capturable"] = False


def held(drawn: Batches) -> Batches:
    """The first mini-batch, in memory of its own."""
    first = part(drawn, 0, 1)
    return first._replace(**{name: getattr(first, name).clone() for name in PER_STEP})


def load(into: Batches, drawn: Batches, i: int) -> None:
    """Put mini-batch i where `held` is."""
    for name in PER_STEP:
        getattr(into, name).copy_(getattr(drawn, name)[:, i : i + 1])


def mini_batches(aid: Aids) -> list[Batches]:
    """Those that a step reads beside its own."""
    return [drawn for drawn in (aid.independent, aid.recalled) if drawn is not None]


def put_back(places: Any, values: Any) -> None:
    """Write tensors to those that they follow; a value may be in the memory of another's place."""
    moved = [(p, v.clone()) for p, v in zip(tree_leaves(places), tree_leaves(values), strict=True) if p is not v]
    for place, value in moved:
        place.copy_(value)


@cache
def say(text: str) -> None:
    """Once in a process."""
    sys.stderr.write(f"{text}\n")
