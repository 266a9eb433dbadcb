"""A stack is its replicas, one by one; and a replica is a plain training loop."""

import gc
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any
from unittest import mock

import numpy as np
import oracles
import pytest
import torch
from made_experiments import MIXED, SHARED, Run, digits, first_tasks, made_experiment, run, thinned
from made_trees import copied, error, same, single, tensors
from torch import Tensor

from cl_repro.benchmarks import scenarios
from cl_repro.common import rng
from cl_repro.engine import Experiment, Replica, replicas
from cl_repro.engine.course import Course
from cl_repro.engine.stack import start
from cl_repro.methods.baselines import finetune, joint
from cl_repro.methods.ewc import ewc
from cl_repro.methods.ewc_offline import ewc_offline
from cl_repro.types import Curriculum, Tree

METHODS = {"finetune": finetune(), "joint": joint(), "ewc": ewc(), "ewc_offline": ewc_offline()}


def made(scenario: str = "task", dtype: torch.dtype = torch.float64, **changes: object) -> Experiment:
    """Three tasks of the digits: a penalty has two of them behind it."""
    three = first_tasks(digits(dtype=dtype), 3)
    return made_experiment(three, getattr(scenarios, scenario)(), dtype=dtype, **changes)


@cache
def mixed(method: str, scenario: str = "task", dtype: torch.dtype = torch.float64) -> Run:
    """The stack of all mixed replicas, for all who look at it."""
    return run(made(scenario, dtype), METHODS[method], MIXED)


def test_the_mixed_seeds_have_tasks_of_different_sizes():
    sizes = {tuple(len(task.rows) for task in made().benchmark.curriculum(seed).tasks) for seed in (1, 2, 3)}
    assert len(sizes) == 3


# --- K replicas are K single runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["task", "domain", "class_"])
@pytest.mark.parametrize("method", METHODS)
def test_mixed_replicas_are_their_single_runs(method, scenario):
    """In float64. Measured: weights to 2e-13, traces to 2e-15, accuracies the same.

    Without a penalty nothing but the seed decides.
    """
    experiment, together = made(scenario), mixed(method, scenario)
    own = MIXED if METHODS[method].penalty_grad else [Replica(replica.seed, 0.0, None) for replica in MIXED]
    alone = {replica: run(experiment, METHODS[method], [replica]) for replica in set(own)}
    assert len(together.outcomes) == len(MIXED)
    for k, replica in enumerate(own):
        assert error(single(together.params, k), alone[replica].params) < 1e-11
        found, expected = together.outcomes[k], alone[replica].outcomes[0]
        assert (found.accuracy == expected.accuracy).all()
        assert found.traces == pytest.approx(expected.traces, rel=1e-12)
        assert found.finite


def test_equal_replicas_are_equal_and_others_are_not():
    params = mixed("ewc").params
    assert same(single(params, 0), single(params, 6))
    for k in range(1, len(MIXED)):
        assert k == 6 or error(single(params, k), single(params, 0)) > 1e-3


def test_a_replica_does_not_depend_on_its_neighbours_or_its_place():
    """To rounding: the matrix product of a stack may depend on the number of matrices."""
    found = mixed("ewc")
    mirrored = run(made(), ewc(), MIXED[::-1])
    for k in range(len(MIXED)):
        assert error(single(mirrored.params, len(MIXED) - 1 - k), single(found.params, k)) < 1e-12
    pair = run(made(), ewc(), MIXED[2:4])
    for k in (2, 3):
        assert error(single(pair.params, k - 2), single(found.params, k)) < 1e-12


def test_the_optimiser_reads_gradients_in_the_order_of_the_weights():
    """Torch's fused Adam ignores strides: gradients that are not contiguous would be applied to other weights."""
    experiment = made(hidden=(9, 7))
    rows = [Replica(seed, 0.0, None) for seed in (1, 2, 3)]
    layouts: list[bool] = []
    raw = torch.autograd.grad

    def spy(*given: object, **named: object) -> tuple[Tensor, ...]:
        grads = raw(*given, **named)
        layouts.extend(g.is_contiguous() for g in grads)
        return grads

    for apply in (experiment.net.apply, transposed(experiment)):
        changed = experiment._replace(net=experiment.net._replace(apply=apply))
        plain = changed._replace(optimiser=partial(torch.optim.Adam, lr=1e-2, fused=False, foreach=False))
        with mock.patch.object(torch.autograd, "grad", spy):
            fused = run(changed, finetune(), rows)
        assert error(fused.params, run(plain, finetune(), rows).params) < 1e-12
        for k, row in enumerate(rows):
            assert error(single(fused.params, k), run(changed, finetune(), [row]).params) < 1e-12
    assert not all(layouts)  # or the test shows nothing


