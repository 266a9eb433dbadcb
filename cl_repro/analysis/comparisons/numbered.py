"""Accuracy against a number that the labels of arms say: stored examples, epochs, or how long a window is.

Two claims of surveys in numbers: do gains diminish beyond 20 stored examples a class, and do 10 to 20 beat EWC? Do
importances beat plain L2, and does that take longer training?
"""

import re
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from cl_repro.analysis.comparisons.comparison import FINETUNE, JOINT, NAMES, Entry, scenarios_of
from cl_repro.analysis.data.looks import LOOKS, METHODS, Look
from cl_repro.analysis.data.settings import Settings
from cl_repro.analysis.data.study import SCENARIOS
from cl_repro.analysis.lambdas.accuracy import estimate_text, interval_text, lambda_text
from cl_repro.analysis.lambdas.curve_names import named_beside
from cl_repro.analysis.output.figures import headed, lettered
from cl_repro.analysis.output.markup import MINUS, Table
from cl_repro.common.stats import estimate

SIZES = re.compile(r"\[(?P<policy>.*?)_?(?P<n>\d+)_a_class\]$")
EPOCHS = re.compile(r"\[(?P<n>\d+)_epochs\]$")
WINDOWS = re.compile(r"\[window_(?P<n>\d+)\]$")
MEMORIES = {  # policy of a memory, empty: the study's own
    "": ("replay, end-of-task memory", METHODS["replay"]),
    "insert_all": ("replay, everything inserted", Look("#A6761D", "s", "-")),
}
BESIDE_SIZES = {
    JOINT: (LOOKS["joint"].colour, "joint"),
    "ewc": (LOOKS["exact"].colour, "EWC, exact Fisher"),
    FINETUNE: (LOOKS["finetune"].colour, "None"),
}
BESIDE_WINDOWS = {
    JOINT: LOOKS["joint"].colour,
    "replay": METHODS["replay"].colour,
    FINETUNE: LOOKS["finetune"].colour,
}
BASE = "l2"  # what importances are compared with, after as many epochs
IMPORTANCES = {
    BASE: METHODS["l2"],
    "ewc_offline": LOOKS["predicted"],
    "si": METHODS["si"],
    "mas_batched": METHODS["mas_batched"],
}
BESIDE = 0.08  # octaves between points of one number of epochs
BANDS = "Mean over seeds, bars and bands ± 1 SEM"


def numbered(found: list[Entry], label: re.Pattern[str]) -> bool:
    """Whether there are arms with such a label."""
    return any(label.search(entry.arm.label) for entry in found)


def curves_of(found: list[Entry], scenario: str, label: re.Pattern[str]) -> dict[str, dict[int, Entry]]:
    """Of one scenario: policy of the memory if the label says it, else method -> number, ascending -> entry."""
    curves: dict[str, dict[int, Entry]] = {}
    for entry in found:
        if entry.scenario == scenario and (match := label.search(entry.arm.label)):
            curves.setdefault(match.groupdict().get("policy", entry.arm.method), {})[int(match["n"])] = entry
    return {name: dict(sorted(of.items())) for name, of in curves.items()}


def sizes_table(settings: Settings, found: list[Entry]) -> Table:
    """What each step in examples a class gains, and each size against EWC, paired by seed."""
    body = []
    for scenario in SCENARIOS:
        ewc = [entry for entry in found if (entry.scenario, entry.arm.method) == (scenario, "ewc")]
        for policy, curve in curves_of(found, scenario, SIZES).items():
            before: Entry | None = None
            for n, entry in curve.items():
                other = next((one for one in ewc if one.arm.compares(entry.arm)), None)
                gaps = [interval_text(entry.minus(one, settings.confidence)) if one else "" for one in (before, other)]
                body.append((f"{SCENARIOS[scenario]}, {MEMORIES[policy][0]}", str(n), *gaps))
                before = entry
    header = ("Scenario and memory", "examples a class", "gain over the row above", f"replay {MINUS} EWC")
    title = "Do gains diminish beyond 20 examples a class, and do 10 to 20 beat EWC?"
    note = (
        "Points of test accuracy; brackets: "
        f"{settings.confidence:.0%} t-intervals paired by seed. EWC: exact Fisher, best of five λ on held-out rows."
    )
    return Table("claims", title, header, tuple(body), (note,))


