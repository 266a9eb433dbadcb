"""One EWC training step of one replica, against the usual style on the same resident data."""

from collections.abc import Callable
from functools import partial

import torch

from benches import reference
from benches.measure import Row, Setting, interleave, speedup, timed
from benches.workloads import SEED, all_steps, mnist, mnist_experiment, second_task
from cl_repro.common import tree
from cl_repro.engine import Replica
from cl_repro.engine.course import Course
from cl_repro.importance.fisher import exact
from cl_repro.methods.baselines import finetune
from cl_repro.methods.ewc import ewc
from cl_repro.types import Method

ITERATIONS = 50  # a round
LAM = 100.0


def rows(setting: Setting) -> list[Row]:
    """The step with and without penalty."""
    benchmark, data = mnist(setting.data_dir)
    experiment = mnist_experiment(benchmark, ITERATIONS)
    works = {name: second_task(experiment, method, [replica(name)]) for name, method in METHODS.items()}
    seconds = interleave(candidates(works, sizes=(784, 400, 400, 10)), setting.rounds)
    name = "{} step, K = 1, MLP 784-400-400-10 / usual style"
    note = f"{data}; gather and /255 in both"
    return [
        speedup(
            name.format("EWC"), seconds["ours ewc"], seconds["other ewc"], "s", 1.8,
            f"{note}; other: penalty loop in the loss, default Adam",
        ),
        speedup(
            name.format("finetune"), seconds["ours finetune"], seconds["other finetune"], "s", None,
            f"{note}; other: default Adam",
        ),
    ]  # fmt: skip


METHODS: dict[str, Method] = {"ewc": ewc(), "finetune": finetune()}


def replica(method: str) -> Replica:
    """The replica that is stepped."""
    return Replica(SEED, LAM, exact() if method == "ewc" else None)


def candidates(works: dict[str, Course], sizes: tuple[int, ...]) -> dict[str, Callable[[], float]]:
    """`ours <name>` and `other <name>` for every workload of one replica: seconds per step."""
    result: dict[str, Callable[[], float]] = {}
    for name, work in works.items():
        n = work.experiment.steps(1)
        result |= {f"ours {name}": timed(partial(all_steps, work), n), f"other {name}": timed(usual(work, sizes), n)}
    return result


def usual(work: Course, sizes: tuple[int, ...]) -> partial[None]:
    """The same steps from the same weights, in the usual style."""
    model = reference.MLP(sizes)
    model.load_state_dict(tree.at(work.stack.params, 0))
    penalty = None
    if work.state:
        penalty = reference.Penalty(LAM, dict(work.state.importance), dict(work.state.anchor))
    classes = work.experiment.benchmark.curriculum(SEED).tasks[1].classes
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    return partial(reference.train, model, optimiser, work.experiment.benchmark, work.drawn, classes, penalty)
