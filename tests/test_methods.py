"""The contract: what every method must keep to."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any
from unittest import mock

import pytest
import torch
from made_experiments import Run, digits, first_tasks, made_experiment, run
from made_trees import SHAPES, copied, error, positive, same, tensors, tree
from torch import Tensor

from cl_repro.engine import Experiment, Replica, replicas
from cl_repro.engine.course import Course
from cl_repro.importance import fisher
from cl_repro.importance import one_sample as slow
from cl_repro.importance.batched import batched
from cl_repro.importance.one_sample import one_sample
from cl_repro.memory import end_of_task, reservoir, ring
from cl_repro.methods.baselines import finetune, joint
from cl_repro.methods.context import context
from cl_repro.methods.der import der
from cl_repro.methods.ewc import ewc
from cl_repro.methods.ewc_offline import ewc_offline
from cl_repro.methods.gpm import gpm
from cl_repro.methods.l2 import l2, magnitude
from cl_repro.methods.la_maml import la_maml
from cl_repro.methods.lwf import lwf
from cl_repro.methods.ogd import ogd
from cl_repro.methods.quadratic import quadratic
from cl_repro.methods.replay import replay
from cl_repro.methods.sharpening import sharpening
from cl_repro.methods.sos import sos
from cl_repro.methods.synaptic_intelligence import si, sib, siu
from cl_repro.types import Method, Tree

# The contract suite: one line per method, by where its importance comes from.
NONE: dict[str, Callable[[], Method]] = {
    "finetune": finetune,
    "joint": joint,
}
ESTIMATED: dict[str, Callable[[], Method]] = {
    "ewc": ewc,
    "ewc-gamma": partial(ewc, gamma=0.5),
    "ewc_offline": ewc_offline,
    "quadratic": quadratic,
}
OBSERVED: dict[str, Callable[[], Method]] = {
    "si": partial(si, xi=0.1),
    "siu": partial(siu, xi=0.1),
    "sib": partial(sib, xi=0.1),
    "sos": sos,
    "sos-alpha": partial(sos, alpha=1.0),
    "sos-corrected": partial(sos, bias_correction=True),
}
OF_WEIGHTS: dict[str, Callable[[], Method]] = {
    "l2": l2,
    "l2-linear": partial(l2, growth="linear"),
    "magnitude": magnitude,
}
DISTILLING: dict[str, Callable[[], Method]] = {
    "lwf": lwf,
    "lwf-step": partial(lwf, teacher="step"),
}
REPLAYING: dict[str, Callable[[], Method]] = {
    "replay": lambda: replay(end_of_task(20)),
    "replay-equal": lambda: replay(reservoir(20), "equal"),
    "der": lambda: der(reservoir(20)),
    "der++": lambda: der(ring(20), 0.5),
}
PROJECTING: dict[str, Callable[[], Method]] = {  # test_projection.py
    "gpm": partial(gpm, n=20),
    "ogd": partial(ogd, n=5),
}
FROM_START: dict[str, Callable[[], Method]] = {  # test_sparse.py
    "sharpening": sharpening,
}
META: dict[str, Callable[[], Method]] = {  # test_la_maml.py
    "la_maml": lambda: la_maml(reservoir(20), 2),
}
PREDICTING: dict[str, Callable[[], Method]] = {  # test_context.py
    "context": partial(context, 50, 20),
}
OF_LOSS = [*DISTILLING, *REPLAYING]  # without a penalty
METHODS = (
    NONE | ESTIMATED | OBSERVED | OF_WEIGHTS | DISTILLING | REPLAYING | PROJECTING | FROM_START | META | PREDICTING
)
PENALISING = [*ESTIMATED, *OBSERVED, *OF_WEIGHTS]  # lambda = 0 must make these finetune
OF_DATA = [*ESTIMATED, *OBSERVED]

DTYPES = [torch.float32, torch.float64]
STEPS = 3  # of a made task


def lived(method: Method, lam: float | Tensor, tasks: list[tuple[Tree, Tree]]) -> Any:
    """The state after tasks that ended with (parameters, importance): estimated so, or of made steps that lead to one.

    What is observed is zero where the importance is, and makes every observing method's importance positive elsewhere.
    """
    dtype = tasks[0][0]["scale"].dtype
    state = method.init(tasks[0][0], torch.as_tensor(lam, dtype=dtype))
    for params, importance in tasks:
        if method.start_task:
            state = method.start_task(state, {name: p - 1 for name, p in params.items()})
        for step in range(1, STEPS + 1) if method.observe else ():
            gradients = {
                "batch": {name: -step * value for name, value in importance.items()},
                "independent": {name: -value / 2 for name, value in importance.items()},
            }
            change = {name: value / 10 for name, value in importance.items()}
            state = method.observe(state, {name: gradients[name] for name in method.needs.gradients}, change)
        state = method.end_task(state, params, importance) if method.end_task else state
    return state


def wrapped(method: Method, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Method:
    """The method with every hook that it has, wrapped."""
    hooks = ("init", "penalty_grad", "end_task", "start_task", "observe")
    return method._replace(**{name: wrap(hook) for name in hooks if (hook := getattr(method, name))})


def twice(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The hook, called twice, on arguments that it must leave alone."""

    def checked(*given: Any) -> Any:
        before = copied(given)
        first, second = hook(*given), hook(*given)
        assert same(given, before)
        assert same(first, second)
        return first

    return checked


