"""K replicas as one stack of tensors, and how a function of one replica becomes a function of K."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from cl_repro.common import rng, tree
from cl_repro.common.errors import UserError
from cl_repro.types import Benchmark, Curriculum, Estimator, Net, Scenario, Tree


class Epochs(NamedTuple):
    """How long a task is trained, by passes over its examples, of which the last mini-batch may be smaller."""

    of_tasks: tuple[int, ...]  # passes, 0 or more

    def steps(self, task: int, n: int, batch_size: int) -> int:
        """Iterations of a task that trains on n examples."""
        return self.of_tasks[task] * -(-n // batch_size)


class Experiment(NamedTuple):
    """What all replicas of a stack share."""

    key: str  # names the configuration of the fields below, for sharing a trained first task
    benchmark: Benchmark
    scenario: Scenario
    net: Net
    optimiser: Callable[[list[Tensor]], Optimizer]  # elementwise optimisers only: a stack is then K of them
    reset_optimiser: bool  # a new optimiser for every task
    iterations: int | Sequence[int] | Epochs  # of every task, or of each
    batch_size: int
    rows_per_pass: int  # examples per forward pass outside training: bounds memory
    share_first_task: bool
    dtype: torch.dtype
    device: str
    tf32: bool = (
        False  # on CUDA, training may round factors to TF32; importances, observed or not, and evaluation never do
    )
    channels_last: bool = False  # training of one replica: the channels of an image's pixel are side by side in memory
    cuda_graph: bool = False  # a step of training is recorded once and replayed (`engine.graphs`); the same numbers
    reinit: bool = False  # protected parameters are drawn anew before every task but the first
    pause: float = 0.0  # seconds of a task, at least, between two moments at which it can be stopped

    def steps(self, task: int) -> int:
        """Iterations of a task; where they are epochs, `needs.lengths` knows."""
        if isinstance(self.iterations, Epochs):
            raise UserError("iterations.epochs: this needs iterations=<number>, as it counts the steps of a task")
        return self.iterations if isinstance(self.iterations, int) else self.iterations[task]

    def protected(self, of: Tree) -> Tree:
        """What methods see of a tree."""
        return tree.without(of, self.net.unprotected) if self.net.unprotected else of


class Replica(NamedTuple):
    """One run: a row of the results."""

    seed: int
    lam: float
    estimator: Estimator | None


@dataclass
class Seconds:
    """Seconds of work (`runtime.clock`), of one stack."""

    train: float = 0.0
    fisher: float = 0.0
    evaluate: float = 0.0


@dataclass
class Stack:
    """The state of K networks in training."""

    seeds: list[int]  # of every replica
    params: Tree  # {name: [K, *shape]}
    buffers: Tree
    optimiser: Optimizer
    seconds: Seconds = field(default_factory=Seconds)
    steps: int = 0  # of the longest task so far
    stored: Tensor | None = None  # [K, M + 1, C] logits of every slot of the memory; the last is for what is not kept


def lift(f: Callable[..., Any], k: int, in_dims: Any = 0) -> Callable[..., Any]:
    """`f` of one replica -> `f` of K."""
    return f if k == 1 else torch.vmap(f, in_dims=in_dims)


def lower(stacked: Any, k: int) -> Any:
    """The argument of a lifted function: for K = 1 the axis is dropped, as a view."""
    return tree_map(lambda t: t[0], stacked) if k == 1 else stacked


def raise_axis(result: Any, k: int) -> Any:
    """The result of a lifted function, with the replica axis, whatever K."""
    return tree_map(lambda t: t[None], result) if k == 1 else result


def start(experiment: Experiment, seeds: list[int]) -> Stack:
    """Untrained networks, one a seed."""
    initial = [experiment.net.init(rng.stream(seed, "init")) for seed in seeds]

    def place(trees: list[Tree]) -> Tree:
        return {name: v.to(experiment.device, experiment.dtype) for name, v in tree.stack(trees).items()}

    params, buffers = place([p for p, _ in initial]), place([b for _, b in initial])
    return Stack(seeds, params, buffers, experiment.optimiser(list(params.values())))


def fork(experiment: Experiment, stack: Stack, rows: Tensor) -> Stack:
    """Copies of replicas `rows` [K] with everything they depend on: weights, buffers and the optimiser's moments."""
    params = tree.select(stack.params, rows)
    optimiser = experiment.optimiser(list(params.values()))
    for old, new in zip(stack.params.values(), params.values(), strict=True):
        if old in stack.optimiser.state:  # not before a first step
            optimiser.state[new] = {
                key: value.index_select(0, rows) if value.shape == old.shape else value.clone()
                for key, value in stack.optimiser.state[old].items()
            }
    seeds, buffers = [stack.seeds[i] for i in rows.tolist()], tree.select(stack.buffers, rows)
    return Stack(seeds, params, buffers, optimiser, steps=stack.steps)


def redraw(experiment: Experiment, stack: Stack, task: int) -> None:
    """Protected parameters as before any training, by a draw of the task's own, in place."""
    drawn = {seed: experiment.net.init(rng.stream(seed, "init", task))[0] for seed in set(stack.seeds)}
    for name, value in experiment.protected(stack.params).items():
        value.copy_(torch.stack([drawn[seed][name] for seed in stack.seeds]))


def groups(stack: Stack, kind: Sequence[Any]) -> list[tuple[int, Any, Tensor]]:
    """Replicas that share their examples: (seed, kind, rows [k]) for every distinct pair."""
    pairs = list(zip(stack.seeds, kind, strict=True))
    device = next(iter(stack.params.values())).device
    return [
        (*pair, torch.tensor([i for i, other in enumerate(pairs) if other == pair], device=device))
        for pair in dict.fromkeys(pairs)
    ]


def gathered(resident: Tensor, rows: Tensor) -> Tensor:
    """`resident[rows]`, for rows [...] of at least 0; on a CPU it copies bytes row by row, not one by one."""
    return resident.index_select(0, rows.flatten()).view(*rows.shape, *resident.shape[1:])


def look(benchmark: Benchmark, images: Tensor, pixels: Tensor | None) -> Tensor:
    """What a network sees of images of the resident data.

    Args:
        benchmark: whose images they are.
        images: [..., *shape] uint8.
        pixels: [..., P] int64, the order of each image's pixels, or [P], the order of all; None: as they are.

    Returns:
        [..., *shape] float.
    """
    if pixels is not None:
        flat = images.flatten(-benchmark.x[0].ndim)
        images = flat.gather(-1, pixels.expand(flat.shape)).view(images.shape)
    return benchmark.to_input(images)


def active_mask(experiment: Experiment, curriculum: Curriculum, trained: int, asked: int) -> Tensor:
    """[C] bool, the logits that are active for examples of task `asked` after training up to `trained`."""
    n_outputs = experiment.scenario.n_outputs(experiment.benchmark, curriculum.tasks)
    mask = torch.zeros(n_outputs, dtype=torch.bool)
    mask[list(experiment.scenario.active(curriculum.tasks, trained, asked))] = True
    return mask.to(experiment.device)
