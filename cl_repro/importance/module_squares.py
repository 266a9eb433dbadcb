r"""Sums of squared per-example gradients of any `torch.nn.Module`, three ways, and which parameter needs which.

    F = sum_n sum_j (d (s_nj . z_n) / d theta)^2         z [N, A] the active logits, s [N, J, A] constants (`columns`)

    LAYER     J backward passes of all examples at once, down to the outputs of layers; the layers' rules do the rest
    EXAMPLE   `torch.vmap`: one gradient per example, of the parameters that belong to no such layer
    SINGLE    autograd, one example and one column at a time: what the others are checked against

A layer is measured by its rule if it is called once and its parameters enter the graph of the logits nowhere else. That
is asked of every pass; `ways` asks in addition whether the numbers agree with SINGLE on two examples. (A layer's input
that is changed in place afterwards is autograd's error, in SINGLE.)
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call

from cl_repro.errors import UserError
from cl_repro.importance.modules import dimensions, layers_of, own, squares
from cl_repro.importance.squares import Columns
from cl_repro.types import Tree

LAYER, EXAMPLE, SINGLE = "layer", "example", "single"
COLUMNS = 16  # backpropagated before the layers square them: enough to share the cost of a layer's windows
ROUNDING = 1e4  # of this many times the precision of a number are two ways of computing it allowed to differ
FLOAT = (torch.float32, torch.float64)
FLOATS = {"cpu": 2**25, "cuda": 2**29}  # of layers' outputs and derivatives held at a time, when nobody says


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


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


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


def check_alone(model: nn.Module, x: Tensor, active: Tensor | None, z: Tensor) -> None:
    """Refuse a model that says something else of the first or last example, when it sees that alone."""
    for i in {0, len(x) - 1}:
        alone = logits(model, x[i : i + 1], active).detach()[0]
        if not close(z.detach()[i], alone):
            again = logits(model, x[i : i + 1], active).detach()[0]
            why = "depends on the other examples of its batch" if close(again, alone) else "is random"
            raise UserError(f"the model's output for an example {why}, in eval mode: there is no Fisher of an example")


# --- one forward pass, and what its graph says -----------------------------------------------------------------------


@contextmanager
def recorded(layers: dict[str, nn.Module]) -> Iterator[dict[str, list[Call]]]:
    """Meanwhile, every use of these layers is noted."""
    calls: dict[str, list[Call]] = {name: [] for name in layers}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, out: Tensor) -> None:
            if out.dtype not in FLOAT:
                raise UserError(
                    f"layer {name!r} computes in {out.dtype}: must be float32 or float64; is it under autocast?"
                )
            a = args[0] if args else kwargs["input"]
            edge = get_gradient_edge(out) if out.requires_grad else None
            calls[name].append(Call(module, a.detach(), out.shape, edge))

        return hook

    handles = [m.register_forward_hook(note(name), prepend=True, with_kwargs=True) for name, m in layers.items()]
    try:
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


# --- three ways ------------------------------------------------------------------------------------------------------


def layer_wise(model: nn.Module, run: Forward, s: Tensor) -> Tree:
    """LAYER, of the parameters whose layer's rule holds; those that do not enter the logits are zero."""
    params = trainable(model)
    total = {name: torch.zeros_like(params[name]) for name in run.idle}
    names = {id(p): name for name, p in params.items()}
    edges = [call.edge for call in run.calls]
    for part in s.split(COLUMNS, 1) if edges else ():
        deltas = [
            torch.autograd.grad(run.z, edges, s_j, retain_graph=True, allow_unused=True)  # type: ignore[arg-type]
            for s_j in part.unbind(1)
        ]
        for call, parts in zip(run.calls, zip(*deltas, strict=True), strict=True):
            parameters = own(call.layer)
            filled = [run.z.new_zeros(()).expand(call.shape) if d is None else d for d in parts]
            for suffix, value in squares(call.layer, call.a, filled).items():
                if (name := names.get(id(parameters[suffix]))) is not None:  # a frozen one has none
                    total[name] = total[name] + value if name in total else value
    return total


