"""Figures and tables of the unifying study: from invented numbers, written as `measure.py unifying` writes them."""

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import cli
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cl_repro.analysis.data.looks import METHODS
from cl_repro.analysis.kinds import opened
from cl_repro.analysis.measurements import unifying_figures as figures
from cl_repro.analysis.measurements import unifying_seeds as several
from cl_repro.analysis.measurements import unifying_tables as tables
from cl_repro.analysis.measurements.unifying import (
    BY_X,
    MAIN,
    NO_INIT,
    NO_PENALTY,
    Figures,
    by_scale,
    kind_of_runs,
    open_figures,
    seeds,
)
from cl_repro.analysis.measurements.unifying_panels import covered
from cl_repro.analysis.output.figures import Drawing
from cl_repro.analysis.output.markup import DASH, MINUS, Document, Table
from cl_repro.common.errors import Skipping, UserError
from cl_repro.common.stats import Interval
from cl_repro.measurements.unifying import measures
from cl_repro.measurements.unifying.folder import npz
from cl_repro.measurements.unifying.watch import SCATTER, Found
from cl_repro.records import Store, sha256
from cl_repro.records.measured import UNIFYING

MNIST, CIFAR = "permuted_mnist", "cifar10_100"
TASKS = {MNIST: 4, CIFAR: 3}
PAIRS = [(x, y, 0.0) for x, y in measures.PAIRS]
PAIRS += [(x, y, share) for x, y in measures.TRIMMED for share in measures.SHARES]
RULED = [(x, y, by) for x, y in measures.TRIMMED for by in ("size", "tails", "y")]
OFF = {1: 0.0, 2: 0.02, 3: 0.01}  # of a seed: their mean is 0.01, their SEM 0.01 / sqrt(3)
SEM = 0.01 / np.sqrt(3)
STEPS = range(0, 2001, 50)  # 41 rows a task: the decrease of the loss is smoothed over two of them
TURN = {1: 1500, 2: 1000, 3: 2000}  # of a seed: up to here SIU is above the decrease of the loss, then below
RATIOS = [3.0, 20.0, 1.0, 0.5, 5.0, 2.0, 10.0, 4.0]  # noise / full gradient


def mean_r(x: str, y: str, dropped: float = 0.0, task: int = 1, kind: str = MAIN) -> float:
    """Invented, no two alike: the mean of r over three seeds."""
    return -0.04 + 0.021 * PAIRS.index((x, y, dropped)) + 0.004 * task + {MAIN: 0, NO_INIT: 0.2, NO_PENALTY: 0.1}[kind]


def invented(benchmark: str, seed: int, kind: str, in_detail: bool) -> Found:
    """What a run would leave."""
    rows: dict[str, list] = {"correlations": [], "trimmed": [], "measures": [], "summed": [], "noise": []}
    for task in range(1, TASKS[benchmark] + 1):
        for x, y, dropped in PAIRS:
            r = mean_r(x, y, dropped, task, kind) - 0.01 + OFF[seed]
            rows["correlations"].append({"task": task, "x": x, "y": y, "dropped": dropped, "r": r})
        for i, (x, y, by) in enumerate(RULED):
            rows["trimmed"].append(
                {"task": task, "x": x, "y": y, "dropped": 0.05, "by": by, "r": 0.01 * i + task + OFF[seed]}
            )
        for i, name in enumerate(("si_raw", "sib_raw", "siu_raw", "sos", "mas")):
            extent = {"total": 1, "largest": 0.001 * (i + task) + OFF[seed], "negative": 0.1 * i + 0.001 + OFF[seed]}
            rows["measures"].append({"task": task, "measure": name, **extent})
        first = 2.5 + task + seed / 10  # another loss for each task and seed
        for i, t in enumerate(STEPS):
            drop = t / 1000 + 0.8 * (i % 2)  # of a noisy loss: smoothed, t / 1000 + 0.375
            above = 0.6 if t <= TURN[seed] else 0.2
            full = {"full": t / 1000 + 0.5 if in_detail and task == 1 else "", "full_every": 20 if in_detail else ""}
            sums = {"si": task * t / 100 * (1 + OFF[seed]), "siu": t / 1000 + above, "loss": first - drop, **full}
            rows["summed"].append({"task": task, "iteration": t, **sums})
    if in_detail and benchmark == MNIST:
        rows["noise"] = [{"iteration": 50 * i, "noise": 0.1 * x, "signal": 0.1} for i, x in enumerate(RATIOS)]
    rows["networks"] = [{"weights": 1234, "accuracy": 0.9 + OFF[seed], "status": "ok"}]
    points = np.random.default_rng(seed).normal(size=(len(SCATTER), 30)).astype(np.float32)
    return Found(rows, dict(zip(SCATTER, points, strict=True)) if in_detail else {})


