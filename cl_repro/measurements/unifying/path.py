r"""One task in training, and what adds up on the way (Benzing 2022, figures 1, J.1, L.2 and L.3).

    summed contributions up to step t     sum_i S_i, of si and of siu
    the same along the full gradient      sum_s -g_full(theta_s) . (theta_(s+1) - theta_s)
    noise and signal of a mini-batch      |g_t - g_full|^2 and |g_full|^2

over protected weights; g_full is the gradient over all training examples of the task. Where it is not computed at every
step, it is at the first `dense` steps, in which most of the loss is lost, and then at every e-th: that counts e times.
"""

import math
from typing import NamedTuple

import torch

from cl_repro.common import tree
from cl_repro.engine import Report
from cl_repro.engine.course import Course
from cl_repro.engine.lifecycle import advance
from cl_repro.measurements.unifying.course import Slope, loss_of_batch, slope_of_batch, slope_of_task
from cl_repro.measurements.unifying.observed import State
from cl_repro.records import Row
from cl_repro.types import Tree


class Schedule(NamedTuple):
    """At which of the T steps of a task what is computed."""

    steps: int  # T
    every: int  # a row at every `every`-th step, and at the end
    full_every: int | None  # e; None: no full gradient at all
    dense: int  # steps from the first on of which each has its full gradient

    def row(self, t: int) -> bool:
        """Whether there is a row about the network after t steps."""
        return t % self.every == 0 or t == self.steps

    def weight(self, t: int) -> int:
        """How many steps the full gradient at step t stands for; 0 where it is not computed."""
        if self.full_every is None or t == self.steps or (t >= self.dense and t % self.full_every):
            return 0
        return 1 if t < self.dense else min(self.full_every, self.steps - t)

    def stops(self) -> list[int]:
        """Steps before which training pauses, and T."""
        alone = {s for t in range(self.steps) if self.weight(t) for s in (t, t + 1)}
        return sorted(alone | {t for t in range(self.steps + 1) if self.row(t)})


def schedule(steps: int, points: int, full_every: int | None, dense: int) -> Schedule:
    """About `points` rows; `every` and `dense` are rounded up to multiples of `full_every`, so that sums are whole."""
    e = full_every or 1
    return Schedule(steps, -(-max(1, steps // points) // e) * e, full_every, -(-dense // e) * e)


def trained(course: Course, at: Schedule, report: Report) -> tuple[list[Row], list[Row]]:
    """Train on one task, from its first step on: rows of summed.csv, and of noise.csv if there is a full gradient.

    The acting method is si, the first that watches siu; `report` is told about progress.
    """
    summed: list[Row] = []
    noise: list[Row] = []
    full = 0.0
    stops = at.stops()
    for t, after in zip(stops, [*stops[1:], None], strict=True):
        slope = slope_of_task(course) if at.full_every and (at.row(t) or at.weight(t)) else None
        if at.row(t):
            state: State = course.state
            sums = {"si": total(state.acting.path), "siu": total(state.watching[0].path)}
            head = {"task": course.task + 1, "iteration": t, "full_every": at.full_every}
            loss = slope.loss if slope else loss_of_batch(course, t)
            summed.append(head | sums | {"full": full if slope else math.nan, "loss": loss})
            if slope and t < at.steps:
                noise.append({"iteration": t} | noise_of(slope_of_batch(course, t), slope))
        if after is None:
            break
        before = {name: p.clone() for name, p in course.weights.items()} if at.weight(t) else {}
        advance(course, after - t, report)
        if slope and at.weight(t):
            full += at.weight(t) * decrease(slope.gradient, before, course.weights)
    return summed, noise


def decrease(gradient: Tree, before: Tree, after: Tree) -> float:
    """-g . (after - before): the decrease of the loss that a gradient attributes to a step."""
    return -sum(float((g * (after[name] - before[name])).sum(dtype=torch.float64)) for name, g in gradient.items())


def noise_of(batch: Slope, task: Slope) -> dict[str, float]:
    """Squared lengths of a mini-batch's noise and of the full gradient."""
    off = {name: g - task.gradient[name] for name, g in batch.gradient.items()}
    return {"noise": squared_length(off), "signal": squared_length(task.gradient)}


def squared_length(of: Tree) -> float:
    """Of all entries as one vector."""
    return sum(float(value.double().square().sum()) for value in of.values())


def total(of: Tree) -> float:
    """Sum of all entries."""
    return float(tree.traces({name: value[None] for name, value in of.items()}))
