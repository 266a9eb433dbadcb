"""Memory of a run: flat in the number of tasks and of examples, linear in the replicas, which are chunked to fit.

Counted are the bytes of every tensor alive in the process, data sets aside, whenever the engine prepares a batch of
examples: in training, in the importance passes and in evaluation. What a kernel holds in between is bounded by the
mini-batch and by `rows_per_pass`, whatever the number of tasks or examples.
"""

import gc
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from benches.measure import MB, Row, Setting, cost
from benches.workloads import LAMBDAS, SEED, experiment, random_data
from cl_repro.engine import Replica, train
from cl_repro.importance.fisher import exact
from cl_repro.methods.baselines import finetune
from cl_repro.methods.ewc import ewc
from cl_repro.methods.ewc_offline import ewc_offline
from cl_repro.study.grid import Arm, cells, chunks
from cl_repro.types import Method

METHODS = {"finetune": finetune(), "ewc": ewc(), "ewc_offline": ewc_offline()}
TASKS = 6
FLAT = 1.02  # a few numbers per task or example may come, never a tensor of the network's size


def rows(setting: Setting) -> list[Row]:
    """All comparisons; `setting` changes nothing here: bytes do not vary."""
    del setting
    return [*over_tasks(), *over_examples(), *over_replicas(), bounded()]


def over_tasks() -> list[Row]:
    """In training after 3 and 5 tasks against after 1, and the peak between; K = 4."""
    result = []
    note = "the first importance pass runs before there is any importance to keep"
    for name, method in METHODS.items():
        held, known = run_probed(method, replicas=4), f"{name}, K = 4"
        result += [
            bytes_of(f"{known}, in training: after {k} tasks / after 1", held.training[k], held.training[1], FLAT)
            for k in (3, 5)
        ]
        result.append(bytes_of(f"{known}, peak: after 5 tasks / after 2", held.peak[5], held.peak[2], FLAT, note))
    return result


def over_examples() -> list[Row]:
    """The peak with tasks of 4000 examples against 1000."""
    result = []
    for name, method in METHODS.items():
        many, few = (max(run_probed(method, 4, examples).peak) for examples in (4000, 1000))
        note = "24 bytes an example: order, label, noise"
        result.append(bytes_of(f"{name}, K = 4, peak: 4000 examples a task / 1000", many, few, FLAT, note))
    return result


def over_replicas() -> list[Row]:
    """The peak per replica of 4 and 16 against that of one."""
    result = []
    for name, method in METHODS.items():
        each = {k: max(run_probed(method, k).peak) / k for k in (1, 4, 16)}
        note = "below 1: the examples at hand are shared by all replicas"
        result += [bytes_of(f"{name}, peak per replica: K = {k} / K = 1", each[k], each[1], 1.0, note) for k in (4, 16)]
    return result


def bounded() -> Row:
    """The largest stack of a study, against `max_replicas`."""
    limit = 16
    cfg = {"seeds": [1, 2, 3], "grid": {"lambdas": LAMBDAS}}
    arms = [Arm(f"ewc-{i}", cfg, f"config {i}", "one stack", True) for i in range(5)]
    planned = cells(arms)
    largest = max(map(len, chunks(arms, planned, {"one stack": limit})))
    name = f"{len(planned)} replicas, max_replicas = {limit}: K of the largest stack / limit"
    return cost(name, largest, limit, 1.0, unit="replicas")


def bytes_of(name: str, ours: float, other: float, target: float, note: str = "") -> Row:
    """Bytes against bytes."""
    return cost(name, ours / MB, other / MB, target, unit="MB", note=note)


class Held(NamedTuple):
    """Bytes held, for every task k = 0, 1, ..., after k others."""

    training: list[int]  # at the end of its training: networks, gradients, optimiser, the method's state
    peak: list[int]  # since the end of the one before, importance pass and evaluation included


def run_probed(method: Method, replicas: int, examples: int = 1000) -> Held:
    """Train K replicas on `TASKS` tasks of so many examples, and look."""
    benchmark, held = random_data(TASKS, examples, 100, (28, 28)), Held([], [0])

    def to_input(x: Tensor) -> Tensor:
        held.peak[-1] = max(held.peak[-1], live_bytes())
        return benchmark.to_input(x)

    def report(*_: object) -> None:
        held.training.append(live_bytes())
        held.peak.append(0)

    # two iterations: one report a task
    probed = experiment(benchmark._replace(to_input=to_input), (50, 50), 64, iterations=2, rows_per_pass=500)
    gc.collect()
    gc.freeze()  # what is there already, the data set among it, is not counted, and not looked through each time
    try:
        train(probed, method, members(method, replicas), {}, report)
    finally:
        gc.unfreeze()
    return held


def members(method: Method, k: int) -> Sequence[Replica]:
    """K replicas of one seed."""
    estimator = exact() if method.end_task else None
    return [Replica(SEED, LAMBDAS[i % len(LAMBDAS)], estimator) for i in range(k)]


def live_bytes() -> int:
    """Bytes of all tensors that this process made since `gc.freeze`, each block of memory once."""
    # the type, not isinstance: some objects answer that by loading a module
    tensors = [t for t in gc.get_objects() if issubclass(type(t), Tensor)]
    blocks = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(blocks.values())
