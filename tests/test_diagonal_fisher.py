"""The diagonal Fisher of modules that users write, against one example at a time; and what must be refused."""

import copy
import inspect
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from types import MethodType

import pytest
import torch
from made_trees import error, same
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.module import register_module_full_backward_hook
from torch.nn.utils import parametrizations, prune
from torch.utils.data import TensorDataset

from cl_repro.benchmarks.data.torchvision_shim import prepare_torchvision
from cl_repro.common.errors import UserError
from cl_repro.importance import batched as suite_batched
from cl_repro.importance import columns, diagonal_fisher, fisher, library, quadratic_penalty
from cl_repro.importance.by_score import inclusion_probabilities
from cl_repro.importance.importance_sample import importance_sample
from cl_repro.importance.library import rules, ways
from cl_repro.importance.library.arguments import BY_SCORE, DRAWN
from cl_repro.importance.library.untouched import evaluated
from cl_repro.importance.library.ways import EXAMPLE, LAYER, SINGLE
from cl_repro.models.mlp import mlp
from cl_repro.types import Tree

C = 4
LABELLED = ("sample", "empirical", "predicted")

# --- the oracle: float64, one example and one label at a time --------------------------------------------------------


def gradients(model: nn.Module, x: Tensor, active: list[int]) -> tuple[list[Tree], list[float]]:
    """The gradient of log p(label | x) of ONE example for each active label, and the probabilities."""
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    z = model(x[None].clone())[0]
    log_p = torch.stack([z[i] for i in active]).log_softmax(0)
    found = []
    for value in log_p.unbind():
        grads = torch.autograd.grad(value, list(params.values()), retain_graph=True, allow_unused=True)
        zeros = [torch.zeros_like(p) if g is None else g for p, g in zip(params.values(), grads, strict=True)]
        found.append(dict(zip(params, zeros, strict=True)))
    return found, log_p.detach().exp().tolist()


def oracle(
    model: nn.Module, x: Tensor, y: Tensor, estimator: str, active: list[int] | None = None, b: int | None = None
) -> Tree:
    """The mean over examples, or mini-batches of b, in float64 and eval mode."""
    if next(model.parameters()).dtype != torch.float64:
        model = copy.deepcopy(model).double()
    model.eval()
    x = x.double() if x.is_floating_point() else x
    active = active or list(range(model(x[:2].clone()).shape[1]))
    noise = torch.rand(len(x), generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    parts: list[tuple[float, Tree]] = []
    for i in range(len(x)):
        of_label, p = gradients(model, x[i], active)
        if estimator == "exact":
            parts += zip(p, of_label, strict=True)
            continue
        drawn = next((k for k in range(len(p)) if noise[i] < sum(p[: k + 1])), len(p) - 1)
        label = {"sample": drawn, "predicted": p.index(max(p))}.get(estimator)
        parts.append((1.0, of_label[active.index(int(y[i])) if label is None else label]))
    if b:
        batches = [[g for _, g in parts[i : i + b]] for i in range(0, len(parts), b)]
        parts = [(1.0, {name: torch.stack([g[name] for g in part]).mean(0) for name in part[0]}) for part in batches]
    return {name: sum(w * g[name].square() for w, g in parts) / (len(parts) if b else len(x)) for name in parts[0][1]}


# --- models ----------------------------------------------------------------------------------------------------------


def layers(*made: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*copy.deepcopy(made))


class Block(nn.Module):
    """The basic block of ResNets, with BatchNorm and in-place ReLU and addition."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after, eps=1e-3)
        self.relu = nn.ReLU(inplace=True)
        self.down = None
        if before != after:
            self.down = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        a = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        a += x if self.down is None else self.down(x)
        return self.relu(a)


def narrow_resnet18() -> nn.Module:
    widths = [3, 4, 6, 8]
    blocks = []
    for before, after in zip([3, *widths], widths, strict=False):
        blocks += [Block(before, after, 1 if before == after else 2), Block(after, after, 1)]
    stem = [nn.Conv2d(3, 3, 3, 1, 1), nn.BatchNorm2d(3), nn.ReLU(inplace=True)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(8, C))


class Positions(nn.Module):
    """A Linear and norms on [N, positions, features], ids, attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 6, padding_idx=0)
        self.block = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
        self.norm = nn.LayerNorm((5, 6))
        self.head = nn.Linear(6, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.block(self.embed(x)))).mean(1)


class Made(nn.Module):
    """Two layers and what a forward function makes of them."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)
        self.head = nn.Linear(6, C)
        self.scale = nn.Parameter(torch.linspace(0.5, 2, 6))
        self.made = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.made(self, x)


def tied() -> nn.Module:
    model = Made(lambda m, x: m.head(m.other(m.fc(x).tanh()).tanh()))
    model.other = nn.Linear(6, 6)
    model.other.weight = model.fc.weight
    return model


def hooked(kind: str) -> nn.Module:
    model = Made(lambda m, x: m.head(m.fc(x).tanh()))
    if kind == "output":
        model.fc.register_forward_hook(lambda module, args, out: 3 * out)
    elif kind == "input":
        model.fc.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    elif kind == "forward":
        model.fc.forward = MethodType(lambda fc, a: functional.linear(a.sin(), fc.weight, fc.bias), model.fc)
    elif kind == "parametrised":
        parametrizations.weight_norm(model.fc)
    else:
        prune.random_unstructured(model.fc, "weight", 0.5)
    return model


class ById(nn.Module):
    """Keeps its parameter in a list as well, and uses that: torch.func.functional_call does not reach it."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, C)
        self.w = nn.Parameter(torch.randn(6, 6))
        self.kept = [self.w]

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x @ self.kept[0]).tanh())


def shared(deep: bool) -> nn.Module:
    """One module under two names, at one depth or at two."""
    w = nn.Linear(6, 6)
    return nn.Sequential(nn.Sequential(w, nn.Tanh()) if deep else w, nn.Tanh(), w, nn.Linear(6, C))


class Repeated(nn.Module):
    """A list of the same layer, which holds a parameter that another module holds too."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 6)] * 3)
        self.norm = nn.LayerNorm(6)
        self.norm.bias = self.layers[0].bias
        self.head = nn.Linear(6, C)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.norm(layer(x).tanh())
        return self.head(x)


class Recurrent(nn.Module):
    """Reads an example as a sequence of three."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cell = kind(2, 4, batch_first=True)
        self.head = nn.Linear(4, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x.view(len(x), 3, 2))[0][:, -1])


def adapted() -> nn.Module:
    """A frozen layer with an adapter of low rank."""
    model = Made(lambda m, x: m.head((m.fc(x) + m.up(m.down(x))).tanh()))
    model.fc.requires_grad_(False)
    model.scale.requires_grad_(False)
    model.down, model.up = nn.Linear(6, 2, bias=False), nn.Linear(2, 6, bias=False)
    return model


def skips() -> nn.Module:
    """As a U-Net joins what it had before."""
    model = Made(lambda m, x: m.head(m.up(torch.cat([a := m.fc(x).relu(), m.down(a).relu()], 1))))
    model.down, model.up = nn.Linear(6, 3), nn.Linear(9, 6)
    return model


