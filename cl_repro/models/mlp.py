"""Multi-layer perceptron: linear -> ReLU, ..., linear. No normalisation, no dropout."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from cl_repro.errors import UserError
from cl_repro.models.layers import init_linear, linear, no_tap
from cl_repro.types import Net, Tap, Tree


def mlp(hidden: Sequence[int], *, input_shape: Sequence[int], n_outputs: int) -> Net:
    """An MLP with ReLU units.

    Args:
        hidden: units of each hidden layer.
        input_shape: shape of one example; it is flattened.
        n_outputs: C, logits.

    Returns:
        The network; its layers are called fc1, fc2, ..., head.

    Raises:
        UserError: if a layer has no unit.
    """
    if not all(isinstance(units, int) and units >= 1 for units in hidden):
        raise UserError(f"model.hidden={list(hidden)}: must list layer sizes of at least 1")
    sizes = [int(torch.Size(input_shape).numel()), *hidden, n_outputs]
    names = [f"fc{i}" for i in range(1, len(hidden) + 1)] + ["head"]

    def init(generator: Generator) -> tuple[Tree, Tree]:
        params: Tree = {}
        for name, n_in, n_out in zip(names, sizes, sizes[1:], strict=False):
            params |= init_linear(name, n_in, n_out, generator)
        return params, {}

    def apply(params: Tree, buffers: Tree, x: Tensor, *, train: bool = False, tap: Tap = no_tap) -> tuple[Tensor, Tree]:
        del train  # nothing here behaves differently in training
        a = x.flatten(1)  # [N, in]
        for name in names[:-1]:
            a = linear(params, name, a, tap).relu()
        return linear(params, "head", a, tap), buffers

    return Net(init, apply)