def write(results: Path, benchmark: str, suffix: str, runs: list[tuple[float, bool, list[int]]]) -> None:
    """A folder of (lam, reinit, seeds); the first seed of the first run is the one in detail."""
    store = Store(results / f"unifying_figures_{benchmark}{suffix}", UNIFYING, ("run", "seed"))
    store.create()
    first = (runs[0][0], runs[0][1], runs[0][2][0])
    for lam, reinit, those in runs:
        run = f"c{lam:g}" + ("_reinit" if reinit else "")
        cfg = {"benchmark": {"name": benchmark}, "model": {"name": "mlp"}, "lam": lam, "reinit": reinit}
        call = {"command": "python scripts/measure.py unifying", "config_ids": [f"abcd_{run}"]}
        store.note_invocation(call, {}, {f"abcd_{run}": cfg | {"suffix": suffix}})
        stamp = {"seconds": "1", "dtype": "float32", "device": "cpu", "hardware": "made", "torch": "2", "dirty": False}
        stamp |= {"git_sha": "0123456789", "finished": "now", "schema_version": 1, "benchmark": benchmark}
        stamp |= {"config_id": "abcd", "model": "mlp", "lam": lam, "reinit": reinit, "examples": 100, "many": 500}
        for seed in those:
            kind = NO_PENALTY if lam == 0 else MAIN if reinit else NO_INIT
            found = invented(benchmark, seed, kind, (lam, reinit, seed) == first)
            known = {"run": run, "seed": seed, **stamp}
            rows = {
                name: [{column: (known | row).get(column) for column in columns} for row in found.rows[name[:-4]]]
                for name, columns in UNIFYING.items()
            }
            store.put(f"{run}_{seed}", rows)
            store.merge()
            if found.scatter:
                store.replace({"scatter.npz": npz(found.scatter, run, seed)})


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two twins: three seeds with a control of as many and one of one; two seeds without controls."""
    folder = tmp_path_factory.mktemp("results")
    write(folder, MNIST, "_cpu", [(0.2, True, [1, 2, 3]), (0, True, [1, 2, 3]), (0.5, False, [2])])
    write(folder, CIFAR, "_cpu", [(5.0, True, [2, 3]), (0, True, [2, 3])])
    return folder


@pytest.fixture
def copy(results: Path, tmp_path: Path) -> Path:
    """A copy of the results, to damage."""
    shutil.copytree(results, tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture(scope="module")
def mnist(results: Path) -> Figures:
    return open_figures(f"unifying_figures_{MNIST}_cpu", results)


@pytest.fixture(scope="module")
def cifar(results: Path) -> Figures:
    return open_figures(f"unifying_figures_{CIFAR}_cpu", results)


# --- tables ----------------------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    """With hyphens for dashes and minus signs."""
    return text.replace(DASH, "-").replace(MINUS, "-")


def rows(table: Table) -> list[tuple[str, list[str]]]:
    """(name, cells), the published values under `published: ` and the name of the row above."""
    found: list[tuple[str, list[str]]] = []
    for row in table.rows:
        name, *cells = map(plain, row)
        found.append((f"published: {found[-1][0]}" if name == "published" else name, cells))
    return found


def test_kinds_of_runs(mnist: Figures) -> None:
    assert mnist.networks.groupby("kind")["run"].unique().map(list).to_dict() == {
        MAIN: ["c0.2_reinit"], NO_PENALTY: ["c0_reinit"], NO_INIT: ["c0.5"],
    }  # fmt: skip
    alone = mnist.networks[mnist.networks["run"] == "c0.5"]
    assert kind_of_runs(alone) == {"c0.5": MAIN}  # of a folder that has no other
    twice = mnist.networks.replace({"run": {"c0_reinit": "c1_reinit"}}).replace({"lam": {0.0: 1.0}})
    assert kind_of_runs(twice) == {"c0.2_reinit": MAIN, "c1_reinit": "", "c0.5": NO_INIT}  # the first counts


def test_correlations_are_means_with_standard_errors_of_n_less_1(mnist: Figures, cifar: Figures) -> None:
    shown = dict(rows(tables.correlations_table(mnist)))
    for name, pair, kind in (
        ("SI - SOS", ("si", "sos", 0.0), MAIN),
        ("SIU rescaled, unclipped - SOS", ("siu_unclipped", "sos", 0.0), MAIN),
        ("SIB before rescaling - SOS (without 5%)", ("sib_raw", "sos", 0.05), MAIN),
        ("SIU - SOS, alpha = 1", ("siu", "sos_alpha1", 0.0), MAIN),
        ("MAS - √Fisher", ("mas", "sqrt_fisher", 0.0), MAIN),
        ("SI - AF (more examples)", ("si", "af_many", 0.0), MAIN),
        ("SI before rescaling - SOS (c = 0)", ("si_raw", "sos", 0.0), NO_PENALTY),
    ):
        means = [mean_r(*pair, task=task, kind=kind) for task in range(1, 5)]
        assert shown[name] == [f"{mean:.3f} ± 0.006" for mean in means], name
    assert shown["SI - SOS"][0].startswith("-0.036 ")  # below 0
    control = [mean_r("si", "sos", task=task, kind=NO_INIT) + 0.01 for task in range(1, 5)]  # of seed 2 alone
    assert shown["SI - SOS (no re-init, c = 0.5; 1 seed)"] == [f"{r:.3f}" for r in control]
    two = dict(rows(tables.correlations_table(cifar)))["SI - SOS"][0]  # of offsets 0.02 and 0.01
    assert two == f"{mean_r('si', 'sos') + 0.005:.3f} ± 0.005"
    assert "average test accuracy after the last task 91 ± 0.58%" in tables.correlations_table(mnist).notes[0]


def test_published_correlations_stand_below_ours(mnist: Figures, cifar: Figures) -> None:
    """As results/published/unifying_reference.csv has them: of all tasks, of one, of the control runs."""
    ours, theirs = dict(rows(tables.correlations_table(mnist))), dict(rows(tables.correlations_table(cifar)))
    published = {name.removeprefix("published: ") for name in ours if name.startswith("published")}
    assert published == {"SI - SOS", "SIB - SOS", "SIU - SOS", "MAS - √Fisher"}
    assert ours["published: SIU - SOS"] == ["0.705"] * 4
    assert ours["published: MAS - √Fisher"] == ["0.9"] * 4
    assert theirs["published: SI rescaled, unclipped - SOS"] == ["0.82", "0.44", "-"]
    assert theirs["published: SIU rescaled, unclipped - SOS"] == ["0.82", "0.36", "-"]
    assert theirs["published: SI rescaled, unclipped - SOS (c = 0)"] == ["-", "0.975", "-"]
    assert theirs["published: SIU before rescaling - SOS (without 5%)"] == ["0.5", "-", "-"]
    assert theirs["published: MAS - Fisher"] == ["0.945"] * 3
    assert "published: SI - SOS" not in theirs


def test_sums_at_the_end_of_tasks(mnist: Figures, cifar: Figures) -> None:
    """The loss falls by t / 1000 (t = 2000 is an even row, without noise); SI is 20 a task and 1% more, on average."""
    shown = rows(tables.sums_table(mnist))
    assert [name for name, _ in shown] == ["task 1", "published: task 1", "task 2", "task 3", "task 4"]
    of = dict(shown)
    siu = "2.333 ± 0.13"  # 2.2, 2.2 and 2.6: SEM sqrt(0.16 / 3 / 3)
    share = "25 ± 14"  # 25%, 50% and 0% of the steps: only if the loss is smoothed, and without the first row
    assert of["task 1"] == ["20.2 ± 0.12", siu, "2.5", "2 ± 0", "7.66", share]  # 20.2 / 2.333 - 1
    assert of["task 2"] == ["40.4 ± 0.23", siu, "-", "2 ± 0", "16.3", share]
    assert of["published: task 1"] == ["93.9", "12.6", "13", "2.296", "6.45", "-"]
    last = dict(rows(tables.sums_table(cifar)))["published: task 3"]
    assert last == ["10.6", "3.64", "-", "2.25", "1.91", "0"]


def test_the_drop_is_from_the_first_row_of_its_own_task_and_seed(mnist: Figures) -> None:
    for _, own in mnist.summed.groupby(["run", "seed", "task"]):
        assert own["drop"].to_numpy() == pytest.approx([t / 1000 + 0.8 * (i % 2) for i, t in enumerate(STEPS)])


def test_sums_on_the_way_are_of_the_first_seed(mnist: Figures, cifar: Figures) -> None:
    of = dict(rows(tables.way_table(mnist)))
    assert of["1000"] == ["10", "1.6", "1.5", "1"]
    assert of["published: 1000"] == ["34.7", "10.3", "10.8", "2.28"]
    assert of["2000"][:2] == ["20", "2.2"] and of["published: 100"] == ["12.41", "8.62", "8.85", "2.16"]
    assert [name for name, _ in rows(tables.way_table(cifar))] == ["100", "1000", "2000"]  # nothing published


def test_every_rule_stands_beside_the_published_value(cifar: Figures, copy: Path) -> None:
    """Offsets of the two seeds are 0.02 and 0.01, the SEM of their mean 0.005."""
    of = dict(rows(tables.rules_table(cifar)))
    signed = mean_r("siu_raw", "sos", 0.05) + 0.005
    assert of["SIU before rescaling, largest SIU"][1] == f"{signed:.3f} ± 0.005"
    for by, name in (("size", "largest |{}|"), ("tails", "both tails of {}"), ("y", "largest SOS")):
        r = 1 + 0.01 * RULED.index(("siu_raw", "sos", by)) + 0.015
        assert of["SIU before rescaling, " + name.format("SIU")] == ["-", f"{r:.3f} ± 0.005"]
    assert of["published: SIU before rescaling, largest SOS"] == ["-", "0.5"]
    folder = copy / cifar.name  # as written before there were rules
    (folder / "trimmed.csv").unlink()
    known = json.loads((folder / "provenance.json").read_text())
    del known["files"]["trimmed.csv"]
    (folder / "provenance.json").write_text(json.dumps(known))
    before = tables.rules_table(open_figures(cifar.name, copy))
    assert "over 30 of 1,234 weights of one seed" in before.notes[0]
    x, y = (cifar.scatter.of[name] for name in ("siu_raw", "sos"))
    kept = abs(x).argsort()[: 30 - 2]
    assert dict(rows(before))["SIU before rescaling, largest |SIU|"][1] == f"{np.corrcoef(x[kept], y[kept])[0, 1]:.3f}"


def test_weights_of_a_scatter_plot_are_left_out_as_all_are() -> None:
    made = np.random.default_rng(4).normal(size=(2, 1000)).astype(np.float32)
    names = {f"{path}_raw": torch.from_numpy(made[0]) for path in measures.PATHS} | {"sos": torch.from_numpy(made[1])}
    ours = tables.of_scatter(*made)
    for one in measures.trimmed(names):
        assert ours[one["by"]][tables.SHARES.index(one["dropped"])].mean == pytest.approx(one["r"])
    signed = [one for one in measures.correlations(names) if one["x"] == "siu_raw" and one["dropped"]]
    assert [r.mean for r in ours[BY_X]] == pytest.approx([one["r"] for one in signed])


def test_the_published_run_lies_in_intervals_of_the_mean_and_of_further_runs(mnist: Figures) -> None:
    """SIU ends at 2.2, 2.2, 2.6 and is 0.7 after 100 steps; SI at 20, 20.4, 20.2. t_2 = 4.303."""
    of = dict(rows(several.beside_table(mnist._replace(suffix="_first_task"))))
    sd = np.std([2.2, 2.2, 2.6], ddof=1)
    mean, further = 4.302653 * sd / np.sqrt(3), 4.302653 * sd * np.sqrt(4 / 3)
    centre = 7 / 3
    limits = [f"[{centre - half:.4g}, {centre + half:.4g}]" for half in (mean, further)]
    assert of["Sum of SIU"] == ["2.333 ± 0.23", *limits, "12.6", "neither"]
    assert of["Sum of SIB"][0] == f"{20.2 - centre:.4g} ± {np.std([17.8, 18.2, 17.6], ddof=1):.2g}"
    assert of["Sum of SIB"][3] == "81.3" and of["Growth of SIU after step 100"][3] == "3.98"
    assert of["Growth of SIU after step 100"][0] == f"{centre - 0.7:.4g} ± 0.23"
    assert of["Decrease of the loss"][0] == "2 ± 0"
    for path in ("si", "sib", "siu"):  # of the first task alone
        assert of[f"r({path.upper()}, SOS)"][0] == f"{mean_r(path, 'sos'):.4g} ± 0.01"
    assert not any(table.name == "beside" for table in tables.tables_of(mnist))  # a twin's sums are of another size


@pytest.mark.parametrize(("published", "inside"), [(0.98, True), (0.99, True), (0.979, False), (1.02, False)])
def test_what_rounds_to_a_published_number_counts(published: float, inside: bool) -> None:
    one = several.Quantity("r", np.ones(5), published, several.half(published))
    assert several.holds(Interval(1.0, 0.985, 1.01, 5), one) == inside
    assert [several.half(x) for x in (0.99, 0.705, 93.9)] == pytest.approx([0.005, 0.0005, 0.05])


def followed(mnist: Figures) -> Figures:
    """20 steps of four seeds, followed for their sums: SIU jumps by s + 5 in the first step, then grows by 0.1 each."""
    table = [
        {"seed": s, "task": 1, "iteration": t, "si": 2.0 * s + t, "siu": s + 5 + 0.1 * t if t else 0.0, "kind": MAIN,
         "loss": 2.3 + 0.01 * s if t == 0 else 2 * s + 1 if t == 1 else 0.5}
        for s in (1, 2, 3, 5) for t in range(21)
    ]  # fmt: skip
    empty = mnist.correlations.iloc[:0]
    return mnist._replace(summed=pd.DataFrame(table), correlations=empty, suffix="_first_steps")


def test_first_steps_of_several_seeds(mnist: Figures) -> None:
    steps, decides = tables.tables_of(followed(mnist))
    of = dict(rows(steps))
    sd = np.std([1, 2, 3, 5], ddof=1)
    assert of["10"] == [f"15.5 ± {2 * sd:.2g}", f"8.75 ± {sd:.2g}", "7 to 11", "0.5 ± 0"]
    assert of["published: 10"] == ["8.9", "7.83", "-", "-"] and of["published: 0"] == ["-", "-", "-", "2.297"]
    found = dict(rows(decides))
    half = 3.182446 * sd * np.sqrt(1.25)
    assert found["SIU after 10 steps: the interval that holds 95% of further runs"] == [
        f"[{8.75 - half:.4g}, {8.75 + half:.4g}]", "7.83",
    ]  # fmt: skip
    assert found["correlation over seeds of SIU after 3 steps and after 20"] == ["1.00", "-"]
    assert found["... of the loss after the first step and SIU after 20"] == ["1.00", "-"]
    assert found["growth of SIU from step 3 to 20"][0].startswith("1.7 ±")
    (figure,) = drawn([followed(mnist)])
    left, right = figure.axes
    assert line(left, "SIU, a seed")[-1].tolist() == [20, 8.0] and line(left, "SIU, published").tolist() == [[10, 7.83]]
    after_one = right.lines[0].get_xydata()
    assert after_one.tolist() == [[3, 8], [5, 9], [7, 10], [11, 12]]


def test_extents(cifar: Figures) -> None:
    of = dict(rows(tables.extents_table(cifar)))
    assert of["SOS: largest"] == [f"{0.001 * (3 + task) + 0.015:.2g} ± 0.005" for task in (1, 2, 3)]
    assert of["published: SOS: largest"] == ["0.022", "-", "-"]
    assert of["SIU before rescaling: share below 0"] == ["0.22 ± 0.005"] * 3
    assert of["published: SI before rescaling: share below 0"] == ["0", "0.23", "-"]


def test_quantiles_of_the_noise(mnist: Figures) -> None:
    """Sorted: 0.5, 1, 2, 3, 4, 5, 10, 20; between two of them in proportion."""
    of = {name: cell for name, (cell,) in rows(tables.noise_table(mnist))}
    assert [of[f"quantile {q}"] for q in ("0", "0.1", "0.25", "0.5", "0.75", "0.9", "1")] == [
        "0.5", "0.85", "1.75", "3.5", "6.25", "13", "20",
    ]  # fmt: skip
    assert of["iterations with a ratio of at least 1, %"] == "87.5"
    assert of["iterations with a ratio of at least 10, %"] == "25"


@pytest.mark.slow
def test_every_title_says_that_it_is_a_twin(mnist: Figures, cifar: Figures, tmp_path: Path) -> None:
    twin = "CPU twin, not the paper's scale"
    for found, n in ((mnist, 6), (cifar, 5)):
        md, tex = (path.read_text() for path in tables.document(found).write(tmp_path))
        titles = [line for line in md.splitlines() if line.startswith("#")]
        assert len(titles) == n + 1 and all(twin in title for title in titles)
        captions = [line for line in tex.splitlines() if r"\caption" in line]
        assert len(captions) == n and all(twin in line for line in captions)
    those = [title(figure) for figure in drawn([mnist, cifar])]
    assert len(those) == 7 and all(twin in text for text in those)
    paper = mnist._replace(suffix="")
    assert "\nthe paper's scale; 3 seeds, error bars ± 1 SEM" in title(figures.figure_2([paper]))
    assert not any("twin" in path.read_text() for path in tables.document(paper).write(tmp_path))


def test_how_many_diverged_is_said(mnist: Figures) -> None:
    assert seeds([mnist]) == "3 seeds"
    status = mnist.networks.assign(status=["ok", "diverged", *["ok"] * 5])
    assert seeds([mnist._replace(networks=status)]) == "3 seeds (1 run diverged)"


# --- figures ---------------------------------------------------------------------------------------------------------


def drawn(group: list[Figures]) -> list[Figure]:
    """All figures of a group."""
    return [draw() for draw in figures.figures_of(group).values()]


def title(figure: Figure) -> str:
    return f"{figure.get_suptitle()}\n{figure.get_supxlabel()}"


def panels(figure: Figure) -> dict[str, Axes]:
    """By what their titles on the left say; of several, the first."""
    return {axes.get_title(loc="left").partition("  ")[2]: axes for axes in reversed(figure.axes)}


def line(axes: Axes, label: str) -> np.ndarray:
    """(x, y) of the points of a line."""
    return next(one.get_xydata() for one in axes.lines if one.get_label() == label)


def bars(axes: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Markers (x, y), and the ends of the error bars (low, high)."""
    drawn_line, _, (stems,) = next(one for one in axes.containers if plain(one.get_label()) == label)
    return drawn_line.get_xydata(), np.array([segment[:, 1] for segment in stems.get_segments()])