class Patches(nn.Module):
    """A block of a vision transformer, with a class token and positions of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.position = nn.Parameter(torch.randn(1, 5, 8))
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, C)

    def forward(self, x: Tensor) -> Tensor:
        a = self.patch(x).flatten(2).mT
        a = torch.cat([self.token.expand(len(x), -1, -1), a], 1) + self.position
        b = self.norm(a)
        return self.head((a + self.attention(b, b, b, need_weights=False)[0])[:, 0])


def depthwise() -> nn.Module:
    """The block of MobileNetV2."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 1, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU6(inplace=True),
        nn.Conv2d(12, 12, 3, 1, 1, groups=12, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU6(inplace=True),
        nn.Conv2d(12, 5, 1, bias=False),
        nn.BatchNorm2d(5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, C),
    )


class Language(nn.Module):
    """The last layer's weight is that of the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 6)
        self.fc = nn.Linear(6, 6)
        self.head = nn.Linear(6, 9, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.fc(self.embed(x).mean(1)).tanh())


def sometimes(m: Made, x: Tensor) -> Tensor:
    """Uses a weight a second time, of examples that do not come first."""
    a = m.fc(x).tanh()
    late = (x[:, :1] > 1).float()
    return m.head(a + late * functional.linear(a, m.fc.weight) if bool(late.any()) else a)


VECTORS = {
    "linear": layers(nn.Linear(6, C)),
    "mlp": layers(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 7, bias=False), nn.Tanh(), nn.Linear(7, C)),
    "batch_norm_1d": layers(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Linear(8, C)),
    "layer_norm": layers(nn.Linear(6, 8), nn.LayerNorm(8, eps=1e-2), nn.ReLU(), nn.Linear(8, C)),
    "in_place_after": lambda: Made(lambda m, x: m.head(m.fc(x).mul_(2).relu_())),
    "changes_its_input": lambda: Made(lambda m, x: m.head(m.fc(x.mul_(2)).tanh())),
    "keyword": lambda: Made(lambda m, x: m.head(input=m.fc(input=x).tanh())),
    "prelu": layers(nn.Linear(6, 8), nn.PReLU(8), nn.Linear(8, C)),
    "unused": lambda: Made(lambda m, x: (m.fc(x), m.head(x))[1]),
    "raw_parameter": lambda: Made(lambda m, x: m.head(m.fc(x).tanh() * m.scale)),
    "functional": lambda: Made(lambda m, x: functional.linear(x * m.scale, m.head.weight)),
    "functional_too": lambda: Made(lambda m, x: m.head(m.fc(x).tanh() + functional.linear(x, m.fc.weight).sin())),
    "functional_for_it": lambda: Made(lambda m, x: (m.fc(x), m.head(functional.linear(x, m.fc.weight).tanh()))[1]),
    "called_twice": lambda: Made(lambda m, x: m.head(m.fc(m.fc(x).tanh()))),
    "turned": lambda: Made(lambda m, x: m.head(m.fc(x.view(len(x), 3, 2).repeat(1, 1, 3).transpose(0, 1))).mean(0)),
    "folded": lambda: Made(lambda m, x: m.head(m.fc(x.repeat_interleave(3, 0)).tanh()).view(len(x), 3, C).mean(1)),
    "by_value": lambda: Made(lambda m, x: m.head(m.fc(x).tanh() if bool((x.abs() < 99).all()) else x)),
    "sometimes": lambda: Made(sometimes),
    "tied": tied,
    "in_a_list": ById,
    "scripted": lambda: torch.jit.script(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, C))),
    "shared": lambda: shared(deep=False),
    "shared_deep": lambda: shared(deep=True),
    "repeated": Repeated,
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "adapted": adapted,
    "skips": skips,
    "spectral": lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(6, 8)), nn.Tanh(), nn.Linear(8, C)),
    "orthogonal": lambda: nn.Sequential(parametrizations.orthogonal(nn.Linear(6, 6)), nn.Tanh(), nn.Linear(6, C)),
    "old_spectral": lambda: nn.Sequential(nn.utils.spectral_norm(nn.Linear(6, 8)), nn.Tanh(), nn.Linear(8, C)),
    **{f"hooked_{kind}": lambda kind=kind: hooked(kind) for kind in ("output", "input", "forward")},
    "parametrised": lambda: hooked("parametrised"),
    "pruned": lambda: hooked("pruned"),
}
IMAGES = {
    "plain": layers(nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(80, C)),
    "odd": layers(
        nn.Conv2d(3, 4, (3, 2), (2, 1), (0, 1), (1, 2)),
        nn.GroupNorm(2, 4, eps=0.1),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 6, 2, groups=2),
        nn.Conv2d(6, 6, (1, 2), groups=6, bias=False),
        nn.Flatten(2),
        nn.Conv1d(6, 4, 3, 2, 1, 2, groups=2),
        nn.BatchNorm1d(4),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(4, C),
    ),
    "without_a_rule": layers(
        nn.Conv2d(3, 4, 3, padding="same"),
        nn.Tanh(),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Tanh(),
        nn.InstanceNorm2d(4, affine=True),
        nn.ConvTranspose2d(4, 3, 2),
        nn.Flatten(),
        nn.Linear(243, C),
    ),
    "resnet18": narrow_resnet18,
    "depthwise": depthwise,
    "patches": Patches,
}
IDS = {"positions": Positions, "language": Language}
MODELS = VECTORS | IMAGES | IDS


def made(name: str, n: int = 7, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor, Tensor]:
    """A model that has opinions, its BatchNorm statistics and gains not those it began with; examples; labels."""
    torch.manual_seed(5)
    model = MODELS[name]().to(dtype)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
    x = torch.randn(n, 6, dtype=dtype) if name in VECTORS else torch.randn(n, 3, 8, 8, dtype=dtype)
    x = torch.randint(0, 9, (n, 5)) if name in IDS else x
    if name == "sometimes":
        x[:, 0] = torch.arange(n) - 2.5
    return model, x, torch.randint(0, C, (n,))


def ways_of(name: str) -> dict[str, str]:
    """How the library measures each parameter of a made model."""
    model, x, _ = made(name)
    with evaluated(model):
        return ways.ways(model, x[:2], None).of


# --- right -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*one example at a time")
@pytest.mark.parametrize("name", MODELS)
def test_exact_is_that_of_one_example_at_a_time(name):
    model, x, y = made(name)
    before, as_it_was = x.clone(), state(model)
    found = diagonal_fisher(model, (x, y), chunk=3)
    assert torch.equal(x, before)
    assert state(model) == as_it_was
    assert list(found) == [key for key, p in model.named_parameters() if p.requires_grad]
    assert error(found, oracle(model, x, y, "exact")) < 1e-10


@pytest.mark.parametrize("estimator", LABELLED)
@pytest.mark.parametrize("name", ["mlp", "raw_parameter", "resnet18"])
def test_estimators_differ_in_the_label_only(name, estimator):
    model, x, y = made(name)
    found = diagonal_fisher(model, (x, y), estimator)
    assert error(found, oracle(model, x, y, estimator)) < 1e-10
    assert error(found, oracle(model, x, y, "exact")) > 1e-2


@pytest.mark.parametrize("name", ["mlp", "raw_parameter", "lstm", "resnet18"])
@pytest.mark.filterwarnings("ignore:.*one example at a time")
def test_one_importance_sampled_label_of_two_is_exact(name):
    """Whatever is drawn: LAYER, EXAMPLE, SINGLE."""
    model, x, y = made(name)
    y = torch.where(y % 2 == 0, 1, 3)
    expected = oracle(model, x, y, "exact", [1, 3])
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        found = diagonal_fisher(model, (x, y), "importance_sample", active=[1, 3], generator=generator)
        assert error(found, expected) < 1e-10


@pytest.mark.parametrize("draws", [1, 40])  # 40: columns in blocks
def test_many_importance_sampled_labels_come_near_to_exact(draws):
    model, x, y = made("mlp")
    found = diagonal_fisher(model, (x, y), "importance_sample", draws=draws)
    assert (error(found, oracle(model, x, y, "exact")) < 0.1) == (draws == 40)


@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("name", ["mlp", "raw_parameter"])
def test_examples_by_score_are_weighed_by_their_inclusion_probabilities(name, chunk):
    """Spelt out: an order and an offset of the generator, scores, a systematic sample, one over pi."""
    model, x, y = made(name)
    exact = oracle(model, x, y, "exact")
    generator = torch.Generator().manual_seed(4)
    order = torch.randperm(len(x), generator=generator)
    u = float(torch.rand((), generator=generator, dtype=torch.float64))
    p = model(x[order].clone()).detach().softmax(1)
    pi = inclusion_probabilities(1 - p.square().sum(1), 3, 0.25)
    ends = pi.cumsum(0).tolist()
    taken = [next(i for i, end in enumerate(ends) if u + k < end) for k in range(3)]
    parts = [(float(1 / pi[i]), oracle(model, x[order[i]][None], y[order[i]][None], "exact")) for i in taken]
    expected = {key: sum(w * part[key] for w, part in parts) / len(x) for key in exact}
    seed = lambda: torch.Generator().manual_seed(4)  # noqa: E731
    found = diagonal_fisher(model, (x, y), "exact_by_score", n=3, chunk=chunk, uniform_share=0.25, generator=seed())
    assert error(found, expected) < 1e-10
    assert error(found, exact) > 1e-2
    usual, tenth = (
        diagonal_fisher(model, (x, y), "exact_by_score", n=3, chunk=chunk, generator=seed(), **share)
        for share in ({}, {"uniform_share": 0.1})
    )
    assert error(usual, tenth) == 0 and error(tenth, found) > 1e-4
    for n in (None, len(x)):
        assert error(diagonal_fisher(model, (x, y), "exact_by_score", n=n), exact) < 1e-10
    two = {"active": [0, 1], "n": 3, "chunk": chunk}
    y = y % 2
    both = [
        diagonal_fisher(model, (x, y), f"{label}_by_score", generator=seed(), **two)
        for label in ("exact", "importance_sample")
    ]
    assert error(*both) < 1e-10  # the same examples, and one label is exact


@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("name", ["mlp", "tied", "resnet18"])
def test_batched_squares_the_mean_gradient_of_the_iterables_own_batches(name, chunk):
    model, x, y = made(name)
    found = diagonal_fisher(model, zip(x.split(3), y.split(3), strict=True), "batched", chunk=chunk)
    assert error(found, oracle(model, x, y, "batched", b=3)) < 1e-10


@pytest.mark.parametrize("estimator", ["exact", *LABELLED, "batched"])
def test_only_active_classes_enter_the_softmax(estimator):
    model, x, y = made("mlp")
    y = y % 2 * 2 + 1  # classes 1 and 3
    data = zip(x.split(7), y.split(7), strict=True) if estimator == "batched" else (x, y)
    found = diagonal_fisher(model, data, estimator, active=[3, 1])
    expected = oracle(model, x, y, estimator, active=[1, 3], b=7 if estimator == "batched" else None)
    assert error(found, expected) < 1e-10
    assert (found["5.weight"][[0, 2]] == 0).all()


@pytest.mark.parametrize("name", ["mlp", "resnet18", "positions", "odd"])
def test_float32_is_right_to_1e_5(name):
    model, x, y = made(name, dtype=torch.float32)
    found = diagonal_fisher(model, (x, y))
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert error(found, oracle(model, x, y, "exact")) < 1e-5


def test_it_is_the_importance_of_the_suite():
    net = mlp([7], input_shape=(6,), n_outputs=C)
    params, _ = net.init(torch.Generator().manual_seed(1))
    params = {key: p.double() for key, p in params.items()}
    model = nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, C)).double()
    model.load_state_dict(dict(zip(model.state_dict(), params.values(), strict=True)))
    x, y = torch.randn(9, 6, dtype=torch.float64), torch.randint(0, C, (9,))
    noise = torch.rand(9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for name in ("exact", *LABELLED, "importance_sample"):
        mine = diagonal_fisher(model, (x, y), name)
        make = importance_sample if name == "importance_sample" else getattr(fisher, name)
        its = make().sum(net, params, {}, x, y, noise, torch.arange(C))
        assert error(dict(zip(its, mine.values(), strict=True)), {key: v / 9 for key, v in its.items()}) < 1e-12
    mine = diagonal_fisher(model, [(x, y)], "batched")
    its = suite_batched.batched(9).sum(net, params, {}, x, y, noise, torch.arange(C))
    assert error(dict(zip(its, mine.values(), strict=True)), its) < 1e-12


@pytest.mark.slow
def test_torchvisions_resnet18():
    assert prepare_torchvision() != "absent"
    from torchvision.models import resnet18  # noqa: PLC0415

    torch.manual_seed(0)
    model, x, y = resnet18(num_classes=C), torch.randn(3, 3, 32, 32), torch.tensor([0, 1, 2])
    assert error(diagonal_fisher(model, (x, y)), oracle(model, x, y, "exact")) < 1e-5
    assert set(ways.ways(model.eval(), x[:2], None).of.values()) == {LAYER}


ATTENTION = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")

# --- fast where it may be --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["mlp", "batch_norm_1d", "layer_norm", "in_place_after", "keyword", "odd", "resnet18", "hooked_input"]
)
def test_layers_are_measured_by_their_rules(name):
    of = ways_of(name)
    assert {way for key, way in of.items() if key != "scale"} == {LAYER}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("raw_parameter", {"scale": EXAMPLE}),
        ("tied", {"fc.weight": EXAMPLE, "fc.bias": EXAMPLE, "other.bias": EXAMPLE}),
        ("called_twice", {"fc.weight": EXAMPLE, "fc.bias": EXAMPLE}),
        ("functional_too", {"fc.weight": EXAMPLE, "fc.bias": EXAMPLE}),
        ("hooked_output", {}),
        ("in_a_list", {"w": SINGLE}),
        ("prelu", {"1.weight": EXAMPLE}),
        ("positions", {f"block.self_attn.{key}": EXAMPLE for key in ATTENTION}),
    ],
)
def test_other_parameters_take_the_slower_way(name, expected):
    assert {key: way for key, way in ways_of(name).items() if way != LAYER} == expected


def test_a_layer_whose_rule_gives_something_else_is_not_believed(monkeypatch):
    """As a rule would that knows less than the layer: here of a Linear."""
    wrong = lambda module, a, deltas: {"weight": a.new_ones(module.weight.shape), "bias": a.new_ones(len(module.bias))}  # noqa: E731
    monkeypatch.setitem(rules.RULES, nn.Linear, wrong)
    model, x, y = made("linear")
    assert error(diagonal_fisher(model, (x, y)), oracle(model, x, y, "exact")) < 1e-10


def test_parameters_that_go_one_at_a_time_are_named_once():
    model, x, y = made("in_a_list")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        diagonal_fisher(model, (x, y), chunk=2)
    assert [str(warning.message).split(": ") for warning in said] == [
        ["parameters measured one example at a time, slowly", "w"]
    ]


# --- that rows are examples ------------------------------------------------------------------------------------------


class Packed(Made):
    """Packs k_n rows of example n, k_n in its first number, works on all rows, and adds up those of each example."""

    def __init__(self, arrange: Callable[[Tensor], Tensor]) -> None:
        super().__init__(lambda m, x: m.head(m.scale * x))
        self.arrange = arrange

    def forward(self, x: Tensor) -> Tensor:
        owner = self.arrange(torch.arange(len(x)).repeat_interleave(x[:, 0].round().long()))
        return super().forward(x.new_zeros(len(x), 6).index_add(0, owner, self.fc(x[owner]).tanh().cos()))


@pytest.mark.filterwarnings("ignore:.*one example at a time")
@pytest.mark.parametrize("estimator", ["exact", "empirical"])
@pytest.mark.parametrize("arrange", [lambda owner: owner, lambda owner: owner.flip(0)], ids=["in_order", "turned"])
@pytest.mark.parametrize(
    "rows",
    [[1, 1, 1, 2, 0], [1, 1, 0, 2, 1, 1], [1, 1, 3, 1, 0, 0, 1], [1, 1, 0, 0, 0, 4], [1] * 42 + [33] + [0] * 32],
    ids=["late", "swapped", "three", "four", "by_the_period"],
)
def test_as_many_packed_rows_as_examples_are_not_believed_to_be_them(rows, arrange, estimator):
    torch.manual_seed(0)
    model, n = Packed(arrange).double(), len(rows)
    x, y = torch.randn(n, 6, dtype=torch.float64), torch.randint(0, C, (n,))
    x[:, 0] = torch.tensor(rows)
    assert error(diagonal_fisher(model, (x, y), estimator), oracle(model, x, y, estimator)) < 1e-10


@pytest.mark.parametrize("name", ["mlp", "tied", "resnet18", "depthwise", "positions", "patches"])
def test_shapes_that_do_not_depend_on_values_prove_it_before_the_first_pass(name):
    model, x, _ = made(name)
    with evaluated(model):
        assert ways.one_row_whatever_the_example(model, x[:2])


def packed_sequence(m: Made, x: Tensor) -> Tensor:
    lengths = x[:, 0].round().long()
    rows = nn.utils.rnn.pack_padded_sequence(x[:, None].expand(-1, 4, -1), lengths.clamp(1, 4), True, False)
    rows = rows._replace(data=m.fc(rows.data))
    return m.head(nn.utils.rnn.pad_packed_sequence(rows, batch_first=True)[0].sum(1))


def different_ones(m: Made, x: Tensor) -> Tensor:
    values, at = x.round().unique(return_inverse=True)
    return m.head(m.fc(values[:, None].expand(-1, 6))[at].sum(1))


@pytest.mark.parametrize(
    "forward",
    [
        packed_sequence,
        different_ones,
        lambda m, x: m.head(m.fc(x[x[:, 0] > -9])),
        lambda m, x: m.head(m.fc(x) if x[0, 0] > -9 else x),
        lambda m, x: m.head(m.fc(x[:, None].expand(-1, 2, -1).flatten(0, 1)).view(len(x), 2, 6).sum(1)),
    ],
    ids=["packed_sequence", "unique", "mask", "branch", "two_rows"],
)
def test_shapes_that_may_depend_on_values_prove_nothing(forward):
    model = Made(forward)
    with evaluated(model), torch.no_grad():
        assert model(torch.ones(2, 6)).shape == (2, C)
        assert not ways.one_row_whatever_the_example(model, torch.ones(2, 6))


def test_an_example_that_others_change_is_found_where_it_is_measured_alone():
    """Not the first, the middle or the last one."""

    def forward(m: Made, x: Tensor) -> Tensor:
        return m.head(torch.cat([x[:1], x[1:2] * (1 + (len(x) > 2)), x[2:]]) * m.scale)

    with pytest.raises(UserError, match="depends on the other examples of its batch"), pytest.warns(UserWarning):
        diagonal_fisher(Made(forward), (torch.randn(5, 6), torch.zeros(5, dtype=torch.long)))


# --- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["exact", *LABELLED])
@pytest.mark.parametrize("name", ["mlp", "raw_parameter"])
def test_neither_chunks_nor_batches_matter(name, estimator):
    model, x, y = made(name)
    whole = diagonal_fisher(model, (x, y), estimator)
    for found in (
        diagonal_fisher(model, (x, y), estimator, chunk=1),
        diagonal_fisher(model, [x, y], estimator, chunk=3),
        diagonal_fisher(model, zip(x.split(4), y.split(4), strict=True), estimator),
        diagonal_fisher(model, [(x[:0], y[:0]), [x[:1], y[:1].int()], (x[1:], y[1:])], estimator, chunk=2),
    ):
        assert error(found, whole) < 1e-12


def test_n_examples_of_an_iterable_are_the_first():
    model, x, y = made("mlp")

    def stream() -> Iterator[tuple[Tensor, Tensor]]:
        yield x[:3], y[:3]
        yield x[3:6], y[3:6]
        raise AssertionError("asked for more than it needs")

    assert error(diagonal_fisher(model, stream(), n=5), oracle(model, x[:5], y[:5], "exact")) < 1e-10
    assert error(diagonal_fisher(model, stream(), n=6), oracle(model, x[:6], y[:6], "exact")) < 1e-10


def test_n_examples_of_a_pair_are_drawn():
    model, x, y = made("mlp")
    draw = lambda seed: diagonal_fisher(model, (x, y), n=3, generator=torch.Generator().manual_seed(seed))  # noqa: E731
    rows = torch.randperm(7, generator=torch.Generator().manual_seed(4))[:3]
    assert error(draw(4), oracle(model, x[rows], y[rows], "exact")) < 1e-10
    assert error(draw(4), draw(5)) > 1e-3
    assert same(diagonal_fisher(model, (x, y), n=3), draw(0))


def test_a_data_loader_will_do():
    model, x, y = made("mlp")
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 3, shuffle=True)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert error(diagonal_fisher(model, data), oracle(model, x, y, "exact")) < 1e-10
    assert torch.equal(torch.get_rng_state(), before)


def test_many_columns_and_few_classes():
    torch.manual_seed(0)
    model, x = nn.Linear(3, 37).double(), torch.randn(4, 3, dtype=torch.float64)
    y = torch.zeros(4, dtype=torch.long)
    assert error(diagonal_fisher(model, (x, y)), oracle(model, x, y, "exact")) < 1e-10
    for value in diagonal_fisher(model, (x, y), active=[0]).values():
        assert (value == 0).all()


# --- what is left as it was ------------------------------------------------------------------------------------------


class Counting(Made):
    """Changes buffers whenever it is used, one in place and one by another tensor."""

    def __init__(self) -> None:
        super().__init__(lambda m, x: m.head(m.fc(x).tanh()))
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(6))
        self.norm = nn.BatchNorm1d(6)
        self.frozen = nn.Linear(6, 6).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = x[0].detach()
        self.features = x.cos()
        return super().forward(self.norm(self.frozen(x)))


@pytest.mark.parametrize("size", [1, 3, 7, 16])
def test_blocks_of_columns_are_those_of_all(size):
    z = 9 * torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    blocks = list(columns.exact_blocks(z, size))
    assert max(block.shape[1] for block in blocks) == min(size, 7)
    assert torch.equal(torch.cat(blocks, 1), columns.exact(z))


@pytest.mark.slow
def test_many_classes_take_no_more_memory_than_promised():
    """128 MB, by the largest size that the process ever had, and a quarter for what an allocator keeps."""
    code = """
    import torch
    from cl_repro.importance import diagonal_fisher

    def size(key):
        return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) / 1024

    torch.set_num_threads(1)
    for examples, classes, estimator in (
        (2, 10, "exact"),
        (100, 1000, "exact"),
        (1, 10_000, "exact"),
        (1000, 1000, "importance_sample"),
        (20, 50_000, "importance_sample_by_score"),
    ):
        x, y = torch.randn(examples, 64), torch.zeros(examples, dtype=torch.long)
        before = size("VmRSS")
        diagonal_fisher(torch.nn.Linear(64, classes), (x, y), estimator)
        print(size("VmHWM") - before)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert max(map(float, run.stdout.split()[1:])) < 160


