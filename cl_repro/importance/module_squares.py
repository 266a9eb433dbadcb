r"""Sums of squared per-example gradients of any `torch.nn.Module`, three ways, and which parameter needs which.

    F = sum_n sum_j (d (s_nj . z_n) / d theta)^2         z [N, A] the active logits, s [N, J, A] constants (`columns`)

    LAYER     J backward passes of all examples at once, down to the outputs of layers; the layers' rules do the rest
    EXAMPLE   `torch.vmap`: one gradient per example, of the parameters that belong to no such layer
    SINGLE    autograd, one example and one column at a time: what the others are checked against

The columns come in blocks of a few, so that nothing holds C x C numbers for an example.

A layer is measured by its rule if it is called once, its parameters enter the graph of the logits nowhere else, and row
m of its output enters the logits of example m alone (`rows_are_examples`). That is asked of every pass; `ways` asks in
addition whether the numbers agree with SINGLE on two examples. (A layer's input that is changed in place afterwards is
autograd's error, in SINGLE.)
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.attention import SDPBackend, sdpa_kernel

from cl_repro.common.errors import UserError
from cl_repro.importance.modules import dimensions, layers_of, own, squares
from cl_repro.types import Tree

Blocks = Callable[[Tensor], Iterable[Tensor]]  # z [N, A] -> blocks [N, J, A] of columns, each J at most COLUMNS

LAYER, EXAMPLE, SINGLE = "layer", "example", "single"
COLUMNS = 16  # backpropagated before the layers square them: enough to share the cost of a layer's windows
ROUNDING = 1e4  # of this many times the precision of a number are two ways of computing it allowed to differ
NO_RULE = "not yet implemented the batching rule"  # what torch warns of when it takes examples apart under vmap
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


@contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """Afterwards the modules have the attributes, parameters, buffers and hooks they had before: the same objects.

    Of attributes that are lists, dictionaries or sets, the items too; what a module keeps elsewhere is not known here.
    """
    before = {module: dict(vars(module)) for module in model.modules()}
    containers = [
        (value, value.copy())
        for attributes in before.values()
        for value in attributes.values()
        if isinstance(value, list | dict | set)
    ]
    try:
        yield
    finally:
        for module, attributes in before.items():
            vars(module).clear()
            vars(module).update(attributes)
        for value, items in containers:
            value.clear()
            value.extend(items) if isinstance(value, list) else value.update(items)


def with_parameters(model: nn.Module, params: Tree, x: Tensor) -> Tensor:
    """model(x) with these parameters, by name, in the place of its own, wherever a module has them.

    `torch.func.functional_call` loses the parameters of a module that is registered under two names.

    Raises:
        TypeError: if a module is TorchScript's, whose parameters are not Python's to put in place.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise TypeError("a module of TorchScript")
    new = {id(p): params[name] for name, p in model.named_parameters() if name in params}
    with attributes_kept(model):
        for module in model.modules():
            for key, p in own(module).items():
                module._parameters[key] = new.get(id(p), p)  # type: ignore[assignment]  # a tensor will do
        return model(x)


def one_by_one(model: nn.Module, params: Tree, x: Tensor) -> Tensor:
    """The outputs [N, C] for x, each example alone and with its own of the parameters [N, *shape], by `torch.vmap`."""
    with sdpa_kernel(SDPBackend.MATH):  # the others have no batching rule
        return torch.vmap(lambda p, example: with_parameters(model, p, example[None])[0])(params, x.clone())


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


def check_alone(model: nn.Module, x: Tensor, active: Tensor | None, z: Tensor, rows: Iterable[int]) -> None:
    """Refuse a model that says something else of these examples than z [N, A], when it sees each alone."""
    for i in rows:
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


