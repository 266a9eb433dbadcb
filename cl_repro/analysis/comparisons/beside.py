"""A comparison of methods that was published: our means beside the published ones, with verdicts; table and figure."""

import math
import textwrap
from collections import Counter
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from cl_repro.analysis.comparisons.comparison import Entry, scenarios_of
from cl_repro.analysis.data.study import SCENARIOS, Study, published_row, sources
from cl_repro.analysis.lambdas.accuracy import delta_of, estimate_text, interval_text, judge, verdict_note, verdict_text
from cl_repro.analysis.output.figures import headed, lettered, literal
from cl_repro.analysis.output.markup import MINUS, Table
from cl_repro.common.stats import AGREES, DIFFERS, TOO_FEW, Comparison, Estimate, estimate

COLOURS = {AGREES: "#0072B2", DIFFERS: "#B5121B", TOO_FEW: "#E69F00"}
MARKERS = {AGREES: "o", DIFFERS: "X", TOO_FEW: "s"}
WIDE = 150  # characters of a line of a note
FAR = 1.15  # half the width of a panel, in the largest delta or interval that is drawn there


class Pair(NamedTuple):
    """One method in one scenario, ours and the published."""

    entry: Entry
    row: pd.Series  # of published.csv
    ours: Estimate  # percent
    comparison: Comparison
    delta: float  # points that ours may differ and agree

    @property
    def called(self) -> str:
        """What the publication calls it."""
        return self.row["note"].rpartition(", ")[2]


def pairs_of(study: Study, found: list[Entry]) -> list[Pair]:
    """Those with a verdict, in the order of published.csv; none where nothing comparable was published."""
    result = []
    for source in sources(study, "accuracy"):
        for entry in found:
            row, ours = published_row(study, source, "accuracy", entry.arm), estimate(entry.accuracy)
            if row is not None and (comparison := judge(study, row, ours).comparison):
                result.append(Pair(entry, row, ours, comparison, delta_of(study.settings, row)))
    return sorted(result, key=lambda pair: int(pair.row.name))


def beside_table(study: Study, found: list[Pair]) -> Table:
    """Each number of ours beside the published one, with the interval of their difference and the verdict."""
    body = [
        (
            SCENARIOS[pair.entry.scenario],
            pair.called,
            pair.entry.name,
            estimate_text(pair.ours),
            f"{pair.row['value']:.2f} ± {pair.row['spread']:.2f} ({pair.row['n_seeds']:g})",
            interval_text(pair.comparison.interval),
            f"{pair.delta:g}",
            verdict_text(pair.comparison),
        )
        for pair in found
    ]
    header = (
        "Scenario", "published as", "here", "ours, %", "theirs, %", f"ours {MINUS} theirs [interval]", "δ", "verdict"
    )  # fmt: skip
    kinds = {"std_ddof0": "standard deviation with ddof 0", "std": "standard deviation", "sem": "SEM"}
    spread = " and ".join(dict.fromkeys(kinds.get(pair.row["spread_kind"], "no spread") for pair in found))
    of_rows = any(math.isfinite(pair.row["delta"]) for pair in found)
    notes = (
        f"Ours: mean ± SEM (n seeds); theirs: mean ± {spread} (n), from which the interval takes their SEM.",
        verdict_note(study.settings, {pair.entry.arm.method for pair in found}, of_rows),
        *([study.settings.note] if study.settings.note else []),
    )
    return Table("beside", "Beside the published means", header, tuple(body), notes)


def draw(study: Study, found: list[Pair], name: str) -> Figure:
    """A panel a scenario: differences to the published means, their sd, and +-delta; means as numbers at the right."""
    scenarios = scenarios_of([pair.entry for pair in found])
    names = list(dict.fromkeys(pair.called for pair in found))
    figure = Figure(figsize=(1.6 + 3.6 * len(scenarios), 1.7 + 0.36 * len(names)), layout="constrained")  # inches
    panels = figure.subplots(1, len(scenarios), sharey=True, squeeze=False)[0]
    for axes, scenario in zip(panels, scenarios, strict=True):
        panel(axes, [pair for pair in found if pair.entry.scenario == scenario], names)
    panels[0].set_yticks(range(len(names)), [literal(name) for name in names])
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    panels[len(panels) // 2].set_xlabel(f"accuracy, ours {MINUS} published (points)")
    lettered(panels, [SCENARIOS[scenario] for scenario in scenarios])
    headed(figure, name)
    count = Counter(pair.comparison.verdict for pair in found)
    handles: list[Artist] = [
        Line2D([], [], color=colour, marker=MARKERS[verdict], linewidth=1.6, label=f"{verdict} ({count[verdict]})")
        for verdict, colour in COLOURS.items()
        if count[verdict]
    ]
    handles += [
        Patch(color="#E4E4E4", label="within ±δ"),
        Line2D([], [], color="#999999", linewidth=5, solid_capstyle="butt", label="published mean ± its sd"),
    ]
    said = [f"{study.settings.confidence:.0%} intervals of the difference.", study.settings.note or ""]
    title = "\n".join(textwrap.fill(text, WIDE) for text in said if text)
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), title=title, title_fontsize=9)
    return figure


def panel(axes: Axes, found: list[Pair], names: list[str]) -> None:
    """Draw one scenario: for each pair ours minus published, its interval, and the width that counts as agreement."""
    for pair in found:
        y, (centre, low, high, _), verdict = names.index(pair.called), *pair.comparison[:2]
        axes.barh(y, 2 * pair.delta, 0.8, left=-pair.delta, color="#E4E4E4", zorder=1)
        spread = pair.row["spread"] if pair.row["spread_kind"].startswith("std") else 0.0
        axes.plot([-spread, spread], [y, y], color="#999999", linewidth=5, solid_capstyle="butt", zorder=2)
        whiskers = [[np.nan_to_num(centre - low)], [np.nan_to_num(high - centre)]]
        axes.errorbar(
            centre, y, xerr=whiskers, fmt=MARKERS[verdict], color=COLOURS[verdict], markersize=6, elinewidth=1.6,
            capsize=2.5, zorder=3,
        )  # fmt: skip
        axes.annotate(
            f"{pair.ours.mean:.1f} | {pair.row['value']:.1f}", (1.01, y), xycoords=axes.get_yaxis_transform(),
            va="center", fontsize=8, color="#333333",
        )  # fmt: skip
    axes.annotate(
        "ours | theirs, %", (1.01, -0.62), xycoords=axes.get_yaxis_transform(), va="bottom", fontsize=8, color="#333333"
    )
    reach = [np.nanmax([abs(v) for v in (*p.comparison.interval[:3], p.delta)]) for p in found]
    axes.set_xlim(-FAR * max(reach), FAR * max(reach))
    axes.axvline(0, color="#555555", linewidth=0.8, zorder=2)
    axes.tick_params(axis="y", length=0)
