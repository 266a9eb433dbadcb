"""Convolutional networks: their architecture against torch.nn, their importances against the loop over examples."""

import os
import subprocess
import sys
from functools import lru_cache
from typing import Any, NamedTuple

import oracles
import pytest
import torch
from made_experiments import made_experiment
from made_passes import BATCHED, IMPLEMENTATIONS
from made_trees import error, same
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from benches.modules import ConvNet, SlimResNet18
from cl_repro.common import rng
from cl_repro.common.errors import UserError
from cl_repro.engine import boundary
from cl_repro.importance import fisher
from cl_repro.models import layers
from cl_repro.models.convnet import convnet
from cl_repro.models.layers import convolution, linear, no_tap
from cl_repro.models.slim_resnet18 import slim_resnet18
from cl_repro.types import Net, Tree

IMAGES = (3, 16, 16)  # at 16 x 16 the last stages have 4 and 1 positions: both forms of the squares
ACTIVE = [0, 2, 3]
N = 6


class Case(NamedTuple):
    """A network with weights and running statistics that keep its units alive, and some examples."""

    net: Net
    params: Tree
    buffers: Tree
    x: Tensor
    y: Tensor
    noise: Tensor

    @property
    def bound(self) -> Net:
        """The network with these buffers, for the oracles, which know none."""
        return Net(self.net.init, lambda params, _, x: self.net.apply(params, self.buffers, x))


@lru_cache
def case(name: str) -> Case:
    net = {
        "slim_resnet18": lambda: slim_resnet18(3, input_shape=IMAGES, n_outputs=5),
        "convnet": lambda: convnet([3, 4, 5, 6], [7], input_shape=IMAGES, n_outputs=5),
    }[name]()
    generator = rng.stream(1, "case")
    params, buffers = net.init(rng.stream(1, "init"))
    params = {k: p.double() + 0.1 * torch.randn(p.shape, generator=generator).double() for k, p in params.items()}
    buffers = {k: b.double() for k, b in buffers.items()}
    x = torch.randn(N, *IMAGES, generator=generator, dtype=torch.float64)
    for _ in range(30):
        buffers = net.apply(params, buffers, x, train=True)[1]
    y = torch.randint(0, len(ACTIVE), (N,), generator=generator)
    return Case(net, params, buffers, x, y, torch.rand(N, generator=generator, dtype=torch.float64))


NETS = ("slim_resnet18", "convnet")


# --- architecture ---------------------------------------------------------------------------------------------------


def test_parameters_per_stage_of_the_slim_resnet():
    """protocol: stem 600, stages 14,560, 51,600, 205,600, 820,800, head 1,610; 3,000 of normalisation."""
    params, buffers = slim_resnet18(20, input_shape=(3, 32, 32), n_outputs=10).init(rng.stream(1, "init"))
    found: dict[str, int] = {}
    for name, p in params.items():
        stage = name.split(".")[0]
        found[stage] = found.get(stage, 0) + p.numel()
    assert found == {
        "stem": 600,
        "stage1": 14_560,
        "stage2": 51_600,
        "stage3": 205_600,
        "stage4": 820_800,
        "head": 1_610,
    }
    assert sum(found.values()) == 1_094_770
    assert sum(p.numel() for name, p in params.items() if ".norm." in name) == 3_000
    assert sum(b.numel() for b in buffers.values()) == 3_000


def test_parameters_of_the_convnet():
    net = convnet([16, 32, 64, 128, 256], [2000, 2000], input_shape=(3, 32, 32), n_outputs=10)
    params, _ = net.init(rng.stream(1, "init"))
    assert sum(p.numel() for p in params.values()) == 6_465_098
    assert sum(p.numel() for name, p in params.items() if ".norm." in name) == 480
    assert params["fc1.weight"].shape == (2000, 1024)
    assert "conv5.norm.weight" not in params


