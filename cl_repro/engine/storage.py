"""What a method keeps beside the network, its gradient and its optimiser, in bytes."""

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from cl_repro.engine.stack import Experiment, Stack, raise_axis
from cl_repro.types import Method

LABEL = 8  # bytes: class ids are int64


def storage(experiment: Experiment, stack: Stack, method: Method, state: Any) -> list[dict[str, int]]:
    """Bytes that each of K replicas keeps for its method, as it is implemented here; a state of () is none.

    state: tensors of the method, e.g. importances and anchors. examples: of earlier tasks, with their labels, as many
    as the memory may hold, or all that a method looks at again. logits: stored with examples. teacher: its logits of
    the largest task, or a copy of the network. columns: weights of a network of columns beyond its first. Kinds that a
    method has nothing of are left out. What a replica keeps is what it would alone: columns of zeros, which bases of a
    stack are filled up with where one has more than another, do not count.
    """
    benchmark, k, needs = experiment.benchmark, len(stack.seeds), method.needs
    image = benchmark.x[0].nbytes + LABEL
    memory = needs.memory.size if needs.memory else 0
    found, states = [], raise_axis(state, k)
    tasks_of = {seed: benchmark.curriculum(seed).tasks for seed in set(stack.seeds)}
    for i, seed in enumerate(stack.seeds):
        tasks = tasks_of[seed]
        again = sum(len(task.rows) for task in tasks[:-1]) if needs.rebuild_every or needs.all_tasks else 0
        own = {
            "state": sum(own_bytes(t[i], grows=method.inspect is not None) for t in tree_leaves(states)),
            "examples": image * (memory + again),
        }
        if stack.stored is not None:
            own["logits"] = stack.stored[i, :memory].nbytes
        if needs.teacher == "step":
            own["teacher"] = sum(t[i].nbytes for t in (*stack.params.values(), *stack.buffers.values()))
        elif needs.teacher == "task":
            n_outputs = experiment.scenario.n_outputs(benchmark, tasks)
            own["teacher"] = max(len(t.rows) for t in tasks[1:]) * n_outputs * experiment.dtype.itemsize
        if experiment.net.columns:
            # as `models.progressive` names them
            own["columns"] = sum(p[i].nbytes for name, p in stack.params.items() if not name.startswith("c1."))
        found.append({kind: n for kind, n in own.items() if n})
    return found


def own_bytes(t: Tensor, grows: bool) -> int:
    """Of a tensor [..., r] of one replica; of a matrix that may have grown, of its columns that are not zero."""
    if not grows or t.dim() < 2 or not t.numel():
        return t.nbytes
    return t[..., :1].nbytes * int(t.flatten(0, -2).norm(dim=0).count_nonzero())
