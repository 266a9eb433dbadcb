"""The exact Fisher of all examples of a task, against training and against the one-sample loop."""

from benches.measure import Row, Setting, cost, interleave, speedup, timed
from benches.reference import importance_loop
from benches.workloads import SEED, first_task, mnist, mnist_experiment, one_pass, training
from cl_repro.importance.fisher import exact

EXAMPLES = 200  # of the one-sample loop, per round
TASK = 2000  # iterations


def rows(setting: Setting) -> list[Row]:
    """Three ratios of one pass over the first task."""
    benchmark, data = mnist(setting.data_dir)
    n = len(benchmark.curriculum(SEED).tasks[0].rows)
    course = first_task(mnist_experiment(benchmark, iterations=n // 128))
    candidates = {
        "fisher": one_pass(course, exact()),
        "step": training(course),
        "example": timed(importance_loop(course, "all", EXAMPLES), EXAMPLES),
    }
    seconds = interleave(candidates, setting.rounds)
    ours, step, size = seconds["fisher"], seconds["step"], f"{n} examples of {data}"
    return [
        cost("exact Fisher / training epoch", ours, course.steps * step, 1.0, "epochs",
            note=f"{size}; without penalty"),
        cost(
            "exact Fisher / 2000-iteration task", ours, TASK * step, 5.0, "%",
            note=f"{size}; other: 2000 x the measured step",
        ),
        speedup(
            "exact Fisher / one-sample loop", ours, n * seconds["example"], 50.0,
            f"{size}; other: extrapolated from {EXAMPLES} examples a round",
        ),
    ]  # fmt: skip
