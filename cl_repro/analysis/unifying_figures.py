"""The figures of Benzing (2022), from stored files: 1, 2, H.1, J.1, L.1, L.2 and L.3."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from cl_repro.analysis import unifying_panels as panels
from cl_repro.analysis.curves import STYLE
from cl_repro.analysis.figures import save
from cl_repro.analysis.unifying import Figures, seeds, source
from cl_repro.analysis.unifying_panels import ABOVE, BLUE, BROWN, GREEN, LEFT, PURPLE, Series
from cl_repro.analysis.unifying_seeds import figure_steps

LEGEND: dict[str, Any] = {"loc": "best", "fontsize": 8.5, "labelspacing": 0.35, "handlelength": 2.6}
WIDTH = 11.0  # inches; on a page of 7, text is 5.5 to 7 points
MAS_FAMILY = (
    Series("mas", "masx", PURPLE, "D"),
    Series("mas", "af", GREEN, "s", (0, (4, 1.5))),
    Series("mas", "sqrt_fisher", BLUE, "o"),
)
OF_LOGITS = (
    Series("mas_logits", "masx_logits", PURPLE, "D"),
    Series("mas_logits", "af", GREEN, "s", (0, (4, 1.5))),
    Series("mas_logits", "sqrt_fisher", BLUE, "o"),
)
DROPPED = {0.0: "none", 0.01: "1%", 0.05: "5%"}


def plot_all(group: Sequence[Figures], out: Path) -> list[Path]:
    """Draw every figure that the folders of one scale allow.

    Args:
        group: folders of one scale, in the order of their panels.
        out: folder, made if missing.

    Returns:
        <out>/unifying_<figure><suffix>.png and .svg.
    """
    paths = []
    for name, draw in figures_of(group).items():
        stem = f"unifying_{name}{group[0].suffix}"
        style: Any = {**STYLE, "svg.hashsalt": stem}  # with a salt, the ids in the SVG repeat
        with mpl.rc_context(style):
            figure = draw()
            if figure is not None:
                paths += save(figure, f"{stem}: {scale(group)}", source(group), out / stem)
    return paths


def figures_of(group: Sequence[Figures]) -> dict[str, Callable[[], Figure | None]]:
    """What draws every figure, by its name in the paper; None where there is nothing to draw."""
    if all(one.on_the_way for one in group):
        return {f"steps_{one.networks['benchmark'].iloc[0]}": partial(figure_steps, one, scale([one])) for one in group}
    return {
        "fig1": lambda: figure_1(group), "fig2": lambda: figure_2(group), "figH1": lambda: figure_h1(group),
        "figJ1": lambda: figure_j1(group), "figL1": lambda: figure_l1(group),
        **{name: partial(figure_sums, one) for name, one in zip(names_of_sums(group), group, strict=True)},
    }  # fmt: skip


def names_of_sums(group: Sequence[Figures]) -> list[str]:
    """L.2 and L.3 in the paper; others are named by their benchmark."""
    known = {"permuted_mnist": "figL2", "cifar10_100": "figL3"}
    return [known.get(name, f"sums_{name}") for name in (f.networks["benchmark"].iloc[0] for f in group)]


def scale(group: Sequence[Figures]) -> str:
    """Scale and seeds, for titles."""
    return f"{group[0].scale}; {seeds(group)}" + ("" if group[0].on_the_way else ", error bars ± 1 SEM")


def new(height: float, title: str, *notes: str) -> Figure:
    """An empty figure, so many inches high, with its title and notes below it."""
    figure = Figure(figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.09))
    figure.suptitle("\n".join([f"Benzing (2022), {title}", *notes]), x=0.012, ha="left", fontsize=10.5)
    return figure


def scattered(group: Sequence[Figures]) -> list[str]:
    """What scatter plots show, for a note; nothing if there are none."""
    n = sorted({len(one.scatter.of["sos"]) for one in group if one.scatter})
    return [f"scatter: {' and '.join(f'{k:,}' for k in n)} weights of one seed, r of all weights"] if n else []


def grid(figure: Figure, rows: int, columns: int) -> Callable[..., Axes]:
    """(row, column, how many columns wide) -> axes."""
    spec = figure.add_gridspec(rows, columns)
    return lambda i, j, wide=1: figure.add_subplot(spec[i, j : j + wide])


def figure_1(group: Sequence[Figures]) -> Figure:
    """Sums of the first task, SI, SIB and SIU beside SOS by task, and three scatters."""
    first, columns = group[0], max(3, 1 + len(group))
    figure = new(6.9, "figure 1: summed contributions; SI beside SOS", scale(group), *scattered(group[:1]))
    at = grid(figure, 2, columns)
    axes = at(0, 0)
    panels.sums(axes, first, 1)
    axes.set_ylabel("Summed contributions")
    axes.set_title(f"{first.benchmark}, task 1, one seed", **LEFT)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.3 * (high - low))  # the legend stands above the data
    legend_inside(axes, loc="upper left", ncols=2, fontsize=8, columnspacing=1, borderaxespad=0)
    by_task = [at(0, j, columns - j if j == len(group) else 1) for j in range(1, len(group) + 1)]
    for axes, one in zip(by_task, group, strict=True):
        correlations_with_sos(axes, one, "")
    legend_above(figure, by_task, 2)
    scatters(at, first, "_raw")
    return figure


def scatters(at: Callable[..., Axes], found: Figures, kind: str) -> None:
    """SI, SIB and SIU beside SOS, in the lower row."""
    if found.scatter is None:
        return
    for j, (x, colour) in enumerate((("si", BLUE), ("sib", GREEN), ("siu", BROWN))):
        panels.scatter(at(1, j), found, f"{x}{kind}", "sos", colour, "" if j else f"{found.benchmark}, task 1")


def correlations_with_sos(axes: Axes, found: Figures, kind: str) -> None:
    """SI, SIB, SIU and the controls beside SOS."""
    panels.correlation(axes, found, panels.paths(kind))
    if not kind:
        panels.without_maximum(axes, found)
    panels.from_zero_to_one(axes)
    axes.set_title(found.benchmark, **LEFT)


def entries(axes: Sequence[Axes]) -> dict[str, Any]:
    """Each name of a legend once, with its mark; what is not a series of its own comes last."""
    marks = {name: line for one in axes for line, name in zip(*one.get_legend_handles_labels(), strict=True)}
    return marks | {name: marks.pop(name) for name in panels.LAST if name in marks}


def legend_inside(axes: Axes, **look: Any) -> None:
    """The legend of one panel, where it hides the least unless `look` says where."""
    marks = entries([axes])
    axes.legend(marks.values(), marks.keys(), **LEGEND | look)


def legend_above(figure: Figure, axes: Sequence[Axes], columns: int) -> None:
    """One legend for several panels, beside the title."""
    marks = entries(axes)
    figure.legend(marks.values(), marks.keys(), **LEGEND | {"loc": "outside upper right", "ncols": columns})


def figure_2(group: Sequence[Figures]) -> Figure:
    """MAS and its relatives by task, and two scatters, a row for each benchmark."""
    title = "figure 2: MAS beside MASX, AF and the root of the Fisher"
    figure = new(0.9 + 2.9 * len(group), title, scale(group), *scattered(group))
    at = grid(figure, len(group), 3)
    by_task = []
    for i, one in enumerate(reversed(group)):  # CIFAR above, as published
        axes = at(i, 0)
        panels.correlation(axes, one, MAS_FAMILY)
        panels.near_one(axes)
        axes.set_title(one.benchmark, **LEFT, **ABOVE)
        by_task.append(axes)
        if one.scatter:
            for j, (y, colour) in enumerate((("af", GREEN), ("sqrt_fisher", BLUE)), start=1):
                panels.scatter(at(i, j), one, "mas", y, colour, "Task 1")
    legend_above(figure, by_task, 2)
    return figure


def figure_h1(group: Sequence[Figures]) -> Figure:
    """MAS of logits by task, and the same importance on more examples."""
    figure = new(3.9, "figure H.1: MAS of logits, and more examples", scale(group))
    at = grid(figure, 1, len(group) + 1)
    for j, one in enumerate(reversed(group)):
        axes = at(0, j)
        panels.correlation(axes, one, OF_LOGITS)
        panels.from_zero_to_one(axes)
        axes.set_title(one.benchmark, **LEFT)
        legend_inside(axes)
    axes = at(0, len(group))
    for i, one in enumerate(group):
        if one.networks["many"].isna().all():
            continue
        few, many = one.networks["examples"].max(), one.networks["many"].max()
        name = one.benchmark.removeprefix("Split ").removeprefix("Permuted ")
        colour, marker = (BLUE, PURPLE, BROWN)[i % 3], "os^"[i % 3]
        pairs = [Series("af", "af_many", colour, marker, note=f", {name} ({few:,.0f}/{many:,.0f})")]
        if i == 0:
            pairs.append(Series("si", "af_many", GREEN, "D", (0, (4, 1.5)), note=f", {name} ({many:,.0f})"))
        panels.correlation(axes, one, pairs)
    panels.from_zero_to_one(axes)
    axes.set_xlim(0.5, max(task for one in group for task in one.tasks) + 0.5)
    axes.set_title("AF of more examples", **LEFT)
    legend_inside(axes)
    return figure


def figure_j1(group: Sequence[Figures]) -> Figure | None:
    """Noise of a mini-batch beside the full gradient, a row for each benchmark that has it."""
    those = [one for one in group if len(one.noise)]
    if not those:
        return None
    title = "figure J.1: noise of a mini-batch's gradient beside the full gradient"
    figure = new(0.9 + 3.3 * len(those), title, f"{those[0].scale}; one seed")
    at = grid(figure, len(those), 2)
    for i, one in enumerate(those):
        axes = at(i, 0)
        panels.norms(axes, one)
        axes.set_title(f"{one.benchmark}, task 1", **LEFT)
        panels.exceedance(at(i, 1), one)
    legend_above(figure, figure.axes[:1], 2)
    return figure


def figure_l1(group: Sequence[Figures]) -> Figure:
    """As figure 1 before rescaling, what is left of r without the largest weights, and scatters after rescaling."""
    columns = max(3, len(group) + 1)
    figure = new(6.9, "figure L.1: SI beside SOS, before rescaling", scale(group), *scattered(group[:1]))
    at = grid(figure, 2, columns)
    by_task = [at(0, j) for j in range(len(group))]
    for axes, one in zip(by_task, group, strict=True):
        correlations_with_sos(axes, one, "_raw")
    axes = at(0, len(group), columns - len(group))
    panels.without_the_largest(axes, group[-1], list(DROPPED))
    panels.from_zero_to_one(axes)
    axes.set_xticks(range(len(DROPPED)), list(DROPPED.values()))
    axes.set_xlim(-0.4, len(DROPPED) - 0.6)
    axes.set_xlabel("Weights of the largest values left out")
    axes.set_title(f"{group[-1].benchmark}, task 1", **LEFT)
    legend_above(figure, [*by_task, axes], 2)
    scatters(at, group[0], "_unclipped")
    return figure


def figure_sums(found: Figures) -> Figure:
    """Summed contributions and decrease of the loss, a panel for each task."""
    known = {"permuted_mnist": "figure L.2", "cifar10_100": "figure L.3"}
    which = known.get(found.networks["benchmark"].iloc[0], "as figure L.2")
    tasks = found.tasks
    columns = 5 if len(tasks) % 5 == 0 else 3
    rows = -(-len(tasks) // columns)
    title = f"{which}: summed contributions in every task, {found.benchmark}"
    figure = new(1.0 + (2.0 if columns == 5 else 2.3) * rows, title, f"{found.scale}; one seed")
    at = grid(figure, rows, columns)
    for i, task in enumerate(tasks):
        axes = at(i // columns, i % columns)
        panels.sums(axes, found, task)
        axes.set_title(f"Task {task}", **LEFT)
        if i + columns < len(tasks):
            axes.set_xlabel("")
        if i % columns == 0:
            axes.set_ylabel("Summed contributions")
    legend_above(figure, figure.axes[:1], 2)
    return figure
