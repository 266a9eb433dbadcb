"""How an arm is drawn."""

from typing import Any, NamedTuple

ONE_SAMPLE = "one_sample/"  # prefix of a fisher: the timing study's other implementation
COMPAT = "compat/"  # and of what another library computes


class Look(NamedTuple):
    """How a curve is drawn."""

    colour: str
    marker: str
    dashes: Any  # matplotlib line style
    filled: bool = True
    size: float = 6.0
    thickness: float = 1.8


LOOKS = {
    "finetune": Look("#009E73", "", (0, (4.5, 2))),
    "joint": Look("#6A51A3", "", (0, (1, 1.5))),
    "exact": Look("#000000", "o", "-"),
    "exact_n": Look("#8C8C8C", "s", (0, (5, 1.2)), False, 7.5, 2.2),
    "sample": Look("#B5121B", "^", "-", False, 9.5, 3.0),
    "sample_n": Look("#E58B8F", "^", (0, (5, 1.2)), False, 7.0, 1.8),
    "empirical": Look("#F0A202", "D", (0, (3.5, 1.5)), True, 4.8, 1.8),
    "empirical_n": Look("#8A5A00", "D", (0, (1.5, 1.2)), False, 4.8, 1.6),
    "predicted": Look("#CC79A7", "P", (0, (5, 1.5, 1, 1.5)), True, 7.0),
    "batched": Look("#0072B2", "v", (0, (1.5, 1)), True, 6.5, 2.0),
    "importance_sample": Look("#56B4E9", "X", "-"),
    "exact_by_score": Look("#44AA99", "p", (0, (5, 1.2)), False, 7.5),
    "importance_sample_by_score": Look("#882255", "*", (0, (4, 1.5)), True, 9.0),
}
METHODS = {
    "si": Look("#332288", ">", "-"),
    "sib": Look("#2C93C4", "s", (0, (4, 1.5))),
    "siu": Look("#7A4A1E", "^", (0, (1.5, 1))),
    "sos": Look("#117733", "8", (0, (4, 1.5))),
    "mas": Look("#AA4499", "D", (0, (2, 1))),
    "mas_batched": Look("#AA4499", "d", (0, (3, 1, 1, 1))),
    "masx": Look("#7B5EA7", "D", "-"),
    "af": Look("#8A8A00", "h", (0, (4, 1.5))),
    "sqrt_fisher": Look("#CC6677", "<", "-"),
    "l2": Look("#882255", "p", (0, (4, 2))),
    "replay": Look("#D55E00", "o", "-"),
    "context": Look("#B03A78", "d", "-"),
}
LIBRARIES = {
    "reference": ("van de Ven", Look("#000000", "o", "-")),
    "avalanche": ("Avalanche", Look("#0072B2", "v", "-", False, 9.0, 2.8)),
    "pycil": ("PyCIL", Look("#F0A202", "D", (0, (3.5, 1.5)), True, 4.8)),
    "clarena": ("CLArena", Look("#882255", "*", (0, (4, 1.5)), True, 9.0)),
    "ewc_pytorch": ("ewc.pytorch", Look("#8C8C8C", "s", (0, (5, 1.2)), False, 7.5)),
    "facil": ("FACIL", Look("#CC79A7", "P", (0, (5, 1.5, 1, 1.5)), True, 7.0)),
    "gt_ripl": ("GT-RIPL", Look("#8C3B00", "^", "-", False, 7.5)),
    "mammoth": ("Mammoth", Look("#5B4FC7", ">", (0, (1.5, 1)))),
}  # names as people write them
OTHERS = (  # of arms without a look of their own: no colour of those above
    Look("#0B7A75", "X", "-"),
    Look("#7D2E68", "*", (0, (4, 1.5)), True, 9.0),
    Look("#C4661F", "p", (0, (2, 1))),
    Look("#999933", "h", (0, (5, 1.5, 1, 1.5))),
    Look("#661100", "<", "-"),
    Look("#3D5A80", ">", (0, (1.5, 1))),
    Look("#5F4BB6", "d", (0, (3, 1, 1, 1))),
    Look("#6B8E23", "8", (0, (4, 1.5))),
)


def parts(fisher: str) -> tuple[str, str]:
    """Estimator and number of examples: exact_500 -> (exact, 500), one_sample/sample -> (sample, "")."""
    fisher = fisher.removeprefix(ONE_SAMPLE)
    estimator, _, n = fisher.rpartition("_")
    return (estimator, n) if n.isdigit() else (fisher, "")


def kind_of(fisher: str) -> str:
    """The key of `LOOKS`: exact_500 and exact_50 are both exact_n; without a look for n, that of the estimator."""
    estimator, n = parts(fisher)
    return f"{estimator}_n" if n and f"{estimator}_n" in LOOKS else estimator
