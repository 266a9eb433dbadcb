r"""Every importance of the task just learned, on one network, and how they correlate over its weights.

    si, siu, sib    max(0, S / (d^2 + xi)), equation 6 of Benzing (2022), with d = theta(T) - theta(0)
    ..._unclipped   the same without the maximum
    ..._raw         S
    sos             sqrt(v_T), alpha = 0; sos_alpha1: alpha = 1
    fisher, sqrt_fisher, af, mas, masx, mas_logits, masx_logits      estimated on the same N examples
    af_many         af on more examples

All are of one task alone, not summed over tasks, and over all protected parameters.
"""

from typing import Any

import torch
from torch import Tensor

from cl_repro.common.tree import flat, pearson
from cl_repro.engine.boundary import estimate
from cl_repro.importance import fisher, sensitivity
from cl_repro.measurements.unifying.course import Course
from cl_repro.methods import sos
from cl_repro.methods.sos import State as Moment
from cl_repro.methods.synaptic_intelligence import State as Path
from cl_repro.records import Row
from cl_repro.types import Tree

ESTIMATED = {
    "fisher": fisher.exact,
    "af": sensitivity.af,
    "mas": sensitivity.mas,
    "masx": sensitivity.masx,
    "mas_logits": sensitivity.mas_logits,
    "masx_logits": sensitivity.masx_logits,
}
PATHS = ("si", "sib", "siu")
KINDS = ("", "_unclipped", "_raw")
# Correlations to compute, (x, y): figures 1 and L.1, figure 2, figure H.1.
PAIRS = (
    *((f"{path}{kind}", "sos") for kind in KINDS for path in PATHS),
    *((path, "sos_alpha1") for path in PATHS),
    *(("mas", y) for y in ("masx", "af", "sqrt_fisher", "fisher")),
    *(("mas_logits", y) for y in ("masx_logits", "af", "sqrt_fisher")),
    ("af", "af_many"),
    ("si", "af_many"),
)
# Pairs to compute once more without a share of the weights (figure L.1).
TRIMMED = tuple((f"{path}_raw", "sos") for path in PATHS)
SHARES = (0.01, 0.05)


def of_paths(paths: dict[str, Path], ends: Tree, xi: float) -> dict[str, Tensor]:
    """The path integrals of a task that ended with weights `ends`, in three kinds each, {measure: [P]}."""
    result: dict[str, Tensor] = {}
    for name, state in paths.items():
        raw = flat(state.path)
        unclipped = raw / ((flat(ends) - flat(state.start)).square() + xi)
        result |= {f"{name}_raw": raw, f"{name}_unclipped": unclipped, name: unclipped.clamp(min=0)}
    return result


def of_moments(moments: dict[str, Moment]) -> dict[str, Tensor]:
    """sqrt(v_T), {measure: [P]}."""
    return {name: flat(sos.omega(state)) for name, state in moments.items()}


def of_examples(course: Course, examples: int, many: int | None) -> dict[str, Tensor]:
    """What is estimated from N examples when the task has been learned, {measure: [P]}; `af_many` from many, if any.

    `sqrt_fisher` is the square root of `fisher`, which is exact over all labels.
    """
    stack = course.stack
    available = len(course.experiment.benchmark.curriculum(stack.seeds[0]).tasks[course.task].rows)
    n = min(examples, available)
    estimators = {name: factory(n) for name, factory in ESTIMATED.items()}
    if many:
        estimators["af_many"] = sensitivity.af(min(many, available))
    result = {}
    for name, estimator in estimators.items():
        found = estimate(course.experiment, stack.params, stack.buffers, estimator, stack.seeds[0], course.task)
        result[name] = flat({part: found[part] for part in course.weights})  # in the order of the weights
    return result | {"sqrt_fisher": result["fisher"].sqrt()}


# --- what is said of them ---------------------------------------------------------------------------------------------


def correlations(measures: dict[str, Tensor]) -> list[Row]:
    """Pearson's r of all of `PAIRS` that there are, and of `TRIMMED` without the weights with the largest x."""
    found = [correlation(measures, x, y, dropped=0.0) for x, y in PAIRS if {x, y} <= measures.keys()]
    for x, y in TRIMMED:
        order = measures[x].argsort(stable=True)
        for share in SHARES:
            found.append(correlation(measures, x, y, order[: len(order) - round(share * len(order))], dropped=share))
    return found


def trimmed(measures: dict[str, Tensor]) -> list[Row]:
    """`TRIMMED` without a share of the weights, chosen by other rules than the largest x.

    The paper leaves out the weights of "the largest importance" and does not say whether the sign counts. It matters
    for SIU, whose values are as often noise as signal: those of the largest x have noise of one sign alone. By size:
    without the largest |x|; tails: half of them the largest x, half the smallest; y: the largest y.
    """
    found = []
    for x, y in TRIMMED:
        a, b = measures[x], measures[y]
        size, value, other = (key.argsort(stable=True) for key in (a.abs(), a, b))
        for share in SHARES:
            out = round(share * len(a))
            left = len(a) - out
            kept = {"size": size[:left], "tails": value[out // 2 :][:left], "y": other[:left]}
            found += [correlation(measures, x, y, rest, dropped=share, by=by) for by, rest in kept.items()]
    return found


def correlation(measures: dict[str, Tensor], x: str, y: str, kept: Tensor | None = None, **how: Any) -> Row:
    """A row with Pearson's r of two measures over the weights, or over those that are kept."""
    a, b = (measures[name] if kept is None else measures[name][kept] for name in (x, y))
    return {"x": x, "y": y, **how, "r": pearson(a, b)}


def extents(measures: dict[str, Tensor]) -> list[Row]:
    """What every measure is like over the weights; `negative`: the share of them where it is."""
    return [
        {
            "measure": name,
            "total": float(v.sum(dtype=torch.float64)),
            "largest": float(v.max()),
            "negative": float((v < 0).double().mean()),
        }
        for name, v in measures.items()
    ]
