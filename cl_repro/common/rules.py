"""What a value may be."""

import math
import sys
from collections.abc import Callable, Collection
from typing import Any

from cl_repro.common.errors import UserError

Rule = tuple[Callable[[Any], bool], str]
"""Whether a value may be one, and in words which may."""

LARGEST = {"float32": 3.4028234663852886e38, "float64": sys.float_info.max}  # beyond it a lambda is infinite
MOST_STEPS = 10**7  # the mini-batches of a task are drawn at once, before its training


def require(place: str, value: Any, rule: Rule) -> None:
    """Raise a `UserError` that names the place, the value and the rule, if it breaks it."""
    holds, words = rule
    if not holds(value):
        raise UserError(f"{place}={value}: must be {words}")


def one_of(values: Collection[str]) -> Rule:
    """The rule that a value is one of these."""
    return values.__contains__, f"one of {', '.join(values)}"


def or_null(rule: Rule, meaning: str) -> Rule:
    """The rule that a value is null, which means this, or keeps another rule."""
    return lambda value: value is None or rule[0](value), f"{rule[1]}, or null for {meaning}"


def at_least(least: int) -> Rule:
    """The rule that a value is an integer of at least this."""
    return lambda value: is_int(value) and value >= least, f"an integer of at least {least}"


def from_to(first: int, last: int) -> Rule:
    """The rule that a value is an integer in this range, its ends included."""
    return lambda value: is_int(value) and first <= value <= last, f"an integer from {first} to {last}"


def is_number(value: Any) -> bool:
    """A finite number that is no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_int(value: Any) -> bool:
    """An integer that is no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def of_all(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """The same of every value in a list, and of one that is no list."""
    return lambda value: all(map(of_all(holds), value)) if isinstance(value, list) else holds(value)


NAME: Rule = (lambda value: isinstance(value, str) and bool(value), "text of at least one character")
FLAG: Rule = (lambda value: isinstance(value, bool), "true or false")
POSITIVE: Rule = (lambda value: is_number(value) and value > 0, "a finite number above 0")
NOT_NEGATIVE: Rule = (lambda value: is_number(value) and value >= 0, "a finite number of at least 0")
SECONDS: Rule = (POSITIVE[0], "a number of seconds above 0")
COUNT = from_to(1, MOST_STEPS)
AUTO_OR_COUNT: Rule = (lambda value: value == "auto" or COUNT[0](value), f"auto or {COUNT[1]}")
FINITE: Rule = (of_all(lambda value: not isinstance(value, float) or math.isfinite(value)), "a finite number")
HELD: Rule = (of_all(lambda value: not is_int(value) or -(2**63) <= value < 2**63), "an integer of 64 bits")
