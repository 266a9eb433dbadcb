"""Absolute per-example gradients: against a loop in float64, closed forms and bounds; what every estimator keeps to."""

import itertools
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import pytest
import torch
from made_passes import ALL_TEN, ONE_OF_TEN, SEED, TWO_OF_TEN, N, Pass, made_pass, spread_out
from made_trees import error, same
from torch import Tensor
from torch.nn import functional

from cl_repro.benchmarks import scenarios
from cl_repro.common import rng
from cl_repro.common.errors import UserError
from cl_repro.engine import boundary
from cl_repro.importance import columns, fisher
from cl_repro.importance.sensitivity import af, mas, mas_logits, masx, masx_logits, sqrt_fisher
from cl_repro.models import layers
from cl_repro.models.convnet import convnet
from cl_repro.models.slim_resnet18 import slim_resnet18
from cl_repro.types import Estimator, Net, Tree

ABSOLUTE = {"af": af, "mas": mas, "masx": masx, "mas_logits": mas_logits, "masx_logits": masx_logits}
EVERY = ABSOLUTE | {"sqrt_fisher": sqrt_fisher}
Scalar = tuple[float, Tensor]  # a weight, and what is differentiated

# --- the loop over examples, one scalar at a time --------------------------------------------------------------------


def of_labels(z: list[Tensor]) -> Iterator[Scalar]:
    """Each label's -log q_y, weighted by q_y."""
    log_q = torch.stack(z).log_softmax(0)
    for y in range(len(z)):
        yield log_q[y].exp().item(), -log_q[y]


SCALARS: dict[str, Callable[[list[Tensor]], Iterator[Scalar]]] = {
    "af": of_labels,
    "mas": lambda z: iter([(1.0, sum(q * q for q in torch.stack(z).softmax(0)))]),
    "masx": lambda z: iter([(1.0, max(torch.stack(z).softmax(0)) ** 2)]),
    "mas_logits": lambda z: iter([(1.0, sum(one * one for one in z))]),
    "masx_logits": lambda z: iter([(1.0, max(z) ** 2)]),
    "sqrt_fisher": of_labels,
}


def loop(name: str, net: Net, params: Tree, buffers: Tree, x: Tensor, active: list[int]) -> Tree:
    """The importance, with one gradient of one scalar of one example at a time, in float64."""
    of = torch.square if name == "sqrt_fisher" else torch.abs
    total = {key: torch.zeros_like(p, dtype=torch.float64) for key, p in params.items()}
    for example in x.double():
        leaves = {key: p.detach().double().clone().requires_grad_() for key, p in params.items()}
        z = net.apply(leaves, buffers, example[None])[0][0]
        for weight, scalar in SCALARS[name]([z[i] for i in active]):
            grads = torch.autograd.grad(scalar, list(leaves.values()), retain_graph=True)
            for key, g in zip(leaves, grads, strict=True):
                total[key] += weight * of(g)
    mean = {key: value / len(x) for key, value in total.items()}
    return {key: value.sqrt() for key, value in mean.items()} if name == "sqrt_fisher" else mean


@lru_cache
def expected(name: str, part: str, hidden: tuple[int, ...], n: int) -> Tree:
    of = made_pass(part, hidden)
    return loop(name, of.net, of.params, {}, of.x[:n], of.active)


@pytest.mark.parametrize("part", [TWO_OF_TEN, ALL_TEN])
@pytest.mark.parametrize("hidden", [(), (7, 6)], ids=["1-layer", "3-layers"])
@pytest.mark.parametrize("name", EVERY)
def test_estimator_is_the_loop_over_examples(name: str, hidden: tuple[int, ...], part: str) -> None:
    """Of all examples, and of the first 9 in the order in which `exact` takes them."""
    of = made_pass(part, hidden)
    for n in (None, 9):
        assert error(of.measure(EVERY[name](n)), expected(name, part, hidden, n or N)) < 1e-12


def test_the_loops_tell_the_estimators_apart() -> None:
    found = {name: expected(name, ALL_TEN, (7, 6), N) for name in EVERY}
    for a, b in itertools.permutations(found, 2):
        assert error(found[a], found[b]) > 1e-2, (a, b)


class Images(NamedTuple):
    """A convolutional network with weights and running statistics that keep its units alive, and some examples."""

    net: Net
    params: Tree
    buffers: Tree
    x: Tensor

    def sum(self, estimator: Estimator, params: Tree, buffers: Tree) -> Tree:
        y, noise = torch.zeros(len(self.x), dtype=torch.int64), torch.zeros(len(self.x), dtype=torch.float64)
        return estimator.sum(self.net, params, buffers, self.x, y, noise, torch.tensor(ACTIVE))

    def measure(self, estimator: Estimator) -> Tree:
        total = self.sum(estimator, self.params, self.buffers)
        return {key: estimator.finish(value / len(self.x)) for key, value in total.items()}


