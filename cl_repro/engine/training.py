"""The steps of a stack on one task: mini-batches, losses, penalties."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from cl_repro import tree
from cl_repro.engine.aids import BATCH, INDEPENDENT, NOTHING, Aids, taught
from cl_repro.engine.batches import Batches, minibatch, slots, uniform
from cl_repro.engine.graphs import Recorded
from cl_repro.engine.stack import Experiment, Stack, lift, lower, raise_axis
from cl_repro.losses import cross_entropy
from cl_repro.models.layers import LINEAR
from cl_repro.runtime import tf32
from cl_repro.types import Examples, Layer, Method, Net, Step, Tree

REPORT_EVERY = 50  # iterations between two progress reports

Report = Callable[[int, int, float], None]  # (replica iterations done since the last report, task, loss)


def follow(
    experiment: Experiment,
    stack: Stack,
    drawn: Batches,
    method: Method,
    state: Any,
    report: Callable[[int, float], None],
    aid: Aids = NOTHING,
) -> Any:
    """Take one step per mini-batch; returns the state of the method.

    An observing method sees the gradients before a step and the step: what the optimiser did with loss and penalty.
    """
    k, net, benchmark = len(stack.seeds), experiment.net, experiment.benchmark
    take = slots(stack, drawn)
    leaves = {name: p.detach().requires_grad_() for name, p in lower(stack.params, k).items()}
    mine, targets = experiment.protected(leaves), experiment.protected(stack.params)
    each = 0 if isinstance(take, Tensor) else None
    own = method.loss if aid.old is not None or method.from_start else None
    inputs_of = method.project_input if state is not None else None
    reads = bool(own or inputs_of)  # the objective depends on the state
    evaluated = lift(loss_function(net, train=False), k, (0, 0, each, each, each))
    # then the step's own gradient is one to observe
    as_evaluated = not net.noise and not stack.buffers and not experiment.tf32 and not own
    penalty = lift(method.penalty_grad, k) if method.penalty_grad and state is not None else None
    project = lift(method.project, k) if method.project and state is not None else None
    observe = lift(method.observe, k) if method.observe else None

    def task_gradient(data: tuple[Tensor, ...]) -> Tree:
        with tf32(False):
            losses, _ = evaluated(leaves, lower(stack.buffers, k), *data)
            return dict(zip(mine, torch.autograd.grad(losses.sum(), list(mine.values())), strict=True))

    @cache
    def downhill(*of: tuple[str, ...]) -> Callable[..., Any]:
        """`descent`, for what is given of the task and of the memory."""
        dims = [{name: 0 if name == "target" else each for name in names} for names in of]
        return descent(objective(net, own, aid.old, method.hidden, inputs_of), method, k, (0 if reads else None, *dims))

    def step(drawn: Batches, aid: Aids, i: int, state: Any) -> tuple[Any, Tensor]:
        data = minibatch(benchmark, drawn, take, i)
        batch, recalled = inputs(experiment, stack, drawn, aid, take, i, data)
        given = state if reads else None, leaves, lower(stack.buffers, k), batch, recalled
        changed, grads, (losses, (buffers, z)) = downhill(tuple(batch), tuple(recalled))(*given)
        state = changed if reads else state
        if observe:
            seen = {}
            if BATCH in method.gradients:
                seen[BATCH] = {name: grads[name] for name in mine} if as_evaluated else task_gradient(data)
            if aid.independent:
                seen[INDEPENDENT] = task_gradient(minibatch(benchmark, aid.independent, take, i))
            before = tree.copied(targets)
        stack.buffers = raise_axis(buffers, k)
        with torch.no_grad():
            if penalty:
                # In the penalty's memory, because what a method observes is the task's own, and because its layout is
                # that of the parameters: a stacked weight's gradient is transposed.
                grads |= tree.add_(penalty(state, mine), grads)
            if project:
                grads |= project(state, {name: grads[name] for name in mine})
            descend(stack.optimiser, stack.params, grads, k)
            if observe:
                state = observe(state, seen, lower(tree.change_since(before, targets), k))
            if method.keeps_logits and aid.slot is not None:
                keep(stack, raise_axis(z, k), aid.slot[take, i, : drawn.sizes[i]], method)
        return state, losses

    def one_by_one(i: int, state: Any) -> tuple[Any, Tensor]:
        return step(drawn, aid, i, state)

    advance = Recorded(step, experiment, stack, drawn, aid) if experiment.cuda_graph else one_by_one
    for i in range(drawn.rows.shape[1]):
        state, losses = advance(i, state)
        if (i + 1) % REPORT_EVERY == 0 or i + 1 == drawn.rows.shape[1]:
            report(k * (i % REPORT_EVERY + 1), losses.detach().mean().item())
    return state


def descend(optimiser: Optimizer, params: Tree, grads: Tree, k: int) -> None:
    """One step with the gradients of K replicas, as `lift` gives them, which the optimiser lets go after it."""
    for name, p in params.items():
        # contiguous: the fused optimiser reads memory in order, whatever the strides say
        p.grad = (grads[name][None] if k == 1 else grads[name]).contiguous()
    optimiser.step()
    for p in params.values():
        p.grad = None  # the next step's are then made where these are, in the cache


def descent(objective: Callable[..., Any], method: Method, k: int, in_dims: tuple[Any, ...]) -> Callable[..., Any]:
    """How the gradient of a step is made, for K replicas: as the method says, or as the derivative of the objective.

    Args:
        objective: of one replica.
        method: that may have a way of its own.
        k: replicas.
        in_dims: of the state, the batch, and what is recalled; parameters and buffers have their replica first.

    Returns:
        (state, params, buffers, batch, recalled) -> (state, gradient, what the objective returned).
    """
    of_state, *of_data = in_dims
    if method.descend:
        return torch.no_grad()(lift(partial(method.descend, objective), k, (of_state, 0, 0, *of_data)))
    value = lift(objective, k, (0, 0, of_state, *of_data))

    def derivative(state: Any, params: Tree, buffers: Tree, batch: Inputs, recalled: Inputs) -> tuple[Any, Tree, Any]:
        losses, found = value(params, buffers, state, batch, recalled)
        gradient = torch.autograd.grad(losses.sum(), list(params.values()))
        return state, dict(zip(params, gradient, strict=True)), (losses, found)

    return derivative


def warm_up(experiment: Experiment, stack: Stack, drawn: Batches, new: Tensor, steps: int) -> None:
    """Train outputs of the head alone, in place, by an optimiser of their own (Li & Hoiem 2018, section 3).

    The network is as it is evaluated. No gradient reaches other outputs, so a new optimiser leaves them as they are.

    Args:
        experiment: what trains.
        stack: K replicas.
        drawn: mini-batches, of which the first are used.
        new: [C] bool, the outputs, at least one, which compete among themselves.
        steps: mini-batches, no more than there are.
    """
    k, take = len(stack.seeds), slots(stack, drawn)
    each = 0 if isinstance(take, Tensor) else None
    head = {name: p for name, p in stack.params.items() if name.startswith("head.")}
    leaves = {name: p.detach().requires_grad_() for name, p in lower(head, k).items()}
    rest = {name: p for name, p in lower(stack.params, k).items() if name not in head}
    optimiser = experiment.optimiser(list(head.values()))

    def of_head(own: Tree, others: Tree, buffers: Tree, x: Tensor, label: Tensor) -> Tensor:
        z, _ = experiment.net.apply(others | own, buffers, x)
        return cross_entropy(z, label, new.expand(len(z), -1))

    value = lift(of_head, k, (0, 0, 0, each, each))
    for i in range(steps):
        x, label, _ = minibatch(experiment.benchmark, drawn, take, i)
        losses = value(leaves, rest, lower(stack.buffers, k), x, label)
        grads = torch.autograd.grad(losses.sum(), list(leaves.values()))
        descend(optimiser, head, dict(zip(head, grads, strict=True)), k)


Inputs = dict[str, Tensor]
"""A mini-batch by what it is for: x [B, *shape], label [B], active [B, C]; if there are any, noise, target."""


def inputs(
    experiment: Experiment,
    stack: Stack,
    drawn: Batches,
    aid: Aids,
    take: int | Tensor,
    i: int,
    data: tuple[Tensor, ...],
) -> tuple[Inputs, Inputs]:
    """Everything that step i is given: of the task, and of the memory (empty without one)."""
    k, each = len(stack.seeds), 0 if isinstance(take, Tensor) else None
    batch = dict(zip(("x", "label", "active"), data, strict=True))
    recalled: Inputs = {}
    if aid.recalled:
        recalled = dict(zip(batch, minibatch(experiment.benchmark, aid.recalled, take, i), strict=True))
        if stack.stored is not None:
            slot = aid.recalled.at[take, i, : aid.recalled.sizes[i]].expand(k, -1)
            recalled["target"] = lower(of_each(stack.stored, slot), k)
    if experiment.net.noise:
        for of, whose in ((batch, drawn), (recalled, aid.recalled)):
            if whose is not None:
                of["noise"] = uniform(whose, take, i, experiment.net.noise, data[0])
    if aid.targets is not None:
        batch["target"] = lower(of_each(aid.targets, drawn.at[take, i, : drawn.sizes[i]].expand(k, -1)), k)
    elif aid.teacher:
        batch["target"] = taught(experiment, aid.teacher, k, data[0], each)
    if experiment.channels_last and k == 1:
        for of in (batch, recalled):
            if of and of["x"].dim() == 4:
                of["x"] = of["x"].contiguous(memory_format=torch.channels_last)
    return batch, recalled


def of_each(table: Tensor, at: Tensor) -> Tensor:
    """Rows `at` [K, B] of each replica's own part of a table [K, N, C]: [K, B, C]."""
    return table.gather(1, at[..., None].expand(-1, -1, table.shape[-1]))