def example_wise(model: nn.Module, names: list[str], x: Tensor, active: Tensor | None, s: Tensor) -> Tree:
    """EXAMPLE, of these parameters."""
    params = trainable(model)
    # A copy per example, expanded: it needs no memory, its gradient does.
    copies = {name: params[name].detach().expand(len(x), *params[name].shape).requires_grad_() for name in names}
    z = torch.vmap(lambda p, example: functional_call(model, p, (example[None],))[0])(copies, x.clone())
    z = z if active is None else z[:, active.to(z.device)]
    total = {name: torch.zeros_like(params[name]) for name in names}
    for s_j in s.unbind(1):
        grads = torch.autograd.grad(z, list(copies.values()), s_j, retain_graph=True, materialize_grads=True)
        total = {name: total[name] + g.square().sum(0) for name, g in zip(names, grads, strict=True)}
    return total


def single(model: nn.Module, names: list[str], x: Tensor, active: Tensor | None, s: Tensor) -> Tree:
    """SINGLE, of these parameters."""
    params = trainable(model)
    total = {name: torch.zeros_like(params[name]) for name in names}
    for example, s_n in zip(x.split(1), s, strict=True):
        z = logits(model, example, active)[0]
        for s_nj in s_n:
            leaves = [params[name] for name in names]
            grads = torch.autograd.grad(z, leaves, s_nj, retain_graph=True, materialize_grads=True)
            total = {name: total[name] + g.square() for name, g in zip(names, grads, strict=True)}
    return total


class Ways(NamedTuple):
    """How each parameter is measured."""

    of: dict[str, str]  # name -> LAYER, EXAMPLE or SINGLE
    each: int  # numbers held for an example: outputs and derivatives of the layers, gradient of the EXAMPLE parameters


def ways(model: nn.Module, x: Tensor, active: Tensor | None) -> Ways:
    """The fastest way for each parameter that agrees with SINGLE, for random columns, on x: the first two examples."""
    params = trainable(model)
    run = forward(model, x, active)
    s = torch.randn(len(x), 2, run.z.shape[1], generator=torch.Generator().manual_seed(0)).to(run.z)
    expected = single(model, list(params), x, active, s)
    # Where gradients cancel, ways differ by rounding errors of the others': squares of (precision) x (the largest).
    largest = max(float(value.max()) for value in expected.values())
    floors = {name: 1e3 * torch.finfo(p.dtype).eps ** 2 * largest for name, p in params.items()}

    def agreeing(found: Tree) -> list[str]:
        return [name for name, value in found.items() if close(value, expected[name], floors[name])]

    of = dict.fromkeys(params, SINGLE) | dict.fromkeys(agreeing(layer_wise(model, run, s)), LAYER)
    rest = [name for name, way in of.items() if way == SINGLE]
    if rest:
        try:
            found = example_wise(model, rest, x, active, s)
        except Exception:  # whatever a model that autograd understands does under vmap: autograd measures it
            found = {}
        of |= dict.fromkeys(agreeing(found), EXAMPLE)
    outputs = sum(call.shape.numel() // len(x) for call in run.calls)
    gradient = sum(params[name].numel() for name, way in of.items() if way == EXAMPLE)
    return Ways(of, outputs * (min(run.z.shape[1] - 1, COLUMNS) + 3) + 2 * gradient)


def sum_of_squares(model: nn.Module, of: dict[str, str], x: Tensor, active: Tensor | None, columns: Columns) -> Tree:
    """F of these examples, {name: [*shape]} of the trainable parameters in their order.

    Args:
        model: evaluated, not training.
        of: how each parameter is measured; SINGLE where its layer's rule does not hold in this pass.
        x: [N, *in].
        active: [A] int64, ascending, or None for all logits.
        columns: z [N, A] -> s [N, J, A].

    Returns:
        The SUM over examples and columns.
    """
    run = forward(model, x, active)
    s = columns(run.z.detach())
    if s.shape[1] == 0:  # one active class: its probability is 1, whatever the parameters
        return {name: torch.zeros_like(p) for name, p in trainable(model).items()}
    found = layer_wise(model, run, s) if LAYER in of.values() else {}
    found = {name: value for name, value in found.items() if of[name] == LAYER}
    if by_example := [name for name, way in of.items() if way == EXAMPLE]:
        found |= example_wise(model, by_example, x, active, s)
    if rest := [name for name in of if name not in found]:
        found |= single(model, rest, x, active, s)
    return {name: found[name] for name in of}
