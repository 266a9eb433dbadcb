"""How much longer training changes the order of methods: accuracy against epochs, as figure, and as differences."""

import re

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from cl_repro.analysis.comparisons.comparison import NAMES, Entry, scenarios_of
from cl_repro.analysis.data.looks import LOOKS, METHODS
from cl_repro.analysis.data.settings import Settings
from cl_repro.analysis.data.study import SCENARIOS
from cl_repro.analysis.lambdas.accuracy import estimate_text, interval_text, lambda_text
from cl_repro.analysis.lambdas.curve_names import named_beside
from cl_repro.analysis.output.figures import headed, lettered
from cl_repro.analysis.output.markup import MINUS, Table
from cl_repro.common.stats import estimate

LABEL = re.compile(r"\[(?P<epochs>\d+)_epochs\]$")
BASE = "l2"  # what the others are compared with
STYLES = {
    "l2": METHODS["l2"],
    "ewc_offline": LOOKS["predicted"],
    "si": METHODS["si"],
    "mas_batched": METHODS["mas_batched"],
}


def with_epochs(found: list[Entry]) -> bool:
    """Whether there are arms that differ in how long they train."""
    return any(LABEL.search(entry.arm.label) for entry in found)


def curves_of(found: list[Entry], scenario: str) -> dict[str, dict[int, Entry]]:
    """Of one scenario: method -> epochs, the fewest first -> entry."""
    curves: dict[str, dict[int, Entry]] = {}
    for entry in (entry for entry in found if entry.scenario == scenario):
        if match := LABEL.search(entry.arm.label):
            curves.setdefault(entry.arm.method, {})[int(match["epochs"])] = entry
    return {method: dict(sorted(curves[method].items())) for method in STYLES if method in curves}


def claims_table(settings: Settings, found: list[Entry]) -> Table:
    """Every method minus L2, at each length."""
    pairs = [
        (scenario, method, epochs, entry, base)
        for scenario in scenarios_of(found)
        for curves in [curves_of(found, scenario)]
        for method, of in curves.items()
        for epochs, entry in of.items()
        if (base := curves.get(BASE, {}).get(epochs)) and method != BASE
    ]
    confidence = 1 - (1 - settings.confidence) / max(len(pairs), 1)
    body = [
        (
            SCENARIOS[scenario],
            str(epochs),
            NAMES[method],
            *(f"{estimate_text(estimate(of.accuracy))} at λ {lambda_text(of.lam)}" for of in (entry, base)),
            interval_text(entry.minus(base, confidence)),
        )
        for scenario, method, epochs, entry, base in sorted(pairs, key=lambda p: (p[0], p[2]))
    ]
    header = ("Scenario", "epochs a task", "method", "method, %", "L2, %", f"method {MINUS} L2 [interval]")
    notes = (
        f"Points of test accuracy; intervals paired by seed at the level 1 {MINUS} {1 - settings.confidence:.2g} / "
        f"{len(pairs)}, so that all hold together with {settings.confidence:.0%}.",
    )
    return Table(
        "claims", "Do importances beat plain L2, and does that take longer training?", header, tuple(body), notes
    )


def draw(found: list[Entry], title: str) -> Figure:
    """One panel per scenario."""
    scenarios = scenarios_of(found)
    figure = Figure(figsize=(2.2 + 4.2 * len(scenarios), 4.2), layout="constrained")  # inches
    panels = figure.subplots(1, len(scenarios), squeeze=False, sharey=True)[0]
    for axes, scenario in zip(panels, scenarios, strict=True):
        accuracies(axes, curves_of(found, scenario))
        axes.set_xlabel("epochs a task (logarithmic)")
    panels[0].set_ylabel("test accuracy (%)")
    lettered(panels, [SCENARIOS[scenario] for scenario in scenarios])
    headed(figure, title, "Mean over seeds, bars ± 1 SEM")
    for axes in panels:
        named_beside(axes)
    return figure


def accuracies(axes: Axes, curves: dict[str, dict[int, Entry]]) -> None:
    """One line per method."""
    for method, of in curves.items():
        colour, marker, dashes, *_ = STYLES[method]
        points = [estimate(entry.accuracy) for entry in of.values()]
        axes.errorbar(
            [*of], [p.mean for p in points], [np.nan_to_num(p.sem) for p in points], color=colour, marker=marker,
            linestyle=dashes, linewidth=2, markersize=6, capsize=2.5, label=NAMES[method],
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted({epochs for of in curves.values() for epochs in of}))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
