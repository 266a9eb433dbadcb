"""One run through all tasks with Synaptic Intelligence, everything else measured on the way without disturbing it."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cl_repro.common import rng
from cl_repro.engine import Experiment, Report
from cl_repro.engine.boundary import evaluate
from cl_repro.engine.course import Course
from cl_repro.engine.lifecycle import begin
from cl_repro.engine.replicas import healthy
from cl_repro.engine.stack import lower, start
from cl_repro.measurements.unifying import measures
from cl_repro.measurements.unifying.observed import State, observed
from cl_repro.measurements.unifying.path import schedule, trained
from cl_repro.methods.sos import sos
from cl_repro.methods.synaptic_intelligence import sib, siu
from cl_repro.records import Row
from cl_repro.types import Method

SCATTERED = 100_000  # weights of a scatter plot, at most
# What a scatter plot can show.
SCATTER = (
    *(f"{path}{kind}" for kind in ("_raw", "_unclipped") for path in measures.PATHS),
    "sos", "mas", "masx", "af", "sqrt_fisher", "mas_logits",
)  # fmt: skip


class Settings(NamedTuple):
    """What is looked at, and how often."""

    examples: int | None  # N, of the importances that are estimated after a task; None: nothing is measured after it
    many: int | None  # of af_many; None: none
    points: int  # rows of a task in summed.csv, about
    full_every: int | None  # e: the full gradient of task 1 at every e-th step; None: at none
    dense: int  # from the first step on, at every one of so many


class Found(NamedTuple):
    """What one run leaves."""

    rows: dict[str, list[Row]]  # by file, without what is the same in all of them
    scatter: dict[str, NDArray[np.float32]]  # measure -> of some weights after task 1; {} if it is not in detail


def watch(
    experiment: Experiment,
    si: Method,
    xi: float,
    seed: int,
    lam: float,
    settings: Settings,
    in_detail: bool,
    report: Report = lambda *_: None,
) -> Found:
    """Train one network on all tasks with `si`, and measure.

    The others of its kind have its damping `xi`, too. In detail means: also along the full gradient of task 1, and for
    scatter plots. `report` is told about progress.
    """
    method = observed(si, siu(xi), sib(xi), sos(), sos(alpha=1.0))
    stack = start(experiment, [seed])
    n_tasks = experiment.benchmark.n_tasks
    assert method.init and method.end_task  # `observed` has them
    strength = torch.tensor(lam, dtype=experiment.dtype, device=experiment.device)
    state = method.init(lower(experiment.protected(stack.params), 1), strength)
    rows: dict[str, list[Row]] = {name: [] for name in ("correlations", "trimmed", "measures", "summed", "noise")}
    scatter: dict[str, NDArray[np.float32]] = {}
    for task in range(n_tasks):
        # one mini-batch more than is trained on: the loss at the end is of examples to come
        longer = experiment._replace(iterations=experiment.steps(task) + 1)
        course = begin(longer, stack, task, method, state)
        full_every = settings.full_every if in_detail and task == 0 else None
        at = schedule(experiment.steps(task), settings.points, full_every, settings.dense)
        summed, noise = trained(course, at, report)
        state = course.state
        rows["summed"] += summed
        rows["noise"] += noise
        if settings.examples is not None:
            found = at_the_end(course, state, xi, settings.examples, settings.many)
            rows["correlations"] += of_task(task, measures.correlations(found))
            rows["trimmed"] += of_task(task, measures.trimmed(found))
            rows["measures"] += of_task(task, measures.extents(found))
            if in_detail and task == 0:
                scatter = drawn({name: found[name] for name in SCATTER}, seed)
        if task + 1 < n_tasks:
            state = method.end_task(state, course.weights, {})
    rows["networks"] = [
        {
            "weights": sum(p.numel() for p in course.weights.values()),
            "accuracy": float(evaluate(experiment, stack, n_tasks - 1).mean()),
            "status": "ok" if healthy(stack).all() else "diverged",
        }
    ]
    return Found(rows, scatter)


def at_the_end(course: Course, state: State, xi: float, examples: int, many: int | None) -> dict[str, torch.Tensor]:
    """Every measure of a task that has been trained on, {measure: [P]}."""
    paths = dict(zip(measures.PATHS, (state.acting, state.watching[1], state.watching[0]), strict=True))
    found = measures.of_paths(paths, course.weights, xi)
    found |= measures.of_moments({"sos": state.watching[2], "sos_alpha1": state.watching[3]})
    return found | measures.of_examples(course, examples, many)


def of_task(task: int, rows: list[Row]) -> list[Row]:
    """Rows of a task, which count from 1."""
    return [{"task": task + 1} | row for row in rows]


def drawn(of: dict[str, torch.Tensor], seed: int) -> dict[str, NDArray[np.float32]]:
    """The same random weights of every measure, without replacement; to a relative error of 2^-12."""
    n = len(next(iter(of.values())))
    at = torch.randperm(n, generator=rng.stream(seed, "scatter"))[:SCATTERED]
    return {name: shortened(value.cpu()[at].float().numpy()) for name, value in of.items()}


def shortened(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rounded to 11 bits of mantissa: the others are zero, and take no room in a compressed file."""
    bits = x.view(np.int32)
    return ((bits + (1 << 11)) & ~((1 << 12) - 1)).view(np.float32)