def dashes(axes: Axes) -> set[tuple[float, float]]:
    """(x, y) of the marks of published values."""
    marks = [one for one in axes.lines if one.get_marker() == "_" and len(one.get_xdata()) == 1]
    return {(float(one.get_xdata()[0]), float(one.get_ydata()[0])) for one in marks}


@pytest.mark.slow
def test_error_bars_are_one_standard_error(mnist: Figures) -> None:
    axes = panels(figures.figure_1([mnist]))["Permuted MNIST"]
    for label, x, kind in (
        ("SI - SOS", "si", MAIN),
        ("SIU - SOS", "siu", MAIN),
        ("SI - SOS (c = 0)", "si", NO_PENALTY),
    ):
        points, ends = bars(axes, label)
        means = np.array([mean_r(x, "sos", task=task, kind=kind) for task in range(1, 5)])
        assert points[:, 0].round().tolist() == [1, 2, 3, 4]
        assert points[:, 1] == pytest.approx(means) and ends == pytest.approx(np.stack([means - SEM, means + SEM], 1))
    points, ends = bars(axes, "SI - SOS (no re-init, c = 0.5; 1 seed)")
    assert (ends == points[:, 1:]).all()  # of one seed, nothing is known
    low, high = axes.get_ylim()
    assert low < mean_r("si", "sos") - SEM and high > 1  # nothing is cut off


