"""Importances observed during training, against plain loops; and what the engine does for those who observe."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
from made_experiments import SHARED, digits, first_tasks, made_experiment, run, thinned
from made_networks import dropping_net
from made_trees import after, copied, error, positive, same, single, tree
from torch import Generator, Tensor

from cl_repro.benchmarks import scenarios
from cl_repro.common import rng
from cl_repro.common.errors import UserError
from cl_repro.engine import Experiment, Replica, batches, lifecycle, measure, replicas
from cl_repro.engine.course import Course
from cl_repro.engine.stack import start
from cl_repro.importance import fisher
from cl_repro.methods.baselines import finetune
from cl_repro.methods.ewc import ewc
from cl_repro.methods.l2 import l2, magnitude
from cl_repro.methods.quadratic import quadratic
from cl_repro.methods.sos import sos
from cl_repro.methods.synaptic_intelligence import si, sib, siu
from cl_repro.types import Method, Tree

XI = 0.1
METHODS: dict[str, Method] = {
    "si": si(XI),
    "siu": siu(XI),
    "sib": sib(XI),
    "sos": sos(),
    "sos-alpha": sos(alpha=1.0, beta2=0.9),
    "sos-corrected": sos(bias_correction=True),
}


def small(**changes: Any) -> Experiment:
    """Three tasks of forty examples, seven steps of sixteen, a new Adam for each; all logits are always active."""
    three = first_tasks(thinned(digits(5, changes.get("dtype", torch.float64)), 40), 3)
    made = {"scenario": scenarios.domain(), "iterations": 7, "reset_optimiser": True} | changes
    return made_experiment(three, **made)


# --- a plain loop ---------------------------------------------------------------------------------------------------


class Learned(NamedTuple):
    """What the plain loop knows after a task."""

    params: Tree
    raw: Tree  # S, or v
    total: Tree  # Omega


def plain(experiment: Experiment, seed: int, lam: float, name: str) -> list[Learned]:
    """Training and importances as Benzing (2022) has them, the usual way: one network, the penalty in the loss."""
    net, curriculum = experiment.net, experiment.benchmark.curriculum(seed)
    theta, buffers = net.init(rng.stream(seed, "init"))
    theta = {n: p.double().requires_grad_() for n, p in theta.items()}
    buffers = {n: b.double() for n, b in buffers.items()}
    mine = {n: p for n, p in theta.items() if n not in net.unprotected}
    adam = torch.optim.Adam(theta.values(), lr=1e-2)
    total = {n: torch.zeros_like(p) for n, p in mine.items()}
    anchor = {n: p.detach().clone() for n, p in mine.items()}
    beta2, alpha = (0.9, 1.0) if name == "sos-alpha" else (0.999, 0.0)
    result = []
    for t in range(experiment.benchmark.n_tasks):
        active = list(experiment.scenario.active(curriculum.tasks, t, t))
        own, other = (batches.batches(experiment, [seed], t, [t], stream) for stream in ("order", "independent"))
        dropout = rng.stream(seed, "noise", t)
        s = {n: torch.zeros_like(p) for n, p in mine.items()}
        v = {n: torch.zeros_like(p) for n, p in mine.items()}
        if experiment.reset_optimiser:
            adam = torch.optim.Adam(theta.values(), lr=1e-2)
        if experiment.reinit and t > 0:
            drawn_anew, _ = net.init(rng.stream(seed, "init", t))
            for n, p in mine.items():
                p.data.copy_(drawn_anew[n])
        first = {n: p.detach().clone() for n, p in mine.items()}
        steps = experiment.iterations if isinstance(experiment.iterations, int) else experiment.iterations[t]
        for i in range(steps):
            value, _ = plain_loss(experiment, theta, buffers, other, i, active)
            g_other = dict(zip(mine, torch.autograd.grad(value, list(mine.values())), strict=True))
            value, _ = plain_loss(experiment, theta, buffers, own, i, active)
            g = dict(zip(mine, torch.autograd.grad(value, list(mine.values())), strict=True))
            before = {n: p.detach().clone() for n, p in mine.items()}
            noise = {"noise": torch.rand(16, net.noise, generator=dropout, dtype=torch.float64)} if net.noise else {}
            value, buffers = plain_loss(experiment, theta, buffers, own, i, active, train=True, **noise)
            value = value + lam * sum((total[n] * (p - anchor[n]) ** 2).sum() for n, p in mine.items())
            adam.zero_grad()
            value.backward()
            adam.step()
            for n, p in mine.items():
                along = {"si": g[n], "siu": g_other[n], "sib": g[n] - g_other[n]}.get(name, g[n])
                s[n] -= along * (p.detach() - before[n])
                v[n] = beta2 * v[n] + (1 - beta2) * (g[n] - alpha * g_other[n]) ** 2
        for n, p in mine.items():
            rescaled = s[n] / ((p.detach() - first[n]) ** 2 + XI)
            second = v[n] / (1 - beta2**steps) if name == "sos-corrected" else v[n]
            total[n] = total[n] + (second.sqrt() if name.startswith("sos") else rescaled.clamp(min=0))
            anchor[n] = p.detach().clone()
        raw = v if name.startswith("sos") else s
        result.append(Learned({n: p.detach().clone() for n, p in theta.items()}, raw, dict(total)))
    return result


def plain_loss(
    experiment: Experiment,
    theta: Tree,
    buffers: Tree,
    drawn: batches.Batches,
    i: int,
    active: list[int],
    **given: Any,
) -> tuple[Tensor, Tree]:
    """Mean over a mini-batch of -log p(label), the softmax over the active logits; and the buffers."""
    x, label = experiment.benchmark.x[drawn.rows[0, i]].double() / 16, drawn.label[0, i].tolist()
    z, buffers = experiment.net.apply(theta, buffers, x, **given)
    losses = [-of_one[active].log_softmax(0)[active.index(y)] for of_one, y in zip(z, label, strict=True)]
    return torch.stack(losses).mean(), buffers


class Seen(NamedTuple):
    """What the engine had around one task."""

    given: Any  # state before
    state: Any  # state after, before `end_task`
    params: Tree  # [K, ...]


def watched(experiment: Experiment, method: Method, rows: list[Replica], **given: Any) -> list[Seen]:
    """`engine.train`, looked at before and after every task."""
    seen: list[Seen] = []
    learning = replicas.learning

    def watch(course: Course, *rest: Any) -> Any:
        before = copied(course.state) if course.state else None
        yield from learning(course, *rest)
        seen.append(Seen(before, course.state, copied(course.stack.params)))

    with mock.patch.object(replicas, "learning", watch):
        run(experiment, method, rows, **given)
    return seen


def raw_of(state: Any) -> Tree:
    """S, or v."""
    return state.v if hasattr(state, "v") else state.path


SETTINGS: dict[str, Callable[..., Experiment]] = {
    "one-adam": partial(small, reset_optimiser=False),
    "reset": small,
    "reset-reinit": partial(small, reinit=True),
    "steps-differ": partial(small, iterations=[9, 5, 3], reinit=True),
    "task": partial(small, scenario=scenarios.task()),
    "dropping": partial(small, scenario=scenarios.task(), net=dropping_net(), reinit=True),
    "centring": partial(small, scenario=scenarios.task(), net=dropping_net(keep=1), reinit=True),
}


# All settings and all methods, where something of the one can go wrong in the other; the rest is slow.
CROSSED = {
    "one-adam": {"si", "sos-alpha"},
    "reset": {"siu", "sos"},
    "reset-reinit": {"si", "sib", "sos-corrected"},
    "steps-differ": {"siu", "sos-corrected"},
    "task": {"sib", "sos"},
    "dropping": {"si", "siu", "sib", "sos-alpha"},
    "centring": {"si"},
}


def crossed(quick: dict[str, set[str]]) -> list[Any]:
    """All pairs of a method and a setting; those that are not quick are slow."""
    return [
        pytest.param(name, setting, marks=[pytest.mark.slow] * (name not in names))
        for setting, names in quick.items()
        for name in METHODS
    ]


@pytest.mark.parametrize(("name", "setting"), crossed(CROSSED))
def test_an_online_importance_is_that_of_a_plain_loop(name, setting):
    """In float64, through all tasks, with a lambda that matters. Measured: weights, S, v and Omega to 4e-14."""
    experiment, row = SETTINGS[setting](), Replica(2, 3.0, None)
    expected = plain(experiment, row.seed, row.lam, name)
    found = watched(experiment, METHODS[name], [row])
    assert len(found) == len(expected) == 3
    for t, (seen, plainly) in enumerate(zip(found, expected, strict=True)):
        assert error(tree_at(seen.params, 0), plainly.params) < 1e-11
        assert error(raw_of(seen.state), plainly.raw) < 1e-11
        if t:
            assert error(seen.given.pull.importance, expected[t - 1].total) < 1e-11
            last = tree_at(found[t - 1].params, 0)
            assert same(seen.given.pull.anchor, {n: last[n] for n in seen.given.pull.anchor})
    assert error(run(experiment, finetune(), [row]).params, found[-1].params) > 1e-3
    if name == "sib":  # max(0, .) has something to do
        assert all((task.raw["fc1.weight"] < 0).any() for task in expected)


# --- S, v and Omega in closed form ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("setting", ["reset-reinit", "dropping"])
def test_si_is_its_unbiased_half_and_its_bias(setting, dtype, tolerance):
    """S(si) = S(siu) + S(sib), on the same path, which lambda = 0 leaves. Measured: 3e-16; 2e-7 in float32."""
    experiment = SETTINGS[setting](dtype=dtype)
    paths = [
        [raw_of(seen.state) for seen in watched(experiment, METHODS[name], [Replica(2, 0.0, None)])]
        for name in ("si", "siu", "sib")
    ]
    for whole, unbiased, bias in zip(*paths, strict=True):
        assert error({n: unbiased[n] + bias[n] for n in whole}, whole) < tolerance
        assert error(unbiased, whole) > 0.1


def observed(method: Method, state: Any, steps: list[tuple[dict[str, Tree], Tree]]) -> Any:
    """The state after steps with (gradients, change)."""
    for gradients, change in steps:
        state = method.observe(state, {name: gradients[name] for name in method.needs.gradients}, change)
    return state


def made_steps(n: int, seed: int) -> list[tuple[dict[str, Tree], Tree]]:
    """Random gradients and changes."""
    return [
        ({"batch": tree(seed + 3 * i), "independent": tree(seed + 3 * i + 1)}, tree(seed + 3 * i + 2)) for i in range(n)
    ]


LAM = torch.tensor(3.0, dtype=torch.float64)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 0.9])
@pytest.mark.parametrize("corrected", [False, True])
def test_sos_is_a_weighted_root_mean_square(alpha, corrected):
    """The second moment v is sum_t (1 - beta2) beta2^(T-1-t) (g_t - alpha g'_t)^2: of each task anew."""
    method, beta2, n = sos(alpha, 0.9, corrected), 0.9, 20
    assert method.needs.gradients == (("batch", "independent") if alpha else ("batch",))
    state, total = method.init(tree(1), LAM), {name: 0.0 for name in tree(1)}
    for task in range(2):
        steps = made_steps(n, 100 * task)
        state = observed(method, method.start_task(state, tree(2)), steps)
        for name, earlier in total.items():
            g = torch.stack([s["batch"][name] - alpha * s["independent"][name] for s, _ in steps])
            weights = (1 - beta2) * beta2 ** torch.arange(n - 1, -1, -1, dtype=torch.float64)
            v = torch.einsum("t,t...->...", weights / (weights.sum() if corrected else 1), g**2)
            total[name] = earlier + v.sqrt()
        state = method.end_task(state, tree(3), {})
    assert error(state.pull.importance, total) < 1e-12


@pytest.mark.parametrize(("name", "sign"), [("si", (-1, 0)), ("siu", (0, -1)), ("sib", (-1, 1))])
def test_what_a_weight_lost_in_one_task_takes_nothing_from_another(name, sign):
    """It is max(0, S / (d^2 + xi)) task by task, from where the task starts; not max(0, .) of the sum."""
    method, total = METHODS[name], {n: torch.zeros_like(v) for n, v in tree(1).items()}
    state, taken = method.init(tree(1), LAM), []
    for task in range(3):
        steps, begin, end = made_steps(4, 100 * task), tree(1000 + task), tree(2000 + task)
        state = observed(method, method.start_task(state, begin), steps)
        for n, earlier in total.items():
            s = sum((sign[0] * g["batch"][n] + sign[1] * g["independent"][n]) * change[n] for g, change in steps)
            ratio = s / ((end[n] - begin[n]) ** 2 + XI)
            total[n] = earlier + ratio.clamp(min=0)
            taken.append((ratio < 0).any())
        state = method.end_task(state, end, {})
    assert any(taken)
    assert error(state.pull.importance, total) < 1e-12
    assert same(state.pull.anchor, end)


# --- the penalty ----------------------------------------------------------------------------------------------------


def test_the_penalty_is_quadratic_without_a_half_in_the_sum_of_importances():
    params = {name: p.requires_grad_() for name, p in tree(9).items()}
    tasks = [(tree(t), positive(10 + t)) for t in range(3)]
    total = {name: sum(importance[name] for _, importance in tasks) for name in params}
    anchor = tasks[-1][0]
    loss = LAM * sum((total[name] * (p - anchor[name]) ** 2).sum() for name, p in params.items())
    expected = dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))
    with torch.no_grad():
        found = quadratic().penalty_grad(after(quadratic(), 3.0, tasks), params)
    assert error(found, expected) < 1e-13


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_ewc_with_twice_the_lambda_is_the_same_trajectory(dtype):
    """To the last bit: a factor of two is exact."""
    experiment = made_experiment(first_tasks(digits(dtype=dtype), 3), dtype=dtype)
    rows = [Replica(seed, lam, estimator) for seed, lam in ((1, 10.0), (2, 1e3)) for estimator in ESTIMATORS]
    doubled = [row._replace(lam=2 * row.lam) for row in rows]
    found = run(experiment, quadratic(), rows)
    assert same(found.params, run(experiment, ewc(), doubled).params)
    assert error(found.params, run(experiment, ewc(), rows).params) > 1e-2


