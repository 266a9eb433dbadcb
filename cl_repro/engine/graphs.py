"""A training step in memory that stays, so that CUDA can record it once and then run it without Python.

A recorded step reads and writes where it did when it was recorded. So the mini-batch of a step is copied to one place,
and what the step makes of the method's state and the network's buffers goes back to where it was.
"""

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from cl_repro.engine.aids import Aids
from cl_repro.engine.batches import PER_STEP, Batches, part
from cl_repro.engine.stack import Experiment, Stack

EAGER = 3  # steps before the recording, which load kernels and make what is made at a first step
LEAST = 100  # steps that a recording pays for
CAPTURABLE = (torch.optim.Adam, torch.optim.SGD)  # what their steps depend on is in tensors

Step = Callable[[Batches, Aids, int, Any], tuple[Any, Tensor]]  # (..., i, state) -> state, losses [K] or []


def obstacle(experiment: Experiment, stack: Stack, drawn: Batches) -> str:
    """Why steps cannot be one recording; empty if they can."""
    if type(stack.optimiser) not in CAPTURABLE:
        return f"{type(stack.optimiser).__name__} counts its steps in Python"
    if experiment.net.noise:
        return "the network draws random numbers"
    return "mini-batches differ in size" if len(set(drawn.sizes.tolist())) > 1 else ""


class Recorded:
    """`step`, recorded when it has been taken a few times; on a CPU taken in the same memory, without a recording."""

    def __init__(self, step: Step, experiment: Experiment, stack: Stack, drawn: Batches, aid: Aids) -> None:
        """Nothing is recorded yet; `stack` is what the step trains."""
        self.step, self.stack, self.drawn, self.aid = step, stack, drawn, aid
        self.on_cuda = experiment.device.startswith("cuda")
        self.eager = len(drawn.sizes) < LEAST
        self.again: Callable[[], None] | None = None
        if reason := obstacle(experiment, stack, drawn):
            self.refuse(reason)

    def refuse(self, reason: str) -> None:
        """Go on without a recording."""
        self.eager = True
        say(f"cuda_graph=true: steps are taken one by one, because {reason}")

    def __call__(self, i: int, state: Any) -> tuple[Any, Tensor]:
        """Step i, as `step` does it: state, losses."""
        if not self.eager and i >= EAGER and self.again is None:
            self.again = self.prepared(state)
        if self.eager or self.again is None:
            return self.step(self.drawn, self.aid, i, state)
        load(self.now, self.drawn, i)
        for held, source in zip(mini_batches(self.near), mini_batches(self.aid), strict=True):
            load(held, source, i)
        if self.near.slot is not None and self.aid.slot is not None:
            self.near.slot.copy_(self.aid.slot[:, i : i + 1])
        self.again()
        return self.state, self.losses

    def prepared(self, state: Any) -> Callable[[], None] | None:
        """The step between fixed places, recorded where there is CUDA; None if it cannot be."""
        self.now = held(self.drawn)
        self.near = self.aid._replace(
            independent=held(self.aid.independent) if self.aid.independent else None,
            recalled=held(self.aid.recalled) if self.aid.recalled else None,
            slot=None if self.aid.slot is None else self.aid.slot[:, :1].clone(),
        )
        self.state = tree_map(lambda t: t.clone() if isinstance(t, Tensor) else t, state)
        self.losses = torch.zeros(0)
        return self.recorded() if self.on_cuda else self.in_place

    def in_place(self) -> None:
        """One step of the mini-batch that is held; its results are where its arguments were."""
        buffers = self.stack.buffers
        state, losses = self.step(self.now, self.near, 0, self.state)
        put_back((self.state, buffers), (state, self.stack.buffers))
        self.stack.buffers, self.losses = buffers, losses.detach()

    def recorded(self) -> Callable[[], None] | None:
        """`in_place` as a graph of kernels."""
        groups = [group for group in self.stack.optimiser.param_groups if "capturable" in group]
        buffers = self.stack.buffers
        try:
            for group in groups:
                group["capturable"] = True
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.in_place()
            return graph.replay
        except RuntimeError as error:
            self.stack.buffers = buffers
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
