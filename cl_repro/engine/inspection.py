"""What a method learns from examples of the task just learned: one replica at a time, for it may grow its state."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_map

from cl_repro.common import rng, tree
from cl_repro.common.runtime import clock
from cl_repro.engine.needs import check_inspects
from cl_repro.engine.stack import Experiment, Stack, active_mask, gathered, look, lower, raise_axis
from cl_repro.types import Method


def inspected(experiment: Experiment, stack: Stack, task: int, method: Method, state: Any) -> Any:
    """The state of K replicas after `method.inspect` of `needs.inspects` random examples of a task.

    Raises:
        UserError: the task has fewer.
    """
    assert method.inspect
    began, k, benchmark = clock(experiment.device), len(stack.seeds), experiment.benchmark
    stacked, found = raise_axis(state, k), []
    for i, seed in enumerate(stack.seeds):
        curriculum = benchmark.curriculum(seed)
        own = curriculum.tasks[task]
        check_inspects(method, len(own.rows), task, seed)
        order = torch.randperm(len(own.rows), generator=rng.stream(seed, "inspect", task))[: method.needs.inspects]
        rows = own.rows[order.to(own.rows.device)]
        found.append(
            method.inspect(
                tree_map(lambda t, i=i: t[i], stacked),
                experiment.net,
                tree.at(stack.params, i),
                tree.at(stack.buffers, i),
                look(benchmark, gathered(benchmark.x, rows), own.pixels),
                experiment.scenario.label(curriculum.y[rows], own),
                active_mask(experiment, curriculum, task, task),
            )
        )
    stack.seconds.fisher += clock(experiment.device) - began
    return lower(tree_map(lambda *parts: together(parts), *found), k)


def together(parts: tuple[Tensor, ...]) -> Tensor:
    """Tensors of one shape but for the last dimension as one [K, ...]; the shorter are filled with zeros."""
    if not parts[0].dim():
        return torch.stack(parts)
    most = max(part.shape[-1] for part in parts)
    return torch.stack([functional.pad(part, (0, most - part.shape[-1])) for part in parts])