ESTIMATORS = [fisher.exact(), fisher.empirical()]


def test_an_estimated_importance_is_summed_over_tasks():
    experiment, rows = made_experiment(), [Replica(2, 10.0, e) for e in ESTIMATORS]
    seen = watched(experiment, quadratic(), rows)
    stack, total = start(experiment, [2, 2]), None
    for t in range(4):
        stack.params = seen[t].params
        omega = measure(experiment, stack, t, ESTIMATORS)
        total = {n: total[n] + omega[n] for n in omega} if total else omega
        assert error(seen[t + 1].given.importance, total) < 1e-13


def test_an_importance_without_data_is_of_the_weights():
    tasks = [(tree(t), {}) for t in range(3)]
    for n in (1, 2, 3):
        states = [after(make, 3.0, tasks[:n]) for make in (l2(), l2("linear"), magnitude(), magnitude(2.0))]
        for name in tasks[0][0]:
            ended = torch.stack([params[name] for params, _ in tasks[:n]])
            expected = [torch.ones_like(ended[0]), torch.full_like(ended[0], n), ended.abs().sum(0), (ended**2).sum(0)]
            for state, value in zip(states, expected, strict=True):
                assert torch.allclose(state.importance[name], value, rtol=1e-14, atol=0)
                assert torch.equal(state.anchor[name], tasks[n - 1][0][name])


