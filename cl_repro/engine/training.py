"""Training a stack on one task: mini-batches, losses, penalties, steps."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from cl_repro import rng
from cl_repro.engine.stack import Experiment, Stack, active_mask, lift, look, lower, raise_axis, redraw
from cl_repro.errors import UserError
from cl_repro.losses import cross_entropy
from cl_repro.runtime import clock, tf32
from cl_repro.types import Benchmark, Curriculum, Method, Net, Tree

BATCH, INDEPENDENT = "batch", "independent"  # gradients a method may observe
REPORT_EVERY = 50  # iterations between two progress reports

Report = Callable[[int, int, float], None]  # (replica iterations done since the last report, task, loss)


class Batches(NamedTuple):
    """The mini-batches of one task for S seeds, as indices into the resident data."""

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
    rows, labels, owners, pixels = [], [], [], []
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
        rows.append(pool[order])
        labels.append(label[order])
        owners.append(owner[order])
        pixels += pixel_orders(experiment.benchmark, curriculum)
    curriculum = experiment.benchmark.curriculum(seeds[0])
    masks = [active_mask(experiment, curriculum, task, asked) for asked in range(experiment.benchmark.n_tasks)]
    return Batches(
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


def learn(
    experiment: Experiment, stack: Stack, task: int, method: Method, state: Any, report: Report = lambda *_: None
) -> Any:
    """Train the stack on one task, in place.

    Args:
        experiment: what its replicas share.
        stack: K replicas.
        task: 0, 1, ...
        method: whose penalty pulls, and who may observe.
        state: of the method; None if it has none yet.
        report: told about progress.

    Returns:
        The state after what the method observed.
    """
    began = clock(experiment.device)
    k, seeds = len(stack.seeds), sorted(set(stack.seeds))
    if experiment.reset_optimiser:
        stack.optimiser = experiment.optimiser(list(stack.params.values()))
    if experiment.reinit and task:
        redraw(experiment, stack, task)
    trains_on = method.trains_on(task)
    drawn = batches(experiment, seeds, task, trains_on)
    # DEVIATES: shuffled epochs of their own, as in Benzing's runs on MNIST; his code for CIFAR draws with replacement
    independent = batches(experiment, seeds, task, trains_on, INDEPENDENT) if INDEPENDENT in method.gradients else None
    if method.start_task:
        state = lift(method.start_task, k)(state, lower(experiment.protected(stack.params), k))
    with tf32(experiment.tf32):
        state = follow(
            experiment, stack, drawn, method, state, lambda done, loss: report(done, task, loss), independent
        )
    stack.seconds.train += clock(experiment.device) - began
    return state


def follow(
    experiment: Experiment,
    stack: Stack,
    drawn: Batches,
    method: Method,
    state: Any,
    report: Callable[[int, float], None],
    independent: Batches | None = None,
) -> Any:
    """Take one step per mini-batch; returns the state of the method.

    An observing method sees the gradients before a step and the step: what the optimiser did with loss and penalty.
    """
    k, net, benchmark = len(stack.seeds), experiment.net, experiment.benchmark
    take = slots(stack, drawn)
    leaves = {name: p.detach().requires_grad_() for name, p in lower(stack.params, k).items()}
    mine, targets = experiment.protected(leaves), experiment.protected(stack.params)
    each = 0 if isinstance(take, Tensor) else None
    loss_of = lift(loss_function(net), k, (0, 0, *[each] * (4 if net.noise else 3)))
    evaluated = lift(loss_function(net, train=False), k, (0, 0, each, each, each))
    # then the step's own gradient is one to observe
    as_evaluated = not net.noise and not stack.buffers and not experiment.tf32
    penalty = lift(method.penalty_grad, k) if method.penalty_grad and state is not None else None
    observe = lift(method.observe, k) if method.observe else None

    def task_gradient(data: tuple[Tensor, ...]) -> Tree:
        with tf32(False):
            losses, _ = evaluated(leaves, lower(stack.buffers, k), *data)
            return dict(zip(mine, torch.autograd.grad(losses.sum(), list(mine.values())), strict=True))

    for i in range(drawn.rows.shape[1]):
        data = minibatch(benchmark, drawn, take, i)
        noise = (uniform(drawn, take, net.noise, data[0]),) if net.noise else ()
        losses, buffers = loss_of(leaves, lower(stack.buffers, k), *data, *noise)
        grads = dict(zip(leaves, torch.autograd.grad(losses.sum(), list(leaves.values())), strict=True))
        if observe:
            seen = {}
            if BATCH in method.gradients:
                seen[BATCH] = {name: grads[name] for name in mine} if as_evaluated else task_gradient(data)
            if independent:
                seen[INDEPENDENT] = task_gradient(minibatch(benchmark, independent, take, i))
            before = {name: p.clone() for name, p in targets.items()}
        stack.buffers = raise_axis(buffers, k)
        with torch.no_grad():
            if penalty:
                for name, extra in penalty(state, mine).items():
                    # what a method observes is the task's own
                    grads[name] = grads[name] + extra if observe else grads[name].add_(extra)
            for name, target in stack.params.items():
                # contiguous: the fused optimiser reads memory in order, whatever the strides say
                target.grad = (grads[name][None] if k == 1 else grads[name]).contiguous()
            stack.optimiser.step()
            if observe:
                change = {
                    name: torch.sub(p, old, out=old)
                    for (name, old), p in zip(before.items(), targets.values(), strict=True)
                }
                state = observe(state, seen, lower(change, k))
        if (i + 1) % REPORT_EVERY == 0 or i + 1 == drawn.rows.shape[1]:
            report(k * (i % REPORT_EVERY + 1), losses.detach().mean().item())
    return state


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


def loss_function(net: Net, train: bool = True) -> Callable[..., tuple[Tensor, Tree]]:
    """The task loss of one replica: mean cross-entropy of a mini-batch on each example's active logits."""

    def loss(
        params: Tree, buffers: Tree, x: Tensor, label: Tensor, active: Tensor, *noise: Tensor
    ) -> tuple[Tensor, Tree]:
        given = {"noise": noise[0]} if noise else {}
        z, buffers = net.apply(params, buffers, x, train=train, **given)
        return cross_entropy(z, label, active), buffers

    return loss
