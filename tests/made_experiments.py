"""Small experiments on the digits, and the networks a run ends with."""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple
from unittest import mock

import torch

from cl_repro.benchmarks import scenarios
from cl_repro.benchmarks.split import split
from cl_repro.engine import Experiment, Outcome, Replica, Stack, Trunk, replicas
from cl_repro.importance import fisher
from cl_repro.importance.batched import batched
from cl_repro.importance.one_sample import one_sample
from cl_repro.models.mlp import mlp
from cl_repro.types import Benchmark, Curriculum, Method, Scenario, Tree

# As the application does: on matrices this small, two threads on a busy machine are up to 50 times slower than one.
torch.set_num_threads(1)


@lru_cache
def digits(n_tasks: int = 5, dtype: torch.dtype = torch.float64) -> Benchmark:
    """Split digits: about 270 training and 90 test examples a task, numbers that differ between seeds."""
    return split("digits", n_tasks, 16.0, data_dir=".", device="cpu", dtype=dtype)


def thinned(benchmark: Benchmark, n: int) -> Benchmark:
    """The benchmark with the first `n` training and test examples of each task only."""

    def curriculum(seed: int) -> Curriculum:
        full = benchmark.curriculum(seed)
        tasks = tuple(t._replace(rows=t.rows[:n], rows_test=t.rows_test[:n]) for t in full.tasks)
        return full._replace(tasks=tasks)

    return benchmark._replace(curriculum=curriculum)


def first_tasks(benchmark: Benchmark, n: int) -> Benchmark:
    """The benchmark with its first `n` tasks only; the logits of the others are never active."""

    def curriculum(seed: int) -> Curriculum:
        full = benchmark.curriculum(seed)
        return full._replace(tasks=full.tasks[:n])

    return benchmark._replace(curriculum=curriculum, n_tasks=n)


def made_experiment(
    benchmark: Benchmark | None = None,
    scenario: Scenario | None = None,
    hidden: Sequence[int] = (12,),
    dtype: torch.dtype = torch.float64,
    **changes: Any,
) -> Experiment:
    """A small experiment: split digits, task scenario, an MLP, 12 steps a task, nothing shared.

    Args:
        benchmark: instead of split digits.
        scenario: instead of the task scenario.
        hidden: units of each hidden layer.
        dtype: of data and weights.
        changes: other fields of `Experiment`.

    Returns:
        The experiment.
    """
    benchmark = benchmark or digits(dtype=dtype)
    scenario = scenario or scenarios.task()
    n_outputs = scenario.n_outputs(benchmark, benchmark.curriculum(1).tasks)
    made = Experiment(
        key="made",
        benchmark=benchmark,
        scenario=scenario,
        net=mlp(hidden, input_shape=tuple(benchmark.x.shape[1:]), n_outputs=n_outputs),
        optimiser=partial(torch.optim.Adam, lr=1e-2, fused=True),
        reset_optimiser=False,
        iterations=12,
        batch_size=16,
        rows_per_pass=100,
        share_first_task=False,
        dtype=dtype,
        device="cpu",
    )
    return made._replace(**changes)


class Run(NamedTuple):
    """What `engine.train` returns, and the final networks, which it does not."""

    outcomes: list[Outcome]
    stack: Stack

    @property
    def params(self) -> Tree:
        """Final weights, {name: [K, *shape]}."""
        return self.stack.params


def run(experiment: Experiment, method: Method, rows: Sequence[Replica], trunks: dict[str, Trunk] | None = None) -> Run:
    """`engine.train`, with the final networks."""
    with mock.patch.object(replicas, "outcomes", wraps=replicas.outcomes) as spy:
        outcomes = replicas.train(experiment, method, rows, {} if trunks is None else trunks)
    return Run(outcomes, spy.call_args.args[2].stack)


SHARED = fisher.exact()
# Seeds whose tasks differ in size, in no order; two rows are equal, others differ in one field only.
MIXED = [
    Replica(3, 10.0, SHARED),
    Replica(1, 0.0, fisher.empirical()),
    Replica(2, 1e3, fisher.sample()),
    Replica(1, 1e5, batched(16)),
    Replica(1, 10.0, SHARED),
    Replica(2, 1e6, SHARED),
    Replica(3, 10.0, SHARED),
    Replica(2, 1e2, one_sample("predicted", 30)),
    Replica(3, 1e2, fisher.exact(50)),
    Replica(1, 1e4, SHARED),
]