# --- what the engine does for those who observe -----------------------------------------------------------------------

ROWS = [Replica(seed, lam, None) for seed, lam in ((3, 1.0), (1, 0.0), (2, 30.0), (1, 3.0), (3, 1e3))]


@pytest.mark.parametrize(("name", "setting"), crossed({"reset-reinit": {"sib", "sos"}, "dropping": set(METHODS)}))
def test_a_stack_of_seeds_and_lambdas_is_its_single_runs(name, setting):
    """In float64. Measured: 8e-15."""
    experiment = SETTINGS[setting]()
    together = watched(experiment, METHODS[name], ROWS)
    for k, row in enumerate(ROWS):
        alone = watched(experiment, METHODS[name], [row])
        for of_all, own in zip(together, alone, strict=True):
            assert error(single(of_all.params, k), own.params) < 1e-11
            assert error(tree_at(raw_of(of_all.state), k), raw_of(own.state)) < 1e-11
            assert error(tree_at(of_all.state.pull.importance, k), own.state.pull.importance) < 1e-11


def tree_at(stacked: Tree, k: int) -> Tree:
    """Replica `k`, without its axis."""
    return {name: value[k] for name, value in stacked.items()}


def batches_of(experiment: Experiment, method: Method, rows: list[Replica]) -> list[list[batches.Batches | None]]:
    """Of every task: the mini-batches that are trained on, and the independent ones."""
    with mock.patch.object(lifecycle, "follow", wraps=lifecycle.follow) as follow:
        run(experiment, method, rows)
    return [[course.drawn, course.aid.independent] for (course, *_), _ in follow.call_args_list]


