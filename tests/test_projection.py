"""Projected gradients: bases against plain linear algebra, and what is promised of the outputs of earlier tasks."""

import math
from functools import partial

import cli
import numpy as np
import pytest
import torch
from made_experiments import digits, made_experiment, run, thinned
from made_trees import error, same, single
from torch import Tensor
from torch.nn import functional

from cl_repro.benchmarks import scenarios
from cl_repro.common import rng
from cl_repro.common.errors import UserError
from cl_repro.engine import Experiment, Replica, check
from cl_repro.engine.boundary import inspected, together
from cl_repro.engine.lifecycle import learn
from cl_repro.engine.stack import active_mask, start
from cl_repro.methods.baselines import finetune
from cl_repro.methods.gpm import across, gpm, grown, layer_inputs
from cl_repro.methods.ogd import flat, ogd, orthonormal, shaped
from cl_repro.models.layers import convolution, init_convolution, init_linear, linear, linear_sums, no_tap
from cl_repro.study import study
from cl_repro.types import Layer, Method, Net, Tree

SGD = partial(torch.optim.SGD, lr=0.05)
SCENARIOS = {"task": scenarios.task, "domain": scenarios.domain, "class": scenarios.class_}


def setting(scenario: str = "task", dtype: torch.dtype = torch.float64, **changes) -> Experiment:
    made = made_experiment(thinned(digits(5, dtype), 40), SCENARIOS[scenario](), (9, 7), dtype, batch_size=8)
    return made._replace(optimiser=SGD, reset_optimiser=True, **changes)


def learned(experiment: Experiment, method: Method, seed: int, tasks: int):
    """Stack and state after some tasks, as the engine makes them."""
    stack, one = start(experiment, [seed]), torch.tensor(1.0, dtype=experiment.dtype)
    state = None
    for task in range(tasks):
        state = learn(experiment, stack, task, method, state)
        state = state or method.init(experiment.protected(single_params(stack.params)), one)
        state = inspected(experiment, stack, task, method, state)
    return stack, state


def single_params(params: Tree) -> Tree:
    return {name: p[0] for name, p in params.items()}