def state(model: nn.Module) -> list[object]:
    """All that a caller may look at."""
    modules = [(id(m), type(m), m.training) for m in model.modules()]
    objects = [{key: id(p) for key, p in m._parameters.items()} for m in model.modules()]
    tensors = {key: (id(t), t.clone()) for key, t in (*model.named_parameters(), *model.named_buffers())}
    flags = [(p.requires_grad, None if p.grad is None else (id(p.grad), p.grad.tolist())) for p in model.parameters()]
    hooks = [
        len(hooks) for m in model.modules() for hooks in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks)
    ]
    numbers = (torch.get_rng_state().tolist(), torch.is_grad_enabled(), torch.backends.mha.get_fastpath_enabled())
    values = {key: (where, t.tolist()) for key, (where, t) in tensors.items()}
    attributes = [{key: str(value) for key, value in vars(m).items() if key[0] != "_"} for m in model.modules()]
    return [modules, objects, values, flags, hooks, attributes, numbers]


@pytest.mark.parametrize("breaks", [False, True])
@pytest.mark.parametrize("estimator", ["exact", "sample", "batched"])
def test_the_model_is_left_as_it_was(estimator, breaks):
    torch.manual_seed(0)
    model = Counting()
    x, y = torch.randn(6, 6), torch.randint(0, C, (6,))
    functional.cross_entropy(model(x), y).backward()
    model.head.register_forward_hook(lambda module, args, out: None)
    model.norm.eval()  # a mixed mode: the rest is training

    def data() -> Iterator[tuple[Tensor, Tensor]]:
        yield x[:4], y[:4]
        if breaks:
            raise KeyError("on purpose")
        yield x[4:], y[4:]

    before = state(model)
    with torch.no_grad():
        before_there = state(model)
        if breaks:
            with pytest.raises(KeyError, match="on purpose"):
                diagonal_fisher(model, data(), estimator)
        else:
            diagonal_fisher(model, data(), estimator)
        assert state(model) == before_there
    assert state(model) == before