def test_independent_batches_are_the_tasks_other_ones_and_paired_over_methods():
    experiment, seeds = small(), [1, 2, 3]
    expected = batches_of(experiment, finetune(), ROWS[2:])
    found = {name: batches_of(experiment, method, ROWS) for name, method in METHODS.items()}
    for name, of_tasks in found.items():
        for t, (own, other) in enumerate(of_tasks):
            assert torch.equal(own.rows, expected[t][0].rows)
            assert (other is None) == (name not in ("siu", "sib", "sos-alpha"))
            if other is None:
                continue
            assert torch.equal(other.rows, found["siu"][t][1].rows)
            assert (other.rows != own.rows).float().mean() > 0.9
            assert (other.owner == t).all()
            for s, seed in enumerate(seeds):
                task = experiment.benchmark.curriculum(seed).tasks[t]
                order = rng.batches(rng.stream(seed, "independent", t), 40, 16, 7)
                assert torch.equal(other.rows[s], task.rows[order])
                assert torch.equal(other.label[s], experiment.scenario.label(
                    experiment.benchmark.curriculum(seed).y[other.rows[s]], task))  # fmt: skip
    alone = batches_of(experiment, METHODS["sib"], [ROWS[2]])
    assert all(torch.equal(alone[t][1].rows[0], found["sib"][t][1].rows[1]) for t in range(3))


