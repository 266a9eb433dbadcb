"""Networks that a user might write, named by `model._target_` in tests of the command line."""

import itertools
import os
from collections.abc import Sequence
from multiprocessing import parent_process
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cl_repro.models.layers import init_linear, linear, no_tap
from cl_repro.types import Net, Tree

BUILT = itertools.count(1)  # networks that kill, in this process


def with_slope(
    hidden: Sequence[int], init: None = None, bias: None = None, *, input_shape: Sequence[int], n_outputs: int
) -> Net:
    """A layer, PReLU with a slope that no tap sees, and a head; keys of model=mlp, the last two always null."""
    n_in, (units,) = torch.Size(input_shape).numel(), hidden

    def start(generator: torch.Generator) -> tuple[Tree, Tree]:
        layers = init_linear("fc1", n_in, units, generator) | init_linear("head", units, n_outputs, generator)
        return layers | {"slope": torch.full((1,), 0.25)}, {}

    def apply(params: Tree, buffers: Tree, x: Tensor, *, train: bool = False, tap: Any = no_tap) -> tuple[Tensor, Tree]:
        a = functional.prelu(linear(params, "fc1", x.flatten(1), tap), params["slope"])
        return linear(params, "head", a, tap), buffers

    return Net(start, apply)


def killer(hidden: Sequence[int], init: int, bias: None = None, *, input_shape: Sequence[int], n_outputs: int) -> Net:
    """`with_slope`; the second of a process does not survive training in a worker: `init` is the signal's number."""
    net, number = with_slope(hidden, input_shape=input_shape, n_outputs=n_outputs), next(BUILT)

    def apply(*arguments: Any, **options: Any) -> tuple[Tensor, Tree]:
        if parent_process() is not None and number == 2 and options.get("train"):
            os.kill(os.getpid(), init)
        return net.apply(*arguments, **options)

    return Net(net.init, apply)


def dropping_net(hidden: int = 12, keep: float = 0.7) -> Net:
    """An MLP that is another in training: inputs are dropped, and centred by their batch; evaluated, by a mean so far.

    As in Split CIFAR-10/100, its head is not protected. With keep=1 nothing is dropped, and there is no noise.
    """

    def init(generator: torch.Generator) -> tuple[Tree, Tree]:
        params = init_linear("fc1", 64, hidden, generator) | init_linear("head", hidden, 10, generator)
        return params, {"mean": torch.zeros(64)}

    def apply(
        params: Tree, buffers: Tree, x: Tensor, *, train: bool = False, noise: Tensor | None = None, tap: Any = None
    ) -> tuple[Tensor, Tree]:
        a = x.flatten(1)
        if train:
            buffers = {"mean": 0.8 * buffers["mean"] + 0.2 * a.mean(0).detach()}
            a = a - a.mean(0)
            if keep < 1:
                assert noise is not None
                a = a * (noise < keep) / keep
        else:
            a = a - buffers["mean"]
        a = (a @ params["fc1.weight"].mT + params["fc1.bias"]).relu()
        return a @ params["head.weight"].mT + params["head.bias"], buffers

    return Net(init, apply, noise=64 if keep < 1 else 0, unprotected=frozenset({"head.weight", "head.bias"}))
