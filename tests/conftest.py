"""What every test leaves as it found it."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """The application flushes denormal numbers for its process; in a test's process other tests need them."""
    yield
    torch.set_flush_denormal(False)
