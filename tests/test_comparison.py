"""Methods side by side: which lambda is chosen, what is put beside what, and the numbers of tables and figure."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_results import row, write, write_provenance
from scipy import stats

from cl_repro.analysis.comparisons import matrices
from cl_repro.analysis.comparisons.comparison import (
    bytes_text,
    compared,
    comparison_tables,
    scenarios_of,
    worth,
)
from cl_repro.analysis.comparisons.comparison_figure import draw
from cl_repro.analysis.comparisons.numbered import WINDOWS, draw_sizes, draw_windows, numbered, sizes_table
from cl_repro.analysis.data.study import open_study
from cl_repro.measurements.survival import left, survival

SEEDS, T = (1, 2, 3), 5
STUDY = {"study": "palliatives_split_mnist"}
# (scenario, method) -> {lambda: (test accuracy of seed 1, validation accuracy)}; seed s adds s / 100 to both
CURVES = {
    ("task", "si"): {1.0: (0.80, 0.90), 10.0: (0.85, 0.80), 100.0: (0.70, 0.70)},
    ("task", "replay"): {1.0: (0.90, 0.60), 10.0: (0.88, 0.90), 100.0: (0.80, 0.70)},
    ("domain", "si"): {1.0: (0.50, 0.50), 10.0: (0.60, 0.60), 100.0: (0.55, 0.55)},
    ("domain", "replay"): {1.0: (0.70, 0.70), 10.0: (0.80, 0.80), 100.0: (0.90, 0.90)},
}
KEPT = {"si": {"state": 4000}, "replay": {"state": 8, "examples": 79200}}  # half of it in the task scenario
SECONDS = {"finetune": 10.0, "joint": 30.0, "si": 14.0, "replay": 18.0}


def folder(root: Path) -> Path:
    rows, val, kept = [], {}, []
    for scenario in ("task", "domain"):
        for method, accuracy in (("finetune", 0.4), ("joint", 0.95)):
            for seed in SEEDS:
                own = {"scenario": scenario, "seconds_train": SECONDS[method] * seed, "seconds_fisher": np.nan}
                rows.append(made(f"{method}-{scenario}", method, None, seed, accuracy, **own))
    for (scenario, method), curve in CURVES.items():
        for lam, (test, held_out) in curve.items():
            for seed in SEEDS:
                own = {
                    "scenario": scenario,
                    "seconds_train": (SECONDS[method] - 1) * seed,
                    "seconds_fisher": 1.0 * seed,
                }
                rows.append(made(f"{method}-{scenario}", method, lam, seed, test + seed / 100, **own))
                val[rows[-1]["run_id"]] = held_out + seed / 100
                kept += [(rows[-1]["run_id"], kind, n) for kind, n in kept_in(scenario, method).items()]
    where = write(root / "palliatives_split_mnist", rows, val=val)
    learned = [(r["run_id"], "test", k, k, 0.9 + r["seed"] / 100) for r in rows for k in range(T - 1)]
    accuracy = pd.read_csv(where / "accuracy.csv")
    accuracy = accuracy[~((accuracy["split"] == "test") & (accuracy["task"] == T - 1))]
    last = [(r["run_id"], "test", T - 1, T - 1, 0.7) for r in rows]
    new = pd.DataFrame([*learned, *last], columns=accuracy.columns)
    pd.concat([accuracy, new]).to_csv(where / "accuracy.csv", index=False)
    pd.DataFrame(kept, columns=["run_id", "kind", "bytes"]).to_csv(where / "storage.csv", index=False)
    shared = [(r["run_id"], "overlap", 0.5 + r["seed"] / 10) for r in rows if r["method"] == "si"]
    pd.DataFrame(shared, columns=["run_id", "measure", "value"]).to_csv(where / "representation.csv", index=False)
    write_provenance(where)
    return where


def kept_in(scenario: str, method: str) -> dict[str, int]:
    return {kind: n // 2 if scenario == "task" else n for kind, n in KEPT.get(method, {}).items()}


def made(arm: str, method: str, lam: float | None, seed: int, accuracy: float, **own) -> dict:
    return row(arm, method, "", lam, seed, accuracy, **STUDY, **own)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    folder(root)
    return open_study("palliatives_split_mnist", root)


def test_validation_rows_choose_lambda_and_the_test_accuracy_there_is_reported(study):
    found = {(entry.scenario, entry.arm.method): entry for entry in compared(study)}
    chosen = {key: found[key].lam for key in CURVES}
    assert chosen == {("task", "si"): 1, ("task", "replay"): 10, ("domain", "si"): 10, ("domain", "replay"): 100}
    for key, entry in found.items():
        if key in CURVES:
            test, _ = CURVES[key][entry.lam]
            assert entry.accuracy == pytest.approx([100 * test + s for s in SEEDS])
            assert entry.at_edge == (entry.lam in (1, 100))
    assert list(dict.fromkeys(entry.scenario for entry in compared(study))) == ["task", "domain"]


def test_compute_is_a_ratio_to_finetune_of_the_same_seed_and_plasticity_a_mean_of_the_diagonal(study):
    for entry in compared(study):
        assert entry.compute == pytest.approx([SECONDS[entry.arm.method] / 10] * 3)
        assert entry.plasticity == pytest.approx([(4 * (90 + s) + 70) / 5 for s in SEEDS])
        assert entry.forgetting == pytest.approx([1.0] * 3)
        assert entry.storage == kept_in(entry.scenario, entry.arm.method)
        expected = [0.5 + s / 10 for s in SEEDS] if entry.arm.method == "si" else [np.nan] * 3
        assert entry.overlap == pytest.approx(expected, nan_ok=True)


def test_seconds_of_a_gpu_are_in_no_ratio(tmp_path):
    """A seed of each method ran on one, in a hundredth of the time of a processor."""
    seconds, rows = {"finetune": 10.0, "si": 15.0}, []
    for method, lam in (("finetune", None), ("si", 1.0)):
        for seed in SEEDS:
            gpu = {"device": "cuda", "seconds_train": seconds[method] / 100, "seconds_eval": 0.1}
            cpu = {"device": "cpu", "seconds_train": seconds[method], "seconds_eval": 2.0}
            own = {"scenario": "task", "seconds_fisher": np.nan, **(gpu if seed == 3 else cpu)}
            rows.append(made(method, method, lam, seed, 0.5) | own)
    write(tmp_path / "palliatives_split_mnist", rows)
    _, si = compared(open_study("palliatives_split_mnist", tmp_path))
    assert si.compute == pytest.approx([1.5, 1.5, np.nan], nan_ok=True)
    assert si.asking == pytest.approx([1.0, 1.0, np.nan], nan_ok=True)


def test_what_storing_is_worth_is_a_paired_interval_against_the_best_penalty(study):
    table = next(one for one in comparison_tables(study, compared(study)) if one.name == "worth")
    assert [cells[:2] for cells in table.rows] == [
        ("task-incremental", "replay \N{MINUS SIGN} SI"),
        ("domain-incremental", "replay \N{MINUS SIGN} SI"),
    ]
    gap = np.array([88.0 + s for s in SEEDS]) - np.array([80.0 + s for s in SEEDS])
    assert stats.sem(gap) == pytest.approx(0)
    assert table.rows[0][2].startswith("+8.00")
    assert table.rows[1][2].startswith("+30.00")


def test_storing_is_measured_by_the_best_penalty_and_the_best_of_all_without_examples(tmp_path):
    accuracies = {"l2": 0.5, "si": 0.6, "gpm": 0.7, "lwf": 0.65, "replay": 0.9}
    rows = [made(m, m, 1.0, seed, a + seed / 100, scenario="task") for m, a in accuracies.items() for seed in SEEDS]
    where, kinds = write(tmp_path / "palliatives_split_mnist", rows), {"lwf": "teacher", "replay": "examples"}
    kept = [(r["run_id"], kinds.get(r["method"], "state"), 8) for r in rows]
    pd.DataFrame(kept, columns=["run_id", "kind", "bytes"]).to_csv(where / "storage.csv", index=False)
    write_provenance(where)
    study = open_study("palliatives_split_mnist", tmp_path)
    found = {cells[1]: cells[2] for cells in worth(study, compared(study)).rows}
    assert {name.removeprefix("replay \N{MINUS SIGN} "): text[:6] for name, text in found.items()} == {
        "SI": "+30.00",
        "GPM": "+20.00",
    }


def test_the_overview_has_every_method_once(study):
    overview = comparison_tables(study, compared(study))[0]
    rows = {cells[0]: cells[1:] for cells in overview.rows}
    assert rows["SI"][-3:] == ("4 kB", "1.40×", "no")  # noqa: RUF001
    assert rows["replay"][-3:] == ("79.2 kB", "1.80×", "yes")  # noqa: RUF001
    assert rows["joint"][-1] == "all"
    assert rows["replay"][0].startswith("90.00")
    assert rows["replay"][1].startswith("92.00")
    assert len(rows) == len(overview.rows) == 4


def segments(axes):
    """Ends of the error bars of a panel, [2, 2] each."""
    return [segment for container in axes.containers for segment in container.lines[2][0].get_segments()]


def test_the_figure_puts_each_method_at_its_memory_compute_and_accuracy(study):
    found = compared(study)
    figure = draw(found, "title")
    *panels, memory, compute = figure.axes
    rows = {text.get_text(): y for y, text in enumerate(panels[0].get_yticklabels())}

    def at(axes):
        """Row -> x."""
        return {line.get_ydata()[0]: line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"}

    for axes, scenario in zip(panels, scenarios_of(found), strict=True):
        own = [entry for entry in found if entry.scenario == scenario]
        assert at(axes) == pytest.approx({rows[entry.name]: np.mean(entry.accuracy) for entry in own})
        bars = {round(segment[0, 1]): abs(segment[1, 0] - segment[0, 0]) for segment in segments(axes)}
        assert bars == pytest.approx({rows[entry.name]: 2 * stats.sem(entry.accuracy) for entry in own})
        (none,) = (line for line in axes.lines if list(line.get_ydata()) == [0, 1])
        assert none.get_xdata()[0] == pytest.approx(at(axes)[rows["finetune"]])
    of = {name: [entry for entry in found if entry.name == name] for name in rows}
    assert at(compute) == pytest.approx({rows[n]: np.mean([e.compute for e in own]) for n, own in of.items() if own})
    places = at(memory)
    assert set(places.values()) >= {4000, 79208}
    assert min(places.values()) == places[rows["finetune"]] < 4000  # nothing, at the left of the least that is kept


def test_methods_that_keep_nothing_have_a_figure(tmp_path):
    rows = [made(arm, "finetune", None, s, 0.5, scenario="task") for arm in ("finetune", "finetune-sgd") for s in SEEDS]
    write(tmp_path / "palliatives_split_mnist", rows)
    figure = draw(compared(open_study("palliatives_split_mnist", tmp_path)), "title")
    figure.draw_without_rendering()
    _, memory, _ = figure.axes
    assert [text.get_text() for text in memory.get_xticklabels()] == ["none"]


def test_methods_without_finetuning_beside_them_have_a_figure_without_times(tmp_path):
    rows = [made("sharpening", "sharpening", 1.0, s, 0.5, scenario="task") for s in SEEDS]
    write(tmp_path / "palliatives_split_mnist", rows)
    figure = draw(compared(open_study("palliatives_split_mnist", tmp_path)), "title")
    figure.draw_without_rendering()
    assert np.isnan(np.concatenate([np.asarray(line.get_xdata(), dtype=float) for line in figure.axes[-1].lines])).all()


def test_finetuning_without_a_name_of_its_own_is_the_measure_and_structure_is_a_family(tmp_path):
    """Another optimiser, another network, a projection, and features in a window."""
    arms = {  # arm: (method, model, seconds a seed)
        "finetune": ("finetune", "mlp", 10.0),
        "finetune-sgd": ("finetune", "mlp", 5.0),
        "finetune-progressive": ("finetune", "progressive", 40.0),
        "gpm": ("gpm", "mlp", 13.0),
        "context": ("context", "mlp", 10.0),
    }
    rows = [
        made(arm, method, None, seed, 0.5, scenario="task", model=model, seconds_train=s * seed, seconds_fisher=np.nan)
        | {"arm": arm, "seconds_eval": (3.0 if arm == "context" else 1.0) * seed}
        for arm, (method, model, s) in arms.items()
        for seed in SEEDS
    ]
    write_provenance(write(tmp_path / "palliatives_split_mnist", rows))
    study = open_study("palliatives_split_mnist", tmp_path)
    found = {entry.name: entry for entry in compared(study)}
    assert {name: entry.family for name, entry in found.items()} == {
        "finetune": "bound",
        "finetune [sgd]": "bound",
        "finetune [progressive]": "structure",
        "GPM": "structure",
        "context": "replay",
    }
    assert found["finetune [progressive]"].compute == pytest.approx([4.0] * 3)
    assert found["finetune [sgd]"].compute == pytest.approx([0.5] * 3)
    assert found["context"].asking == pytest.approx([3.0] * 3)
    overview = {cells[0]: cells[1:] for cells in comparison_tables(study, compared(study))[0].rows}
    assert overview["context"][-1] == "features"
    evaluation = {cells[0]: cells[-1] for cells in comparison_tables(study, compared(study))[1].rows}
    assert evaluation == dict.fromkeys(found, "1.00×") | {"context": "3.00×"}  # noqa: RUF001


# --- examples stored ------------------------------------------------------------------------------------------------

REPLAYED = {("", 1): 0.60, ("", 10): 0.80, ("", 100): 0.85, ("insert_all", 10): 0.50}


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    """Replay of 1, 10 and 100 examples a class beside EWC, class-incremental; seed s adds s / 100, replay s / 50."""
    root, rows = tmp_path_factory.mktemp("results"), []
    own = {"study": "replay_vs_ewc", "scenario": "class"}
    for seed in SEEDS:
        rows.append(row("finetune", "finetune", "", None, seed, 0.2 + seed / 100, **own))
        rows.append(row("ewc-exact", "ewc", "exact", 1.0, seed, 0.3 + seed / 100, **own))
        for (policy, n), accuracy in REPLAYED.items():
            label = "replay-" + "_".join([*([policy] if policy else []), f"{n}_a_class"])
            rows.append(row(label, "replay", "", 1.0, seed, accuracy + seed / 50, **own))
    write(root / "replay_vs_ewc", rows)
    return open_study("replay_vs_ewc", root)


def test_gains_are_over_the_size_before_and_differences_are_to_ewc_of_the_same_seed(sizes):
    table = sizes_table(sizes.settings, compared(sizes))
    found = {(("inserted" in cells[0]), int(cells[1])): cells[2:] for cells in table.rows}
    assert [key for key in found if not key[0]] == [(False, 1), (False, 10), (False, 100)]
    assert found[False, 1][0] == ""
    assert found[False, 10][0].startswith("+20.00")
    assert found[False, 100][0].startswith("+5.00")
    for (policy, n), accuracy in REPLAYED.items():
        gaps = np.array([100 * (accuracy + s / 50 - 0.3 - s / 100) for s in SEEDS])
        half = stats.t.ppf(0.975, 2) * stats.sem(gaps)
        text = found[bool(policy), n][1]
        assert text.startswith(f"+{gaps.mean():.2f}")
        assert f"{gaps.mean() + half:.2f}" in text


def test_the_figure_of_sizes_has_one_point_a_size_and_a_line_for_what_stores_nothing(sizes):
    figure = draw_sizes(compared(sizes), "title")
    (axes,) = figure.axes
    curves = {tuple(line.get_xdata()): line.get_ydata() for line in axes.lines if len(line.get_xdata()) == 3}
    assert np.allclose(curves[1, 10, 100], [64, 84, 89])
    flat = {round(line.get_ydata()[0], 6) for line in axes.lines if list(line.get_xdata()) == [0, 1]}
    assert flat == {22, 32}
    heights = [abs(end - start) for (_, start), (_, end) in segments(axes)]
    assert heights == pytest.approx([2 * 2 / 3**0.5] * 4)  # one standard error of three seeds, two points apart
    bands = [patch.get_extents().transformed(axes.transData.inverted()) for patch in axes.patches]
    assert [band.height for band in bands] == pytest.approx([2 * 1 / 3**0.5] * 2)


def test_the_figure_of_windows_has_accuracy_and_cost_against_length_and_marks_whole_tasks(tmp_path):
    """Windows of 10, 300 and 1200 of 600 examples a task; seed s adds s / 50."""
    windows = {10: (0.2, 1.0), 1200: (0.6, 5.0), 300: (0.5, 2.0)}  # accuracy, seconds of evaluation
    own = {"study": "context_window", "scenario": "class"}
    rows = [row("finetune", "finetune", "", None, s, 0.1, seconds_eval=0.5, **own) for s in SEEDS]
    for length, (accuracy, seconds) in windows.items():
        for s in SEEDS:
            label = f"context-window_{length}"
            rows.append(row(label, "context", "", 1e6, s, accuracy + s / 50, seconds_eval=seconds, **own))
    write(tmp_path / "context_window", rows)
    study = open_study("context_window", tmp_path)
    found = compared(study)
    assert numbered(found, WINDOWS)
    assert [table.name for table in comparison_tables(study, found)] == ["comparison", "class"]  # no penalty to compare
    above, below = draw_windows(found, "title", 600).axes
    [curve] = [line for line in above.lines if len(line.get_xdata()) == 3]
    assert list(curve.get_xdata()) == [10, 300, 1200]
    assert np.allclose(curve.get_ydata(), [24, 54, 64])
    assert np.allclose(below.lines[0].get_xydata(), [[10, 2], [300, 4], [1200, 10]])
    marks = [line.get_xdata()[0] for line in above.lines if list(line.get_ydata()) == [0, 1]]
    assert marks == [600, 1200]
    write(tmp_path / "context_window", rows[len(SEEDS) :])  # no finetuning, so no ratio to it
    above, below = draw_windows(compared(open_study("context_window", tmp_path)), "title", None).axes
    [curve] = [line for line in above.lines if len(line.get_xdata()) == 3]
    assert np.allclose(curve.get_ydata(), [24, 54, 64])
    assert np.isnan(below.lines[0].get_ydata()).all()


@pytest.mark.parametrize("size", [20, 200])
def test_memories_keep_what_their_laws_say(size):
    """Within five standard deviations of the mean of 40 memories, as if the items of one were independent."""
    n, runs = 3 * size, 40
    laws = {"insert_all": (1 - 1 / size) ** n, "reservoir": size / (size + n)}
    for policy, law in laws.items():
        kept = [survival(policy, size, n, seed)[1] for seed in range(runs)]
        assert all(one[0] == 1 and (np.diff(one) <= 0).all() and len(one) == n + 1 for one in kept)
        spread = np.sqrt(law * (1 - law) / (size * runs))
        assert abs(np.mean([one[-1] for one in kept]) - law) < 5 * spread
    assert left(size, n) == pytest.approx(laws["insert_all"], rel=1e-12)


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0"), (8, "8 B"), (999, "999 B"), (4000, "4 kB"), (5740000, "5.74 MB"), (10**9, "1 GB")]
)
def test_bytes_in_words(n, text):
    assert bytes_text(n) == text


def test_what_is_trained_once_at_the_end_has_neither_forgotten_nor_learned_before(tmp_path):
    rows = [made(method, method, None, seed, 0.9) for method in ("finetune", "joint") for seed in SEEDS]
    where = write(tmp_path / "palliatives_split_mnist", rows)
    (where / "configs").mkdir()
    config_id = next(r["config_id"] for r in rows if r["method"] == "joint")
    (where / "configs" / f"{config_id}.yaml").write_text(f"iterations: {{epochs: {[0] * (T - 1) + [4]}}}\n")
    lines = [(r["run_id"], "test", i, j, 0.5 + 0.1 * (i == j)) for r in rows for i in range(T) for j in range(i + 1)]
    columns = list(pd.read_csv(where / "accuracy.csv"))
    pd.DataFrame(lines, columns=columns).to_csv(where / "accuracy.csv", index=False)
    write_provenance(where)
    study = open_study("palliatives_split_mnist", tmp_path)
    finetune, joint = compared(study)
    assert np.isfinite([finetune.forgetting, finetune.plasticity]).all()
    assert np.isnan([joint.forgetting, joint.plasticity]).all() and joint.accuracy == pytest.approx([90.0] * 3)
    of_finetune, of_joint = (one.accuracy for one in matrices.matrices(study))
    assert np.isfinite(of_finetune[np.tril_indices(T)]).all()
    assert np.isnan(of_joint[:-1]).all() and of_joint[-1] == pytest.approx([50.0] * (T - 1) + [60.0])


def test_many_matrices_are_a_column_a_method_and_a_row_a_scenario():
    """The scenario that a method lacks stays empty; all have one scale of shades."""
    names = [f"m{i}" for i in range(13)]
    found = [
        matrices.Matrix(f"{name}\nλ = 1e0", group, np.tril(np.full((2, 2), 10.0 * i)) + 1, 0.0)
        for group in ("task-incremental", "class-incremental")
        for i, name in enumerate(names)
        if (name, group) != ("m3", "class-incremental")
    ]
    figure = matrices.draw(found, "title")
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    shown = {axes.get_title(loc="left"): axes for axes in panels if axes.get_title(loc="left")}
    assert list(shown) == names
    drawn = [axes for axes in panels if axes.collections]
    assert len(drawn) == len(found)
    assert {axes.collections[0].get_clim() for axes in drawn} == {(0.0, 100.0)}
    assert {axes.get_ylabel() for axes in panels} == {"task-\nincremental", "class-\nincremental", ""}
    width, height = figure.get_size_inches()
    assert height < width


def test_arms_of_one_method_are_told_apart_by_their_labels(tmp_path):
    """A batch size stands in a label alone: the overview must not lose one of two."""
    own = {16: 0.5, 128: 0.9}
    rows = [made("finetune-task", "finetune", None, seed, 0.4) for seed in SEEDS]
    rows += [
        made(f"ewc-{b}", "ewc", 1.0, seed, accuracy) | {"fisher": "batched", "arm": "ewc-batched"}
        for b, accuracy in own.items() for seed in SEEDS
    ]  # fmt: skip
    where = write(tmp_path / "palliatives_split_mnist", rows)
    (where / "configs").mkdir()
    for b, accuracy in own.items():
        config_id = next(r["config_id"] for r in rows if r["accuracy"] == accuracy)
        (where / "configs" / f"{config_id}.yaml").write_text(f"fisher: {{name: batched, batch_size: {b}}}\n")
    found = open_study("palliatives_split_mnist", tmp_path)
    overview = {cells[0]: cells[1] for cells in comparison_tables(found, compared(found))[0].rows}
    assert {name: cell[:5] for name, cell in overview.items() if name != "finetune"} == {
        "BATCHED (b=16)": "50.00", "BATCHED (b=128)": "90.00"
    }  # fmt: skip
