"""A whole study of one seed on a CPU, in core-minutes: counts of what it does times measured costs, not a full run.

Split MNIST, None and EWC with five estimators and 14 lambdas: 71 configurations, five tasks of 2000 iterations. Ours
trains the first task once and estimates its importances once per estimator. The usual style does everything anew for
every configuration, one example at a time where the estimator says so, and is not charged for evaluation.
"""

from collections.abc import Callable, Mapping
from functools import partial

from benches import reference
from benches.measure import Row, Setting, figure, interleave, timed
from benches.steps import candidates, courses
from benches.workloads import SEED, mnist, mnist_experiment, one_pass
from cl_repro.engine.batches import batches
from cl_repro.engine.boundary import evaluate
from cl_repro.engine.course import Course
from cl_repro.importance.batched import batched
from cl_repro.importance.fisher import empirical, exact, sample

LAMBDAS, TASKS, ITERATIONS, N, EXAMPLES = 14, 5, 2000, 12_000, 50
PASSES = {
    "exact": exact(),
    "exact_500": exact(500),
    "sample": sample(),
    "empirical": empirical(),
    "batched": batched(128),
}
LOOPS = {"exact": "all", "sample": "sample", "empirical": "true"}  # exact_500 is exact on 500


def rows(setting: Setting) -> list[Row]:
    """Ours beside the usual style."""
    benchmark, data = mnist(setting.data_dir)
    works = courses(mnist_experiment(benchmark, iterations=30))
    seconds = interleave(candidates(works) | others(works["ewc"]), setting.rounds)
    ours, other = our_minutes(seconds), usual_minutes(seconds)
    note = f"{data}; computed from costs measured here; the usual style takes {other / ours:.1f}x"
    return [figure("Split MNIST study, one seed, 71 configurations, CPU", ours, "core-min", 45.0, note, other)]


def others(work: Course) -> dict[str, Callable[[], float]]:
    """Costs besides the steps: importances of a task, evaluation, drawing a task's batches, loading one."""
    experiment = work.experiment
    curriculum = experiment.benchmark.curriculum(SEED)
    task = curriculum.tasks[0]
    items = reference.loader(experiment.benchmark.x[task.rows], curriculum.y[task.rows], 128)
    whole_task = experiment._replace(iterations=ITERATIONS)
    return {
        **{f"pass {name}": one_pass(work, estimator, len(task.rows) / N) for name, estimator in PASSES.items()},
        **{
            f"example {name}": timed(reference.importance_loop(work, labels, EXAMPLES), EXAMPLES)
            for name, labels in LOOPS.items()
        },
        "evaluate": timed(partial(evaluate, experiment, work.stack, 1)),
        "draw": timed(partial(batches, whole_task, [SEED], 1, [1])),
        "load": timed(partial(reference.some, items, 20), 20),
    }


def our_minutes(seconds: Mapping[str, float]) -> float:
    """Core-minutes: one shared first task; then None, and 14 replicas per estimator, four tasks each."""
    first = ITERATIONS * seconds["ours finetune"] + seconds["draw"] + 2 * seconds["evaluate"]
    later = TASKS - 1
    between = later * (seconds["draw"] + seconds["evaluate"])
    none = later * ITERATIONS * seconds["ours finetune"] + between
    total = first + none
    for name in PASSES:
        once = seconds[f"pass {name}"]  # of the first task; no importance is estimated after the last
        total += once + LAMBDAS * ((TASKS - 2) * once + later * ITERATIONS * seconds["ours ewc"] + between)
    return total / 60


def usual_minutes(seconds: Mapping[str, float]) -> float:
    """Core-minutes of the usual style; the batched estimator costs one step without optimiser, taken as a step."""
    unprotected = ITERATIONS * (seconds["other finetune"] + seconds["load"])
    protected = ITERATIONS * (seconds["other ewc"] + seconds["load"])
    passes = {name: N * seconds[f"example {name}"] for name in LOOPS}
    passes["exact_500"] = 500 * seconds["example exact"]
    passes["batched"] = N / 128 * (seconds["other finetune"] + seconds["load"])
    total = TASKS * unprotected
    for name in PASSES:
        total += LAMBDAS * (unprotected + (TASKS - 1) * (protected + passes[name]))
    return total / 60