def examples(experiment: Experiment, seed: int, task: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Those that a method inspects: inputs, labels, active logits."""
    curriculum = experiment.benchmark.curriculum(seed)
    own = curriculum.tasks[task]
    rows = own.rows[torch.randperm(len(own.rows), generator=rng.stream(seed, "inspect", task))[:n]]
    x = experiment.benchmark.to_input(experiment.benchmark.x[rows])
    return x, experiment.scenario.label(curriculum.y[rows], own), active_mask(experiment, curriculum, task, task)


# --- orthogonal gradient descent -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_basis_is_orthonormal_spans_its_rows_and_leaves_out_what_it_has(dtype):
    rows = torch.randn(12, 200, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    dependent = torch.cat([rows, rows[:4] + rows[4:8], torch.zeros(1, 200, dtype=dtype)])
    basis = orthonormal(rows[:5].mT.contiguous(), dependent)
    tolerance = 1e3 * torch.finfo(dtype).eps
    assert basis.shape == (200, 12)
    assert (basis.mT @ basis - torch.eye(12, dtype=dtype)).abs().max() < tolerance
    assert (rows - (rows @ basis) @ basis.mT).abs().max() < tolerance * rows.abs().max()


def test_gradients_that_are_nearly_alike_all_count_and_become_orthonormal():
    """Apart by a thousandth, in float32: projected once, they stay a tenth away from orthogonal."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(1, 200, generator=generator) + 1e-3 * torch.randn(12, 200, generator=generator)
    basis = orthonormal(torch.zeros(200, 0), rows)
    assert basis.shape == (200, 12)
    assert (basis.mT @ basis - torch.eye(12)).abs().max() < 1e-5


def gradients(experiment: Experiment, params: Tree, x: Tensor, label: Tensor, active: Tensor, variant: str) -> Tensor:
    """One row per example, by plain autograd."""
    rows = []
    for n in range(len(x)):
        leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
        z = experiment.net.apply(leaves, {}, x[n : n + 1])[0][0]
        value = z[label[n]] if variant == "gtl" else z[active].mean()
        grads = torch.autograd.grad(value, list(leaves.values()))
        rows.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(rows)


@pytest.mark.parametrize("variant", ["gtl", "ave"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_space_is_that_of_the_gradients_of_outputs_of_earlier_examples(scenario, variant):
    experiment, method = setting(scenario), ogd(6, variant)
    stack = start(experiment, [2])
    state = learn(experiment, stack, 0, method, None)
    state = method.init(single_params(stack.params), torch.tensor(1.0))
    expected = []
    for task in range(2):
        if task:
            learn(experiment, stack, task, method, state)
        expected.append(gradients(experiment, single_params(stack.params), *examples(experiment, 2, task, 6), variant))
        state = inspected(experiment, stack, task, method, state)
    rows = torch.cat(expected)
    _, s, v = np.linalg.svd(rows.numpy(), full_matrices=False)
    rank = int((s > 1e-8 * s[0]).sum())
    assert state.basis.shape[1] == rank
    difference = state.basis @ state.basis.mT - torch.from_numpy(v[:rank].T @ v[:rank])
    assert difference.abs().max() < 1e-6


def test_a_projected_gradient_is_orthogonal_to_the_basis_to_1e6_in_float32():
    experiment, method = setting(dtype=torch.float32), ogd(20)
    _, state = learned(experiment, method, 1, 3)
    grads = {name: torch.randn_like(p) for name, p in single_params(start(experiment, [1]).params).items()}
    projected = flat(method.project(state, grads))
    assert (state.basis.mT @ projected).abs().max() < 1e-6 * flat(grads).norm()
    assert same(shaped(flat(grads), grads), grads)


def test_steps_leave_logits_of_stored_examples_as_they_are_to_first_order():
    """Halving the step quarters what is left; without the projection it halves."""
    method, base = ogd(8), setting(iterations=1)
    moved = {}
    for lr in (1e-3, 5e-4):
        experiment = base._replace(optimiser=partial(torch.optim.SGD, lr=lr))
        for name, chosen in (("ogd", method), ("finetune", finetune())):
            stack, state = learned(base, method, 1, 1)
            x, label, _ = examples(base, 1, 0, 8)
            before = base.net.apply(single_params(stack.params), {}, x)[0][range(8), label]
            learn(experiment, stack, 1, chosen, state if chosen is method else None)
            after = base.net.apply(single_params(stack.params), {}, x)[0][range(8), label]
            moved[name, lr] = (after - before).abs().max()
    assert moved["ogd", 1e-3] / moved["ogd", 5e-4] == pytest.approx(4, rel=0.1)
    assert moved["finetune", 1e-3] / moved["finetune", 5e-4] == pytest.approx(2, rel=0.1)
    assert moved["ogd", 1e-3] < 1e-2 * moved["finetune", 1e-3]


@pytest.mark.parametrize("method", [ogd(0), gpm(1e-12, n=1)], ids=["ogd", "gpm"])
@pytest.mark.parametrize("rows", [[1], [3, 1]])
def test_without_a_basis_it_is_finetune_bit_for_bit(method, rows, monkeypatch):
    monkeypatch.setattr("cl_repro.methods.gpm.grown", lambda m, r, threshold: m)
    experiment, replicas = setting(dtype=torch.float32), [Replica(seed, 0.0, None) for seed in rows]
    assert same(run(experiment, method, replicas).params, run(experiment, finetune(), replicas).params)


# --- gradient projection memory --------------------------------------------------------------------------------------


def plain_grown(m: np.ndarray, r: np.ndarray, threshold: float) -> np.ndarray:
    """Vector by vector, until enough of the inputs' squared norm is spanned."""
    total = np.linalg.norm(r) ** 2
    rest = r - r @ m @ m.T
    directions = list(np.linalg.svd(rest, full_matrices=False)[2])
    while np.linalg.norm(r @ m) ** 2 < threshold * total and directions:
        m = np.concatenate([m, directions.pop(0)[:, None]], 1)
    return m


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.99, 1.0])
def test_a_basis_grows_by_the_fewest_directions_that_span_enough(threshold):
    generator = torch.Generator().manual_seed(4)
    scale = torch.logspace(0, -3, 15, dtype=torch.float64)
    first, second = (torch.randn(40, 15, generator=generator, dtype=torch.float64) * scale for _ in range(2))
    second = second @ torch.linalg.qr(torch.randn(15, 15, generator=generator, dtype=torch.float64))[0]
    second = first + second  # some of which is spanned already: it counts
    m, expected = torch.zeros(15, 0, dtype=torch.float64), np.zeros((15, 0))
    for r in (first, second):
        m, expected = grown(m, r, threshold), plain_grown(expected, r.numpy(), threshold * (1 - 1e-13))
        assert m.shape == expected.shape
        assert (m @ m.mT - torch.from_numpy(expected @ expected.T)).abs().max() < 1e-9
        assert (m.mT @ m - torch.eye(m.shape[1])).abs().max() < 1e-9
    assert grown(m, second, threshold).shape == m.shape  # spanned already


@pytest.mark.parametrize("increase", [0.0, 0.003])
@pytest.mark.parametrize(("width", "n", "rank", "decades"), [(60, 80, 60, 6), (60, 30, 20, 1), (100, 30, 100, 4)])
def test_a_basis_in_float32_stays_orthonormal_and_has_no_more_columns_than_the_inputs_have_dimensions(
    width, n, rank, decades, increase
):
    """Where everything is to be spanned, directions of M's rounding are not: 1 - M M^T has no eigenvalue below 0."""
    generator = torch.Generator().manual_seed(3)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    scale, axes = torch.logspace(0, -decades, rank, dtype=torch.float64), torch.linalg.qr(draw(width, rank))[0]
    m = torch.zeros(width, 0)
    for task in range(12):
        r = ((draw(n, rank) @ torch.linalg.qr(draw(rank, rank))[0] * scale) @ axes.mT).float()
        m = grown(m, r, min(1.0, 0.97 + increase * task) if increase else 1.0)
        basis = m.double()
        assert (basis.mT @ basis - torch.eye(m.shape[1])).abs().max() < 1e-5
        left = torch.linalg.eigvalsh(torch.eye(width) - basis @ basis.mT)
        assert left.min() > -1e-5
        assert left.max() < 1 + 1e-5
        assert increase or (r - (r @ m) @ m.mT).norm() < 1e-4 * r.norm()
        assert m.shape[1] <= rank
    assert decades > 1 or m.shape[1] == rank


def test_the_threshold_of_each_layer_grows_with_the_tasks_learned_up_to_1(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "cl_repro.methods.gpm.grown", lambda m, r, threshold: asked.append(threshold) or grown(m, r, threshold)
    )
    learned(setting(iterations=1), gpm([0.5, 0.6, 0.95], increase=0.1, n=12), 1, 3)
    assert asked == pytest.approx([0.5, 0.6, 0.95, 0.6, 0.7, 1.0, 0.7, 0.8, 1.0])


def test_parameters_that_no_layer_input_is_multiplied_with_stay():
    params = {"c.weight": torch.ones(2, 3, 1, 1), "c.norm.weight": torch.ones(2), "c.norm.bias": torch.ones(2)}
    params |= {"head.weight": torch.ones(2, 2), "head.bias": torch.ones(2)}
    method, grads = gpm(), {name: torch.full_like(p, 3.0) for name, p in params.items()}
    found = method.project(method.init(params, torch.tensor(1.0)), grads)
    stays = {name: torch.zeros_like(g) for name, g in grads.items() if ".norm." in name}
    assert same(found, grads | stays)  # the basis is empty


def joined(of: Tree, layer: str) -> Tensor:
    """Weight and bias of a layer as [out, in]."""
    return torch.cat([of[f"{layer}.weight"].flatten(1), of[f"{layer}.bias"][:, None]], 1)


@pytest.mark.parametrize("rows", [None, torch.tensor([1.0, 0, 1, 1, 0]).double()])
@pytest.mark.parametrize("bias", [True, False])
def test_a_gradient_is_projected_on_the_side_of_the_inputs(bias, rows):
    """Of a convolution of 3 channels with a kernel of 2 by 2, five outputs."""
    generator = torch.Generator().manual_seed(2)
    m = torch.linalg.qr(torch.randn(12 + bias, 4, generator=generator, dtype=torch.float64))[0]
    grads = {"c.weight": torch.randn(5, 3, 2, 2, generator=generator, dtype=torch.float64)}
    g = grads["c.weight"].flatten(1)
    if bias:
        grads["c.bias"] = torch.randn(5, generator=generator, dtype=torch.float64)
        g = joined(grads, "c")
    expected = g - (torch.eye(5).double() if rows is None else torch.diag(rows)) @ g @ m @ m.T
    found = across(grads, "c", m, rows)
    assert found.keys() == grads.keys()
    assert (found["c.weight"].flatten(1) - expected[:, :12]).abs().max() < 1e-14
    assert not bias or (found["c.bias"] - expected[:, 12]).abs().max() < 1e-14


def test_a_layer_is_its_weight_times_what_it_sees():
    """For convolutions, too: outputs as rows of positions."""
    experiment = setting()
    params = {name: p.double() for name, p in experiment.net.init(torch.Generator().manual_seed(1))[0].items()}
    x = torch.rand(6, 8, 8, dtype=torch.float64)
    rows = layer_inputs(experiment.net, params, {}, x)
    assert list(rows) == ["fc1", "fc2", "head"]
    z = rows["head"] @ joined(params, "head").mT
    assert (z - experiment.net.apply(params, {}, x)[0]).abs().max() < 1e-12
    assert (rows["fc2"][:, :-1] - (rows["fc1"] @ joined(params, "fc1").mT).relu()).abs().max() < 1e-12


def test_what_a_convolution_sees_gives_its_outputs():
    drawn = init_convolution("c", 3, 5, 3, torch.Generator().manual_seed(1), bias=True)
    params = {name: p.double() for name, p in drawn.items()}
    a, caught = torch.rand(4, 3, 7, 7, dtype=torch.float64), []
    z = convolution(params, "c", a, lambda name, layer, a, z: caught.append(layer.sees(a)) or z, stride=2, padding=1)
    rows = torch.cat([caught[0], caught[0].new_ones(len(caught[0]), 1)], 1) @ joined(params, "c").mT
    assert (rows - z.flatten(2).mT.flatten(0, 1)).abs().max() < 1e-12


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_step_leaves_layer_outputs_of_what_is_spanned_as_they_are(scenario):
    """With everything spanned, no output of the first task's examples moves; new outputs of the head are free."""
    experiment, method = setting(scenario), gpm(1.0, n=4)
    stack, state = learned(experiment, method, 1, 1)
    x, _, active = examples(experiment, 1, 0, 4)
    before = single_params({name: p.clone() for name, p in stack.params.items()})
    learn(experiment, stack, 1, method, state)
    after = single_params(stack.params)
    old, new = (experiment.net.apply(of, {}, x)[0][:, active] for of in (before, after))
    assert (new - old).abs().max() < 1e-10
    free = finetuned(experiment, before)
    if scenario != "domain":
        fresh = sorted(set(experiment.benchmark.curriculum(1).tasks[1].classes))
        assert (after["head.weight"][fresh] - before["head.weight"][fresh]).abs().max() > 1e-3
    assert error(after, before) > 1e-3
    assert (experiment.net.apply(free, {}, x)[0][:, active] - old).abs().max() > 1e-3


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_is_the_projected_gradient_and_orthogonal_to_1e6_in_float32(scenario, dtype):
    """Of layers whose gradients are made of projected inputs, and of the head, whose own is projected."""
    experiment, method = setting(scenario, dtype, iterations=1), gpm(0.9, n=12)
    experiment = experiment._replace(
        optimiser=partial(torch.optim.SGD, lr=50.0)
    )  # beside which weights' ends are small
    stack, state = learned(setting(scenario, dtype), method, 1, 1)
    before = single_params({name: p.clone() for name, p in stack.params.items()})
    free = finetuned(experiment, before)
    learn(experiment, stack, 1, method, state)
    after = single_params(stack.params)
    for layer, m in state.basis.items():
        change, plain = (joined(of, layer) - joined(before, layer) for of in (after, free))
        rows = state.used[:, None] if layer == "head" else 1
        tolerance = (1e-6 if dtype == torch.float32 else 1e-14) * plain.norm()
        assert 0 < m.shape[1] < m.shape[0]
        assert (change - (plain - rows * ((plain @ m) @ m.mT))).abs().max() < tolerance
        assert (rows * (change @ m)).abs().max() < tolerance
        assert change.norm() > 0


def of_its_own(bias: bool) -> Net:
    """A layer as `linear`, of a kind that this network made, and a head."""
    kind = Layer(linear_sums, lambda a: a)

    def init(generator: torch.Generator) -> tuple[Tree, Tree]:
        layers = init_linear("fc1", 64, 5, generator) | init_linear("head", 5, 10, generator)
        return {name: p for name, p in layers.items() if bias or name != "fc1.bias"}, {}

    def apply(params: Tree, buffers: Tree, x: Tensor, *, train: bool = False, tap=no_tap) -> tuple[Tensor, Tree]:
        a = x.flatten(1)
        z = tap("fc1", kind, a, functional.linear(a, params["fc1.weight"], params.get("fc1.bias")))
        return linear(params, "head", z.relu(), tap), buffers

    return Net(init, apply)


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_whose_inputs_would_not_be_projected_is_refused(bias):
    experiment = setting(iterations=2)._replace(net=of_its_own(bias))
    told = "layer 'fc1' is of a kind of its own: must be models.layers.linear"
    with pytest.raises(UserError, match=f"method=gpm with model=own: {told}"):
        check(experiment, gpm(n=4), [1], {"method": "gpm", "optim": "sgd", "model": "own"})
    with pytest.raises(UserError, match=told):
        run(experiment, gpm(n=4), [Replica(1, 0.0, None)])
    check(experiment, ogd(4), [1], {"method": "ogd", "optim": "sgd", "model": "own"})


def test_a_head_that_a_network_leaves_unprotected_is_free():
    """As that of keras_cnn and vgg: heads of tasks are trained alone, and the layers below are projected as ever."""
    experiment, method = setting("task"), gpm(0.9, n=12)
    free = experiment._replace(net=experiment.net._replace(unprotected=frozenset({"head.weight", "head.bias"})))
    found, expected, plain = (
        run(one, of, [Replica(1, 1.0, None)]).params
        for one, of in ((free, method), (experiment, method), (experiment, finetune()))
    )
    assert error(found, expected) < 1e-12
    assert error(plain, expected) > 1e-3


def test_ogd_too_leaves_an_unprotected_head_free():
    """Its space is that of the other parameters' gradients: a step of the head is the plain one, theirs is not."""
    experiment, method, head = setting("task", iterations=1), ogd(6), frozenset({"head.weight", "head.bias"})
    experiment = experiment._replace(net=experiment.net._replace(unprotected=head))
    stack, state = learned(experiment, method, 1, 1)
    plain = finetuned(experiment, single_params(stack.params))
    learn(experiment, stack, 1, method, state)
    moved = {name: error({name: p}, {name: plain[name]}) for name, p in single_params(stack.params).items()}
    assert all(moved[name] < 1e-14 if name in head else moved[name] > 1e-3 for name in moved)


def finetuned(experiment: Experiment, params: Tree) -> Tree:
    """These weights after the second task without a projection."""
    stack = start(experiment, [1])
    for name, p in stack.params.items():
        p.copy_(params[name][None])
    learn(experiment, stack, 1, finetune(), None)
    return single_params(stack.params)


# --- both ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [partial(ogd, 6), partial(gpm, 0.9, n=12)], ids=["ogd", "gpm"])
def test_replicas_of_a_stack_are_the_singles_though_their_bases_differ_in_size(make):
    experiment, rows = setting("class"), [Replica(seed, 0.0, None) for seed in (2, 1, 2)]
    together_ = run(experiment, make(), rows)
    for i, row in enumerate(rows):
        alone = run(experiment, make(), [row])
        assert error(single(together_.params, i), single(alone.params, 0)) < 1e-8
        assert (together_.outcomes[i].accuracy == alone.outcomes[0].accuracy).all()
        assert together_.outcomes[i].storage["state"] == alone.outcomes[0].storage["state"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("make", [partial(ogd, 30), partial(gpm, 0.99, n=40)], ids=["ogd", "gpm"])
def test_earlier_tasks_are_remembered(make):
    experiment = setting(iterations=150)
    rows = [Replica(seed, 0.0, None) for seed in (1, 2, 3)]
    plain, kept = (
        np.mean([o.accuracy[-1][:4] for o in run(experiment, m, rows).outcomes]) for m in (finetune(), make())
    )
    assert kept > plain + 0.03


def test_bases_of_several_sizes_are_filled_with_zeros():
    filled = together((torch.ones(4, 2), torch.ones(4, 5)))
    assert filled.shape == (2, 4, 5)
    assert filled[0].tolist() == [[1, 1, 0, 0, 0]] * 4
    assert together((torch.tensor(1.0), torch.tensor(2.0))).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (partial(ogd, -1), "method.n=-1: must be at least 0"),
        (partial(ogd, 5, "all"), "method.variant=all: must be gtl or ave"),
        (partial(ogd, 5, most_bytes=math.inf), "method.most_bytes=inf: must be a finite"),
        (partial(gpm, 0.0), "method.threshold=0.0: must be above 0 and at most 1"),
        (partial(gpm, [0.9, 1.1]), "method.threshold="),
        (partial(gpm, increase=-0.1), "method.increase=-0.1"),
    ],
)
def test_values_that_mean_nothing_are_refused(make, told):
    with pytest.raises(UserError, match=told.replace("[", r"\[")):
        make()


