"""The CIFAR network of Benzing (2022): its function, its dropout, and what the engine does with both."""

import math
from functools import lru_cache, partial
from itertools import product
from typing import Any

import oracles
import pytest
import torch
from made_experiments import digits, made_experiment
from made_trees import error, same, single
from torch import Tensor, nn
from torch.nn import functional

from cl_repro import engine
from cl_repro.common import rng
from cl_repro.common.errors import UserError
from cl_repro.engine import Experiment, Replica, Stack, lifecycle
from cl_repro.engine.stack import redraw, start
from cl_repro.importance import fisher
from cl_repro.models.keras_cnn import keras_cnn
from cl_repro.types import Benchmark, Method, Needs, Net, Tree

PAPER = {"input_shape": (3, 32, 32), "n_outputs": 60}
HEAD = {"head.weight", "head.bias"}
CHANNELS, UNITS, RATES, N = (3, 4), 6, (0.25, 0.25, 0.5), 5
TRUNK = {f"{layer}.{kind}" for layer in ("conv1", "conv2", "conv3", "conv4", "fc1") for kind in ("weight", "bias")}


def total(params: Tree) -> int:
    return sum(p.numel() for p in params.values())


def small(padding: str = "same", **changes: Any) -> tuple[Net, Tree, Tensor]:
    """A narrow network, weights that leave no unit dead, and images of 12 x 12."""
    given = {"channels": CHANNELS, "units": UNITS, "dropout": RATES, "padding": padding, **changes}
    net = keras_cnn(**given, input_shape=(3, 12, 12), n_outputs=6)
    generator = rng.stream(1, "case")
    params, buffers = net.init(generator)
    assert buffers == {}
    params = {k: p.double() + 0.1 * torch.randn(p.shape, generator=generator).double() for k, p in params.items()}
    params |= {k: p + 0.3 for k, p in params.items() if k.endswith("bias")}
    return net, params, torch.rand(N, 3, 12, 12, generator=generator, dtype=torch.float64)


# --- architecture ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("padding", "flat", "trunk", "noise"), [("same", 4096, 2_163_232, 12_800), ("valid", 2304, 1_245_728, 10_016)]
)
def test_parameters_and_noise_at_the_papers_width(padding, flat, trunk, noise):
    net = keras_cnn(padding=padding, head_fan_out=10, **PAPER)
    params, _ = net.init(rng.stream(1, "init"))
    assert params["fc1.weight"].shape == (512, flat)
    assert net.unprotected == HEAD
    assert params.keys() - HEAD == TRUNK
    assert total({name: params[name] for name in TRUNK}) == trunk
    assert total(params) == trunk + 6 * 5130
    assert net.noise == noise


def test_initial_weights_follow_glorot_and_a_head_is_one_tasks_own():
    """Bounds: protocol; nearly reached and never passed."""
    bounds = {"conv1": 0.138013, "conv2": 0.102062, "conv3": 0.083333, "conv4": 0.072169, "fc1": 0.036084}
    params, _ = keras_cnn(head_fan_out=10, **PAPER).init(rng.stream(1, "init"))
    for layer, bound in (bounds | {"head": 0.107211}).items():
        weight = params[f"{layer}.weight"]
        assert 0.98 * bound < weight.abs().max() < bound + 1e-6
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
        assert (params[f"{layer}.bias"] == 0).all()
    alone, _ = keras_cnn(**PAPER).init(rng.stream(1, "init"))
    assert alone["head.weight"].abs().max() < math.sqrt(6 / (512 + 60))
    assert same({k: alone[k] for k in TRUNK}, {k: params[k] for k in TRUNK})


