r"""Experience replay: examples of earlier tasks are trained on again.

    balanced   loss = (1/k) CE(new) + lam (1 - 1/k) CE(memory) at task k = 2, 3, ...   (van de Ven & Tolias 2019)
    equal      loss = CE(new) + lam CE(memory)
    union      loss = (CE(new) + lam CE(memory)) / (1 + lam): for lam = 1 the mean over both mini-batches together
    rehearsal  loss = CE of mini-batches of one shuffled data set: the N examples of the task, and max(N // M, 1) times
               all of the memory, of size M (Hsu et al. 2018, "naive rehearsal")

With a loss of two means every step recalls as many examples as it is given of the task. Which are kept is the memory's
(cl_repro/memory.py).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from cl_repro.common.losses import cross_entropy
from cl_repro.common.rules import one_of, require
from cl_repro.memory import Memory
from cl_repro.types import Examples, Method, Needs, Step, Tree

LOSSES = ("balanced", "equal", "union")


class State(NamedTuple):
    """State of replay."""

    lam: Tensor  # []
    tasks: Tensor  # [], learned so far


def replay(memory: Memory, loss: str = "balanced") -> Method:
    """Replay from a memory of fixed size.

    Args:
        memory: which examples are kept.
        loss: how both means are combined: balanced, equal or union.

    Returns:
        The method. Memory: M examples.

    Raises:
        UserError: if the loss is none of them.
    """
    require("method.loss", loss, one_of(LOSSES))

    def init(params: Tree, lam: Tensor) -> State:
        return State(lam, torch.zeros_like(lam))

    def end_task(state: State, params: Tree, importance: Tree) -> State:
        return state._replace(tasks=state.tasks + 1)

    def total(state: State, step: Step) -> Tensor:
        new = mean_of(step.batch)
        if step.recalled is None:
            return new
        old, k = state.lam * mean_of(step.recalled), state.tasks + 1
        if loss == "balanced":
            return new / k + (1 - 1 / k) * old
        return new + old if loss == "equal" else (new + old) / (1 + state.lam)

    return Method(init, end_task=end_task, loss=total, needs=Needs(memory=memory))


def rehearsal(memory: Memory) -> Method:
    """Rehearsal: old examples are mixed with the new, about as many, and an epoch of both is about twice as long.

    Args:
        memory: which examples are kept.

    Returns:
        The method. Memory: M examples.
    """
    return Method(needs=Needs(memory=memory, mixes=True))


def mean_of(examples: Examples) -> Tensor:
    """Mean cross-entropy of a mini-batch."""
    return cross_entropy(examples.z, examples.label, examples.active)
