"""Interleaved medians, and rows that compare two of them with a target.

Other programs on the machine slow everything down together: the candidates of a ratio run in turn (A B A B ...), and
each is told by the median of its rounds.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from cl_repro.common.runtime import clock

AT_LEAST, AT_MOST = "at least", "at most"
MB = 1e6


class Setting(NamedTuple):
    """How to measure."""

    rounds: int
    data_dir: Path
    device: str = "cpu"  # of the CUDA rows; all others run on the CPU

    @property
    def cuda(self) -> bool:
        """Whether there is a device for the CUDA rows."""
        return self.device.startswith("cuda")


class Row(NamedTuple):
    """One line of the table: two figures and what follows from them; None is not measured."""

    name: str
    ours: float | None
    other: float | None  # of what ours is compared with, as `name` and `note` say
    unit: str  # of ours and other
    value: float | None  # what is compared with the target
    value_unit: str
    target: float | None  # None: the row is for information
    better: str = AT_LEAST  # what `value` has to be
    note: str = ""


NO_CUDA: tuple[Mapping[str, float], str] = defaultdict(lambda: math.nan), "torch sees no CUDA device here"
"""The seconds of all candidates where there is no device for them, and a note that says so."""


def timed(run: Callable[[], Any], units: float = 1, device: str = "cpu") -> Callable[[], float]:
    """A candidate: seconds per unit of one call of `run`, which does `units` of them (`runtime.clock`)."""

    def once() -> float:
        began = clock(device)
        run()
        return (clock(device) - began) / units

    return once


def interleave(candidates: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of each candidate's seconds over rounds in which every candidate runs once.

    Args:
        candidates: name -> function that runs once and returns its seconds per unit.
        rounds: counted; one before them, which pays for first calls, is not.

    Returns:
        Name -> median.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds + 1):
        for name, once in candidates.items():
            seconds[name].append(once())
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def speedup(name: str, ours: float, other: float, target: float | None, note: str = "") -> Row:
    """How many times as long, in seconds, the other takes; NaN: not measured."""
    if math.isnan(ours + other):
        return Row(name, None, None, "s", None, "x", target, AT_LEAST, note)
    return Row(name, ours, other, "s", other / ours, "x", target, AT_LEAST, note)


def cost(
    name: str, ours: float, other: float, target: float | None, of: str = "x", unit: str = "s", note: str = ""
) -> Row:
    """What ours takes (or holds) in units of the other: at most the target.

    Args:
        name: of the row.
        ours: figure; NaN: not measured.
        other: the figure that is one unit; likewise.
        target: at most this.
        of: name of the unit, e.g. epochs; %: its hundredth part is one.
        unit: of both figures.
        note: how it was measured.

    Returns:
        The row.
    """
    if math.isnan(ours + other):
        return Row(name, None, None, unit, None, of, target, AT_MOST, note)
    return Row(name, ours, other, unit, (100 if of == "%" else 1) * ours / other, of, target, AT_MOST, note)


def figure(name: str, value: float, unit: str, target: float, note: str, other: float | None = None) -> Row:
    """A figure with a target of its own: at most that."""
    return Row(name, value, other, unit, value, unit, target, AT_MOST, note)


def alone(run: Callable[..., int], *arguments: Any) -> int:
    """What a function of a module returns in a new process that does nothing else: of memory, which has one peak."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(run, *arguments).result()


def verdict(row: Row) -> str:
    """`met`, `not met`, `not measured`, or `-` where there is no target; NaN meets nothing."""
    if row.value is None:
        return "not measured"
    if row.target is None:
        return "-"
    met = row.value >= row.target if row.better == AT_LEAST else row.value <= row.target
    return "met" if met and not math.isnan(row.value) else "not met"
