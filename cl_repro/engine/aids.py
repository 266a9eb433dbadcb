"""What a method wants beside the mini-batches of its task: others, examples of its memory, a teacher."""

from typing import NamedTuple

import torch
from torch import Tensor

from cl_repro.common import rng
from cl_repro.common.runtime import tf32
from cl_repro.engine.batches import Batches, batches, labels_of
from cl_repro.engine.needs import repetitions, trains_on
from cl_repro.engine.recall import before, kept
from cl_repro.engine.stack import Experiment, Stack, active_mask, gathered, groups, lift, look, lower
from cl_repro.memory import Contents
from cl_repro.types import Curriculum, Method, Tree

BATCH, INDEPENDENT = "batch", "independent"  # gradients a method may observe


class Aids(NamedTuple):
    """All that is drawn or computed before the first step of a task."""

    independent: Batches | None = None
    slot: Tensor | None = None  # [S, iterations, B], where the memory puts a trained example
    recalled: Batches | None = None  # what the memory gives; `at` are its slots
    old: Tensor | None = None  # [G, C] bool, the different sets of active logits of the tasks before
    targets: Tensor | None = None  # [K, N, C], the teacher's logits of the examples that mini-batches are drawn from
    teacher: tuple[Tree, Tree] | None = None  # its parameters and buffers, [K, ...]


def aids(experiment: Experiment, stack: Stack, task: int, method: Method, drawn: Batches) -> Aids:
    """Whatever the method asks for that does not depend on the networks."""
    seeds, needs = sorted(set(stack.seeds)), method.needs
    independent = slot = recalled = old = None
    if INDEPENDENT in needs.gradients:
        # DEVIATES from Benzing's code: shuffled epochs of their own, for every benchmark and program, as in his
        # training runs on MNIST. For his figures on MNIST both mini-batches of a step come from one shuffle, so that
        # they share no example within an epoch; on CIFAR he draws the independent ones with replacement.
        independent = batches(experiment, seeds, task, trains_on(method, task), INDEPENDENT)
    if needs.memory and needs.memory.size and not needs.mixes:
        slot, recalled = memories(experiment, seeds, task, method, drawn)
    if task and (method.loss or needs.warm_up):
        curriculum = experiment.benchmark.curriculum(seeds[0])
        masks = [active_mask(experiment, curriculum, task - 1, asked) for asked in range(task)]
        old = torch.stack(masks).unique(dim=0)
    return Aids(independent, slot, recalled, old)


def lessons(experiment: Experiment, stack: Stack, task: int, method: Method, aid: Aids) -> Aids:
    """With what the networks of before the task teach, if the method asks for it."""
    if not (method.needs.teacher and task):
        return aid
    if method.needs.teacher == "step":
        return aid._replace(teacher=(copy(stack.params), copy(stack.buffers)))
    return aid._replace(targets=logits(experiment, stack, task, method))


def copy(of: Tree) -> Tree:
    """Copies of the tensors, which stay as they are when the originals are changed in place."""
    return {name: value.clone() for name, value in of.items()}


def memories(
    experiment: Experiment, seeds: list[int], task: int, method: Method, drawn: Batches
) -> tuple[Tensor, Batches | None]:
    """Where the memories of S seeds put what is trained on, and the mini-batches that they give back."""
    memory = method.needs.memory
    assert memory
    earlier = [batches(experiment, seeds, k, trains_on(method, k)).rows.cpu() for k in range(task)]
    found, labels = [], []
    for s, seed in enumerate(seeds):
        curriculum = experiment.benchmark.curriculum(seed)
        contents = before(memory, curriculum, seed, [rows[s] for rows in earlier])
        one = kept(memory, contents, curriculum, seed, task, drawn.rows[s].cpu(), draws=task > 0)
        found.append(one)
        labels.append(labels_of(experiment, curriculum, *one.items.to(drawn.rows.device).unbind(-1)))
    slot = torch.stack([one.slot for one in found]).to(drawn.rows.device)
    if any(one.recalled is None for one in found):  # before the second task
        return slot, None
    items = torch.stack([one.items for one in found]).to(drawn.rows.device)
    at = torch.stack([one.recalled for one in found if one.recalled is not None]).to(drawn.rows.device)
    noise = [rng.stream(seed, "recall_noise", task, experiment.device) for seed in seeds]
    return slot, drawn._replace(at=at, rows=items[..., 0], label=torch.stack(labels), owner=items[..., 1], noise=noise)


def rehearsed(experiment: Experiment, seeds: list[int], task: int, method: Method) -> list[Tensor] | None:
    """For each seed what a memory adds to the examples that mini-batches are drawn from, rows and tasks [n, 2].

    None for methods that do not mix them, and before the second task.
    """
    memory = method.needs.memory
    if not (repetitions(method, 0) and memory and task):
        return None
    found = []
    for seed in seeds:
        curriculum, contents = experiment.benchmark.curriculum(seed), Contents()
        for k in range(task):
            more = [repeated(method, curriculum, k, contents)]
            drawn = batches(experiment, [seed], k, trains_on(method, k), more=more)
            own = drawn.rows[0].masked_fill(drawn.owner[0] != k, -1).cpu()
            kept(memory, contents, curriculum, seed, k, own, draws=False)
        found.append(repeated(method, curriculum, task, contents))
    return found


def repeated(method: Method, curriculum: Curriculum, task: int, contents: Contents) -> Tensor:
    """All that a memory holds, as often as it is mixed with the examples of a task: rows and tasks [n, 2]."""
    rows = curriculum.tasks[task].rows
    items = torch.tensor([(item.row, item.task) for item in contents.slots], dtype=torch.int64, device=rows.device)
    return items.view(-1, 2).repeat(repetitions(method, len(rows)), 1)


@torch.no_grad()
def logits(experiment: Experiment, stack: Stack, task: int, method: Method) -> Tensor:
    """Logits [K, N, C] of the networks as they are evaluated, of all examples that the task trains on.

    Where seeds have unequally many, the rest is zero.
    """
    k, benchmark = len(stack.seeds), experiment.benchmark
    result: list[Tensor] = [torch.empty(0)] * k
    for seed, _, replicas in groups(stack, stack.seeds):
        curriculum = benchmark.curriculum(seed)
        tasks = [curriculum.tasks[t] for t in trains_on(method, task)]
        for i in replicas.tolist():
            params, buffers = ({name: v[i] for name, v in of.items()} for of in (stack.params, stack.buffers))
            parts = [
                experiment.net.apply(params, buffers, look(benchmark, gathered(benchmark.x, rows), of.pixels))[0]
                for of in tasks
                for rows in of.rows.split(experiment.rows_per_pass)
            ]
            result[i] = torch.cat(parts)
    most = max(len(z) for z in result)
    return torch.stack([torch.nn.functional.pad(z, (0, 0, 0, most - len(z))) for z in result])


@torch.no_grad()
def taught(experiment: Experiment, teacher: tuple[Tree, Tree], k: int, x: Tensor, each: int | None) -> Tensor:
    """Logits [K, B, C] of the teacher of each replica, or [B, C] for one, of a mini-batch."""
    out = lift(lambda p, b, given: experiment.net.apply(p, b, given)[0], k, (0, 0, each))
    with tf32(False):  # as the logits of a whole task
        return out(*(lower(of, k) for of in teacher), x)
