"""What a value may be."""

import math
import sys
from typing import Any

LARGEST = {"float32": 3.4028234663852886e38, "float64": sys.float_info.max}  # beyond it a lambda is infinite


MOST_STEPS = 10**7  # the mini-batches of a task are drawn at once, before its training


def is_name(value: Any) -> bool:
    """Text of at least one character."""
    return isinstance(value, str) and bool(value)


def is_count(value: Any) -> bool:
    """An integer from 1 to `MOST_STEPS`."""
    return is_int(value) and 1 <= value <= MOST_STEPS


def is_held(value: Any) -> bool:
    """Whether torch can hold every integer in a value."""
    if isinstance(value, list):
        return all(map(is_held, value))
    return not is_int(value) or -(2**63) <= value < 2**63


def is_number(value: Any) -> bool:
    """A finite number that is no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_finite(value: Any) -> bool:
    """Whether a value has no infinite number, and none that is not a number, in it."""
    if isinstance(value, list):
        return all(map(is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def is_int(value: Any) -> bool:
    """An integer that is no bool."""
    return isinstance(value, int) and not isinstance(value, bool)
