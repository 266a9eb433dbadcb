"""Several seeds of the first task beside one published run, as tables: sums, correlations, and the first steps.

What is published is one run of the authors: it should lie where 95 % of further runs do, which is wider than the
interval of the mean.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from cl_repro.analysis.data.study import origin
from cl_repro.analysis.measurements.unifying import MAIN, PUBLISHED, Figures, number, published_row, seeds
from cl_repro.analysis.output.markup import DASH, MINUS, Table
from cl_repro.common.stats import Array, Interval, estimate, further, paired

CONFIDENCE = 0.95
LATER = 100  # steps: from there on the growth of SIU is compared, too
STEPS = (1, 2, 3, 5, 10, 20)  # of the table
EARLY, LATE, SHOWN = 3, 20, 10  # steps: what the early ones decide of the late; where the authors' sums are known


class Quantity(NamedTuple):
    """Something of the first task that is published."""

    name: str
    values: Array  # of each seed
    published: float  # NaN if it is not
    half: float  # of the last published digit


def beside_table(found: Figures) -> Table:
    """Sums and correlations of the first task with intervals, and whether the published run lies in them."""
    body = []
    for one in first_task(found):
        if len(one.values) < 2 or math.isnan(one.published):
            continue
        mean, another = paired(one.values, np.zeros(len(one.values)), CONFIDENCE), further(one.values, CONFIDENCE)
        inside = [name for name, interval in (("mean", mean), ("further", another)) if holds(interval, one)]
        ours = f"{mean.centre:.4g} ± {np.std(one.values, ddof=1):.2g}"
        shown = " and ".join(inside) or "neither"
        body.append((one.name, ours, limits(mean), limits(another), f"{one.published:.4g}", shown))
    n, percent = len(found.main), f"{CONFIDENCE:.0%}"
    notes = (
        f"Mean ± standard deviation over {n} seeds; {percent} t-interval of the mean; and the interval that holds "
        f"{percent} of further runs, mean ± t sd √(1 + 1/n). What is published is one run of the authors, for r an "
        "image of one: one more draw, which should lie in the second.",
        f"SIB: SI {MINUS} SIU. A published value lies in an interval that reaches what rounds to it.",
        origin(found.networks),
    )
    header = ("Quantity", "ours", f"{percent}, mean", f"{percent}, further runs", PUBLISHED, f"{PUBLISHED} lies in")
    return Table("beside", "The first task beside the published run", header, tuple(body), notes)


def first_task(found: Figures) -> list[Quantity]:
    """The quantities of the first task that were published, and ours by seed."""
    si, siu, drop = (by_seed(found, column) for column in ("si", "siu", "drop"))
    end = siu.columns[-1]
    wanted = ("sum(si)", "sum(siu)", "loss drop", f"sum(siu) at {LATER}")
    si_, siu_, drop_, early = (found.theirs(quantity).get(1, math.nan) for quantity in wanted)
    result = [
        Quantity("Sum of SI", si[end].to_numpy(), si_, half(si_)),
        Quantity("Sum of SIU", siu[end].to_numpy(), siu_, half(siu_)),
        Quantity("Sum of SIB", (si - siu)[end].to_numpy(), si_ - siu_, half(si_) + half(siu_)),
        Quantity("Decrease of the loss", drop[end].to_numpy(), drop_, half(drop_)),
    ]
    if LATER in siu:
        growth = (siu[end] - siu[LATER]).to_numpy()
        result.insert(3, Quantity(f"Growth of SIU after step {LATER}", growth, siu_ - early, half(siu_) + half(early)))
    c = found.correlations[(found.correlations["kind"] == MAIN) & (found.correlations["task"] == 1)]
    for path in ("si", "sib", "siu"):
        r = c[(c["x"] == path) & (c["y"] == "sos") & (c["dropped"] == 0)]["r"].to_numpy()
        published = found.theirs(f"r({path},sos)").get(1, math.nan)
        result.append(Quantity(f"r({path.upper()}, SOS)", r, published, half(published)))
    return result


def half(published: float) -> float:
    """Half of the last digit of a published number."""
    return 0.5 * 10.0 ** -len(str(published).partition(".")[2])


def holds(interval: Interval, one: Quantity) -> bool:
    """Whether an interval reaches what rounds to a published number."""
    return interval.low <= one.published + one.half and one.published - one.half <= interval.high


def limits(interval: Interval) -> str:
    """[low, high]."""
    return f"[{interval.low:.4g}, {interval.high:.4g}]".replace("-", MINUS)


# --- the first steps -------------------------------------------------------------------------------------------------


def by_seed(found: Figures, column: str) -> pd.DataFrame:
    """A column of summed.csv of the first task of the main run: a row a seed, a column an iteration."""
    return found.sums(1).pivot_table(index="seed", columns="iteration", values=column)


def steps_table(found: Figures) -> Table:
    """Sums and loss after each of the first steps, over seeds."""
    si, siu, loss = (by_seed(found, column) for column in ("si", "siu", "loss"))
    body = []
    for t in (0, *STEPS):
        if t not in siu:
            continue
        sums = [of_runs(si[t]), of_runs(siu[t])] if t else [DASH, DASH]
        body.append((f"{t}", *sums, f"{siu[t].min():.3g} to {siu[t].max():.3g}" if t else DASH, of_runs(loss[t])))
        known = [found.theirs(f"{name} at {t}").get(1) for name in ("sum(si)", "sum(siu)", "loss")]
        body += published_row([*known[:2], None, known[2]], 4)
    notes = (
        f"Mean ± standard deviation over {seeds([found])}, before rescaling. The loss: of the next mini-batch of 256, "
        "as it comes; the published one is of all training examples.",
        origin(found.networks),
    )
    header = ("Steps", "SI", "SIU", "SIU, all seeds", "loss")
    return Table("steps", "Sums after the first steps", header, tuple(body), notes)


def decides_table(found: Figures) -> Table:
    """How much of a later sum the first steps decide, and where the authors' run falls."""
    si, siu, loss = (by_seed(found, column) for column in ("si", "siu", "loss"))
    if not {EARLY, LATE} <= set(siu) or len(siu) < 3:
        return Table("decides", "", (), ())
    growth = estimate(siu[LATE] - siu[EARLY])
    body = [
        (f"correlation over seeds of SIU after {EARLY} steps and after {LATE}", r(siu[EARLY], siu[LATE]), DASH),
        (f"... of the loss after the first step and SIU after {LATE}", r(loss[1], siu[LATE]), DASH),
        (f"... of the loss before any step and SIU after {LATE}", r(loss[0], siu[LATE]), DASH),
        (f"growth of SIU from step {EARLY} to {LATE}", f"{growth.mean:.3g} ± {growth.sem * growth.n**0.5:.2g}", DASH),
    ]
    for name, sums in (("SI", si), ("SIU", siu)):
        text = f"{name} after {SHOWN} steps: the interval that holds {CONFIDENCE:.0%} of further runs"
        published = found.theirs(f"sum({name.lower()}) at {SHOWN}").get(1)
        body.append((text, limits(further(sums[SHOWN], CONFIDENCE)), number(published, 4)))
    notes = (
        f"A standard deviation after ±. Nothing that comes after the first {EARLY} steps differs between seeds as much "
        "as these do; how high the loss jumps in the first step says most of it.",
    )
    return Table("decides", "What the first steps decide", ("", "ours", PUBLISHED), tuple(body), notes)


def of_runs(values: pd.Series) -> str:
    """Mean ± standard deviation; the mean alone for one seed."""
    return f"{values.mean():.4g}" + (f" ± {values.std(ddof=1):.2g}" if len(values) > 1 else "")


def r(a: pd.Series, b: pd.Series) -> str:
    """Pearson's r over seeds."""
    return f"{np.corrcoef(a, b)[0, 1]:.2f}".replace("-", MINUS)
