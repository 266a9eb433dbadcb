"""A training step with a projected gradient, or of columns, against one of finetuning: Split MNIST, SGD, K = 1."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from benches.measure import Row, Setting
from benches.workloads import SEED, against_finetuning
from cl_repro.engine import Experiment
from cl_repro.engine.course import Course
from cl_repro.engine.lifecycle import begin, learn
from cl_repro.engine.stack import lower, start
from cl_repro.methods import gpm, ogd
from cl_repro.methods.baselines import finetune
from cl_repro.models.progressive import progressive
from cl_repro.types import Method, Tree

RANKS: dict[int, float] = {50: 1.3, 150: 1.5}  # of every layer's basis: target
COLUMNS = (50, 200, 800)  # of OGD's basis
TASKS = (1, 2, 5)  # columns of a progressive network
NAME = "{} / finetune step, K = 1, MLP 784-400-400-10, SGD"


def rows(setting: Setting) -> list[Row]:
    """A row for each size of a basis, and for each number of columns; on CUDA, too, if there is one."""
    return [*on(setting, "cpu"), *on(setting, "cuda")]


def on(setting: Setting, device: str) -> list[Row]:
    """The rows of one device."""
    told = {name: (target, "") for name, target in targets().items()}
    return against_finetuning(setting, device, NAME, told, courses, optimiser=partial(torch.optim.SGD, lr=0.01))


def targets() -> dict[str, float | None]:
    """What is timed, and its target."""
    found: dict[str, float | None] = {f"gpm, rank {rank} in every layer": target for rank, target in RANKS.items()}
    found |= {f"ogd, basis of {n}": None for n in COLUMNS}
    return found | {f"progressive, {n} columns of 784-400-400" + " with adapters" * (n > 1): None for n in TASKS}


def courses(of: Experiment) -> dict[str, Course]:
    """The second task of every method, by its name here."""
    shape, n_outputs = tuple(of.benchmark.x.shape[1:]), of.benchmark.n_classes
    found = {"finetune": second_task(of, finetune(), None)}
    stack = start(of, [SEED])
    params = lower(stack.params, 1)
    states: list[tuple[Method, Any]] = [(gpm.gpm(), of_rank(params, rank)) for rank in RANKS]
    states += [(ogd.ogd(), ogd.State(orthonormal(ogd.flat(params), n))) for n in COLUMNS]
    works = [second_task(of, method, state) for method, state in states]
    for n in TASKS:
        net = progressive(n, [400, 400], input_shape=shape, n_outputs=n_outputs)
        works.append(second_task(of._replace(net=net), finetune(), None))
    return found | dict(zip(targets(), works, strict=True))


def of_rank(params: Tree, rank: int) -> gpm.State:
    """A state whose bases have this rank, and whose head is used."""
    layers = {name: torch.empty(gpm.width(params, name), device=p.device) for name, p in gpm.weights(params).items()}
    basis = {name: orthonormal(like, rank) for name, like in layers.items()}
    return gpm.State(basis, torch.ones_like(params["head.bias"]), torch.ones((), device=params["head.bias"].device))


def orthonormal(like: Tensor, n: int) -> Tensor:
    """Random orthonormal columns [D, n], D = len(like)."""
    drawn = torch.randn(len(like), n, generator=torch.Generator().manual_seed(n))
    return torch.linalg.qr(drawn)[0].to(like)


def second_task(of: Experiment, method: Method, state: Any) -> Course:
    """The second task, after the first has been learned without the method."""
    stack = start(of, [SEED])
    learn(of, stack, 0, Method(), None)
    return begin(of, stack, 1, method, state)