@pytest.mark.slow
def test_published_correlations_are_marked(mnist: Figures, cifar: Figures) -> None:
    shown = panels(figures.figure_1([mnist, cifar]))
    assert dashes(shown["Permuted MNIST"]) == {(t, r) for t in (1, 2, 3, 4) for r in (0.99, 0.98, 0.705)}
    unclipped = shown["Split CIFAR-10/100"]
    assert dashes(unclipped) == {(1, 0.82), (2, 0.44), (2, 0.45), (2, 0.36), (2, 0.975)}
    thin = line(unclipped, "unclipped, as published")
    assert (thin[:, 1] - 0.005).tolist() in [  # of two seeds
        pytest.approx([mean_r(f"{x}_unclipped", "sos", task=t) for t in (1, 2, 3)]) for x in ("si", "sib", "siu")
    ]
    left_out = panels(figures.figure_l1([mnist, cifar]))["Split CIFAR-10/100, task 1"]
    assert dashes(left_out) == {(2, 0.9), (2, 0.5)}
    points, _ = bars(left_out, "SIB - SOS")
    expected = [mean_r("sib_raw", "sos", share) + 0.005 for share in (0.0, 0.01, 0.05)]
    assert points[:, 1] == pytest.approx(expected) and points[:, 0].round().tolist() == [0, 1, 2]