@pytest.mark.parametrize("name", NETS)
def test_initial_weights_follow_the_default_law(name):
    """Uniform in +-1/sqrt(fan_in): the bound is nearly reached and never passed; gamma 1, beta 0."""
    net = {
        "slim_resnet18": slim_resnet18(20, input_shape=(3, 32, 32), n_outputs=10),
        "convnet": convnet([16, 32, 64, 128, 256], [200], input_shape=(3, 32, 32), n_outputs=10),
    }[name]
    params, buffers = net.init(rng.stream(1, "init"))
    for key, p in params.items():
        if ".norm." in key:
            assert (p == (1.0 if key.endswith("weight") else 0.0)).all()
        else:
            weight = params[key.rsplit(".", 1)[0] + ".weight"]
            bound = weight[0].numel() ** -0.5
            assert p.abs().max() <= bound
            if p.numel() > 500:
                assert p.abs().max() > 0.98 * bound
                assert p.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
    for key, b in buffers.items():
        assert (b == (1.0 if key.endswith("var") else 0.0)).all()


MODULES = {
    "slim_resnet18": lambda: SlimResNet18(3, n_outputs=5),
    "convnet": lambda: ConvNet([3, 4, 5, 6], [7], side=16, n_outputs=5),
}


@pytest.mark.parametrize("name", NETS)
def test_function_and_statistics_are_those_of_torch_modules(name):
    """In training and in evaluation; parameters are matched by their order, which both write from input to output."""
    of, module = case(name), MODULES[name]().double()
    own = list(module.parameters())
    assert [p.shape for p in own] == [p.shape for p in of.params.values()]
    with torch.no_grad():
        for target, p in zip(own, of.params.values(), strict=True):
            target.copy_(p)
        statistics = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
        for m, key in zip(statistics, means(of.buffers), strict=True):
            m.running_mean.copy_(of.buffers[f"{key}.mean"])
            m.running_var.copy_(of.buffers[f"{key}.var"])
        before = {k: b.clone() for k, b in of.buffers.items()}
        assert torch.allclose(of.net.apply(of.params, of.buffers, of.x)[0], module.eval()(of.x), rtol=1e-12, atol=1e-12)
        z, after = of.net.apply(of.params, of.buffers, of.x, train=True)
        assert torch.allclose(z, module.train()(of.x), rtol=1e-12, atol=1e-12)
    for m, key in zip(statistics, means(of.buffers), strict=True):
        assert torch.allclose(after[f"{key}.mean"], m.running_mean, rtol=1e-12, atol=1e-14)
        assert torch.allclose(after[f"{key}.var"], m.running_var, rtol=1e-12, atol=1e-14)
    assert same(of.buffers, before)  # nobody changed what came in
    assert after.keys() == of.buffers.keys()


def means(buffers: Tree) -> list[str]:
    """The normalisations, in order."""
    return [key.removesuffix(".mean") for key in buffers if key.endswith(".mean")]


# --- importances ----------------------------------------------------------------------------------------------------


def labelled(of: Case, labels: list[int]) -> Tree:
    return oracles.labelled(of.bound, of.params, of.x, labels, ACTIVE)


ORACLES = {
    "exact": lambda of: oracles.exact(of.bound, of.params, of.x, ACTIVE),
    "sample": lambda of: labelled(of, oracles.drawn_labels(of.bound, of.params, of.x, of.noise.tolist(), ACTIVE)),
    "empirical": lambda of: labelled(of, of.y.tolist()),
    "predicted": lambda of: labelled(of, oracles.predicted_labels(of.bound, of.params, of.x, ACTIVE)),
}


@lru_cache
def oracle(name: str, label: str) -> Tree:
    return ORACLES[label](case(name))


