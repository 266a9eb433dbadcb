r"""Dark experience replay: earlier examples, with the logits that the network had for them (Buzzega et al. 2020).

    DER     loss = CE(new) + lam mean (z - z*)^2
    DER++   loss = CE(new) + lam mean (z - z*)^2 + beta CE(memory)

z* are the logits of the training step in which an example was put into the memory; the mean is over examples and
logits, active or not. lam is the paper's alpha.

DEVIATES from the paper: both terms of DER++ are of the same recalled examples, where it draws twice; the memory is
replayed from task 2 on.
"""

from torch import Tensor

from cl_repro.common.errors import UserError
from cl_repro.common.losses import cross_entropy
from cl_repro.common.rules import NOT_NEGATIVE, require
from cl_repro.memory import Memory
from cl_repro.types import Method, Needs, Step


def der(memory: Memory, beta: float = 0.0) -> Method:
    """Dark experience replay.

    Args:
        memory: which examples are kept; it must take them while they are trained on.
        beta: weight of the labels of recalled examples, at least 0; 0: DER.

    Returns:
        The method. Memory: M examples and M C logits.

    Raises:
        UserError: a negative beta, or a memory that is filled after the task.
    """
    require("method.beta", beta, NOT_NEGATIVE)
    if memory.settle is not None:
        raise UserError("method.memory: der stores the logits of training, so the memory must be filled in training")

    def loss(lam: Tensor, step: Step) -> Tensor:
        batch, recalled = step.batch, step.recalled
        new = cross_entropy(batch.z, batch.label, batch.active)
        if recalled is None or recalled.target is None:
            return new
        total = new + lam * (recalled.z - recalled.target).square().mean()
        return total + beta * cross_entropy(recalled.z, recalled.label, recalled.active) if beta else total

    return Method(lambda params, lam: lam, loss=loss, needs=Needs(memory=memory, keeps_logits=True))