def epochs_table(settings: Settings, found: list[Entry]) -> Table:
    """Every method minus L2, after as many epochs."""
    pairs = [
        (scenario, epochs, method, entry, base)
        for scenario in scenarios_of(found)
        for curves in [curves_of(found, scenario, EPOCHS)]
        for method in IMPORTANCES
        for epochs, entry in curves.get(method, {}).items()
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
        for scenario, epochs, method, entry, base in sorted(pairs, key=lambda pair: pair[:2])
    ]
    header = ("Scenario", "epochs a task", "method", "method, %", "L2, %", f"method {MINUS} L2 [interval]")
    note = (
        f"Points of test accuracy; intervals paired by seed at the level 1 {MINUS} {1 - settings.confidence:.2g} / "
        f"{len(pairs)}, so that all hold together with {settings.confidence:.0%}."
    )
    title = "Do importances beat plain L2, and does that take longer training?"
    return Table("claims", title, header, tuple(body), (note,))


def draw_sizes(found: list[Entry], title: str) -> Figure:
    """A panel a scenario: accuracy against examples a class, and methods without examples as bands."""
    scenarios = scenarios_of(found)
    figure = Figure(figsize=(1.6 + 3.5 * len(scenarios), 4.4), layout="constrained")  # inches
    panels = figure.subplots(1, len(scenarios), squeeze=False)[0]
    for axes, scenario in zip(panels, scenarios, strict=True):
        for method, (colour, name) in BESIDE_SIZES.items():
            for entry in (e for e in found if (e.scenario, e.arm.method) == (scenario, method)):
                flat(axes, entry, colour, name)
        for policy, of in curves_of(found, scenario, SIZES).items():
            name, look = MEMORIES[policy]
            curve(axes, of, marker=look.marker, color=look.colour, markersize=5.5, label=name)
            ticked(axes, of)
        axes.set_xlabel("stored examples of each class")
    panels[0].set_ylabel("test accuracy (%)")
    return told(figure, [SCENARIOS[scenario] for scenario in scenarios], title, BANDS)


def draw_epochs(found: list[Entry], title: str, chosen_on: Collection[int] = ()) -> Figure:
    """A panel a scenario: accuracy against epochs, a line a method; points of one length stand side by side.

    `chosen_on`: the seeds that have chosen every lambda, if they are others.
    """
    scenarios = scenarios_of(found)
    figure = Figure(figsize=(2.2 + 4.2 * len(scenarios), 4.2), layout="constrained")  # inches
    panels = figure.subplots(1, len(scenarios), squeeze=False, sharey=True)[0]
    for axes, scenario in zip(panels, scenarios, strict=True):
        curves = curves_of(found, scenario, EPOCHS)
        methods = [one for one in IMPORTANCES if one in curves]
        for i, method in enumerate(methods):
            colour, marker, dashes, *_ = IMPORTANCES[method]
            look: Any = {"color": colour, "marker": marker, "linestyle": dashes, "markersize": 6, "capsize": 2.5}
            aside = 2 ** (BESIDE * (i - (len(methods) - 1) / 2))
            curve(axes, curves[method], aside, label=NAMES[method], **look)
            if edges := {n: entry for n, entry in curves[method].items() if entry.at_edge}:
                curve(axes, edges, aside, **look | {"linestyle": "", "markerfacecolor": "white"})
        ticked(axes, {n for of in curves.values() for n in of}, base=2)
        axes.set_xlabel("epochs a task (logarithmic)")
    panels[0].set_ylabel("test accuracy (%)")
    note = "Mean over seeds, bars ± 1 SEM"
    if chosen_on:
        note += f"; λ chosen on {len(chosen_on)} other seeds"
    if any(entry.at_edge for entry in found):
        note += "; white: an edge of its window"
    return told(figure, [SCENARIOS[scenario] for scenario in scenarios], title, note)


