"""Importance-sampled labels and examples chosen by score: against EMPIRICAL, training, BackPACK's Monte Carlo."""

import math
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from torch import nn

from benches.measure import Row, Setting, cost, interleave, speedup, timed
from benches.modules import mlp
from benches.reference import NO_BACKPACK, backpack
from benches.workloads import SEED, SIZES, first_task, mnist, mnist_experiment, one_pass, training
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
    course = first_task(mnist_experiment(benchmark, iterations=N // 128))
    candidates = {
        "exact": one_pass(course, fisher.exact()),
        "empirical": one_pass(course, fisher.empirical()),
        "label": one_pass(course, importance_sample()),
        "chosen": one_pass(course, by_score(CHOSEN)),
        "epoch": training(course, 1),
    }
    curriculum, note = benchmark.curriculum(SEED), NO_BACKPACK
    [task] = curriculum.tasks
    size = f"{N} examples of {data}, ten classes, 784-400-400-10"
    with suppress(ImportError):
        x, y = benchmark.to_input(benchmark.x[task.rows]).flatten(1), curriculum.y[task.rows]
        chance = backpack(mlp(SIZES), x, y, course.experiment.rows_per_pass, "DiagGGNMC", mc_samples=1)
        candidates["chance"], note = timed(chance), f"{size}; DiagGGNMC"
    seconds = interleave(candidates, setting.rounds)
    label, by = seconds["label"], "importance-sampled label"
    forward = f"{size}; a forward pass of all included"
    return [
        cost(f"{by} / EMPIRICAL", label, seconds["empirical"], 1.1, note=size),
        speedup(f"{by} / exact Fisher", label, seconds["exact"], None, size),
        cost(
            f"{CHOSEN} examples by score / training epoch", seconds["chosen"], seconds["epoch"], 0.45, "epochs",
            note=forward,
        ),
        speedup(f"{by} / {CHANCE}", label, seconds.get("chance", math.nan), 1.0, note),
    ]  # fmt: skip


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
        name: timed(partial(diagonal_fisher, model, (x, y), name)) for name in ("empirical", "importance_sample")
    }
    seconds = interleave(candidates, rounds)
    name = "1,000 classes: importance-sampled label / EMPIRICAL"
    note = f"diagonal_fisher, {n} examples, Linear({n_in}, {classes})"
    return [cost(name, seconds["importance_sample"], seconds["empirical"], 2.0, note=note)]
