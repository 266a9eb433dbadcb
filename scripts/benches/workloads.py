"""What is measured: the study's networks and settings, on real data or on random data of the same size."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benches.measure import NO_CUDA, Row, Setting, cost, interleave, timed
from cl_repro.benchmarks import scenarios
from cl_repro.benchmarks.data.files import MissingDataError
from cl_repro.benchmarks.split import split
from cl_repro.engine import Experiment, Replica
from cl_repro.engine.boundary import estimate
from cl_repro.engine.course import Course
from cl_repro.engine.lifecycle import begin
from cl_repro.engine.replicas import rebuilt
from cl_repro.engine.stack import fork, start
from cl_repro.engine.training import follow
from cl_repro.models.mlp import mlp
from cl_repro.types import Benchmark, Curriculum, Estimator, Method, Task

LAMBDAS = tuple(10.0**i for i in range(14))  # of the published study
SEED = 1
STEPS = 50  # of a round, against finetuning and the usual style
SIZES = (784, 400, 400, 10)  # of the network of Split MNIST


def mnist(data_dir: Path, device: str = "cpu") -> tuple[Benchmark, str]:
    """Split MNIST, or random data of its size where it is not found (times do not depend on which); which it is."""
    try:
        return split("mnist", 5, 255.0, data_dir=data_dir, device=device), "MNIST"
    except MissingDataError:
        return random_data(5, 12_000, 2_000, (28, 28), device), "random data of the size of MNIST"


def random_data(
    n_tasks: int,
    n_train: int,
    n_test: int,
    shape: tuple[int, ...],
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Benchmark:
    """Two-class tasks of random images, one pixel in five not black, the same for every seed.

    Args:
        n_tasks: T.
        n_train: examples a task.
        n_test: likewise.
        shape: of an image.
        device: where they live.
        dtype: of the network's input.

    Returns:
        The benchmark.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = torch.randint(0, 256, (n_tasks * n, *shape), dtype=torch.uint8, generator=generator)
        x *= torch.randint(0, 5, x.shape, dtype=torch.uint8, generator=generator) == 0
        y = torch.arange(n_tasks * n) % 2 + torch.arange(n_tasks).repeat_interleave(n) * 2
        return x.to(device), y.to(device), torch.arange(n_tasks * n, device=device).view(n_tasks, n)

    (x, y, rows), (x_test, y_test, rows_test) = draw(n_train), draw(n_test)
    tasks = tuple(Task(rows[k], rows_test[k], (2 * k, 2 * k + 1)) for k in range(n_tasks))
    divisor = torch.tensor(255.0, dtype=dtype, device=device)
    return Benchmark(
        x=x,
        x_test=x_test,
        to_input=lambda images: images.to(dtype, copy=True).div_(divisor),
        curriculum=lambda seed: Curriculum(y, y_test, tasks),
        n_tasks=n_tasks,
        n_classes=2 * n_tasks,
        checksum="random",
    )


def experiment(
    benchmark: Benchmark, hidden: Sequence[int], batch_size: int, iterations: int, **changes: Any
) -> Experiment:
    """The task scenario, an MLP and one Adam, as conf/ sets them for the studies; `changes` to other fields."""
    shape = tuple(benchmark.x.shape[1:])
    return Experiment(
        key="bench",
        benchmark=benchmark,
        scenario=scenarios.task(),
        net=mlp(hidden, input_shape=shape, n_outputs=benchmark.n_classes),
        optimiser=partial(torch.optim.Adam, lr=1e-3, fused=True),
        reset_optimiser=False,
        iterations=iterations,
        batch_size=batch_size,
        rows_per_pass=1000,
        share_first_task=False,
        dtype=torch.float32,
        device=str(benchmark.x.device),
    )._replace(**changes)


def mnist_experiment(benchmark: Benchmark, iterations: int, **changes: Any) -> Experiment:
    """MLP 784-400-400-10 with mini-batches of 128."""
    return experiment(benchmark, (400, 400), 128, iterations, **changes)


def digits_experiment(iterations: int) -> Experiment:
    """MLP 64-100-100-10 on the digits with mini-batches of 32."""
    return experiment(split("digits", 5, 16.0, data_dir=".", device="cpu"), (100, 100), 32, iterations)


def first_task(of: Experiment) -> Course:
    """One replica of seed `SEED` at the start of its first task."""
    return begin(of, start(of, [SEED]), 0, Method(), None)


def second_task(of: Experiment, method: Method, replicas: Sequence[Replica]) -> Course:
    """Replicas of seed `SEED` at the start of their second task: the first one's importances taken, nothing trained."""
    stack = fork(of, start(of, [SEED]), torch.zeros(len(replicas), dtype=torch.long, device=of.device))
    return begin(of, stack, 1, method, rebuilt(of, stack, method, replicas, learned=1))


def all_steps(course: Course) -> None:
    """Take the steps of a task, from the first on; a second time they are the same mini-batches."""
    course.taken = 0
    follow(course, course.steps)


def training(course: Course, units: float | None = None) -> Callable[[], float]:
    """A candidate: seconds of all steps of a task, in so many units; None: of a step."""
    return timed(partial(all_steps, course), units or course.steps, course.experiment.device)


def one_pass(course: Course, estimator: Estimator, units: float = 1, task: int = 0) -> Callable[[], float]:
    """A candidate: seconds of the importance that an estimator gives of a task, in so many units."""
    of, stack = course.experiment, course.stack
    return timed(partial(estimate, of, stack.params, stack.buffers, estimator, SEED, task), units, of.device)


def against_finetuning(
    setting: Setting,
    device: str,
    name: str,
    rows: dict[str, tuple[float | None, str]],
    courses: Callable[[Experiment], dict[str, Course]],
    **changes: Any,
) -> list[Row]:
    """Steps of one replica of Split MNIST's network against those of finetuning.

    Args:
        setting: how to measure.
        device: cpu, or cuda, which need not be there: rows that have a target say so then.
        name: of a row, around that of its steps.
        rows: by name of the steps, target and note.
        courses: the steps to take, by name; those of `finetune`, too.
        changes: to the experiment.
    """
    prefix = "" if device == "cpu" else "CUDA: "
    if prefix and not setting.cuda:
        seconds, data = NO_CUDA
        rows = {steps: (target, "") for steps, (target, _) in rows.items() if target}
    else:
        benchmark, data = mnist(setting.data_dir, setting.device if prefix else device)
        works = courses(mnist_experiment(benchmark, STEPS, **changes))
        seconds = interleave({steps: training(course) for steps, course in works.items()}, setting.rounds)
    return [
        cost(f"{prefix}{name.format(steps)}", seconds[steps], seconds["finetune"], target, note=f"{data}{note}")
        for steps, (target, note) in rows.items()
    ]
