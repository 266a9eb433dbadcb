r"""A window of examples that is looked at when a question is asked: what a longer context is to a classifier.

    p(c | x) = (1 - w) p_net(c | x) + w sum_j a_j [y_j = c],   w = lam / (1 + lam)
    a = softmax_j(cos(f(x), f(x_j)) / temperature)   over those of the last W stored examples whose label is active

f is what the head read after the FIRST task, frozen; p_net is the network, trained as if there were no window. The
prediction is attention with one head, keys f(x_j) and values y_j, as in matching networks (Vinyals et al. 2016, eq. 1).

It is an ANALOGUE of extending the context of a language model: nothing is learned from what is in the window, a task is
remembered as long as its examples are in it, and time and memory grow with its length. It is NOT a transformer: f was
not trained to compare examples, and nothing attends to more than labelled examples. lam = 0 is finetune.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from cl_repro.common import tree
from cl_repro.common.errors import UserError
from cl_repro.common.rules import POSITIVE, require
from cl_repro.models.layers import head_input
from cl_repro.types import Method, Needs, Net, Tree


class State(NamedTuple):
    """State of the context."""

    lam: Tensor  # []
    params: Tree  # of f; nothing before the first task has been learned
    buffers: Tree
    keys: Tensor  # [units, W] f(x_j), of length 1; the latest last
    values: Tensor  # [C, W] 1 at y_j


def context(window: int = 1000, n: int = 200, temperature: float = 0.1) -> Method:
    """Attention over a window of stored examples.

    Args:
        window: W, examples of all tasks that are kept: the latest, at least 1.
        n: random examples of each task, as it ends, that enter the window.
        temperature: of the attention, above 0.

    Returns:
        The method. Memory: W (units + C) numbers and a copy of the network.

    Raises:
        UserError: a number out of range.
    """
    if window < 1 or n < 1:
        raise UserError(f"method.window={window} with method.n={n}: must be at least 1, in examples")
    require("method.temperature", temperature, POSITIVE)

    def init(params: Tree, lam: Tensor) -> State:
        return State(lam, {}, {}, lam.new_zeros(0, 0), lam.new_zeros(0, 0))

    def inspect(state: State, net: Net, params: Tree, buffers: Tree, x: Tensor, label: Tensor, active: Tensor) -> State:
        value = functional.one_hot(label, len(active)).to(x).mT
        if not state.params:
            state = state._replace(
                params=tree.copied(params),
                buffers=tree.copied(buffers),
                keys=features(net, params, buffers, x[:0]).mT,
                values=value[:, :0],
            )
        keys = torch.cat([state.keys, features(net, state.params, state.buffers, x).mT], 1)
        return state._replace(
            keys=keys[:, -window:].contiguous(),
            values=torch.cat([state.values, value], 1)[:, -window:].contiguous(),
        )

    def predict(state: State, net: Net, params: Tree, buffers: Tree, x: Tensor, active: Tensor) -> Tensor:
        z, _ = net.apply(params, buffers, x)
        score = features(net, state.params, state.buffers, x) @ state.keys / temperature  # [N, W]
        given = active.to(z) @ state.values > 0  # [W], whose label is active
        a = torch.where(given.any(), score.masked_fill(~given, -math.inf).softmax(1), 0.0)
        w = state.lam / (1 + state.lam)
        p = (1 - w) * z.masked_fill(~active, -math.inf).softmax(1) + w * (a @ state.values.mT)
        return torch.where(w > 0, p.log(), z)  # of w = 0 without a rounding of its own

    return Method(init, inspect=inspect, predict=predict, needs=Needs(inspects=n, hidden=True))


def features(net: Net, params: Tree, buffers: Tree, x: Tensor) -> Tensor:
    """f(x) [N, units], what the head reads, scaled to length 1."""
    return functional.normalize(head_input(net, params, buffers, x)["head"], dim=1)
