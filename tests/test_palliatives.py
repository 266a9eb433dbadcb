"""Distillation and replay in whole runs: against plain loops over single examples, in float64."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import cli
import pytest
import torch
from made_experiments import digits, first_tasks, made_experiment, run, thinned
from made_networks import dropping_net
from made_trees import copied, error, same, single
from torch import Tensor
from torch.nn import functional

from cl_repro.benchmarks import scenarios
from cl_repro.benchmarks.permuted import permuted
from cl_repro.common import rng
from cl_repro.common.errors import UserError
from cl_repro.engine import Experiment, Replica, Trunk, check, lifecycle, training
from cl_repro.engine.stack import Epochs, start
from cl_repro.memory import Memory, class_balanced, end_of_task, insert_all, reservoir, ring
from cl_repro.methods.baselines import finetune
from cl_repro.methods.der import der
from cl_repro.methods.lwf import distillation, lwf
from cl_repro.methods.replay import LOSSES, replay
from cl_repro.models.layers import init_linear, linear, no_tap
from cl_repro.study import provenance, study, worker
from cl_repro.study.factories import build
from cl_repro.study.grid import make_arm
from cl_repro.study.jobs import Job
from cl_repro.types import Examples, Method, Needs, Net, Step, Tree

MEMORIES: dict[str, Callable[[int], Memory]] = {
    "insert_all": insert_all,
    "reservoir": reservoir,
    "ring": ring,
    "class_balanced": class_balanced,
    "end_of_task": end_of_task,
}
SMALL = {"batch_size": 6, "iterations": 7}  # of 24 examples a task: an epoch and three quarters
MIXED = [Replica(3, 1.0, None), Replica(1, 0.0, None), Replica(2, 30.0, None), Replica(1, 0.3, None)]


def noisy(n_inputs: int, n_outputs: int, units: int = 8, rate: float = 0.3) -> Net:
    """A layer centred by the mini-batch in training and by a running mean in evaluation, dropout, and a head."""

    def init(generator: torch.Generator) -> tuple[Tree, Tree]:
        layers = init_linear("fc1", n_inputs, units, generator) | init_linear("head", units, n_outputs, generator)
        return layers, {"mean": torch.zeros(units)}

    def apply(
        params: Tree, buffers: Tree, x: Tensor, *, train: bool = False, tap: Any = no_tap, noise: Tensor | None = None
    ) -> tuple[Tensor, Tree]:
        a = linear(params, "fc1", x.flatten(1), tap).relu()
        mean = a.detach().mean(0) if train else buffers["mean"]
        if train:
            buffers = {"mean": 0.8 * buffers["mean"] + 0.2 * mean}
        a = a - mean
        if noise is not None:
            a = a * (noise >= rate) / (1 - rate)
        return linear(params, "head", a, tap), buffers

    return Net(init, apply, noise=units)


def setting(kind: str, whole: bool = False, dtype: torch.dtype = torch.float64, **changes: Any) -> Experiment:
    """Three tasks, by what they are about: a scenario, permuted pixels, or a network that is another in training.

    Args:
        kind: task, domain, class, permuted, noise (which the network draws) or centring (by statistics of batches).
        whole: with all examples, of which seeds have different numbers.
        dtype: of data and weights.
        changes: other fields of `Experiment`.

    Returns:
        The experiment.
    """
    if kind == "permuted":
        benchmark = permuted("digits", 3, 16.0, data_dir=".", device="cpu", dtype=dtype)
    else:
        benchmark = first_tasks(digits(dtype=dtype), 3)
    scenario = {"domain": scenarios.domain, "permuted": scenarios.domain, "class": scenarios.class_}
    made = made_experiment(
        benchmark if whole else thinned(benchmark, 24), scenario.get(kind, scenarios.task)(), (8,), dtype, **SMALL
    )
    nets = {"noise": noisy(64, 10), "centring": dropping_net(keep=1)}
    return made._replace(**({"net": nets[kind]} if kind in nets else {}), **changes)


# --- the plain loop -------------------------------------------------------------------------------------------------


class Parts(NamedTuple):
    """What a loss is made of, at task k = 2, 3, ..."""

    k: int
    new: Tensor  # mean cross-entropy of the mini-batch
    z: Tensor  # [B, C]
    taught: Tensor  # [B, C], logits of the network that ended the task before
    heads: list[list[int]]  # logits of each softmax of the tasks before
    old: Tensor  # mean cross-entropy of what is recalled
    z_old: Tensor  # [B, C]
    stored: Tensor  # [B, C]


class Held(NamedTuple):
    """An example in a memory."""

    task: int
    row: int
    z: Tensor  # [C], when it was stored


def plain(  # noqa: PLR0912, PLR0915 - one loop, to be read from top to bottom
    kind: str, experiment: Experiment, seed: int, total: Callable[[Parts], Tensor], policy: str = "", size: int = 0
) -> Tree:
    """The final weights of one run: one example after the other, nothing prepared, lists for memories."""
    benchmark, net, n_batch = experiment.benchmark, experiment.net, experiment.batch_size
    curriculum = benchmark.curriculum(seed)
    tasks, y = curriculum.tasks, curriculum.y.tolist()
    initial, buffers = net.init(rng.stream(seed, "init"))
    params = {name: p.double().requires_grad_() for name, p in initial.items()}
    buffers = {name: b.double() for name, b in buffers.items()}
    adam = torch.optim.Adam(list(params.values()), lr=1e-2, foreach=False)
    held: list[Held] = []
    offered = 0

    def image(task: int, row: int) -> Tensor:
        flat = benchmark.x[row].flatten().double() / 16
        pixels = tasks[task].pixels
        return (flat if pixels is None else flat[pixels]).view(benchmark.x.shape[1:])

    def logits(task: int, asked: int) -> list[int]:
        """That compete for an example of task `asked` while `task` is trained."""
        if kind in ("domain", "permuted"):
            return list(range(len(tasks[0].classes)))
        if kind == "class":
            return sorted(c for t in tasks[: task + 1] for c in t.classes)
        return sorted(tasks[asked].classes)

    def cross_entropy(z: Tensor, task: int, of: Sequence[tuple[int, int]]) -> Tensor:
        """Mean over examples, (task, row) each."""
        never = torch.full_like(z, -math.inf)
        for i, (asked, _) in enumerate(of):
            never[i, logits(task, asked)] = 0
        labels = [sorted(tasks[asked].classes).index(y[row]) if kind == "domain" else y[row] for asked, row in of]
        return -(z + never).log_softmax(1)[torch.arange(len(of)), labels].mean()

    for t, task in enumerate(tasks):
        order = rng.batches(rng.stream(seed, "order", t), len(task.rows), n_batch, experiment.steps(t))
        u = torch.rand(len(y), generator=rng.stream(seed, "memory", t), dtype=torch.float64).tolist()
        picks, noises = rng.numpy_stream(seed, "recall", t), [rng.stream(seed, s, t) for s in ("noise", "recall_noise")]
        teacher = {name: p.detach().clone() for name, p in params.items()}, buffers
        if experiment.reinit and t:
            drawn, _ = net.init(rng.stream(seed, "init", t))
            with torch.no_grad():
                for name, p in params.items():
                    p.copy_(drawn[name])
        used: list[int] = []
        for positions in order:
            rows = task.rows[positions].tolist()
            x = torch.stack([image(t, row) for row in rows])
            recalled: list[Held] = []
            if t and held:
                recalled = [held[i] for i in picks.choice(len(held), n_batch, replace=len(held) < n_batch)]
            both = torch.cat([x, torch.stack([image(h.task, h.row) for h in recalled])]) if recalled else x
            given = {}
            if net.noise:
                draws = noises[: 2 if recalled else 1]
                given["noise"] = torch.cat(
                    [torch.rand(n_batch, net.noise, generator=g, dtype=torch.float64) for g in draws]
                )
            z, buffers = net.apply(params, buffers, both, train=True, **given)
            loss = cross_entropy(z[:n_batch], t, [(t, row) for row in rows])
            if t:
                old = cross_entropy(z[n_batch:], t, [(h.task, h.row) for h in recalled]) if recalled else loss
                heads = {tuple(logits(t - 1, asked)) for asked in range(t)}
                loss = total(
                    Parts(
                        t + 1,
                        loss,
                        z[:n_batch],
                        net.apply(*teacher, x)[0].detach(),
                        [list(head) for head in heads],
                        old,
                        z[n_batch:],
                        torch.stack([h.z for h in recalled]) if recalled else z[n_batch:],
                    )
                )
            adam.zero_grad()
            loss.backward()
            adam.step()
            for j, row in enumerate(rows):
                if row in used:
                    continue
                used.append(row)
                offered += 1
                item = Held(t, row, z[j].detach())
                if policy in ("insert_all", "reservoir"):
                    at = math.floor(u[row] * (size if policy == "insert_all" else offered))
                    if len(held) < size:
                        held.append(item)
                    elif at < size:
                        held[at] = item
        if policy == "end_of_task":
            pool: dict[tuple[int, int], list[Held]] = {}
            for h in [*held, *(Held(t, row, torch.empty(0)) for row in sorted(used))]:
                pool.setdefault((h.task, y[h.row]), []).append(h)
            for kind_of, members in pool.items():
                if kind_of[0] == t:
                    members.sort(key=lambda h: u[h.row])
            while sum(map(len, pool.values())) > size:  # the last of the largest gives one up
                max(reversed(pool.values()), key=len).pop()
            held = [h for members in pool.values() for h in members]
    return {name: p.detach()[None] for name, p in params.items()}


def alone(experiment: Experiment, method: Method, seed: int, lam: float) -> Tree:
    return run(experiment, method, [Replica(seed, lam, None)]).params


# --- replay ---------------------------------------------------------------------------------------------------------

TOTALS: dict[str, Callable[[Parts, float], Tensor]] = {
    "balanced": lambda of, lam: of.new / of.k + lam * (1 - 1 / of.k) * of.old,
    "equal": lambda of, lam: of.new + lam * of.old,
    "union": lambda of, lam: (of.new + lam * of.old) / (1 + lam),
}
CASES = [
    ("balanced", "reservoir", 20, "task"),
    ("balanced", "end_of_task", 5, "class"),
    ("balanced", "end_of_task", 20, "noise"),
    ("equal", "reservoir", 5, "domain"),
    ("equal", "end_of_task", 40, "permuted"),
    ("equal", "insert_all", 12, "class"),
    ("union", "reservoir", 5, "noise"),
    ("union", "end_of_task", 20, "task"),
]


@pytest.mark.parametrize(("loss", "policy", "size", "kind"), CASES)
def test_a_run_of_replay_is_the_plain_loop(loss, policy, size, kind):
    """A memory of 5 is smaller than a mini-batch: then examples are recalled with replacement."""
    experiment, lam = setting(kind), 0.7
    expected = plain(kind, experiment, 1, lambda of: TOTALS[loss](of, lam), policy, size)
    found = alone(experiment, replay(MEMORIES[policy](size), loss), 1, lam)
    assert error(found, expected) < 1e-10


def test_union_is_the_mean_over_both_mini_batches():
    generator = torch.Generator().manual_seed(1)
    z, label = torch.randn(12, 6, generator=generator).double(), torch.randint(0, 6, (12,), generator=generator)
    mask = torch.ones(12, 6, dtype=torch.bool)
    first, second = (Examples(z[part], label[part], mask[part]) for part in (slice(6), slice(6, 12)))
    method = replay(reservoir(3), "union")
    state = method.end_task(method.init({}, torch.tensor(1.0).double()), {}, {})
    found = method.loss(state, Step(first, second, mask[:1]))
    assert found.item() == pytest.approx(functional.cross_entropy(z, label).item(), rel=1e-14)


# --- distillation ---------------------------------------------------------------------------------------------------

HEADS = {
    "task": [[0, 1], [2, 3], [4, 5]],  # the fourth task has 6 and 7
    "domain": [[0, 1]],
    "class": [[0, 1, 2, 3, 4, 5]],
}


def masks(heads: Sequence[Sequence[int]], n: int) -> Tensor:
    result = torch.zeros(len(heads), n, dtype=torch.bool)
    for i, head in enumerate(heads):
        result[i, list(head)] = True
    return result


def kl(z: Tensor, target: Tensor, heads: Sequence[Sequence[int]], temperature: float) -> Tensor:
    """Sum over heads, the teacher first, mean over the mini-batch."""
    return sum(
        functional.kl_div(
            (z[:, head] / temperature).log_softmax(1),
            (target[:, head] / temperature).log_softmax(1),
            reduction="batchmean",
            log_target=True,
        )
        for head in map(list, heads)
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("scenario", HEADS)
def test_distillation_is_the_divergence_of_each_head(scenario, temperature):
    n = 2 if scenario == "domain" else 10
    generator = torch.Generator().manual_seed(3)
    z, target = (3 * torch.randn(7, n, generator=generator, dtype=torch.float64) for _ in range(2))
    values = []
    for f in (
        lambda z: kl(z, target, HEADS[scenario], temperature),
        lambda z: distillation(z, target, masks(HEADS[scenario], n), temperature),
    ):
        leaf = z.clone().requires_grad_()
        value = f(leaf)
        values.append((value.item(), torch.autograd.grad(value, leaf)[0]))
    (expected, slope), (found, gradient) = values
    assert found == pytest.approx(expected, rel=1e-12)
    assert (gradient - slope).abs().max() < 1e-14
    unseen = [c for c in range(n) if all(c not in head for head in HEADS[scenario])]
    assert (gradient[:, unseen] == 0).all()
    assert (gradient[:, : n - len(unseen)] != 0).all()


@pytest.mark.parametrize("kind", ["task", "class"])
@pytest.mark.parametrize("seeds", [[1], [2, 1]])
def test_a_warm_up_is_plain_training_of_the_new_rows_of_the_head(kind, seeds):
    experiment, steps = setting(kind), 4
    stack = start(experiment, seeds)
    course = lifecycle.begin(experiment, stack, 1, Method(), None)
    course.method, drawn, before = Method(needs=Needs(warm_up=steps)), course.drawn, copied(stack.params)
    own = sorted(experiment.benchmark.curriculum(1).tasks[1].classes)
    new = torch.zeros(10, dtype=torch.bool)
    new[own] = True
    training.warm_up(course, new)
    for r, seed in enumerate(seeds):
        of_seed = sorted(seeds).index(seed)
        body, head = (
            {name: p[r] for name, p in before.items()},
            [before[f"head.{part}"][r].clone() for part in ("weight", "bias")],
        )
        rows = [h[own].clone().requires_grad_() for h in head]
        adam = torch.optim.Adam(rows, lr=1e-2)
        for i in range(steps):
            x = experiment.benchmark.to_input(experiment.benchmark.x[drawn.rows[of_seed, i]]).flatten(1)
            features = functional.linear(x, body["fc1.weight"], body["fc1.bias"]).relu()
            label = torch.tensor([own.index(c) for c in drawn.label[of_seed, i].tolist()])
            adam.zero_grad()
            functional.cross_entropy(functional.linear(features, *rows), label).backward()
            adam.step()
        with torch.no_grad():
            for h, row in zip(head, rows, strict=True):
                h[own] = row
        assert same(
            {n: p[r] for n, p in stack.params.items() if n.startswith("fc")},
            {n: body[n] for n in body if n.startswith("fc")},
        )
        for part, expected in zip(("weight", "bias"), head, strict=True):
            assert (stack.params[f"head.{part}"][r] - expected).abs().max() < 1e-12
            assert not torch.equal(expected[own], before[f"head.{part}"][r][own])


@pytest.mark.parametrize("kind", ["task", "class"])
def test_a_run_warms_up_the_outputs_of_new_classes_before_every_task_but_the_first(kind):
    experiment = setting(kind)
    with mock.patch.object(lifecycle, "warm_up", wraps=lifecycle.warm_up) as spy:
        warmed = alone(experiment, lwf(warm_up=3), 1, 0.0)
    assert [call.args[1].nonzero()[:, 0].tolist() for call in spy.call_args_list] == [
        sorted(task.classes) for task in experiment.benchmark.curriculum(1).tasks[1:]
    ]
    assert not same(warmed, alone(experiment, lwf(), 1, 0.0))
    alike = Method(needs=Needs(warm_up=3))  # lambda is 0: lwf without a loss of its own
    assert error(alone(experiment, alike, 1, 0.0), warmed) < 1e-13


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        (["scenario=domain", "method.warm_up=2"], "method.warm_up=2: must be 0 where a task brings no outputs"),
        (
            ["scenario=task", "method.warm_up=13"],
            "method.warm_up=13: must be at most the 12 iterations of task 1 of seed 1",
        ),
        (["model=progressive", "method.warm_up=2"], "method=lwf with model=progressive and method.warm_up=2: needs a"),
        (["scenario=class", "method.warm_up=-1"], "method.warm_up=-1: must be at least 0"),
    ],
)
def test_a_warm_up_that_cannot_be_is_refused_before_training(choices, told):
    with pytest.raises(UserError, match=told):
        study.plan(cli.arms("method=lwf", "iterations=12", "seeds=[1]", "batch_size=8", *choices))


def test_a_warm_up_is_refused_where_a_task_of_any_seed_is_too_short_for_it():
    """The second task of seed 0 has 270 examples, two mini-batches of 269; that of seed 3 has 268."""
    experiment = made_experiment(first_tasks(digits(), 2), iterations=Epochs((1, 1)), batch_size=269)
    names = {"method": "lwf", "optim": "adam", "model": "mlp"}
    check(experiment, lwf(warm_up=2), [0], names)
    with pytest.raises(UserError, match="warm_up=2: must be at most the 1 iterations of task 1 of seed 3"):
        check(experiment, lwf(warm_up=2), [0, 3], names)


def test_distillation_has_its_minimum_at_the_teacher():
    """And is blind to what softmaxes are blind to: a constant added to a head, and all other logits."""
    heads = masks(HEADS["task"], 8)
    target = torch.randn(5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    moved = target + torch.tensor([1.0, 1, -2, -2, 5, 5, 7, 9])
    for z in (target, moved):
        leaf = z.clone().requires_grad_()
        value = distillation(leaf, target, heads, 2.0)
        assert value.abs() < 1e-15
        assert torch.autograd.grad(value, leaf)[0].abs().max() < 1e-15
    assert distillation(target.flip(0), target, heads, 2.0) > 0.01


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e30])
def test_extreme_logits_have_finite_gradients(scale):
    """In float32, against float64, where the largest divergence is T^-1 scale."""
    heads = masks(HEADS["class"], 8)
    z, target = (torch.randn(6, 8, generator=torch.Generator().manual_seed(s)) * scale for s in (1, 2))
    target[0], z[1] = z[0], -z[0]
    found, expected = z.clone().requires_grad_(), z.double().requires_grad_()
    value, exact = distillation(found, target, heads, 2.0), distillation(expected, target.double(), heads, 2.0)
    (gradient,), (slope,) = torch.autograd.grad(value, found), torch.autograd.grad(exact, expected)
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)
    assert (gradient.double() - slope).abs().max() < 1e-6
    assert slope.abs().max() > 1e-3


@pytest.mark.parametrize(
    ("kind", "teacher", "reinit"),
    [
        ("task", "task", False),
        ("domain", "task", False),
        ("class", "step", True),
        ("permuted", "task", True),
        ("noise", "task", True),
        ("noise", "step", False),
    ],
)
def test_a_run_of_lwf_is_the_plain_loop(kind, teacher, reinit):
    """The teacher is the network that ended the task before, without dropout, wherever the student starts."""
    experiment = setting(kind, reinit=reinit)
    temperature, lam = 2.0, 0.8
    expected = plain(
        kind,
        experiment,
        2,
        lambda of: of.new + lam * temperature**2 * kl(of.z, of.taught, of.heads, temperature),
    )
    found = alone(experiment, lwf(temperature, teacher), 2, lam)
    assert error(found, expected) < 1e-10


@pytest.mark.parametrize("kind", ["noise", "permuted", "centring"])
def test_both_teachers_are_one(kind):
    """Also where seeds' tasks have different sizes, and the logits of all their examples are one table."""
    experiment = setting(kind, whole=True, dtype=torch.float32)
    lengths = {len(experiment.benchmark.curriculum(seed).tasks[2].rows) for seed in (1, 2, 3)}
    assert len(lengths) > 1 or kind == "permuted"
    by_task, by_step = (run(experiment, lwf(2.0, teacher), MIXED).params for teacher in ("task", "step"))
    assert error(by_task, by_step) < 1e-4
    assert error(by_task, run(experiment, finetune(), MIXED).params) > 1e-2


