"""The values behind the figures of Benzing (2022), with the published ones below or beside them."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cl_repro.analysis.data.study import origin
from cl_repro.analysis.measurements import unifying_seeds
from cl_repro.analysis.measurements.unifying import (
    BY_X,
    MAIN,
    NO_INIT,
    NO_PENALTY,
    PUBLISHED,
    Figures,
    number,
    published_row,
    seeds,
)
from cl_repro.analysis.measurements.unifying_panels import ON_THE_WAY, SUMS, control, word
from cl_repro.analysis.output.markup import DASH, MINUS, Document, Table
from cl_repro.common.stats import Estimate, estimate

PATHS = ("si", "sib", "siu")
# Correlations in reading order: (x, y, run, share of the weights left out).
ROWS = (
    *((f"{path}{kind}", "sos", MAIN, 0.0) for kind in ("", "_unclipped", "_raw") for path in PATHS),
    *((f"si{kind}", "sos", run, 0.0) for run in (NO_INIT, NO_PENALTY) for kind in ("", "_unclipped", "_raw")),
    *((f"{path}_raw", "sos", MAIN, share) for share in (0.01, 0.05) for path in PATHS),
    *((path, "sos_alpha1", MAIN, 0.0) for path in PATHS),
    *(("mas", y, MAIN, 0.0) for y in ("masx", "af", "sqrt_fisher", "fisher")),
    *(("mas_logits", y, MAIN, 0.0) for y in ("masx_logits", "af", "sqrt_fisher")),
    ("af", "af_many", MAIN, 0.0),
    ("si", "af_many", MAIN, 0.0),
)
SHARES = (0.01, 0.05)  # of the weights
LARGEST = {BY_X: "largest {}"}  # which weights: of correlations.csv
RULES = {"size": "largest |{}|", "tails": "both tails of {}", "y": "largest SOS"}  # of trimmed.csv
HEADER = ("SI", "SIU", "full gradient", "decrease of the loss")  # of SUMS
EXTENTS = (*(f"{path}_raw" for path in PATHS), "sos")
SMOOTHED = 20  # the decrease of the loss: a running mean over one of so many parts of the rows of a task


def document(found: Figures) -> Document:
    """Its tables as files."""
    heading = f"{found.name}: {found.benchmark}, {found.scale}, {seeds([found])}"
    return Document(found.name, heading, tables_of(found), found.folder)


def tables_of(found: Figures) -> list[Table]:
    """All tables that have rows."""
    if found.on_the_way:
        tables = [unifying_seeds.steps_table(found), unifying_seeds.decides_table(found)]
    else:
        tables = [correlations_table(found), rules_table(found), sums_table(found), way_table(found)]
        tables += [] if found.twin else [unifying_seeds.beside_table(found)]
        tables += [extents_table(found), *([noise_table(found)] if len(found.noise) else [])]
    return [table._replace(title=table.title + found.mark) for table in tables if table.rows]


def correlations_table(found: Figures) -> Table:
    """Pearson's r of every pair by task."""
    body = []
    for x, y, kind, share in ROWS:
        r = found.r(x, y, kind, share)
        if not r:
            continue
        prefix = "" if kind == MAIN else f"{kind} "
        left_out = f" without {share:.0%}" if share else ""
        name = f"{word(x)} {DASH} {word(y)}"
        run = control(kind, found) if kind != MAIN else ""
        details = [text for text in (run, left_out.strip(), "more examples" if "many" in y else "") if text]
        cells = (fixed(r.get(task)) for task in found.tasks)
        body.append((f"{name} ({', '.join(details)})" if details else name, *cells))
        theirs = found.theirs(f"{prefix}r({x},{y}){left_out}")
        body += published_row([theirs.get(task) for task in found.tasks])
    main = found.main
    notes = (
        f"Pearson's r over all {main['weights'].iloc[0]:,} protected weights, mean ± SEM over seeds; every importance "
        f"is of its task alone. One run of SI (c = {main['lam'].iloc[0]:g}), everything else measured beside it; "
        f"average test accuracy after the last task {spread(estimate(100 * main['accuracy']))}%.",
        "SI, SIB and SIU are rescaled by equation 6 with its maximum with 0, without it (unclipped), or not at all "
        "(before rescaling). SOS is the root of the second moment. The MAS family and Fisher: the same "
        f"{main['examples'].iloc[0]:g} examples of a task.",
        "Without 1% or 5%: the weights of the largest SI, SIB or SIU are left out.",
        "The published values are of the paper's scale" + (f"; ours: {found.scale}." if found.suffix else "."),
        origin(found.networks),
    )
    header = ("Pair", *(f"task {task}" for task in found.tasks))
    return Table("correlations", "Correlations by task", header, tuple(body), notes)