def measured(of: Case, estimator: Any) -> Tree:
    return estimator.sum(of.net, of.params, of.buffers, of.x, of.y, of.noise, torch.tensor(ACTIVE))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("label", ORACLES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_estimator_is_the_loop_over_examples(implementation, label, name):
    assert error(measured(case(name), IMPLEMENTATIONS[implementation][label]()), oracle(name, label)) < 1e-12


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("implementation", BATCHED)
def test_batched_is_the_loop_over_batches(implementation, name):
    of = case(name)
    expected = oracles.batched(of.bound, of.params, of.x, of.y.tolist(), ACTIVE, N, "mean")
    assert error(measured(of, BATCHED[implementation](N)), expected) < 1e-12


@pytest.mark.parametrize("name", NETS)
def test_squares_do_not_depend_on_how_many_examples_are_held(name, monkeypatch):
    of = case(name)
    whole = measured(of, fisher.exact())
    monkeypatch.setattr(layers, "HELD", {"cpu": 1})
    monkeypatch.setattr(layers, "PAIRS_PAY", 0)
    assert error(measured(of, fisher.exact()), whole) < 1e-12
    monkeypatch.setattr(layers, "PAIRS_PAY", 64)
    assert error(measured(of, fisher.exact()), whole) < 1e-12


@pytest.mark.parametrize("name", NETS)
def test_running_statistics_stay_as_they_are_in_a_pass_and_matter(name):
    of = case(name)
    before = {k: b.clone() for k, b in of.buffers.items()}
    found = measured(of, fisher.exact())
    assert same(of.buffers, before)
    other = of._replace(buffers={k: 2 * b for k, b in of.buffers.items()})
    assert error(measured(other, fisher.exact()), found) > 1e-2


def test_the_bias_of_the_stem_has_importance_though_training_never_moves_it_much():
    """protocol: running statistics are constants of the pass, so a bias before a normalisation counts."""
    assert (measured(case("slim_resnet18"), fisher.exact())["stem.bias"] > 0).all()


@pytest.mark.parametrize("name", NETS)
def test_replicas_of_a_stack_are_what_they_are_alone(name):
    """Forward, new statistics and importances under vmap."""
    of, scales = case(name), [1.0, 1.02, 0.97]
    params = {k: torch.stack([s * p for s in scales]) for k, p in of.params.items()}
    buffers = {k: torch.stack([s * b for s in scales]) for k, b in of.buffers.items()}
    active = torch.tensor(ACTIVE)

    def both(p: Tree, b: Tree) -> tuple[Tensor, Tree, Tree]:
        z, after = of.net.apply(p, b, of.x, train=True)
        return z, after, fisher.exact().sum(of.net, p, b, of.x, of.y, of.noise, active)

    z, after, squares = torch.vmap(both)(params, buffers)
    for k in range(len(scales)):
        alone = both({n: p[k] for n, p in params.items()}, {n: b[k] for n, b in buffers.items()})
        assert torch.allclose(z[k], alone[0], rtol=1e-10, atol=1e-12)
        assert error({n: v[k] for n, v in after.items()}, alone[1]) < 1e-10
        assert error({n: v[k] for n, v in squares.items()}, alone[2]) < 1e-9


# --- a fault of oneDNN under AVX2 ------------------------------------------------------------------------------------


class Convolutions(TorchDispatchMode):
    """Notes kernel and stride of every convolution that torch computes, backwards ones too."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default):
            backward = func is torch.ops.aten.convolution_backward.default
            weight, stride = (args[2], args[4]) if backward else (args[1], args[3])
            self.seen.append(("backward" if backward else "forward", weight.shape[-1], max(stride)))
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("channels", [2, 4, 20])
def test_no_1x1_convolution_has_a_stride(channels):
    """Forwards and backwards: those of stride 2, channels last, write out of bounds (see `layers.convolution`)."""
    net = slim_resnet18(channels, input_shape=IMAGES, n_outputs=5)
    params, buffers = net.init(rng.stream(1, "init"))
    with Convolutions() as found:
        torch.func.grad(lambda p: net.apply(p, buffers, torch.ones(2, *IMAGES), train=True)[0].sum())(params)
    assert {(way, kernel) for way, kernel, _ in found.seen} == {(w, k) for w in ("forward", "backward") for k in (1, 3)}
    assert {stride for _, kernel, stride in found.seen if kernel == 1} == {1}
    assert {stride for _, kernel, stride in found.seen if kernel == 3} == {1, 2}


@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (1, 1), (2, 0), (3, 1)])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_convolution_is_that_of_torch(stride, kernel, padding):
    """Values and gradients, images of odd and even sides."""
    generator = rng.stream(1, "convolution")
    a = torch.randn(2, 3, 7, 8, generator=generator, dtype=torch.float64)
    params = {"c.weight": torch.randn(4, 3, kernel, kernel, generator=generator, dtype=torch.float64)}
    params["c.bias"] = torch.randn(4, generator=generator, dtype=torch.float64)

    def own(a: Tensor, p: Tree) -> Tensor:
        return convolution(p, "c", a, stride=stride, padding=padding).tanh().sum()

    def torchs(a: Tensor, p: Tree) -> Tensor:
        return functional.conv2d(a, p["c.weight"], p["c.bias"], stride=stride, padding=padding).tanh().sum()

    found, expected = (torch.func.grad_and_value(f, argnums=(0, 1))(a, params) for f in (own, torchs))
    assert torch.allclose(found[1], expected[1], rtol=1e-12)
    assert torch.allclose(found[0][0], expected[0][0], rtol=1e-12, atol=1e-14)
    assert error(found[0][1], expected[0][1]) < 1e-12


AVX2 = """
import gc, torch
from cl_repro.common import rng
from cl_repro.models.slim_resnet18 import slim_resnet18

torch.set_num_threads(1)
kept = []
for channels in (2, 3, 4, 5, 6, 7):
    net = slim_resnet18(channels, input_shape=(3, 32, 32), n_outputs=2)
    params, buffers = net.init(rng.stream(1, "init"))
    for _ in range(4):
        x = torch.randn(8, 3, 32, 32)
        torch.func.grad(lambda p: net.apply(p, buffers, x, train=True)[0].square().sum())(params)
        kept = [*kept, [torch.empty(n + 1) for n in range(40)]][-3:]  # blocks of memory to write into
gc.collect()
print("ok")
"""


@pytest.mark.slow
def test_few_channels_train_on_a_processor_with_avx2():
    """Made to be one by oneDNN's own variable; a stride left to conv2d ends this process by a signal."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", AVX2], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


# --- what must be refused -------------------------------------------------------------------------------------------


def tiny(after: Any) -> tuple[Net, Tree, Tensor]:
    """A convolution, whatever `after` does with its output and input, and a head."""

    def apply(params: Tree, buffers: Tree, x: Tensor, *, train: bool = False, tap: Any = no_tap) -> tuple[Tensor, Tree]:
        a = x * 1.0
        z = after(params, convolution(params, "conv", a, tap, padding=1), a, tap)
        return linear(params, "head", z.mean((2, 3)), tap), buffers

    generator = rng.stream(1, "init")
    params = layers.init_convolution("conv", 2, 2, 3, generator, bias=False)
    params |= layers.init_linear("head", 2, 3, generator)
    return Net(lambda g: (params, {}), apply), params, torch.randn(4, 2, 5, 5, generator=generator)


def squares_of(net: Net, params: Tree, x: Tensor) -> Tree:
    y, noise = torch.zeros(len(x), dtype=torch.int64), torch.rand(len(x), dtype=torch.float64)
    return fisher.exact().sum(net, params, {}, x, y, noise, torch.arange(3))


def test_an_activation_in_place_on_a_layers_output_is_harmless():
    net, params, x = tiny(lambda params, z, a, tap: z.relu_())
    plain, *_ = tiny(lambda params, z, a, tap: z.relu())
    assert same(squares_of(net, params, x), squares_of(plain, params, x))


def test_a_change_in_place_of_a_layers_input_is_refused_by_name():
    net, params, x = tiny(lambda params, z, a, tap: z + a.relu_())
    with pytest.raises(ValueError, match="'conv' is changed in place"):
        squares_of(net, params, x)


def test_a_convolution_applied_twice_is_refused_by_name():
    net, params, x = tiny(lambda params, z, a, tap: convolution(params, "conv", z, tap, padding=1))
    with pytest.raises(ValueError, match="'conv' is applied twice"):
        squares_of(net, params, x)


def test_a_layer_that_cannot_be_measured_is_named_with_what_still_works():
    net, params, x = tiny(lambda params, z, a, tap: functional.prelu(z, params["slope"]))
    params = params | {"slope": torch.full((2,), 0.25)}
    with pytest.raises(ValueError, match=r"\['slope'\]; fisher=batched and fisher=one_sample/\.\.\. measure any"):
        squares_of(net, params, x)
    y, noise, active = torch.zeros(4, dtype=torch.int64), torch.rand(4, dtype=torch.float64), torch.arange(3)
    for estimator in (IMPLEMENTATIONS["one_sample"]["exact"](), BATCHED["layer_wise"](4)):
        assert (estimator.sum(net, params, {}, x, y, noise, active)["slope"] > 0).any()


# --- memory ---------------------------------------------------------------------------------------------------------


def test_out_of_memory_goes_on_with_half_as_many_examples_and_says_so(capsys):
    experiment = made_experiment(rows_per_pass=100)
    params, _ = experiment.net.init(rng.stream(1, "init"))
    stacked = {name: p.double()[None] for name, p in params.items()}
    sizes: list[int] = []
    roomy = fisher.exact()

    def cramped(net: Net, p: Tree, b: Tree, x: Tensor, *rest: Tensor) -> Tree:
        sizes.append(len(x))
        if len(x) > 30:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return roomy.sum(net, p, b, x, *rest)

    expected = boundary.estimate(experiment, stacked, {}, roomy, 1, 0)
    found = boundary.estimate(experiment, stacked, {}, roomy._replace(sum=cramped), 1, 0)
    assert error(found, expected) < 1e-12
    assert sizes[:3] == [100, 50, 25]
    assert max(sizes[3:]) == 25
    assert capsys.readouterr().err.splitlines() == [
        "out of memory on cpu: going on with 50 examples per pass",
        "out of memory on cpu: going on with 25 examples per pass",
    ]


@pytest.mark.parametrize(("batch_size", "tried"), [(None, 1), (32, 32)])
def test_out_of_memory_with_nothing_to_halve_is_one_line(batch_size, tried):
    """A fixed batch size is part of what the batched estimator is."""
    experiment = made_experiment(rows_per_pass=4)
    params, _ = experiment.net.init(rng.stream(1, "init"))

    def full(*_: Any) -> Tree:
        raise torch.OutOfMemoryError("CUDA out of memory")

    estimator = fisher.exact()._replace(sum=full, batch_size=batch_size)
    with pytest.raises(UserError, match=f"out of memory on cpu with {tried} examples per pass"):
        boundary.estimate(experiment, {n: p.double()[None] for n, p in params.items()}, {}, estimator, 1, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: slim_resnet18(0, input_shape=IMAGES, n_outputs=2),
            "model.channels=0: must be an integer of at least 1",
        ),
        (
            lambda: slim_resnet18(4, input_shape=(64,), n_outputs=2),
            "model=slim_resnet18: needs images [colours, height, width], not [64]",
        ),
        (
            lambda: convnet([], [3], input_shape=IMAGES, n_outputs=2),
            "model.channels=[]: must list layer sizes of at least 1",
        ),
        (
            lambda: convnet([4], [0], input_shape=IMAGES, n_outputs=2),
            "model.hidden=[0]: must list layer sizes of at least 1",
        ),
        (
            lambda: convnet([4], [3], input_shape=(8, 8), n_outputs=2),
            "model=convnet: needs images [colours, height, width], not [8, 8]",
        ),
    ],
)
def test_bad_sizes_are_refused_in_one_line(make, message):
    with pytest.raises(UserError) as caught:
        make()
    assert str(caught.value) == message
