"""Losses on the active logits."""

from torch import Tensor
from torch.nn import functional


def cross_entropy(logits: Tensor, label: Tensor, active: Tensor) -> Tensor:
    """Mean over the batch of -log p(label), the softmax taken over the active logits only.

    Args:
        logits: [B, C].
        label: [B] int64, logit indices, each active.
        active: [B, C] or [C] bool.

    Returns:
        Scalar, nats. Inactive logits receive a gradient of exactly zero.
    """
    return functional.cross_entropy(logits.masked_fill(~active, float("-inf")), label)