def rules_table(found: Figures) -> Table:
    """Correlations of the first task without a share of the weights, by the rules that "the largest" may mean."""
    body = []
    measured = found.correlations["by"].isin(list(RULES)).any()
    for path in PATHS[::-1]:
        x = f"{path}_raw"
        rows: Mapping[str, Sequence[Estimate | None]]
        if measured:
            rows = {by: [found.r(x, "sos", dropped=share, by=by).get(1) for share in SHARES] for by in (BY_X, *RULES)}
        elif found.scatter:
            rows = of_scatter(found.scatter.of[x], found.scatter.of["sos"])
        else:
            continue
        body += [(f"{word(x)}, {(LARGEST | RULES)[by].format(word(path))}", *map(fixed, r)) for by, r in rows.items()]
        body += published_row([found.theirs(f"r({x},sos) without {share:.0%}").get(1) for share in SHARES])
    weights = "over all weights, mean ± SEM over seeds"
    if not measured and found.scatter:
        weights = f"over {len(found.scatter.of['sos']):,} of {found.main['weights'].iloc[0]:,} weights of one seed"
    notes = (
        f"Pearson's r with SOS, of the first task, {weights}. The paper leaves out the weights of the "
        "largest importance, 1% or 5%, and does not say whether the sign counts. Weights of the largest SIU are those "
        "whose noise was positive: without them the noise of the rest is negative on average, and r falls by more.",
        "Both tails: half of the share from either end.",
    )
    header = ("Weights left out", *(f"{share:.0%}" for share in SHARES))
    return Table("rules", "Correlation with SOS without the largest weights, by four rules", header, tuple(body), notes)


def of_scatter(x: NDArray[np.float32], y: NDArray[np.float32]) -> dict[str, list[Estimate]]:
    """R of some weights by every rule, for each of `SHARES`, as `unifying.measures` has it of all."""
    x, y = x.astype(float), y.astype(float)
    found: dict[str, list[Estimate]] = {by: [] for by in LARGEST | RULES}
    keys = {BY_X: x, "size": abs(x), "tails": x, "y": y}
    order = {by: np.argsort(key, kind="stable") for by, key in keys.items()}
    for share in SHARES:
        out = round(share * len(x))
        for by, at in order.items():
            first = out // 2 if by == "tails" else 0
            kept = at[first : first + len(x) - out]
            found[by].append(estimate([np.corrcoef(x[kept], y[kept])[0, 1]]))
    return found


def sums_table(found: Figures) -> Table:
    """Summed contributions at the end of every task."""
    body = []
    for task in found.tasks:
        last = found.sums(task).groupby("seed").tail(1)
        ours = {key: estimate(last[key]) for key in SUMS}
        cells = (spread(one, 4) for one in ours.values())
        bias = ours["si"].mean / ours["siu"].mean - 1
        body.append((f"task {task}", *cells, number(bias), spread(estimate(below(found, task)), 2)))
        theirs = {key: found.theirs(quantity).get(task, np.nan) for key, quantity in SUMS.items()}
        share = found.theirs("siu below the loss drop").get(task, np.nan)
        if not np.isnan([*theirs.values()]).all():
            cells = (number(value, 4) for value in theirs.values())
            body.append((PUBLISHED, *cells, number(theirs["si"] / theirs["siu"] - 1), number(100 * share, 2)))
    notes = (
        "Sums over all protected weights, before rescaling; mean ± SEM over seeds. SI and SIU: along the gradient of "
        "the step's own mini-batch, and of an independent one. Full: along the gradient of all training examples"
        f"{how_often(found)}. The loss without penalty and dropout: of all training examples where there is a full "
        "gradient, else of the next mini-batch.",
        f"SIU below the loss: share of the steps at which the sum of SIU is below the decrease of the loss (a running "
        f"mean over 1/{SMOOTHED} of a task).",
    )
    header = ("Task", *HEADER, f"(SI {MINUS} SIU) / SIU", "SIU below the loss, % of steps")
    return Table("sums", "Summed contributions at the end of a task", header, tuple(body), notes)


