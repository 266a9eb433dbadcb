"""Mini-batches: drawn for a whole task at once, gathered from the resident data step by step."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from cl_repro.common import rng
from cl_repro.common.errors import UserError
from cl_repro.engine.stack import Epochs, Experiment, Stack, active_mask, gathered, look
from cl_repro.types import Benchmark, Curriculum

PER_STEP = ("at", "rows", "label", "owner")  # fields that have a mini-batch of each step


class Batches(NamedTuple):
    """The mini-batches of one task for S seeds, as indices into the resident data; -1 where one is smaller than B."""

    at: Tensor  # [S, iterations, B] int64, positions among the examples they are drawn from
    rows: Tensor  # [S, iterations, B] int64
    label: Tensor  # [S, iterations, B] int64
    owner: Tensor  # [S, iterations, B] int64, the task an example belongs to
    masks: Tensor  # [T, C] bool, the active logits of each task's examples
    pixels: Tensor | None  # [S, T, P] int64, the order of each task's pixels
    noise: list[Generator]  # one a seed, for what a network draws in training
    sizes: Tensor  # [iterations] int64 on the CPU, examples of each mini-batch, the same for all seeds


def batches(
    experiment: Experiment,
    seeds: Sequence[int],
    task: int,
    trains_on: Sequence[int],
    stream: str = "order",
    more: Sequence[Tensor] | None = None,
) -> Batches:
    """Draw the mini-batches of a task for S seeds, each with a draw of its own, from the tasks `trains_on`.

    `more`: for each seed other examples that they are drawn from, too, [n, 2] int64, row and task.

    Raises:
        UserError: fewer examples than a mini-batch has, where incomplete ones are dropped.
        ValueError: seeds whose epochs are cut into different mini-batches.
    """
    benchmark = experiment.benchmark
    drawn, pixels = [], []
    for s, seed in enumerate(seeds):
        curriculum = benchmark.curriculum(seed)
        pool = torch.cat([curriculum.tasks[t].rows for t in trains_on])
        owner = torch.cat([torch.full_like(curriculum.tasks[t].rows, t) for t in trains_on])
        if more is not None:
            pool, owner = torch.cat([pool, more[s][:, 0]]), torch.cat([owner, more[s][:, 1]])
        order = drawn_order(experiment, seed, task, len(pool), stream).to(pool.device)
        of_pool = pool, labels_of(experiment, curriculum, pool, owner), owner
        drawn.append((order, *(values[order].masked_fill_(order < 0, -1) for values in of_pool)))
        pixels += pixel_orders(benchmark, curriculum)
    sizes = [(order >= 0).sum(1).cpu() for order, *_ in drawn]
    if not all(torch.equal(own, sizes[0]) for own in sizes):
        raise ValueError(f"task {task} of seeds {list(seeds)}: whole epochs of different lengths are no one stack")
    at, rows, label, owner = (torch.stack(of_seeds) for of_seeds in zip(*drawn, strict=True))
    curriculum = benchmark.curriculum(seeds[0])
    masks = [active_mask(experiment, curriculum, task, asked) for asked in range(benchmark.n_tasks)]
    order_of_pixels = torch.stack(pixels).unflatten(0, (len(seeds), -1)) if pixels else None
    noise = [rng.stream(seed, "noise", task, experiment.device) for seed in seeds]
    return Batches(at, rows, label, owner, torch.stack(masks), order_of_pixels, noise, sizes[0])


def drawn_order(experiment: Experiment, seed: int, task: int, n: int, stream: str) -> Tensor:
    """Positions [iterations, B] among the n examples that a task trains on; -1 where a mini-batch is smaller."""
    generator, size, length = rng.stream(seed, stream, task), experiment.batch_size, experiment.iterations
    if isinstance(length, Epochs):
        return rng.whole_epochs(generator, n, size, length.of_tasks[task])
    if n < size:
        raise UserError(
            f"batch_size={size}: task {task} of seed {seed} has {n} examples; "
            "incomplete batches are dropped, so the batch must not be larger than the task"
        )
    return rng.batches(generator, n, size, experiment.steps(task))


def labels_of(experiment: Experiment, curriculum: Curriculum, rows: Tensor, owner: Tensor) -> Tensor:
    """Logit indices of examples `rows`, each as an example of the task `owner` that it belongs to."""
    label = torch.zeros_like(rows)
    for t in owner.unique().tolist():
        own = owner == t
        label[own] = experiment.scenario.label(curriculum.y[rows[own]], curriculum.tasks[t])
    return label


def pixel_orders(benchmark: Benchmark, curriculum: Curriculum) -> list[Tensor]:
    """The order [P] of each task's pixels; none if all tasks have them as they are."""
    if all(task.pixels is None for task in curriculum.tasks):
        return []
    as_they_are = torch.arange(benchmark.x[0].numel(), device=benchmark.x.device)
    return [as_they_are if task.pixels is None else task.pixels for task in curriculum.tasks]


def part(drawn: Batches, first: int, last: int) -> Batches:
    """The mini-batches `first` to `last - 1`."""
    cut = {name: getattr(drawn, name)[:, first:last] for name in PER_STEP}
    return drawn._replace(**cut, sizes=drawn.sizes[first:last])


def slots(stack: Stack, drawn: Batches) -> int | Tensor:
    """Where in `drawn` the mini-batches of each replica's seed are, [K]; 0 if all replicas have one seed."""
    seeds = sorted(set(stack.seeds))
    return 0 if len(seeds) == 1 else torch.tensor([seeds.index(s) for s in stack.seeds], device=drawn.rows.device)


def minibatch(benchmark: Benchmark, drawn: Batches, take: int | Tensor, i: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs [B, *shape], labels [B] and active logits [B, C] of mini-batch i; for each replica, if `take` is [K]."""
    n = int(drawn.sizes[i])
    owner = drawn.owner[take, i, :n]
    pixels = None
    if drawn.pixels is not None:
        pixels = drawn.pixels[take if isinstance(take, int) else take[:, None], owner]
    x = look(benchmark, gathered(benchmark.x, drawn.rows[take, i, :n]), pixels)
    return x, drawn.label[take, i, :n], drawn.masks[owner]


def uniform(drawn: Batches, take: int | Tensor, i: int, size: int, like: Tensor) -> Tensor:
    """Noise [B, size] of mini-batch i, by seed; for each replica, if `take` is [K]."""
    n, dtype, device = int(drawn.sizes[i]), like.dtype, like.device
    of_seeds = [torch.rand(n, size, generator=g, dtype=dtype, device=device) for g in drawn.noise]
    return torch.stack(of_seeds)[take] if len(of_seeds) > 1 else of_seeds[0]