# --- dark experience ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.4], ids=["der", "der++"])
@pytest.mark.parametrize(
    ("policy", "size", "kind"), [("reservoir", 20, "class"), ("insert_all", 5, "task"), ("reservoir", 20, "noise")]
)
def test_a_run_of_der_is_the_plain_loop(policy, size, kind, beta):
    experiment, lam = setting(kind), 0.6
    expected = plain(
        kind,
        experiment,
        1,
        lambda of: of.new + lam * functional.mse_loss(of.z_old, of.stored) + beta * of.old,
        policy,
        size,
    )
    found = alone(experiment, der(MEMORIES[policy](size), beta), 1, lam)
    assert error(found, expected) < 1e-10


@pytest.mark.parametrize("policy", ["insert_all", "reservoir", "ring", "class_balanced"])
def test_stored_logits_are_those_of_the_step_in_which_an_example_was_stored(policy):
    """Watched: what the network said in training, dropout and all; what is recalled has exactly that as its target."""
    size, experiment, said, recalled = 15, setting("noise"), [], []
    net, memory = experiment.net, MEMORIES[policy](size)
    method = der(memory)

    def watched(params: Tree, buffers: Tree, x: Tensor, *, train: bool = False, **given: Any) -> tuple[Tensor, Tree]:
        z, buffers = net.apply(params, buffers, x, train=train, **given)
        if train:
            assert given["noise"].shape == (len(x), net.noise)
            said.append(z[:6].detach().clone())
        return z, buffers

    def loss(state: Any, step: Step) -> Tensor:
        recalled.append((len(said), step.recalled))
        return method.loss(state, step)

    watching = experiment._replace(net=net._replace(apply=watched))
    done = run(watching, method._replace(loss=loss), [Replica(4, 0.5, None)])
    assert len(said) == 21
    assert len(recalled) == 14
    assert done.stack.stored.shape == (1, size + 1, 10)
    everything = torch.cat(said)
    at_its_time = [(everything == z).all(1).nonzero()[:, 0].tolist() for z in done.stack.stored[0, :size]]
    assert all(len(found) == 1 for found in at_its_time)  # of one example of one step
    steps = [found[0] // 6 for found in at_its_time]
    assert len(set(steps)) > 3
    for number, of in recalled:
        before = torch.cat(said[: number - 1])
        assert all((before == z).all(1).sum() == 1 for z in of.target)


# --- what all have in common ----------------------------------------------------------------------------------------

METHODS: dict[str, Method] = {
    "replay": replay(end_of_task(30)),
    "replay-reservoir": replay(reservoir(5), "union"),
    "der": der(reservoir(20)),
    "der++": der(ring(20), 0.5),
    "lwf": lwf(),
    "lwf-step": lwf(1.0, "step"),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_stack_of_mixed_replicas_is_its_single_runs(name):
    """Seeds with tasks of different sizes, in no order; replicas of a seed have one noise."""
    experiment = setting("noise", whole=True)
    found = run(experiment, METHODS[name], [*MIXED, MIXED[0]])
    for i in (0, 2, 3):
        expected = run(experiment, METHODS[name], [MIXED[i]])
        assert error(single(found.params, i), expected.params) < 1e-10
        assert (found.outcomes[i].accuracy == expected.outcomes[0].accuracy).all()
    assert same(single(found.params, 0), single(found.params, 4))


NOTHING: dict[str, Method] = {
    **{f"replay-{policy}": replay(MEMORIES[policy](0)) for policy in MEMORIES},
    **{f"replay-{loss}": replay(reservoir(0), loss) for loss in LOSSES[1:]},
    "der": der(reservoir(0)),
    "der++": der(ring(0), 0.5),
}


def test_a_memory_of_nothing_is_finetune_bit_for_bit():
    experiment = setting("noise", dtype=torch.float32, iterations=3)
    for rows in (MIXED, MIXED[:1]):
        expected = run(experiment, finetune(), rows)
        for method in NOTHING.values():
            found = run(experiment, method, rows)
            assert same(found.params, expected.params)
            assert same(found.stack.buffers, expected.stack.buffers)
            assert found.stack.stored is None


@pytest.mark.parametrize(
    ("kind", "teacher"),
    [("domain", "step"), ("class", "task"), ("permuted", "task"), ("noise", "step")],
)
def test_distillation_without_weight_is_finetune_bit_for_bit(kind, teacher):
    experiment = setting(kind, dtype=torch.float32)
    rows = [replica._replace(lam=0.0) for replica in MIXED]
    for part in (rows, rows[:1]):
        found, expected = (run(experiment, of, part) for of in (lwf(2.0, teacher), finetune()))
        assert same(found.params, expected.params)
        assert same(found.stack.buffers, expected.stack.buffers)


@pytest.mark.parametrize("name", ["replay-reservoir", "der", "lwf"])
def test_a_shared_first_task_changes_nothing(name):
    """What stores logits shares none."""
    experiment = setting("task")
    trunks: dict[str, Trunk] = {}
    expected = run(experiment, METHODS[name], MIXED)
    for _ in range(2):  # the second time from the trunk
        found = run(experiment._replace(share_first_task=True), METHODS[name], MIXED, trunks)
        assert error(found.params, expected.params) < 1e-12
        assert len(trunks) == (not name.startswith("der"))


def test_what_is_recalled_leaves_the_noise_of_the_task_as_it_was():
    """So methods are paired in it; what is recalled has noise of its own."""

    def noises(method: Method) -> list[Tensor]:
        experiment, drawn = setting("noise"), []
        net = experiment.net

        def apply(*of: Any, train: bool = False, tap: Any = no_tap, noise: Tensor | None = None) -> tuple[Tensor, Tree]:
            if train:
                drawn.append(noise)
            return net.apply(*of, train=train, noise=noise)

        run(experiment._replace(net=net._replace(apply=apply)), method, MIXED[:1])
        return drawn

    expected = noises(finetune())
    for method in (METHODS["replay"], METHODS["der"], METHODS["lwf"]):
        found = noises(method)
        assert all(torch.equal(a[:6], b) for a, b in zip(found, expected, strict=True))
        if method.needs.memory:
            assert [len(a) for a in found] == [6] * 7 + [12] * 14
            assert all(not (a[:6] == a[6:]).any() for a in found[7:])


@pytest.mark.parametrize("name", METHODS)
def test_losses_are_pure_and_lift_to_replicas(name):
    method, generator = METHODS[name], torch.Generator().manual_seed(1)
    mask = masks([[0, 1, 2, 3], [2, 3, 4, 5]], 6)

    def examples(k: int, first: int) -> Examples:
        z, target = (torch.randn(k, 5, 6, generator=generator, dtype=torch.float64) for _ in range(2))
        return Examples(z, torch.randint(first, first + 4, (k, 5), generator=generator), mask[first // 2, None], target)

    batch, recalled = examples(3, 2), examples(3, 0)
    lams = torch.tensor([0.0, 0.5, 1e6], dtype=torch.float64)

    def value(lam: Tensor, z: Tensor, target: Tensor, z_old: Tensor, stored: Tensor, labels: Tensor) -> Tensor:
        state = method.init({}, lam)
        state = method.end_task(state, {}, {}) if method.end_task else state
        new = Examples(z, labels[0], mask[1].expand(5, 6), target)
        return method.loss(state, Step(new, Examples(z_old, labels[1], mask[0].expand(5, 6), stored), mask))

    labels = torch.stack([batch.label, recalled.label], 1)
    given = (lams, batch.z, batch.target, recalled.z, recalled.target, labels)
    copies = [t.clone() for t in given]
    found = torch.vmap(value)(*given)
    for k in range(3):
        one = value(*(t[k] for t in given))
        assert one == value(*(t[k] for t in given))
        assert found[k].item() == pytest.approx(one.item(), rel=1e-13)
    assert all(torch.equal(a, b) for a, b in zip(given, copies, strict=True))
    assert len(set(found.tolist())) == 3


# --- configuration --------------------------------------------------------------------------------------------------

TWO_STEPS = ("iterations=2", "seeds=[1]", "batch_size=8", "model.hidden=[6]")


def rows_of(folder: Path, *overrides: str) -> list[dict[str, Any]]:
    """The rows of runs.csv, computed in this process."""
    planned = study.plan(cli.arms(*TWO_STEPS, *overrides))
    workshop, source = worker.Workshop(lambda *_: None), provenance.Source("unknown", dirty=False)
    jobs = [Job(chunk, planned.arms, folder, planned.device, source) for chunk in planned.chunks]
    return [row for job in jobs for row in workshop.rows(job)["runs.csv"]]


@pytest.mark.parametrize("policy", MEMORIES)
def test_any_memory_goes_with_replay(policy):
    (arm,) = cli.arms("method=replay", f"memory@method.memory={policy}", "method.memory.size=20")
    assert {key: value for key, value in arm["method"]["memory"].items() if value is not None} == memory_node(
        policy, 20
    )
    built = build("method", arm["method"]).needs.memory
    assert (built.size, built.offer is None) == (20, policy == "end_of_task")


def memory_node(policy: str, size: Any) -> dict[str, Any]:
    return {"name": policy, "_target_": f"cl_repro.memory.{policy}", "size": size}


@pytest.mark.parametrize(("method", "shared"), [("replay", True), ("lwf", True), ("der_plus_plus", False)])
def test_two_steps_from_the_command_line(method, shared, tmp_path):
    """What stores logits shares no first task."""
    memory = [] if method == "lwf" else ["memory@method.memory=ring", "method.memory.size=20"]
    (row,) = rows_of(tmp_path, f"method={method}", *memory, "lam=1")
    assert (row["method"], row["status"], row["shared_first_task"]) == (method, "ok", shared)


@lru_cache
def composed(method: str) -> dict[str, Any]:
    return cli.arms(f"method={method}")[0]


def test_memories_and_their_sizes_are_different_configurations():
    def config_id(policy: str, size: int, **changes: Any) -> str:
        cfg = composed("replay")
        return make_arm(cfg | {"method": cfg["method"] | {"memory": memory_node(policy, size)} | changes}).config_id

    ids = [config_id(policy, 20) for policy in MEMORIES]
    ids += [config_id("ring", 21), config_id("ring", 20, loss="union")]
    assert len(set(ids)) == len(ids)
    assert config_id("ring", 20) == ids[2]


@pytest.mark.parametrize(
    ("method", "changes", "says"),
    [
        ("replay", {"memory": memory_node("ring", -1)}, "memory.size=-1: must be at least 0, in examples"),
        ("replay", {"memory": memory_node("ring", 2.5)}, "memory.size=2.5: must be of type int"),
        (
            "replay",
            {"memory": memory_node("ring", 2) | {"age": 1}},
            "memory.age: ring takes no such key; allowed: size",
        ),
        ("replay", {"memory": 5}, "memory=5: must be of type cl_repro.memory.Memory"),
        ("der", {"memory": None}, "memory=None: must be of type cl_repro.memory.Memory"),
        ("replay", {"loss": "x"}, "loss=x: must be one of balanced, equal, union"),
        ("lwf", {"temperature": 0}, "temperature=0: must be a finite number above 0"),
        ("lwf", {"temperature": math.inf}, "temperature=inf: must be a finite number"),
        ("lwf", {"teacher": "always"}, "teacher=always: must be task or step"),
        ("der", {"beta": -1}, "beta=-1: must be a finite number of at least 0"),
        (
            "der",
            {"memory": memory_node("end_of_task", 20)},
            "memory: der stores the logits of training, so the memory must be filled in training",
        ),
    ],
)
def test_bad_values_are_refused(method, changes, says):
    with pytest.raises(UserError) as caught:
        build("method", composed(method)["method"] | changes)
    assert str(caught.value) == f"method.{says}"


def test_a_bad_memory_is_one_line_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(monkeypatch, tmp_path, "method=replay", "method.memory.size=-1") == 2
    assert capfd.readouterr().err.splitlines() == ["error: method.memory.size=-1: must be at least 0, in examples"]
    assert list(tmp_path.rglob("*")) == []
