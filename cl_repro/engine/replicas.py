"""Replicas through all tasks: the sequence of a continual-learning run."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cl_repro import tree
from cl_repro.engine.boundary import evaluate, measure
from cl_repro.engine.inspection import inspected
from cl_repro.engine.representation import representation
from cl_repro.engine.stack import Experiment, Replica, Seconds, Stack, fork, lift, lower, start
from cl_repro.engine.storage import storage
from cl_repro.engine.training import Report, learn
from cl_repro.types import Estimator, Method, Tree

NO_METHOD = Method()


class Trunk(NamedTuple):
    """The first task of S seeds, trained once for all replicas that share it."""

    stack: Stack  # S replicas, one a seed
    accuracy: NDArray[np.float64]  # [S, 2, splits, T]: untrained, and after the first task
    importance: dict[Estimator, tuple[Tree, float]]  # after the first task, {name: [S, *shape]}; seconds it took


class Outcome(NamedTuple):
    """What one replica produced."""

    accuracy: NDArray[np.float64]  # on test rows, [T + 1, T], fractions; row 0 is the untrained network
    traces: list[float]  # of the importance estimated after each task but the last
    finite: bool  # nothing overflowed
    seconds: Seconds
    storage: dict[str, int]  # bytes kept for the method, by kind
    representation: dict[str, float]  # measures of what the head reads, at the end
    validation: NDArray[np.float64] | None = None  # the same on validation rows, where there are any


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
    seeds, k = sorted({r.seed for r in replicas}), len(replicas)
    slot = torch.tensor([seeds.index(r.seed) for r in replicas], device=experiment.device)
    # what is observed or stored differs from method to method
    shares = experiment.share_first_task and not watches(method)
    trunk = first_task(experiment, seeds, trunks) if shares else None
    stack = fork(experiment, trunk.stack if trunk else start(experiment, seeds), slot)
    accuracy = list(trunk.accuracy[slot.tolist()].swapaxes(0, 1)) if trunk else [on_all_splits(experiment, stack, 0)]
    lam = torch.tensor([r.lam for r in replicas], dtype=experiment.dtype, device=experiment.device)
    estimators = [r.estimator for r in replicas if r.estimator]
    state, traces = None, []
    if watches(method) and method.init:
        state = lift(method.init, k)(lower(experiment.protected(stack.params), k), lower(lam, k))

    def anew(learned: int) -> Any:
        return rebuilt(experiment, stack, learned, method, lam, estimators)

    for task in range(experiment.benchmark.n_tasks):
        if not (trunk and task == 0):
            state = learn(experiment, stack, task, method, state, report, anew)
        last = task == experiment.benchmark.n_tasks - 1
        if method.init and method.end_task and not last:
            importance: Tree = {}
            if estimators:
                first = trunk if task == 0 else None
                importance = (
                    shared_importance(experiment, stack, estimators, first)
                    if first
                    else measure(experiment, stack, task, estimators)
                )
                traces.append(tree.traces(importance))
            params = lower(experiment.protected(stack.params), k)
            if state is None:
                state = lift(method.init, k)(params, lower(lam, k))
            state = lift(method.end_task, k)(state, params, lower(importance, k))
        if method.inspect and (not last or method.predict):
            state = inspected(experiment, stack, task, method, state)
        if not (trunk and task == 0) or method.predict:
            accuracy[task + 1 :] = [on_all_splits(experiment, stack, task, method, state)]
    kept, read = storage(experiment, stack, method, state), representation(experiment, stack)
    return outcomes(stack, np.stack(accuracy, 1), traces, kept, read, trunk)


def rebuilt(
    experiment: Experiment, stack: Stack, learned: int, method: Method, lam: Tensor, estimators: Sequence[Estimator]
) -> Any:
    """The state of K replicas as if the first `learned` tasks had all ended at the weights of now."""
    k = len(stack.seeds)
    params = lower(experiment.protected(stack.params), k)
    assert method.init and method.end_task
    state = lift(method.init, k)(params, lower(lam, k))
    for task in range(learned):
        importance = measure(experiment, stack, task, estimators) if estimators else {}
        state = lift(method.end_task, k)(state, params, lower(importance, k))
    return state


def watches(method: Method) -> bool:
    """Whether a method needs a state before the first task ends."""
    return bool(method.observe) or method.keeps_logits or method.from_start


def on_all_splits(
    experiment: Experiment, stack: Stack, trained: int, method: Method = NO_METHOD, state: Any = None
) -> NDArray[np.float64]:
    """Accuracy [K, splits, T] after training up to `trained`."""
    splits = experiment.benchmark.splits
    return np.stack([evaluate(experiment, stack, trained, split, method.predict, state) for split in splits], 1)


def shared_importance(experiment: Experiment, stack: Stack, estimators: Sequence[Estimator], trunk: Trunk) -> Tree:
    """Importances [K, ...] of a shared first task: estimated once per seed and estimator, and kept in the trunk."""
    seeds = trunk.stack.seeds
    for estimator in dict.fromkeys(estimators):
        if estimator not in trunk.importance:
            before = trunk.stack.seconds.fisher
            result = measure(experiment, trunk.stack, 0, [estimator] * len(seeds))
            trunk.importance[estimator] = result, trunk.stack.seconds.fisher - before
    for estimator in estimators:
        stack.seconds.fisher += trunk.importance[estimator][1] / len(seeds)
    picked = [
        tree.at(trunk.importance[estimator][0], seeds.index(seed))
        for seed, estimator in zip(stack.seeds, estimators, strict=True)
    ]
    return tree.stack(picked)


def outcomes(
    stack: Stack,
    accuracy: NDArray[np.float64],
    traces: list[Tensor],
    kept: dict[str, int],
    read: list[dict[str, float]],
    trunk: Trunk | None,
) -> list[Outcome]:
    """Take the stack apart; accuracy [K, T + 1, splits, T].

    Seconds are per replica; what a shared first task took counts for each that used it.
    """
    k = len(stack.seeds)
    finite = healthy(stack).tolist()
    by_replica = torch.stack(traces, 1).tolist() if traces else [[] for _ in range(k)]
    own, shared = stack.seconds, trunk.stack.seconds if trunk else Seconds()
    n_shared = len(trunk.stack.seeds) if trunk else 1
    seconds = Seconds(
        train=own.train / k + shared.train / n_shared,
        fisher=own.fisher / k,  # `shared_importance` has added what the first task's took
        evaluate=own.evaluate / k + shared.evaluate / n_shared,
    )
    return [
        Outcome(of_split[0], by_replica[i], finite[i], seconds, kept, read[i], *of_split[1:])
        for i, of_split in enumerate(accuracy.swapaxes(1, 2))  # [splits, T + 1, T]
    ]


def healthy(stack: Stack) -> Tensor:
    """Whether nothing overflowed, [K] bool: neither weights nor moments (an infinite second moment freezes Adam)."""
    state = [v for p, m in stack.optimiser.state.items() for v in m.values() if v.shape == p.shape]
    return torch.stack([v.flatten(1).isfinite().all(1) for v in [*stack.params.values(), *state]]).all(0)


def first_task(experiment: Experiment, seeds: list[int], trunks: dict[str, Trunk]) -> Trunk:
    """The trained first task of these seeds, from `trunks` or anew; no method acts before its end."""
    key = f"{experiment.key}/{seeds}"
    if key not in trunks:
        stack = start(experiment, seeds)
        untrained = on_all_splits(experiment, stack, 0)
        learn(experiment, stack, 0, NO_METHOD, None)
        trunks.clear()
        trunks[key] = Trunk(stack, np.stack([untrained, on_all_splits(experiment, stack, 0)], 1), {})
    return trunks[key]
