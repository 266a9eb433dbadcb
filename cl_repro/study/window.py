"""Windows of lambda: where to look for an estimator's curve, from the trace of its importance. No torch.

A penalty (lambda / 2) sum_i F_i (theta_i - theta*_i)^2 knows lambda and F only as their product, and estimators differ
above all in the scale of F. So a window is a range of lambda x trace(F), with the trace measured after the first task,
where it depends on no lambda, of the first seed that a folder is launched with. It holds for all seeds that are added
to that folder: the traces of two seeds may be a factor of ten apart, and curves of a mean need the same lambdas. On
Split MNIST the half-way point of the rise is at 1 to 3 for all five estimators (results/split_mnist_fisher), while
their lambdas span six decades. On a twin of Split CIFAR-10 it is at 3 to 800 (results/split_cifar10_fisher_cpu): later
tasks there have traces that are 1 to 600 times the first's, on other benchmarks a tenth; so a study may say `product`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cl_repro.common.errors import UserError
from cl_repro.records.identity import config_id
from cl_repro.study import config  # the module, as it may be on its way here itself

FILE = "windows.json"


def wanted(arms_cfg: Sequence[dict[str, Any]], traces: Mapping[str, float]) -> list[dict[str, Any]]:
    """The arms whose window is not known yet."""
    return [cfg for cfg in arms_cfg if has_window(cfg) and config_id(cfg) not in traces]


def placed(arms_cfg: Sequence[dict[str, Any]], traces: Mapping[str, float]) -> list[dict[str, Any]]:
    """The arms, those with a window that is known with its lambdas.

    Raises:
        UserError: a lambda that would be infinite, or as `lambdas`.
    """
    result = [
        cfg | {"grid": cfg["grid"] | {"lambdas": lambdas(cfg["grid"]["window"], traces[config_id(cfg)])}}
        if has_window(cfg) and config_id(cfg) in traces
        else cfg
        for cfg in arms_cfg
    ]
    for cfg in result:
        config.check_largest(cfg)
    return result


def has_window(cfg: Mapping[str, Any]) -> bool:
    """Whether an arm's lambdas come from a window."""
    return cfg["method"]["uses_lambda"] and cfg["grid"]["lambdas"] is None


def lambdas(window: Mapping[str, Any], trace: float) -> list[float]:
    """Powers of ten, as the other grids have, ascending from product / trace on: as many as the window has decades.

    Raises:
        UserError: if the trace is not a positive number.
    """
    if not (math.isfinite(trace) and trace > 0):
        raise UserError(f"grid=window: the importance has trace {trace:g}, which places no window; use grid=blog")
    first = round(math.log10(window["product"] / trace))
    return [float(f"1e{exponent}") for exponent in range(first, first + window["decades"])]