@pytest.mark.slow
def test_sums_are_those_of_the_first_seed(mnist: Figures) -> None:
    axes = panels(figures.figure_1([mnist]))["Permuted MNIST, task 1, one seed"]
    t = np.array(STEPS)
    assert line(axes, "SI") == pytest.approx(np.stack([t, t / 100], 1))
    assert line(axes, "SIU")[-1] == pytest.approx([2000, 2.2])
    assert line(axes, "decrease of the loss")[1] == pytest.approx([50, 0.85])
    assert line(axes, "full gradient (one step in 20)") == pytest.approx(np.stack([t, t / 1000 + 0.5], 1))
    assert not dashes(axes)  # a twin's are not comparable
    paper = panels(figures.figure_1([mnist._replace(suffix="")]))["Permuted MNIST, task 1, one seed"]
    assert {(100, 12.41), (1000, 34.7), (2000, 93.9), (2000, 2.296)} <= dashes(paper)  # the last is of the end
    assert (2000, 53.2) not in dashes(paper)
    each = panels(figures.figure_sums(mnist))
    assert line(each["task 3"], "SI")[-1] == pytest.approx([2000, 60])
    assert "full gradient (one step in 20)" not in each["task 3"].get_legend_handles_labels()[1]


@pytest.mark.slow
def test_scatter_plots_are_of_the_stored_weights(mnist: Figures) -> None:
    assert mnist.scatter
    stored = mnist.scatter.of
    for figure, pairs in (
        (figures.figure_1([mnist]), [(f"{x}_raw", "sos") for x in ("si", "sib", "siu")]),
        (figures.figure_2([mnist]), [("mas", "af"), ("mas", "sqrt_fisher")]),
        (figures.figure_l1([mnist]), [(f"{x}_unclipped", "sos") for x in ("si", "sib", "siu")]),
    ):
        for axes, (x, y) in zip(figure.axes[-len(pairs) :], pairs, strict=True):
            (points,) = axes.lines
            assert (points.get_xydata() == np.stack([stored[x], stored[y]], 1)).all()
            assert axes.get_title(loc="right") == f"r = {mean_r(x, y) - 0.01:.2f}"  # of seed 1
    assert "scatter: 30 weights of one seed" in title(figures.figure_1([mnist]))


