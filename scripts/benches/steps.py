"""One EWC training step of one replica, against the usual style on the same resident data."""

from collections.abc import Callable
from functools import partial

import torch

from benches import reference
from benches.measure import Row, Setting, interleave, speedup, timed
from benches.modules import mlp
from benches.workloads import SEED, SIZES, STEPS, mnist, mnist_experiment, second_task, training
from cl_repro.common import tree
from cl_repro.engine import Experiment, Replica
from cl_repro.engine.course import Course
from cl_repro.importance import quadratic_penalty
from cl_repro.importance.fisher import exact
from cl_repro.methods.baselines import finetune
from cl_repro.methods.ewc import ewc
from cl_repro.types import Method

LAM = 100.0
METHODS: dict[str, Method] = {"ewc": ewc(), "finetune": finetune()}


def rows(setting: Setting) -> list[Row]:
    """The step with and without penalty."""
    benchmark, data = mnist(setting.data_dir)
    seconds = interleave(candidates(courses(mnist_experiment(benchmark, STEPS))), setting.rounds)
    name = "{} step, K = 1, MLP 784-400-400-10 / usual style"
    note = f"{data}; gather and /255 in both; other: "
    ewc_note, finetune_note = f"{note}penalty loop in the loss, default Adam", f"{note}default Adam"
    return [
        speedup(name.format("EWC"), seconds["ours ewc"], seconds["other ewc"], 1.8, ewc_note),
        speedup(name.format("finetune"), seconds["ours finetune"], seconds["other finetune"], None, finetune_note),
    ]


def courses(of: Experiment) -> dict[str, Course]:
    """The second task of one replica of each method."""
    estimators = {"ewc": exact(), "finetune": None}
    return {name: second_task(of, method, [Replica(SEED, LAM, estimators[name])]) for name, method in METHODS.items()}


def candidates(works: dict[str, Course]) -> dict[str, Callable[[], float]]:
    """`ours <name>` and `other <name>` for every course: seconds per step."""
    ours = {f"ours {name}": training(work) for name, work in works.items()}
    return ours | {f"other {name}": timed(usual(work), work.steps) for name, work in works.items()}


def usual(work: Course) -> partial[None]:
    """The same steps from the same weights, in the usual style."""
    model = mlp(SIZES)
    model.load_state_dict(tree.at(work.stack.params, 0))
    penalty = None
    if state := work.state:
        penalty = partial(quadratic_penalty, importance=state.importance, anchor=state.anchor, lam=LAM)
    classes = work.experiment.benchmark.curriculum(SEED).tasks[1].classes
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    return partial(reference.train, model, optimiser, work.experiment.benchmark, work.drawn, classes, penalty)
