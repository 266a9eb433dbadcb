"""The MLP: its size at the published width, and the law of its initial weights."""

import cli
import pytest
import torch

from cl_repro.common import rng
from cl_repro.common.errors import UserError
from cl_repro.models.mlp import mlp
from cl_repro.study import grid
from cl_repro.study.factories import build
from cl_repro.types import Tree

SMALL = {"hidden": [30, 20], "input_shape": (4, 5), "n_outputs": 10}


def drawn(**given: object) -> Tree:
    return mlp(**(SMALL | given)).init(rng.stream(1, "init"))[0]


def test_glorot_weights_and_constant_biases_at_the_width_of_permuted_mnist():
    """Benzing (2022, appendix F.4): 5,592,010 parameters; bounds are nearly reached and never passed."""
    net = mlp([2000, 2000], "glorot_uniform", 0.1, input_shape=(28, 28), n_outputs=10)
    params, _ = net.init(rng.stream(1, "init"))
    assert sum(p.numel() for p in params.values()) == 5_592_010
    for layer, bound in {"fc1": 0.046424, "fc2": 0.038730, "head": 0.054636}.items():
        weight = params[f"{layer}.weight"]
        assert 0.999 * bound < weight.abs().max() < bound + 1e-6
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
        assert (params[f"{layer}.bias"] == torch.tensor(0.1)).all()


@pytest.mark.parametrize("law", [{}, {"init": None}, {"init": "torch"}])
def test_the_default_law_is_torchs_drawn_weight_then_bias(law):
    """Bit for bit: every result there is depends on it."""
    generator = rng.stream(1, "init")
    found = drawn(**law)
    for name, (n_in, n_out) in {"fc1": (20, 30), "fc2": (30, 20), "head": (20, 10)}.items():
        for suffix, shape in (("weight", (n_out, n_in)), ("bias", (n_out,))):
            expected = torch.empty(shape).uniform_(-(n_in**-0.5), n_in**-0.5, generator=generator)
            assert torch.equal(found[f"{name}.{suffix}"], expected)


@pytest.mark.parametrize("law", ["torch", "glorot_uniform"])
def test_a_constant_bias_leaves_the_weights_as_they_are(law):
    free, constant = drawn(init=law), drawn(init=law, bias=0.25)
    for name, p in constant.items():
        assert torch.equal(p, free[name] if name.endswith("weight") else torch.full_like(p, 0.25))
    assert all((free[f"{name}.bias"] == 0).all() == (law != "torch") for name in ("fc1", "fc2", "head"))
    assert drawn(init=law, bias=0)["fc1.bias"].count_nonzero() == 0


def test_an_unknown_law_is_refused_in_one_line():
    with pytest.raises(UserError) as caught:
        drawn(init="he")
    assert str(caught.value) == "model.init=he: must be one of torch, glorot_uniform"


def test_the_law_is_the_benchmarks_and_a_benchmark_without_one_renames_no_result():
    (plain,) = cli.arms("benchmark=split_mnist")
    assert plain["model"]["init"] is plain["model"]["bias"] is None
    before = plain | {"model": {k: v for k, v in plain["model"].items() if k not in ("init", "bias")}}
    assert grid.make_arm(plain).config_id == grid.make_arm(before).config_id
    (given,) = cli.arms(
        "benchmark=split_mnist", "+benchmark.protocol.init=glorot_uniform", "+benchmark.protocol.bias=0.1"
    )
    assert grid.make_arm(given).config_id != grid.make_arm(plain).config_id
    found, _ = build("model", given["model"], input_shape=(4, 5), n_outputs=10).init(rng.stream(1, "init"))
    expected = drawn(hidden=[400, 400], init="glorot_uniform", bias=0.1)
    assert all(torch.equal(found[name], p) for name, p in expected.items())