def test_the_fraction_of_iterations_above_a_ratio(mnist: Figures) -> None:
    figure = figures.figure_j1([mnist])
    assert figure
    norms, above = figure.axes
    (curve, _) = above.lines
    for x in (0.5, 0.7, 1.0, 3.0, 6.0, 20.0):  # the value of the drawn steps at x is that of the next point
        points = curve.get_xydata()
        assert points[points[:, 0] >= x][0, 1] == np.mean(np.array(RATIOS) >= x)
    assert curve.get_drawstyle() == "steps-pre"
    assert line(norms, "noise / full gradient")[:, 1] == pytest.approx(RATIOS)


def test_there_is_no_figure_of_noise_without_any(cifar: Figures) -> None:
    assert "figJ1" not in figures.figures_of([cifar])


def test_more_examples_of_both_benchmarks_have_room(mnist: Figures, cifar: Figures) -> None:
    axes = panels(figures.figure_h1([mnist, cifar]))["AF of more examples"]
    assert axes.get_xlim() == (0.5, 4.5)  # four tasks, and three
    points, _ = bars(axes, "AF - AF, CIFAR-10/100 (100/500)")
    assert points[:, 1] == pytest.approx([mean_r("af", "af_many", task=t) + 0.005 for t in (1, 2, 3)])
    assert len(bars(axes, "SI - AF, MNIST (500)")[0]) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "figure", [figures.figure_1, figures.figure_2, figures.figure_h1, figures.figure_l1], ids=lambda f: f.__name__
)
def test_legends_lie_on_nothing(figure: Any, mnist: Figures, cifar: Figures) -> None:
    made = figure([mnist, cifar])
    FigureCanvasAgg(made).draw()
    legends = [(axes, axes.get_legend()) for axes in made.axes if axes.get_legend()]
    assert legends and not made.legends  # in a panel, near the data
    for axes, legend in legends:
        box, frame = legend.get_window_extent(), axes.get_window_extent()
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1 + 1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        assert covered(axes, legend) == 0
        labels = [one.get_text() for one in legend.get_texts()]
        assert len(set(labels)) == len(labels) and "published" not in labels[:-1]


