"""Look-ahead meta-learning: whole runs against a plain loop, in float64."""

import math
from contextlib import nullcontext
from functools import partial
from itertools import pairwise

import pytest
import torch
from made_experiments import digits, first_tasks, made_experiment, run, thinned
from made_trees import error, same, single
from torch import Tensor
from torch.nn import functional

from cl_repro.benchmarks import scenarios
from cl_repro.common import rng
from cl_repro.common.errors import UserError
from cl_repro.common.tree import at
from cl_repro.engine import Experiment, Replica, batches, check
from cl_repro.engine.aids import memories
from cl_repro.memory import end_of_task, reservoir
from cl_repro.methods.baselines import finetune
from cl_repro.methods.la_maml import la_maml
from cl_repro.types import Tree

ITERATIONS, BATCH = 6, 7


def sgd(lr: float = 1.0):
    return lambda params: torch.optim.SGD(params, lr=lr)


def setting(**changes) -> Experiment:
    benchmark = thinned(first_tasks(digits(), 3), 24)
    usual = {"batch_size": BATCH, "iterations": ITERATIONS, "optimiser": sgd()}
    return made_experiment(benchmark, scenarios.class_(), (6,), **(usual | changes))


def plain(experiment: Experiment, seed: int, lam: float, slices: int, rate_step: float, size: int) -> Tree:
    """Final weights, by algorithm 1 with first-order gradients: every inner step on its own."""
    benchmark, method = experiment.benchmark, la_maml(reservoir(size), slices, rate_step)
    params = {name: p.double() for name, p in experiment.net.init(rng.stream(seed, "init"))[0].items()}
    a = {name: torch.full_like(p, lam) for name, p in params.items()}
    classes: list[int] = []

    def gradient(at: Tree, x: Tensor, label: Tensor, weight: Tensor) -> Tree:
        at = {name: p.clone().requires_grad_() for name, p in at.items()}
        h = functional.linear(x.flatten(1), at["fc1.weight"], at["fc1.bias"]).relu()
        z = functional.linear(h, at["head.weight"], at["head.bias"])[:, classes]
        where = torch.tensor([classes.index(c) for c in label.tolist()])
        (functional.cross_entropy(z, where, reduction="none") * weight).sum().backward()
        return {name: p.grad for name, p in at.items()}

    for t, task in enumerate(benchmark.curriculum(seed).tasks):
        classes = sorted({*classes, *task.classes})
        drawn = batches.batches(experiment, [seed], t, (t,))
        _, recalled = memories(experiment, [seed], t, method, drawn)
        for i in range(ITERATIONS):
            x, label = benchmark.to_input(benchmark.x[drawn.rows[0, i]]), drawn.label[0, i]
            whole_x, whole_label, weight = x, label, torch.full((BATCH,), 1 / BATCH, dtype=torch.float64)
            if recalled:
                old = benchmark.to_input(benchmark.x[recalled.rows[0, i]])
                whole_x, whole_label = torch.cat([x, old]), torch.cat([label, recalled.label[0, i]])
                weight = torch.full((2 * BATCH,), 1 / (2 * BATCH), dtype=torch.float64)
            theta, inner, meta = params, [], []
            cuts = [round_up(BATCH, slices, j) for j in range(slices + 1)]
            for first, end in pairwise(cuts):
                share = torch.full((end - first,), 1 / (end - first), dtype=torch.float64)
                inner.append(gradient(theta, x[first:end], label[first:end], share))
                theta = {name: p - a[name] * inner[-1][name] for name, p in theta.items()}
                meta.append(gradient(theta, whole_x, whole_label, weight))
            for name in list(a):
                for j in range(slices):
                    a[name] = a[name] + rate_step / slices * meta[j][name] * sum(g[name] for g in inner[: j + 1])
                params[name] = params[name] - a[name].clamp(min=0) * sum(m[name] for m in meta) / slices
    return params


