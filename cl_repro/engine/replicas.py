"""Replicas through all tasks: the sequence of a continual-learning run."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cl_repro import tree
from cl_repro.engine.boundary import evaluate, measure
from cl_repro.engine.inspection import inspected
from cl_repro.engine.lifecycle import Middle, learning, middle
from cl_repro.engine.representation import representation
from cl_repro.engine.stack import Experiment, Replica, Seconds, Stack, fork, lift, lower, start
from cl_repro.engine.storage import storage
from cl_repro.engine.training import Report
from cl_repro.types import Estimator, Method, Tree

NO_METHOD = Method()


class Trunk(NamedTuple):
    """The first task of S seeds, trained once for all replicas that share it."""

    stack: Stack  # S replicas, one a seed
    accuracy: NDArray[np.float64]  # [S, 2, splits, T]: untrained, and after the first task
    importance: dict[Estimator, tuple[Tree, float]]  # after the first task, {name: [S, *shape]}; seconds it took


@dataclass
class Progress:
    """K replicas between two tasks, or two steps: all that the rest of their run depends on, as draws have seeds.

    In the middle of a first task that replicas share, it is of the trunk: one replica a seed.
    """

    learned: int  # tasks
    stack: Stack  # seconds: of a shared first task, too, in full for each replica
    state: Any  # of the method; None if it has none
    accuracy: list[NDArray[np.float64]]  # [K, splits, T] of the untrained networks, and after each task
    traces: list[Tensor]  # [K], after each task but the last, if there are importances
    middle: Middle | None = None  # of the task after those learned, if that has begun


class Outcome(NamedTuple):
    """What one replica produced."""

    accuracy: NDArray[np.float64]  # on test rows, [T + 1, T], fractions; row 0 is the untrained network
    traces: list[float]  # of the importance estimated after each task but the last
    finite: bool  # nothing overflowed
    seconds: Seconds
    storage: dict[str, int]  # bytes kept for the method, by kind
    representation: dict[str, float]  # measures of what the head reads, at the end
    steps: int  # of the longest task
    validation: NDArray[np.float64] | None = None  # the same on validation rows, where there are any


def run(
    experiment: Experiment,
    method: Method,
    replicas: Sequence[Replica],
    trunks: dict[str, Trunk],
    report: Report = lambda done, task, loss: None,
) -> list[Outcome]:
    """Train replicas through all tasks: `stages`, to the end.

    Returns:
        One outcome per replica, in the given order.
    """
    [last] = deque(stages(experiment, method, replicas, trunks, report), maxlen=1)
    return outcomes(experiment, method, last)


def stages(
    experiment: Experiment,
    method: Method,
    replicas: Sequence[Replica],
    trunks: dict[str, Trunk],
    report: Report = lambda done, task, loss: None,
    begun: Progress | None = None,
    every: int | None = None,
) -> Iterator[Progress]:
    """Train replicas task by task.

    Args:
        experiment: what they share.
        method: what they share, too.
        replicas: K of them, seeds and lambdas in any mixture.
        trunks: first tasks trained before, by experiment and seeds; at most one is kept, here.
        report: told about progress.
        begun: by another such run, from where this one goes on, in place.
        every: steps of a task between two stops; None: as many as take some seconds.

    Yields:
        What there is after each task, and now and then in the middle of one: always the same object, which goes on to
        change; of a shared first task another one.
    """
    k = len(replicas)
    lam = torch.tensor([r.lam for r in replicas], dtype=experiment.dtype, device=experiment.device)
    estimators = [r.estimator for r in replicas if r.estimator]
    # what is observed or stored differs from method to method
    trunk = None
    if experiment.share_first_task and not watches(method) and not (begun and begun.learned):
        seeds = sorted({r.seed for r in replicas})
        yield from trunk_stages(experiment, seeds, trunks, begun, every)
        trunk, begun = first_task(experiment, seeds, trunks), None
    at = begun or untrained(experiment, method, replicas, lam, trunk)
    stack = at.stack

    def anew(learned: int) -> Any:
        return rebuilt(experiment, stack, learned, method, lam, estimators)

    for task in range(at.learned, experiment.benchmark.n_tasks):
        if not (trunk and task == 0):
            yield from task_stages(experiment, at, method, report, anew, every)
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
                at.traces.append(tree.traces(importance))
            params = lower(experiment.protected(stack.params), k)
            if at.state is None:
                at.state = lift(method.init, k)(params, lower(lam, k))
            at.state = lift(method.end_task, k)(at.state, params, lower(importance, k))
        if method.inspect and (not last or method.predict):
            at.state = inspected(experiment, stack, task, method, at.state)
        if not (trunk and task == 0) or method.predict:
            at.accuracy[task + 1 :] = [on_all_splits(experiment, stack, task, method, at.state)]
        at.learned = task + 1
        yield at


def task_stages(
    experiment: Experiment,
    at: Progress,
    method: Method,
    report: Report = lambda *_: None,
    anew: Callable[[int], Any] | None = None,
    every: int | None = None,
) -> Iterator[Progress]:
    """Train replicas on the next task, or the rest of it; yields where they can be stopped, but not at its end."""
    for course in learning(experiment, at.stack, at.learned, method, at.state, report, anew, at.middle, every):
        at.state = course.state
        at.middle = middle(course) if course.taken < course.steps else None
        if at.middle:
            yield at


def untrained(
    experiment: Experiment, method: Method, replicas: Sequence[Replica], lam: Tensor, trunk: Trunk | None
) -> Progress:
    """Replicas before the first task: with its weights and accuracies already, if it is shared."""
    seeds, k = sorted({r.seed for r in replicas}), len(replicas)
    slot = torch.tensor([seeds.index(r.seed) for r in replicas], device=experiment.device)
    stack = fork(experiment, trunk.stack if trunk else start(experiment, seeds), slot)
    accuracy = list(trunk.accuracy[slot.tolist()].swapaxes(0, 1)) if trunk else [on_all_splits(experiment, stack, 0)]
    if trunk:  # it counts in full for every replica; `shared_importance` adds what its Fisher took
        each = k / len(seeds)
        stack.seconds.train = each * trunk.stack.seconds.train
        stack.seconds.evaluate = each * trunk.stack.seconds.evaluate
    state = None
    if watches(method) and method.init:
        state = lift(method.init, k)(lower(experiment.protected(stack.params), k), lower(lam, k))
    return Progress(0, stack, state, accuracy, [])


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


def outcomes(experiment: Experiment, method: Method, last: Progress) -> list[Outcome]:
    """Take the stack apart, after all tasks; seconds are per replica."""
    stack, k = last.stack, len(last.stack.seeds)
    kept, read = storage(experiment, stack, method, last.state), representation(experiment, stack)
    finite = healthy(stack).tolist()
    traces = torch.stack(last.traces, 1).tolist() if last.traces else [[] for _ in range(k)]
    seconds = Seconds(*(spent / k for spent in astuple(stack.seconds)))
    accuracy = np.stack(last.accuracy, 1).swapaxes(1, 2)  # [K, splits, T + 1, T]
    return [
        Outcome(of_split[0], traces[i], finite[i], seconds, kept, read[i], stack.steps, *of_split[1:])
        for i, of_split in enumerate(accuracy)
    ]


def healthy(stack: Stack) -> Tensor:
    """Whether nothing overflowed, [K] bool: neither weights nor moments (an infinite second moment freezes Adam)."""
    state = [v for p, m in stack.optimiser.state.items() for v in m.values() if v.shape == p.shape]
    return torch.stack([v.flatten(1).isfinite().all(1) for v in [*stack.params.values(), *state]]).all(0)


def first_task(experiment: Experiment, seeds: list[int], trunks: dict[str, Trunk]) -> Trunk:
    """The trained first task of these seeds, from `trunks` or anew; no method acts before its end."""
    deque(trunk_stages(experiment, seeds, trunks), maxlen=0)
    return trunks[f"{experiment.key}/{seeds}"]


def trunk_stages(
    experiment: Experiment,
    seeds: list[int],
    trunks: dict[str, Trunk],
    begun: Progress | None = None,
    every: int | None = None,
) -> Iterator[Progress]:
    """`first_task`, into `trunks`, from where it stopped; yields where it can be stopped."""
    key = f"{experiment.key}/{seeds}"
    if key not in trunks:
        stack = begun.stack if begun else start(experiment, seeds)
        at = begun or Progress(0, stack, None, [on_all_splits(experiment, stack, 0)], [])
        yield from task_stages(experiment, at, NO_METHOD, every=every)
        trunks.clear()
        trunks[key] = Trunk(stack, np.stack([at.accuracy[0], on_all_splits(experiment, stack, 0)], 1), {})
