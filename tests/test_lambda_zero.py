"""lambda = 0 is a run like any other: finetuning's accuracies, a row of every table, a point of every figure."""

import json
from pathlib import Path

import cli
import made_results
import numpy as np
import pandas as pd
import pytest

from cl_repro.analysis.data.arms import grid_of
from cl_repro.analysis.data.study import CURVES, open_study
from cl_repro.analysis.lambdas.curves import draw
from cl_repro.analysis.lambdas.tables import shapes, tables_of

pytest.importorskip("plotly", reason="plotly is not installed: pip install 'cl_repro[report]'")
from cl_repro.report import curves


def with_zero(root: Path, lams: tuple[float, ...]) -> None:
    """A study of made-up curves whose runs with lambda = 0 are those of finetuning."""
    rows = made_results.fisher_rows(fishers=("exact", "sample"))
    free = [row["accuracy"] for row in rows if row["method"] == "finetune"]
    for name in ("exact", "sample"):
        rows += [
            made_results.row(f"ewc-{name}", "ewc", name, 0.0, seed, accuracy)
            for seed, accuracy in zip(made_results.SEEDS, free, strict=True)
        ]
    made_results.write(root / "zero", [row for row in rows if row["lambda"] is None or row["lambda"] in lams])


def test_a_study_with_lambda_zero_is_finetuning_in_every_row_and_on_the_page(tmp_path, monkeypatch, capfd):
    sizes = ["seeds=[1,2]", "iterations=3", "batch_size=8", "model.hidden=[6]", "workers=1"]
    arms = "arms=[{method: finetune}, {method: ewc, lam: 0}]"
    assert cli.run(monkeypatch, tmp_path, "name=zero", *sizes, arms) == 0
    rows = pd.read_csv(tmp_path / "results/zero/runs.csv")
    free, none = (rows[rows["method"] == method]["accuracy"].tolist() for method in ("ewc", "finetune"))
    assert free == none and len(free) == 2
    assert "EXACT" in capfd.readouterr().out
    assert any(line.startswith("| EXACT | 0 |") for line in (tmp_path / "results/tables/zero.md").open())
    assert cli.script(monkeypatch, "table.py") == cli.script(monkeypatch, "report.py") == 0


def test_it_is_told_in_a_listing(tmp_path):
    made_results.write(tmp_path / "runs", [made_results.row("ewc-exact", "ewc", "exact", 0.0, 1, 0.9, study="runs")])
    (table,) = tables_of(open_study("runs", tmp_path))
    assert [row[4:] for row in table.rows] == [("0", "90.00 (1)")]


@pytest.mark.parametrize("lams", [(0.0, 1e0), (0.0, 1e1, 1e2, 1e3), (0.0, *made_results.LAMS)], ids=len)
def test_it_is_in_every_table_and_at_the_left_edge_of_the_figure(lams, tmp_path):
    with_zero(tmp_path, lams)
    study = open_study("zero", tmp_path)
    assert study.kind == CURVES
    grid = grid_of(study.runs, study.folder)
    assert grid.lams.tolist() == list(lams)
    axes = draw(grid, "made up").axes[0]
    figure = {line.get_label(): line for line in axes.get_lines()}
    free = study.runs[study.runs["method"] == "finetune"]["accuracy"]
    for name in ("EXACT", "SAMPLE"):
        x, y = figure[name].get_data()
        assert x.tolist() == list(lams)
        assert y[0] == pytest.approx(100 * free.mean())
    places = axes.transData.transform([(lam, 90.0) for lam in lams])[:, 0]
    left, right = axes.transAxes.transform([(0, 0), (1, 0)])[:, 0]
    assert left < places[0] and places[-1] < right
    assert (np.diff(places) > 0.03 * (right - left)).all()  # and apart from the next
    labels = axes.xaxis.get_major_formatter().format_ticks(axes.xaxis.get_majorticklocs())
    assert labels[0] in ("0", "$\\mathdefault{0}$") and len(labels) == len(lams)


def test_rises_and_widths_are_those_without_it(tmp_path):
    with_zero(tmp_path / "with", (0.0, *made_results.LAMS))
    with_zero(tmp_path / "without", tuple(made_results.LAMS))
    found = []
    for name in ("with", "without"):
        study = open_study("zero", tmp_path / name)
        found.append([(one.rise, one.width, one.edges) for one in shapes(study, grid_of(study.runs, study.folder))])
    assert found[0] == found[1] and np.isfinite([rise.centre for rise, *_ in found[0]]).all()


def test_the_chart_of_the_page_has_it_as_a_line_and_in_its_table(tmp_path):
    with_zero(tmp_path, (0.0, *made_results.LAMS))
    (made,) = curves.charts(open_study("zero", tmp_path))
    payload = json.loads(made.payload)
    line = next(t for t in payload["traces"] if "<b>EXACT, λ = 0</b>" in t.get("hovertemplate", ""))
    none = next(t for t in payload["traces"] if "<b>None</b>" in t.get("hovertemplate", ""))
    assert set(line["y"]) == set(none["y"]) and len(set(line["y"])) == 1
    assert min(value for axis in payload["axes"] for x in axis["x"] for value in x or [] if value is not None) > 0
    assert made.table.rows[0][0] == "0"