@pytest.mark.filterwarnings("ignore:.*one example at a time")
@pytest.mark.parametrize("name", ["shared", "repeated", "lstm", "parametrised", "in_a_list", "tied"])
@pytest.mark.parametrize("estimator", ["exact", "batched"])
def test_the_model_is_left_as_it_was_whichever_pass_fails(name, estimator):
    model, x, y = made(name)
    model.train()
    before = state(model)
    passes: list[int] = []

    def fail_at(last: int) -> bool:
        def count(module: nn.Module, args: object, out: Tensor) -> None:
            passes.append(1)
            if len(passes) > last:
                raise KeyError("on purpose")

        passes.clear()
        handle = next(m for m in model.modules() if isinstance(m, nn.Linear)).register_forward_hook(count)
        try:
            diagonal_fisher(model, [(x, y)], estimator)
        except KeyError:
            return True
        finally:
            handle.remove()
            assert state(model) == before
        return False

    assert not fail_at(10**9)
    for last in range(len(passes)):
        fail_at(last)  # under vmap an error only means another way
    assert fail_at(0)


class Meddling(Made):
    """Changes all that a forward pass can reach."""

    def __init__(self) -> None:
        super().__init__(lambda m, x: m.head(m.fc(x).tanh() * m.scale))
        self.seen, self.kept = [], {"calls": 0}

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.fc.weight.clamp_(-0.1, 0.1)
        self.scale.data.clamp_(max=1.0)
        self.seen.append(len(x))
        self.kept["calls"] += 1
        self.other = nn.Linear(2, 2)
        return super().forward(x)