def test_panels_read_beside_each_other_have_letters_and_one_range(mnist: Figures, cifar: Figures) -> None:
    made = figures.figure_l1([mnist, cifar])
    letters = [axes.get_title(loc="left").partition("  ")[0] for axes in made.axes]
    assert letters == [rf"$\bf{{{letter}}}$" for letter in "abcdef"]
    assert len({axes.get_ylim() for axes in made.axes[:3]}) == 1 == len({axes.get_ylim() for axes in made.axes[3:]})
    each = figures.figure_sums(mnist).axes
    assert len({axes.get_ylim() for axes in each[1:]}) == 1 and each[0].get_ylim() != each[1].get_ylim()
    assert each[0].texts and not each[1].texts  # names beside the curves of the first


@pytest.mark.slow
def test_a_measure_has_one_colour_everywhere(mnist: Figures) -> None:
    made = figures.figure_1([mnist])
    sums, by_task, *scatters = made.axes
    (path,) = (one for one in sums.lines if one.get_label() == "SIU")
    (r,) = (one for one in by_task.containers if plain(one.get_label()) == "SIU - SOS")
    assert path.get_color() == r.lines[0].get_color() == scatters[2].lines[0].get_color() == METHODS["siu"].colour


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_figure_is_of_one_scale(mnist: Figures, cifar: Figures) -> None:
    paper = cifar._replace(folder=cifar.folder.with_name("paper"), suffix="")
    groups = [[one.name for one in group] for group in by_scale([cifar, paper, mnist])]
    assert groups == [[mnist.name, cifar.name], ["paper"]]
    with pytest.raises(UserError, match=f"^{cifar.name} and other are of one benchmark and scale: name those"):
        by_scale([cifar, cifar._replace(folder=cifar.folder.with_name("other"))])


