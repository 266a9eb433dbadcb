"""Methods side by side: which lambda is chosen, what is put beside what, and the numbers of tables and figure."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_results import row, write, write_provenance
from scipy import stats

from cl_repro.analysis.comparison import bytes_text, compared, comparison_tables
from cl_repro.analysis.comparison_figure import draw
from cl_repro.analysis.study import open_study

SEEDS, T = (1, 2, 3), 5
STUDY = {"study": "palliatives_split_mnist"}
# (scenario, method) -> {lambda: (test accuracy of seed 1, validation accuracy)}; seed s adds s / 100 to both
CURVES = {
    ("task", "si"): {1.0: (0.80, 0.90), 10.0: (0.85, 0.80), 100.0: (0.70, 0.70)},
    ("task", "replay"): {1.0: (0.90, 0.60), 10.0: (0.88, 0.90), 100.0: (0.80, 0.70)},
    ("domain", "si"): {1.0: (0.50, 0.50), 10.0: (0.60, 0.60), 100.0: (0.55, 0.55)},
    ("domain", "replay"): {1.0: (0.90, 0.90), 10.0: (0.80, 0.80), 100.0: (0.70, 0.70)},
}
KEPT = {"si": {"state": 4000}, "replay": {"state": 8, "examples": 79200}}
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
                kept += [(rows[-1]["run_id"], kind, n) for kind, n in KEPT[method].items()]
    where = write(root / "palliatives_split_mnist", rows, val=val)
    learned = [(r["run_id"], "test", k, k, 0.9 + r["seed"] / 100) for r in rows for k in range(T - 1)]
    accuracy = pd.read_csv(where / "accuracy.csv")
    accuracy = accuracy[~((accuracy["split"] == "test") & (accuracy["task"] == T - 1))]
    last = [(r["run_id"], "test", T - 1, T - 1, 0.7) for r in rows]
    new = pd.DataFrame([*learned, *last], columns=accuracy.columns)
    pd.concat([accuracy, new]).to_csv(where / "accuracy.csv", index=False)
    pd.DataFrame(kept, columns=["run_id", "kind", "bytes"]).to_csv(where / "storage.csv", index=False)
    write_provenance(where)
    return where


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
    assert chosen == {("task", "si"): 1, ("task", "replay"): 10, ("domain", "si"): 10, ("domain", "replay"): 1}
    for key, entry in found.items():
        if key in CURVES:
            test, _ = CURVES[key][entry.lam]
            assert entry.accuracy == pytest.approx([100 * test + s for s in SEEDS])
            assert entry.at_edge == (entry.lam == 1)
    assert list(dict.fromkeys(entry.scenario for entry in compared(study))) == ["task", "domain"]


def test_compute_is_a_ratio_to_finetune_of_the_same_seed_and_plasticity_a_mean_of_the_diagonal(study):
    for entry in compared(study):
        assert entry.compute == pytest.approx([SECONDS[entry.arm.method] / 10] * 3)
        assert entry.plasticity == pytest.approx([(4 * (90 + s) + 70) / 5 for s in SEEDS])
        assert entry.forgetting == pytest.approx([1.0] * 3)
        assert entry.storage == KEPT.get(entry.arm.method, {})


def test_what_storing_is_worth_is_a_paired_interval_against_the_best_penalty(study):
    worth = next(table for table in comparison_tables(study) if table.name == "worth")
    assert [cells[:2] for cells in worth.rows] == [
        ("task-incremental", "replay \N{MINUS SIGN} SI"),
        ("domain-incremental", "replay \N{MINUS SIGN} SI"),
    ]
    gap = np.array([88.0 + s for s in SEEDS]) - np.array([80.0 + s for s in SEEDS])
    assert stats.sem(gap) == pytest.approx(0)
    assert worth.rows[0][2].startswith("+8.00")
    assert worth.rows[1][2].startswith("+30.00")


def test_the_overview_has_every_method_once(study):
    overview = comparison_tables(study)[0]
    rows = {cells[0]: cells[1:] for cells in overview.rows}
    assert rows["SI"][-3:] == ("4 kB", "1.40×", "no")  # noqa: RUF001
    assert rows["replay"][-3:] == ("79.2 kB", "1.80×", "yes")  # noqa: RUF001
    assert rows["joint"][-1] == "all"
    assert rows["replay"][0].startswith("90.00")
    assert rows["replay"][1].startswith("92.00")
    assert len(rows) == len(overview.rows) == 4


def test_the_figure_puts_each_method_at_its_memory_compute_and_accuracy(study):
    found = compared(study)
    figure = draw(found, "title")
    (memory, compute), (_, below) = np.array(figure.axes).reshape(2, 2)
    at = {(line.get_xdata()[0], line.get_ydata()[0]) for line in compute.lines if len(line.get_xdata()) == 1}
    expected = {(np.mean(e.compute), np.mean(e.accuracy)) for e in found if e.scenario == "task"}
    assert np.allclose(sorted(at), sorted(expected))
    places = {line.get_xdata()[0] for line in memory.lines if len(line.get_xdata()) == 1}
    assert places >= {4000, 79208}
    assert min(places) < 4000  # nothing is drawn at the left of the least that is kept
    assert below.get_xlabel().startswith("processor time")


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0"), (8, "8 B"), (999, "999 B"), (4000, "4 kB"), (5740000, "5.74 MB"), (10**9, "1 GB")]
)
def test_bytes_in_words(n, text):
    assert bytes_text(n) == text