@pytest.mark.filterwarnings("ignore:.*one example at a time")
@pytest.mark.parametrize("estimator", ["exact", "batched"])
def test_what_the_forward_pass_changes_is_put_back(estimator):
    model = Meddling()
    before = state(model)
    found = diagonal_fisher(model, [(X, Y)], estimator)
    assert state(model) == before
    model(X)
    after = diagonal_fisher(model, [(X, Y)], estimator)
    assert error(found, {key: after[key] for key in found}) < 1e-5


def test_an_error_of_the_model_leaves_no_hook_behind():
    model = Made(lambda m, x: m.head(m.fc(x)) if len(x) > 1 else 1 / 0)
    before = state(model)
    with pytest.raises(ZeroDivisionError):
        diagonal_fisher(model, (X, Y))
    assert state(model) == before


def test_it_works_under_no_grad_inference_mode_and_autocast():
    model, x, y = made("mlp", dtype=torch.float32)
    expected = diagonal_fisher(model, (x, y))
    for context in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16)):
        with context:
            assert same(diagonal_fisher(model, (x + 0, y)), expected)


def test_results_are_the_same_in_train_and_eval_mode():
    model, x, y = made("resnet18")
    assert same(diagonal_fisher(model.train(), (x, y)), diagonal_fisher(model.eval(), (x, y)))


