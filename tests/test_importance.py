"""Every estimator against the loop over examples, closed forms and limits."""

import itertools
from collections.abc import Callable
from functools import lru_cache, partial

import oracles
import pytest
import torch
from made_passes import ALL_TEN, BATCHED, IMPLEMENTATIONS, TWO_OF_TEN, N, Pass, made_pass, spread_out
from made_trees import error, same
from torch.nn import functional

from cl_repro.importance import fisher
from cl_repro.importance.batched import batched
from cl_repro.models.mlp import mlp
from cl_repro.types import Tree

BOTH = ("exact", "reference")


# --- the oracles ----------------------------------------------------------------------------------------------------


def exact_oracle(of: Pass, n: int) -> Tree:
    return oracles.exact(of.net, of.params, of.x[:n], of.active)


def labelled_oracle(of: Pass, n: int, labels: Callable[[Pass], list[int]]) -> Tree:
    return oracles.labelled(of.net, of.params, of.x[:n], labels(of)[:n], of.active)


LABELS: dict[str, Callable[[Pass], list[int]]] = {
    "sample": lambda of: oracles.drawn_labels(of.net, of.params, of.x, of.noise.tolist(), of.active),
    "empirical": lambda of: of.y.tolist(),
    "predicted": lambda of: oracles.predicted_labels(of.net, of.params, of.x, of.active),
}
ORACLES = {"exact": exact_oracle} | {name: partial(labelled_oracle, labels=f) for name, f in LABELS.items()}


@lru_cache
def oracle_sum(label: str, part: str, hidden: tuple[int, ...], n: int) -> Tree:
    return ORACLES[label](made_pass(part, hidden), n)


@lru_cache
def batched_sum(part: str, hidden: tuple[int, ...], batch_size: int, reduction: str) -> Tree:
    of = made_pass(part, hidden)
    return oracles.batched(of.net, of.params, of.x, of.y.tolist(), of.active, batch_size, reduction)


