"""Interactive accuracy against the number of stored examples, beside the methods that store none."""

import numpy as np

from cl_repro.analysis.comparisons.comparison import Entry, scenarios_of
from cl_repro.analysis.comparisons.replay_claims import NAMES, curves_of
from cl_repro.analysis.comparisons.replay_curves import BANDS, COLOURS
from cl_repro.analysis.data.looks import Look
from cl_repro.analysis.data.study import Study, describe
from cl_repro.analysis.lambdas.accuracy import NOTHING, estimate_text
from cl_repro.analysis.output.markup import Table
from cl_repro.common.stats import estimate
from cl_repro.report.chart import POINTS, Chart, Drawn, Key, assembled, band, drawn_line, flat_line, hovered, key

TITLE = "Stored examples a class (log scale)"


def charts(study: Study, found: list[Entry]) -> list[Chart]:
    """A chart for each scenario.

    Args:
        study: comparison.
        found: its entries, some of which differ in how many examples they store.

    Returns:
        At least one.
    """
    runs = study.runs
    drawn = {s: describe(runs[runs["scenario"] == s]) for s in scenarios_of(found) if curves_of(found, s)}
    return [chart([entry for entry in found if entry.scenario == s], s, title) for s, title in drawn.items()]


def chart(found: list[Entry], scenario: str, title: str) -> Chart:
    """Curves of replay by the kind of memory, and a line for each method without examples."""
    curves = curves_of(found, scenario)
    sizes = sorted({n for curve in curves for n in curve.sizes})
    ends = np.geomspace(sizes[0], sizes[-1], POINTS)
    keys: list[Key] = []
    drawn: list[Drawn] = []
    flat: list[str] = []
    for method, (colour, name) in BANDS.items():
        for entry in (entry for entry in found if entry.arm.method == method and np.isfinite(entry.accuracy).any()):
            style = Look(colour, "", (0, (4, 2)), thickness=1.6)
            drawn += flat_line(len(keys), [ends], estimate(entry.accuracy), name, style)
            keys.append(key(name, style))
            flat.append(f"{name}: {estimate_text(estimate(entry.accuracy))}.")
    cells: dict[int, list[str]] = {n: [] for n in sizes}
    for curve in curves:
        points = {n: estimate(entry.accuracy) for n, entry in zip(curve.sizes, curve.entries, strict=True)}
        style = Look(COLOURS[curve.policy], "s" if curve.policy else "o", "-")
        there = {n: point for n, point in points.items() if point.n}
        hover = [f"{n} a class<br>{hovered(point)}" for n, point in there.items()]
        drawn.append(drawn_line(len(keys), [[*there]], [*there.values()], NAMES[curve.policy], style, hover))
        drawn += band(len(keys), [np.array(curve.sizes, dtype=float)], [*points.values()], style)
        keys.append(key(NAMES[curve.policy], style))
        for n, own in cells.items():
            own.append(estimate_text(points[n]) if n in points else NOTHING)
    notes = ("Test accuracy in %, mean ± SEM (n seeds).", *flat)
    header = ("examples a class", *(NAMES[curve.policy] for curve in curves))
    table = Table("points", "The same as a table", header, tuple((str(n), *own) for n, own in cells.items()), notes)
    return assembled(title, [(TITLE, sizes[0], sizes[-1])], drawn, keys, table, ticks=sizes)
