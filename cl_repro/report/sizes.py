"""Interactive accuracy against the number of stored examples, beside the methods that store none."""

import numpy as np

from cl_repro.analysis.comparisons.comparison import Entry, scenarios_of
from cl_repro.analysis.comparisons.numbered import BESIDE_SIZES, MEMORIES, SIZES, curves_of
from cl_repro.analysis.data.looks import Look
from cl_repro.analysis.data.study import Study, describe
from cl_repro.analysis.lambdas.accuracy import NOTHING, estimate_text
from cl_repro.analysis.output.markup import Table
from cl_repro.common.stats import estimate
from cl_repro.report.chart import POINTS, Chart, Drawn, Key, assembled, band, drawn_line, flat_line, hovered, key

TITLE = "Stored examples a class (log scale)"


def charts(study: Study, found: list[Entry]) -> list[Chart]:
    """A chart for each scenario of a comparison, of whose entries some differ in how many examples they store."""
    runs = study.runs
    drawn = {s: describe(runs[runs["scenario"] == s]) for s in scenarios_of(found) if curves_of(found, s, SIZES)}
    return [chart([entry for entry in found if entry.scenario == s], s, title) for s, title in drawn.items()]


def chart(found: list[Entry], scenario: str, title: str) -> Chart:
    """Curves of replay by the kind of memory, and a line for each method without examples."""
    curves = curves_of(found, scenario, SIZES)
    sizes = sorted({n for curve in curves.values() for n in curve})
    ends = np.geomspace(sizes[0], sizes[-1], POINTS)
    keys: list[Key] = []
    drawn: list[Drawn] = []
    flat: list[str] = []
    for method, (colour, name) in BESIDE_SIZES.items():
        for entry in (entry for entry in found if entry.arm.method == method and np.isfinite(entry.accuracy).any()):
            style = Look(colour, "", (0, (4, 2)), thickness=1.6)
            drawn += flat_line(len(keys), [ends], estimate(entry.accuracy), name, style)
            keys.append(key(name, style))
            flat.append(f"{name}: {estimate_text(estimate(entry.accuracy))}.")
    cells: dict[int, list[str]] = {n: [] for n in sizes}
    for policy, curve in curves.items():
        points = {n: estimate(entry.accuracy) for n, entry in curve.items()}
        name, style = MEMORIES[policy]
        there = {n: point for n, point in points.items() if point.n}
        hover = [f"{n} a class<br>{hovered(point)}" for n, point in there.items()]
        drawn.append(drawn_line(len(keys), [[*there]], [*there.values()], name, style, hover))
        drawn += band(len(keys), [np.array([*curve], dtype=float)], [*points.values()], style)
        keys.append(key(name, style))
        for n, own in cells.items():
            own.append(estimate_text(points[n]) if n in points else NOTHING)
    notes = ("Test accuracy in %, mean ± SEM (n seeds).", *flat)
    header = ("examples a class", *(MEMORIES[policy][0] for policy in curves))
    table = Table("points", "The same as a table", header, tuple((str(n), *own) for n, own in cells.items()), notes)
    return assembled(title, [(TITLE, sizes[0], sizes[-1])], drawn, keys, table, ticks=sizes)
