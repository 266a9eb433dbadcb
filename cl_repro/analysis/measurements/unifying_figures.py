"""The figures of Benzing (2022), from stored files: 1, 2, H.1, J.1, L.1, L.2 and L.3."""

from collections.abc import Callable, Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from cl_repro.analysis.data.looks import METHODS
from cl_repro.analysis.measurements import unifying_panels as panels
from cl_repro.analysis.measurements.unifying import PUBLISHED, Figures, seeds, source
from cl_repro.analysis.measurements.unifying_panels import GREY, SI, SIB, SIU, Series
from cl_repro.analysis.measurements.unifying_seeds import SHOWN, by_seed
from cl_repro.analysis.output.figures import Drawing, headed, lettered

WIDTH = 11.0  # inches; on a page of 7, text is 5.5 to 7 points
MASX, AF, ROOT = (METHODS[name].colour for name in ("masx", "af", "sqrt_fisher"))
MAS_FAMILY = (
    Series("mas", "masx", MASX, "D"),
    Series("mas", "af", AF, "s", (0, (4, 1.5))),
    Series("mas", "sqrt_fisher", ROOT, "o"),
)
OF_LOGITS = (
    Series("mas_logits", "masx_logits", MASX, "D"),
    Series("mas_logits", "af", AF, "s", (0, (4, 1.5))),
    Series("mas_logits", "sqrt_fisher", ROOT, "o"),
)
SCATTER = "task 1"  # of scatter plots
SUMMED = "loss: its decrease"
OWN_RANGES = "axes of x differ, as the sizes of the measures do"
DROPPED = {0.0: "none", 0.01: "1%", 0.05: "5%"}


def drawings(*group: Figures) -> list[Drawing]:
    """Every figure that the folders of one scale allow, in the order of their panels: unifying_<figure><suffix>."""
    made = {f"unifying_{figure}{group[0].suffix}": draw for figure, draw in figures_of(group).items()}
    return [Drawing(name, f"{name}: {scale(group)}", source(group), draw) for name, draw in made.items()]


def figures_of(group: Sequence[Figures]) -> dict[str, Callable[[], Figure]]:
    """What draws every figure, by its name in the paper."""
    if all(one.on_the_way for one in group):
        return {f"steps_{one.data}": partial(figure_steps, one) for one in group}
    noisy = [one for one in group if len(one.noise)]
    return {
        "fig1": partial(figure_1, group),
        "fig2": partial(figure_2, group),
        "figH1": partial(figure_h1, group),
        **({"figJ1": partial(figure_j1, noisy)} if noisy else {}),
        "figL1": partial(figure_l1, group),
        **{name_of_sums(one)[0]: partial(figure_sums, one) for one in group},
    }


def name_of_sums(found: Figures) -> tuple[str, str]:
    """Name and title: of L.2 and L.3 as in the paper; others are named by their benchmark."""
    known = {"permuted_mnist": ("figL2", "figure L.2"), "cifar10_100": ("figL3", "figure L.3")}
    return known.get(found.data, (f"sums_{found.data}", "as figure L.2"))


def scale(group: Sequence[Figures]) -> str:
    """Scale and seeds, for titles."""
    return f"{group[0].scale}; {seeds(group)}" + ("" if group[0].on_the_way else ", error bars ± 1 SEM")


