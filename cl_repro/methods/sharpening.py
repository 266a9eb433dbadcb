r"""Node sharpening: few units of a representation are active for an example, so that tasks overlap less (French 1991).

    loss = CE(z, y) + lam (1/B) sum_n sum_i (h_ni - h*_ni)^2
    h* = (sum_j h_j) softmax(s h / mean_j h)

h = max(0, a), a what the head reads: a unit is active by what it has above 0 (that of slim_resnet18 reads numbers below
0, too). h* is a constant, with the same sum as h, concentrated in its largest entries: the larger s, the fewer; of an
example that activates nothing both are 0. Prefactor: lam, no 1/2. It acts from the first task on.

DEVIATES from French's algorithm, which moves the k most active sigmoid units towards 1 and the others towards 0 by a
step of its own, and from later accounts that let the head read h* itself, whose entries sum to 1 however many units
there are.
"""

import torch
from torch import Tensor

from cl_repro.common.losses import cross_entropy
from cl_repro.common.rules import NOT_NEGATIVE, require
from cl_repro.types import Method, Needs, Step


def sharpening(sharpness: float = 5.0) -> Method:
    """Node sharpening.

    Args:
        sharpness: s, a finite number of at least 0; 0 pulls all units of an example to their mean.

    Returns:
        The method. Memory: none.

    Raises:
        UserError: if the sharpness is out of range.
    """
    require("method.sharpness", sharpness, NOT_NEGATIVE)

    def loss(lam: Tensor, step: Step) -> Tensor:
        batch = step.batch
        assert batch.hidden is not None  # asked for
        h = batch.hidden.relu()
        distance = (h - sharpened(h.detach(), sharpness)).square().sum(1).mean()
        return cross_entropy(batch.z, batch.label, batch.active) + lam * distance

    return Method(lambda params, lam: lam, loss=loss, needs=Needs(from_start=True, hidden=True))


def sharpened(h: Tensor, sharpness: float) -> Tensor:
    """h* [B, units] of activations h [B, units], not negative; zero where an example activates nothing."""
    total = h.sum(1, keepdim=True)
    mean = total.clamp(min=torch.finfo(h.dtype).tiny) / h.shape[1]
    return total * torch.softmax(sharpness * h / mean, 1)
