"""The study of Split MNIST as a whole on a CUDA device: minutes."""

from collections.abc import Sequence

from benches.measure import AT_MOST, NO_CUDA, Row, Setting, figure, timed
from benches.whole_study import PASSES
from benches.workloads import LAMBDAS, mnist, mnist_experiment
from cl_repro.common.runtime import hardware
from cl_repro.engine import Experiment, Replica, Trunk, train
from cl_repro.methods.baselines import finetune
from cl_repro.methods.ewc import ewc
from cl_repro.types import Estimator

REPLICAS = 350  # in one stack: five seeds
SEEDS = tuple(range(1, 11))


def rows(setting: Setting) -> list[Row]:
    """One full run; `not measured` without a CUDA device."""
    name = "CUDA: Split MNIST study, 14 lambdas x 5 estimators x 10 seeds"
    if not setting.cuda:
        return [Row(name, None, None, "s", None, "s", 300.0, AT_MOST, NO_CUDA[1])]
    benchmark, data = mnist(setting.data_dir, setting.device)
    of = mnist_experiment(benchmark, 2000, share_first_task=True)
    seconds = study_seconds(of, SEEDS, LAMBDAS, [*PASSES.values()], REPLICAS)
    note = f"{data}; {hardware(setting.device)}; with None; one full run, in stacks of {REPLICAS}"
    return [figure(name, seconds, "s", 300.0, note)]


def study_seconds(
    of: Experiment,
    seeds: Sequence[int],
    lambdas: Sequence[float],
    estimators: Sequence[Estimator],
    limit: int,
) -> float:
    """Seconds of a full study: stacks of at most `limit` replicas, whole seeds where they fit, and None."""
    of_seed = len(lambdas) * len(estimators)
    size = limit // of_seed * of_seed or limit
    replicas = [Replica(seed, lam, estimator) for seed in seeds for estimator in estimators for lam in lambdas]
    trunks: dict[str, Trunk] = {}

    def whole() -> None:
        for i in range(0, len(replicas), size):
            train(of, ewc(), replicas[i : i + size], trunks)
        train(of, finetune(), [Replica(seed, 0.0, None) for seed in seeds], trunks)

    return timed(whole, device=of.device)()
