"""Importance-sampled labels and examples chosen by score: expectations, variances, limits."""

from unittest import mock

import pytest
import torch
from made_experiments import made_experiment
from made_passes import ALL_TEN, ONE_OF_TEN, SEED, TWO_OF_TEN, N, made_pass, spread_out
from made_trees import error, same, single
from torch import Tensor

from cl_repro.benchmarks import scenarios
from cl_repro.common.errors import UserError
from cl_repro.engine import boundary
from cl_repro.engine.stack import start
from cl_repro.importance import columns, fisher
from cl_repro.importance.by_score import by_score, inclusion_probabilities, systematic
from cl_repro.importance.importance_sample import importance_sample
from cl_repro.types import Tree

DEVIATIONS = [1, 3, 10, 20, 40, 60]
ROWS = 50


def logits(deviation: float, c: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(int(deviation) * 100 + c)
    return (deviation * torch.randn(ROWS, c, generator=generator, dtype=torch.float64)).to(dtype)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def other_classes(c: int, y: int) -> list[int]:
    return [i for i in range(c) if i != y]


def label_gradients(z: Tensor) -> tuple[Tensor, Tensor]:
    """The p [N, C] and p - onehot(y) [N, y, C] in float64, the entry of y by the sum of the others."""
    p, c = z.double().softmax(1), z.shape[1]
    g = p[:, None, :].repeat(1, c, 1)
    for y in range(c):
        g[:, y, y] = -p[:, other_classes(c, y)].sum(1)
    return p, g


def proposal(z: Tensor) -> tuple[Tensor, Tensor]:
    """The q [N, C], as its equation says, and the sum v [N] that it is divided by."""
    p, g = label_gradients(z)
    sizes = p * g.square().sum(2)
    return sizes / sizes.sum(1, keepdim=True), sizes.sum(1)


def of_label(z: Tensor, y: int) -> Tensor:
    """The column if the label y is drawn, [N, C]."""
    with mock.patch.object(torch, "searchsorted", return_value=torch.full((len(z), 1), y)):
        return columns.importance_sample(z, uniform(len(z)))[:, 0]


# --- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("c", [2, 3, 10])
@pytest.mark.parametrize("deviation", DEVIATIONS)
def test_the_expectation_over_labels_is_exact(c, deviation):
    """Every label, times its probability of being drawn: diag(p) - p p^T, each example relative to its own size."""
    z = logits(deviation, c)
    (p, g), (q, v) = label_gradients(z), proposal(z)
    covariance = -p[:, :, None] * p[:, None, :]
    covariance[:, range(c), range(c)] = -p * g[:, range(c), range(c)]  # p_c (1 - p_c)
    found = torch.zeros_like(covariance)
    for y in range(c):
        s = of_label(z, y)
        found += q[:, y, None, None] * s[:, :, None] * s[:, None, :]
    assert ((found - covariance).abs().amax((1, 2)) / v).max() < 1e-12


@pytest.mark.parametrize("deviation", DEVIATIONS)
@pytest.mark.parametrize(("dtype", "tolerance", "tiny"), [(torch.float64, 1e-12, 1e-100), (torch.float32, 2e-6, 1e-18)])
def test_with_two_classes_every_draw_is_exact(deviation, dtype, tolerance, tiny):
    z = logits(deviation, 2, dtype)
    expected = columns.exact(z)[:, 0]
    for y in (0, 1):
        assert ((of_label(z, y).abs() - expected.abs()).abs() <= tolerance * expected.abs() + tiny).all()
    of = made_pass(TWO_OF_TEN)
    exact = of.call(fisher.exact())
    for seed in range(3):
        assert error(of._replace(noise=uniform(N, seed=seed)).call(importance_sample()), exact) < 1e-12


def test_the_expectation_of_a_whole_pass_is_exact():
    of = made_pass(ALL_TEN)
    q, _ = proposal(of.net.apply(of.params, {}, of.x)[0][:, of.active])
    found = {name: torch.zeros_like(p) for name, p in of.params.items()}
    for y in range(len(of.active)):
        for i in range(N):
            one = of._replace(x=of.x[i : i + 1], y=of.y[i : i + 1], noise=of.noise[i : i + 1])
            with mock.patch.object(torch, "searchsorted", return_value=torch.tensor([[y]])):
                total = one.call(importance_sample())
            for name, value in total.items():
                found[name] += q[i, y] * value
    assert error(found, of.call(fisher.exact())) < 1e-12


@pytest.mark.parametrize("deviation", [1, 10, 40])
def test_labels_are_drawn_from_the_proposal(deviation):
    """And their columns are those of the label that was drawn."""
    m = 20_000
    grid = (torch.arange(m, dtype=torch.float64) + 0.5) / m  # every stretch of [0, 1) equally often
    for row in logits(deviation, 4)[:5]:
        s = columns.importance_sample(row.expand(m, -1), grid)[:, 0]
        drawn = s.argmin(1)  # the only entry below 0
        frequency = torch.bincount(drawn, minlength=4) / m
        assert (frequency - proposal(row[None])[0][0]).abs().max() <= 1 / m + 1e-12
        for y in drawn.unique().tolist():
            assert (s[drawn == y] - of_label(row[None], y)).abs().max() < 1e-14


@pytest.mark.parametrize("draws", [1, 2, 5])
@pytest.mark.parametrize("deviation", [1, 10])
def test_the_variance_over_labels_is_the_enumerated_one(draws, deviation):
    """Of (J^T s)^2 for a random J. One draw: sum_y q_y ((p/q) (J^T g_y)^2)^2 - F^2; several are a systematic sample."""
    m, c = 20_000, 4
    grid = (torch.arange(m, dtype=torch.float64) + 0.5) / m
    jacobian = torch.randn(c, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for row in logits(deviation, c)[:5]:
        (p, g), (q, v) = label_gradients(row[None]), proposal(row[None])
        values = p[0] / q[0] * (g[0] @ jacobian).square()  # of each label
        fisher_of = float(p[0] @ (g[0] @ jacobian).square())
        ends = q[0].cumsum(0)
        # the estimate is constant between the noises at which one of its labels changes
        steps = torch.cat([(draws * ends[:-1]) % 1, torch.tensor([0.0, 1.0], dtype=torch.float64)]).sort().values
        middle, width = (steps[1:] + steps[:-1]) / 2, steps.diff()
        at = (middle[:, None] + torch.arange(draws)) / draws
        estimates = values[(at[:, :, None] >= ends[:-1]).sum(2)].mean(1)
        assert float(width @ estimates) == pytest.approx(fisher_of, rel=1e-9)
        variance = float(width @ (estimates - fisher_of).square())
        if draws == 1:
            assert variance == pytest.approx(float(q[0] @ values.square()) - fisher_of**2, abs=1e-9 * float(v) ** 2)
        s = columns.importance_sample(row.expand(m, -1), grid, draws)
        found = (s @ jacobian).square().sum(1)
        assert float((found - fisher_of).square().mean()) == pytest.approx(variance, rel=0.02, abs=1e-3 * fisher_of**2)


@pytest.mark.parametrize("c", [2, 3, 10])
@pytest.mark.parametrize("deviation", [1, 60, 1000, 1e5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_columns_are_finite_and_of_the_size_of_the_variance(c, deviation, dtype):
    """Also where a probability is 0 in float64. The size is that of `exact`, whatever the draw."""
    z = logits(deviation, c, dtype)
    v = columns.variance(z)
    for draws in (1, 3):
        s = columns.importance_sample(z, uniform(ROWS), draws)
        assert s.shape == (ROWS, draws, c)
        assert s.dtype == dtype
        assert s.isfinite().all()
        size, known = s.double().square().sum((1, 2)), v > 1e-30
        assert ((size - v)[known].abs() / v[known]).numpy() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("c", [2, 3, 10])
@pytest.mark.parametrize("deviation", DEVIATIONS)
def test_the_score_is_one_minus_the_sum_of_squares_without_cancelling(c, deviation):
    for dtype in (torch.float32, torch.float64):
        z = logits(deviation, c, dtype)
        p = z.double().softmax(1)
        expected = torch.stack([p[:, y] * p[:, other_classes(c, y)].sum(1) for y in range(c)], 1).sum(1)
        assert ((columns.variance(z) - expected).abs() / expected).max() < 1e-12
        assert (columns.variance(z) - (1 - p.square().sum(1))).abs().max() < 1e-14


# --- examples --------------------------------------------------------------------------------------------------------


def slow_probabilities(s: Tensor, n: int, a: float) -> list[float]:
    """Those that would exceed 1 are set to 1, and what is left is shared by the others; again, until none exceeds 1."""
    total = float(s.sum())
    t = [(1 - a) * (float(x) / total if total else 0.0) + a / len(s) for x in s]
    certain: set[int] = set()
    while True:
        rest = [i for i in range(len(t)) if i not in certain and t[i] > 0]
        left = sum(t[i] for i in rest)
        pi = [1.0 if i in certain else 0.0 for i in range(len(t))]
        for i in rest:
            pi[i] = (n - len(certain)) * t[i] / left
        if all(x <= 1 + 1e-14 for x in pi):
            return pi
        certain |= {i for i, x in enumerate(pi) if x > 1}


@pytest.mark.parametrize("power", [0, 1, 8, 80])
@pytest.mark.parametrize("n", [1, 7, 39, 40])
@pytest.mark.parametrize("a", [0.0, 0.1, 1.0])
def test_inclusion_probabilities_sum_to_n_and_are_at_most_one(power, n, a):
    s = uniform(40) ** power
    pi = inclusion_probabilities(s, n, a)
    assert float(pi.sum()) == pytest.approx(n, rel=1e-12)
    assert ((pi > 0) & (pi <= 1)).all()
    assert pi.tolist() == pytest.approx(slow_probabilities(s, n, a), rel=1e-9)
    if a:
        assert (pi >= a * n / 40 - 1e-15).all()  # no weight above N / (a n)


@pytest.mark.parametrize("n", [1, 3, 5])
def test_where_few_scores_are_positive_those_are_taken(n):
    s = torch.tensor([0, 2.0, 0, 1e-12, 0, 0, 5.0, 0], dtype=torch.float64)
    pi = inclusion_probabilities(s, n, 0.0)
    assert float(pi.sum()) == pytest.approx(min(n, 3))
    assert (pi[s == 0] == 0).all()
    if n >= 3:
        assert (pi[s > 0] == 1).all()
        for u in (0.0, 0.4, 1 - 1e-9):
            at, weight = systematic(pi, n, torch.tensor(u, dtype=torch.float64))
            assert at[:3].tolist() == [1, 3, 6]
            assert weight.tolist() == [1, 1, 1, 0, 0][:n]


def test_scores_of_zero_give_zero():
    assert (inclusion_probabilities(torch.zeros(8, dtype=torch.float64), 3, 0.0) == 0).all()
    assert inclusion_probabilities(torch.zeros(8, dtype=torch.float64), 3, 0.1).tolist() == pytest.approx([3 / 8] * 8)
    of = made_pass(ONE_OF_TEN, scenario=scenarios.class_())  # one active class: nothing is uncertain
    for a in (0.0, 0.1):
        for value in of.measure(by_score(5, a)).values():
            assert (value == 0).all()


def joint(pi: Tensor) -> Tensor:
    """pi_ij [N, N] of a systematic sample, by the overlap of the stretches of u in which i and j are taken."""
    ends = pi.cumsum(0)
    cuts = torch.cat([ends % 1, torch.tensor([0.0, 1.0], dtype=torch.float64)]).sort().values
    middle, width = (cuts[1:] + cuts[:-1]) / 2, cuts.diff()
    below = torch.floor(torch.cat([ends.new_zeros(1), ends])[:, None] - middle)  # points below each end, less one
    taken = below.diff(dim=0)  # [N, pieces]
    return (taken * width) @ taken.T


def squares_of_examples() -> Tensor:
    """[N, P] of a confident network."""
    of = made_pass(ALL_TEN)
    of = of._replace(params=spread_out(of.net, torch.float64, 6.0))
    exact = fisher.exact()
    each = [of._replace(x=of.x[i : i + 1], noise=of.noise[i : i + 1]).call(exact) for i in range(N)]
    return torch.stack([torch.cat([value.flatten() for value in one.values()]) for one in each])


def estimates(scores: Tensor, squares: Tensor, us: Tensor, n: int) -> Tensor:
    """[len(us), P], as the estimator makes them of the squares of examples."""
    choice = by_score(n).choice
    found = []
    for u in us:
        at, weight = choice.pick(scores, u)
        found.append(weight @ squares[at] / len(scores))
    return torch.stack(found)


@pytest.mark.parametrize("n", [3, 9])
def test_the_variance_over_examples_is_that_of_a_systematic_sample(n):
    """Horvitz and Thompson's: sum_ij (pi_ij - pi_i pi_j) (y_i / pi_i) (y_j / pi_j), the order fixed."""
    squares = squares_of_examples()
    scores = squares.sum(1)
    pi = inclusion_probabilities(scores, n, 0.1)
    together = joint(pi)
    assert together.diagonal().tolist() == pytest.approx(pi.tolist(), abs=1e-12)
    y = squares[:, squares.sum(0) > 0] / pi[:, None] / N
    expected = torch.einsum("ip,ij,jp->p", y, together - pi[:, None] * pi, y)
    cuts = torch.cat([pi.cumsum(0) % 1, torch.tensor([0.0, 1.0], dtype=torch.float64)]).sort().values
    of_pieces = estimates(scores, squares, (cuts[1:] + cuts[:-1]) / 2, n)[:, squares.sum(0) > 0]
    exact = squares.mean(0)[squares.sum(0) > 0]
    assert error({"mean": cuts.diff() @ of_pieces}, {"mean": exact}) < 1e-10  # unbiased
    assert error({"variance": cuts.diff() @ (of_pieces - exact).square()}, {"variance": expected}) < 1e-8
    assert (expected > 1e-6 * exact.square()).any()  # or the test shows little


def test_the_mean_of_many_draws_is_exact():
    squares, draws = squares_of_examples(), 2000
    us = uniform(draws, seed=5)
    generator, found = torch.Generator().manual_seed(6), []
    for u in us:  # as a pass: another order each time
        order = torch.randperm(N, generator=generator)
        found.append(estimates(squares.sum(1)[order], squares[order], u[None], 5)[0])
    difference = torch.stack(found) - squares.mean(0)
    standard_error = difference.std(0) / draws**0.5
    moved = squares.sum(0) > 0
    assert (difference[:, ~moved] == 0).all()
    assert (difference.mean(0).abs()[moved] <= 5 * standard_error[moved] + 1e-15).all()
    assert (standard_error[moved] > 1e-4 * squares.mean(0)[moved]).any()


@pytest.mark.parametrize("part", [TWO_OF_TEN, ALL_TEN])
@pytest.mark.parametrize("a", [0.0, 0.1, 1.0])
def test_all_examples_are_exact(part, a):
    of = made_pass(part)
    exact, labels = of.measure(fisher.exact()), of.measure(importance_sample())
    for n in (N, None):
        assert error(of.measure(by_score(n, a)), exact) < 1e-12
        assert error(of.measure(by_score(n, a, draws=1)), labels) < 1e-12


def test_the_engine_counts_examples_by_their_weights():
    """What `estimate` does, spelt out: score all, pick, sum the squares of those that were picked."""
    of = made_pass(ALL_TEN)
    of = of._replace(params=spread_out(of.net, torch.float64, 6.0))
    picked = []
    estimator = by_score(6)
    watched = lambda scores, u: picked.append((scores, *estimator.choice.pick(scores, u))) or picked[-1][1:]  # noqa: E731
    found = of.measure(estimator._replace(choice=estimator.choice._replace(pick=watched)))
    [(scores, at, weight)] = picked
    z = of.net.apply(of.params, {}, of.x)[0][:, of.active]
    assert (scores - columns.variance(z)).abs().max() < 1e-14
    assert 1 < float(weight.max()) < float("inf")
    expected: Tree = {name: torch.zeros_like(p) for name, p in of.params.items()}
    for i, w in zip(at.tolist(), weight.tolist(), strict=True):
        one = of._replace(x=of.x[i : i + 1], y=of.y[i : i + 1], noise=of.noise[i : i + 1])
        for name, value in one.call(fisher.exact()).items():
            expected[name] += w / N * value
    assert error(found, expected) < 1e-12


def test_replicas_choose_by_their_own_scores_with_the_same_random_numbers():
    experiment = made_experiment(rows_per_pass=16)
    stack = start(experiment, [SEED, 1, SEED, SEED])
    for value in stack.params.values():
        value[1] *= 2
        value[2] *= 6  # another network chooses other examples
    for estimator in (by_score(10), by_score(10, draws=2), importance_sample()):
        found = boundary.measure(experiment, stack, 1, [estimator] * 4)
        assert same(single(found, 0), single(found, 3))
        for k, seed in enumerate(stack.seeds):
            params = {name: p[k : k + 1] for name, p in stack.params.items()}
            assert error(single(found, k), boundary.estimate(experiment, params, {}, estimator, seed, 1)) < 1e-12


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: importance_sample(draws=0), "fisher.draws=0: must be at least 1"),
        (lambda: importance_sample(0), "fisher.n=0: the number of examples must be at least 1, or null for all"),
        (lambda: by_score(0), "fisher.n=0: the number of examples must be at least 1, or null for all"),
        (lambda: by_score(5, 1.5), "fisher.uniform_share=1.5: must be in [0, 1]"),
        (lambda: by_score(5, float("nan")), "fisher.uniform_share=nan: must be in [0, 1]"),
        (lambda: by_score(5, draws=-1), "fisher.draws=-1: must be at least 1"),
        (
            lambda: made_pass().measure(by_score(N + 1)),
            f"fisher.n={N + 1}: task 2 of seed 2 has {N} examples; n must not be larger",
        ),
    ],
)
def test_bad_settings_are_refused_in_one_line(make, message):
    with pytest.raises(UserError) as caught:
        make()
    assert str(caught.value) == message
