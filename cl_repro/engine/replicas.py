"""Replicas through all tasks: the sequence of a continual-learning run."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cl_repro.common import tree
from cl_repro.engine.boundary import evaluate, inspected, measure
from cl_repro.engine.course import Course, Middle, middle
from cl_repro.engine.lifecycle import begin, ended, initial, learning
from cl_repro.engine.needs import NO_METHOD, in_first_task
from cl_repro.engine.representation import representation
from cl_repro.engine.stack import Experiment, Replica, Seconds, Stack, fork, start
from cl_repro.engine.storage import storage
from cl_repro.engine.training import Report, silent
from cl_repro.types import Estimator, Method, Tree


class Trunk(NamedTuple):
    """The first task of S seeds, trained once for all replicas that share it."""

    stack: Stack  # S replicas, one a seed
    accuracy: NDArray[np.float64]  # [S, 2, splits, T]: untrained, and after the first task
    importance: dict[Estimator, tuple[Tree, float]]  # after the first task, {name: [S, *shape]}; seconds it took


@dataclass
class Progress:
    """K replicas between two tasks, or two steps: all that the rest of their run depends on, as draws have seeds."""

    learned: int  # tasks
    stack: Stack  # seconds: of a shared first task, too, in full for each replica
    state: Any  # of the method; () if it has none
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


def train(
    experiment: Experiment,
    method: Method,
    replicas: Sequence[Replica],
    trunks: dict[str, Trunk],
    report: Report = silent,
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
    report: Report = silent,
    begun: Progress | None = None,
    every: int | None = None,
) -> Iterator[Progress]:
    """Train replicas task by task.

    Args:
        experiment: what they share.
        method: what they share, too.
        replicas: K of them, seeds and lambdas in any mixture.
        trunks: first tasks that replicas share, trained before (`first_task`); one that is missing is trained here.
        report: told about progress, but for that of a shared first task.
        begun: by another such run, from where this one goes on, in place.
        every: steps of a task between two stops; None: as many as take some seconds.

    Yields:
        What there is after each task, and now and then in the middle of one: always the same object, which goes on to
        change.
    """
    trunk = None
    if shares_first_task(experiment, method) and not begun:
        trunk = trunk_of(experiment, [r.seed for r in replicas], trunks)
    at = begun or (forked(experiment, replicas, trunk) if trunk else untrained(experiment, method, replicas))
    last = experiment.benchmark.n_tasks - 1
    for task in range(at.learned, last + 1):
        shared = trunk if task == 0 else None
        if not shared:
            anew = partial(rebuilt, experiment, at.stack, method, replicas)
            course = begin(experiment, at.stack, task, method, at.state, at.middle, anew)
            yield from stops(at, course, report, every)
            del course  # a task's mini-batches, and a state that is old when the task has ended
        if task == 0 and not in_first_task(method) and (last or method.predict):
            at.state = initial(experiment, at.stack, method, lambdas(experiment, replicas))
        if method.end_task and task < last:
            importance = of_task(experiment, at.stack, task, replicas, shared)
            if importance:
                at.traces.append(tree.traces(importance))
            at.state = ended(experiment, at.stack, method, at.state, importance)
        if method.inspect and (task < last or method.predict):
            at.state = inspected(experiment, at.stack, task, method, at.state)
        if not shared or method.predict:
            at.accuracy[task + 1 :] = [on_all_splits(experiment, at.stack, task, method, at.state)]
        at.learned = task + 1
        yield at


def stops(at: Progress, course: Course, report: Report, every: int | None) -> Iterator[Progress]:
    """Train replicas on their next task; yields where they can be stopped, but not at its end."""
    for _ in learning(course, report, every):
        at.state = course.state
        at.middle = middle(course) if course.taken < course.steps else None
        if at.middle:
            yield at


def untrained(experiment: Experiment, method: Method, replicas: Sequence[Replica]) -> Progress:
    """Replicas before the first task, with a state if their method has a part in it."""
    seeds = sorted({r.seed for r in replicas})
    stack = fork(experiment, start(experiment, seeds), slots_of(experiment, replicas, seeds))
    accuracy, lam = [on_all_splits(experiment, stack, 0)], lambdas(experiment, replicas)
    state = initial(experiment, stack, method, lam) if in_first_task(method) else ()
    return Progress(0, stack, state, accuracy, [])


def forked(experiment: Experiment, replicas: Sequence[Replica], trunk: Trunk) -> Progress:
    """Replicas at the end of the training on a first task that they share, with its weights and accuracies."""
    slot = slots_of(experiment, replicas, trunk.stack.seeds)
    stack, accuracy = fork(experiment, trunk.stack, slot), list(trunk.accuracy[slot.tolist()].swapaxes(0, 1))
    # it counts in full for every replica; `shared_importance` adds what its Fisher took
    each = len(replicas) / len(trunk.stack.seeds)
    stack.seconds.train = each * trunk.stack.seconds.train
    stack.seconds.evaluate = each * trunk.stack.seconds.evaluate
    return Progress(0, stack, (), accuracy, [])


def slots_of(experiment: Experiment, replicas: Sequence[Replica], seeds: Sequence[int]) -> Tensor:
    """Where each replica's seed is among these."""
    return torch.tensor([seeds.index(r.seed) for r in replicas], device=experiment.device)


