"""One forward pass of a user's model: its logits, its layers' inputs and outputs, and what the graph says of them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from cl_repro.common.errors import UserError
from cl_repro.importance.library.rules import dimensions, layers_of, own

ROUNDING = 1e4  # of this many times the precision of a number are two ways of computing it allowed to differ
FLOAT = (torch.float32, torch.float64)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


class Call(NamedTuple):
    """One use of a layer in a forward pass."""

    layer: nn.Module
    a: Tensor  # its input
    shape: torch.Size  # of its output
    edge: GradientEdge | None  # its output in the graph, as it was before anything changed it in place


class Forward(NamedTuple):
    """A forward pass: the active logits, and the layers whose rule holds in it."""

    z: Tensor  # [N, A]
    calls: list[Call]
    idle: set[str]  # parameters that do not enter the logits: their gradient is zero


def forward(model: nn.Module, x: Tensor, active: Tensor | None) -> Forward:
    """A pass over x [N, *in], checked."""
    with recorded(layers_of(model)) as calls:
        z = logits(model, x, active)
    nodes, leaves = graph(z)

    def holds(call: Call) -> bool:
        """Whether the layer's rule does, if this is its only use."""
        counts = [leaves[id(p)] for p in own(call.layer).values() if p.requires_grad]
        once = counts == [1] * len(counts) != []
        examples = call.a.dim() >= dimensions(call.layer) and len(call.a) == len(x) == call.shape[0]
        reached = call.edge is not None and call.edge.node in nodes
        return once and examples and reached

    good = [uses[0] for uses in calls.values() if len(uses) == 1 and holds(uses[0])]
    check_alone(model, x, active, z)
    return Forward(z, good, {name for name, p in trainable(model).items() if not leaves[id(p)]})


def logits(model: nn.Module, x: Tensor, active: Tensor | None) -> Tensor:
    """The active logits [N, A] of the model.

    Raises:
        UserError: if the model does not return finite logits [N, C] in float32 or better, that depend on parameters.
    """
    z = model(x.clone())  # some change their input in place
    if not isinstance(z, Tensor):
        raise UserError(f"the model returns {type(z).__name__}: must be one tensor of logits [N, C]; wrap the model")
    if z.dim() != 2 or len(z) != len(x):
        raise UserError(f"the model returns {list(z.shape)} for {len(x)} examples: must be logits [N, C]")
    if z.dtype not in FLOAT:
        raise UserError(f"the model returns {z.dtype}: the Fisher needs logits in float32 or float64")
    if z.shape[1] < 2:
        raise UserError("the model returns one logit: its softmax is 1; a sigmoid of z is the softmax of [0, z]")
    if not z.requires_grad:
        raise UserError("the model's output depends on no parameter that requires a gradient; is it under no_grad?")
    if active is not None:
        if int(active[-1]) >= z.shape[1]:
            raise UserError(f"active={active.tolist()}: the model returns {z.shape[1]} logits")
        z = z[:, active.to(z.device)]
    if not z.isfinite().all():
        raise UserError("the model's active logits are not all finite: there is no Fisher")
    return z


def close(found: Tensor, expected: Tensor, floor: float = 0.0) -> bool:
    """Whether two ways of computing something agree, relative to its largest entry."""
    precision = torch.finfo(expected.dtype).eps
    return bool(((found - expected).abs() <= ROUNDING * precision * expected.abs().max() + floor).all())


def check_alone(
    model: nn.Module, x: Tensor, active: Tensor | None, z: Tensor, rows: Iterable[int] | None = None
) -> None:
    """Refuse a model that says something else of these examples than z [N, A], when it sees each alone.

    `rows`: which; None: the first, the middle and the last.
    """
    for i in rows or {0, len(x) // 2, len(x) - 1}:
        alone = logits(model, x[i : i + 1], active).detach()[0]
        if not close(z.detach()[i], alone):
            again = logits(model, x[i : i + 1], active).detach()[0]
            why = "depends on the other examples of its batch" if close(again, alone) else "is random"
            raise UserError(f"the model's output for an example {why}, in eval mode: there is no Fisher of an example")


@contextmanager
def recorded(layers: dict[str, nn.Module]) -> Iterator[dict[str, list[Call]]]:
    """Meanwhile, every use of these layers is noted."""
    calls: dict[str, list[Call]] = {name: [] for name in layers}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, out: Tensor) -> None:
            if out.dtype not in FLOAT:
                if not out.requires_grad:
                    return  # frozen, and nothing below it is measured
                raise UserError(
                    f"layer {name!r} computes in {out.dtype}: must be float32 or float64; is it under autocast?"
                )
            a = args[0] if args else kwargs["input"]
            edge = get_gradient_edge(out) if out.requires_grad else None
            calls[name].append(Call(module, a.detach(), out.shape, edge))

        return hook

    handles = []
    try:
        for name, module in layers.items():
            handles.append(module.register_forward_hook(note(name), prepend=True, with_kwargs=True))
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def graph(z: Tensor) -> tuple[set[Any], Counter[int]]:
    """The nodes of z's graph, and how often each leaf enters it, by the leaf's id."""
    nodes, leaves, todo = {z.grad_fn}, Counter[int](), [z.grad_fn]
    while todo:
        for node, _ in todo.pop().next_functions:  # type: ignore[union-attr]  # nodes only
            if node is not None and hasattr(node, "variable"):
                leaves[id(node.variable)] += 1
            elif node is not None and node not in nodes:
                nodes.add(node)
                todo.append(node)
    if any(node.name() == "CheckpointFunctionBackward" for node in nodes if node):
        raise UserError("the model uses torch.utils.checkpoint with use_reentrant=True: give it use_reentrant=False")
    return nodes, leaves
