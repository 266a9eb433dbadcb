"""The training loop: K replicas of a run as one stack. The only file that knows the replica axis.

Everything else (networks, methods, estimators) is written for one replica. `lift` turns such a function into one of
K replicas; for K = 1 it is the function itself, on views that drop the axis. Replicas of one stack share benchmark,
network, optimiser and method; they differ in seed, lambda and estimator. The gradient is taken outside vmap, of the
sum of the K losses, which is bitwise the gradient inside it and faster.

All replicas of a seed see the same initial weights, mini-batches, orders and label noise: they are paired.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from cl_repro import rng, tree
from cl_repro.errors import UserError
from cl_repro.losses import cross_entropy
from cl_repro.runtime import clock
from cl_repro.types import Benchmark, Curriculum, Estimator, Method, Net, Scenario, Tree

REPORT_EVERY = 50  # iterations between two progress reports

Report = Callable[[int, int, float], None]  # (replica iterations done since the last report, task, loss)


class Experiment(NamedTuple):
    """What all replicas of a stack share."""

    key: str  # names the configuration of the fields below, for sharing a trained first task
    benchmark: Benchmark
    scenario: Scenario
    net: Net
    optimiser: Callable[[list[Tensor]], Optimizer]  # elementwise optimisers only: a stack is then K of them
    reset_optimiser: bool  # a new optimiser for every task
    iterations: int  # per task
    batch_size: int
    rows_per_pass: int  # examples per forward pass outside training: bounds memory
    share_first_task: bool
    dtype: torch.dtype
    device: str


class Replica(NamedTuple):
    """One run: a row of the results."""

    seed: int
    lam: float
    estimator: Estimator | None


@dataclass
class Seconds:
    """Seconds of work (`runtime.clock`), of one stack."""

    train: float = 0.0
    fisher: float = 0.0
    evaluate: float = 0.0


@dataclass
class Stack:
    """The state of K networks in training."""

    seeds: list[int]  # of every replica
    params: Tree  # {name: [K, *shape]}
    buffers: Tree
    optimiser: Optimizer
    seconds: Seconds = field(default_factory=Seconds)


class Trunk(NamedTuple):
    """The first task of S seeds, trained once for all replicas that share it."""

    stack: Stack  # S replicas, one a seed
    accuracy: NDArray[np.float64]  # [S, 2, T]: untrained, and after the first task
    importance: dict[Estimator, Tree]  # after the first task, {name: [S, *shape]}


class Outcome(NamedTuple):
    """What one replica produced."""

    accuracy: NDArray[np.float64]  # [T + 1, T], fractions; row 0 is the untrained network
    traces: list[float]  # of the importance estimated after each task but the last
    finite: bool  # no parameter overflowed
    seconds: Seconds


def lift(f: Callable[..., Any], k: int, in_dims: Any = 0) -> Callable[..., Any]:
    """`f` of one replica -> `f` of K."""
    return f if k == 1 else torch.vmap(f, in_dims=in_dims)


def lower(stacked: Any, k: int) -> Any:
    """The argument of a lifted function: for K = 1 the axis is dropped, as a view."""
    return tree_map(lambda t: t[0], stacked) if k == 1 else stacked


def raise_axis(result: Any, k: int) -> Any:
    """The result of a lifted function, with the replica axis, whatever K."""
    return tree_map(lambda t: t[None], result) if k == 1 else result


def run(
    experiment: Experiment,
    method: Method,
    replicas: Sequence[Replica],
    trunks: dict[str, Trunk],
    report: Report = lambda done, task, loss: None,
) -> list[Outcome]:
    """Train replicas through all tasks.

    Args:
        experiment: what they share.
        method: what they share, too.
        replicas: K of them, seeds and lambdas in any mixture.
        trunks: first tasks trained before, by experiment and seeds; at most one is kept, here.
        report: told about progress.

    Returns:
        One outcome per replica, in the given order.
    """
    seeds = sorted({r.seed for r in replicas})
    slot = torch.tensor([seeds.index(r.seed) for r in replicas], device=experiment.device)
    t_last = experiment.benchmark.n_tasks - 1
    trunk = first_task(experiment, seeds, trunks) if experiment.share_first_task else None
    if trunk:
        stack, accuracy = fork(experiment, trunk.stack, slot), list(trunk.accuracy[slot.tolist()].transpose(1, 0, 2))
    else:
        stack = fork(experiment, start(experiment, seeds), slot)
        accuracy = [evaluate(experiment, stack, 0)]
    k = len(replicas)
    state, traces = None, []
    for task in range(t_last + 1):
        if not (trunk and task == 0):
            learn(experiment, stack, task, method, state, report)
            accuracy.append(evaluate(experiment, stack, task))
        if method.end_task is None or task == t_last:
            continue
        importance = measure(experiment, stack, task, [r.estimator for r in replicas], trunk if task == 0 else None)
        params = lower(stack.params, k)
        if state is None:
            lam = torch.tensor([r.lam for r in replicas], dtype=experiment.dtype, device=experiment.device)
            state = lift(method.init, k)(params, lower(lam, k))
        state = lift(method.end_task, k)(state, params, lower(importance, k))
        traces.append(sum(v.flatten(1).sum(1, dtype=torch.float64) for v in importance.values()))
    return outcomes(stack, np.stack(accuracy, 1), traces, trunk)


def outcomes(stack: Stack, accuracy: NDArray[np.float64], traces: list[Tensor], trunk: Trunk | None) -> list[Outcome]:
    """Take the stack apart. Seconds are per replica; a shared first task counts in full for each that used it."""
    k = len(stack.seeds)
    finite = torch.stack([p.flatten(1).isfinite().all(1) for p in stack.params.values()]).all(0).tolist()
    by_replica = torch.stack(traces, 1).tolist() if traces else [[] for _ in range(k)]
    parts = [(stack.seconds, k)] + ([(trunk.stack.seconds, len(trunk.stack.seeds))] if trunk else [])
    seconds = [sum(getattr(s, name) / n for s, n in parts) for name in ("train", "fisher", "evaluate")]
    return [Outcome(accuracy[i], by_replica[i], finite[i], Seconds(*seconds)) for i in range(k)]


def start(experiment: Experiment, seeds: list[int]) -> Stack:
    """Untrained networks, one a seed."""
    initial = [experiment.net.init(rng.stream(seed, "init")) for seed in seeds]
    place = {"device": experiment.device, "dtype": experiment.dtype}
    params = {name: value.to(**place) for name, value in tree.stack(p for p, _ in initial).items()}
    buffers = {name: value.to(**place) for name, value in tree.stack(b for _, b in initial).items()}
    return Stack(seeds, params, buffers, experiment.optimiser(list(params.values())))


def fork(experiment: Experiment, stack: Stack, rows: Tensor) -> Stack:
    """Copies of replicas `rows` [K] with everything they depend on: weights, buffers and the optimiser's moments."""
    params = tree.select(stack.params, rows)
    optimiser = experiment.optimiser(list(params.values()))
    for old, new in zip(stack.params.values(), params.values(), strict=True):
        moments = stack.optimiser.state.get(old, {})
        optimiser.state[new] = {
            key: value.index_select(0, rows) if value.shape == old.shape else value.clone()
            for key, value in moments.items()
        }
    return Stack([stack.seeds[i] for i in rows.tolist()], params, tree.select(stack.buffers, rows), optimiser)


