"""What every test leaves as it found it."""

import os
from collections.abc import Iterator

import pytest
import torch

from cl_repro.records import LAUNCH


@pytest.fixture(autouse=True)
def as_found() -> Iterator[None]:
    """What the application sets for its process, and other tests in this process would see.

    It flushes denormal numbers, and names the command: a chunk that failed is not tried twice by one command.
    """
    yield
    torch.set_flush_denormal(False)
    os.environ.pop(LAUNCH, None)
