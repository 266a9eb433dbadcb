"""A chunk to compute."""

import math
import time
from pathlib import Path
from typing import NamedTuple

from cl_repro.study import provenance
from cl_repro.study.grid import Arm, Cell


class Stopped(Exception):
    """A chunk waits between two steps for the next launch."""


class Job(NamedTuple):
    """A chunk to compute, and where its rows go."""

    chunk: list[Cell]
    arms: list[Arm]
    folder: Path
    device: str
    source: provenance.Source
    deadline: float | None = None  # `time.monotonic`: nothing begins that would end later

    @property
    def left(self) -> float:
        """Seconds to the deadline."""
        return math.inf if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    @property
    def arm(self) -> Arm:
        """The first cell's; those of others in the chunk differ from it in the estimator only."""
        return self.arms[self.chunk[0].arm]
