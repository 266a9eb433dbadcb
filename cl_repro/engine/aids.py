"""What a method wants beside the mini-batches of its task: others, examples of its memory, a teacher."""

from typing import NamedTuple

import torch
from torch import Tensor

from cl_repro.common import rng, tree
from cl_repro.engine.batches import Batches, batches, labels_of
from cl_repro.engine.needs import repetitions, trains_on
from cl_repro.engine.recall import kept
from cl_repro.engine.stack import Experiment, Stack, active_mask, gathered, groups, look
from cl_repro.memory import Contents, Memory
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
        return aid._replace(teacher=(tree.copied(stack.params), tree.copied(stack.buffers)))
    return aid._replace(targets=logits(experiment, stack, task, method))


def memories(
    experiment: Experiment, seeds: list[int], task: int, method: Method, drawn: Batches
) -> tuple[Tensor, Batches | None]:
    """Where the memories of S seeds put what is trained on, and the mini-batches that they give back."""
    memory = method.needs.memory
    assert memory
    found, labels = [], []
    for s, seed in enumerate(seeds):
        curriculum = experiment.benchmark.curriculum(seed)
        contents = held_before(experiment, memory, seed, task, method)
        one = kept(memory, contents, curriculum, seed, task, own_rows(drawn, s, task), draws=task > 0)
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
    benchmark = experiment.benchmark
    contents = {seed: held_before(experiment, memory, seed, task, method) for seed in seeds}
    return [repeated(method, benchmark.curriculum(seed), task, held) for seed, held in contents.items()]


def held_before(experiment: Experiment, memory: Memory, seed: int, task: int, method: Method) -> Contents:
    """What the memory of a seed holds before a task: the mini-batches of the tasks before are gone through again."""
    curriculum, contents = experiment.benchmark.curriculum(seed), Contents()
    for k in range(task):
        more = [repeated(method, curriculum, k, contents)]
        drawn = batches(experiment, [seed], k, trains_on(method, k), more=more)
        kept(memory, contents, curriculum, seed, k, own_rows(drawn, 0, k), draws=False)
    return contents


def own_rows(drawn: Batches, s: int, task: int) -> Tensor:
    """The mini-batches of one of the seeds, [iterations, B] rows; -1 for what is no example of the task itself."""
    return drawn.rows[s].masked_fill(drawn.owner[s] != task, -1).cpu()


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
