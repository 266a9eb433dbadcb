"""The penalties of EWC against autograd and closed forms."""

from collections.abc import Callable

import pytest
import torch
from made_trees import SHAPES, after, error, positive, random_tree, same, tree
from torch import Tensor

from cl_repro.common.errors import UserError
from cl_repro.methods.ewc import ewc
from cl_repro.methods.ewc_offline import ewc_offline
from cl_repro.types import Tree

DTYPES = [torch.float32, torch.float64]


def autograd(loss: Callable[[Tree], Tensor], params: Tree) -> Tree:
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    return dict(zip(leaves, torch.autograd.grad(loss(leaves), list(leaves.values())), strict=True))


def penalty(lam: float, importance: Tree, anchor: Tree, params: Tree) -> Tensor:
    """(lam/2) sum F d^2; with F * d * d autograd would round differently."""
    half = torch.tensor(lam, dtype=params["scale"].dtype) / 2
    return half * sum((importance[name] * (p - anchor[name]).square()).sum() for name, p in params.items())


# --- EWC ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-3, 1e-12])
@pytest.mark.parametrize("lam", [1.0, 1e4, 7.3e8, 1e13])
@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_ewc_is_autograd_of_its_loss_bit_for_bit(dtype, scale, lam, gamma):
    shapes = {"w": (100_000,), "scale": ()}
    importance = {name: scale * value.square() for name, value in random_tree(shapes, 1, dtype).items()}
    anchor, step = (random_tree(shapes, seed, dtype) for seed in (2, 3))
    params = {name: value + 1e-2 * step[name] for name, value in anchor.items()}
    state = after(ewc(gamma), lam, [(anchor, importance)])
    decayed = {name: gamma * f for name, f in importance.items()}
    expected = autograd(lambda p: penalty(lam, decayed, anchor, p), params)
    assert same(ewc(gamma).penalty_grad(state, params), expected)
    assert (expected["w"] != 0).all()