def test_frozen_parameters_are_left_out():
    model, x, y = made("batch_norm_1d")
    whole = diagonal_fisher(model, (x, y))
    model[0].weight.requires_grad_(False)
    model[1].requires_grad_(False)
    found = diagonal_fisher(model, (x, y))
    assert list(found) == ["0.bias", "3.weight", "3.bias"]
    assert error(found, {key: whole[key] for key in found}) < 1e-12


# --- what is refused -------------------------------------------------------------------------------------------------


class Checkpointed(Made):
    """With the checkpoints that autograd.grad cannot see into."""

    def __init__(self) -> None:
        super().__init__(lambda m, x: m.head(torch.utils.checkpoint.checkpoint(m.fc, x * m.scale, use_reentrant=True)))


def half() -> nn.Module:
    model = Made(lambda m, x: m.head(m.fc(x.half()).float()))
    model.fc.half()
    return model


def with_hook() -> nn.Module:
    model = Made(lambda m, x: m.head(x))
    model.head.weight.register_hook(lambda g: 2 * g)
    return model


def with_backward_hook(register: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = Made(lambda m, x: m.head(x))
        getattr(model.head, register)(lambda module, *grads: None)
        return model

    return make


def autocast(m: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        a = m.fc(x)
    return m.head(a.float())


def cut(m: nn.Module, x: Tensor) -> Tensor:
    return m.head(x).detach()


REFUSED = {
    "half": (half, "parameter 'fc.weight' is torch.float16: the Fisher needs float32 or float64"),
    "autocast": (lambda: Made(autocast), "layer 'fc' computes in torch.bfloat16: must be float32 or float64"),
    "batch_statistics": (
        layers(nn.Linear(6, C), nn.BatchNorm1d(C, track_running_stats=False)),
        "layer '1' normalises with the statistics of the batch",
    ),
    "depends": (lambda: Made(lambda m, x: m.head(x - x.mean(0))), "depends on the other examples of its batch"),
    "depends_on_earlier": (
        lambda: Made(lambda m, x: m.head(x.cumsum(0))),
        "depends on the other examples of its batch",
    ),
    "random": (lambda: Made(lambda m, x: m.head(functional.dropout(x))), "is random, in eval mode"),
    "triple": (lambda: Made(lambda m, x: (m.head(x), x)), "the model returns tuple: must be one tensor of logits"),
    "maps": (lambda: Made(lambda m, x: m.head(x)[..., None]), r"the model returns \[2, 4, 1\] for 2 examples"),
    "squeezed": (lambda: Made(lambda m, x: m.head(x).squeeze()), r"the model returns \[4\] for 1 examples"),
    "one_logit": (lambda: Made(lambda m, x: m.head(x)[:, :1]), "one logit"),
    "infinite": (lambda: Made(lambda m, x: m.head(x) / 0), "not all finite"),
    "cut": (lambda: Made(cut), "depends on no parameter"),
    "frozen": (lambda: nn.Linear(6, C).requires_grad_(False), "no parameter requires a gradient"),
    "lazy": (lambda: nn.LazyLinear(C), "parameter 'weight' has no shape yet"),
    "hook": (with_hook, "parameter 'head.weight' has a gradient hook"),
    "backward_hook": (with_backward_hook("register_full_backward_hook"), "layer 'head' has a backward hook"),
    "backward_pre_hook": (with_backward_hook("register_full_backward_pre_hook"), "layer 'head' has a backward hook"),
    "parallel": (lambda: nn.DataParallel(nn.Linear(6, C)), "model=DataParallel"),
    "renormed": (layers(nn.Embedding(9, 6, max_norm=1.0)), "layer '0' has max_norm=1.0"),
    "checkpoint": (Checkpointed, "use_reentrant=False"),
    "probabilities": (
        lambda: Made(lambda m, x: m.head(x).softmax(1)),
        "the model returns probabilities, all at least 0 and of sum 1: must be logits",
    ),
    "dictionary": (lambda: Made(lambda m, x: {"logits": m.head(x)}), "the model returns dict: must be one tensor"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_models_whose_fisher_would_be_wrong_are_refused_in_one_line(name):
    make, message = REFUSED[name]
    torch.manual_seed(0)
    with pytest.raises(UserError, match=message) as caught:
        diagonal_fisher(make(), (torch.randn(5, 6), torch.zeros(5, dtype=torch.long)))
    assert "\n" not in str(caught.value)


def test_a_backward_hook_on_all_modules_is_refused():
    handle = register_module_full_backward_hook(lambda module, *grads: None)
    try:
        with pytest.raises(UserError, match="there is a backward hook on all modules"):
            diagonal_fisher(nn.Linear(6, C), (X, Y))
    finally:
        handle.remove()


def test_a_model_of_inference_mode_is_refused_and_its_buffers_are_not():
    with torch.inference_mode():
        with pytest.raises(UserError, match=r"^parameter 'weight' is of inference mode"):
            diagonal_fisher(nn.Linear(6, C), (X, Y))
        buffer = torch.ones(6)
    model = Made(lambda m, x: m.head(x + m.made_buffer))
    model.register_buffer("made_buffer", buffer)
    found = diagonal_fisher(model, (X, Y))
    assert model.made_buffer is buffer and buffer.tolist() == [1.0] * 6
    model.made_buffer = torch.ones(6)
    assert same(found, diagonal_fisher(model, (X, Y)))
    model.made_buffer, model.made = buffer, lambda m, x: m.head(x + 1 + 0 * added(m.made_buffer))
    diagonal_fisher(model, (X, Y))
    assert buffer.tolist() == [1.0] * 6  # it was changed in place, and is put back


def added(buffer: Tensor) -> Tensor:
    with torch.inference_mode(), torch.no_grad():
        buffer.add_(1)
    return buffer.clone()


def test_a_frozen_backbone_may_compute_in_less_than_float32():
    model = Made(lambda m, x: m.head(m.fc(x.bfloat16()).float()))
    model.fc.bfloat16().requires_grad_(False)
    found = diagonal_fisher(model, (X, Y))
    features = model.fc(X.bfloat16()).float()
    for name, value in oracle(model.head, features, Y, "exact").items():
        assert error({name: found[f"head.{name}"]}, {name: value}) < 1e-5
    model.register_parameter("below", nn.Parameter(torch.zeros(6)))
    model.made = lambda m, x: m.head(m.fc((x + m.below).bfloat16()).float())
    with pytest.raises(UserError, match=r"layer 'fc' computes in torch\.bfloat16"):
        diagonal_fisher(model, (X, Y))


@pytest.mark.filterwarnings("ignore:.*one example at a time")
def test_recurrent_layers_are_measured_without_cudnn_which_has_no_backward_pass_in_eval_mode():
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head, self.seen = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, C), set[bool]()

        def forward(self, x: Tensor) -> Tensor:
            self.seen.add(torch.backends.cudnn.enabled)
            return self.head(self.lstm(x.view(len(x), 2, 3))[0][:, -1])

    model = Recurrent()
    seen = model.seen
    with evaluated(model):
        model(X)
        assert seen == {False}
    assert torch.backends.cudnn.enabled
    with pytest.raises(KeyError), evaluated(model):
        raise KeyError
    assert torch.backends.cudnn.enabled


@pytest.mark.parametrize("estimator", [*library.arguments.LABELS])
def test_another_default_device_changes_nothing(estimator):
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, C))
    expected = diagonal_fisher(model, (X, Y), estimator, n=2, active=[0, 1, 2])
    torch.set_default_device("meta")
    try:
        found = diagonal_fisher(model, (X, Y), estimator, n=2, active=[0, 1, 2])
    finally:
        torch.set_default_device(None)
    assert same(found, expected)


@pytest.mark.parametrize("estimator", ["exact", "batched"])
def test_probabilities_are_refused_and_what_only_looks_like_them_is_not(estimator):
    torch.manual_seed(0)
    x, y = torch.rand(5, 6), torch.zeros(5, dtype=torch.long)
    model = Made(lambda m, x: m.head(x).softmax(1))
    with pytest.raises(UserError, match="returns probabilities"):
        diagonal_fisher(model, [(x, y)], estimator, active=[0, 1])
    model.made = lambda m, x: m.head(x)
    expected = diagonal_fisher(model, [(x, y)], estimator)
    model.made = lambda m, x: m.head(x).log_softmax(1)
    assert error(diagonal_fisher(model, [(x, y)], estimator), expected) < 1e-5
    for forward in (lambda m, x: m.head(x).sigmoid(), lambda m, x: m.head(x).exp(), lambda m, x: m.head(x).relu()):
        model.made = forward
        assert diagonal_fisher(model, [(x, y)], estimator)["head.weight"].any()


@pytest.mark.parametrize("estimator", ["exact", "batched"])
@pytest.mark.parametrize("late", [0, 3])
def test_squares_that_overflow_name_the_parameter_and_the_way_out(estimator, late):
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, C))
    x, y = torch.randn(5, 6), torch.zeros(5, dtype=torch.long)
    with torch.no_grad():
        model[0].weight.mul_(1e-24)
    x[late:] *= 1e24
    with pytest.raises(UserError) as caught:
        diagonal_fisher(model, [(x, y)], estimator)
    advice = "pass model.double() and x.double()"
    expected = f"parameter '0.weight': its squared gradients are not finite in torch.float32: {advice}"
    assert str(caught.value).startswith(expected)
    model, x = model.double(), x.double()
    expected = oracle(model, x, y, estimator, b=5 if estimator == "batched" else None)
    assert error(diagonal_fisher(model, [(x, y)], estimator), expected) < 1e-10