def lambdas(experiment: Experiment, replicas: Sequence[Replica]) -> Tensor:
    """The lambdas of replicas, [K]."""
    return torch.tensor([r.lam for r in replicas], dtype=experiment.dtype, device=experiment.device)


def of_task(
    experiment: Experiment, stack: Stack, task: int, replicas: Sequence[Replica], shared: Trunk | None = None
) -> Tree:
    """Importances [K, ...] of a task, each replica's by its own estimator; {} if they have none."""
    estimators = [r.estimator for r in replicas if r.estimator]
    if not estimators:
        return {}
    if shared:
        return shared_importance(experiment, stack, estimators, shared)
    return measure(experiment, stack, task, estimators)


def rebuilt(experiment: Experiment, stack: Stack, method: Method, replicas: Sequence[Replica], learned: int) -> Any:
    """The state of K replicas as if the first `learned` tasks had all ended at the weights of now."""
    state = initial(experiment, stack, method, lambdas(experiment, replicas))
    for task in range(learned):
        state = ended(experiment, stack, method, state, of_task(experiment, stack, task, replicas))
    return state


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
        Outcome(of_split[0], traces[i], finite[i], seconds, kept[i], read[i], stack.steps, *of_split[1:])
        for i, of_split in enumerate(accuracy)
    ]


def healthy(stack: Stack) -> Tensor:
    """Whether nothing overflowed, [K] bool: neither weights nor moments (an infinite second moment freezes Adam)."""
    state = [v for p, m in stack.optimiser.state.items() for v in m.values() if v.shape == p.shape]
    return torch.stack([v.flatten(1).isfinite().all(1) for v in [*stack.params.values(), *state]]).all(0)


# --- a first task that replicas share ---------------------------------------------------------------------------------


def shares_first_task(experiment: Experiment, method: Method) -> bool:
    """Whether replicas of a seed share their first task: they may, and the method has no part in it."""
    return experiment.share_first_task and not in_first_task(method)


def first_task(
    experiment: Experiment, seeds: Sequence[int], begun: Progress | None = None, every: int | None = None
) -> Iterator[Progress]:
    """Train one replica a seed, in ascending order, on the first task that others share: `stages`, up to its end."""
    alone = experiment._replace(share_first_task=False)
    replicas = [Replica(seed, 0.0, None) for seed in sorted(set(seeds))]
    for at in stages(alone, NO_METHOD, replicas, {}, begun=begun, every=every):
        yield at
        if at.learned:
            return


def keep_first_task(trunks: dict[str, Trunk], experiment: Experiment, at: Progress) -> None:
    """Put a first task at its end into `trunks`, which hold one."""
    trunks.clear()
    trunks[trunk_name(experiment, at.stack.seeds)] = Trunk(at.stack, np.stack(at.accuracy, 1), {})


def trunk_of(experiment: Experiment, seeds: Sequence[int], trunks: dict[str, Trunk]) -> Trunk:
    """The first task of these seeds, from `trunks`, or trained now, in one go."""
    name = trunk_name(experiment, seeds)
    if name not in trunks:
        [at] = deque(first_task(experiment, seeds), maxlen=1)
        keep_first_task(trunks, experiment, at)
    return trunks[name]


def trunk_name(experiment: Experiment, seeds: Sequence[int]) -> str:
    """Of a first task among `trunks`."""
    return f"{experiment.key}/{sorted(set(seeds))}"