def transposed(experiment: Experiment) -> Callable[..., tuple[Tensor, Tree]]:
    """The network with its weights read through a transpose, so that their gradients are not contiguous."""

    def apply(params: Tree, buffers: Tree, x: Tensor, **given: object) -> tuple[Tensor, Tree]:
        turned = {n: p.mT.contiguous().mT if n.endswith("weight") else p for n, p in params.items()}
        return experiment.net.apply(turned, buffers, x, **given)

    return apply


# --- a replica is a plain training loop -----------------------------------------------------------------------------


def plain_loss(experiment: Experiment, curriculum: Curriculum, params: Tree, batch: list[tuple[int, int]]) -> Tensor:
    """Mean over (row, its task) of -log p(label), the softmax over the two classes of that task."""
    losses = []
    for row, owner in batch:
        classes = list(curriculum.tasks[owner].classes)
        z = experiment.net.apply(params, {}, experiment.benchmark.x[row][None].double() / 16)[0][0, classes]
        losses.append(-z.log_softmax(0)[classes.index(int(curriculum.y[row]))])
    return torch.stack(losses).mean()


def plain_loop(experiment: Experiment, seed: int, lam: float, mode: str) -> Tree:
    """What the engine must compute, the usual way: one network, penalties in the loss, torch's default Adam."""
    curriculum = experiment.benchmark.curriculum(seed)
    params, _ = experiment.net.init(rng.stream(seed, "init"))
    params = {name: p.double().requires_grad_() for name, p in params.items()}
    optimiser = torch.optim.Adam(list(params.values()), lr=1e-2)
    old: list[tuple[Tree, Tree]] = []  # importance, anchor
    for t, task in enumerate(curriculum.tasks):
        trained = range(t + 1) if mode == "joint" else [t]
        pool = [(row, owner) for owner in trained for row in curriculum.tasks[owner].rows.tolist()]
        order = rng.batches(rng.stream(seed, "order", t), len(pool), experiment.batch_size, experiment.iterations)
        for batch in order.tolist():
            loss = plain_loss(experiment, curriculum, params, [pool[i] for i in batch])
            for importance, anchor in old:
                loss = loss + lam / 2 * sum((importance[n] * (p - anchor[n]) ** 2).sum() for n, p in params.items())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        if mode not in ("online", "offline"):
            continue
        anchor = {name: p.detach().clone() for name, p in params.items()}
        total = oracles.exact(experiment.net, anchor, experiment.benchmark.x[task.rows] / 16, list(task.classes))
        fresh = {name: value / len(task.rows) for name, value in total.items()}
        if mode == "online" and old:
            old = [({name: value + old[0][0][name] for name, value in fresh.items()}, anchor)]
        else:
            old.append((fresh, anchor))
    return {name: p.detach() for name, p in params.items()}


PLAIN = {"finetune": finetune(), "joint": joint(), "online": ewc(), "offline": ewc_offline()}


@pytest.mark.parametrize("mode", PLAIN)
@pytest.mark.parametrize("share", [False, True], ids=["unshared", "shared"])
def test_a_replica_is_a_plain_training_loop(mode, share):
    """In float64, through all tasks. Measured: weights to 2e-15."""
    experiment = made_experiment(thinned(digits(), 20), iterations=4, share_first_task=share)
    rows = [Replica(2, 100.0, SHARED), Replica(1, 3.0, SHARED)]
    found = run(experiment, PLAIN[mode], rows).params
    for k, row in enumerate(rows):
        expected = plain_loop(experiment, row.seed, row.lam, mode)
        assert error({name: value[k] for name, value in found.items()}, expected) < 1e-10