def test_who_observes_trains_the_first_task_itself():
    experiment = small()
    trunks: dict[str, replicas.Trunk] = {}
    found = run(experiment._replace(share_first_task=True), METHODS["si"], ROWS, trunks)
    assert same(found.params, run(experiment, METHODS["si"], ROWS).params)
    assert trunks == {}


def begun(experiment: Experiment, method: Method, rows: list[Replica]) -> list[tuple[Tree, Any, bool]]:
    """Weights and state with which every task's steps begin, and whether the optimiser is new."""
    found: list[tuple[Tree, Any, bool]] = []
    follow = lifecycle.follow

    def watch(course: Course, *rest: Any) -> None:
        stack, state = course.stack, course.state
        found.append((copied(stack.params), copied(state) if state else None, not stack.optimiser.state))
        follow(course, *rest)

    with mock.patch.object(lifecycle, "follow", watch):
        run(experiment, method, rows)
    return found


REINITIALISED = {name: (method, None) for name, method in METHODS.items()} | {
    "finetune": (finetune(), None),
    "ewc": (ewc(), SHARED),
    "quadratic": (quadratic(), SHARED),
}


@pytest.mark.parametrize("name", REINITIALISED)
def test_reinitialised_weights_are_a_draw_of_the_task_paired_over_methods(name):
    experiment, (method, estimator) = small(reinit=True), REINITIALISED[name]
    found = begun(experiment, method, [row._replace(estimator=estimator) for row in ROWS])
    assert len(found) == 3
    for t, (params, _, new) in enumerate(found):
        assert new
        for k, row in enumerate(ROWS):
            fresh, _ = experiment.net.init(rng.stream(row.seed, "init", t))
            assert same(tree_at(params, k), {n: p.double() for n, p in fresh.items()})
    assert error(found[1][0], found[0][0]) > 0.1
    assert error(found[2][0], found[1][0]) > 0.1


