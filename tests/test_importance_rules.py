"""What every estimator must keep to, confident networks, and what is refused."""

from typing import Any

import pytest
import torch
from made_experiments import made_experiment
from made_passes import ALL_TEN, EVERY, LAYER_WISE, ONE_OF_TEN, SEED, TWO_OF_TEN, N, made_pass, spread_out
from made_trees import error, same
from torch import Tensor

from cl_repro.benchmarks import scenarios
from cl_repro.common.errors import UserError
from cl_repro.engine import boundary
from cl_repro.importance import fisher
from cl_repro.importance.batched import batched
from cl_repro.importance.one_sample import one_sample
from cl_repro.models.layers import linear, no_tap
from cl_repro.types import Net, Tree

# --- symmetries -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_inactive_heads_matter_exactly_nothing(name):
    of = made_pass()
    found = of.measure(EVERY[name])
    inactive = [i for i in range(10) if i not in of.active]
    for part in ("head.weight", "head.bias"):
        assert (found[part][inactive] == 0).all()
        assert (found[part][of.active] > 0).any()


@pytest.mark.parametrize("name", EVERY)
def test_importance_does_not_depend_on_the_size_of_the_chunks(name):
    chunks = [made_pass(rows_per_pass=rows).measure(EVERY[name]) for rows in (7, 1000)]
    assert error(*chunks) < 1e-12


@pytest.mark.parametrize("name", [name for name, estimator in EVERY.items() if estimator.vectorises])
@pytest.mark.parametrize("part", [TWO_OF_TEN, ALL_TEN])
def test_three_replicas_under_vmap_are_three_singles(name, part):
    of = made_pass(part)
    replicas = [spread_out(of.net, torch.float64, gain) for gain in (1.0, 2.0, 5.0)]
    stacked = {key: torch.stack([r[key] for r in replicas]) for key in of.params}
    found = torch.vmap(lambda p: of.call(EVERY[name], p))(stacked)
    for k, replica in enumerate(replicas):
        assert error({key: value[k] for key, value in found.items()}, of.call(EVERY[name], replica)) < 1e-12


@pytest.mark.parametrize("name", EVERY)
def test_estimators_are_pure_non_negative_and_keep_the_dtype(name):
    of = made_pass()
    for dtype in (torch.float32, torch.float64):
        cast = of._replace(x=of.x.to(dtype), params={key: p.to(dtype) for key, p in of.params.items()})
        before = [t.clone() for t in (cast.x, cast.y, cast.noise, *cast.params.values())]
        found = cast.call(EVERY[name])
        assert same((cast.x, cast.y, cast.noise, *cast.params.values()), before)
        assert same(cast.call(EVERY[name]), found)
        for key, value in found.items():
            assert value.dtype == dtype
            assert value.shape == cast.params[key].shape
            assert (value >= 0).all()
            assert not value.requires_grad


def test_label_noise_has_53_bits_whatever_the_networks_dtype():
    """In float32 noise is 0.0 once in 2^24 examples, and draws the first label however improbable."""
    seen = []

    def spy(net: Net, params: Tree, *data: Any) -> Tree:
        seen.append(data[3])
        return {name: torch.zeros_like(p) for name, p in params.items()}

    experiment = made_experiment(dtype=torch.float32)
    params = {name: p[None] for name, p in spread_out(experiment.net, torch.float32).items()}
    boundary.estimate(experiment, params, {}, fisher.exact()._replace(sum=spy), SEED, 0)
    noise = torch.cat(seen)
    assert noise.dtype == torch.float64
    assert ((noise * 2**24) % 1 > 0).float().mean() > 0.99
    assert 0 <= noise.min() < 0.05
    assert 0.95 < noise.max() < 1


