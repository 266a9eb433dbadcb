"""Multi-layer perceptron: linear -> ReLU, ..., linear. No normalisation, no dropout."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from cl_repro.common.rules import one_of, require
from cl_repro.models.layers import check_sizes, glorot_linear, init_linear, init_perceptron, no_tap, perceptron
from cl_repro.types import Net, Tap, Tree

LAWS = {"torch": init_linear, "glorot_uniform": glorot_linear}


def mlp(
    hidden: Sequence[int],
    init: str | None = None,
    bias: float | None = None,
    *,
    input_shape: Sequence[int],
    n_outputs: int,
) -> Net:
    """An MLP with ReLU units.

    Args:
        hidden: units of each hidden layer.
        init: law of the initial weights: torch (as None) or glorot_uniform.
        bias: every initial bias; None: by the law, which is 0 for glorot_uniform. The weights are the same.
        input_shape: shape of one example; it is flattened.
        n_outputs: C, logits.

    Returns:
        The network; its layers are called fc1, fc2, ..., head.

    Raises:
        UserError: if a layer has no unit, or the law is unknown.
    """
    check_sizes("hidden", hidden, some=False)
    law = "torch" if init is None else init
    require("model.init", law, one_of(LAWS))
    sizes = [int(torch.Size(input_shape).numel()), *hidden, n_outputs]
    names = [f"fc{i}" for i in range(1, len(hidden) + 1)] + ["head"]

    def draw(generator: Generator) -> tuple[Tree, Tree]:
        params = init_perceptron(names, sizes, generator, LAWS[law])
        if bias is not None:
            params |= {f"{name}.bias": torch.full_like(params[f"{name}.bias"], bias) for name in names}
        return params, {}

    def apply(params: Tree, buffers: Tree, x: Tensor, *, train: bool = False, tap: Tap = no_tap) -> tuple[Tensor, Tree]:
        return perceptron(params, names, x.flatten(1), tap), buffers

    return Net(draw, apply)