SHAPE, ACTIVE = (3, 16, 16), [0, 2, 3]  # feature maps of 256, 64, 16 and 4 positions
NETS = {
    "convnet": lambda: convnet([3, 4, 5, 6], [7], input_shape=SHAPE, n_outputs=5),
    "slim_resnet18": lambda: slim_resnet18(2, input_shape=SHAPE, n_outputs=5),
}


@lru_cache
def images(name: str) -> Images:
    net, generator = NETS[name](), rng.stream(1, "images")
    params, buffers = net.init(rng.stream(1, "init"))
    params = {k: p.double() + 0.1 * torch.randn(p.shape, generator=generator).double() for k, p in params.items()}
    buffers = {k: b.double() for k, b in buffers.items()}
    x = torch.randn(4, *SHAPE, generator=generator, dtype=torch.float64)
    for _ in range(30):
        buffers = net.apply(params, buffers, x, train=True)[1]
    return Images(net, params, buffers, x)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", EVERY)
def test_convolutions_and_normalisations_are_the_loop_over_examples(name: str, net: str) -> None:
    of = images(net)
    assert error(of.measure(EVERY[name]()), loop(name, *of, ACTIVE)) < 1e-12


def test_absolutes_do_not_depend_on_how_many_examples_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    of = images("convnet")
    whole = of.measure(af())
    for held in (1, 500, 10**9):  # of the largest layer 1, then some, then all at a time
        monkeypatch.setattr(layers, "HELD", {"cpu": held})
        assert error(of.measure(af()), whole) < 1e-12
    monkeypatch.setattr(layers, "PAIRS_PAY", 10**9)  # squares of few positions go by pairs; absolute values cannot
    assert same(of.measure(af()), whole)


# --- closed forms and bounds -----------------------------------------------------------------------------------------


def of_one_layer(name: str, z: Tensor, x: Tensor) -> Tensor:
    """The importance [A, in] of a linear classifier z = W x + b, by hand; z [N, A], x [N, in]."""
    q, m = z.softmax(1), functional.one_hot(z.argmax(1), z.shape[1])
    by_logit = {
        "af": 2 * q * (1 - q),  # q_c (1 - q_c) of its own label, q_c q_y of each other
        "mas": 2 * q * (q - q.square().sum(1, keepdim=True)).abs(),
        "masx": 2 * q.max(1, keepdim=True).values.square() * (m - q).abs(),
        "mas_logits": 2 * z.abs(),
        "masx_logits": 2 * z.abs() * m,
    }
    if name == "sqrt_fisher":
        return torch.einsum("na,ni->ai", q * (1 - q), x.square()).div(len(x)).sqrt()
    return torch.einsum("na,ni->ai", by_logit[name], x.abs()) / len(x)


@pytest.mark.parametrize("part", [TWO_OF_TEN, ALL_TEN])
@pytest.mark.parametrize("name", EVERY)
def test_a_linear_classifier_has_the_importance_worked_out_by_hand(name: str, part: str) -> None:
    of = made_pass(part, ())
    x = of.x.flatten(1)
    z = functional.linear(x, of.params["head.weight"], of.params["head.bias"])[:, of.active]
    by_hand = {key: torch.zeros_like(p) for key, p in of.params.items()}
    by_hand["head.weight"][of.active] = of_one_layer(name, z, x)
    by_hand["head.bias"][of.active] = of_one_layer(name, z, torch.ones_like(x[:, :1]))[:, 0]
    assert error(of.measure(EVERY[name]()), by_hand) < 1e-12


def one_example(of: Pass, i: int) -> Pass:
    return of._replace(x=of.x[i : i + 1], y=of.y[i : i + 1], noise=of.noise[i : i + 1])


def test_of_two_classes_all_sensitivities_of_an_example_are_multiples_of_one() -> None:
    """With D = |d q_0| = |d q_1|: af 2 D, mas 2 |q_0 - q_1| D, masx 2 max(q) D, and the Fisher D^2 / (q_0 q_1)."""
    of = made_pass(TWO_OF_TEN)
    for i in range(5):
        one = one_example(of, i)
        q = of.net.apply(of.params, {}, one.x)[0][0, of.active].softmax(0)
        derivative = {key: value / 2 for key, value in one.call(af()).items()}
        for made, factor in (
            (mas(), 2 * (q[0] - q[1]).abs()),
            (masx(), 2 * q.max()),
        ):
            assert error(one.call(made), {key: factor * value for key, value in derivative.items()}) < 1e-12
        squares = {key: value.square() / (q[0] * q[1]) for key, value in derivative.items()}
        assert error(one.call(fisher.exact()), squares) < 1e-12


