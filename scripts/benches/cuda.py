"""What only a CUDA device can do: hundreds of replicas in one process, the published networks, a study in minutes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch

from benches.measure import (
    AT_LEAST,
    AT_MOST,
    Row,
    Setting,
    cost,
    interleave,
    missing,
    speedup,
    timed,
)
from benches.workloads import (
    LAMBDAS,
    SEED,
    all_steps,
    experiment,
    mnist,
    mnist_experiment,
    random_data,
    second_task,
)
from cl_repro.common import runtime
from cl_repro.common.runtime import clock, hardware, tf32
from cl_repro.engine import Experiment, Replica, Trunk, train
from cl_repro.engine.boundary import estimate
from cl_repro.importance.batched import batched
from cl_repro.importance.fisher import empirical, exact, sample
from cl_repro.methods.baselines import finetune
from cl_repro.methods.ewc import ewc
from cl_repro.models.slim_resnet18 import slim_resnet18
from cl_repro.types import Estimator

K, ITERATIONS = 256, 20  # of the stack; a round
RECORDED = 500  # iterations of a round where steps are recorded, which is done once for a task
STACKS = (2, 4, 8)  # of convolutions
N, N_MEASURED, STEPS = 10_000, 2000, 2000  # Split CIFAR-10: examples of a task, those of a round, steps of a task
REPLICAS = 350  # of the whole study in one stack: five seeds
SEEDS = tuple(range(1, 11))
STEP = "CUDA: EWC step, K = 256, per model-iteration / K = 1"
FISHER = "CUDA: exact Fisher of all 10,000 examples, slim ResNet-18 / training on the task"
CONVOLUTIONS = "CUDA: EWC step, slim ResNet-18, batches of 256"
CONVOLUTIONS_GRAPH = f"{CONVOLUTIONS}, cuda_graph=true / without"
DETERMINISTIC = f"{CONVOLUTIONS}, deterministic=true / without"
GRAPH = "CUDA: EWC step, K = 1, MLP 784-400-400-10, cuda_graph=true / without"
STUDY = "CUDA: Split MNIST study, 14 lambdas x 5 estimators x 10 seeds"
ABSENT = "torch sees no CUDA device here"


def rows(setting: Setting) -> list[Row]:
    """Steps and Fisher passes; `not measured` without a CUDA device."""
    if not setting.device.startswith("cuda"):
        return [
            missing(STEP, "s", "x", 20.0, AT_LEAST, ABSENT),
            missing(GRAPH, "s", "x", None, AT_LEAST, ABSENT),
            missing(CONVOLUTIONS_GRAPH, "s", "x", None, AT_LEAST, ABSENT),
            missing(DETERMINISTIC, "s", "x", None, AT_MOST, ABSENT),
        ]
    benchmark, data = mnist(setting.data_dir, setting.device)
    note = f"{data}; {hardware(setting.device)}"
    of = mnist_experiment(benchmark, ITERATIONS)
    long = of._replace(iterations=RECORDED)
    graph = {"graph": step(long._replace(cuda_graph=True), 1), "eager": step(long, 1)}
    seconds = interleave({"stacked": step(of, K), "single": step(of, 1), **graph}, setting.rounds)
    return [
        speedup(STEP, seconds["stacked"], seconds["single"], "s", 20.0, note),
        speedup(GRAPH, seconds["graph"], seconds["eager"], "s", None, f"{note}; {RECORDED} steps and the recording"),
        *convolutions(setting),
    ]


def convolutions(setting: Setting) -> list[Row]:
    """Slim ResNet-18 with 20 channels and mini-batches of 256, as published, on random images of the size of CIFAR."""
    net = slim_resnet18(20, input_shape=(3, 32, 32), n_outputs=4)
    data = random_data(2, N_MEASURED, 200, (3, 32, 32), setting.device)
    of = experiment(data, (), 256, ITERATIONS, net=net, rows_per_pass=500)

    candidates = {
        "single": step(of, 1),
        "tf32": step(of, 1, partial(tf32, True)),
        "channels last": step(of._replace(channels_last=True), 1),
        "any order": step(of, 1, any_order),
        "graph": step(of._replace(iterations=RECORDED, cuda_graph=True), 1),
        "deterministic": step(of, 1, partial(deterministic, of.device)),
        "Fisher": fisher_pass(of),
        **{f"K = {k}": step(of, k) for k in STACKS},
    }
    seconds = interleave(candidates, setting.rounds)
    single, note = seconds["single"], f"random images; {hardware(setting.device)}"
    name = CONVOLUTIONS
    return [
        cost(FISHER, N * seconds["Fisher"], STEPS * single, "s", 100.0, "%", 100, note),
        speedup(f"{name}, TF32 / float32", seconds["tf32"], single, "s", None, note),
        speedup(f"{name}, channels last / first", seconds["channels last"], single, "s", None, note),
        cost(f"{name}, repeatable / in any order", single, seconds["any order"], "s", None, note=note),
        speedup(CONVOLUTIONS_GRAPH, seconds["graph"], single, "s", None, f"{note}; {RECORDED} steps and the recording"),
        cost(DETERMINISTIC, seconds["deterministic"], single, "s", None, note=note),
        *(
            speedup(f"{name}, K = {k}, per model-iteration / K = 1", seconds[f"K = {k}"], single, "s", None, note)
            for k in STACKS
        ),
    ]


@contextmanager
def any_order() -> Iterator[None]:
    """Let convolutions add in any order meanwhile, so that two runs differ in their last bits."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = False
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


