"""Training a stack on one task: mini-batches, losses, penalties, steps."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cl_repro import rng
from cl_repro.engine.stack import Experiment, Stack, active_mask, lift, lower, raise_axis
from cl_repro.errors import UserError
from cl_repro.losses import cross_entropy
from cl_repro.runtime import clock, tf32
from cl_repro.types import Method, Net, Tree

REPORT_EVERY = 50  # iterations between two progress reports

Report = Callable[[int, int, float], None]  # (replica iterations done since the last report, task, loss)


class Batches(NamedTuple):
    """The mini-batches of one task for S seeds, as indices into the resident data."""

    rows: Tensor  # [S, iterations, B] int64
    label: Tensor  # [S, iterations, B] int64
    owner: Tensor  # [S, iterations, B] int64, the task an example belongs to
    masks: Tensor  # [T, C] bool, the active logits of each task's examples


def batches(experiment: Experiment, seeds: Sequence[int], task: int, trains_on: Sequence[int]) -> Batches:
    """Draw the mini-batches of `task`, from examples of the tasks `trains_on`, for each of S seeds."""
    rows, labels, owners = [], [], []
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
            rng.stream(seed, "order", task), len(pool), experiment.batch_size, experiment.iterations
        ).to(pool.device)
        rows.append(pool[order])
        labels.append(label[order])
        owners.append(owner[order])
    curriculum = experiment.benchmark.curriculum(seeds[0])
    masks = [active_mask(experiment, curriculum, task, asked) for asked in range(experiment.benchmark.n_tasks)]
    return Batches(torch.stack(rows), torch.stack(labels), torch.stack(owners), torch.stack(masks))


def learn(
    experiment: Experiment, stack: Stack, task: int, method: Method, state: Any, report: Report = lambda *_: None
) -> None:
    """Train the stack on one task, in place."""
    began = clock(experiment.device)
    if experiment.reset_optimiser:
        stack.optimiser = experiment.optimiser(list(stack.params.values()))
    seeds = sorted(set(stack.seeds))
    drawn = batches(experiment, seeds, task, method.trains_on(task))
    with tf32(experiment.tf32):
        follow(experiment, stack, drawn, method, state, lambda done, loss: report(done, task, loss))
    stack.seconds.train += clock(experiment.device) - began


def follow(
    experiment: Experiment,
    stack: Stack,
    drawn: Batches,
    method: Method,
    state: Any,
    report: Callable[[int, float], None],
) -> None:
    """Take one step per mini-batch."""
    k, seeds = len(stack.seeds), sorted(set(stack.seeds))
    # one seed: all replicas read one mini-batch; several: each reads its seed's
    slot = None if len(seeds) == 1 else torch.tensor([seeds.index(s) for s in stack.seeds], device=drawn.rows.device)
    take = 0 if slot is None else slot
    leaves = {name: p.detach().requires_grad_() for name, p in lower(stack.params, k).items()}
    names, targets = list(leaves), list(stack.params.values())
    each = None if slot is None else 0
    loss_of = lift(loss_function(experiment.net), k, (0, 0, each, each, each))
    penalty = lift(method.penalty_grad, k) if method.penalty_grad and state is not None else None
    for i in range(drawn.rows.shape[1]):
        x = experiment.benchmark.to_input(experiment.benchmark.x[drawn.rows[take, i]])
        active = drawn.masks[drawn.owner[take, i]]
        losses, buffers = loss_of(leaves, lower(stack.buffers, k), x, drawn.label[take, i], active)
        stack.buffers = raise_axis(buffers, k)
        grads = torch.autograd.grad(losses.sum(), list(leaves.values()))
        with torch.no_grad():
            if penalty:
                extra = penalty(state, leaves)
                for name, g in zip(names, grads, strict=True):
                    g.add_(extra[name])
            for target, g in zip(targets, grads, strict=True):
                # contiguous: the fused optimiser reads memory in order, whatever the strides say
                target.grad = (g[None] if k == 1 else g).contiguous()
            stack.optimiser.step()
        if (i + 1) % REPORT_EVERY == 0 or i + 1 == drawn.rows.shape[1]:
            report(k * (i % REPORT_EVERY + 1), losses.detach().mean().item())


def loss_function(net: Net) -> Callable[..., tuple[Tensor, Tree]]:
    """The task loss of one replica: mean cross-entropy of a mini-batch on each example's active logits."""

    def loss(params: Tree, buffers: Tree, x: Tensor, label: Tensor, active: Tensor) -> tuple[Tensor, Tree]:
        z, buffers = net.apply(params, buffers, x, train=True)
        return cross_entropy(z, label, active), buffers

    return loss