# --- diverged replicas, memory, progress ----------------------------------------------------------------------------


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", ["finetune", "ewc", "ewc_offline"])
def test_a_diverged_replica_is_flagged_and_its_neighbours_do_not_notice(method, poison):
    """Bit for bit, in float32; whatever the seed and estimator it shares with them."""
    experiment, healthy = made(dtype=torch.float32), mixed(method, dtype=torch.float32)
    learning, sick = replicas.learning, 4

    def infect(course: Course, *rest: Any) -> Iterator[Course]:
        yield from learning(course, *rest)
        if course.task == 0:
            course.stack.params["fc1.weight"][sick, 0, 0] = poison

    with mock.patch.object(replicas, "learning", infect):
        found = run(experiment, METHODS[method], MIXED)
    assert [o.finite for o in found.outcomes] == [k != sick for k in range(len(MIXED))]
    for k in range(len(MIXED)):
        if k != sick:
            assert same(single(found.params, k), single(healthy.params, k))
            assert (found.outcomes[k].accuracy == healthy.outcomes[k].accuracy).all()
            assert found.outcomes[k].traces == healthy.outcomes[k].traces


def test_a_penalty_that_overflows_is_a_flagged_outcome_and_not_an_exception():
    experiment = made_experiment(dtype=torch.float32)
    rows = [Replica(1, lam, SHARED) for lam in (1.0, 1e39, 1e13)]  # float32 ends at 3e38
    assert [o.finite for o in run(experiment, ewc(), rows).outcomes] == [True, False, True]


def test_an_overflowing_optimiser_is_flagged_too():
    """Where Adam's second moment is infinite its steps are zero: the weights freeze, and look healthy."""
    experiment = made_experiment(dtype=torch.float32)
    found = run(experiment, ewc(), [Replica(1, lam, SHARED) for lam in (1e13, 1e30)])
    moments = torch.stack([s["exp_avg_sq"].flatten(1).amax(1) for s in found.stack.optimiser.state.values()]).amax(0)
    assert moments.isinf().tolist() == [False, True]
    assert [o.finite for o in found.outcomes] == [True, False]


@pytest.mark.parametrize("method", ["finetune", "ewc", "ewc_offline"])
def test_memory_does_not_grow_with_the_number_of_tasks(method):
    experiment, learning, k = made_experiment(hidden=(50,)), replicas.learning, 3
    held: list[tuple[int, int]] = []  # tensors and bytes of stack and state
    alive: list[int] = []  # bytes of all tensors that the process has made since

    def watch(course: Course, *rest: Any) -> Iterator[Course]:
        yield from learning(course, *rest)
        stack, state = course.stack, course.state
        moments = [t for s in stack.optimiser.state.values() for t in s.values()]
        own = [*tensors(stack.params), *tensors(stack.buffers), *moments, *tensors(state or ())]
        held.append((len(own), sum(t.nbytes for t in own)))
        gc.collect()
        everything = (o for o in gc.get_objects() if type(o) is Tensor)
        alive.append(sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in everything}.values()))

    gc.freeze()  # what is there already, which takes long to look at
    try:
        with mock.patch.object(replicas, "learning", watch):
            run(experiment, METHODS[method], [Replica(seed, 1.0, SHARED) for seed in range(k)])
    finally:
        gc.unfreeze()
    assert len(set(held[1:])) == 1  # from the second task on there is a state
    weights = k * sum(p[0].numel() for p in start(experiment, [0]).params.values())
    trees = {"finetune": 3, "ewc": 6, "ewc_offline": 7}[method]  # weights and two moments; the method's own
    assert held[-1][1] == pytest.approx(trees * 8 * weights, rel=1e-2)
    assert max(alive[1:]) - min(alive[1:]) < 8 * weights / 10  # a tenth of one more tree


def test_progress_adds_up():
    reports: list[tuple[int, int, float]] = []
    experiment = made_experiment(digits(2), iterations=120)
    replicas.train(experiment, ewc(), MIXED[:3], {}, lambda *report: reports.append(report))
    for task in range(2):
        assert [done for done, t, _ in reports if t == task] == [150, 150, 60]
    assert all(np.isfinite(loss) for *_, loss in reports)


def test_a_run_changes_neither_its_arguments_nor_the_global_generator():
    experiment = made()
    before, state = copied([experiment.benchmark.x, experiment.benchmark.curriculum(1).y]), torch.get_rng_state()
    first = run(experiment, ewc(), MIXED[:4])
    torch.manual_seed(5)
    assert same(run(experiment, ewc(), MIXED[:4]).params, first.params)
    torch.set_rng_state(state)
    run(experiment, ewc(), MIXED[:1])
    assert torch.equal(torch.get_rng_state(), state)
    assert same([experiment.benchmark.x, experiment.benchmark.curriculum(1).y], before)
