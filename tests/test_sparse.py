"""Sparse representations: sharpened targets, competing units, and runs against a plain loop."""

import math

import pytest
import torch
from made_experiments import digits, made_experiment, run, thinned
from made_trees import error, same, single
from torch import Tensor
from torch.nn import functional

from cl_repro.common import rng
from cl_repro.common.errors import UserError
from cl_repro.engine import Experiment, Replica, batches
from cl_repro.memory import end_of_task
from cl_repro.methods.baselines import finetune
from cl_repro.methods.replay import replay
from cl_repro.methods.sharpening import sharpened, sharpening
from cl_repro.models.mlp import mlp
from cl_repro.models.winners import compete, winners
from cl_repro.types import Examples, Step, Tree


def activations(n: int = 6, units: int = 9) -> Tensor:
    drawn = torch.randn(n, units, generator=torch.Generator().manual_seed(n), dtype=torch.float64).relu()
    drawn[0] = 0
    return drawn


# --- node sharpening -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 5.0, 1e4])
def test_sharpened_activations_keep_their_sum_order_and_scale(sharpness):
    h = activations()
    found = sharpened(h, sharpness)
    assert (found.sum(1) - h.sum(1)).abs().max() < 1e-12
    assert (found[0] == 0).all()
    assert (sharpened(7 * h, sharpness) - 7 * found).abs().max() < 1e-11
    for row, of in zip(h[1:], found[1:], strict=True):
        assert (of[row.argsort()].diff() >= 0).all()


def test_sharpened_activations_go_from_the_mean_to_one_winner():
    h = activations()[1:]
    assert (sharpened(h, 0.0) - h.mean(1, keepdim=True)).abs().max() < 1e-14
    winner = functional.one_hot(h.argmax(1), h.shape[1]) * h.sum(1, keepdim=True)
    assert (sharpened(h, 1e5) - winner).abs().max() < 1e-12
    for row, plain in zip(sharpened(h, 2.0), h, strict=True):
        weight = [math.exp(2 * x / plain.mean()) for x in plain]
        assert row.tolist() == pytest.approx([float(plain.sum()) * w / sum(weight) for w in weight])


def setting(**changes) -> Experiment:
    return made_experiment(thinned(digits(), 24), **({"batch_size": 6, "iterations": 7} | changes))


def plain(experiment: Experiment, seed: int, lam: float, sharpness: float) -> Tree:
    """Final weights: one loop over cross-entropy + lam mean_n sum_i (h - h*)^2, from the first step on."""
    benchmark = experiment.benchmark
    params = {name: p.double().requires_grad_() for name, p in experiment.net.init(rng.stream(seed, "init"))[0].items()}
    adam = torch.optim.Adam(list(params.values()), lr=1e-2)
    for t, task in enumerate(benchmark.curriculum(seed).tasks):
        drawn, classes = batches.batches(experiment, [seed], t, (t,)), list(task.classes)
        for i in range(7):
            x = benchmark.to_input(benchmark.x[drawn.rows[0, i]]).flatten(1)
            h = functional.linear(x, params["fc1.weight"], params["fc1.bias"]).relu()
            z = functional.linear(h, params["head.weight"], params["head.bias"])[:, classes]
            label = torch.tensor([classes.index(c) for c in drawn.label[0, i].tolist()])
            target = [row.sum() * (sharpness * row / row.mean()).softmax(0) for row in h.detach()]
            distance = sum(((row - to) ** 2).sum() for row, to in zip(h, target, strict=True))
            adam.zero_grad()
            (functional.cross_entropy(z, label) + lam * distance / len(h)).backward()
            adam.step()
    return {name: p.detach() for name, p in params.items()}


@pytest.mark.parametrize("sharpness", [1.0, 5.0])
def test_a_run_of_sharpening_is_the_plain_loop(sharpness):
    experiment = setting()
    found = run(experiment, sharpening(sharpness), [Replica(2, 0.3, None)]).params
    assert error({n: p[0] for n, p in found.items()}, plain(experiment, 2, 0.3, sharpness)) < 1e-9


def test_replicas_of_a_stack_are_the_singles_and_share_no_first_task():
    """Its lambda matters from the first step on, also where first tasks may be shared."""
    experiment = setting(share_first_task=True)
    rows = [Replica(seed, lam, None) for seed, lam in ((2, 0.3), (1, 0.0), (2, 0.0))]
    together = run(experiment, sharpening(), rows)
    for i, row in enumerate(rows):
        alone = run(experiment._replace(share_first_task=False), sharpening(), [row])
        assert error(single(together.params, i), single(alone.params, 0)) < 1e-9
    first, _, third = together.outcomes
    assert (first.accuracy[0] == third.accuracy[0]).all()
    # Bit for bit in a stack of as many: products of another shape may be summed in another order.
    assert same(single(together.params, 2), single(run(setting(), finetune(), rows).params, 2))


def sharpening_loss(a: Tensor, lam: float) -> tuple[Tensor, Tensor]:
    """What training minimises where the head reads a [B, units], and its gradient by a."""
    a, label = a.clone().requires_grad_(), torch.zeros(len(a), dtype=torch.int64)
    batch = Examples(torch.zeros(len(a), 2).double(), label, torch.ones(len(a), 2, dtype=torch.bool), hidden=a)
    value = sharpening().loss(
        torch.tensor(lam, dtype=torch.float64), Step(batch, None, torch.zeros(0, 2, dtype=torch.bool))
    )
    return value.detach(), torch.autograd.grad(value, a)[0]


