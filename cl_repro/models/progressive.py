r"""Progressive networks: one column per task, fed by all earlier columns, which are frozen (Rusu et al. 2016).

    h_1^k = f(W_1^k x)
    h_i^k = f(W_i^k h_{i-1}^k + U_i^k f(V_i^k [alpha_i^{k1} h_{i-1}^1, ..., alpha_i^{k,k-1} h_{i-1}^{k-1}]))

equation 2, with f = ReLU and biases in W alone; the last layer, which has no f, gives the logits of task k. Activations
of earlier columns enter as constants, and the logits of a task depend on its column and on earlier ones, so training
with the task's own logits leaves all other columns as they are: nothing is forgotten. Shapes are those of all tasks
from the beginning, so that replicas stack and masks decide what learns; every column is computed at every step.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional

from cl_repro.common.errors import UserError
from cl_repro.models.layers import check_sizes, init_perceptron, linear, no_tap, uniform
from cl_repro.types import Net, Tap, Tree


def progressive(
    columns: int,
    hidden: Sequence[int],
    lateral: bool = True,
    alpha: float = 0.1,
    *,
    input_shape: Sequence[int],
    n_outputs: int,
) -> Net:
    """One multi-layer perceptron per task, with lateral adapters.

    Args:
        columns: T, tasks; the logits are theirs in order, equally many each.
        hidden: units of each hidden layer of a column; an adapter is as wide as the layer before it.
        lateral: false: columns without adapters, the control of networks that share nothing.
        alpha: initial scale of each earlier column's activations.
        input_shape: shape of one example; it is flattened.
        n_outputs: C, logits.

    Returns:
        The network, for scenario=task; layers are called c1.fc1, c1.head, c2.fc1, ...

    Raises:
        UserError: if columns do not divide the logits, or a layer has no unit.
    """
    if columns < 1 or n_outputs % columns:
        raise UserError(f"model.columns={columns}: must divide the {n_outputs} logits; it is the number of tasks")
    check_sizes("hidden", hidden)
    sizes = [int(torch.Size(input_shape).numel()), *hidden, n_outputs // columns]
    layers = [*(f"fc{i}" for i in range(1, len(hidden) + 1)), "head"]

    def adapters() -> list[tuple[str, int, int, int]]:
        """Name, earlier columns, units before and after of every adapter."""
        found = zip(layers[1:], sizes[1:], sizes[2:], strict=False)
        shapes = [(layer, n_in, n_out) for layer, n_in, n_out in found if lateral]
        return [(f"c{k + 1}.{layer}", k, n_in, n_out) for k in range(1, columns) for layer, n_in, n_out in shapes]

    def init(generator: Generator) -> tuple[Tree, Tree]:
        params: Tree = {}
        for k in range(columns):
            params |= init_perceptron([f"c{k + 1}.{layer}" for layer in layers], sizes, generator)
        for name, k, n_in, n_out in adapters():
            params[f"{name}.alpha"] = torch.full((k,), alpha)
            params[f"{name}.V"] = uniform(generator, k * n_in, n_in, k * n_in)
            params[f"{name}.U"] = uniform(generator, n_in, n_out, n_in)
        return params, {}

    def apply(params: Tree, buffers: Tree, x: Tensor, *, train: bool = False, tap: Tap = no_tap) -> tuple[Tensor, Tree]:
        before, logits = [[x.flatten(1)] for _ in range(columns)], []  # by column, its activations so far
        for i, layer in enumerate(layers):
            for k in range(columns):
                name = f"c{k + 1}.{layer}"
                z = linear(params, name, before[k][i], tap)
                if f"{name}.V" in params:
                    scaled = [a * before[j][i].detach() for j, a in enumerate(params[f"{name}.alpha"])]
                    # U f(V [alpha_j h^j]_{j < k})
                    z = z + functional.linear(
                        functional.linear(torch.cat(scaled, 1), params[f"{name}.V"]).relu(), params[f"{name}.U"]
                    )
                if layer == "head":
                    logits.append(z)
                else:
                    before[k].append(z.relu())
        return torch.cat(logits, 1), buffers

    unprotected = {f"{name}.{part}" for name, *_ in adapters() for part in ("alpha", "V", "U")}
    return Net(init, apply, unprotected=frozenset(unprotected), columns=columns)
