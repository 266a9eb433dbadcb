"""An importance and an anchor made anew in the middle of a task: the ablation of ewc_guide."""

import pytest
import torch
from made_experiments import digits, made_experiment, run, thinned
from made_trees import error, same
from torch import Tensor
from torch.nn import functional

from cl_repro.common import rng
from cl_repro.common.errors import UserError
from cl_repro.engine import Experiment, Replica, boundary
from cl_repro.engine.batches import batches
from cl_repro.engine.stack import Stack
from cl_repro.importance import fisher
from cl_repro.methods.quadratic import quadratic
from cl_repro.types import Tree

STEPS, LAM, FISHER = 7, 20.0, fisher.exact(10)


def setting(n_tasks: int = 5) -> Experiment:
    return made_experiment(thinned(digits(n_tasks), 24), batch_size=6, iterations=STEPS)


def plain(experiment: Experiment, seed: int, every: int) -> Tree:
    """Final weights: one loop of autograd over cross-entropy + lam sum Omega (theta - theta*)^2."""
    benchmark = experiment.benchmark
    curriculum = benchmark.curriculum(seed)
    params = {name: p.double().requires_grad_() for name, p in experiment.net.init(rng.stream(seed, "init"))[0].items()}
    adam = torch.optim.Adam(list(params.values()), lr=1e-2)

    def now() -> Tree:
        return {name: p.detach().clone() for name, p in params.items()}

    def importance(task: int) -> Tree:
        stack = Stack([seed], {name: p[None] for name, p in now().items()}, {}, adam)
        return {name: f[0] for name, f in boundary.measure(experiment, stack, task, [FISHER]).items()}

    anchor, omega = now(), {name: torch.zeros_like(p) for name, p in params.items()}
    for t, task in enumerate(curriculum.tasks):
        drawn, classes = batches(experiment, [seed], t, (t,)), list(task.classes)
        for i in range(STEPS):
            if t and i and every and i % every == 0:
                anchor = now()
                measured = [importance(earlier) for earlier in range(t)]
                omega = {name: sum((one[name] for one in measured), torch.zeros(())) for name in params}
            x = benchmark.to_input(benchmark.x[drawn.rows[0, i]]).flatten(1)
            hidden = functional.linear(x, params["fc1.weight"], params["fc1.bias"]).relu()
            z = functional.linear(hidden, params["head.weight"], params["head.bias"])[:, classes]
            label = torch.tensor([classes.index(c) for c in drawn.label[0, i].tolist()])
            pull: Tensor = sum(
                ((omega[n] * (p - anchor[n]).square()).sum() for n, p in params.items()), torch.zeros(())
            )
            adam.zero_grad()
            (functional.cross_entropy(z, label) + LAM * pull).backward()
            adam.step()
        anchor, fresh = now(), importance(t)
        omega = {name: omega[name] + fresh[name] for name in params}
    return now()


@pytest.mark.parametrize("every", [0, 3, 6, STEPS])
def test_a_run_is_the_plain_loop(every):
    """Made anew after every 3 or 6 of 7 steps; after 7 of 7 there is no step left that would see it."""
    experiment = setting()
    found = run(experiment, quadratic(every), [Replica(1, LAM, FISHER)]).params
    assert error({name: p[0] for name, p in found.items()}, plain(experiment, 1, every % STEPS)) < 1e-9


def test_replicas_of_a_stack_are_the_singles():
    experiment, rows = (
        setting(2),
        [Replica(1, LAM, FISHER), Replica(2, 0.0, FISHER), Replica(1, 3.0, fisher.empirical())],
    )
    together = run(experiment, quadratic(3), rows).params
    for i, row in enumerate(rows):
        alone = run(experiment, quadratic(3), [row]).params
        assert error({n: p[0] for n, p in alone.items()}, {n: p[i] for n, p in together.items()}) < 1e-9


def test_it_only_restrains_a_task_between_two_rebuildings():
    """The pull is zero at a new anchor: a lambda that holds weights in place lets them go if rebuilt every step."""
    experiment = setting(2)
    free, held, rebuilt = (
        run(experiment, quadratic(every), [Replica(1, lam, FISHER)]).params
        for every, lam in ((0, 0.0), (0, 1e9), (1, 1e9))
    )
    assert same(rebuilt, free)
    assert not same(held, free)


def test_a_negative_number_of_steps_is_refused():
    with pytest.raises(UserError, match=r"^method.rebuild_every=-1: must be at least 0, in steps$"):
        quadratic(-1)
