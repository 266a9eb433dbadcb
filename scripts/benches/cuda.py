"""What only a CUDA device can do: hundreds of replicas in one process, and the published networks."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch

from benches.measure import NO_CUDA, Row, Setting, cost, interleave, speedup
from benches.workloads import (
    LAMBDAS,
    SEED,
    experiment,
    mnist,
    mnist_experiment,
    one_pass,
    random_data,
    second_task,
    training,
)
from cl_repro.common import runtime
from cl_repro.common.runtime import hardware
from cl_repro.engine import Experiment, Replica
from cl_repro.importance.fisher import exact
from cl_repro.methods.baselines import finetune
from cl_repro.methods.ewc import ewc
from cl_repro.models.slim_resnet18 import slim_resnet18

K, ITERATIONS = 256, 20  # of the stack; a round
RECORDED = 500  # iterations of a round where steps are recorded, which is done once for a task
STACKS = (2, 4, 8)  # of convolutions
N, N_MEASURED, STEPS = 10_000, 2000, 2000  # Split CIFAR-10: examples of a task, those of a round, steps of a task
BY_GRAPH = "cuda_graph=true / without"


def rows(setting: Setting) -> list[Row]:
    """Steps and Fisher passes; `not measured` without a CUDA device."""
    if not setting.cuda:
        return [*small(*NO_CUDA), *convolutions(*NO_CUDA)]
    return [*small(*of_mlp(setting)), *convolutions(*of_convolutions(setting))]


def of_mlp(setting: Setting) -> tuple[Mapping[str, float], str]:
    """Seconds of steps of Split MNIST's network, and a note about them."""
    benchmark, data = mnist(setting.data_dir, setting.device)
    of = mnist_experiment(benchmark, ITERATIONS)
    long = of._replace(iterations=RECORDED)
    graph = {"graph": step(long._replace(cuda_graph=True), 1), "eager": step(long, 1)}
    seconds = interleave({"stacked": step(of, K), "single": step(of, 1), **graph}, setting.rounds)
    return seconds, f"{data}; {hardware(setting.device)}"


def small(seconds: Mapping[str, float], note: str) -> list[Row]:
    """The rows of `of_mlp`."""
    graph = f"CUDA: EWC step, K = 1, MLP 784-400-400-10, {BY_GRAPH}"
    stacked = "CUDA: EWC step, K = 256, per model-iteration / K = 1"
    return [
        speedup(stacked, seconds["stacked"], seconds["single"], 20.0, note),
        speedup(graph, seconds["graph"], seconds["eager"], None, f"{note}; {RECORDED} steps and the recording"),
    ]


def of_convolutions(setting: Setting) -> tuple[Mapping[str, float], str]:
    """Slim ResNet-18 with 20 channels and mini-batches of 256, as published, on random images of the size of CIFAR."""
    net = slim_resnet18(20, input_shape=(3, 32, 32), n_outputs=4)
    data = random_data(2, N_MEASURED, 200, (3, 32, 32), setting.device)
    of = experiment(data, (), 256, ITERATIONS, net=net, rows_per_pass=500)
    any_order = partial(torch.backends.cudnn.flags, enabled=True, deterministic=False, allow_tf32=False)
    candidates = {
        "single": step(of, 1),
        "tf32": step(of, 1, partial(runtime.tf32, True)),
        "channels last": step(of._replace(channels_last=True), 1),
        "any order": step(of, 1, any_order),
        "graph": step(of._replace(iterations=RECORDED, cuda_graph=True), 1),
        "deterministic": step(of, 1, partial(deterministic, of.device)),
        "Fisher": fisher_pass(of),
        **{f"K = {k}": step(of, k) for k in STACKS},
    }
    return interleave(candidates, setting.rounds), f"random images; {hardware(setting.device)}"


def convolutions(seconds: Mapping[str, float], note: str) -> list[Row]:
    """The rows of `of_convolutions`."""
    fisher = "CUDA: exact Fisher of all 10,000 examples, slim ResNet-18 / training on the task"
    name, single = "CUDA: EWC step, slim ResNet-18, batches of 256", seconds["single"]
    recording = f"{note}; {RECORDED} steps and the recording"
    stacks = [f"K = {k}" for k in STACKS]
    return [
        cost(fisher, N * seconds["Fisher"], STEPS * single, 100.0, "%", note=note),
        speedup(f"{name}, TF32 / float32", seconds["tf32"], single, None, note),
        speedup(f"{name}, channels last / first", seconds["channels last"], single, None, note),
        cost(f"{name}, repeatable / in any order", single, seconds["any order"], None, note=note),
        speedup(f"{name}, {BY_GRAPH}", seconds["graph"], single, None, recording),
        cost(f"{name}, deterministic=true / without", seconds["deterministic"], single, None, note=note),
        *(speedup(f"{name}, {k}, per model-iteration / K = 1", seconds[k], single, None, note) for k in stacks),
    ]


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
    once = training(course, k * course.steps)

    def steps() -> float:
        with within():
            return once()

    return steps


def fisher_pass(of: Experiment) -> Callable[[], float]:
    """Seconds of the exact Fisher, per example."""
    course = second_task(of, finetune(), [Replica(SEED, 0.0, None)])
    return one_pass(course, exact(), len(of.benchmark.curriculum(SEED).tasks[0].rows))