def new(height: float, title: str, *notes: str, width: float = WIDTH) -> Figure:
    """An empty figure, so many inches high, with its title and notes below it."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.09))
    headed(figure, f"Benzing (2022), {title}", "; ".join(notes))
    return figure


def scattered(group: Sequence[Figures]) -> list[str]:
    """What scatter plots show, for a note; nothing if there are none."""
    n = sorted({len(one.scatter.of["sos"]) for one in group if one.scatter})
    return [f"scatter: {' and '.join(f'{k:,}' for k in n)} weights of one seed, r of all weights"] if n else []


def alike(panels: Sequence[Axes]) -> None:
    """Panels that are read beside each other have one range of y, that of all."""
    limits = [axes.get_ylim() for axes in panels]
    for axes in panels:
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def grid(figure: Figure, rows: int, columns: int) -> Callable[..., Axes]:
    """(row, column, how many columns wide) -> axes."""
    spec = figure.add_gridspec(rows, columns)
    return lambda i, j, wide=1: figure.add_subplot(spec[i, j : j + wide])


def figure_1(group: Sequence[Figures]) -> Figure:
    """Sums of the first task, SI, SIB and SIU beside SOS by task, and three scatters."""
    first, columns = group[0], max(3, 1 + len(group))
    notes = [scale(group), SUMMED, *scattered(group[:1]), OWN_RANGES]
    figure = new(6.9, "figure 1: summed contributions; SI beside SOS", *notes)
    at = grid(figure, 2, columns)
    axes = at(0, 0)
    panels.sums(axes, first, 1)
    axes.set_ylabel("Summed contributions")
    by_task = [at(0, j, columns - j if j == len(group) else 1) for j in range(1, len(group) + 1)]
    for correlated, one in zip(by_task, group, strict=True):
        correlations_with_sos(correlated, one, "")
    alike(by_task)
    names = [f"{first.benchmark}, task 1, one seed", *(one.benchmark for one in group)]
    lettered(figure.axes + (below := scatters(at, first, "_raw")), names + [SCATTER] * len(below))
    panels.legend_within(by_task)
    panels.name_sums(axes)
    return figure


def scatters(at: Callable[..., Axes], found: Figures, kind: str) -> list[Axes]:
    """SI, SIB and SIU beside SOS, in the lower row."""
    if found.scatter is None:
        return []
    measures = (("si", SI), ("sib", SIB), ("siu", SIU))
    made = [panels.scatter(at(1, j), found, f"{x}{kind}", "sos", colour) for j, (x, colour) in enumerate(measures)]
    alike(made)
    return made


def correlations_with_sos(axes: Axes, found: Figures, kind: str) -> None:
    """SI, SIB, SIU and the controls beside SOS."""
    panels.correlation(axes, found, panels.paths(kind))
    if not kind:
        panels.without_maximum(axes, found)
    panels.from_zero_to_one(axes)


def figure_2(group: Sequence[Figures]) -> Figure:
    """MAS and its relatives by task, and two scatters, a row for each benchmark."""
    title = "figure 2: MAS beside MASX, AF and the root of the Fisher"
    figure = new(0.9 + 2.9 * len(group), title, scale(group), *scattered(group))
    at = grid(figure, len(group), 3)
    by_task, names = [], []
    for i, one in enumerate(reversed(group)):  # CIFAR above, as published
        axes = at(i, 0)
        panels.correlation(axes, one, MAS_FAMILY)
        panels.near_one(axes)
        by_task.append(axes)
        names.append(one.benchmark)
        if one.scatter:
            for j, (y, colour) in enumerate((("af", AF), ("sqrt_fisher", ROOT)), start=1):
                panels.scatter(at(i, j), one, "mas", y, colour)
                names.append(SCATTER)
    alike(by_task)
    lettered(figure.axes, names)
    panels.legend_within(by_task)
    return figure


def figure_h1(group: Sequence[Figures]) -> Figure:
    """MAS of logits by task, and the same importance on more examples."""
    figure = new(3.9, "figure H.1: MAS of logits, and more examples", scale(group))
    at = grid(figure, 1, len(group) + 1)
    for j, one in enumerate(reversed(group)):
        axes = at(0, j)
        panels.correlation(axes, one, OF_LOGITS)
        panels.from_zero_to_one(axes)
    axes = at(0, len(group))
    for i, one in enumerate(group):
        if one.networks["many"].isna().all():
            continue
        few, many = one.networks["examples"].max(), one.networks["many"].max()
        name = one.benchmark.removeprefix("Split ").removeprefix("Permuted ")
        marker, dashes = "os^"[i % 3], ("-", (0, (1.5, 1)), (0, (4, 1.5)))[i % 3]
        pairs = [Series("af", "af_many", AF, marker, dashes, note=f", {name} ({few:,.0f}/{many:,.0f})")]
        if i == 0:
            pairs.append(Series("si", "af_many", SI, "D", (0, (4, 1.5)), note=f", {name} ({many:,.0f})"))
        panels.correlation(axes, one, pairs)
    panels.from_zero_to_one(axes)
    axes.set_xlim(0.5, max(task for one in group for task in one.tasks) + 0.5)
    alike(figure.axes)
    lettered(figure.axes, [*(one.benchmark for one in reversed(group)), "AF of more examples"])
    panels.legend_within(figure.axes[:-1])
    panels.legend_within(figure.axes[-1:])
    return figure


def figure_j1(those: Sequence[Figures]) -> Figure:
    """Noise of a mini-batch beside the full gradient, a row for each of these benchmarks, which have it."""
    title = "figure J.1: noise of a mini-batch's gradient beside the full gradient"
    figure = new(0.9 + 3.3 * len(those), title, f"{those[0].scale}; one seed")
    at = grid(figure, len(those), 2)
    for i, one in enumerate(those):
        panels.norms(at(i, 0), one)
        panels.exceedance(at(i, 1), one)
    lettered(figure.axes, [name for one in those for name in (f"{one.benchmark}, task 1", "how often it is above x")])
    panels.legend_within(figure.axes[:1])
    return figure


def figure_l1(group: Sequence[Figures]) -> Figure:
    """As figure 1 before rescaling, what is left of r without the largest weights, and scatters after rescaling."""
    columns = max(3, len(group) + 1)
    notes = [scale(group), *scattered(group[:1]), OWN_RANGES]
    figure = new(6.9, "figure L.1: SI beside SOS, before rescaling", *notes)
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
    above = [*by_task, axes]
    alike(above)
    names = [*(one.benchmark for one in group), f"{group[-1].benchmark}, task 1"]
    lettered([*above, *(below := scatters(at, group[0], "_unclipped"))], names + [SCATTER] * len(below))
    panels.legend_within(above)
    return figure


def figure_sums(found: Figures) -> Figure:
    """Summed contributions and decrease of the loss, a panel for each task."""
    tasks = found.tasks
    columns = 5 if len(tasks) % 5 == 0 else min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    title = f"{name_of_sums(found)[1]}: summed contributions in every task, {found.benchmark}"
    ranges = "from task 2 on one range of y, task 1 its own" if len(tasks) > 2 else ""
    note = "; ".join(filter(None, [found.scale, "one seed", SUMMED, ranges]))
    figure = new(1.0 + (2.0 if columns == 5 else 2.3) * rows, title, note)
    at = grid(figure, rows, columns)
    for i, task in enumerate(tasks):
        axes = at(i // columns, i % columns)
        panels.sums(axes, found, task)
        if i + columns < len(tasks):
            axes.set_xlabel("")
        if i % columns == 0:
            axes.set_ylabel("Summed contributions")
    alike(figure.axes[1:])
    lettered(figure.axes, [f"task {task}" for task in tasks])
    panels.name_sums(figure.axes[0])
    return figure


def figure_steps(found: Figures) -> Figure:
    """Sums of SI and SIU along the first steps, a line a seed, and SIU against the loss after the first step."""
    si, siu, loss = (by_seed(found, column) for column in ("si", "siu", "loss"))
    last = siu.columns[-1]
    figure = new(3.6, f"figure 1 left, the first {last} steps of Permuted MNIST", scale([found]), width=8.2)
    left, right = figure.subplots(1, 2)
    for name, sums, colour in (("SI", si, SI), ("SIU", siu, SIU)):
        for i, (_, row) in enumerate(sums.iterrows()):
            shown = "_" if i else f"{name}, a seed"
            left.plot(sums.columns, row, color=colour, linewidth=0.9, alpha=0.6, label=shown)
        for y in found.theirs(f"sum({name.lower()}) at {SHOWN}").values():
            shown = f"{name}, {PUBLISHED}"
            left.plot(SHOWN, y, "D", color=colour, markeredgecolor="black", label=shown, zorder=4)
    left.set_xlabel("Step")
    left.set_ylabel("Summed contributions")
    left.legend(loc="lower right", fontsize=8.5)
    right.plot(loss[1], siu[last], "o", color=SIU, markeredgewidth=0)
    right.plot(loss[0], siu[last], "o", color=GREY, markerfacecolor="none")
    right.set_xlabel("Loss of the next mini-batch")
    right.set_ylabel(f"SIU after {last} steps")
    lettered([left, right], ["one line a seed", "before (rings), after a step (dots)"])
    return figure
