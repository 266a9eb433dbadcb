"""Mini-batches: drawn for a whole task at once, gathered from the resident data step by step."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from cl_repro import rng
from cl_repro.engine.stack import Experiment, Stack, active_mask, look
from cl_repro.errors import UserError
from cl_repro.types import Benchmark, Curriculum


class Batches(NamedTuple):
    """The mini-batches of one task for S seeds, as indices into the resident data."""

    at: Tensor  # [S, iterations, B] int64, positions among the examples they are drawn from
    rows: Tensor  # [S, iterations, B] int64
    label: Tensor  # [S, iterations, B] int64
    owner: Tensor  # [S, iterations, B] int64, the task an example belongs to
    masks: Tensor  # [T, C] bool, the active logits of each task's examples
    pixels: Tensor | None  # [S, T, P] int64, the order of each task's pixels
    noise: list[Generator]  # one a seed, for what a network draws in training


def batches(
    experiment: Experiment, seeds: Sequence[int], task: int, trains_on: Sequence[int], stream: str = "order"
) -> Batches:
    """Draw the mini-batches of `task`, from examples of the tasks `trains_on`, for each of S seeds."""
    at, rows, labels, owners, pixels = [], [], [], [], []
    for seed in seeds:
        curriculum = experiment.benchmark.curriculum(seed)
        tasks = [curriculum.tasks[t] for t in trains_on]
        pool = torch.cat([t.rows for t in tasks])
        label = torch.cat([experiment.scenario.label(curriculum.y[t.rows], t) for t in tasks])
        owner = torch.cat([torch.full_like(t.rows, i) for i, t in zip(trains_on, tasks, strict=True)])
        if len(pool) < experiment.batch_size:
            raise UserError(
                f"batch_size={experiment.batch_size}: task {task} of seed {seed} has {len(pool)} examples; "
                "incomplete batches are dropped, so the batch must not be larger than the task"
            )
        order = rng.batches(
            rng.stream(seed, stream, task), len(pool), experiment.batch_size, experiment.steps(task)
        ).to(pool.device)
        at.append(order)
        rows.append(pool[order])
        labels.append(label[order])
        owners.append(owner[order])
        pixels += pixel_orders(experiment.benchmark, curriculum)
    curriculum = experiment.benchmark.curriculum(seeds[0])
    masks = [active_mask(experiment, curriculum, task, asked) for asked in range(experiment.benchmark.n_tasks)]
    return Batches(
        torch.stack(at),
        torch.stack(rows),
        torch.stack(labels),
        torch.stack(owners),
        torch.stack(masks),
        torch.stack(pixels).unflatten(0, (len(seeds), -1)) if pixels else None,
        [rng.stream(seed, "noise", task, experiment.device) for seed in seeds],
    )


def pixel_orders(benchmark: Benchmark, curriculum: Curriculum) -> list[Tensor]:
    """The order [P] of each task's pixels; none if all tasks have them as they are."""
    if all(task.pixels is None for task in curriculum.tasks):
        return []
    as_they_are = torch.arange(benchmark.x[0].numel(), device=benchmark.x.device)
    return [as_they_are if task.pixels is None else task.pixels for task in curriculum.tasks]


def part(drawn: Batches, first: int, last: int) -> Batches:
    """The mini-batches `first` to `last - 1`."""
    cut = {name: getattr(drawn, name)[:, first:last] for name in ("at", "rows", "label", "owner")}
    return drawn._replace(**cut)


def slots(stack: Stack, drawn: Batches) -> int | Tensor:
    """Where each replica's mini-batches are: 0 if all replicas have one seed and read one, else [K], its seed's."""
    seeds = sorted(set(stack.seeds))
    return 0 if len(seeds) == 1 else torch.tensor([seeds.index(s) for s in stack.seeds], device=drawn.rows.device)


def minibatch(benchmark: Benchmark, drawn: Batches, take: int | Tensor, i: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs [B, *shape], labels [B] and active logits [B, C] of mini-batch i; for each replica, if `take` is [K]."""
    owner = drawn.owner[take, i]
    pixels = None
    if drawn.pixels is not None:
        pixels = drawn.pixels[take if isinstance(take, int) else take[:, None], owner]
    x = look(benchmark, benchmark.x[drawn.rows[take, i]], pixels)
    return x, drawn.label[take, i], drawn.masks[owner]


def uniform(drawn: Batches, take: int | Tensor, size: int, like: Tensor) -> Tensor:
    """Noise [B, size] of one mini-batch, by seed; for each replica, if `take` is [K]."""
    n = drawn.rows.shape[2]
    of_seeds = [torch.rand(n, size, generator=g, dtype=like.dtype, device=like.device) for g in drawn.noise]
    return torch.stack(of_seeds)[take] if len(of_seeds) > 1 else of_seeds[0]