@pytest.mark.parametrize("late", [0, 3])
def test_nan_that_the_model_hides_is_found(late):
    model = Made(lambda m, x: m.head(m.fc(x).nan_to_num()))
    x, y = torch.randn(5, 6), torch.zeros(5, dtype=torch.long)
    x[late, 0] = torch.nan
    with pytest.raises(UserError, match=r"parameter 'fc.weight': its squared gradients are not finite.*NaN"):
        diagonal_fisher(model, (x, y))
    model.made = lambda m, x: m.head(m.fc(x.nan_to_num()))  # hidden before it can do harm
    assert error(diagonal_fisher(model, (x, y)), oracle(model, x.nan_to_num(), y, "exact")) < 1e-5


@pytest.mark.parametrize("estimator", ["exact", "batched"])
@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (nn.Linear(6, C), torch.ones(5, 6, dtype=torch.uint8), "x is torch.uint8, .*: pass it as torch.float32"),
        (nn.Linear(6, C), torch.ones(5, 6, dtype=torch.float64), "x is torch.float64, .*: pass it as torch.float32"),
        (nn.Linear(6, C).double(), torch.ones(5, 6), "x is torch.float32, .*: pass it as torch.float64"),
        (nn.Linear(6, C), torch.ones(5, 6, dtype=torch.float16), "x is torch.float16, .*: pass it as torch.float32"),
        (nn.Conv1d(6, C, 1), torch.ones(5, 6, 1, dtype=torch.int64), "x is torch.int64, .*: pass it as torch.float32"),
        (nn.Embedding(6, C), torch.ones(5), "x is torch.float32, .*: pass it as torch.int64"),
    ],
    ids=["bytes", "double", "single", "half", "integers", "ids"],
)
def test_examples_of_a_type_the_model_cannot_read_are_refused_in_one_line(model, x, message, estimator):
    with pytest.raises(UserError, match=f"^{message}") as caught:
        diagonal_fisher(model, [(x, torch.zeros(5, dtype=torch.long))], estimator)
    assert "\n" not in str(caught.value)


def test_other_errors_of_the_model_are_its_own():
    for x in (torch.ones(5, 7), torch.ones(5, 7, dtype=torch.uint8)):
        with pytest.raises(RuntimeError, match="mat1 and mat2"):
            diagonal_fisher(nn.Linear(6, C), (x, torch.zeros(5, dtype=torch.long)))


@pytest.mark.parametrize("name", ["depthwise", "patches", "positions"])
def test_torch_does_not_speak_of_its_batching_rules(name):
    model, x, y = made(name, n=20)
    if name == "depthwise":
        assert {*ways_of(name).values()} == {LAYER}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        diagonal_fisher(model, (x, y))