@pytest.mark.parametrize(
    ("method", "told"),
    [
        (ogd(10, most_bytes=1e4), "the basis would take"),
        (gpm([0.9, 0.9], n=4), "must be one, or one for each of fc1, fc2, head"),
        (gpm(n=41), "method.n=41: must be at most the 40 examples of task 0 of seed 1"),
    ],
)
def test_what_a_run_cannot_do_is_refused(method, told):
    with pytest.raises(UserError, match=told):
        run(setting(iterations=2), method, [Replica(1, 0.0, None)])


@pytest.mark.parametrize("method", ["ogd", "gpm"])
@pytest.mark.parametrize(
    ("choices", "fine"),
    [
        (["optim=sgd"], True),
        (["optim=sgd_momentum"], True),
        (["optim=adam"], False),
        (["optim=adam_reset"], False),
        (["optim=sgd_momentum", "optim.reset=false"], False),
        (["optim=sgd", "+optim.weight_decay=0.01"], False),
    ],
)
def test_optimisers_that_leave_the_space_are_refused_before_training(method, choices, fine):
    arms = cli.arms(f"method={method}", "method.n=10", "seeds=[1]", "batch_size=8", *choices)
    if fine:
        assert len(study.plan(arms).chunks) == 1
        return
    with pytest.raises(UserError, match=f"method={method} with optim=.*: needs SGD without weight decay"):
        study.plan(arms)