# --- confident networks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [TWO_OF_TEN, ALL_TEN])
@pytest.mark.parametrize("name", [*(f"layer_wise-{label}" for label in LAYER_WISE), "batched"])
def test_float32_on_a_confident_network_is_close_to_float64(name, part):
    of = made_pass(part)
    z = of.net.apply(of.params, {}, of.x)[0][:, of.active]
    gain = 40 / float(z.std())
    params = {key: (gain * p if key.startswith("head") else p).float() for key, p in of.params.items()}
    exact = of.call(EVERY[name], {key: p.double() for key, p in params.items()})
    found = of._replace(x=of.x.float()).call(EVERY[name], params)
    assert of.net.apply(params, {}, of.x.float())[0][:, of.active].std() == pytest.approx(40, rel=1e-3)
    for key, value in exact.items():
        assert found[key].isfinite().all()
        assert (found[key].double() - value).abs().sum() <= 2e-4 * value.abs().sum(), key


# --- what must be refused -------------------------------------------------------------------------------------------


def test_a_layer_applied_twice_is_refused_by_name():
    def apply(params: Tree, buffers: Tree, x: Tensor, *, train: bool = False, tap: Any = no_tap):
        a = linear(params, "shared", x.flatten(1), tap).relu()
        return linear(params, "shared", a, tap), buffers

    net = Net(lambda generator: ({}, {}), apply)
    params = {"shared.weight": torch.eye(4), "shared.bias": torch.zeros(4)}
    x, y, noise = torch.ones(2, 4), torch.tensor([0, 1]), torch.rand(2, dtype=torch.float64)
    with pytest.raises(ValueError, match="'shared' is applied twice"):
        fisher.exact().sum(net, params, {}, x, y, noise, torch.arange(4))


def test_an_unmeasured_parameter_is_refused_by_name():
    def apply(params: Tree, buffers: Tree, x: Tensor, *, train: bool = False, tap: Any = no_tap):
        return params["temperature"] * linear(params, "head", x.flatten(1), tap), buffers

    net = Net(lambda generator: ({}, {}), apply)
    params = {"head.weight": torch.eye(4), "head.bias": torch.zeros(4), "temperature": torch.ones(())}
    x, y, noise = torch.ones(2, 4), torch.tensor([0, 1]), torch.rand(2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"\['temperature'\]"):
        fisher.exact().sum(net, params, {}, x, y, noise, torch.arange(4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fisher.exact(0), "fisher.n=0: the number of examples must be at least 1, or null for all"),
        (lambda: fisher.sample(-3), "fisher.n=-3: the number of examples must be at least 1, or null for all"),
        (lambda: one_sample("all", 0), "fisher.n=0: the number of examples must be at least 1, or null for all"),
        (lambda: fisher.empirical(None, "n"), "fisher.normalisation=n: must be exact or reference"),
        (lambda: batched(8, "mean", "n"), "fisher.normalisation=n: must be exact or reference"),
        (lambda: one_sample("all", None, "n"), "fisher.normalisation=n: must be exact or reference"),
        (lambda: batched(8, "max"), "fisher.reduction=max: must be mean or sum"),
        (lambda: batched(0), "fisher.batch_size=0: must be at least 1"),
        (lambda: one_sample("drawn"), "fisher.labels=drawn: must be one of all, sample, true, predicted"),
    ],
)
def test_bad_settings_are_refused_in_one_line(make, message):
    with pytest.raises(UserError) as caught:
        make()
    assert str(caught.value) == message


def test_more_examples_than_the_task_has_are_refused_in_one_line():
    with pytest.raises(UserError) as caught:
        made_pass().measure(fisher.exact(n=N + 1))
    assert str(caught.value) == f"fisher.n={N + 1}: task 2 of seed 2 has {N} examples; n must not be larger"


@pytest.mark.parametrize("estimator", [fisher.exact(normalisation="reference"), batched(4, "mean", "reference")])
def test_the_reference_divisor_of_a_single_unit_is_refused(estimator):
    """One example (or one mini-batch) is divided by zero in the reference code."""
    n = 4 if estimator.batch_size else 1
    with pytest.raises(UserError, match="normalisation=reference"):
        made_pass(n=n).measure(estimator)


@pytest.mark.parametrize("name", EVERY)
def test_a_single_active_class_has_no_importance(name):
    """With p = 1; class-incremental learning of one class at a time starts like this."""
    of = made_pass(ONE_OF_TEN, scenario=scenarios.class_())
    assert len(of.active) == 1
    for value in of.measure(EVERY[name]).values():
        assert (value == 0).all()