@pytest.mark.parametrize("part", [TWO_OF_TEN, ALL_TEN])
@pytest.mark.parametrize("hidden", [(), (7, 6)], ids=["1-layer", "3-layers"])
@pytest.mark.parametrize("label", ORACLES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_estimator_is_the_loop_over_examples(implementation, label, hidden, part):
    of = made_pass(part, hidden)
    for n in (None, 9):
        for normalisation in BOTH:
            used, divisor = oracles.units(N, n, normalisation)
            expected = {name: value / divisor for name, value in oracle_sum(label, part, hidden, used).items()}
            estimator = IMPLEMENTATIONS[implementation][label](n=n, normalisation=normalisation)
            assert error(of.measure(estimator), expected) < 1e-12


@pytest.mark.parametrize("total", [2, 5, 6, 7, 500, 501, 502, 11_760])
@pytest.mark.parametrize("n", [None, 1, 4, 5, 6, 499, 500, 501])
@pytest.mark.parametrize("normalisation", BOTH)
def test_examples_and_divisors_are_those_of_the_loops(total, n, normalisation):
    """For `reference` the loop of the reference code, which stops late and divides by its last index."""
    for make in (fisher.exact, IMPLEMENTATIONS["one_sample"]["sample"]):
        estimator = make(n=n, normalisation=normalisation)
        assert (estimator.rows(total), estimator.divisor(total)) == oracles.units(total, n, normalisation)


def test_the_oracles_tell_the_estimators_apart():
    of = made_pass(ALL_TEN)
    found = {name: oracle(of, N) for name, oracle in ORACLES.items()}
    for a, b in itertools.permutations(found, 2):
        assert error(found[a], found[b]) > 1e-2, (a, b)


@pytest.mark.parametrize("part", [TWO_OF_TEN, ALL_TEN])
@pytest.mark.parametrize("hidden", [(), (7, 6)], ids=["1-layer", "3-layers"])
@pytest.mark.parametrize("batch_size", [1, 5, N, 2 * N])  # 5: the last of 5 batches has 3 examples
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("implementation", BATCHED)
def test_batched_is_the_loop_over_batches(implementation, part, hidden, batch_size, reduction):
    of, total = made_pass(part, hidden), batched_sum(part, hidden, batch_size, reduction)
    m = -(-N // batch_size)
    for normalisation in BOTH if m > 1 else BOTH[:1]:
        _, divisor = oracles.units(m, None, normalisation)
        assert divisor == (m if normalisation == "exact" else m - 1)
        expected = {name: value / divisor for name, value in total.items()}
        estimator = BATCHED[implementation](batch_size, reduction, normalisation)
        assert error(of.measure(estimator), expected) < 1e-12


def test_batches_of_one_are_empirical():
    of = made_pass()
    for normalisation in BOTH:
        expected = of.measure(fisher.empirical(normalisation=normalisation))
        for reduction in ("mean", "sum"):
            assert error(of.measure(batched(1, reduction, normalisation)), expected) < 1e-12


def test_sum_is_b_squared_times_mean_on_full_batches():
    of = made_pass(n=20)
    expected = {name: 5**2 * value for name, value in of.measure(batched(5, "mean")).items()}
    assert error(of.measure(batched(5, "sum")), expected) < 1e-12


# --- closed forms and limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [TWO_OF_TEN, ALL_TEN])
def test_logistic_regression_has_the_textbook_fisher(part):
    """With z = W x + b the block of class c is mean_n p_c (1 - p_c) x x^T, of which the diagonal is asked."""
    of = made_pass(part, ())
    p = functional.linear(of.x.flatten(1), of.params["head.weight"], of.params["head.bias"])[:, of.active].softmax(1)
    variance = p * (1 - p)  # [N, A]
    expected = {name: torch.zeros_like(value) for name, value in of.params.items()}
    expected["head.weight"][of.active] = torch.einsum("na,ni->ai", variance, of.x.flatten(1).square()) / N
    expected["head.bias"][of.active] = variance.mean(0)
    assert error(of.measure(fisher.exact()), expected) < 1e-12


def test_sample_converges_to_exact_like_one_over_the_root_of_the_draws():
    net = mlp([6], input_shape=(5,), n_outputs=4)
    generator = torch.Generator().manual_seed(3)
    params = spread_out(net, torch.float64, gain=2.0)
    x = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    y, active, n_draws = torch.zeros(6, dtype=torch.int64), torch.tensor([0, 1, 3]), 4096
    noise = torch.rand(n_draws, 6, generator=generator, dtype=torch.float64)
    sample, exact = fisher.sample().sum, fisher.exact().sum
    draws = torch.vmap(lambda u: sample(net, params, {}, x, y, u, active))(noise)  # {name: [draws, *shape]}
    expected = exact(net, params, {}, x, y, noise[0], active)
    measured = [name for name, value in expected.items() if (value > 0).any()]
    worst, errors = 0.0, {16: 0.0, 64: 0.0, 256: 0.0}
    for name in measured:
        difference = (draws[name] - expected[name]).flatten(1)
        standard_error = difference.std(0) / n_draws**0.5
        moved = standard_error > 0
        assert (difference[:, ~moved] == 0).all()  # a dead unit or an inactive logit: exactly, every time
        worst = max(worst, float((difference.mean(0).abs() / standard_error)[moved].max()))
        for size in errors:
            errors[size] += float(difference.unflatten(0, (-1, size)).mean(1).square().mean())
    assert worst < 4.5  # standard errors, the largest of 57 entries
    for size in (16, 64):
        assert errors[size] / errors[4 * size] == pytest.approx(4, rel=0.25)  # squared errors shrink like 1 / draws


def test_all_examples_by_name_are_all_examples():
    of = made_pass()
    for implementation in IMPLEMENTATIONS.values():
        for make in implementation.values():
            assert same(of.measure(make(n=N)), of.measure(make()))


@pytest.mark.parametrize("part", [TWO_OF_TEN, ALL_TEN])
def test_exact_is_the_expectation_of_the_labelled_squares(part):
    """Not by drawing: the label's column, weighted by its probability, summed over the labels."""
    of = made_pass(part)
    expected = {name: torch.zeros_like(p) for name, p in of.params.items()}
    p = of.net.apply(of.params, {}, of.x)[0][:, of.active].softmax(1)
    for label in range(len(of.active)):
        for i in range(N):
            one = of._replace(x=of.x[i : i + 1], y=torch.tensor([label]), noise=of.noise[i : i + 1])
            for name, value in one.call(fisher.empirical()).items():
                expected[name] += p[i, label] * value
    assert error(of.call(fisher.exact()), expected) < 1e-12
