"""How many replicas one stack holds: as set, by the size of the network on a CPU, or as measured on a CUDA device.

On CUDA neither memory nor speed follows from the number of parameters: activations decide the one, and whether
`torch.vmap` makes grouped convolutions of K groups the other. So K = 1, 2, 4, ... are tried, for a few steps each.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from cl_repro import engine
from cl_repro.common import runtime, tree
from cl_repro.records.identity import digest
from cl_repro.study import worker
from cl_repro.study.grid import Arm
from cl_repro.types import Benchmark, Curriculum, Estimator, Method

# Multiply-adds of an example, forwards; up to here a stack pays on a CPU. Measured: multi-layer perceptrons 4-10x at
# 17,400 and nothing at 477,600; networks of convolutions 2.2x on images of 8 x 8 and 0.7 to 0.9x on those of CIFAR.
SMALL_NETWORK = 50_000
CPU_STACK = 128  # replicas of a small network
CUDA_STACK = 512  # replicas at most
CUDA_SHARE = 0.7  # of the device's memory that the processes on it may hold
SMALL_STACK = 8  # replicas; fewer leave a CUDA device idle between kernels, and another process can use it then
TOGETHER = 6  # processes of small stacks on one CUDA device, at most
CONTEXT = 600e6  # bytes that a process holds on a CUDA device beside its tensors
STEPS = 20  # of a measurement, a task
EXAMPLES = 1000  # of a task in a measurement, at least
PAYS = 0.95  # a stack of twice the size is worth it if a replica's step takes at most so much of the time
FILE = ".spool/stacks.measured"  # in the results folder: what was measured


class Cost(NamedTuple):
    """What a stack needs on a CUDA device."""

    seconds: float  # of a step of the second task, per replica
    held: int  # bytes, at most, in training, evaluation and importance passes


class Limits(NamedTuple):
    """How a study is divided."""

    replicas: dict[str, int]  # in one stack, at most, by `Arm.stack_id`
    processes: int  # on one CUDA device, where workers=auto
    measured: dict[str, float]  # before or now, by names for what a study's folder remembers


def limits(workshop: worker.Workshop, arms: Sequence[Arm], device: str, known: Mapping[str, float]) -> Limits:
    """Replicas of a study in one stack, and processes on one CUDA device, at most.

    `known` was measured before for its folder, by a name of the stack and the device.
    """
    common = arms[0].cfg
    setting = common["max_replicas"]
    if not device.startswith("cuda"):
        if setting == "auto":
            setting = CPU_STACK if multiply_adds(workshop.experiment(arms[0], device)) <= SMALL_NETWORK else 1
        return Limits({arm.stack_id: setting for arm in arms}, 1, {})
    memory = CUDA_SHARE * torch.cuda.mem_get_info(device)[1] / per_device(common["workers"], device)
    replicas: dict[str, int] = {}
    found: dict[str, float] = {}
    processes = TOGETHER
    for arm in {arm.stack_id: arm for arm in reversed(arms)}.values():  # the first of each stack
        experiment = workshop.experiment(arm, device)
        name = digest([arm.stack_id, experiment.rows_per_pass, runtime.hardware(device), memory], 8)
        cost_of = cache(partial(cost, experiment, workshop.method(arm.cfg), workshop.estimator(arm.cfg), arm.cfg))
        if setting == "auto":
            found[name] = known[name] if name in known else fastest(cost_of, memory)
        k = replicas[arm.stack_id] = int(found.get(name, setting))
        if common["workers"] == "auto" and k < SMALL_STACK:
            name = f"{name}, bytes of {k}"
            found[name] = known[name] if name in known else held(cost_of, k, memory)
            processes = min(processes, together(found[name], memory))
        else:
            processes = 1
    return Limits(replicas, processes, found)


def held(cost_of: Callable[[int], Cost], k: int, memory: float) -> float:
    """Bytes that K replicas hold, or all of the memory where they do not fit."""
    try:
        return cost_of(k).held
    except worker.FULL:
        return memory


def together(bytes_each: float, memory: float) -> int:
    """Processes that hold so much each and fit in the memory: at least one."""
    return max(1, min(TOGETHER, int(memory / (bytes_each + CONTEXT))))


def per_device(workers: Any, device: str) -> int:
    """Processes that share a CUDA device, as set; with auto a stack may have all of its memory."""
    devices = runtime.cuda_devices() if device == "cuda" else 1
    return 1 if workers == "auto" else -(-workers // devices)


def multiply_adds(experiment: engine.Experiment) -> int:
    """Of a forward pass of one example, in matrix products and convolutions."""
    stack, benchmark = engine.start(experiment, [0]), experiment.benchmark
    with FlopCounterMode(display=False) as counter:
        experiment.net.apply(tree.at(stack.params, 0), tree.at(stack.buffers, 0), benchmark.to_input(benchmark.x[:1]))
    return counter.get_total_flops() // 2


def fastest(cost_of: Callable[[int], Cost], memory: float) -> int:
    """The K = 1, 2, 4, ... with the fastest step per replica, as far as memory goes and twice in a row nothing is won.

    Args:
        cost_of: K -> `Cost`; raises one of `worker.FULL` where the device has no memory for K.
        memory: bytes that K may hold.
    """
    best, seconds, k, in_vain = 1, float("inf"), 1, 0
    while k <= CUDA_STACK and in_vain < 2:
        try:
            found = cost_of(k)
        except worker.FULL:
            break
        if found.held > memory:
            break
        if found.seconds <= PAYS * seconds:
            best, seconds, in_vain = k, found.seconds, 0
        else:
            in_vain += 1
        k *= 2
    return best


def cost(
    experiment: engine.Experiment, method: Method, estimator: Estimator | None, cfg: Mapping[str, Any], k: int
) -> Cost:
    """What K replicas of an arm need: a few steps of two tasks, with all that happens after each, on some examples."""
    short = shortened(experiment, method, [estimator])
    seeds = cfg["seeds"][:2]  # with two, each replica has mini-batches of its own
    replicas = [engine.Replica(seeds[i % len(seeds)], float(cfg["lam"]), estimator) for i in range(k)]
    if k == 1:
        trained(short, method, replicas)  # what comes first loads kernels
    torch.cuda.reset_peak_memory_stats(experiment.device)
    seconds = trained(short, method, replicas)
    held = torch.cuda.max_memory_allocated(experiment.device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(experiment.device)  # a run's row says what the run has held
    return Cost(seconds / short.steps(1) / k, held)


def shortened(
    experiment: engine.Experiment, method: Method, estimators: Sequence[Estimator | None]
) -> engine.Experiment:
    """A few steps a task, on a part of its examples: as many as one pass, or one of these estimators, needs at once."""
    n = max(EXAMPLES, experiment.rows_per_pass, experiment.batch_size, method.needs.inspects)
    for estimator in filter(None, estimators):
        n = max(n, estimator.rows(1), estimator.batch_size or 1)
    steps = max(STEPS, method.needs.warm_up + 1)
    return experiment._replace(benchmark=thinned(experiment.benchmark, n), iterations=steps, share_first_task=False)


def trained(experiment: engine.Experiment, method: Method, replicas: Sequence[engine.Replica]) -> float:
    """Seconds that training on the second task takes."""
    since = 0.0
    for at in engine.stages(experiment, method, replicas, {}):
        if at.middle:
            continue
        before, since = since, at.stack.seconds.train
        if at.learned == 2:
            break
    return since - before


def thinned(benchmark: Benchmark, n: int) -> Benchmark:
    """The benchmark with at most `n` examples of each kind in every task."""

    def curriculum(seed: int) -> Curriculum:
        full = benchmark.curriculum(seed)
        tasks = tuple(
            t._replace(
                rows=t.rows[:n],
                rows_test=t.rows_test[:n],
                rows_val=t.rows_val if t.rows_val is None else t.rows_val[:n],
            )
            for t in full.tasks
        )
        return full._replace(tasks=tasks)

    return benchmark._replace(curriculum=curriculum)