def stages(params: Tree, padding: str) -> list[nn.Module]:
    """The network as usual code writes it, cut where dropout belongs; channels come first where it flattens."""
    last = padding == "same"
    side = 3 if last else 1
    weight = params["fc1.weight"].unflatten(1, (side, side, CHANNELS[-1])).permute(0, 3, 1, 2).flatten(1)
    modules = nn.ModuleList(
        [
            nn.Sequential(
                nn.Conv2d(3, 3, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(3, 3, 3, padding=padding),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ),
            nn.Sequential(
                nn.Conv2d(3, 4, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(4, 4, 3, padding=padding),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ),
            nn.Sequential(nn.Flatten(), nn.Linear(4 * side * side, UNITS), nn.ReLU()),
            nn.Linear(UNITS, 6),
        ]
    ).double()
    with torch.no_grad():
        for own, (name, p) in zip(modules.parameters(), params.items(), strict=True):
            own.copy_(weight if name == "fc1.weight" else p)
    return list(modules)


def plain(parts: list[nn.Module], x: Tensor, masks: list[Tensor] | None = None) -> Tensor:
    """Through the stages, the activations after each but the last times a mask."""
    for i, part in enumerate(parts):
        x = part(x)
        if masks and i < len(masks):
            x = x * masks[i]
    return x


def gradients(z: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Of a loss that weighs all logits differently."""
    weights = torch.linspace(-1, 1, z.numel(), dtype=z.dtype).view_as(z)
    return list(torch.autograd.grad((weights * z.log_softmax(1)).sum(), leaves))


def assert_equal_function(z: Tensor, params: Tree, expected: Tensor, parts: list[nn.Module]) -> None:
    """Same logits, same gradients."""
    assert torch.allclose(z, expected, rtol=1e-12, atol=1e-13)
    found = dict(zip(params, gradients(z, list(params.values())), strict=True))
    of_modules = dict(zip(params, gradients(expected, list(nn.ModuleList(parts).parameters())), strict=True))
    shape = (UNITS, CHANNELS[-1], int((found["fc1.weight"].shape[1] / CHANNELS[-1]) ** 0.5), -1)
    of_modules["fc1.weight"] = of_modules["fc1.weight"].view(shape).permute(0, 2, 3, 1).flatten(1)
    assert error(found, of_modules) < 1e-11


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_function_and_gradients_are_those_of_torch_modules(padding):
    net, params, x = small(padding)
    leaves = {name: p.requires_grad_() for name, p in params.items()}
    parts = stages(params, padding)
    assert_equal_function(net.apply(leaves, {}, x)[0], leaves, plain(parts, x), parts)


# --- dropout --------------------------------------------------------------------------------------------------------


def drawn(net: Net, seed: int = 3) -> Tensor:
    return torch.rand(N, net.noise, generator=rng.stream(seed, "noise"), dtype=torch.float64)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("rates", [RATES, (0.1, 0.0, 0.7)])
def test_dropout_is_a_mask_of_single_activations_scaled_up(padding, rates):
    """Noise is read block by block, in each by row, column and channel; a rate of zero reads none."""
    net, params, x = small(padding, dropout=rates)
    leaves = {name: p.requires_grad_() for name, p in params.items()}
    noise, parts = drawn(net), stages(params, padding)
    a, masks, first = x, [], 0
    for part, rate in zip(parts, rates, strict=False):
        a = part(a)
        mask = torch.ones_like(a)
        for place in product(*map(range, a.shape[-2:] if a.ndim == 4 else ())) if rate else ():
            for channel in range(a.shape[1]):
                mask[:, channel, *place] = torch.where(noise[:, first] < rate, 0.0, 1.0).double() / (1 - rate)
                first += 1
        masks.append(mask)
    assert first == net.noise
    z, _ = net.apply(leaves, {}, x, train=True, noise=noise)
    assert_equal_function(z, leaves, plain(parts, x, masks), parts)
    assert (z - net.apply(leaves, {}, x)[0]).abs().max() > 0.1


@pytest.mark.parametrize("rate", [0.25, 0.5])
def test_dropout_is_unbiased(rate):
    """Behind the last layer that drops everything is linear: the mean over all masks is the network without any."""
    net, params, x = small(units=3, dropout=(0.0, 0.0, rate))
    params["fc1.weight"] = params["fc1.weight"].abs()  # no unit is dead, so that there are eight networks
    quarters = torch.tensor(list(product([0.1, 0.3, 0.6, 0.9], repeat=3)), dtype=torch.float64)
    assert quarters.shape == (64, net.noise)
    z, _ = net.apply(params, {}, x[:1].expand(64, -1, -1, -1), train=True, noise=quarters)
    expected, _ = net.apply(params, {}, x[:1])
    assert torch.allclose(z.mean(0), expected[0], rtol=1e-12, atol=1e-13)
    assert len(z.unique(dim=0)) == 8


def test_there_is_no_dropout_outside_training_nor_without_noise():
    net, params, x = small()
    evaluated, _ = net.apply(params, {}, x)
    assert torch.equal(net.apply(params, {}, x, noise=drawn(net))[0], evaluated)
    assert torch.equal(net.apply(params, {}, x, train=True)[0], evaluated)
    assert not torch.allclose(net.apply(params, {}, x, train=True, noise=drawn(net))[0], evaluated)
    assert small(dropout=(0.0, 0.0, 0.0))[0].noise == 0


# --- in the engine --------------------------------------------------------------------------------------------------


@lru_cache
def images() -> Benchmark:
    """Split digits, as images of one colour."""
    plain_digits = digits()
    return plain_digits._replace(x=plain_digits.x[:, None], x_test=plain_digits.x_test[:, None])


def made(**changes: Any) -> Experiment:
    """The small experiment, with the network under test; six steps a task."""
    net = keras_cnn(CHANNELS, UNITS, RATES, head_fan_out=2, input_shape=(1, 8, 8), n_outputs=10)
    return made_experiment(benchmark=images(), **({"net": net, "iterations": 6} | changes))


def learned(experiment: Experiment, seeds: list[int], tasks: int = 2) -> Tree:
    stack = start(experiment, seeds)
    for task in range(tasks):
        lifecycle.learn(experiment, stack, task, Method(), None)
    return stack.params


def test_training_is_reproducible_and_paired_over_the_replicas_of_a_seed():
    """To the last bit where the stack is the same, else to rounding; the noise of a seed is nobody else's."""
    alone = learned(made(), [1])
    assert same(learned(made(), [1]), alone)
    stacked = learned(made(), [1, 1, 1])
    mixed = learned(made(), [2, 1, 3])
    for k in range(3):
        assert error(single(stacked, k), alone) < 1e-11
    assert error(single(mixed, 1), alone) < 1e-11
    assert error(single(mixed, 0), learned(made(), [2])) < 1e-11
    undropped = made()
    undropped = undropped._replace(net=undropped.net._replace(noise=0))
    assert error(learned(undropped, [1]), alone) > 1e-2


def seen_noise(seed: int) -> list[Tensor]:
    """What the network is given in two tasks of three steps."""
    experiment, found = made(iterations=3), []

    def apply(params: Tree, buffers: Tree, x: Tensor, noise: Tensor, **given: Any) -> tuple[Tensor, Tree]:
        found.append(noise)
        return raw(params, buffers, x, noise=noise, **given)

    raw = experiment.net.apply
    learned(experiment._replace(net=experiment.net._replace(apply=apply)), [seed])
    return found


def test_noise_is_uniform_and_differs_between_steps_tasks_and_seeds():
    found = seen_noise(1) + seen_noise(2)
    assert len(found) == 12
    for noise in found:
        assert noise.shape == (16, made().net.noise)
        assert noise.min() >= 0
        assert noise.max() < 1
    values = torch.stack(found).flatten()
    assert len(values.unique()) == len(values)
    counts = values.histc(10, 0, 1)
    assert (counts - counts.mean()).abs().max() < 5 * counts.mean().sqrt()


def task_gradient(experiment: Experiment, seed: int, stream: str, noise: Tensor | None) -> Tree:
    """Of the first batch of a stream at the initial weights, by plain autograd; with dropout if there is noise."""
    params, _ = experiment.net.init(rng.stream(seed, "init"))
    leaves = {name: p.double().requires_grad_() for name, p in params.items()}
    curriculum = experiment.benchmark.curriculum(seed)
    rows = curriculum.tasks[0].rows
    rows = rows[rng.batches(rng.stream(seed, stream, 0), len(rows), 16, 1)[0]]
    x = experiment.benchmark.x[rows].double() / 16
    given = {"train": True, "noise": noise} if noise is not None else {}
    z = experiment.net.apply(leaves, {}, x, **given)[0][:, list(curriculum.tasks[0].classes)]
    label = torch.tensor([sorted(curriculum.tasks[0].classes).index(c) for c in curriculum.y[rows].tolist()])
    found = torch.autograd.grad(functional.cross_entropy(z, label), list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


def test_a_step_is_with_dropout_and_what_a_method_observes_is_without():
    """One step of plain descent, so that its gradient can be read off the weights."""
    experiment, seeds = made(iterations=1, optimiser=partial(torch.optim.SGD, lr=1.0)), [1, 2, 4]
    watch = Method(
        init=lambda params, lam: lam,
        observe=lambda state, seen, change: (seen["batch"], seen["independent"], change),
        penalty_grad=lambda state, params: {name: state * p for name, p in params.items()},
        needs=Needs(from_start=True, gradients=("batch", "independent")),
    )
    lam = torch.full((3,), 0.5, dtype=torch.float64)
    stack = start(experiment, seeds)
    before = {name: p.clone() for name, p in stack.params.items()}
    batch, independent, change = lifecycle.learn(experiment, stack, 0, watch, lam)
    assert batch.keys() == independent.keys() == change.keys() == TRUNK
    for k, seed in enumerate(seeds):
        noise = torch.rand(16, experiment.net.noise, generator=rng.stream(seed, "noise", 0), dtype=torch.float64)
        stepped = task_gradient(experiment, seed, "order", noise)
        expected = task_gradient(experiment, seed, "order", None)
        other = task_gradient(experiment, seed, "independent", None)
        for name in TRUNK:
            pulled = stepped[name] + 0.5 * before[name][k]
            assert torch.allclose(change[name][k], -pulled, rtol=1e-9, atol=1e-13)
            assert torch.allclose(batch[name][k], expected[name], rtol=1e-9, atol=1e-13)
            assert torch.allclose(independent[name][k], other[name], rtol=1e-9, atol=1e-13)
        for name in HEAD:  # trained, and not pulled
            assert torch.allclose(before[name][k] - stack.params[name][k], stepped[name], rtol=1e-9, atol=1e-13)
        assert error(stepped, expected) > 1e-2


def test_reinitialisation_leaves_the_heads_as_they_are():
    experiment = made(reinit=True)
    stack = start(experiment, [1, 2])
    for p in stack.params.values():
        p.add_(1)
    before = {name: p.clone() for name, p in stack.params.items()}
    redraw(experiment, stack, 3)
    for k, seed in enumerate((1, 2)):
        fresh, _ = experiment.net.init(rng.stream(seed, "init", 3))
        assert same({n: stack.params[n][k] for n in TRUNK}, {n: fresh[n].double() for n in TRUNK})
    assert same({n: stack.params[n] for n in HEAD}, {n: before[n] for n in HEAD})


def test_methods_and_importances_know_the_trunk_only():
    seen: list[set[str]] = []

    def note(*trees: Tree) -> None:
        seen.extend(set(t) for t in trees)

    method = Method(
        init=lambda params, lam: note(params) or (lam,),
        start_task=lambda state, params: note(params) or state,
        penalty_grad=lambda state, params: note(params) or params,
        end_task=lambda state, params, importance: note(params, importance) or state,
        observe=lambda state, gradients, change: note(gradients["batch"], change) or state,
        needs=Needs(gradients=("batch",)),
    )
    engine.train(made(iterations=1, reinit=True), method, [Replica(1, 1.0, fisher.empirical())], {})
    assert len(seen) == 1 + 5 + 4 + 4 * 2 + 5 * 2
    assert all(names == TRUNK for names in seen)


def test_the_penalty_pulls_no_head():
    """One step after which the trunk differs with lambda, and the head does not."""
    experiment = made(iterations=1, optimiser=partial(torch.optim.SGD, lr=1e-2))
    pull = lambda state, params: {name: state * p for name, p in params.items()}  # noqa: E731
    method = Method(penalty_grad=pull, needs=Needs(from_start=True))
    stacks: list[Stack] = []
    for lam in (0.0, 10.0):
        stacks.append(start(experiment, [1]))
        lifecycle.learn(experiment, stacks[-1], 0, method, torch.tensor([lam], dtype=torch.float64))
    free, pulled = (stack.params for stack in stacks)
    assert all(torch.equal(free[name], pulled[name]) for name in HEAD)
    assert all(not torch.equal(free[name], pulled[name]) for name in TRUNK if name.endswith("weight"))


def test_importances_are_the_loop_over_examples_without_dropout_of_every_layer_but_the_head():
    experiment = made()
    stack = start(experiment, [1])
    lifecycle.learn(experiment, stack, 0, Method(), None)
    curriculum = experiment.benchmark.curriculum(1)
    rows, active = curriculum.tasks[0].rows, list(curriculum.tasks[0].classes)
    thin = experiment.benchmark._replace(
        curriculum=lambda seed: curriculum._replace(tasks=(curriculum.tasks[0]._replace(rows=rows[:N]),))
    )
    experiment = experiment._replace(benchmark=thin)
    x = experiment.benchmark.x[rows[:N]].double() / 16
    params = {name: p[0] for name, p in stack.params.items()}
    expected = oracles.exact(experiment.net, params, x, active)
    found = engine.measure(experiment, stack, 0, [fisher.exact()])
    assert found.keys() == TRUNK
    assert error({n: v[0] for n, v in found.items()}, {n: expected[n] / N for n in TRUNK}) < 1e-12


# --- what must be refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"channels": []}, "model.channels=[]: must list layer sizes of at least 1"),
        ({"channels": [3, 0]}, "model.channels=[3, 0]: must list layer sizes of at least 1"),
        ({"units": 0}, "model.units=0: must be at least 1"),
        ({"head_fan_out": 0}, "model.head_fan_out=0: must be at least 1"),
        ({"padding": "full"}, "model.padding=full: must be one of same, valid"),
        (
            {"dropout": [0.5, 1.0, 0.5]},
            "model.dropout=[0.5, 1.0, 0.5]: must list 3 rates of at least 0 and below 1, "
            "one for each block and one for the hidden layer",
        ),
        (
            {"dropout": [0.5, 0.5]},
            "model.dropout=[0.5, 0.5]: must list 3 rates of at least 0 and below 1, "
            "one for each block and one for the hidden layer",
        ),
        ({"input_shape": (8, 8)}, "model=keras_cnn: needs images [colours, height, width], not [8, 8]"),
        ({"input_shape": (3, 3, 32)}, "model=keras_cnn: 2 blocks leave nothing of images [3, 3, 32]"),
        (
            {"input_shape": (3, 8, 8), "padding": "valid"},
            "model=keras_cnn: 2 blocks leave nothing of images [3, 8, 8]",
        ),
    ],
)
def test_bad_arguments_are_refused_in_one_line(given, message):
    with pytest.raises(UserError) as caught:
        keras_cnn(**(PAPER | given))
    assert str(caught.value) == message
