"""The digits study of one seed as one stack of 70 replicas, against one model at a time in the usual style."""

from functools import partial

import torch

from benches import reference
from benches.measure import Row, Setting, interleave, speedup, timed
from benches.modules import mlp
from benches.workloads import LAMBDAS, SEED, digits_experiment
from cl_repro.common.tree import zeros_like
from cl_repro.engine import Experiment, Replica, train
from cl_repro.engine.batches import Batches, batches
from cl_repro.importance import quadratic_penalty
from cl_repro.importance.batched import batched
from cl_repro.importance.fisher import empirical, exact, sample
from cl_repro.methods.ewc import ewc

ITERATIONS = 40  # per task, a round; the study takes 200
SIZES = (64, 100, 100, 10)


def rows(setting: Setting) -> list[Row]:
    """Training time per model-iteration, the five tasks together."""
    experiment = digits_experiment(ITERATIONS)
    replicas = study_replicas()
    drawn = [batches(experiment, [SEED], task, [task]) for task in range(5)]
    seconds = interleave(
        {
            "ours": partial(stack_seconds, experiment, replicas),
            "other": timed(partial(one_at_a_time, experiment, drawn), 5 * ITERATIONS),
        },
        setting.rounds,
    )
    note = (
        f"{ITERATIONS} iterations a task; importances and evaluation left out; the first task without penalty in both"
    )
    name = "digits study, K = 70, per model-iteration / usual style"
    return [speedup(name, seconds["ours"], seconds["other"], 5.0, note)]


def study_replicas() -> list[Replica]:
    """14 lambdas x 5 estimators of one seed, as in conf/study/split_digits_fisher.yaml."""
    estimators = [exact(), exact(50), sample(), empirical(), batched(32)]
    return [Replica(SEED, lam, estimator) for estimator in estimators for lam in LAMBDAS]


def stack_seconds(experiment: Experiment, replicas: list[Replica]) -> float:
    """Train all tasks; seconds of training per model-iteration."""
    outcomes = train(experiment, ewc(), replicas, {})
    steps = len(replicas) * sum(map(experiment.steps, range(experiment.benchmark.n_tasks)))
    return sum(outcome.seconds.train for outcome in outcomes) / steps


def one_at_a_time(experiment: Experiment, drawn: list[Batches]) -> None:
    """One model of the usual style through all tasks, protected from the second on."""
    model = mlp(SIZES)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    penalty: reference.Penalty | None = None
    for task, of_task in zip(experiment.benchmark.curriculum(SEED).tasks, drawn, strict=True):
        reference.train(model, optimiser, experiment.benchmark, of_task, task.classes, penalty)
        anchor = {name: p.detach().clone() for name, p in model.named_parameters()}
        # the time does not depend on the importances
        penalty = partial(quadratic_penalty, importance=zeros_like(anchor), anchor=anchor, lam=1.0)
