"""Importance-sampled labels and examples chosen by score: against EMPIRICAL, training, BackPACK's Monte Carlo."""

from functools import partial
from pathlib import Path

import torch
from torch import nn

from benches.convolution import NO_BACKPACK, backpack_pass
from benches.measure import AT_LEAST, Row, Setting, cost, interleave, missing, speedup, timed
from benches.reference import MLP
from benches.workloads import SEED, all_steps, first_task, mnist, mnist_experiment
from cl_repro.engine.boundary import estimate
from cl_repro.importance import diagonal_fisher, fisher
from cl_repro.importance.by_score import by_score
from cl_repro.importance.importance_sample import importance_sample
from cl_repro.types import Benchmark, Curriculum, Task

N, CHOSEN = 12_000, 500
LIBRARY = (2000, 64, 1000)  # examples, inputs, classes
CHANCE = "BackPACK's Monte-Carlo estimate, one label"


def rows(setting: Setting) -> list[Row]:
    """One pass over a task of ten classes in several ways, and one of a module with a thousand classes."""
    return [*ten_classes(setting), *thousand_classes(setting.rounds)]


def ten_classes(setting: Setting) -> list[Row]:
    """Seconds of passes over `N` images of ten classes, of an epoch of training, and of BackPACK."""
    benchmark, data = in_one_task(setting.data_dir)
    of = mnist_experiment(benchmark, iterations=N // 128)
    course = first_task(of)
    stack = course.stack
    estimators = {
        "exact": fisher.exact(),
        "empirical": fisher.empirical(),
        "label": importance_sample(),
        "chosen": by_score(CHOSEN),
    }
    candidates = {
        name: timed(partial(estimate, of, stack.params, stack.buffers, made, SEED, 0), 1)
        for name, made in estimators.items()
    }
    candidates["epoch"] = timed(partial(all_steps, course), 1)
    [task] = benchmark.curriculum(SEED).tasks
    x, y = benchmark.to_input(benchmark.x[task.rows]).flatten(1), benchmark.curriculum(SEED).y[task.rows]
    layers = list(MLP([784, 400, 400, 10]).children())
    module = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    if chance := backpack_pass(module, x, y, "DiagGGNMC", of.rows_per_pass, mc_samples=1):
        candidates["chance"] = timed(chance, 1)
    seconds = interleave(candidates, setting.rounds)
    size = f"{N} examples of {data}, ten classes, 784-400-400-10"
    label = seconds["label"]
    result = [
        cost("importance-sampled label / EMPIRICAL", label, seconds["empirical"], "s", 1.1, note=size),
        speedup("importance-sampled label / exact Fisher", label, seconds["exact"], "s", None, size),
        cost(
            f"{CHOSEN} examples by score / training epoch", seconds["chosen"], seconds["epoch"], "s", 0.45, "epochs",
            note=f"{size}; a forward pass of all included",
        ),
    ]  # fmt: skip
    name = f"importance-sampled label / {CHANCE}"
    if not chance:
        return [*result, missing(name, "s", "x", 1.0, AT_LEAST, NO_BACKPACK)]
    return [*result, speedup(name, label, seconds["chance"], "s", 1.0, f"{size}; DiagGGNMC")]


def in_one_task(data_dir: Path) -> tuple[Benchmark, str]:
    """The first `N` training images of Split MNIST's tasks, as one task of ten classes; what they are."""
    benchmark, data = mnist(data_dir)
    whole = benchmark.curriculum(SEED)
    train, test = (torch.cat([getattr(task, of) for task in whole.tasks]) for of in ("rows", "rows_test"))
    chosen = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(SEED))[:N]]
    task = Task(chosen, test, tuple(range(benchmark.n_classes)))
    return benchmark._replace(curriculum=lambda seed: Curriculum(whole.y, whole.y_test, (task,)), n_tasks=1), data


def thousand_classes(rounds: int) -> list[Row]:
    """Of `diagonal_fisher`: one label of a thousand against the data's."""
    n, n_in, classes = LIBRARY
    generator = torch.Generator().manual_seed(SEED)
    model, x = nn.Linear(n_in, classes), torch.randn(n, n_in, generator=generator)
    y = torch.randint(0, classes, (n,), generator=generator)
    candidates = {
        name: timed(partial(diagonal_fisher, model, (x, y), name), 1) for name in ("empirical", "importance_sample")
    }
    seconds = interleave(candidates, rounds)
    return [
        cost(
            "1,000 classes: importance-sampled label / EMPIRICAL", seconds["importance_sample"], seconds["empirical"],
            "s", 2.0, note=f"diagonal_fisher, {n} examples, Linear({n_in}, {classes})",
        )
    ]  # fmt: skip
