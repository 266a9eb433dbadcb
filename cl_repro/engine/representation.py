"""What the head reads: how much the tasks share of it, and how many units speak for an example."""

from functools import partial

import torch
from torch import Tensor

from cl_repro.common import tree
from cl_repro.common.runtime import clock
from cl_repro.engine.boundary import in_parts
from cl_repro.engine.stack import Experiment, Stack, gathered, groups, lift, look, lower, raise_axis
from cl_repro.models.layers import head_input
from cl_repro.types import Tree


@torch.no_grad()
def representation(experiment: Experiment, stack: Stack) -> list[dict[str, float]]:
    """Measures of the activations that the head reads, of test examples of all tasks, for each of K replicas.

    overlap: the mean over pairs of tasks of sum_i min(a_i, b_i), with a and b the mean activations of the tasks'
    examples, divided by their sum: from 0, no unit in common, to 1, where no mean activation is negative. The head of
    slim_resnet18 reads signed ones: their shares, and so their overlap, may be of any size. active: the mean fraction
    of units that are not 0 for an example. Empty for networks without a layer `head`.
    """
    began = clock(experiment.device)
    found: list[dict[str, float]] = [{}] * len(stack.seeds)
    for seed, _, replicas in groups(stack, stack.seeds):
        chosen = tree.select(stack.params, replicas), tree.select(stack.buffers, replicas)
        parts = [read(experiment, *chosen, seed, task) for task in range(experiment.benchmark.n_tasks)]
        if not all(parts):  # no layer is called head
            continue
        means, active = (torch.stack(of_tasks, 1) for of_tasks in zip(*parts, strict=True))  # [k, T, units], [k, T]
        active = active.mean(1)
        for i, k in enumerate(replicas.tolist()):
            found[k] = {"overlap": overlap(means[i]), "active": float(active[i])}
    stack.seconds.evaluate += clock(experiment.device) - began
    return found


def overlap(means: Tensor) -> float:
    """Mean over pairs of rows of sum_i min(a_i, b_i); means [T, units]; in [0, 1] where none is negative."""
    total = means.sum(1, keepdim=True)
    shares = means / total.clamp(min=torch.finfo(means.dtype).tiny)
    first, second = torch.triu_indices(len(means), len(means), 1)
    return float(torch.minimum(shares[first], shares[second]).sum(1).mean()) if len(means) > 1 else float("nan")


def read(experiment: Experiment, params: Tree, buffers: Tree, seed: int, task: int) -> tuple[Tensor, ...]:
    """Mean activations [k, units] of a task's test examples, and the mean fraction [k] of units that are not 0.

    Nothing for networks without a layer `head`.
    """
    k, benchmark = len(next(iter(params.values()))), experiment.benchmark
    own = benchmark.curriculum(seed).tasks[task]
    reads = lift(partial(head_input, experiment.net), k, (0, 0, None))
    total: list[Tensor] = []

    def add(at: Tensor) -> None:
        x = look(benchmark, gathered(benchmark.x_test, own.rows_test[at]), own.pixels)
        for of_head in raise_axis(reads(lower(params, k), lower(buffers, k), x), k).values():
            a = of_head.double()
            total.append(torch.cat([a.sum(1), (a != 0).double().mean(2).sum(1, keepdim=True)], 1))

    in_parts(add, torch.arange(len(own.rows_test), device=own.rows_test.device), experiment.rows_per_pass)
    if not total:
        return ()
    mean = torch.stack(total).sum(0) / len(own.rows_test)
    return mean[:, :-1], mean[:, -1]
