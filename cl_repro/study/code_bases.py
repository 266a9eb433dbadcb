"""What EWC is in other code bases, as a table: the penalty that each adds to the loss after one task.

It is lam c k sum_U g_U^2 (theta - theta*)^2, with the letters of `translate`. Where that was read:
`cl_repro.importance.compat`.
"""

from fractions import Fraction
from typing import NamedTuple

Powers = dict[str, int]  # of N, N-1, b, E, M, M-1 and m
HALF = Fraction(1, 2)


class CodeBase(NamedTuple):
    """The penalty of a code base's EWC after one task."""

    labels: str  # whose log-likelihood is differentiated: all | true | predicted
    unit: str  # whose gradient is squared: example | batch
    c: Fraction
    k: Powers
    tasks: str  # what becomes of it with several tasks
    here: str  # the same with our estimators: overrides, but for lam
    gamma: Fraction = Fraction(1)  # of `here`
    last: str = ""  # what it does with a last, smaller batch
    likelihood: bool = False  # examples are weighted by p(y|x), as well
    clip: float | None = None


FULL, SIZE, OUT = "counts it as full", "counts it by its size", "leaves it out"
ADDED, EACH, MIXED = "one penalty, F added up, older ones times gamma", "a penalty for each", "one penalty, F averaged"
CODE_BASES = {
    "ours": CodeBase("all", "example", HALF, {"N": -1}, ADDED, "method=ewc fisher=exact"),
    "ours/empirical": CodeBase("true", "example", HALF, {"N": -1}, ADDED, "method=ewc fisher=empirical"),
    "ours/predicted": CodeBase("predicted", "example", HALF, {"N": -1}, ADDED, "method=ewc fisher=predicted"),
    "ours/batched": CodeBase("true", "batch", HALF, {"M": -1}, ADDED, "method=ewc fisher=batched", last=FULL),
    "reference": CodeBase("all", "example", HALF, {"N-1": -1}, ADDED, "method=ewc fisher=compat/reference"),
    "reference/batched": CodeBase(
        "true", "batch", HALF, {"M-1": -1}, ADDED, "method=ewc fisher=batched fisher.normalisation=reference",
        last=FULL,
    ),
    "avalanche": CodeBase(
        "true", "batch", Fraction(1), {"M": -1}, EACH, "method=ewc_offline fisher=compat/avalanche", last=FULL
    ),
    "capymoa": CodeBase(
        "true", "batch", HALF, {"M": -1}, ADDED, "method=ewc fisher=compat/capymoa", last=FULL
    ),
    "clarena": CodeBase(
        "true", "batch", HALF, {"b": 1, "N": -1, "E": -1}, EACH, "method=ewc_offline fisher=compat/clarena", last=SIZE
    ),
    "ewc_pytorch": CodeBase(
        "predicted", "example", Fraction(1), {"N": -1}, "200 examples of all tasks, anchored anew every epoch",
        "method=ewc fisher=compat/ewc_pytorch",
    ),
    "facil": CodeBase(
        "predicted", "batch", HALF / 2, {"m": -1}, MIXED,
        "method=ewc method.gamma=0.5 fisher=compat/facil", gamma=HALF, last=OUT,
    ),
    "gt_ripl": CodeBase(
        "predicted", "batch", Fraction(1), {"b": 1, "M": -1}, EACH, "method=ewc_offline fisher=compat/gt_ripl",
        last=SIZE,
    ),
    "gt_ripl/mnist": CodeBase(
        "predicted", "example", Fraction(1), {"N": -1}, EACH, "method=ewc_offline fisher=predicted"
    ),
    "laplace_torch": CodeBase("all", "example", HALF, {}, ADDED, "method=ewc fisher=compat/laplace_torch"),
    "libcontinual": CodeBase(
        "true", "batch", HALF, {"M": -1}, MIXED, "method=ewc fisher=compat/libcontinual",
        last=FULL, clip=1e-4,
    ),
    "mammoth": CodeBase(
        "true", "example", Fraction(1), {"b": -1, "M": -1}, ADDED, "method=ewc fisher=compat/mammoth", likelihood=True
    ),
    "pycil": CodeBase(
        "true", "batch", HALF, {"M": -1}, MIXED, "method=ewc fisher=compat/pycil",
        last=FULL, clip=1e-4,
    ),
}  # fmt: skip
"""facil: a half for the penalty, and another as the new F is mixed with nothing."""