def first_task(experiment: Experiment, seeds: list[int], trunks: dict[str, Trunk]) -> Trunk:
    """The trained first task of these seeds, from `trunks` or anew; no method acts before its end."""
    key = f"{experiment.key}/{seeds}"
    if key not in trunks:
        stack = start(experiment, seeds)
        untrained = evaluate(experiment, stack, 0)
        learn(experiment, stack, 0, Method(), None)
        trunks.clear()
        trunks[key] = Trunk(stack, np.stack([untrained, evaluate(experiment, stack, 0)], 1), {})
    return trunks[key]


class Batches(NamedTuple):
    """The mini-batches of one task for S seeds, as indices into the resident data."""

    rows: Tensor  # [S, iterations, B] int64
    label: Tensor  # [S, iterations, B] int64
    owner: Tensor  # [S, iterations, B] int64, the task an example belongs to
    masks: Tensor  # [T, C] bool, the active logits of each task's examples


def active_mask(experiment: Experiment, curriculum: Curriculum, trained: int, asked: int) -> Tensor:
    """[C] bool, the logits that are active for examples of task `asked` after training up to `trained`."""
    n_outputs = experiment.scenario.n_outputs(experiment.benchmark, curriculum.tasks)
    mask = torch.zeros(n_outputs, dtype=torch.bool)
    mask[list(experiment.scenario.active(curriculum.tasks, trained, asked))] = True
    return mask.to(experiment.device)


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
    follow(experiment, stack, drawn, method, state, lambda done, loss: report(done, task, loss))
    stack.seconds.train += clock(experiment.device) - began