def way_table(found: Figures) -> Table:
    """The same on the way, in the first task, where there are published values or full gradients."""
    body = []
    rows = found.path(1).set_index("iteration")
    for t in ON_THE_WAY:
        if t not in rows.index:
            continue
        body.append((f"{t}", *(number(rows.loc[t, key], 4) for key in SUMS)))
        body += published_row([found.theirs(f"{quantity} at {t}").get(1) for quantity in SUMS.values()], 4)
    header = ("Iteration", *HEADER)
    return Table("way", "Summed contributions in the first task", header, tuple(body), ("Of the first seed.",))


def extents_table(found: Figures) -> Table:
    """Largest values, and shares of negative ones."""
    body = []
    main = found.measures[found.measures["kind"] == MAIN]
    for column, title in (("largest", "largest"), ("negative", "share below 0")):
        for measure in EXTENTS:
            if column == "negative" and measure == "sos":
                continue
            own = main[main["measure"] == measure].groupby("task")[column]
            by_task = {int(task): estimate(rows) for task, rows in own}
            body.append((f"{word(measure)}: {title}", *(spread(by_task.get(task), 2) for task in found.tasks)))
            theirs = found.theirs(f"{column}({measure})")
            body += published_row([theirs.get(task) for task in found.tasks], 2)
    notes = ("Mean ± SEM over seeds. The published values are of 10,000 weights of one run.",)
    header = ("Measure", *(f"task {task}" for task in found.tasks))
    return Table("extents", "How large the measures are", header, tuple(body), notes)


def noise_table(found: Figures) -> Table:
    """The ratio of noise to full gradient in the first task."""
    ratio = (found.noise["noise"] / found.noise["signal"]).to_numpy()
    body = [(f"quantile {q:g}", number(float(np.quantile(ratio, q)), 3)) for q in (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)]
    body += [
        (f"iterations with a ratio of at least {x}, %", number(100 * float((ratio >= x).mean()), 3)) for x in (1, 10)
    ]
    notes = (f"Squared length of the noise of a mini-batch over that of the full gradient, {len(ratio)} iterations.",)
    return Table("noise", "Noise of a mini-batch in the first task", ("Ratio", "value"), tuple(body), notes)


def below(found: Figures, task: int) -> list[float]:
    """Of each seed, at how many % of a task's steps the sum of SIU is below the smoothed decrease of the loss."""
    shares = []
    for _, own in found.sums(task).groupby("seed"):
        window = max(1, len(own) // SMOOTHED)
        smooth = own["drop"].rolling(window, center=True, min_periods=1).mean()
        shares.append(100 * float((own["siu"] < smooth)[own["iteration"] > 0].mean()))
    return shares


def how_often(found: Figures) -> str:
    """How often the full gradient was computed."""
    e = found.path(1)["full_every"].max()
    if np.isnan(e):
        return ", which was not computed here"
    return (
        ", at every step of task 1"
        if e == 1
        else f", at one step in {e:.0f} of task 1 after the first ones, times {e:.0f}"
    )


def spread(one: Estimate | None, digits: int = 3) -> str:
    """Mean ± SEM; the mean alone for one seed."""
    if one is None or not one.n:
        return DASH
    return number(one.mean, digits) + (f" ± {number(one.sem, 2)}" if one.n > 1 else "")


def fixed(one: Estimate | None) -> str:
    """Mean ± SEM of a correlation, in three decimals."""
    if one is None or not one.n:
        return DASH
    return (f"{one.mean:.3f}" + (f" ± {one.sem:.3f}" if one.n > 1 else "")).replace("-", MINUS)