def keep(stack: Stack, z: Tensor, slot: Tensor, method: Method) -> None:
    """Store logits [K, B, C] in slots [B], or [K, B]."""
    assert method.memory
    if stack.stored is None:
        stack.stored = z.new_zeros(len(z), method.memory.size + 1, z.shape[-1])
    at = slot.expand(len(z), -1)[..., None].expand(-1, -1, z.shape[-1])
    stack.stored.scatter_(1, at, z.detach())


def objective(
    net: Net,
    own: Callable[[Any, Step], Tensor] | None,
    old: Tensor | None,
    hidden: bool = False,
    inputs_of: Callable[[Any, str, Tensor], tuple[Tensor, Tensor] | None] | None = None,
) -> Callable[..., Any]:
    """What a training step minimises, of one replica: the method's own loss, or else the task loss.

    Examples of the task and of the memory go through the network together. `inputs_of` is `Method.project_input`.
    """

    def value(params: Tree, buffers: Tree, state: Any, batch: Inputs, recalled: Inputs) -> Any:
        x, given = batch["x"], {"noise": batch["noise"]} if "noise" in batch else {}
        if recalled:
            x = torch.cat([x, recalled["x"]])
            given = {name: torch.cat([value, recalled[name]]) for name, value in given.items()}
        read: list[Tensor] = []

        def tap(name: str, layer: Layer, a: Tensor, z: Tensor) -> Tensor:
            if name == "head":
                read.append(a)
            rows = inputs_of(state, name, a.detach()) if inputs_of and layer is LINEAR else None
            if rows is None:
                return z
            return LinearOf.apply(z.detach(), a, params[f"{name}.weight"], params[f"{name}.bias"], *rows)

        z, buffers = net.apply(params, buffers, x, train=True, **given, **({"tap": tap} if hidden or inputs_of else {}))
        mine = z[: len(batch["label"])] if recalled else z
        if own is None:
            return cross_entropy(mine, batch["label"], batch["active"]), (buffers, mine)
        remembered = examples(z[len(mine) :], recalled) if recalled else None
        of_task = examples(mine, batch)._replace(hidden=read[0][: len(mine)] if hidden else None)
        heads = mine.new_zeros(0, z.shape[1], dtype=torch.bool) if old is None else old
        return own(state, Step(of_task, remembered, heads)), (buffers, mine)

    return value


