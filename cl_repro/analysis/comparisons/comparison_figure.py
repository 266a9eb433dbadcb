"""The picture of a comparison: a row a method, with its accuracy in each scenario, its extra memory and its compute."""

from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from cl_repro.analysis.comparisons import beside, numbered
from cl_repro.analysis.comparisons.comparison import (
    BOUND,
    FAMILIES,
    FINETUNE,
    Entry,
    bytes_text,
    compared,
    scenarios_of,
)
from cl_repro.analysis.data.arms import setting
from cl_repro.analysis.data.looks import LOOKS
from cl_repro.analysis.data.study import SCENARIOS, Study, commits, describe, source_name
from cl_repro.analysis.lambdas.curve_names import inked
from cl_repro.analysis.output.figures import PADDED, Drawing, headed, lettered, literal
from cl_repro.common.stats import estimate

NOTE = (
    "Mean ± 1 SEM over seeds; dashed: finetune. Memory: kept beside network, gradient and optimiser (log scale). "
    "Time: of a processor (log scale)"
)
LEAST = 100  # bytes; what keeps less is drawn as nothing
GAP = 0.7  # decades between nothing and the least that is kept


def drawings(study: Study) -> list[Drawing]:
    """What accuracy costs, or examples stored where arms differ in that."""
    if not (found := compared(study)):
        return []
    title, source = f"{study.name}: {describe(study.reported)}", f"cl_repro {commits(study.runs)}"
    return [Drawing(study.name, title, source, partial(_drawn, study, found))]


def _drawn(study: Study, found: list[Entry]) -> Figure:
    benchmark = describe(study.reported, places=False)
    if published := beside.pairs_of(study, found):
        theirs = " and ".join(dict.fromkeys(source_name(pair.row["source"]) for pair in published))
        return beside.draw(study, published, f"{benchmark}: ours beside {theirs}")
    if numbered.numbered(found, numbered.EPOCHS):
        return numbered.draw_epochs(found, f"{benchmark}: longer training", study.settings.chosen_on)
    if numbered.numbered(found, numbered.SIZES):
        return numbered.draw_sizes(found, f"{benchmark}: stored examples beside EWC")
    if numbered.numbered(found, numbered.WINDOWS):
        per_task = next(setting(study.folder, e.arm.config_id, "method.n") for e in found if e.arm.method == "context")
        return numbered.draw_windows(found, f"{benchmark}: a window of examples that is looked at", per_task)
    return draw(found, f"{benchmark}: what accuracy costs")


def draw(found: list[Entry], title: str) -> Figure:
    """A row a method, by family: accuracy in each scenario, and what it costs; so each point has its name beside it."""
    scenarios = scenarios_of(found)
    rows = rows_of(found)
    figure = Figure(figsize=(9.0 + 1.7 * len(scenarios), 1.6 + 0.235 * len(rows)), layout=PADDED)  # inches
    panels = figure.subplots(1, len(scenarios) + 2, sharey=True, width_ratios=[3] * len(scenarios) + [2.6, 2.2])
    memory, compute = panels[-2:]
    least = min((entry.bytes for entry in found if entry.bytes >= LEAST), default=10**6)
    nothing = least / 10**GAP
    for y, (family, name) in enumerate(rows):
        own = [entry for entry in found if (entry.family, entry.name) == (family, name)]
        for axes, scenario in zip(panels, scenarios, strict=False):
            for entry in (entry for entry in own if entry.scenario == scenario):
                accuracy = estimate(entry.accuracy)
                point(axes, accuracy.mean, y, family, accuracy.sem)
        if own:
            most = max(entry.bytes for entry in own)
            point(memory, most if most >= LEAST else nothing, y, family)
            point(compute, estimate(np.concatenate([entry.compute for entry in own])).mean, y, family)
    for axes, scenario in zip(panels, scenarios, strict=False):
        for entry in (e for e in found if (e.scenario, e.name) == (scenario, FINETUNE)):
            axes.axvline(
                estimate(entry.accuracy).mean,
                color=FAMILIES[BOUND][1],
                linestyle=LOOKS[FINETUNE].dashes,
                linewidth=1.4,
                zorder=1,
            )
        axes.set_xlabel("test accuracy (%)")
    memory_axis(memory, nothing, max(nothing, *(entry.bytes for entry in found)))
    compute.set_xscale("log", base=2)
    compute.xaxis.set_major_locator(LogLocator(base=2, numticks=12))
    compute.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    if not any(np.isfinite(entry.compute).any() for entry in found):
        compute.set_xlim(0.5, 2)  # nothing to compare with
    compute.set_xlabel("times finetune's")
    lettered(panels, [*(SCENARIOS[scenario] for scenario in scenarios), "extra memory", "training time"])
    name_rows(panels[0], rows)
    headed(figure, title, NOTE)
    return figure


def rows_of(found: list[Entry]) -> list[tuple[str, str]]:
    """(family, name of a method), by family; before the first of each (family, "")."""
    rows = []
    for family in FAMILIES:
        if names := dict.fromkeys(entry.name for entry in found if entry.family == family):
            rows += [(family, ""), *((family, name) for name in names)]
    return rows


def name_rows(axes: Axes, rows: list[tuple[str, str]]) -> None:
    """The first of the panels, which share their rows, has the names, families in their colours."""
    axes.set_yticks(range(len(rows)), [literal(name or FAMILIES[family][0]) for family, name in rows], fontsize=9.5)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    for text, (family, name) in zip(axes.get_yticklabels(), rows, strict=True):
        if not name:
            text.set(fontweight="bold", color=inked(FAMILIES[family][1]))


def point(axes: Axes, x: float, y: int, family: str, sem: float = 0.0) -> None:
    """A mean in its row, and one standard error over seeds."""
    look: Any = {"color": FAMILIES[family][1], "markersize": 6, "elinewidth": 1.4, "capsize": 2, "zorder": 3}
    axes.errorbar(x, y, xerr=np.nan_to_num(sem), fmt="o", **look)


def memory_axis(axes: Axes, nothing: float, most: float) -> None:
    """Decades of bytes, and a place for nothing."""
    axes.set_xscale("log")
    powers = [10.0**p for p in range(int(np.ceil(np.log10(nothing * 10 ** (GAP / 2)))), int(np.log10(most)) + 1)]
    powers = powers[1::2] if len(powers) > 3 else powers  # no label reaches the next
    axes.xaxis.set_major_locator(FixedLocator([nothing, *powers]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: "none" if x == nothing else bytes_text(round(x))))
    axes.axvspan(nothing / 10**GAP, nothing * 10 ** (GAP / 2), color="#F3F3F3", linewidth=0, zorder=0)
    axes.set_xlim(nothing / 10 ** (GAP / 2))
    axes.set_xlabel("kept between tasks")