@contextmanager
def deterministic(device: str) -> Iterator[None]:
    """`deterministic=true` meanwhile."""
    runtime.deterministic(True, device)
    try:
        yield
    finally:
        runtime.deterministic(False, device)


def step(
    of: Experiment, k: int, within: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> Callable[[], float]:
    """Seconds of an EWC step per model-iteration, in a stack of `k`."""
    estimator = exact()
    course = second_task(of, ewc(), [Replica(SEED, LAMBDAS[i % len(LAMBDAS)], estimator) for i in range(k)])

    def steps() -> None:
        with within():
            all_steps(course)

    return timed(steps, k * of.steps(1), of.device)


def fisher_pass(of: Experiment) -> Callable[[], float]:
    """Seconds of the exact Fisher, per example."""
    stack, n = (
        second_task(of, finetune(), [Replica(SEED, 0.0, None)]).stack,
        len(of.benchmark.curriculum(SEED).tasks[0].rows),
    )
    return timed(partial(estimate, of, stack.params, stack.buffers, exact(), SEED, 0), n, of.device)


def study_rows(setting: Setting) -> list[Row]:
    """The study as a whole, once: minutes."""
    if not setting.device.startswith("cuda"):
        return [missing(STUDY, "s", "s", 300.0, AT_MOST, ABSENT)]
    benchmark, data = mnist(setting.data_dir, setting.device)
    estimators = [exact(), exact(500), sample(), empirical(), batched(128)]
    of = mnist_experiment(benchmark, 2000)._replace(share_first_task=True)
    seconds = study_seconds(of, SEEDS, LAMBDAS, estimators, REPLICAS)
    note = f"{data}; {hardware(setting.device)}; with None; one full run, in stacks of {REPLICAS}"
    return [Row(STUDY, seconds, None, "s", seconds, "s", 300.0, AT_MOST, note)]


def study_seconds(
    of: Experiment,
    seeds: Sequence[int],
    lambdas: Sequence[float],
    estimators: Sequence[Estimator],
    limit: int,
) -> float:
    """Seconds of a full study: stacks of at most `limit` replicas, whole seeds where they fit, and None.

    Args:
        of: what all share.
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
    began = clock(of.device)
    for i in range(0, len(replicas), size):
        train(of, ewc(), replicas[i : i + size], trunks)
    train(of, finetune(), [Replica(seed, 0.0, None) for seed in seeds], trunks)
    return clock(of.device) - began
