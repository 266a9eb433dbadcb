"""Sums of squared or absolute per-example gradients, layer by layer, of any columns of the logits."""

from collections.abc import Callable

import torch
from torch import Tensor

from cl_repro.common.tree import zeros_like
from cl_repro.models.layers import Elementwise, no_tap
from cl_repro.types import Layer, Net, Tree

Columns = Callable[[Tensor], Tensor]  # z [N, A] -> s [N, J, A]


def output_shapes(net: Net, params: Tree, buffers: Tree, x: Tensor) -> dict[str, tuple[int, ...]]:
    """Shape of one example's output of every tapped layer; costs a forward pass of one example."""
    shapes: dict[str, tuple[int, ...]] = {}

    def tap(name: str, layer: Layer, a: Tensor, z: Tensor) -> Tensor:
        if name in shapes:
            raise ValueError(f"layer {name!r} is applied twice in one forward pass: its importance would be wrong")
        shapes[name] = tuple(z.shape[1:])
        return no_tap(name, layer, a, z)

    net.apply(params, buffers, x[:1], tap=tap)
    return shapes


def sum_over_examples(
    net: Net, params: Tree, buffers: Tree, x: Tensor, active: Tensor, columns: Columns, f: Elementwise = torch.square
) -> Tree:
    r"""sum_n sum_j f(d (s_nj . z_n) / d theta); one forward and J backward passes.

    Args:
        net: the network, evaluated (not training).
        params: {name: [*shape]}, one replica.
        buffers: the network's buffers, constants here.
        x: [N, *in].
        active: [A] int64, the logits in z.
        columns: z [N, A] -> s [N, J, A], constants of the differentiation.
        f: `torch.square` or `torch.abs`.

    Returns:
        {name: [*shape]}, a SUM over examples and columns; of squares in (nats/parameter)^2 where s . z is in nats.

    Raises:
        ValueError: if a layer is applied twice, if something changes a layer's input in place after it was used, or
            if a parameter belongs to no tapped layer, unless it is unprotected.
    """
    shapes = output_shapes(net, params, buffers, x)
    kinds: dict[str, Layer] = {}
    versions: dict[str, int] = {}

    def logits(eps: Tree) -> tuple[Tensor, Tree]:
        inputs: Tree = {}

        def tap(name: str, layer: Layer, a: Tensor, z: Tensor) -> Tensor:
            kinds[name], inputs[name], versions[name] = layer, a, a._version
            return z + eps[name]

        z, _ = net.apply(params, buffers, x, tap=tap)
        if changed := [name for name, a in inputs.items() if a._version != versions[name]]:
            raise ValueError(f"the input of layer {changed[0]!r} is changed in place after the layer used it")
        return z[:, active], inputs

    zero = x.new_zeros(())  # expanded: the zeros themselves need no memory
    eps = {name: zero.expand(len(x), *shape) for name, shape in shapes.items()}
    z, vjp, inputs = torch.func.vjp(logits, eps, has_aux=True)  # type: ignore[misc]  # a triple with has_aux
    s = columns(z)  # [N, J, A]
    if s.shape[1] == 0:  # one active class: its probability is 1, whatever the parameters
        return zeros_like(params)
    deltas = [vjp(s[:, j], retain_graph=True)[0] for j in range(s.shape[1])]
    total: Tree = {}
    for name, layer in kinds.items():
        for suffix, value in layer.sums(f, inputs[name], [d[name] for d in deltas]).items():
            total[f"{name}.{suffix}"] = value
    if missing := params.keys() - total.keys() - net.unprotected:
        raise ValueError(
            f"no tapped layer measures the parameters {sorted(missing)}; fisher=batched and fisher=one_sample/... "
            "measure any network"
        )
    return total