@pytest.mark.parametrize("gamma", [1.0, 0.5, 0.0])
def test_online_ewc_keeps_the_last_anchor_and_a_decaying_importance(gamma):
    """Omega_k = F_k + gamma Omega_(k-1), and the penalty after task k is (lam/2) gamma Omega_k (theta - theta*_k)^2."""
    tasks = [(tree(10 + t), positive(20 + t)) for t in range(4)]
    params, omega = tree(1), {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    for k in range(len(tasks)):
        omega = {name: tasks[k][1][name] + gamma * omega[name] for name in SHAPES}
        weight = {name: gamma * value for name, value in omega.items()}
        expected = autograd(lambda p, k=k, w=weight: penalty(30.0, w, tasks[k][0], p), params)
        found = ewc(gamma).penalty_grad(after(ewc(gamma), 30.0, tasks[: k + 1]), params)
        assert error(found, expected) < 1e-14


@pytest.mark.parametrize("gamma", [-0.1, 1.5, float("nan")])
def test_a_decay_outside_its_range_is_refused(gamma):
    with pytest.raises(UserError, match=rf"^method.gamma={gamma}: must be from 0 to 1$"):
        ewc(gamma)


def quadratic(seed: int) -> tuple[Tree, Tree]:
    """A task whose loss is sum h (theta - b)^2 / 2: its curvature h, which is its Fisher, and its minimiser b."""
    return {name: 0.1 + h for name, h in positive(seed).items()}, tree(seed + 100)


@pytest.mark.parametrize("method", [ewc(), ewc_offline()], ids=["ewc", "ewc_offline"])
@pytest.mark.parametrize("lam", [0.5, 1.0, 1e4])
def test_the_closed_form_minimiser_of_a_quadratic_task_is_stationary(method, lam):
    """Minimise h2 (theta - b2)^2 / 2 + lam h1 (theta - b1)^2 / 2: theta = (h2 b2 + lam h1 b1) / (h2 + lam h1)."""
    (h1, b1), (h2, b2) = quadratic(1), quadratic(2)
    theta = {n: (h2[n] * b2[n] + lam * h1[n] * b1[n]) / (h2[n] + lam * h1[n]) for n in SHAPES}
    pull = method.penalty_grad(after(method, lam, [(b1, h1)]), theta)
    for name in SHAPES:
        task = h2[name] * (theta[name] - b2[name])
        assert (task.abs() > 1e-6).all()
        assert torch.allclose(pull[name], -task, rtol=1e-10, atol=0)


def test_ewc_learns_a_sequence_of_quadratic_tasks_as_well_as_all_at_once():
    """With lambda 1 and the true curvature, the anchor of online EWC is the minimiser of the sum of all losses."""
    tasks = [quadratic(t) for t in range(5)]
    method, theta = ewc(), tasks[0][1]
    state = after(method, 1.0, [(theta, tasks[0][0])])
    for k in range(1, 5):
        curvature = {n: sum(h[n] for h, _ in tasks[: k + 1]) for n in SHAPES}
        theta = {n: sum(h[n] * b[n] for h, b in tasks[: k + 1]) / curvature[n] for n in SHAPES}
        h, b = tasks[k]
        pull = method.penalty_grad(state, theta)
        for name in SHAPES:
            task = h[name] * (theta[name] - b[name])
            assert torch.allclose(pull[name], -task, rtol=1e-9, atol=1e-13)
        state = method.end_task(state, theta, h)


# --- EWC offline ----------------------------------------------------------------------------------------------------


def separate_penalties(lam: float, tasks: list[tuple[Tree, Tree]], params: Tree) -> tuple[Tree, Tree]:
    """Gradient of the sum of one penalty per task, in float64, and the sum of the absolute values of its terms."""
    terms = {
        name: [lam * f[name].double() * (p.double() - anchor[name].double()) for anchor, f in tasks]
        for name, p in params.items()
    }
    return {n: sum(t) for n, t in terms.items()}, {n: sum(map(torch.abs, t)) for n, t in terms.items()}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("step", [1.0, 1e-2, 1e-5])  # how far tasks move the weights
@pytest.mark.parametrize("scale", [1.0, 1e-12])
def test_offline_ewc_is_the_sum_of_one_penalty_per_task(dtype, tolerance, step, scale):
    """Relative to the sum of the terms' absolute values.

    The centre has 48 bits in float32 and 53 in float64; in float64 its rounding is what remains when the tasks lie
    close together.
    """
    shape, lam = {"w": (5000,), "scale": ()}, 1e4
    anchors = [random_tree(shape, 1, dtype)]
    for t in range(3):
        anchors.append({n: a + step * random_tree(shape, 2 + t, dtype)[n] for n, a in anchors[-1].items()})
    # importances of one weight differ by many orders of magnitude between tasks
    importances = [{n: scale * (3 * v).exp() for n, v in random_tree(shape, 10 + t, dtype).items()} for t in range(4)]
    tasks = list(zip(anchors, importances, strict=True))
    params = {n: a + step * random_tree(shape, 20, dtype)[n] for n, a in anchors[-1].items()}
    found = ewc_offline().penalty_grad(after(ewc_offline(), lam, tasks), params)
    expected, size = separate_penalties(lam, tasks, params)
    for name, value in expected.items():
        rounding = 2**-50 * lam * sum(f[name].double() for f in importances) * params[name].double().abs()
        allowed = tolerance * size[name] + (rounding if dtype == torch.float64 else 0)
        assert ((found[name].double() - value).abs() <= allowed).all()
    if dtype == torch.float32 and step == 1e-5:  # the obvious A theta - B would not do
        a, b = sum(f["w"] for f in importances), sum(f["w"] * c["w"] for c, f in tasks)
        collapsed = lam * (a * params["w"] - b)
        assert ((collapsed.double() - expected["w"]).abs() / size["w"]).max() > 1e-2


@pytest.mark.parametrize("dtype", DTYPES)
def test_offline_is_online_bit_for_bit_while_there_is_one_old_task(dtype):
    tasks, params = [(tree(1, dtype), positive(2, dtype))], tree(3, dtype)
    found = [method.penalty_grad(after(method, 50.0, tasks), params) for method in (ewc(), ewc_offline())]
    assert same(*found)