@pytest.mark.parametrize("part", [TWO_OF_TEN, ALL_TEN])
def test_no_sensitivity_exceeds_af_nor_af_the_root_of_the_fisher(part: str) -> None:
    """The probabilities sum to 1, so |sum_y w_y d q_y| <= (max w - min w) af / 2; (sum_y q_y |g_y|)^2 <= the Fisher."""
    of = made_pass(part)
    found = {name: of.measure(make()) for name, make in EVERY.items()}
    for small, large in (("mas", "af"), ("masx", "af"), ("af", "sqrt_fisher")):
        for key, value in found[small].items():
            assert (value <= found[large][key] * (1 + 1e-12)).all(), (small, large, key)
            assert (value > 0).any()


def test_the_root_is_of_the_mean_not_the_mean_of_the_roots() -> None:
    of = made_pass()
    means = of.measure(fisher.exact(9))
    assert same(of.measure(sqrt_fisher(9)), {key: value.sqrt() for key, value in means.items()})


# --- columns ---------------------------------------------------------------------------------------------------------

DEVIATIONS = [1, 3, 10, 20, 40, 60]


def logits(deviation: float, c: int, dtype: torch.dtype, n: int = 300) -> Tensor:
    generator = torch.Generator().manual_seed(int(deviation) * 100 + c)
    return (deviation * torch.randn(n, c, generator=generator, dtype=torch.float64)).to(dtype)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {  # z [N, C] -> what its columns are the derivatives of, [J, N]
    "af": lambda z: z.softmax(1).T,
    "mas": lambda z: z.softmax(1).square().sum(1)[None],
    "masx": lambda z: z.softmax(1).max(1).values.square()[None],
    "mas_logits": lambda z: z.square().sum(1)[None],
    "masx_logits": lambda z: z.max(1).values.square()[None],
}


