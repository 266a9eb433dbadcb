"""What is looked at before anything trains: networks, sizes, memories, columns."""

import sys
from typing import Any

import torch

from cl_repro import engine
from cl_repro.common import runtime, tree
from cl_repro.common.errors import UserError
from cl_repro.study import worker
from cl_repro.study.factories import NOT_ARGUMENTS
from cl_repro.study.grid import Arm
from cl_repro.types import Estimator


def check_arms(workshop: worker.Workshop, arms: list[Arm], device: str) -> None:
    """Refuse, before any training, what cannot be trained and measured here."""
    for arm in arms:
        cfg, experiment, estimator = arm.cfg, workshop.experiment(arm, device), workshop.estimator(arm.cfg)
        check_memory(cfg, experiment)
        names = {group: cfg[group]["name"] for group in ("method", "optim", "model")}
        engine.check(experiment, workshop.method(cfg), cfg["seeds"], names)
        if experiment.net.columns:
            check_columns(cfg, experiment)
        check_sizes(cfg, experiment, estimator)
        if estimator:
            check_network(cfg, experiment, estimator)


def check_memory(cfg: dict[str, Any], experiment: engine.Experiment) -> None:
    """Refuse, before it is made, a network that has no room here with its gradient: on `meta` it has shapes alone."""
    room, generator = runtime.memory(), torch.Generator()
    try:
        with torch.device("meta"):
            params, _ = experiment.net.init(generator)
        needed = 2 * sum(p.numel() for p in params.values()) * experiment.dtype.itemsize
    except RuntimeError as error:
        if "overflow" not in str(error):  # it looks at its own values: then it is made to see
            return
        needed = sys.maxsize
    if needed > room:
        given = ", ".join(f"{k}={v}" for k, v in cfg["model"].items() if k not in NOT_ARGUMENTS)
        raise UserError(
            f"model={cfg['model']['name']} with {given}: needs {needed / 1e9:.3g} GB for weights and gradient, "
            f"must be at most the {room / 1e9:.3g} GB of this machine"
        )


def check_sizes(cfg: dict[str, Any], experiment: engine.Experiment, estimator: Estimator | None) -> None:
    """Refuse what some task of some seed is too small for."""
    for seed in cfg["seeds"]:
        for k, task in enumerate(experiment.benchmark.curriculum(seed).tasks):
            n, needed = len(task.rows), {"batch_size": cfg["batch_size"]}
            if n == 0:
                raise UserError(f"val_fraction={cfg['val_fraction']}: leaves no example of task {k} of seed {seed}")
            if estimator:
                estimator.divisor(n)
                needed |= {"fisher.n": estimator.rows(n), "fisher.batch_size": estimator.batch_size or 1}
            for key, value in needed.items():
                if value > n:
                    raise UserError(f"{key}={value}: must be at most the {n} examples of task {k} of seed {seed}")


def check_columns(cfg: dict[str, Any], experiment: engine.Experiment) -> None:
    """Refuse columns that are not one for each task, and optimisers that would move those of earlier tasks."""
    tasks, size = experiment.benchmark.curriculum(0).tasks, experiment.net.columns
    optimiser = experiment.optimiser([torch.zeros(1, device=experiment.device)])
    [group] = optimiser.param_groups
    own = [experiment.scenario.active(tasks, k, k) for k in range(len(tasks))]
    each = sum(map(len, own)) // len(tasks)
    if size != len(tasks) or own != [tuple(range(k * each, (k + 1) * each)) for k in range(len(tasks))]:
        raise UserError(f"model={cfg['model']['name']}: needs scenario=task and columns=n_tasks, one for each task")
    if experiment.reinit:
        raise UserError(f"model={cfg['model']['name']} with reinit=true: would draw columns of earlier tasks anew")
    moves = not cfg["optim"]["reset"] and not (isinstance(optimiser, torch.optim.SGD) and not group["momentum"])
    if moves or group.get("weight_decay"):
        raise UserError(
            f"model={cfg['model']['name']} with optim={cfg['optim']['name']}: needs an optimiser that is reset for "
            "every task and has no weight decay, or it moves the columns of earlier tasks: optim=adam_reset"
        )


def check_network(cfg: dict[str, Any], experiment: engine.Experiment, estimator: Estimator) -> None:
    """Refuse a network with a layer that an estimator cannot measure: ask it for one example."""
    stack, benchmark, device = engine.start(experiment, cfg["seeds"][:1]), experiment.benchmark, experiment.device
    n_outputs = experiment.scenario.n_outputs(benchmark, benchmark.curriculum(0).tasks)
    example = (
        benchmark.to_input(benchmark.x[:1]),
        torch.zeros(1, dtype=torch.int64, device=device),
        torch.zeros(1, dtype=torch.float64, device=device),
        torch.arange(min(2, n_outputs), device=device),  # of one logit there is nothing to measure
    )
    try:
        estimator.sum(experiment.net, tree.at(stack.params, 0), tree.at(stack.buffers, 0), *example)
    except ValueError as error:
        names = f"model={cfg['model']['name']} with fisher={cfg['fisher']['name']}"
        raise UserError(f"{names}: {error}") from error
