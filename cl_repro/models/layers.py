"""Layers as functions, and the squares of their per-example gradients.

A layer computes z = f(a; theta) and hands (name, kind, a, z) to `tap`, which is the identity in training.
An importance pass taps the layers: it keeps a and, by adding zeros to z, obtains D_j = d s_j / d z for output
column j. `squares` turns both into the sum over examples and columns of squared per-example gradients, without ever
holding one gradient per example: for a linear layer d s_j / d W of example n is D_jn a_n^T, so
sum_n sum_j (D_jn a_n^T)^2 = (sum_j D_j^2)^T (a^2).
A layer must be applied once per forward pass: two uses would need their gradients summed before squaring.
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional

from cl_repro.types import Layer, Tap, Tree


def no_tap(name: str, layer: Layer, a: Tensor, z: Tensor) -> Tensor:
    """The identity on a layer's output."""
    return z


def linear_squares(a: Tensor, deltas: Sequence[Tensor]) -> Tree:
    """F_W = (sum_j D_j^2)^T (a^2), F_b = sum_n sum_j D_j^2; a [N, in], D_j [N, out]."""
    d2 = torch.stack([d.square() for d in deltas]).sum(0) if len(deltas) > 1 else deltas[0].square()
    return {"weight": d2.mT @ a.square(), "bias": d2.sum(0)}


LINEAR = Layer(linear_squares)


def linear(params: Tree, name: str, a: Tensor, tap: Tap = no_tap) -> Tensor:
    """Z = a W^T + b, a [N, in] -> z [N, out]."""
    return tap(name, LINEAR, a, functional.linear(a, params[f"{name}.weight"], params[f"{name}.bias"]))


def init_linear(name: str, n_in: int, n_out: int, generator: Generator) -> Tree:
    """W [out, in] and b [out], both uniform in +-1/sqrt(in) (PyTorch's default law)."""
    bound = 1 / math.sqrt(n_in)

    def uniform(*shape: int) -> Tensor:
        return torch.empty(*shape).uniform_(-bound, bound, generator=generator)

    return {f"{name}.weight": uniform(n_out, n_in), f"{name}.bias": uniform(n_out)}
