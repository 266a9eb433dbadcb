"""Importance passes over a few digits: what an estimator sees, and every estimator there is."""

from functools import partial
from typing import Any, NamedTuple

import torch
from made_experiments import digits, made_experiment, thinned
from torch import Tensor

from cl_repro.common import rng
from cl_repro.engine import Experiment, boundary
from cl_repro.importance import fisher
from cl_repro.importance import one_sample as slow
from cl_repro.importance.batched import batched
from cl_repro.importance.by_score import by_score
from cl_repro.importance.importance_sample import importance_sample
from cl_repro.importance.one_sample import one_sample
from cl_repro.types import Estimator, Net, Tree

N, SEED = 23, 2
TWO_OF_TEN, ALL_TEN, ONE_OF_TEN = "two active", "all active", "one active"
# Into how many tasks the ten classes are cut, and the task of the pass: classes 4 and 5, not the first two.
PARTS = {TWO_OF_TEN: (5, 2), ALL_TEN: (1, 0), ONE_OF_TEN: (10, 0)}


class Pass(NamedTuple):
    """What a pass over a task sees, in its order; network and weights to see it with."""

    experiment: Experiment
    task: int
    net: Net
    params: Tree
    x: Tensor
    y: Tensor  # positions in `active`
    noise: Tensor
    active: list[int]

    def measure(self, estimator: Estimator) -> Tree:
        """The importance as the engine computes it."""
        stacked = {name: p[None] for name, p in self.params.items()}
        found = boundary.estimate(self.experiment, stacked, {}, estimator, SEED, self.task)
        return {name: value[0] for name, value in found.items()}

    def call(self, estimator: Estimator, params: Tree | None = None) -> Tree:
        """The estimator's sum over all examples at once."""
        active = torch.tensor(self.active)
        return estimator.sum(self.net, params or self.params, {}, self.x, self.y, self.noise, active)


def spread_out(net: Net, dtype: torch.dtype, gain: float = 3.0) -> Tree:
    """Initial weights, larger: untrained networks are undecided, and then all estimators look alike."""
    params, _ = net.init(rng.stream(SEED, "init"))
    return {name: gain * p.to(dtype) for name, p in params.items()}


def made_pass(part: str = TWO_OF_TEN, hidden: tuple[int, ...] = (7, 6), n: int = N, **changes: Any) -> Pass:
    """A pass over the first n examples of a task; other arguments as `made_experiment`."""
    n_tasks, k = PARTS[part]
    experiment = made_experiment(thinned(digits(n_tasks), n), hidden=hidden, **changes)
    task = experiment.benchmark.curriculum(SEED).tasks[k]
    order = torch.randperm(n, generator=rng.stream(SEED, "fisher_order", k))
    noise = torch.rand(n, generator=rng.stream(SEED, "fisher_labels", k), dtype=torch.float64)
    y = experiment.benchmark.curriculum(SEED).y[task.rows]
    return Pass(
        experiment,
        k,
        experiment.net,
        spread_out(experiment.net, torch.float64),
        experiment.benchmark.to_input(experiment.benchmark.x[task.rows])[order],
        torch.tensor([sorted(task.classes).index(c) for c in y.tolist()])[order],
        noise[order],
        sorted(task.classes),
    )


LAYER_WISE = {
    "exact": fisher.exact,
    "sample": fisher.sample,
    "empirical": fisher.empirical,
    "predicted": fisher.predicted,
}
ONE_SAMPLE = {
    "exact": partial(one_sample, "all"),
    "sample": partial(one_sample, "sample"),
    "empirical": partial(one_sample, "true"),
    "predicted": partial(one_sample, "predicted"),
}
IMPLEMENTATIONS = {"layer_wise": LAYER_WISE, "one_sample": ONE_SAMPLE}
BATCHED = {"layer_wise": batched, "one_sample": slow.batched}
# Everything a stack can carry, for the symmetries.
EVERY = {
    **{f"layer_wise-{name}": make() for name, make in LAYER_WISE.items()},
    **{f"one_sample-{name}": make() for name, make in ONE_SAMPLE.items()},
    "batched": batched(5),
    "batched-sum": batched(5, "sum"),
    "one_sample-batched": slow.batched(5),
    "importance_sample": importance_sample(),
    "importance_sample-3": importance_sample(draws=3),
    "exact_by_score": by_score(9),
    "importance_sample_by_score": by_score(9, draws=1),
}
