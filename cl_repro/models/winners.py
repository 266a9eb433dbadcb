r"""k-winners networks: the most active units of a hidden layer alone pass something on (Ahmad & Scheinkman 2019).

    h_i = f(a_i) if a_i is among the k largest of the layer for this example, else 0;   k = ceil(fraction x units)

a sparse code for each example, so that tasks share fewer units. f = ReLU. Gradients reach the winners only. Without the
paper's boosting of units that never win.
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from cl_repro.common.errors import UserError
from cl_repro.models.layers import check_sizes, init_perceptron, no_tap, perceptron
from cl_repro.types import Net, Tap, Tree


def winners(hidden: Sequence[int], fraction: float = 0.1, *, input_shape: Sequence[int], n_outputs: int) -> Net:
    """A multi-layer perceptron whose units compete.

    Args:
        hidden: units of each hidden layer.
        fraction: of a layer's units that win, above 0 and at most 1, where nothing is left out.
        input_shape: shape of one example; it is flattened.
        n_outputs: C, logits.

    Returns:
        The network; its layers and initial weights are those of `mlp`.

    Raises:
        UserError: a fraction out of range, or a layer without units.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"model.fraction={fraction}: must be above 0 and at most 1")
    check_sizes("hidden", hidden)
    sizes = [int(torch.Size(input_shape).numel()), *hidden, n_outputs]
    names = [*(f"fc{i}" for i in range(1, len(hidden) + 1)), "head"]

    def init(generator: Generator) -> tuple[Tree, Tree]:
        return init_perceptron(names, sizes, generator), {}

    def apply(params: Tree, buffers: Tree, x: Tensor, *, train: bool = False, tap: Tap = no_tap) -> tuple[Tensor, Tree]:
        return perceptron(params, names, x.flatten(1), tap, lambda a: compete(a, fraction)), buffers

    return Net(init, apply)


def compete(a: Tensor, fraction: float) -> Tensor:
    """H [N, units] of a [N, units]; where several are equal to the k-th largest, all of them win."""
    k = max(1, math.ceil(round(fraction * a.shape[1], 9)))  # 0.07 x 100 is 7.000000000000001
    threshold = a.detach().topk(k, 1).values[:, -1:]
    return torch.where(a >= threshold, a.relu(), 0.0)
