"""The engine: the only part that knows the replica axis.

Networks, methods and estimators are written for one replica. `stack.lift` turns such a function into one of K
replicas; for K = 1 it is the function itself, on views that drop the axis. Replicas of one stack share benchmark,
network, optimiser and method; they differ in seed, lambda and estimator. All replicas of a seed see the same initial
weights, mini-batches, orders and label noise: they are paired.
"""

from cl_repro.engine.boundary import measure
from cl_repro.engine.course import Middle
from cl_repro.engine.needs import check, in_first_task, lengths
from cl_repro.engine.replicas import (
    Outcome,
    Progress,
    Trunk,
    first_task,
    keep_first_task,
    outcomes,
    shares_first_task,
    stages,
    train,
    trunk_name,
    trunk_of,
)
from cl_repro.engine.stack import Epochs, Experiment, Replica, Seconds, Stack, start
from cl_repro.engine.training import Report

__all__ = [
    "Epochs",
    "Experiment",
    "Middle",
    "Outcome",
    "Progress",
    "Replica",
    "Report",
    "Seconds",
    "Stack",
    "Trunk",
    "check",
    "first_task",
    "in_first_task",
    "keep_first_task",
    "lengths",
    "measure",
    "outcomes",
    "shares_first_task",
    "stages",
    "start",
    "train",
    "trunk_name",
    "trunk_of",
]