def some_rows(x: Tensor) -> set[int]:
    """The first, the middle and the last example."""
    return {0, len(x) // 2, len(x) - 1}


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
    check_alone(model, x, active, z, some_rows(x))
    return Forward(z, good, {name for name, p in trainable(model).items() if not leaves[id(p)]})


# --- three ways ------------------------------------------------------------------------------------------------------


def layer_wise(model: nn.Module, run: Forward, s: Tensor, *, proved: bool = False) -> Tree:
    """LAYER, of the parameters whose layer's rule holds; those that do not enter the logits are zero.

    `proved`: that rows are examples, so that it is not asked again.
    """
    params = trainable(model)
    total = {name: torch.zeros_like(params[name]) for name in run.idle}
    if not run.calls:
        return total
    names = {id(p): name for name, p in params.items()}

    def backward(s_j: Tensor) -> list[Tensor]:
        """Derivatives by the output of each layer, [N, ...]."""
        edges = [call.edge for call in run.calls]
        found = torch.autograd.grad(run.z, edges, s_j, retain_graph=True, allow_unused=True)  # type: ignore[arg-type]
        zero = run.z.new_zeros(())
        return [zero.expand(call.shape) if d is None else d for call, d in zip(run.calls, found, strict=True)]

    deltas = list(zip(*(backward(s_j) for s_j in s.unbind(1)), strict=True))  # by layer, by column
    good = [True] * len(deltas) if proved else rows_are_examples(backward, s, deltas)
    for call, parts, believed in zip(run.calls, deltas, good, strict=True):
        if believed:
            parameters = own(call.layer)
            for suffix, value in squares(call.layer, call.a, parts).items():
                if (name := names.get(id(parameters[suffix]))) is not None:  # a frozen one has none
                    total[name] = value
    return total


def one_row_whatever_the_example(model: nn.Module, x: Tensor) -> bool:
    """Whether an example makes one row in every layer, whatever its values: then rows are examples.

    Under `torch.vmap` no shape and no branch can depend on values, except where torch has no batching rule.
    """
    with recorded(layers_of(model)) as calls, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            one_by_one(model, {}, x)
        except Exception:  # whatever a model that autograd understands does under vmap
            return False
    without_rule = any(NO_RULE in str(warning.message) for warning in said)
    return not without_rule and all(call.shape[:1] == (1,) for uses in calls.values() for call in uses)


def rows_are_examples(
    backward: Callable[[Tensor], list[Tensor]], s: Tensor, deltas: Sequence[Sequence[Tensor]]
) -> list[bool]:
    """Of each layer, whether each row of its output enters the logits of its own example alone; one backward pass.

    Backpropagation is linear. If row m enters z_m alone, then weights w_n on the columns of examples come out as the
    factor w_m on row m, exactly; if it enters z_n, as w_n. A model that packs k_n rows of example n, in the order of
    the examples, into as many rows as examples has some row m of example m - 1 or m + 1 unless each k_n is 1.

    Args:
        backward: column [N, A] -> its derivatives D by the layers' outputs, [N, ...].
        s: [N, J, A].
        deltas: what `backward` makes of them, for each layer J tensors [N, ...].
    """
    largest = s.abs().amax(2).argmax(1)  # [N], the column of each example that says most
    groups = largest.argsort().split(largest.bincount(minlength=s.shape[1]).tolist())  # the examples of each column
    # Powers of two, so that what they multiply is rounded alike; an example's is not that of the 31 on either side.
    w = 2.0 ** (torch.arange(len(s), device=s.device, dtype=s.dtype) % 32 - 16)
    weighted = backward(w[:, None] * s.take_along_dim(largest[:, None, None], 1)[:, 0])
    return [agree(d, w, parts, groups) for d, parts in zip(weighted, deltas, strict=True)]


def agree(weighted: Tensor, w: Tensor, deltas: Sequence[Tensor], groups: Sequence[Tensor]) -> bool:
    """Whether row m of `weighted` is w_m times that of the column whose group m is in."""
    # Of each row a few random projections are compared.
    v = torch.randn(weighted[0].numel(), 4, generator=torch.Generator().manual_seed(0)).to(weighted)
    found = weighted.flatten(1) @ v
    expected = torch.empty_like(found)
    for rows, d in zip(groups, deltas, strict=True):
        expected[rows] = w[rows, None] * (d[rows].flatten(1) @ v)
    precision = ROUNDING * torch.finfo(w.dtype).eps
    return bool(((found - expected).norm(dim=1) <= precision * expected.norm(dim=1)).all())


def example_wise(model: nn.Module, names: list[str], z: Tensor, x: Tensor, active: Tensor | None, s: Tensor) -> Tree:
    """EXAMPLE, of these parameters; none if the model computes something else than z in this way, or cannot."""
    params = trainable(model)
    # A copy per example, expanded: it needs no memory, its gradient does.
    copies = {name: params[name].detach().expand(len(x), *params[name].shape).requires_grad_() for name in names}
    try:
        found = one_by_one(model, copies, x)
    except Exception:  # whatever a model that autograd understands does under vmap: autograd measures it
        return {}
    found = found if active is None else found[:, active.to(z.device)]
    if not all(close(a, b) for a, b in zip(found.detach(), z.detach(), strict=True)):
        return {}
    total = {name: torch.zeros_like(params[name]) for name in names}
    for s_j in s.unbind(1):
        grads = torch.autograd.grad(found, list(copies.values()), s_j, retain_graph=True, materialize_grads=True)
        total = {name: total[name] + g.square().sum(0) for name, g in zip(names, grads, strict=True)}
    return total


def single(model: nn.Module, names: list[str], z: Tensor, x: Tensor, active: Tensor | None, s: Tensor) -> Tree:
    """SINGLE, of these parameters; refuses a model that computes something else than z in this way."""
    params = trainable(model)
    total = {name: torch.zeros_like(params[name]) for name in names}
    for n, (example, s_n) in enumerate(zip(x.split(1), s, strict=True)):
        alone = logits(model, example, active)[0]
        if not close(z.detach()[n], alone.detach()):
            check_alone(model, x, active, z, [n])
        for s_nj in s_n:
            leaves = [params[name] for name in names]
            grads = torch.autograd.grad(alone, leaves, s_nj, retain_graph=True, materialize_grads=True)
            total = {name: total[name] + g.square() for name, g in zip(names, grads, strict=True)}
    return total


class Ways(NamedTuple):
    """How each parameter is measured, and the numbers that are held for an example meanwhile."""

    of: dict[str, str]  # name -> LAYER, EXAMPLE or SINGLE
    proved: bool  # that rows are examples
    z: Tensor  # [N, A], the active logits of these examples
    each: int  # the example, outputs of the layers, gradient of the EXAMPLE parameters
    column: int  # the same for each column of a block: derivatives of the layers, the column itself
    slow: set[str]  # parameters that were measured one example at a time, and said to be


def ways(model: nn.Module, x: Tensor, active: Tensor | None) -> Ways:
    """The fastest way for each parameter that agrees with SINGLE, for random columns, on x: the first two examples."""
    params = trainable(model)
    run = forward(model, x, active)
    s = torch.randn(len(x), 2, run.z.shape[1], generator=torch.Generator().manual_seed(0)).to(run.z)
    expected = single(model, list(params), run.z, x, active, s)
    check_finite(expected)
    # Where gradients cancel, ways differ by rounding errors of the others': squares of (precision) x (the largest).
    largest = max(float(value.max()) for value in expected.values())
    floors = {name: 1e3 * torch.finfo(p.dtype).eps ** 2 * largest for name, p in params.items()}

    def agreeing(found: Tree) -> list[str]:
        return [name for name, value in found.items() if close(value, expected[name], floors[name])]

    proved = one_row_whatever_the_example(model, x)
    of = dict.fromkeys(params, SINGLE) | dict.fromkeys(agreeing(layer_wise(model, run, s, proved=proved)), LAYER)
    if rest := [name for name, way in of.items() if way == SINGLE]:
        of |= dict.fromkeys(agreeing(example_wise(model, rest, run.z, x, active, s)), EXAMPLE)
    outputs = [call.shape.numel() // len(x) for call in run.calls]
    gradient = sum(params[name].numel() for name, way in of.items() if way == EXAMPLE)
    # The derivatives of all layers and the squares of one; s, and what it is made from.
    column = sum(outputs) + 4 * max(outputs, default=0) + 8 * run.z.shape[1]
    each = 4 * (x[0].numel() + sum(outputs)) + 10 * gradient
    return Ways(of, proved, run.z.detach(), each, column, set())


def sum_of_squares(model: nn.Module, plan: Ways, x: Tensor, active: Tensor | None, columns: Blocks) -> Tree:
    """F of these examples, {name: [*shape]} of the trainable parameters in their order.

    Args:
        model: evaluated, not training.
        plan: how each parameter is measured; one at a time where that way does not hold in this pass.
        x: [N, *in].
        active: [A] int64, ascending, or None for all logits.
        columns: z [N, A] -> blocks s [N, J, A]; none if one class is active: its probability is 1.

    Returns:
        The SUM over examples and columns.
    """
    run = forward(model, x, active)
    total = {name: torch.zeros_like(p) for name, p in trainable(model).items()}
    for s in columns(run.z.detach()):
        found = layer_wise(model, run, s, proved=plan.proved) if LAYER in plan.of.values() else {}
        found = {name: value for name, value in found.items() if plan.of[name] == LAYER}
        if by_example := [name for name, way in plan.of.items() if way == EXAMPLE]:
            found |= example_wise(model, by_example, run.z, x, active, s)
        if rest := [name for name in plan.of if name not in found]:
            if new := [name for name in rest if name not in plan.slow]:
                warnings.warn(f"parameters measured one example at a time, slowly: {', '.join(new)}", stacklevel=4)
                plan.slow.update(new)
            found |= single(model, rest, run.z, x, active, s)
        for name, value in total.items():
            value.add_(found[name])
    return total


def check_finite(found: Tree) -> None:
    """Refuse sums of squares that overflow, and those of derivatives that are not numbers."""
    for name, value in found.items():
        if not value.isfinite().all():
            advice = "look for NaN or very large values in x and in the parameters"
            if value.dtype != torch.float64:
                advice = f"pass model.double() and x.double(); if that does not help, {advice}"
            raise UserError(f"parameter {name!r}: its squared gradients are not finite in {value.dtype}: {advice}")
