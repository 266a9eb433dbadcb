"""The exact Fisher of all examples of a task, against training and against the one-sample loop."""

from functools import partial

from benches.measure import Row, Setting, cost, interleave, speedup, timed
from benches.reference import importance_loop
from benches.workloads import SEED, all_steps, first_task, mnist, mnist_experiment
from cl_repro.engine.boundary import estimate
from cl_repro.importance.fisher import exact

EXAMPLES = 200  # of the one-sample loop, per round
TASK = 2000  # iterations


def rows(setting: Setting) -> list[Row]:
    """Three ratios of one pass over the first task."""
    benchmark, data = mnist(setting.data_dir)
    n = len(benchmark.curriculum(SEED).tasks[0].rows)
    experiment = mnist_experiment(benchmark, iterations=n // 128)
    course = first_task(experiment)
    stack = course.stack
    candidates = {
        "fisher": timed(partial(estimate, experiment, stack.params, stack.buffers, exact(), SEED, 0), 1),
        "epoch": timed(partial(all_steps, course), 1),
        "example": timed(importance_loop(experiment, stack, SEED, "all", EXAMPLES), EXAMPLES),
    }
    seconds = interleave(candidates, setting.rounds)
    ours, epoch, step = seconds["fisher"], seconds["epoch"], seconds["epoch"] / experiment.steps(0)
    size = f"{n} examples of {data}"
    return [
        cost("exact Fisher / training epoch", ours, epoch, "s", 1.0, "epochs", note=f"{size}; without penalty"),
        cost(
            "exact Fisher / 2000-iteration task", ours, TASK * step, "s", 5.0, "%", 100,
            f"{size}; other: 2000 x the measured step",
        ),
        speedup(
            "exact Fisher / one-sample loop", ours, n * seconds["example"], "s", 50.0,
            f"{size}; other: extrapolated from {EXAMPLES} examples a round",
        ),
    ]  # fmt: skip
