"""What only a CUDA device can do: hundreds of replicas in one process, and the whole study in minutes."""

from collections.abc import Sequence
from functools import partial

from cl_repro.bench.measure import AT_LEAST, AT_MOST, Row, Setting, interleave, missing, speedup, timed
from cl_repro.bench.workloads import LAMBDAS, SEED, Work, mnist, mnist_experiment, second_task
from cl_repro.engine import Experiment, Replica, Trunk, run
from cl_repro.engine.training import follow
from cl_repro.importance.batched import batched
from cl_repro.importance.fisher import empirical, exact, sample
from cl_repro.methods.baselines import finetune
from cl_repro.methods.ewc import ewc
from cl_repro.runtime import clock, hardware
from cl_repro.study import max_replicas
from cl_repro.types import Estimator

K, ITERATIONS = 256, 20  # of the stack; a round
SEEDS = tuple(range(1, 11))
STEP = "CUDA: EWC step, K = 256, per model-iteration / K = 1"
STUDY = "CUDA: Split MNIST study, 14 lambdas x 5 estimators x 10 seeds"


def rows(setting: Setting) -> list[Row]:
    """Both rows, `not measured` without a CUDA device."""
    if not setting.device.startswith("cuda"):
        absent = "torch sees no CUDA device here"
        return [missing(STEP, "s", "x", 20.0, AT_LEAST, absent), missing(STUDY, "s", "s", 300.0, AT_MOST, absent)]
    benchmark, data = mnist(setting.data_dir, setting.device)
    note = f"{data}; {hardware(setting.device)}"
    stacked, single = step_seconds(mnist_experiment(benchmark, ITERATIONS), K, setting.rounds)
    estimators = [exact(), exact(500), sample(), empirical(), batched(128)]
    experiment = mnist_experiment(benchmark, 2000)._replace(share_first_task=True)
    limit = max_replicas("auto", experiment, setting.device)
    seconds = study_seconds(experiment, SEEDS, LAMBDAS, estimators, limit)
    return [
        speedup(STEP, stacked, single, "s", 20.0, note),
        Row(STUDY, seconds, None, "s", seconds, "s", 300.0, AT_MOST, f"{note}; with None; one full run"),
    ]


def step_seconds(experiment: Experiment, k: int, rounds: int) -> tuple[float, float]:
    """Seconds of an EWC step per model-iteration, in a stack of `k` and alone."""
    estimator = exact()

    def candidate(size: int) -> partial[None]:
        replicas = [Replica(SEED, LAMBDAS[i % len(LAMBDAS)], estimator) for i in range(size)]
        work: Work = second_task(experiment, ewc(), replicas)
        return partial(follow, work.experiment, work.stack, work.drawn, work.method, work.state, lambda *_: None)

    n = experiment.steps(1)
    works = {
        "stacked": timed(candidate(k), k * n, experiment.device),
        "single": timed(candidate(1), n, experiment.device),
    }
    seconds = interleave(works, rounds)
    return seconds["stacked"], seconds["single"]


def study_seconds(
    experiment: Experiment,
    seeds: Sequence[int],
    lambdas: Sequence[float],
    estimators: Sequence[Estimator],
    limit: int,
) -> float:
    """Seconds of a full study: stacks of at most `limit` replicas, whole seeds where they fit, and None.

    Args:
        experiment: what all share.
        seeds: of the study.
        lambdas: likewise.
        estimators: likewise.
        limit: K at most.

    Returns:
        Seconds (`runtime.clock`).
    """
    of_seed = len(lambdas) * len(estimators)
    size = limit // of_seed * of_seed or limit
    replicas = [Replica(seed, lam, estimator) for seed in seeds for estimator in estimators for lam in lambdas]
    trunks: dict[str, Trunk] = {}
    began = clock(experiment.device)
    for i in range(0, len(replicas), size):
        run(experiment, ewc(), replicas[i : i + size], trunks)
    run(experiment, finetune(), [Replica(seed, 0.0, None) for seed in seeds], trunks)
    return clock(experiment.device) - began