def draw_windows(found: list[Entry], title: str, per_task: int | None) -> Figure:
    """A column a scenario: accuracy against the length of a window above, processor time of evaluation below.

    Args:
        found: what was compared.
        title: of the figure.
        per_task: examples of a task that enter the window, where it is known.

    Returns:
        The figure.
    """
    scenarios = scenarios_of(found)
    figure = Figure(figsize=(1.4 + 4.2 * len(scenarios), 6.0), layout="constrained")  # inches
    above, below = figure.subplots(2, len(scenarios), squeeze=False, sharex=True, height_ratios=(2, 1))
    look: Any = {"marker": "o", "color": METHODS["context"].colour, "markersize": 5.5}
    for accuracy, cost, scenario in zip(above, below, scenarios, strict=True):
        for entry in (e for e in found if e.scenario == scenario and e.arm.method in BESIDE_WINDOWS):
            flat(accuracy, entry, BESIDE_WINDOWS[entry.arm.method], entry.name)
        windows = curves_of(found, scenario, WINDOWS)["context"]
        curve(accuracy, windows, label="attention over the window", **look)
        ticked(accuracy, windows)
        cost.plot([*windows], [estimate(entry.asking).mean for entry in windows.values()], linewidth=2, **look)
        cost.margins(y=0.15)
        cost.set_ylim(0)
        cost.set_xlabel("length of the window (examples)")
        whole = per_task or max(windows) + 1
        for length in range(whole, max(windows) + 1, whole):  # as long as whole tasks
            accuracy.axvline(length, color="#888888", linewidth=0.8, linestyle=":")
            accuracy.annotate(
                "1 task" if length == whole else str(length // whole), (length, 0.0), xytext=(-3, 3), ha="right",
                xycoords=accuracy.get_xaxis_transform(), textcoords="offset points", va="bottom", fontsize=8,
                color="#666666",
            )  # fmt: skip
    above[0].set_ylabel("test accuracy (%)")
    below[0].set_ylabel("evaluation, relative\nto finetune")
    names = [f"{what}, {SCENARIOS[scenario]}" for what in ("accuracy", "cost") for scenario in scenarios]
    return told(figure, names, title, BANDS)


def flat(axes: Axes, entry: Entry, colour: str, name: str) -> None:
    """A method without the number: its mean with a band of one SEM."""
    mean, sem, _ = estimate(entry.accuracy)
    axes.axhline(mean, color=colour, linestyle=(0, (4, 2)), linewidth=1.6, label=name)
    sem = np.nan_to_num(sem)
    axes.axhspan(mean - sem, mean + sem, color=colour, alpha=0.12, linewidth=0)


def curve(axes: Axes, of: dict[int, Entry], aside: float = 1.0, **look: Any) -> None:
    """Means with bars of one SEM, at the numbers times `aside`."""
    points = [estimate(entry.accuracy) for entry in of.values()]
    axes.errorbar(
        [aside * n for n in of], [p.mean for p in points], np.nan_to_num([p.sem for p in points]), linewidth=2, **look
    )


def ticked(axes: Axes, numbers: Iterable[int], base: int = 10) -> None:
    """A logarithmic axis of x with these numbers on it."""
    axes.set_xscale("log", base=base)
    axes.set_xticks(sorted(numbers))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())


def told(figure: Figure, names: list[str], title: str, note: str) -> Figure:
    """The figure with its title, with names above its panels, and beside their curves."""
    lettered(figure.axes, names)
    headed(figure, title, note)
    for axes in figure.axes:
        if axes.get_autoscaley_on():
            axes.margins(y=0.14)  # for names
        named_beside(axes)
    return figure
