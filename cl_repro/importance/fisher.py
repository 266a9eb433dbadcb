r"""The diagonal Fisher information, four ways that differ in the label of the gradient only.

    F_i = (1/N) sum_n E_y (d log p(y|x_n) / d theta_i)^2          (van de Ven, ICLR blog post 2025)

exact takes y ~ p(y|x_n) in expectation, sample draws it once, empirical takes the data's label, predicted the most
probable one. Scale: the MEAN over examples of squared per-example gradients of the unreduced log-likelihood, no
prefactor (the penalty's 1/2 is in the method).

DEVIATES from the reference code, which divides by the last index of its loop, N - 1 on a full pass, and stops after
n + 1 examples, not n (for mini-batches M - 1, not M). `normalisation: reference` does as it does: of a task with no
more than n + 1 examples, too, of which its loop uses all N, and divides by N - 1, whatever n is.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from cl_repro.common.errors import UserError
from cl_repro.importance import columns
from cl_repro.importance.squares import sum_over_examples
from cl_repro.models.layers import Elementwise
from cl_repro.types import Estimator, Net, Tree

Label = Callable[[Tensor, Tensor, Tensor], Tensor]  # (z [N, A], y [N], noise [N]) -> columns [N, J, A]

LABELS: dict[str, Label] = {  # whose label the gradient has
    "exact": lambda z, y, noise: columns.exact(z),
    "sample": lambda z, y, noise: columns.towards(z, columns.draw(z, noise)),
    "empirical": lambda z, y, noise: columns.towards(z, y),
    "predicted": lambda z, y, noise: columns.towards(z, z.argmax(1)),
}


def exact(n: int | None = None, normalisation: str = "exact") -> Estimator:
    """All labels, weighted by their probability: C - 1 backward passes. See `of_columns` for the arguments."""
    return of_columns(LABELS["exact"], n, normalisation)


def sample(n: int | None = None, normalisation: str = "exact") -> Estimator:
    """One label drawn from the model per example: unbiased, one backward pass."""
    return of_columns(LABELS["sample"], n, normalisation)


def empirical(n: int | None = None, normalisation: str = "exact") -> Estimator:
    """The data's label: biased wherever the model is not the data's distribution."""
    return of_columns(LABELS["empirical"], n, normalisation)


def predicted(n: int | None = None, normalisation: str = "exact") -> Estimator:
    """The most probable label."""
    return of_columns(LABELS["predicted"], n, normalisation)


def of_columns(label: Label, n: int | None, normalisation: str, f: Elementwise = torch.square) -> Estimator:
    """The estimator that squares what these columns backpropagate.

    Args:
        label: the columns s of -d log p(label) / dz.
        n: examples used, drawn without replacement; None: all. More than a task has are refused, but for `reference`.
        normalisation: `exact` or `reference` (module docstring).
        f: `torch.square`, or `torch.abs` (`sensitivity`).

    Returns:
        The estimator.

    Raises:
        UserError: if n is not at least 1, or normalisation is unknown.
    """
    check_n(n)
    check_normalisation(normalisation)

    def total(net: Net, params: Tree, buffers: Tree, x: Tensor, y: Tensor, noise: Tensor, active: Tensor) -> Tree:
        return sum_over_examples(net, params, buffers, x, active, lambda z: label(z, y, noise), f)

    rows, divisor = counts(n, normalisation)
    return Estimator(total, rows, divisor)


def counts(n: int | None, normalisation: str) -> tuple[Callable[[int], int], Callable[[int], float]]:
    """How many of N examples are used, and by what their sum is divided (protocol: `normalisation`)."""
    if normalisation == "exact":
        return (lambda total: n or total), (lambda total: float(n or total))
    # N - 1 on a full pass, also where n + 1 examples are no fewer than all; n + 1 examples divided by n + 1 otherwise
    rows = lambda total: total if n is None else min(n + 1, total)  # noqa: E731
    return rows, lambda total: float(rows(total)) if rows(total) < total else one_less(total)


def check_n(n: int | None) -> None:
    """Refuse no examples."""
    if n is not None and n < 1:
        raise UserError(f"fisher.n={n}: the number of examples must be at least 1, or null for all")


def one_less(units: int) -> float:
    """The reference code's divisor: the last index of its loop over units (examples or mini-batches)."""
    if units < 2:
        raise UserError(f"fisher.normalisation=reference: divides by {units} - 1, so a task needs at least 2 units")
    return float(units - 1)


def check_normalisation(normalisation: str) -> None:
    """Refuse anything but `exact` and `reference`."""
    if normalisation not in ("exact", "reference"):
        raise UserError(f"fisher.normalisation={normalisation}: must be exact or reference")
