"""Cross-entropy on the active logits."""

import pytest
import torch
from torch.nn import functional

from cl_repro.common.losses import cross_entropy

ACTIVE = [1, 4, 5]


def made(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(8, 7, generator=generator, dtype=torch.float64)
    position = torch.arange(8) % 3
    return logits.to(dtype).requires_grad_(), position, torch.tensor(ACTIVE)[position]


def test_masking_is_slicing():
    logits, position, label = made()
    active = torch.zeros(7, dtype=torch.bool)
    active[ACTIVE] = True
    masked = cross_entropy(logits, label, active)
    sliced = functional.cross_entropy(logits[:, ACTIVE], position)
    assert torch.allclose(masked, sliced, rtol=0, atol=1e-15)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (masked, sliced)]
    assert torch.allclose(*gradients, rtol=0, atol=1e-16)


def test_each_example_may_have_its_own_mask():
    logits, _, _ = made()
    own = [[0, 1], [0, 1, 2, 3, 4, 5, 6], [6], [2, 5], [3, 4], [1, 6], [0, 6], [4, 5, 6]]
    label = torch.tensor([classes[0] for classes in own])
    active = torch.tensor([[c in classes for c in range(7)] for classes in own])
    by_hand = [-logits[i, classes].log_softmax(0)[0] for i, classes in enumerate(own)]
    expected = torch.stack(by_hand).mean()
    assert torch.allclose(cross_entropy(logits, label, active), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inactive_logits_have_a_gradient_of_exactly_zero(dtype):
    logits, _, label = made(dtype)
    active = torch.zeros(7, dtype=torch.bool)
    active[ACTIVE] = True
    gradient = torch.autograd.grad(cross_entropy(logits, label, active), logits)[0]
    assert (gradient[:, ~active] == 0).all()
    assert (gradient[:, active] != 0).all()


def test_a_single_active_logit_costs_nothing():
    logits, _, _ = made()
    active = torch.zeros(7, dtype=torch.bool)
    active[2] = True
    loss = cross_entropy(logits, torch.full((8,), 2), active)
    assert loss.item() == 0
    assert (torch.autograd.grad(loss, logits)[0] == 0).all()
