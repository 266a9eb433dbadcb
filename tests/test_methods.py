"""The contract: what every method must keep to."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from made_experiments import digits, made_experiment, run
from made_trees import SHAPES, after, copied, error, positive, same, tensors, tree
from torch import Tensor

from cl_repro.engine import Replica
from cl_repro.importance import fisher
from cl_repro.importance import one_sample as slow
from cl_repro.importance.batched import batched
from cl_repro.importance.one_sample import one_sample
from cl_repro.methods.baselines import finetune, joint
from cl_repro.methods.ewc import ewc
from cl_repro.methods.ewc_offline import ewc_offline
from cl_repro.types import Method, Tree

# The contract suite: one line per method.
METHODS: dict[str, Callable[[], Method]] = {
    "finetune": finetune,
    "joint": joint,
    "ewc": ewc,
    "ewc-gamma": partial(ewc, gamma=0.5),
    "ewc_offline": ewc_offline,
}
PENALISING = [name for name, make in METHODS.items() if make().penalty_grad]
# lambda = 0 must make these finetune
PROTECTING = [name for name, make in METHODS.items() if make().end_task]

DTYPES = [torch.float32, torch.float64]


@pytest.mark.parametrize("name", PENALISING)
@pytest.mark.parametrize("dtype", DTYPES)
def test_hooks_are_pure_and_deterministic(name, dtype):
    method = METHODS[name]()
    params, importance, lam = tree(1, dtype), positive(2, dtype), torch.tensor(30.0, dtype=dtype)

    def twice(hook: Callable[..., Any], *given: Any) -> Any:
        before = copied(given)
        first, second = hook(*given), hook(*given)
        assert same(given, before)
        assert same(first, second)
        return first

    state = twice(method.init, params, lam)
    for seed in (3, 4):
        state = twice(method.end_task, state, tree(seed, dtype), importance)
        twice(method.penalty_grad, state, params)


@pytest.mark.parametrize("name", PENALISING)
@pytest.mark.parametrize("dtype", DTYPES)
def test_state_shares_no_memory_with_the_weights(name, dtype):
    """The optimiser moves the weights in place; an anchor that moves along protects nothing."""
    method, params, importance = METHODS[name](), tree(1, dtype), positive(2, dtype)
    state = after(method, 30.0, [(params, importance)])
    before = copied(state)
    for value in (*params.values(), *importance.values()):
        value.add_(1)
    assert same(state, before)


@pytest.mark.parametrize("name", PENALISING)
@pytest.mark.parametrize("dtype", DTYPES)
def test_state_has_the_same_shapes_and_dtypes_after_one_task_and_after_five(name, dtype):
    method = METHODS[name]()
    tasks = [(tree(t, dtype), positive(10 + t, dtype)) for t in range(5)]
    states = [method.init(tasks[0][0], torch.tensor(30.0, dtype=dtype))]
    states += [after(method, 30.0, tasks[:n]) for n in (1, 5)]
    described = [[(t.shape, t.dtype) for t in tensors(state)] for state in states]
    assert described[0] == described[1] == described[2]
    assert {t.dtype for t in tensors(states[-1])} == {dtype}
    structures = [torch.utils._pytree.tree_structure(state) for state in states]
    assert structures[0] == structures[1] == structures[2]


@pytest.mark.parametrize("name", PENALISING)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_pulls_where_importance_is_zero(name, dtype):
    tasks = [(tree(t, dtype), positive(10 + t, dtype)) for t in range(4)]
    for t, (_, importance) in enumerate(tasks):
        importance["a.weight"][0] = 0  # never important
        importance["a.weight"][1] *= t >= 2  # not at first
        importance["a.weight"][2] *= t < 2  # not at last
        importance["a.bias"].zero_()
    method = METHODS[name]()
    pull = method.penalty_grad(after(method, 1e13, tasks), tree(99, dtype))
    assert (pull["a.weight"][0] == 0).all()
    assert (pull["a.bias"] == 0).all()
    assert pull["a.weight"][1:].isfinite().all()
    assert (pull["a.weight"][1:] != 0).all()


@pytest.mark.parametrize("name", PENALISING)
def test_untrained_state_does_not_pull(name):
    method = METHODS[name]()
    pull = method.penalty_grad(method.init(tree(1), torch.tensor(1e13, dtype=torch.float64)), tree(2))
    assert all((value == 0).all() for value in pull.values())


@pytest.mark.parametrize("name", PENALISING)
@pytest.mark.parametrize("dtype", DTYPES)
def test_hooks_under_vmap_are_the_hooks(name, dtype):
    method, lams = METHODS[name](), [0.0, 3.0, 1e13]
    anchors, importances, params = (
        [make(s + k, dtype) for k in range(3)] for s, make in ((1, tree), (5, positive), (9, tree))
    )

    def pull(anchor: Tree, importance: Tree, params: Tree, lam: Tensor) -> Tree:
        state = method.end_task(method.init(anchor, lam), anchor, importance)
        state = method.end_task(state, params, importance)
        return method.penalty_grad(state, anchor)

    stacked = [{n: torch.stack([t[n] for t in trees]) for n in SHAPES} for trees in (anchors, importances, params)]
    found = torch.vmap(pull)(*stacked, torch.tensor(lams, dtype=dtype))
    for k, lam in enumerate(lams):
        expected = pull(anchors[k], importances[k], params[k], torch.tensor(lam, dtype=dtype))
        assert same({n: v[k] for n, v in found.items()}, expected)


ESTIMATORS = {
    "exact": fisher.exact(),
    "exact-50": fisher.exact(50),
    "sample": fisher.sample(),
    "empirical": fisher.empirical(),
    "predicted": fisher.predicted(),
    "batched": batched(16),
    "one_sample": one_sample("all", 20),
    "one_sample-batched": slow.batched(16),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PROTECTING)
def test_lambda_zero_is_finetune_bit_for_bit(name, dtype):
    experiment = made_experiment(dtype=dtype)
    rows = [Replica(seed, 0.0, estimator) for seed in (1, 2) for estimator in ESTIMATORS.values()]
    expected = run(experiment, finetune(), rows)
    found = run(experiment, METHODS[name](), rows)
    assert same(found.params, expected.params)
    for a, b in zip(found.outcomes, expected.outcomes, strict=True):
        assert (a.accuracy == b.accuracy).all()
        assert len(a.traces) == 4
        assert min(a.traces) > 0
        assert b.traces == []


@pytest.mark.parametrize("name", PROTECTING)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_lambda_zero_is_finetune_for_a_single_replica_and_lambda_matters(name, estimator):
    experiment = made_experiment(dtype=torch.float32)._replace(benchmark=digits(2, torch.float32))
    expected = run(experiment, finetune(), [Replica(3, 0.0, None)]).params
    free, held = (
        run(experiment, METHODS[name](), [Replica(3, lam, ESTIMATORS[estimator])]).params for lam in (0.0, 1e6)
    )
    assert same(free, expected)
    assert error(held, expected) > 1e-2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PROTECTING)
def test_a_task_starts_without_a_pull_where_only_the_last_one_matters(name, dtype):
    """Exactly: Adam's first step after a reset makes a whole learning rate of however small a gradient."""
    nothing = {key: torch.zeros_like(value) for key, value in positive(1, dtype).items()}
    tasks = [(tree(1, dtype), nothing), (tree(2, dtype), positive(2, dtype))]
    method = METHODS[name]()
    pull = method.penalty_grad(after(method, 1e13, tasks), tree(2, dtype))
    assert all((value == 0).all() for value in pull.values())
