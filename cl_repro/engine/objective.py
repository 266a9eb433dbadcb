"""What a training step minimises, and what it is given for it, of one replica."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cl_repro.common.errors import UserError
from cl_repro.common.losses import cross_entropy
from cl_repro.models.layers import LINEAR
from cl_repro.types import Examples, Layer, Method, Net, Step, Tree

Inputs = dict[str, Tensor]
"""A mini-batch by what it is for: x [B, *shape], label [B], active [B, C]; if there are any, noise, target."""


def objective(net: Net, method: Method, old: Tensor | None) -> Callable[..., Any]:
    """What a training step minimises: the method's own loss, or else the task loss.

    Examples of the task and of the memory go through the network together.

    Args:
        net: functional model.
        method: with the hooks that act: `loss` and `project_input` count here.
        old: [G, C] bool, as in `types.Step`; None in the first task.

    Returns:
        (params, buffers, state, batch, recalled) -> (loss, (buffers, logits of the batch)).
    """
    hidden, inputs_of = bool(method.loss) and method.needs.hidden, method.project_input

    def value(params: Tree, buffers: Tree, state: Any, batch: Inputs, recalled: Inputs) -> Any:
        x, given = batch["x"], {"noise": batch["noise"]} if "noise" in batch else {}
        if recalled:
            x = torch.cat([x, recalled["x"]])
            given = {name: torch.cat([value, recalled[name]]) for name, value in given.items()}
        read: list[Tensor] = []

        def tap(name: str, layer: Layer, a: Tensor, z: Tensor) -> Tensor:
            if name == "head":
                read.append(a)
            rows = inputs_of(state, name, a.detach()) if inputs_of and of_inputs(params, name, layer) else None
            if rows is None:
                return z
            return LinearOf.apply(z.detach(), a, params[f"{name}.weight"], params[f"{name}.bias"], *rows)

        z, buffers = net.apply(params, buffers, x, train=True, **given, **({"tap": tap} if hidden or inputs_of else {}))
        mine = z[: len(batch["label"])] if recalled else z
        if method.loss is None:
            return cross_entropy(mine, batch["label"], batch["active"]), (buffers, mine)
        remembered = examples(z[len(mine) :], recalled) if recalled else None
        of_task = examples(mine, batch)._replace(hidden=read[0][: len(mine)] if hidden else None)
        heads = mine.new_zeros(0, z.shape[1], dtype=torch.bool) if old is None else old
        return method.loss(state, Step(of_task, remembered, heads)), (buffers, mine)

    return value


def of_inputs(params: Tree, name: str, layer: Layer) -> bool:
    """Whether `project_input` decides what a layer's gradients are made of: it does for those of kind LINEAR.

    Raises:
        UserError: another kind of layer, whose inputs are multiplied with a matrix, too: it would not be projected.
    """
    if layer is not LINEAR and layer.sees and params[f"{name}.weight"].dim() == 2:
        raise UserError(
            f"layer {name!r} is of a kind of its own: must be models.layers.linear for its inputs to be projected"
        )
    return layer is LINEAR


class LinearOf(torch.autograd.Function):
    """Z = a W^T + b, known already, with gradients of W and b as if the layer's inputs had been others.

    dz/da = W as ever; dW = dz^T rows, db = dz^T ones, for rows [B, in] and ones [B] instead of a and 1.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, a: Tensor, weight: Tensor, bias: Tensor, rows: Tensor, ones: Tensor) -> Tensor:
        """[B, out]."""
        return z.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep what `backward` needs."""
        _, _, weight, _, rows, ones = inputs
        ctx.save_for_backward(weight, rows, ones)

    @staticmethod
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor | None, ...]:
        """By z (none: it is no input), a, W, b, rows, ones."""
        weight, rows, ones = ctx.saved_tensors
        da = dz @ weight if ctx.needs_input_grad[1] else None
        return None, da, dz.mT @ rows, ones @ dz, None, None


def examples(z: Tensor, of: Inputs) -> Examples:
    """What a loss is given of a mini-batch: its logits `z` [B, out], and the labels and active logits in `of`."""
    return Examples(z, of["label"], of["active"], of.get("target"))


def task_loss(net: Net) -> Callable[..., Tensor]:
    """The task loss of one replica as it is evaluated: mean cross-entropy of examples on each one's active logits."""

    def loss(params: Tree, buffers: Tree, x: Tensor, label: Tensor, active: Tensor) -> Tensor:
        return cross_entropy(net.apply(params, buffers, x)[0], label, active)

    return loss
