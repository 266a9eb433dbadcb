"""The passes of the anatomy: every estimate of one trained network, timed and compared with the exact Fisher."""

from collections.abc import Callable, Collection
from functools import lru_cache
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cl_repro.common import rng, runtime
from cl_repro.common.tree import flat
from cl_repro.engine import Experiment, Stack
from cl_repro.engine.boundary import estimate, evaluate
from cl_repro.engine.lifecycle import learn
from cl_repro.engine.stack import fork
from cl_repro.importance import columns
from cl_repro.measurements.anatomy.measures import confidence, distance, layer_shares, reference
from cl_repro.records import Row
from cl_repro.types import Estimator, Method, Net, Tree

NS = (50, 100, 500, 2000, None)  # examples, the first of one random order; None: all
REPEATS = 5  # of an estimate that is drawn, each with draws of its own; the first with those of a run
DRAWN = ("sample", "importance_sample", "exact_by_score", "importance_sample_by_score")
EPOCHS = 3  # timed; the median counts
TASK = 0


class Subject(NamedTuple):
    """A network that has learned its first task."""

    experiment: Experiment
    stack: Stack  # one replica
    seed: int

    @property
    def n_examples(self) -> int:
        """N, of the first task."""
        return len(self.experiment.benchmark.curriculum(self.seed).tasks[TASK].rows)

    def estimate(self, estimator: Estimator) -> Tree:
        """The importance of the first task, as a run estimates it, {name: [1, *shape]}."""
        return estimate(self.experiment, self.stack.params, self.stack.buffers, estimator, self.seed, TASK)


class Cell(NamedTuple):
    """One estimate to make."""

    estimator: str
    n: int | None
    repeat: int
    made: Estimator


Makers = dict[str, Callable[[int | None], Estimator]]
"""By name, from n to the estimator."""


def cells(makers: Makers, subject: Subject) -> list[Cell]:
    """All estimates of a subject, by n, in the order of `makers`.

    No n above N; batched only with all examples: it has no n, and on fewer examples than a batch it would be another
    estimator. Those that choose examples not with all: then there is nothing to choose.
    """
    return [
        Cell(name, n, repeat, redrawn(made, subject.seed, repeat))
        for n in NS
        if (n or 0) <= subject.n_examples
        for name, make in makers.items()
        for made in [make(n)]
        if n is None or name != "batched"
        if n is not None or not made.choice
        for repeat in range(REPEATS if name in DRAWN else 1)
    ]


def redrawn(estimator: Estimator, seed: int, repeat: int) -> Estimator:
    """The estimator with draws of its own, for one pass; repeat 0 has those of a run."""
    if not repeat:
        return estimator
    stream = rng.stream(seed, f"anatomy_labels_{repeat}", TASK)

    def fresh(noise: Tensor) -> Tensor:
        return torch.rand(noise.shape, generator=stream, dtype=noise.dtype).to(noise.device)

    def total(net: Net, params: Tree, buffers: Tree, x: Tensor, y: Tensor, noise: Tensor, *rest: Tensor) -> Tree:
        return estimator.sum(net, params, buffers, x, y, fresh(noise), *rest)

    if not (choice := estimator.choice):
        return estimator._replace(sum=total)
    return estimator._replace(sum=total, choice=choice._replace(pick=lambda scores, u: choice.pick(scores, fresh(u))))


def seen(subject: Subject, n: int | None = None, repeat: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [N, A], labels [N] and labels drawn from the model [N], of the examples of a pass in its order."""
    kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def look(net: Net, params: Tree, buffers: Tree, x: Tensor, y: Tensor, noise: Tensor, active: Tensor) -> Tree:
        z = net.apply(params, buffers, x)[0][:, active]
        kept.append((z, y, columns.draw(z, noise)))
        return {}

    probe = Estimator(look, rows=lambda total: n or total, divisor=lambda total: 1.0)
    subject.estimate(redrawn(probe, subject.seed, repeat))
    z, y, drawn = zip(*kept, strict=True)
    return torch.cat(z), torch.cat(y), torch.cat(drawn)


def measured(subject: Subject, makers: Makers, asked: Collection[str]) -> dict[str, list[Row]]:
    """The rows that some estimators have of one network, by file, without what is the same in all of them.

    Others are compared with exact and empirical, which `makers` has, too, whatever is asked.
    """
    expected = reference(subject.estimate(makers["exact"](None)))  # timed again below: a first pass is slower
    empirical = lru_cache(1)(lambda n: flat(subject.estimate(makers["empirical"](n))).double())
    epoch = epoch_seconds(subject)
    z, y, _ = seen(subject)
    test_accuracy = evaluate(subject.experiment, subject.stack, TASK)[0, TASK]
    rows: dict[str, list[Row]] = {"anatomy.csv": [], "layers.csv": []}
    rows["confidence.csv"] = [confidence(z, y)._asdict() | {"test_accuracy": test_accuracy, "epoch_seconds": epoch}]
    for cell in cells({name: make for name, make in makers.items() if name in asked}, subject):
        began = runtime.clock(subject.experiment.device)
        importance = subject.estimate(cell.made)
        seconds = runtime.clock(subject.experiment.device) - began
        vector = flat(importance).double()
        head = {"estimator": cell.estimator, "n": cell.n, "repeat": cell.repeat}
        row: dict[str, Any] = {
            "examples": cell.made.rows(subject.n_examples),
            "unit": cell.made.batch_size or 1,
            "trace": float(vector.sum()),
            **distance(vector, expected)._asdict(),
            "backward_passes": backward_passes(cell, subject.n_examples, z.shape[1]),
            "seconds": seconds,
            "epoch_seconds": epoch,
        }
        if cell.estimator == "sample":
            _, label, drawn = seen(subject, cell.n, cell.repeat)
            row |= {
                "wrong_drawn": int((drawn != label).sum()),
                "equals_empirical": torch.equal(vector, empirical(cell.n)),
            }
        rows["anatomy.csv"].append(head | row)
        if not cell.repeat:
            shares = layer_shares(importance)
            rows["layers.csv"] += [head | {"layer": layer, "share": share} for layer, share in shares.items()]
    return rows


def epoch_seconds(subject: Subject) -> float:
    """Seconds of one training epoch of this network, on a copy of it."""
    experiment, stack, _ = subject
    one = experiment._replace(iterations=subject.n_examples // experiment.batch_size)
    copy = fork(experiment, stack, torch.zeros(1, dtype=torch.int64, device=experiment.device))
    seconds = []
    for _ in range(EPOCHS):
        before = copy.seconds.train
        learn(one, copy, TASK, Method(), None)
        seconds.append(copy.seconds.train - before)
    return median(seconds)


def backward_passes(cell: Cell, n_examples: int, n_active: int) -> int:
    """Gradients that are backpropagated to the weights: one per example and column, or one per mini-batch."""
    used = cell.made.rows(n_examples)
    if cell.made.batch_size:
        return -(-used // cell.made.batch_size)
    return used * (n_active - 1 if cell.estimator.startswith("exact") else 1)
