"""What follows from what a method needs: when its hooks act, what it trains on, and what it must find for it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cl_repro.common import tree
from cl_repro.common.errors import UserError
from cl_repro.engine.objective import of_inputs
from cl_repro.engine.stack import Epochs, Experiment, start
from cl_repro.types import Layer, Method

NO_METHOD = Method()


def acting(method: Method, task: int) -> Method:
    """The method in a task: hooks that act on a step do so from the second on, or from the start if it says so."""
    if task or method.needs.from_start:
        return method
    return method._replace(penalty_grad=None, loss=None, project_input=None, descend=None, project=None)


def in_first_task(method: Method) -> bool:
    """Whether a method has a part in the first task: then it has a state before, and shares that task with no other."""
    return bool(method.observe or method.start_task) or method.needs.keeps_logits or method.needs.from_start


def trains_on(method: Method, task: int) -> Sequence[int]:
    """Tasks whose examples the mini-batches of a task are drawn from."""
    return range(task + 1) if method.needs.all_tasks else [task]


def repetitions(method: Method, n: int) -> int:
    """How often each example of a memory of size M is mixed with the n of a task: n // M times, but at least once."""
    memory = method.needs.memory
    return max(n // memory.size, 1) if method.needs.mixes and memory and memory.size else 0


def lengths(experiment: Experiment, method: Method, seed: int) -> list[int]:
    """Iterations of each task; of a memory that is mixed in, as if it held as many examples as it can or has seen."""
    length, memory = experiment.iterations, method.needs.memory
    if not isinstance(length, Epochs):
        return [experiment.steps(k) for k in range(experiment.benchmark.n_tasks)]
    sizes, found = [len(task.rows) for task in experiment.benchmark.curriculum(seed).tasks], []
    for k, own in enumerate(sizes):
        held = min(sum(sizes[:k]), memory.size if memory else 0)
        n = sum(sizes[t] for t in trains_on(method, k)) + repetitions(method, own) * held
        found.append(length.steps(k, n, experiment.batch_size))
    return found


# --- what is refused before any training ------------------------------------------------------------------------------


def check(experiment: Experiment, method: Method, seeds: Sequence[int], names: Mapping[str, str]) -> None:
    """Refuse an experiment that has not what a method needs.

    `names`: of the method, the optimiser and the model, by their groups, for messages.

    Raises:
        UserError: what is missing.
    """
    chosen = {group: f"method={names['method']} with {group}={names[group]}" for group in ("optim", "model")}
    if method.needs.own_rates and not subtracts(experiment):
        raise UserError(
            f"{chosen['optim']}: its steps are its own, and need SGD that takes them as they are: optim=sgd optim.lr=1"
        )
    if (method.project or method.descend) and not follows(experiment):
        raise UserError(
            f"{chosen['optim']}: needs SGD without weight decay, with "
            "momentum only where it is reset for every task: optim=sgd or sgd_momentum"
        )
    steps = method.needs.warm_up
    if (method.needs.hidden or steps) and "head.weight" not in experiment.net.init(torch.Generator())[0]:
        asked = f"{chosen['model']} and method.warm_up={steps}" if steps else chosen["model"]
        raise UserError(f"{asked}: needs a network with one layer called head")
    if method.project_input:
        check_layers(experiment, chosen["model"])
    for seed in seeds:
        check_warm_up(experiment, method, seed)
        for k, task in enumerate(experiment.benchmark.curriculum(seed).tasks):
            check_inspects(method, len(task.rows), k, seed)


def check_layers(experiment: Experiment, names: str) -> None:
    """Refuse layers whose inputs a method would not project: ask the network for one example."""
    stack, benchmark = start(experiment, [0]), experiment.benchmark
    params, buffers = tree.at(stack.params, 0), tree.at(stack.buffers, 0)

    def tap(name: str, layer: Layer, a: Tensor, z: Tensor) -> Tensor:
        of_inputs(params, name, layer)
        return z

    try:
        experiment.net.apply(params, buffers, benchmark.to_input(benchmark.x[:1]), tap=tap)
    except UserError as error:
        raise UserError(f"{names}: {error}") from error


def check_inspects(method: Method, n: int, task: int, seed: int) -> None:
    """Refuse a task with fewer examples than a method looks at."""
    if method.needs.inspects > n:
        raise UserError(
            f"method.n={method.needs.inspects}: must be at most the {n} examples of task {task} of seed {seed}"
        )


def check_warm_up(experiment: Experiment, method: Method, seed: int) -> None:
    """Refuse a warm-up of outputs that no task has, or of more mini-batches than a task of this seed has."""
    steps, most = method.needs.warm_up, lengths(experiment, method, seed)
    tasks, active = experiment.benchmark.curriculum(seed).tasks, experiment.scenario.active
    for k in range(1, len(tasks) if steps else 0):
        if set(active(tasks, k, k)) <= {c for asked in range(k) for c in active(tasks, k - 1, asked)}:
            raise UserError(f"method.warm_up={steps}: must be 0 where a task brings no outputs of its own")
        if steps > most[k]:
            raise UserError(
                f"method.warm_up={steps}: must be at most the {most[k]} iterations of task {k} of seed {seed}"
            )


def follows(experiment: Experiment) -> bool:
    """Whether the optimiser steps along the gradient that it is given, also at the start of a task."""
    group = plain_sgd(experiment)
    return group is not None and (not group["momentum"] or experiment.reset_optimiser)


def subtracts(experiment: Experiment) -> bool:
    """Whether a step of the optimiser is the gradient that it is given, as it is."""
    group = plain_sgd(experiment)
    return group is not None and not group["momentum"] and group["lr"] == 1


def plain_sgd(experiment: Experiment) -> dict[str, Any] | None:
    """The options of the optimiser if it is SGD without weight decay."""
    optimiser = experiment.optimiser([torch.zeros(1, device=experiment.device)])
    [group] = optimiser.param_groups
    return group if isinstance(optimiser, torch.optim.SGD) and not group["weight_decay"] else None
