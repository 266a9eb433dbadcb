r"""Learning without Forgetting: the network before the task teaches the one after it (Li & Hoiem 2018).

    loss = CE(z, y) + lam T^2 sum_h KL( softmax_h(z* / T) || softmax_h(z / T) ),   mean over the mini-batch

z* are the logits that the network had, for the new task's inputs, before it was trained on them; h are the sets of
logits that earlier tasks were told apart by: each old head (task-incremental), the common head (domain-incremental), or
all classes seen before (class-incremental). Prefactor: lam; lam T^2 = 4 with the paper's lam = 1 and T = 2.
"""

import torch
from torch import Tensor

from cl_repro.common.errors import UserError
from cl_repro.common.losses import cross_entropy
from cl_repro.common.rules import POSITIVE, require
from cl_repro.types import Method, Needs, Step


def lwf(temperature: float = 2.0, teacher: str = "task", warm_up: int = 0) -> Method:
    """Self-distillation.

    Args:
        temperature: T, above 0.
        teacher: when its logits are computed, once a `task` for all its examples or at every `step`; they are the same.
        warm_up: steps before those of a task in which only the outputs of its new classes learn (the paper's second
            step); 0 where a task brings none, in the domain-incremental scenario.

    Returns:
        The method. Memory: N C logits for the N examples of a task, or one copy of the network.

    Raises:
        UserError: a temperature, a teacher or a warm-up out of range.
    """
    require("method.temperature", temperature, POSITIVE)
    if teacher not in ("task", "step"):
        raise UserError(f"method.teacher={teacher}: must be task or step")

    if warm_up < 0:
        raise UserError(f"method.warm_up={warm_up}: must be at least 0, in steps")

    def loss(lam: Tensor, step: Step) -> Tensor:
        batch = step.batch
        assert batch.target is not None  # the engine's, as there is a teacher
        distance = distillation(batch.z, batch.target, step.old, temperature)
        return cross_entropy(batch.z, batch.label, batch.active) + lam * (temperature**2 * distance)

    return Method(lambda params, lam: lam, loss=loss, needs=Needs(teacher=teacher, warm_up=warm_up))


def distillation(z: Tensor, target: Tensor, heads: Tensor, temperature: float) -> Tensor:
    """Sum over heads of KL(teacher || student), mean over the examples.

    Args:
        z: [B, C] logits of the student.
        target: [B, C] logits of the teacher.
        heads: [G, C] bool, the logits of each softmax.
        temperature: T.

    Returns:
        Scalar, nats.
    """

    def log_softmax(logits: Tensor) -> Tensor:
        """[B, G, C]; zero where the head has no logit."""
        of_heads = (logits / temperature)[:, None].masked_fill(~heads, float("-inf"))
        return torch.log_softmax(of_heads, -1).masked_fill(~heads, 0.0)

    log_p, log_q = log_softmax(target), log_softmax(z)
    return (heads * log_p.exp() * (log_p - log_q)).sum((1, 2)).mean()
