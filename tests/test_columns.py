"""The columns that are backpropagated: their algebra, on logits from undecided to very confident."""

import pytest
import torch
from torch import Tensor

from cl_repro.importance import columns

DEVIATIONS = [1, 3, 10, 20, 40, 60]
N = 2000


def logits(deviation: float, c: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(int(deviation) * 100 + c)
    return (deviation * torch.randn(N, c, generator=generator, dtype=torch.float64)).to(dtype)


def covariance(z: Tensor) -> tuple[Tensor, Tensor]:
    """diag(p) - p p^T in float64, and its diagonal p_c sum_{i != c} p_i, where nothing cancels."""
    p = z.double().softmax(1)
    others = torch.stack([p[:, [i for i in range(z.shape[1]) if i != c]].sum(1) for c in range(z.shape[1])], 1)
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :], p * others


def product_form(z: Tensor) -> Tensor:
    """The factor as the textbook writes it: the product form that `columns.exact` avoids."""
    n, c = z.shape
    p = z.softmax(1)
    q = p.flip(1).cumsum(1).flip(1)
    s = torch.zeros(n, c - 1, c, dtype=z.dtype)
    for j in range(c - 1):
        s[:, j, j] = (p[:, j] * q[:, j + 1] / q[:, j]).sqrt()
        for i in range(j + 1, c):
            s[:, j, i] = -p[:, i] * (p[:, j] / (q[:, j] * q[:, j + 1])).sqrt()
    return s


def gram_error(s: Tensor, z: Tensor) -> float:
    """The largest entry of |S^T S - (diag(p) - p p^T)|; infinite if any is not a number."""
    s = s.double()
    difference = (s.mT @ s - covariance(z)[0]).abs()
    return float(difference.nan_to_num(torch.inf).max())


@pytest.mark.parametrize("c", [2, 3, 10])
@pytest.mark.parametrize("deviation", DEVIATIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-7), (torch.float64, 1e-15)])
def test_exact_columns_are_a_factor_of_the_covariance(c, deviation, dtype, tolerance):
    z = logits(deviation, c, dtype)
    s = columns.exact(z)
    assert s.shape == (N, c - 1, c)
    assert s.dtype == dtype
    assert s.isfinite().all()
    assert gram_error(s, z) < tolerance


@pytest.mark.parametrize("c", [2, 3, 10])
@pytest.mark.parametrize("deviation", DEVIATIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-5), (torch.float64, 1e-13)])
def test_exact_columns_resolve_tiny_probabilities(c, deviation, dtype, tolerance):
    """p_c (1 - p_c) to many digits also where it is 1e-30: a confident network has nothing else."""
    z = logits(deviation, c, dtype)
    found, expected = columns.exact(z).double().square().sum(1), covariance(z)[1]
    above = expected > 1e-30  # float32 ends at 1e-38
    assert above.sum() > N / 4
    assert ((found - expected).abs() / expected)[above].max() < tolerance


def test_the_product_form_would_fail_these_tests():
    """It is as good as the log form on undecided networks, and not a number on confident ones in float32."""
    for deviation in (1, 3):
        z = logits(deviation, 10, torch.float32)
        assert gram_error(product_form(z), z) < 2e-7
    for deviation in (20, 40, 60):
        z = logits(deviation, 10, torch.float32)
        assert not product_form(z).isfinite().all()


def test_two_classes_have_one_column():
    z = logits(3, 2, torch.float64)
    p = z.softmax(1)
    expected = (p[:, 0] * p[:, 1]).sqrt()[:, None] * torch.tensor([1.0, -1.0], dtype=torch.float64)
    assert (columns.exact(z)[:, 0] - expected).abs().max() < 1e-15


@pytest.mark.parametrize("c", [2, 3, 10])
def test_columns_sum_to_zero_as_gradients_of_a_softmax_do(c):
    z = logits(3, c, torch.float64)
    y = torch.arange(N) % c
    for s in (columns.exact(z), columns.towards(z, y)):
        assert s.sum(2).abs().max() < 1e-14


@pytest.mark.parametrize("c", [2, 3, 10])
@pytest.mark.parametrize("deviation", DEVIATIONS)
def test_towards_a_label_is_the_gradient_of_its_cross_entropy(c, deviation):
    z = logits(deviation, c, torch.float64).requires_grad_()
    y = torch.arange(N) % c
    expected = torch.autograd.grad(torch.nn.functional.cross_entropy(z, y, reduction="sum"), z)[0]
    s = columns.towards(z.detach(), y)
    assert s.shape == (N, 1, c)
    assert (s[:, 0] - expected).abs().max() < 1e-14


def test_towards_keeps_tiny_entries_in_float32():
    z = logits(40, 2, torch.float32)
    y = z.argmax(1)  # right, and sure of it
    others = z.double().softmax(1).scatter(1, y[:, None], 0.0).sum(1)  # 1 - p_y, without cancelling
    above = others > 1e-30

    def relative_error(s: Tensor) -> float:
        own = s.double().gather(1, y[:, None])[:, 0]
        return float(((own + others).abs() / others)[above].max())

    assert relative_error(columns.towards(z, y)[:, 0]) < 1e-4
    naive = z.softmax(1) - torch.nn.functional.one_hot(y, 2)
    assert relative_error(naive) == 1.0  # p_y - 1 is 0


def test_draws_follow_the_probabilities():
    m = 100_000
    grid = (torch.arange(m, dtype=torch.float64) + 0.5) / m  # every stretch of [0, 1) equally often
    for z in (logits(1, 10, torch.float32)[:3], logits(3, 3, torch.float64)[:3]):
        for row in z:
            drawn = columns.draw(row.expand(m, -1), grid)
            frequency = torch.bincount(drawn, minlength=len(row)) / m
            assert (frequency - row.double().softmax(0)).abs().max() <= 1 / m + 1e-12


@pytest.mark.parametrize("place", [0, 1, 2])
def test_improbable_labels_are_drawn_only_when_the_noise_says_so(place):
    """A label of probability 1e-11 owns a stretch of 1e-11 of the noise; a float32 grid meets it at 0.0 only."""
    p = torch.tensor([0.3, 0.7], dtype=torch.float64)
    p = torch.cat([p[:place], torch.tensor([1e-11], dtype=torch.float64), p[place:]])
    begin = float(p[:place].sum() / p.sum())
    inside, below, above = begin + 5e-12, begin - 1e-12, begin + 1.2e-11
    noise = torch.tensor([u for u in (inside, below, above) if 0 <= u < 1], dtype=torch.float64)
    expected = [place] + [place - 1] * (below >= 0) + [place + 1] * (above < 1)
    assert columns.draw(p.log().expand(len(noise), 3), noise).tolist() == expected
    nearest = torch.arange(-500, 500, dtype=torch.float64) + round(begin * 2**24)
    grid = nearest[(nearest >= 0) & (nearest < 2**24)] / 2**24  # the values torch.rand has in float32
    drawn = columns.draw(p.log().expand(len(grid), 3), grid)
    assert len(grid) >= 500
    assert grid[drawn == place].tolist() == ([0.0] if place == 0 else [])  # at 0.0 it must


def test_labels_of_probability_zero_are_never_drawn():
    z = torch.tensor([[-torch.inf, 0.0, -torch.inf, 1.0, -torch.inf]], dtype=torch.float64).expand(1001, -1)
    noise = torch.cat([torch.arange(1000, dtype=torch.float64) / 1000, torch.tensor([1 - 2**-53], dtype=torch.float64)])
    assert set(columns.draw(z, noise).tolist()) == {1, 3}