@pytest.mark.parametrize("setting", ["reset-reinit", "dropping", "reset"])
def test_a_task_is_pulled_to_where_the_last_one_ended_and_measured_from_where_it_starts(setting):
    """And what is not protected goes on from there."""
    experiment = SETTINGS[setting]()
    ended = [seen.params for seen in watched(experiment, METHODS["si"], ROWS)]
    started = begun(experiment, METHODS["si"], ROWS)
    for last, (params, state, _) in zip(ended, started[1:], strict=False):
        assert state.start.keys() == params.keys() - experiment.net.unprotected
        assert same(state.start, {n: params[n] for n in state.start})
        assert same(state.pull.anchor, {n: last[n] for n in state.start})
        assert all(torch.equal(params[n], last[n]) for n in experiment.net.unprotected)
        moved = error({n: params[n] for n in state.start}, {n: last[n] for n in state.start})
        assert moved > 0.1 if experiment.reinit else moved == 0


def test_tasks_that_see_their_pixels_as_they_are_stand_among_others_that_do_not():
    experiment = small()
    benchmark, order = experiment.benchmark, torch.randperm(64, generator=Generator().manual_seed(1))
    plain_of = benchmark.curriculum

    def curriculum(seed: int) -> Any:
        tasks = plain_of(seed).tasks
        return plain_of(seed)._replace(tasks=(tasks[0], tasks[1]._replace(pixels=order.roll(seed)), tasks[2]))

    changed = experiment._replace(benchmark=benchmark._replace(curriculum=curriculum))
    for t, seeds in ((0, [1, 2]), (1, [1, 2]), (2, [2])):
        drawn = batches.batches(changed, seeds, t, [t])
        take = torch.tensor([1, 0, 1]) if len(seeds) == 2 else 0
        x, *_ = batches.minibatch(changed.benchmark, drawn, take, 3)
        images = benchmark.x[drawn.rows[take, 3]].flatten(-2).double() / 16
        if t == 1:
            images = torch.stack([images[k][:, order.roll(seed)] for k, seed in enumerate((2, 1, 2))])
        assert torch.equal(x.flatten(-2), images)


# --- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        *[(partial(make, xi=xi), f"method.xi={xi}: must be a finite number above 0")
          for make in (si, siu, sib) for xi in (0.0, -1.0, float("inf"), float("nan"))],
        (partial(sos, beta2=1.0), "method.beta2=1.0: must be at least 0 and below 1"),
        (partial(sos, beta2=-0.1), "method.beta2=-0.1: must be at least 0 and below 1"),
        (partial(sos, beta2=float("nan")), "method.beta2=nan: must be at least 0 and below 1"),
        (partial(sos, alpha=float("inf")), "method.alpha=inf: must be a finite number"),
        (partial(l2, growth="fast"), "method.growth=fast: must be constant or linear"),
        (partial(magnitude, power=0.0), "method.power=0.0: must be a finite number above 0"),
        (partial(magnitude, power=float("inf")), "method.power=inf: must be a finite number above 0"),
    ],
)  # fmt: skip
def test_an_argument_outside_its_range_is_refused(make, says):
    with pytest.raises(UserError) as caught:
        make()
    assert str(caught.value) == says
