"""Optimisers that torch does not have. Elementwise, so that a stack of K replicas is K of them."""

import math
from collections.abc import Callable
from typing import Any

import torch


class AdamTF(torch.optim.Adam):
    """Adam as TensorFlow writes it, eps beside the second moment before the correction of its bias.

        theta <- theta - lr sqrt(1 - beta_2^t) / (1 - beta_1^t) m / (sqrt(v) + eps)

    It is "epsilon hat" of Kingma and Ba (2015, section 2), and torch's Adam with eps / sqrt(1 - beta_2^t) at step t.
    Arguments are torch's; lr, betas and eps are one for all tensors, and every step moves all of them.
    """

    t: int | None = None  # steps taken; None: as many as `state` says, which on CUDA is read once only

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step; returns what `closure` does."""
        if self.t is None:
            self.t = max((int(moments["step"]) for moments in self.state.values()), default=0)
        self.t += 1
        for group in self.param_groups:
            group["eps"] = self.defaults["eps"] / math.sqrt(1 - group["betas"][1] ** self.t)
        return super().step(closure)