def moving(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The hook, on trees that change in place as soon as it has returned."""

    def followed(*given: Any) -> Any:
        given = tuple(copied(part) if isinstance(part, dict) else part for part in given)
        result = hook(*given)
        for part in given:
            for value in tensors(part) if isinstance(part, dict) else ():
                value.add_(1)
        return result

    return followed


@pytest.mark.parametrize("name", [*PENALISING, *OF_LOSS])
@pytest.mark.parametrize("dtype", DTYPES)
def test_hooks_are_pure_and_deterministic(name, dtype):
    method = wrapped(METHODS[name](), twice)
    state = lived(method, 30.0, [(tree(seed, dtype), positive(2, dtype)) for seed in (3, 4)])
    if name in PENALISING:
        method.penalty_grad(state, tree(1, dtype))


@pytest.mark.parametrize("name", [*PENALISING, *OF_LOSS])
@pytest.mark.parametrize("dtype", DTYPES)
def test_state_shares_no_memory_with_weights_and_gradients(name, dtype):
    """The optimiser moves the weights in place; an anchor that moves along protects nothing."""
    method, tasks = METHODS[name](), [(tree(seed, dtype), positive(2, dtype)) for seed in (3, 4)]
    assert same(lived(wrapped(method, moving), 30.0, tasks), lived(method, 30.0, tasks))


@pytest.mark.parametrize("name", PENALISING)
def test_a_pull_is_in_memory_of_its_own(name):
    """A training step adds the gradient to it in place."""
    method, params = METHODS[name](), tree(1)
    state = lived(method, 30.0, [(tree(seed), positive(2)) for seed in (3, 4)])
    pull = method.penalty_grad(state, params)
    memory = [t.untyped_storage().data_ptr() for t in (*tensors(pull), *tensors(state), *tensors(params))]
    assert len(set(memory[: len(pull)])) == len(pull)
    assert not {*memory[: len(pull)]} & {*memory[len(pull) :]}


@pytest.mark.parametrize("name", [*PENALISING, *OF_LOSS])
@pytest.mark.parametrize("dtype", DTYPES)
def test_state_has_the_same_shapes_and_dtypes_after_every_hook(name, dtype):
    states: list[Any] = []

    def kept(hook: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given: states.append(hook(*given)) or states[-1]

    method = METHODS[name]()
    lived(wrapped(method, kept), 30.0, [(tree(t, dtype), positive(10 + t, dtype)) for t in range(5)])
    assert len(states) == 1 + 5 * (bool(method.end_task) + (STEPS + 1 if name in OBSERVED else 0))
    described = [[(t.shape, t.dtype) for t in tensors(state)] for state in states]
    assert described == [described[0]] * len(states)
    assert {t.dtype for t in tensors(states[-1])} == {dtype}
    structures = [torch.utils._pytree.tree_structure(state) for state in states]
    assert structures == [structures[0]] * len(states)


@pytest.mark.parametrize("name", OF_DATA)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_pulls_where_importance_is_zero(name, dtype):
    tasks = [(tree(t, dtype), positive(10 + t, dtype)) for t in range(4)]
    for t, (_, importance) in enumerate(tasks):
        importance["a.weight"][0] = 0  # never important
        importance["a.weight"][1] *= t >= 2  # not at first
        importance["a.weight"][2] *= t < 2  # not at last
        importance["a.bias"].zero_()
    method = METHODS[name]()
    pull = method.penalty_grad(lived(method, 1e13, tasks), tree(99, dtype))
    assert (pull["a.weight"][0] == 0).all()
    assert (pull["a.bias"] == 0).all()
    assert pull["a.weight"][1:].isfinite().all()
    assert (pull["a.weight"][1:] != 0).all()


@pytest.mark.parametrize("name", PENALISING)
def test_nothing_pulls_before_a_task_has_ended(name):
    """Whatever has been observed of the first."""
    pulls: list[Tree] = []
    method = METHODS[name]()

    def pulling(hook: Callable[..., Any]) -> Callable[..., Any]:
        def followed(*given: Any) -> Any:
            state = hook(*given)
            pulls.append(method.penalty_grad(state, tree(2)))
            return state

        return followed

    lived(wrapped(method, pulling), 1e13, [(tree(1), positive(2))])
    assert len(pulls) == 2 + (STEPS + 1 if name in OBSERVED else 0)
    assert all((value == 0).all() for pull in pulls[:-1] for value in pull.values())
    assert all((value != 0).any() for value in pulls[-1].values())


@pytest.mark.parametrize("name", PENALISING)
@pytest.mark.parametrize("dtype", DTYPES)
def test_hooks_under_vmap_are_the_hooks(name, dtype):
    method, lams = METHODS[name](), [0.0, 3.0, 1e13]
    anchors, importances, params = (
        [make(s + k, dtype) for k in range(3)] for s, make in ((1, tree), (5, positive), (9, tree))
    )

    def pull(anchor: Tree, importance: Tree, params: Tree, lam: Tensor) -> Tree:
        return method.penalty_grad(lived(method, lam, [(anchor, importance), (params, importance)]), anchor)

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
# Each with what it is used with.
PAIRS = [(name, estimator) for name in ESTIMATED for estimator in ESTIMATORS]
PAIRS += [(name, None) for name in (*OBSERVED, *OF_WEIGHTS, *DISTILLING, *FROM_START)]


def made(n_tasks: int, dtype: torch.dtype = torch.float32) -> Experiment:
    """The first tasks of the digits."""
    return made_experiment(first_tasks(digits(dtype=dtype), n_tasks), dtype=dtype)


@cache
def finetuned(n_tasks: int, dtype: torch.dtype, rows: tuple[Replica, ...]) -> Run:
    """What each method is compared with."""
    return run(made(n_tasks, dtype), finetune(), rows)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*PENALISING, *DISTILLING, *FROM_START, *PREDICTING])
def test_lambda_zero_is_finetune_bit_for_bit(name, dtype):
    estimators = list(ESTIMATORS.values()) if name in ESTIMATED else [None]
    rows = [Replica(seed, 0.0, estimator) for seed in (1, 2) for estimator in estimators]
    expected = finetuned(3, dtype, tuple(rows))
    found = run(made(3, dtype), METHODS[name](), rows)
    assert same(found.params, expected.params)
    for a, b in zip(found.outcomes, expected.outcomes, strict=True):
        assert (a.accuracy == b.accuracy).all()
        assert len(a.traces) == (2 if name in ESTIMATED else 0)
        assert all(trace > 0 for trace in a.traces)
        assert b.traces == []


@pytest.mark.parametrize(("name", "estimator"), PAIRS)
def test_lambda_zero_is_finetune_for_a_single_replica_and_lambda_matters(name, estimator):
    expected = finetuned(2, torch.float32, (Replica(3, 0.0, None),)).params
    free, held = (
        run(made(2), METHODS[name](), [Replica(3, lam, ESTIMATORS.get(estimator))]).params for lam in (0.0, 1e6)
    )
    assert same(free, expected)
    assert error(held, expected) > 1e-2


@pytest.mark.parametrize("together", [True, False], ids=["stack", "singles"])
@pytest.mark.parametrize("name", [*PENALISING, *OF_LOSS])
def test_the_first_task_does_not_depend_on_lambda_bit_for_bit(name, together):
    estimator = ESTIMATORS["exact"] if name in ESTIMATED else None
    rows = [Replica(3, lam, estimator) for lam in (0.0, 1e13)]
    after: list[Tree] = []
    learning = replicas.learning

    def watch(course: Course, *rest: Any) -> Any:
        yield from learning(course, *rest)
        after.extend({name: p[k].clone() for name, p in course.stack.params.items()} for k in range(course.k))

    with mock.patch.object(replicas, "learning", watch):
        for part in [rows] if together else [rows[:1], rows[1:]]:
            run(made(2), METHODS[name](), part)
    by_task = [after[:2], after[2:]] if together else [after[::2], after[1::2]]
    assert same(*by_task[0])
    assert error(*by_task[1]) > 1e-2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PENALISING)
def test_a_task_starts_without_a_pull_where_only_the_last_one_matters(name, dtype):
    """Exactly: Adam's first step after a reset makes a whole learning rate of however small a gradient."""
    nothing = {key: torch.zeros_like(value) for key, value in positive(1, dtype).items()}
    tasks = [(tree(1, dtype), nothing), (tree(2, dtype), positive(2, dtype))]
    method = METHODS[name]()
    pull = method.penalty_grad(lived(method, 1e13, tasks), tree(2, dtype))
    assert all((value == 0).all() for value in pull.values())
