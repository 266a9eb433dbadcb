"""What a method keeps beside the network, its gradient and its optimiser, in bytes."""

from typing import Any

from torch.utils._pytree import tree_leaves

from cl_repro.engine.stack import Experiment, Stack
from cl_repro.types import Method

LABEL = 8  # bytes: class ids are int64


def storage(experiment: Experiment, stack: Stack, method: Method, state: Any) -> dict[str, int]:
    """Bytes that one of K replicas keeps for its method, as it is implemented here; a state of () is none.

    state: tensors of the method, e.g. importances and anchors. examples: of earlier tasks, with their labels, as many
    as the memory may hold, or all that a method looks at again. logits: stored with examples. teacher: its logits of
    the largest task, or a copy of the network. columns: weights of a network of columns beyond its first. Kinds that a
    method has nothing of are left out.
    """
    benchmark, k = experiment.benchmark, len(stack.seeds)
    image = benchmark.x[0].nbytes + LABEL
    tasks, needs = benchmark.curriculum(stack.seeds[0]).tasks, method.needs
    again = sum(len(task.rows) for task in tasks[:-1]) if needs.rebuild_every or needs.all_tasks else 0
    memory = needs.memory.size if needs.memory else 0
    found = {
        "state": sum(t.nbytes for t in tree_leaves(state)) // k,
        "examples": image * (memory + again),
    }
    if stack.stored is not None:
        found["logits"] = stack.stored[0, :memory].nbytes
    if needs.teacher == "step":
        found["teacher"] = sum(t.nbytes for t in (*stack.params.values(), *stack.buffers.values())) // k
    elif needs.teacher == "task":
        n_outputs = experiment.scenario.n_outputs(benchmark, tasks)
        found["teacher"] = max(len(t.rows) for t in tasks[1:]) * n_outputs * experiment.dtype.itemsize
    if experiment.net.columns:
        # as `models.progressive` names them
        found["columns"] = sum(p.nbytes for name, p in stack.params.items() if not name.startswith("c1.")) // k
    return {kind: n for kind, n in found.items() if n}