def round_up(n: int, parts: int, j: int) -> int:
    """Where part j of n begins, the first parts being the longer ones."""
    return j * (n // parts) + min(j, n % parts)


@pytest.mark.parametrize(("slices", "rate_step", "lam"), [(1, 0.0, 0.3), (3, 0.2, 0.1), (7, 0.1, 0.02)])
def test_a_run_is_the_plain_loop(slices, rate_step, lam):
    found = run(setting(), la_maml(reservoir(11), slices, rate_step), [Replica(2, lam, None)]).params
    assert error(at(found, 0), plain(setting(), 2, lam, slices, rate_step, 11)) < 1e-9


def test_learning_rates_grow_where_gradients_agree_and_never_step_uphill():
    """A rate grows where the gradients of what is new and of everything have one sign, and falls where they do not."""
    rates, w = {"w": torch.tensor([0.1, 0.1, -0.1])}, {"w": torch.zeros(3)}
    method = la_maml(end_of_task(5), 1, 1.0)
    slopes = {"new": torch.tensor([1.0, 1.0, 1.0]), "old": torch.tensor([3.0, -3.0, 5.0])}

    def objective(params, buffers, state, batch, recalled):
        """Linear: half of each where there is something recalled."""
        slope = (batch["slope"] + recalled["slope"]).sum(0) / 2 if recalled else batch["slope"].sum(0)
        return (slope * params["w"]).sum(), (buffers, slope)

    given = [{"slope": slopes[of][None]} for of in ("new", "old")]
    state, gradient, _ = method.descend(
        objective, method.init(w, torch.tensor(0.1))._replace(rates=rates), w, {}, *given
    )
    meta = torch.tensor([2.0, -1.0, 3.0])
    assert torch.allclose(state.rates["w"], rates["w"] + meta)  # + rate_step x meta x g, g = 1
    assert torch.allclose(gradient["w"], torch.tensor([2.1 * 2.0, 0.0, 2.9 * 3.0]))


def test_what_no_importance_touches_learns_by_lambda():
    """As do rates that do not learn: leaving parameters unprotected changes nothing then."""
    made, method, rows = setting(), la_maml(reservoir(11), 2, 0.0), [Replica(3, 0.05, None)]
    bare = made._replace(net=made.net._replace(unprotected=frozenset({"fc1.weight", "head.weight", "head.bias"})))
    found, expected = (run(one, method, rows).params for one in (bare, made))
    assert error(found, expected) < 1e-12


def test_without_inner_steps_to_look_ahead_to_it_is_sgd():
    """Of lam -> 0 it looks at the weights as they are; the optimiser's own rate makes up for the scale of max(0, a)."""
    lam = 1e-9
    found = run(setting(optimiser=sgd(0.2 / lam)), la_maml(end_of_task(0), 3, 0.0), [Replica(3, lam, None)]).params
    expected = run(setting(optimiser=sgd(0.2)), finetune(), [Replica(3, 0.0, None)]).params
    assert error(single(found, 0), single(expected, 0)) < 1e-6


def test_replicas_of_a_stack_are_the_singles():
    experiment = setting(share_first_task=True)
    rows = [Replica(seed, lam, None) for seed, lam in ((3, 0.1), (1, 0.02), (3, 0.02))]
    method = la_maml(reservoir(11), 2, 0.1)
    together = run(experiment, method, rows).params
    for i, row in enumerate(rows):
        alone = run(experiment._replace(share_first_task=False), method, [row]).params
        assert error(single(together, i), single(alone, 0)) < 1e-12
    assert not same(single(together, 0), single(together, 2))


def test_what_is_kept_is_counted():
    """A rate for each parameter, lambda, and 11 images of 64 bytes with labels of 8."""
    [found] = run(setting(), la_maml(reservoir(11)), [Replica(1, 0.1, None)]).outcomes
    assert found.storage == {"state": 8 * (65 * 6 + 7 * 10 + 1), "examples": 11 * (64 + 8)}


@pytest.mark.parametrize(
    ("optimiser", "fine"),
    [
        (partial(torch.optim.SGD, lr=1), True),
        (partial(torch.optim.SGD, lr=0.01), False),
        (partial(torch.optim.SGD, lr=1.0, momentum=0.9), False),
        (partial(torch.optim.SGD, lr=1.0, weight_decay=0.1), False),
        (partial(torch.optim.Adam, lr=1.0), False),
    ],
)
def test_an_optimiser_that_does_not_take_its_steps_as_they_are_is_refused(optimiser, fine):
    experiment = setting(optimiser=optimiser, reset_optimiser=True)
    names = {"method": "la_maml", "optim": "mine", "model": "mlp"}
    told = "method=la_maml with optim=mine: its steps are its own.*optim=sgd optim.lr=1"
    with nullcontext() if fine else pytest.raises(UserError, match=told):
        check(experiment, la_maml(reservoir(11)), [1], names)


@pytest.mark.parametrize(
    "wrong", [{"slices": 0}, {"rate_step": -0.1}, {"rate_step": math.inf}, {"rate_step": math.nan}]
)
def test_bad_numbers_are_refused(wrong):
    with pytest.raises(UserError, match=rf"method\.{next(iter(wrong))}="):
        la_maml(end_of_task(5), **wrong)