def test_of_signed_features_what_is_above_zero_is_sharpened():
    """As if the others were 0, and no gradient reaches them; an example that activates nothing adds nothing."""
    signed = torch.randn(8, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.5
    signed[3] = -signed[3].abs()
    assert (signed.sum(1) < 0).any()
    value, slope = sharpening_loss(signed, 0.3)
    positive = signed.relu()
    distance = sum(((h - sharpened(h[None], 5.0)[0]) ** 2).sum() for h in positive) / len(signed)
    assert value == pytest.approx(math.log(2) + 0.3 * float(distance), rel=1e-12)
    expected = torch.where(signed > 0, 2 * 0.3 * (positive - sharpened(positive, 5.0)) / len(signed), 0.0)
    assert (slope - expected).abs().max() < 1e-14
    assert (sharpening_loss(signed, 0.0)[1] == 0).all()
    assert sharpening_loss(signed[3:4], 0.3)[0] == pytest.approx(math.log(2))


def test_of_features_that_are_not_negative_the_loss_is_as_written_bit_for_bit():
    h = activations()
    value, slope = sharpening_loss(h, 0.3)
    leaf = h.clone().requires_grad_()
    plainly = (leaf - sharpened(h, 5.0)).square().sum(1).mean()
    of_z = functional.cross_entropy(torch.zeros(6, 2).double(), torch.zeros(6, dtype=torch.int64))
    assert value == of_z + torch.tensor(0.3, dtype=torch.float64) * plainly
    expected = torch.autograd.grad(torch.tensor(0.3, dtype=torch.float64) * plainly, leaf)[0]
    assert torch.equal(slope[h > 0], expected[h > 0])  # at 0 the ReLU below stops both


def test_sharpening_concentrates_what_the_head_reads():
    experiment = setting(iterations=150)
    shares = []
    for lam in (0.0, 1.0):
        params = {n: p[0] for n, p in run(experiment, sharpening(), [Replica(1, lam, None)]).params.items()}
        x = experiment.benchmark.to_input(experiment.benchmark.x_test).flatten(1)
        h = functional.linear(x, params["fc1.weight"], params["fc1.bias"]).relu()
        alive = h[h.sum(1) > 0]
        shares.append(float((alive.max(1).values / alive.sum(1)).mean()))
    assert shares[1] > 1.5 * shares[0]


def test_the_value_of_a_sharpness_is_checked():
    for wrong in (-1.0, math.inf, math.nan):
        with pytest.raises(UserError, match=r"method.sharpness=.*: must be a finite number of at least 0"):
            sharpening(wrong)


# --- k winners -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fraction", "k"), [(0.01, 1), (0.25, 3), (0.3, 3), (0.5, 5), (1.0, 9)])
def test_as_many_units_win_as_the_fraction_says(fraction, k):
    a = torch.randn(50, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 3  # all above zero
    h = compete(a, fraction)
    assert ((h > 0).sum(1) == k).all()
    for row, of in zip(a, h, strict=True):
        largest = set(row.argsort()[-k:].tolist())
        assert {i for i in range(9) if of[i] > 0} == largest
        assert all(of[i] == row[i] for i in largest)
    assert (compete(-a.abs(), fraction) == 0).all()


def test_a_fraction_that_is_a_number_of_units_is_that_many():
    """Though 0.07 x 100 is more than 7 in floating point; and of the smallest fraction one unit wins."""
    a = torch.randn(2, 100, generator=torch.Generator().manual_seed(4)).abs() + 1
    for k in range(1, 101):
        assert ((compete(a, k / 100) > 0).sum(1) == k).all()
    assert ((compete(a, 1e-12) > 0).sum(1) == 1).all()


def test_gradients_reach_the_winners_only():
    a = (torch.randn(8, 9, generator=torch.Generator().manual_seed(3)) + 3).requires_grad_()
    h = compete(a, 0.3)
    (g,) = torch.autograd.grad(h.sum(), a)
    assert ((g != 0) == (h > 0)).all()
    assert set(g.unique().tolist()) == {0.0, 1.0}


def test_where_all_win_it_is_the_mlp_bit_for_bit():
    given = {"input_shape": (8, 8), "n_outputs": 10}
    base = setting()
    runs = [
        run(base._replace(net=net), finetune(), [Replica(1, 0.0, None), Replica(3, 0.0, None)]).params
        for net in (mlp([12], **given), winners([12], 1.0, **given), winners([12], 0.2, **given))
    ]
    assert same(runs[0], runs[1])
    assert error(runs[0], runs[2]) > 1e-3


def test_a_stack_of_winners_is_the_singles_and_replays():
    net = winners([12, 9], 0.25, input_shape=(8, 8), n_outputs=10)
    experiment, rows = setting()._replace(net=net), [Replica(seed, 1.0, None) for seed in (2, 1)]
    together = run(experiment, replay(end_of_task(10)), rows)
    for i, row in enumerate(rows):
        alone = run(experiment, replay(end_of_task(10)), [row])
        assert error(single(together.params, i), single(alone.params, 0)) < 1e-9


@pytest.mark.parametrize("fraction", [0.0, 1.5, -0.1])
def test_fractions_that_mean_nothing_are_refused(fraction):
    with pytest.raises(UserError, match=f"model.fraction={fraction}: must be above 0 and at most 1"):
        winners([4], fraction, input_shape=(8, 8), n_outputs=10)
