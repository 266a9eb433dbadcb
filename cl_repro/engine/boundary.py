"""What happens between tasks: importances of the task just learned, what a method sees of it, and test accuracy."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_map

from cl_repro.common import rng, tree
from cl_repro.common.errors import OutOfMemoryError, UserError
from cl_repro.common.runtime import clock
from cl_repro.engine.needs import check_inspects
from cl_repro.engine.stack import Experiment, Stack, active_mask, gathered, groups, lift, look, lower, raise_axis
from cl_repro.types import Estimator, Method, Tree

Predict = Callable[..., Tensor]  # Method.predict


def measure(experiment: Experiment, stack: Stack, task: int, estimators: Sequence[Estimator]) -> Tree:
    """Importances [K, ...] of the task just learned, each replica by its own estimator, of protected parameters.

    Replicas of one seed and estimator see the same examples and are estimated together.
    """
    began = clock(experiment.device)
    result = tree.zeros_like(experiment.protected(stack.params))
    for seed, estimator, rows in groups(stack, estimators):
        for part in [rows] if estimator.vectorises else rows.split(1):
            chosen = tree.select(stack.params, part), tree.select(stack.buffers, part)
            made = estimate(experiment, *chosen, estimator, seed, task)
            for name, value in result.items():
                value[part] = made[name]
    stack.seconds.fisher += clock(experiment.device) - began
    return result


def estimate(experiment: Experiment, params: Tree, buffers: Tree, estimator: Estimator, seed: int, task: int) -> Tree:
    """The importance of one task for k replicas of one seed, {name: [k, *shape]}."""
    k = len(next(iter(params.values())))
    curriculum = experiment.benchmark.curriculum(seed)
    own = curriculum.tasks[task]
    n = len(own.rows)
    used = estimator.rows(n)
    if used > n:
        raise UserError(f"fisher.n={used}: task {task} of seed {seed} has {n} examples; n must not be larger")
    active = active_mask(experiment, curriculum, task, task).nonzero()[:, 0]
    order = torch.randperm(n, generator=rng.stream(seed, "fisher_order", task)).to(own.rows.device)
    noise = torch.rand(n, generator=rng.stream(seed, "fisher_labels", task), dtype=torch.float64)
    noise = noise.to(own.rows.device)
    label = torch.searchsorted(active, experiment.scenario.label(curriculum.y[own.rows], own))

    def of_examples(f: Callable[..., Any], at: Tensor, *weight: Tensor) -> Any:
        """`f` of the networks and of the examples at `at`: [B], which all networks see, or a row for each, [k, B]."""
        x = look(experiment.benchmark, gathered(experiment.benchmark.x, own.rows[at]), own.pixels)
        data = x, label[at], noise[at], *weight
        of_one = lambda p, b, x, y, u, *w: f(experiment.net, p, b, x, y, u, active, *w)  # noqa: E731
        of_all = lift(of_one, k, (0, 0, *(0 if at.dim() == 2 else None for _ in data)))
        return of_all(lower(params, k), lower(buffers, k), *data)

    at, weight, scores = order[:used], list[Tensor](), list[Tensor]()
    if estimator.choice:
        score, pick = estimator.choice
        with torch.no_grad():
            in_parts(lambda part: scores.append(of_examples(score, part)), order, experiment.rows_per_pass)
        u = torch.rand((), generator=rng.stream(seed, "fisher_choice", task), dtype=torch.float64).to(order.device)
        picked = [pick(of_one, u) for of_one in raise_axis(torch.cat(scores, -1), k)]
        at, *weight = lower([torch.stack(each) for each in zip(*picked, strict=True)], k)
        at = order[at]
    total: Tree = {}

    def add(of: Tensor) -> None:
        nonlocal total
        part = of_examples(estimator.sum, at[..., of], *(w[..., of] for w in weight))
        total = tree.add(total, part) if total else part

    size = estimator.batch_size or experiment.rows_per_pass
    in_parts(add, torch.arange(used, device=order.device), size, halves=estimator.batch_size is None)
    mean = tree.divide(total, estimator.divisor(n))
    return raise_axis({name: estimator.finish(value) for name, value in mean.items()}, k)


def in_parts(f: Callable[[Tensor], None], rows: Tensor, size: int, halves: bool = True) -> None:
    """Call `f` on parts of `rows`; when the device has no memory for one, go on with half as many.

    Args:
        f: called once for every row, with some of them at a time; must change nothing if it runs out of memory.
        rows: [N].
        size: rows at a time.
        halves: whether the size may change.

    Raises:
        OutOfMemoryError: if the device has none even for one row.
    """
    first = 0
    while first < len(rows):
        try:
            f(rows[first : first + size])
        except torch.OutOfMemoryError as error:
            if size == 1 or not halves:
                raise OutOfMemoryError(
                    f"out of memory on {rows.device} with {size} examples per pass; set max_replicas= to fewer replicas"
                ) from error
            size = -(-size // 2)
            sys.stderr.write(f"out of memory on {rows.device}: going on with {size} examples per pass\n")
        else:
            first += size


@torch.no_grad()
def evaluate(
    experiment: Experiment,
    stack: Stack,
    trained: int,
    split: str = "test",
    predict: Predict | None = None,
    state: Any = (),
) -> NDArray[np.float64]:
    """Accuracy [K, T] on every task's test (or validation) rows, after training up to `trained`.

    Logits are the network's, or what a method predicts with its state.
    """
    began = clock(experiment.device)
    benchmark = experiment.benchmark
    x = benchmark.x_test if split == "test" else benchmark.x
    result = torch.zeros(len(stack.seeds), benchmark.n_tasks, dtype=torch.float64)
    for seed, _, replicas in groups(stack, stack.seeds):
        curriculum = benchmark.curriculum(seed)
        y = curriculum.y_test if split == "test" else curriculum.y
        chosen = tree.select(stack.params, replicas), tree.select(stack.buffers, replicas)
        own = tree_map(lambda t, of=replicas: t[of], raise_axis(state, len(stack.seeds))) if predict else ()
        for asked, task in enumerate(curriculum.tasks):
            rows = task.rows_test if split == "test" else task.rows_val
            assert rows is not None  # the benchmark says which splits it has
            active = active_mask(experiment, curriculum, trained, asked)
            label = experiment.scenario.label(y[rows], task)
            result[replicas.cpu(), asked] = accuracy(
                experiment, *chosen, x[rows], label, active, task.pixels, predict, own
            ).cpu()
    stack.seconds.evaluate += clock(experiment.device) - began
    return result.numpy()


def accuracy(
    experiment: Experiment,
    params: Tree,
    buffers: Tree,
    images: Tensor,
    label: Tensor,
    active: Tensor,
    pixels: Tensor | None,
    predict: Predict | None = None,
    state: Any = (),
) -> Tensor:
    """Fraction [k] of examples [N, *shape] whose active logit is largest at the label, for k replicas."""
    k = len(next(iter(params.values())))

    def of_one(of_method: Any, p: Tree, b: Tree, x: Tensor) -> Tensor:
        return predict(of_method, experiment.net, p, b, x, active) if predict else experiment.net.apply(p, b, x)[0]

    logits = lift(of_one, k, (0 if predict else None, 0, 0, None))
    right = torch.zeros(k, dtype=torch.float64, device=images.device)

    def count(at: Tensor) -> None:
        x = look(experiment.benchmark, gathered(images, at), pixels)
        z = raise_axis(logits(lower(state, k), lower(params, k), lower(buffers, k), x), k)
        guess = z.masked_fill(~active, float("-inf")).argmax(-1)
        right.add_((guess == label[at]).sum(1))

    in_parts(count, torch.arange(len(images), device=images.device), experiment.rows_per_pass)
    return right / len(images)


def inspected(experiment: Experiment, stack: Stack, task: int, method: Method, state: Any) -> Any:
    """The state of K replicas after `method.inspect` of `needs.inspects` random examples of a task.

    One replica at a time, for it may grow its state.

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