@pytest.mark.slow
def test_drawing_again_gives_the_same_bytes(mnist: Figures, tmp_path: Path) -> None:
    """Of two: scatter plots, error bars, legends and mathematics."""
    some = [one for one in figures.drawings(mnist) if one.name in ("unifying_fig1_cpu", "unifying_figJ1_cpu")]
    first, again = ([path for one in some for path in one.write(tmp_path / folder)] for folder in ("a", "b"))
    assert len(first) == 4
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
    svg = (tmp_path / "a" / "unifying_fig1_cpu.svg").read_text()
    assert "CPU twin, not the paper&apos;s scale" in svg or "CPU twin, not the paper's scale" in svg
    assert "cl_repro 0123456" in svg


def damaged(folder: Path, how: str) -> None:
    """Harm a folder in one way."""
    file, what = how.split(": ")
    path = folder / file
    data = path.read_bytes()
    if what == "edited":
        path.write_bytes(data.replace(b"1,1,", b"1,2,", 1) if path.suffix == ".csv" else data[:-9] + b"x" + data[-8:])
    elif what == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif what == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:100])
        known = json.loads((folder / "provenance.json").read_text())
        known["files"][file] = sha256(data[:100])
        (folder / "provenance.json").write_text(json.dumps(known))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("correlations.csv: edited", "correlations.csv: edited since the run wrote it"),
        ("summed.csv: cut", "summed.csv: edited since .*: cut short"),
        ("measures.csv: missing", "no measures.csv in"),
        ("networks.csv: missing", "no networks.csv in"),
        ("provenance.json: cut", "provenance.json: unreadable or cut short"),
        ("scatter.npz: edited", "scatter.npz: edited since the run wrote it"),
        ("scatter.npz: missing", "scatter.npz"),
        ("scatter.npz: short", r"scatter.npz: not the weights of a scatter plot \(BadZipFile\)"),
        ("configs/abcd_c0.2_reinit.yaml: missing", "abcd_c0.2_reinit.yaml: missing or unreadable, .* of what scale"),
    ],
)
def test_damaged_folders_are_refused(how: str, message: str, copy: Path) -> None:
    name = f"unifying_figures_{MNIST}_cpu"
    damaged(copy / name, how)
    with pytest.raises(UserError, match=message) as caught:
        open_figures(name, copy)
    assert "\n" not in str(caught.value)


def test_those_of_one_scale_are_drawn_together_or_as_they_are_named(copy: Path, tmp_path: Path) -> None:
    def groups(*names: str) -> list[list[str]]:
        return [[one.benchmark for one in group.found] for group in opened(names, copy, Skipping())]

    assert groups() == [["Permuted MNIST", "Split CIFAR-10/100"]]
    assert groups(f"unifying_figures_{CIFAR}_cpu") == [["Split CIFAR-10/100"]]
    [both] = opened([], copy, Skipping())
    assert len(both.drawings()) == 7 and [one.name for one in both.documents()] == [one.name for one in both.found]
    with pytest.raises(UserError, match=r"no results at .*/other \(there: unifying_figures_"):
        groups("other")
    assert opened([], tmp_path / "empty", Skipping()) == []


def test_what_is_measured_is_drawn_with_those_that_share_its_figures(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for kind in (Drawing, Document):
        monkeypatch.setattr(kind, "write", lambda self, out: [out / self.name])
    shown = runpy.run_path(str(cli.ROOT / "scripts" / "measure.py"))["shown"]
    mine, other = (copy / f"unifying_figures_{name}_cpu" for name in (CIFAR, MNIST))
    figures, tables = copy / "figures", copy / "tables"
    sums = {figures / "unifying_figL2_cpu", figures / "unifying_figL3_cpu"}
    assert {*sums, tables / mine.name, tables / other.name} < {*shown(mine)}
    damaged(other, "summed.csv: cut")
    left = {*shown(mine)}
    assert left & sums == {figures / "unifying_figL3_cpu"} and tables / other.name not in left
    assert capfd.readouterr().err.startswith(f"skipped {other}: {other}/summed.csv: edited since")