class LinearOf(torch.autograd.Function):
    """Z = a W^T + b, known already, with gradients of W and b as if the layer's inputs had been others.

    dz/da = W as ever; dW = dz^T rows, db = dz^T ones, for rows [B, in] and ones [B] instead of a and 1.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, a: Tensor, weight: Tensor, bias: Tensor, rows: Tensor, ones: Tensor) -> Tensor:
        """[B, out]."""
        return z.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep what `backward` needs."""
        _, _, weight, _, rows, ones = inputs
        ctx.save_for_backward(weight, rows, ones)

    @staticmethod
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor | None, ...]:
        """By z (none: it is no input), a, W, b, rows, ones."""
        weight, rows, ones = ctx.saved_tensors
        da = dz @ weight if ctx.needs_input_grad[1] else None
        return None, da, dz.mT @ rows, ones @ dz, None, None


def examples(z: Tensor, of: Inputs) -> Examples:
    """What a loss is given of a mini-batch: its logits `z` [B, out], and the labels and active logits in `of`."""
    return Examples(z, of["label"], of["active"], of.get("target"))


def loss_function(net: Net, train: bool = True) -> Callable[..., tuple[Tensor, Tree]]:
    """The task loss of one replica: mean cross-entropy of a mini-batch on each example's active logits."""

    def loss(params: Tree, buffers: Tree, x: Tensor, label: Tensor, active: Tensor) -> tuple[Tensor, Tree]:
        z, buffers = net.apply(params, buffers, x, train=train)
        return cross_entropy(z, label, active), buffers

    return loss
