"""What the steps of a task are given, for K replicas: mini-batches of the task and of the memory, and their targets."""

from torch import Tensor

from cl_repro.engine.aids import taught
from cl_repro.engine.batches import minibatch, uniform
from cl_repro.engine.course import Course
from cl_repro.engine.objective import Inputs
from cl_repro.engine.stack import lower

DATA = ("x", "label", "active")


def inputs(course: Course, i: int) -> tuple[Inputs, Inputs]:
    """Everything that step i is given: of the task, and of the memory (empty without one)."""
    benchmark, net, stack = course.experiment.benchmark, course.experiment.net, course.stack
    drawn, aid, take, k = course.drawn, course.aid, course.take, course.k
    batch = dict(zip(DATA, minibatch(benchmark, drawn, take, i), strict=True))
    recalled: Inputs = {}
    if aid.recalled:
        recalled = dict(zip(DATA, minibatch(benchmark, aid.recalled, take, i), strict=True))
        if stack.stored is not None:
            slot = aid.recalled.at[take, i, : aid.recalled.sizes[i]].expand(k, -1)
            recalled["target"] = lower(of_each(stack.stored, slot), k)
    if net.noise:
        for of, whose in ((batch, drawn), (recalled, aid.recalled)):
            if whose is not None:
                of["noise"] = uniform(whose, take, i, net.noise, batch["x"])
    if aid.targets is not None:
        batch["target"] = lower(of_each(aid.targets, drawn.at[take, i, : drawn.sizes[i]].expand(k, -1)), k)
    elif aid.teacher:
        batch["target"] = taught(course.experiment, aid.teacher, k, batch["x"], course.each)
    return batch, recalled


def of_each(table: Tensor, at: Tensor) -> Tensor:
    """Rows `at` [K, B] of each replica's own part of a table [K, N, C]: [K, B, C]."""
    return table.gather(1, at[..., None].expand(-1, -1, table.shape[-1]))


def store(course: Course, i: int, z: Tensor) -> None:
    """Keep the logits [K, B, C] of step i where the memory has put their examples."""
    stack, slot, memory = course.stack, course.aid.slot, course.method.needs.memory
    if slot is None or memory is None:
        return
    if stack.stored is None:
        stack.stored = z.new_zeros(len(z), memory.size + 1, z.shape[-1])
    at = slot[course.take, i, : course.drawn.sizes[i]].expand(len(z), -1)[..., None].expand(-1, -1, z.shape[-1])
    stack.stored.scatter_(1, at, z.detach())