def follow(
    experiment: Experiment, stack: Stack, drawn: Batches, method: Method, state: Any, report: Callable[[int, float], None]
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


def groups(stack: Stack, kind: Sequence[Any]) -> list[tuple[int, Any, Tensor]]:
    """Replicas that share their examples: (seed, kind, rows [k]) for every distinct pair."""
    pairs = list(zip(stack.seeds, kind, strict=True))
    device = next(iter(stack.params.values())).device
    return [
        (*pair, torch.tensor([i for i, other in enumerate(pairs) if other == pair], device=device))
        for pair in dict.fromkeys(pairs)
    ]


def measure(
    experiment: Experiment, stack: Stack, task: int, estimators: Sequence[Estimator], trunk: Trunk | None = None
) -> Tree:
    """Importances [K, ...] of the task just learned, replica by replica's own estimator.

    With a trunk they are those of the shared first task, estimated once per seed and kept there.
    """
    if trunk:
        seeds = trunk.stack.seeds
        for estimator in dict.fromkeys(estimators):
            if estimator not in trunk.importance:
                trunk.importance[estimator] = measure(experiment, trunk.stack, task, [estimator] * len(seeds))
        picked = [
            {name: v[seeds.index(seed)] for name, v in trunk.importance[estimator].items()}
            for seed, estimator in zip(stack.seeds, estimators, strict=True)
        ]
        return tree.stack(picked)
    began = clock(experiment.device)
    result = tree.zeros_like(stack.params)
    for seed, estimator, rows in groups(stack, estimators):
        single = rows.split(1) if not estimator.vectorises else [rows]
        for part in single:
            chosen = tree.select(stack.params, part), tree.select(stack.buffers, part)
            for name, value in estimate(experiment, *chosen, estimator, seed, task).items():
                result[name][part] = value
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
    order = torch.randperm(n, generator=rng.stream(seed, "fisher_order", task))[:used].to(own.rows.device)
    noise = torch.rand(n, generator=rng.stream(seed, "fisher_labels", task), dtype=torch.float64)
    noise = noise.to(own.rows.device)
    label = torch.searchsorted(active, experiment.scenario.label(curriculum.y[own.rows], own))
    total_of = lift(
        lambda p, b, *data: estimator.sum(experiment.net, p, b, *data, active), k, (0, 0, None, None, None)
    )
    total: Tree | None = None
    for at in order.split(estimator.batch_size or experiment.rows_per_pass):
        x = experiment.benchmark.to_input(experiment.benchmark.x[own.rows[at]])
        part = total_of(lower(params, k), lower(buffers, k), x, label[at], noise[at])
        total = part if total is None else tree.add(total, part)
    return raise_axis(tree.divide(total, estimator.divisor(n)), k)


@torch.no_grad()
def evaluate(experiment: Experiment, stack: Stack, trained: int) -> NDArray[np.float64]:
    """Test accuracy [K, T] on every task, after training up to `trained`."""
    began = clock(experiment.device)
    result = torch.zeros(len(stack.seeds), experiment.benchmark.n_tasks, dtype=torch.float64)
    for seed, _, rows in groups(stack, stack.seeds):
        curriculum = experiment.benchmark.curriculum(seed)
        params, buffers = tree.select(stack.params, rows), tree.select(stack.buffers, rows)
        for asked, task in enumerate(curriculum.tasks):
            active = active_mask(experiment, curriculum, trained, asked)
            label = experiment.scenario.label(curriculum.y_test[task.rows_test], task)
            result[rows.cpu(), asked] = accuracy(experiment, params, buffers, task.rows_test, label, active).cpu()
    stack.seconds.evaluate += clock(experiment.device) - began
    return result.numpy()


def accuracy(experiment: Experiment, params: Tree, buffers: Tree, rows: Tensor, label: Tensor, active: Tensor) -> Tensor:
    """Fraction [k] of test examples whose active logit is largest at the label, for k replicas."""
    k = len(next(iter(params.values())))
    logits = lift(lambda p, b, x: experiment.net.apply(p, b, x)[0], k, (0, 0, None))
    right = torch.zeros(k, dtype=torch.float64, device=rows.device)
    for at in torch.arange(len(rows), device=rows.device).split(experiment.rows_per_pass):
        x = experiment.benchmark.to_input(experiment.benchmark.x_test[rows[at]])
        z = raise_axis(logits(lower(params, k), lower(buffers, k), x), k)
        guess = z.masked_fill(~active, float("-inf")).argmax(-1)
        right += (guess == label[at]).sum(1)
    return right / len(rows)