@pytest.mark.parametrize("c", [1, 2, 3, 10])
@pytest.mark.parametrize("deviation", DEVIATIONS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_columns_are_the_gradients_of_what_they_are_named_after(name: str, deviation: float, c: int) -> None:
    z = logits(deviation, c, torch.float64).requires_grad_()
    values = FUNCTIONS[name](z)
    gradients = [torch.autograd.grad(value.sum(), z, retain_graph=True)[0] for value in values]
    found = getattr(columns, name)(z.detach())
    assert found.shape == (len(z), len(values), c)
    assert error({"s": found}, {"s": torch.stack(gradients, 1)}) < 2e-14


def resolved(name: str, z: Tensor) -> Tensor:
    """The columns in float64 without a difference of large numbers: sums of q_y (q_i - q_y)."""
    q = z.double().softmax(1)
    pairs = q[:, :, None] * q[:, None, :] * (1 - torch.eye(q.shape[1], dtype=torch.float64))
    if name == "af":
        return torch.diag_embed(pairs.sum(2)) - pairs
    if name == "mas":
        return 2 * (pairs * (q[:, :, None] - q[:, None, :])).sum(2)[:, None]
    m = z.argmax(1)
    rows = (torch.diag_embed(pairs.sum(2)) - pairs)[torch.arange(len(z)), m]
    return (2 * q.max(1, keepdim=True).values * rows)[:, None]


def relative_error(found: Tensor, exact: Tensor) -> float:
    """The largest error of an entry relative to itself, where float32 can hold it and its terms do not cancel."""
    difference = (found.double() - exact).abs() / exact.abs()
    return float(difference[exact.abs() > 1e-30].max())


def decided(deviation: float, c: int) -> Tensor:
    """Logits of examples where one probability is above 0.99."""
    z = logits(deviation, c, torch.float32, n=2000)
    z = z[z.softmax(1).amax(1) > 0.99]
    assert len(z) > 100
    return z


@pytest.mark.parametrize("c", [2, 3, 10])
@pytest.mark.parametrize("deviation", DEVIATIONS[2:])
@pytest.mark.parametrize("name", ["af", "mas", "masx"])
def test_columns_resolve_tiny_probabilities_in_float32(name: str, deviation: float, c: int) -> None:
    z = decided(deviation, c)
    assert relative_error(getattr(columns, name)(z), resolved(name, z)) < 1e-4


def test_the_textbook_form_of_mas_would_fail_this_test() -> None:
    z = decided(40, 10)
    q = z.softmax(1)
    textbook = 2 * q * (q - q.square().sum(1, keepdim=True))
    assert relative_error(textbook[:, None], resolved("mas", z)) > 0.1


# --- what every estimator keeps to -----------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [TWO_OF_TEN, ALL_TEN])
@pytest.mark.parametrize("name", EVERY)
def test_three_replicas_in_a_stack_are_three_singles(name: str, part: str) -> None:
    of = made_pass(part)
    replicas = [spread_out(of.net, torch.float64, gain) for gain in (1.0, 2.0, 5.0)]
    stacked = {key: torch.stack([r[key] for r in replicas]) for key in of.params}
    found = boundary.estimate(of.experiment, stacked, {}, EVERY[name](9), SEED, of.task)
    for k, replica in enumerate(replicas):
        alone = of._replace(params=replica).measure(EVERY[name](9))
        assert error({key: value[k] for key, value in found.items()}, alone) < 1e-12


@pytest.mark.parametrize("name", ["af", "mas_logits"])
def test_replicas_with_convolutions_are_what_they_are_alone(name: str) -> None:
    of, scales = images("convnet"), [1.0, 1.02, 0.97]
    params = {k: torch.stack([s * p for s in scales]) for k, p in of.params.items()}
    buffers = {k: torch.stack([s * b for s in scales]) for k, b in of.buffers.items()}
    found = torch.vmap(lambda p, b: of.sum(EVERY[name](), p, b))(params, buffers)
    for k in range(len(scales)):
        alone = of.sum(EVERY[name](), {n: p[k] for n, p in params.items()}, {n: b[k] for n, b in buffers.items()})
        assert error({n: v[k] for n, v in found.items()}, alone) < 1e-9


@pytest.mark.parametrize("name", EVERY)
def test_importance_does_not_depend_on_the_size_of_the_chunks(name: str) -> None:
    chunks = [made_pass(rows_per_pass=rows).measure(EVERY[name]()) for rows in (7, 1000)]
    assert error(*chunks) < 1e-12


@pytest.mark.parametrize("name", EVERY)
def test_estimators_are_pure_non_negative_keep_the_dtype_and_ignore_labels(name: str) -> None:
    of = made_pass()
    inactive = [i for i in range(10) if i not in of.active]
    for dtype in (torch.float32, torch.float64):
        cast = of._replace(x=of.x.to(dtype), params={key: p.to(dtype) for key, p in of.params.items()})
        before = [t.clone() for t in (cast.x, *cast.params.values())]
        found = cast.call(EVERY[name]())
        assert same((cast.x, *cast.params.values()), before)
        assert same(cast._replace(y=1 - cast.y, noise=1 - cast.noise).call(EVERY[name]()), found)
        for key, value in found.items():
            assert value.dtype == dtype
            assert value.shape == cast.params[key].shape
            assert (value >= 0).all()
            assert (value > 0).any()
            assert not value.requires_grad
        for key in ("head.weight", "head.bias"):
            assert (found[key][inactive] == 0).all()


@pytest.mark.parametrize("part", [TWO_OF_TEN, ALL_TEN])
@pytest.mark.parametrize("name", EVERY)
def test_float32_on_a_confident_network_is_close_to_float64(name: str, part: str) -> None:
    of = made_pass(part)
    z = of.net.apply(of.params, {}, of.x)[0][:, of.active]
    gain = 40 / float(z.std())
    params = {key: (gain * p if key.startswith("head") else p).float() for key, p in of.params.items()}
    exact = of.call(EVERY[name](), {key: p.double() for key, p in params.items()})
    found = of._replace(x=of.x.float()).call(EVERY[name](), params)
    for key, value in exact.items():
        assert found[key].isfinite().all()
        assert (found[key].double() - value).abs().sum() <= 2e-4 * value.abs().sum(), key


@pytest.mark.parametrize("name", EVERY)
def test_a_single_active_class_has_the_importance_of_its_logit_alone(name: str) -> None:
    """Its probability is 1, whatever the parameters."""
    of = made_pass(ONE_OF_TEN, scenario=scenarios.class_())
    assert len(of.active) == 1
    of_logits = name in ("mas_logits", "masx_logits")
    for value in of.measure(EVERY[name]()).values():
        assert (value > 0).any() if of_logits else (value == 0).all()


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_no_examples_are_refused_in_one_line(make: Any) -> None:
    with pytest.raises(UserError) as caught:
        make(0)
    assert str(caught.value) == "fisher.n=0: the number of examples must be at least 1, or null for all"