@pytest.mark.slow
def test_torchvisions_mobilenet():
    assert prepare_torchvision() != "absent"
    from torchvision.models import mobilenet_v2  # noqa: PLC0415

    torch.manual_seed(0)
    model, x, y = mobilenet_v2(num_classes=C), torch.randn(3, 3, 32, 32), torch.tensor([0, 1, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = diagonal_fisher(model, (x, y))
    assert error(found, oracle(model, x, y, "exact")) < 1e-4


PAIRS = "data must be a pair of tensors (x, y), or an iterable of such pairs: a DataLoader"
X, Y = torch.randn(3, 6), torch.tensor([0, 1, 2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"estimator": "mas"},
            "estimator=mas: must be one of exact, sample, empirical, predicted, "
            "importance_sample, exact_by_score, importance_sample_by_score, batched",
        ),
        ({"draws": 0}, "draws=0: must be an integer of at least 1"),
        ({"draws": 2.5}, "draws=2.5: must be an integer of at least 1"),
        ({"uniform_share": 1.1}, "uniform_share=1.1: must be in [0, 1]"),
        ({"draws": 50}, f"draws=50: estimator=exact does not use it; {' and '.join(DRAWN)} do"),
        (
            {"draws": 2, "estimator": BY_SCORE[0]},
            f"draws=2: estimator={BY_SCORE[0]} does not use it; {' and '.join(DRAWN)} do",
        ),
        ({"uniform_share": 0.9}, f"uniform_share=0.9: estimator=exact does not use it; {' and '.join(BY_SCORE)} do"),
        ({"estimator": "exact_by_score", "n": 4}, "n=4: the data have 3 examples; n must not be larger"),
        (
            {"estimator": "exact_by_score", "data": [(X, Y)]},
            "estimator=exact_by_score: needs a pair of tensors (x, y), to choose from all examples",
        ),
        (
            {"estimator": "exact_by_score", "data": (X * torch.nan, Y)},
            "the model's active logits are not all finite: there is no Fisher",
        ),
        ({"n": 0}, "n=0: must be an integer of at least 1, or None"),
        ({"n": 2.5}, "n=2.5: must be an integer of at least 1, or None"),
        ({"chunk": 0}, "chunk=0: must be an integer of at least 1, or None"),
        ({"chunk": "2"}, "chunk=2: must be an integer of at least 1, or None"),
        ({"n": 4}, "n=4: the data have 3 examples; n must not be larger"),
        ({"data": [(X, Y)], "n": 4}, "n=4: the data have 3 examples; n must not be larger"),
        ({"data": []}, "data: there are no examples"),
        ({"data": [(X, Y), X]}, f"data: a batch is a Tensor; {PAIRS}"),
        ({"data": (X, Y, Y)}, f"data: a batch is a Tensor; {PAIRS}"),
        ({"data": (X.numpy(), Y.numpy())}, f"data: a batch is a ndarray; {PAIRS}"),
        ({"data": None}, f"data=None: {PAIRS}"),
        ({"data": TensorDataset(X, Y)}, "data: a TensorDataset has single examples; pass a DataLoader of it"),
        ({"data": (X, Y[:2])}, "data: x is [3, 6] and y [2]; must have one example for each label"),
        ({"data": (X, X)}, "data: y is torch.float32 [3, 6]; must be class ids [N], integers"),
        ({"data": (X, Y + 2)}, "data: label 4: must be 0 to 3"),
        ({"active": [0, 1]}, "data: label 2: must be one of active=[0, 1]"),
        ({"active": [0, 1, 2, 9]}, "active=[0, 1, 2, 9]: the model returns 4 logits"),
        ({"active": [0, 1, 1]}, "active=[0, 1, 1]: must be different class ids, at least one"),
        ({"active": []}, "active=[]: must be different class ids, at least one"),
        ({"active": [True, False]}, "active=[True, False]: must be different class ids, at least one"),  # a mask
        ({"active": "ab"}, "active=ab: must be different class ids, at least one"),
        (
            {"estimator": "batched"},
            "estimator=batched: needs an iterable of mini-batches, such as zip(x.split(128), y.split(128))",
        ),
    ],
)
def test_bad_arguments_are_refused_in_one_line(arguments, message):
    with pytest.raises(UserError) as caught:
        diagonal_fisher(nn.Linear(6, C), **({"data": (X, Y)} | arguments))
    assert str(caught.value) == message


# --- the penalty -----------------------------------------------------------------------------------------------------


def test_the_penalty_is_half_lambda_times_the_weighted_squared_distance():
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[1.0, 3.0]])
    penalty = quadratic_penalty(
        model, {"weight": torch.tensor([[2.0, 5.0]])}, {"weight": torch.tensor([[0.0, 1.0]])}, 10
    )
    assert penalty.item() == 5 * (2 * 1 + 5 * 4)
    penalty.backward()
    assert model.weight.grad.tolist() == [[10 * 2 * 1.0, 10 * 5 * 2.0]]
    assert quadratic_penalty(model, {}, {}, 10).item() == 0


@pytest.mark.parametrize(
    ("importance", "anchor", "message"),
    [
        ({"w": torch.ones(1)}, {"w": torch.ones(1)}, "importance['w']: there is no such parameter"),
        ({"bias": torch.ones(1)}, {}, "importance['bias']: there is no such anchor"),
        (
            {"bias": torch.ones(1)},
            {"bias": torch.ones(2)},
            "bias: shapes of importance, anchor and parameter differ: [[1], [2], [1]]",
        ),
    ],
)
def test_a_penalty_of_something_else_is_refused_in_one_line(importance, anchor, message):
    with pytest.raises(UserError) as caught:
        quadratic_penalty(nn.Linear(2, 1), importance, anchor, 1.0)
    assert str(caught.value) == message


@pytest.mark.parametrize("keep", [lambda m: dict(m.named_parameters()), lambda m: m.state_dict()])
def test_an_anchor_that_moves_with_the_parameters_is_refused(keep):
    """Its penalty would be 0 for ever."""
    model = nn.Linear(2, 1)
    with pytest.raises(UserError, match=r"^anchor\['weight'\] is the parameter itself, and moves with it"):
        quadratic_penalty(model, {"weight": torch.ones(1, 2)}, keep(model), 1.0)
    anchor = {name: p.detach().clone() for name, p in model.named_parameters()}
    importance = {"weight": torch.ones(1, 2)}
    for penalty in (quadratic_penalty, torch.compile(quadratic_penalty, backend="eager")):
        model.load_state_dict(anchor)
        assert penalty(model, importance, anchor, 1.0).item() == 0
        with torch.no_grad():
            model.weight.add_(1.0)
        assert penalty(model, importance, anchor, 1.0).item() == pytest.approx(1.0)


@pytest.mark.parametrize("lam", [-1.0, float("nan")])
def test_a_penalty_needs_parameters_and_a_lambda_of_at_least_0(lam):
    with pytest.raises(UserError, match=rf"^lam={lam}: must be at least 0$"):
        quadratic_penalty(nn.Linear(2, 1), {}, {}, lam)
    with pytest.raises(UserError, match=r"^model: has no parameters$"):
        quadratic_penalty(nn.Tanh(), {}, {}, 1.0)


def recipe() -> str:
    """The code in the docstring of the package."""
    lines = inspect.getdoc(library).splitlines()
    return textwrap.dedent("\n".join(line for line in lines if line.startswith("    ")))


def accuracy_on_the_first_task(lam: float) -> float:
    """After two tasks that a network can do both: the class is the sign of input 0, then against it that of input 1."""
    torch.manual_seed(0)
    x = torch.randn(2, 400, 2)
    x[0, :, 1] = 0.0
    x[1, :, 0] = -2 * x[1, :, 1]
    tasks = [(x[0], (x[0, :, 0] > 0).long()), (x[1], (x[1, :, 1] > 0).long())]
    names = {"torch": torch, "functional": functional, "tasks": tasks, "iterations": 150, "lam": lam}
    model = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 2))
    names |= {"model": model, "diagonal_fisher": diagonal_fisher, "quadratic_penalty": quadratic_penalty}
    exec(recipe(), names)
    assert (model(x[1]).argmax(1) == tasks[1][1]).float().mean() > 0.8
    return (model(x[0]).argmax(1) == tasks[0][1]).float().mean().item()


def test_the_recipe_in_the_docstring_protects_the_first_task():
    assert len(recipe().splitlines()) <= 12
    forgotten, protected = accuracy_on_the_first_task(0.0), accuracy_on_the_first_task(100.0)
    assert protected > forgotten + 0.2


def test_importing_it_needs_neither_hydra_nor_torchvision():
    code = (
        "import sys, cl_repro.importance; print([m for m in ('hydra', 'omegaconf', 'torchvision') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
