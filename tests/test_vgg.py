"""VGG for Tiny ImageNet: hand-counted parameters, torch modules, initial weights, exact Fisher against a loop."""

import math
from typing import Any

import oracles
import pytest
import torch
from made_trees import error
from torch import Tensor, nn

from cl_repro.common import rng
from cl_repro.common.errors import UserError
from cl_repro.importance import fisher
from cl_repro.models.vgg import vgg
from cl_repro.types import Net, Tree

PAPER: dict[str, Any] = {"input_shape": (3, 64, 64), "n_outputs": 200}
HEAD = {"head.weight", "head.bias"}
# As the code of De Lange et al. writes them; M is a max-pool.
LAYERS = {
    "small": [64, "M", 64, "M", 64, 64, "M", 128, 128, "M"],
    "base": [64, "M", 64, "M", 128, 128, "M", 256, 256, "M"],
    "wide": [64, "M", 128, "M", 256, 256, "M", 512, 512, "M"],
    "deep": [64, "M", *[64] * 6, "M", *[128] * 6, "M", *[256] * 6, "M"],
}
# Convolutions: 9 in out + out each, and 334,016, 1,145,408, 4,500,864 and 4,280,704 of them as that code says; then
# hidden layers on a map of 4 x 4.
COUNTED = {
    "small": 334_016 + (16 * 128 * 128 + 128) + (128 * 128 + 128),
    "base": 1_145_408 + (16 * 256 * 512 + 512) + (512 * 512 + 512),
    "wide": 4_500_864 + (16 * 512 * 512 + 512) + (512 * 512 + 512),
    "deep": 4_280_704 + (16 * 256 * 512 + 512) + (512 * 512 + 512),
}


@pytest.mark.parametrize(("variant", "trunk"), COUNTED.items())
def test_parameters_at_the_papers_width(variant, trunk):
    net = vgg(variant, **PAPER)
    params, buffers = net.init(rng.stream(1, "init"))
    assert buffers == {}
    assert net.unprotected == HEAD
    assert sum(p.numel() for name, p in params.items() if name not in HEAD) == trunk
    assert params["head.weight"].shape == (200, 128 if variant == "small" else 512)
    assert params["head.bias"].shape == (200,)
    convolutions = [params[f"conv{i}.weight"].shape[0] for i in range(1, len(params) // 2 - 2)]
    assert convolutions == [n for n in LAYERS[variant] if n != "M"]


def test_the_numbers_of_the_configuration():
    assert list(COUNTED.values()) == [612_800, 3_505_728, 8_958_336, 6_641_024]


def test_initial_weights():
    """Convolutions: variance 2 / (9 out); hidden layers: deviation 0.01; the head: uniform in +- 1/sqrt(in)."""
    params, _ = vgg("small", **PAPER).init(rng.stream(1, "init"))
    for i, n_out in enumerate([64, 64, 64, 64, 128, 128], 1):
        weight = params[f"conv{i}.weight"]
        assert weight.std().item() == pytest.approx(math.sqrt(2 / (9 * n_out)), rel=4 / math.sqrt(2 * weight.numel()))
        assert weight.abs().max() > 2.5 * weight.std(), "normal, not uniform"
    for i in (1, 2):
        assert params[f"fc{i}.weight"].std().item() == pytest.approx(0.01, rel=0.03)
    assert all((p == 0).all() for name, p in params.items() if name.endswith("bias") and name != "head.bias")
    bound = 1 / math.sqrt(128)
    for name in HEAD:
        assert 0.95 * bound < params[name].abs().max() <= bound
    assert params["head.weight"].std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)


def small(variant: str, shrink: int, n: int) -> tuple[Net, Tree, Tensor]:
    """A narrow network, weights that leave no unit dead, and images of 16 x 32."""
    net, generator = vgg(variant, shrink, input_shape=(3, 16, 32), n_outputs=6), rng.stream(1, "case")
    params, _ = net.init(generator)
    params = {k: p.double() for k, p in params.items()}
    for name in ("fc1", "fc2"):
        params[f"{name}.weight"] *= 30
    params |= {k: p + 0.1 for k, p in params.items() if k.endswith("bias")}
    return net, params, torch.randn(n, 3, 16, 32, generator=generator, dtype=torch.float64)


def modules(variant: str, shrink: int, params: Tree) -> nn.Sequential:
    """The network as usual code writes it; channels come first where it flattens."""
    layers: list[nn.Module] = []
    before = 3
    for n in LAYERS[variant]:
        if n == "M":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(before, n // shrink, 3, padding=1), nn.ReLU()]
            before = n // shrink
    units = params["fc1.bias"].numel()
    layers += [nn.Flatten(), nn.Linear(2 * before, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(units, 6)).double()
    with torch.no_grad():
        for own, (name, p) in zip(net.parameters(), params.items(), strict=True):
            own.copy_(first(p) if name == "fc1.weight" else p)
    return net


def first(weight: Tensor) -> Tensor:
    """[units, H W channels] -> [units, channels H W] for a map of 1 x 2."""
    return weight.unflatten(1, (1, 2, -1)).permute(0, 3, 1, 2).flatten(1)


@pytest.mark.parametrize(("variant", "shrink"), [("small", 16), ("base", 32), ("wide", 32), ("deep", 16)])
def test_function_and_gradients_are_those_of_torch_modules(variant, shrink):
    net, params, x = small(variant, shrink, 5)
    leaves = {name: p.requires_grad_() for name, p in params.items()}
    z, plain = net.apply(leaves, {}, x, train=True)[0], modules(variant, shrink, params)
    expected = plain(x)
    assert torch.allclose(z, expected, rtol=1e-12, atol=1e-13)
    assert z.std(0).min() > 1e-3, "the images matter"
    weights = torch.linspace(-1, 1, z.numel(), dtype=z.dtype).view_as(z)
    found = torch.autograd.grad((weights * z.log_softmax(1)).sum(), list(leaves.values()))
    others = torch.autograd.grad((weights * expected.log_softmax(1)).sum(), list(plain.parameters()))
    tree = dict(zip(leaves, found, strict=True))
    tree["fc1.weight"] = first(tree["fc1.weight"])
    assert error(tree, dict(zip(leaves, others, strict=True))) < 1e-11
    assert all(g.abs().max() > 0 for g in tree.values())


@pytest.mark.parametrize(("variant", "shrink"), [("base", 64), ("deep", 64)])
def test_the_exact_fisher_is_the_loop_over_examples_and_classes(variant, shrink):
    net, params, x = small(variant, shrink, 4)
    active = [1, 3, 4]
    unused = torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.float64)
    found = fisher.exact().sum(net, params, {}, x, *unused, torch.tensor(active))
    expected = oracles.exact(net, params, x, active)
    assert error(found, expected) < 1e-10
    assert all(f.max() > 0 for f in expected.values())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"variant": "huge"}, "model.variant=huge: must be one of small, base, wide, deep"),
        ({"shrink": 0}, "model.shrink=0: must divide 64"),
        ({"shrink": 3}, "model.shrink=3: must divide 64"),
        ({"shrink": 128}, "model.shrink=128: must divide 64"),
        ({"input_shape": (8, 8)}, "model=vgg: needs images [colours, height, width], not [8, 8]"),
        ({"input_shape": (3, 64, 15)}, "model=vgg: 4 max-pools leave nothing of images [3, 64, 15]"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(given, message):
    with pytest.raises(UserError) as caught:
        vgg(**({"variant": "small"} | PAPER | given))
    assert str(caught.value) == message
