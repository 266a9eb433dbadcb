"""Figures, tables and the terminal's summary, from made-up results folders."""

import json
import math
import re
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import cli
import made_results
import matplotlib.image
import numpy as np
import pandas as pd
import processes
import pytest
from made_results import row
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from PIL import Image

import cl_repro
from cl_repro.analysis import report
from cl_repro.analysis.comparisons import dots, matrices
from cl_repro.analysis.data import settings
from cl_repro.analysis.data.arms import finished, grid_of, label, look, looks_of
from cl_repro.analysis.data.looks import LOOKS, METHODS, OTHERS
from cl_repro.analysis.data.read import read_accuracy, read_further, read_runs, read_table
from cl_repro.analysis.data.study import all_published, open_study, published_estimate
from cl_repro.analysis.kinds import folders, main_drawings
from cl_repro.analysis.lambdas.accuracy import interval_text, lambda_text
from cl_repro.analysis.lambdas.collapse import collapse
from cl_repro.analysis.lambdas.collapse import table as collapse_table
from cl_repro.analysis.lambdas.curve_names import bars, course, inked, luminance
from cl_repro.analysis.lambdas.curves import draw, drawings
from cl_repro.analysis.lambdas.tables import log_traces, shapes, summary_table, tables_of, trace_text
from cl_repro.analysis.lambdas.timing import timing_table
from cl_repro.analysis.output.figures import headed, styled
from cl_repro.analysis.output.markup import DASH, MINUS, TIMES, Table, latex, markdown, plain, told_once
from cl_repro.common.errors import UserError
from cl_repro.common.stats import Interval
from cl_repro.records.schema import PUBLISHED
from cl_repro.study import grid, study

ROOT = Path(cl_repro.__file__).resolve().parent.parent
MNIST, DIGITS = "split_mnist_fisher", "split_digits_fisher"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A results folder with one study of every kind."""
    root = tmp_path_factory.mktemp("results")
    made_results.write(root / MNIST, made_results.fisher_rows())
    digits = made_results.fisher_rows(study=DIGITS, benchmark="split_digits", fishers=("exact", "empirical"))
    made_results.write(root / DIGITS, digits)
    made_results.write(root / "split_mnist_timing", made_results.timing_rows())
    made_results.write(root / "runs", ad_hoc_rows())
    return root


@pytest.fixture(scope="module")
def reported(results):
    """What the report of a study prints; its figure and tables are beside the results."""
    return report(MNIST, results)


def ad_hoc_rows():
    own = {"study": "runs"}
    rows = [row("finetune", "finetune", "", None, seed, 0.9, **own) for seed in (1, 2)]
    rows += [row("ewc-exact", "ewc", "exact", 10.0, seed, 0.97 + 0.01 * seed, **own) for seed in (1, 2)]
    digits = {"benchmark": "split_digits", "config_id": "d" * 8}
    rows.append(row("ewc-exact", "ewc", "exact", 250.0, 1, 0.95, **own, **digits))
    rows.append(row("ewc-exact", "ewc", "exact", 250.0, 2, 0.35, **own, **digits) | {"status": "diverged"})
    return rows


def study_of(tmp_path, rows, name=MNIST, **keywords):
    made_results.write(tmp_path / name, rows, **keywords)
    return open_study(name, tmp_path)


def cells(table, first):
    """The row of a table whose first cell is `first`."""
    return next(row for row in table.rows if row[0] == first)


# --- reading ---------------------------------------------------------------------------------------------------------


def test_csvs_are_read_with_their_types(results):
    runs = read_runs(results / MNIST)
    assert len(runs) == 5 + 5 * 14 * 5
    assert runs["lambda"].isna().sum() == 5 and runs["seed"].dtype == np.int64 and runs["dirty"].dtype == bool
    assert len(read_accuracy(results / MNIST)) == 5 * len(runs)
    assert set(read_further(results / MNIST, "importance.csv")["after_task"]) == {0, 1, 2, 3}


def test_published_numbers_are_read():
    published = all_published(ROOT / "results")
    assert {"blog-draft", "blog-final"} <= set(published["source"])


def edit(path, old, new, count=1):
    path.write_bytes(path.read_text().replace(old, new, count).encode())


DAMAGE = {
    "one digit changed": (lambda f: edit(f / "runs.csv", ",30.0,", ",31.0,"), "runs.csv: edited since the run"),
    "a row removed": (lambda f: edit(f / "importance.csv", *first_row(f / "importance.csv")), "edited since the run"),
    "cut inside a row": (lambda f: cut(f / "runs.csv", 40), "runs.csv: edited since .*: cut short"),
    "cut inside the last value": (lambda f: cut(f / "importance.csv", 2), "importance.csv: edited since .*: cut short"),
    "a column removed": (lambda f: edit(f / "runs.csv", "accuracy,", "acc,"), "runs.csv: edited since the run"),
    "not a number": (lambda f: edit(f / "runs.csv", ",30.0,", ",fast,"), "runs.csv: edited since the run"),
    "not a seed": (lambda f: edit(f / "runs.csv", ",,1,128", ",,1.5,128"), "runs.csv: edited since the run"),
    "no file": (lambda f: (f / "runs.csv").unlink(), "no runs.csv in .*run the study first"),
    "empty file": (lambda f: (f / "runs.csv").write_text(""), "runs.csv: edited since the run"),
    "binary": (lambda f: (f / "runs.csv").write_bytes(b"\xff\xfe\x00"), "runs.csv: edited since the run"),
    "lines as on Windows": (
        lambda f: edit(f / "runs.csv", "\n", "\r\n", -1),
        r"runs.csv: its line endings .*autocrlf",
    ),
    "a spreadsheet's mark": (lambda f: edit(f / "runs.csv", "run_id", "\ufeffrun_id"), r"edited since .*: .*\(BOM\)"),
    "semicolons": (lambda f: edit(f / "runs.csv", ",", ";", -1), "edited since .*: its fields are separated by semico"),
    "tabs": (lambda f: edit(f / "runs.csv", ",", "\t", -1), "edited since .*: its fields are separated by tabs"),
    "provenance cut": (lambda f: cut(f / "provenance.json", 20), "provenance.json: unreadable or cut short"),
    "other schema": (lambda f: made_results.write_provenance(f, 7), "schema_version 7, .* reads schema_version 1"),
}


def cut(path, characters):
    path.write_text(path.read_text()[:-characters])


def first_row(path):
    return path.read_text().splitlines(keepends=True)[1], ""


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_named_in_one_line(tmp_path, damage):
    folder = made_results.write(tmp_path / MNIST, made_results.fisher_rows(seeds=(1, 2), fishers=("exact",)))
    harm, message = DAMAGE[damage]
    harm(folder)
    with pytest.raises(UserError, match=message) as caught:
        report(MNIST, tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
    assert not (tmp_path / "tables").exists() and not (tmp_path / "figures").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cut short"),
        (b"\xff\xfe\x00\n", "not a readable CSV"),
        ("\ufeffstudy,source\n", r"it begins with a byte order mark \(BOM\)"),
        ("study;source\n", "its fields are separated by semicolons"),
        ("study,source\na\n", "line 2 has 1 fields, not 2"),
        ("study,source\na,b", "cut short"),
        ("study,source\n", "column 'benchmark' is missing"),
        (
            f"{','.join(PUBLISHED)}\n{','.join('fast' if name == 'value' else '' for name in PUBLISHED)}\n",
            "line 2: value = 'fast' is not a number",
        ),
    ],
)
def test_damaged_files_without_a_checksum_are_named_in_one_line(tmp_path, content, message):
    (tmp_path / "published.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=f"published.csv: {message}") as caught:
        read_table(tmp_path / "published.csv", PUBLISHED)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"accuracy": 1.2}, r"accuracy = 1.2 must be a fraction in \[0, 1\]"),
        ({"status": "fine"}, "status = fine must be one of ok, diverged, failed"),
        ({"accuracy": math.nan, "status": "ok"}, "accuracy = nan must be present where status is ok"),
        ({"schema_version": 2}, "schema_version 2, .* reads schema_version 1"),
    ],
)
def test_impossible_values_are_named(tmp_path, other, message):
    rows = made_results.fisher_rows(seeds=(1, 2), fishers=("exact",))
    rows[3] |= other
    with pytest.raises(UserError, match=message):
        study_of(tmp_path, rows, provenance=False)


def test_a_row_that_occurs_twice_is_named(tmp_path):
    rows = made_results.fisher_rows(seeds=(1,), fishers=("exact",))
    with pytest.raises(UserError, match=r"run_id .* occurs twice"):
        study_of(tmp_path, [*rows, rows[0]])


def test_a_merge_killed_between_two_files_is_no_edit(tmp_path):
    rows = made_results.fisher_rows(seeds=(1, 2), fishers=("exact",))
    folder = made_results.write(tmp_path / MNIST, rows[:-1])
    before = json.loads((folder / "provenance.json").read_text())["files"]
    old = (folder / "runs.csv").read_bytes()
    made_results.write(folder, rows)
    made_results.write_provenance(folder, previous=before)
    (folder / "runs.csv").write_bytes(old)  # the other two files are new already
    assert len(read_runs(folder)) == len(rows) - 1


# --- the accuracy table ----------------------------------------------------------------------------------------------


def test_accuracy_rows_are_the_numbers_worked_out_by_hand(tmp_path):
    # Seeds 99.0 99.1 99.2 99.3 99.4: mean 99.20, sd 0.1581, SEM 0.0707. Against blog-final 99.12 +- 0.16 (30):
    # se 0.1749, nu = 32.94, t = 2.0346: +0.08 +- 0.356. Against blog-draft 99.25 +- 0.08 (10): se 0.1068,
    # nu = 11.99, t = 2.1789: -0.05 +- 0.233. None 85.4 +- 0.0707 against 85.41 +- 0.88 (30): +-1.80.
    rows = []
    for seed in range(1, 6):
        up = seed / 1000
        rows += [
            row("finetune", "finetune", "", None, seed, 0.851 + up),
            row("ewc-exact", "ewc", "exact", 1.0, seed, 0.90 + up),
            row("ewc-exact", "ewc", "exact", 1e3, seed, 0.989 + up),
            row("ewc-exact", "ewc", "exact", 1e4, seed, 0.98 + up),
        ]
    table = tables_of(study_of(tmp_path, rows))[0]
    assert table.header[:5] == ("Arm", "best λ", "ours, %", "van de Ven (2025), %", f"ours {MINUS} theirs [interval]")
    assert cells(table, "EXACT") == (
        "EXACT", "1e3", "99.20 ± 0.07 (5)",
        "99.12 ± 0.16 (30)", f"+0.08 [{MINUS}0.28, +0.44]", "agrees",
        "99.25 ± 0.08 (10)", f"{MINUS}0.05 [{MINUS}0.28, +0.18]", "agrees",
    )  # fmt: skip
    assert cells(table, "None")[:6] == (
        "None", DASH, "85.40 ± 0.07 (5)", "85.41 ± 0.88 (30)", f"{MINUS}0.01 [{MINUS}1.81, +1.79]", "agrees",
    )  # fmt: skip


def accuracy_of(tmp_path, accuracies, published=None, **other):
    """The verdict cells of EXACT at one lambda, None at 85 %."""
    rows = [row("finetune", "finetune", "", None, seed, 0.85, **other) for seed in range(1, len(accuracies) + 1)]
    for seed, accuracy in enumerate(accuracies, start=1):
        rows += [row("ewc-exact", "ewc", "exact", lam, seed, accuracy / 100, **other) for lam in (1.0, 10.0)]
    if published:
        (tmp_path / "published").mkdir()
        (tmp_path / "published" / "published.csv").write_text(published)
    return cells(tables_of(study_of(tmp_path, rows))[0], "EXACT")


def test_verdicts_reach_the_table(tmp_path):
    assert accuracy_of(tmp_path / "a", [97.0, 97.1, 97.2, 97.1, 97.0])[5] == "differs"
    noisy = accuracy_of(tmp_path / "b", [98.0, 99.5, 99.9, 98.2, 99.8])
    assert re.fullmatch(r"too few seeds \(n = \d+ decides at this difference\)", noisy[5])


def published(comparable="same", spread="0.1", kind="sem", n="10", delta="", times=1):
    header = (ROOT / "results" / "published" / "published.csv").read_text().splitlines()[0]
    line = (
        f"{MNIST},paper,split_mnist,task,ewc,exact,,128,accuracy,99.0,percent,{spread},{kind},{n},{delta},{comparable},"
    )
    return "\n".join([header, *[line] * times]) + "\n"


def test_another_protocol_is_shown_without_verdict(tmp_path):
    found = accuracy_of(tmp_path, [99.0, 99.1, 99.2], published(comparable="different"))
    assert found[3:] == ("99.00 ± 0.10 (10)", DASH, "other protocol")


def test_a_published_standard_deviation_becomes_a_sem(tmp_path):
    assert accuracy_of(tmp_path, [99.0, 99.1, 99.2], published(spread="0.9", kind="std", n="9"))[3] == (
        "99.00 ± 0.30 (9)"
    )


def test_of_a_standard_deviation_with_ddof_0_the_sem_divides_by_one_less(tmp_path):
    """The SEM that our own sd of ddof 1 has: sd_1 = sd_0 sqrt(n / (n - 1))."""
    found = accuracy_of(tmp_path, [99.0, 99.1, 99.2], published(spread="0.9", kind="std_ddof0", n="10"))
    assert found[3] == "99.00 ± 0.30 (10)"


def test_a_delta_of_the_row_comes_before_that_of_its_method(tmp_path):
    """Half a point off, sure to a few hundredths: no agreement within 0.3, but within 0.7; 0.5 are its method's."""
    for delta, verdict in (("0.3", "differs"), ("0.7", "agrees")):
        (tmp_path / delta).mkdir()
        found = accuracy_of(tmp_path / delta, [99.49, 99.5, 99.51], published(spread="0.01", delta=delta))
        assert found[5] == verdict


def test_a_published_mean_without_spread_gets_no_interval(tmp_path):
    found = accuracy_of(tmp_path, [99.0, 99.1, 99.2], published(spread="", kind="none", n=""))
    assert found[3:] == ("99.00", "+0.10", "too few seeds (not reachable)")


def test_a_smoke_run_gets_no_verdict(tmp_path):
    found = accuracy_of(tmp_path, [99.0, 99.1, 99.2], published(), scale="smoke")
    assert found[3:] == ("99.00 ± 0.10 (10)", DASH, "none at scale smoke")


def test_runs_of_the_paper_with_a_smoke_run_among_them_get_no_verdict(tmp_path):
    arms = (("finetune", "finetune", "", None), ("ewc-exact", "ewc", "exact", 1.0))
    scales = {1: "paper", 2: "paper", 3: "smoke"}
    rows = [row(*arm, seed, 0.99, scale=scale) for arm in arms for seed, scale in scales.items()]
    assert cells(tables_of(study_of(tmp_path, rows))[0], "EXACT")[4:6] == (DASH, "none at scale paper, smoke")


def test_published_rows_that_collide_are_named(tmp_path):
    with pytest.raises(UserError, match="2 rows of split_mnist_fisher fit paper, ewc, exact"):
        accuracy_of(tmp_path, [99.0, 99.1], published(times=2))


@pytest.mark.parametrize("sizes", [(256, 2048), (16, 128), (32, 256)])  # published; a twin's; with one that coincides
def test_published_variants_are_those_of_that_name_whatever_a_twins_batch_size(tmp_path, sizes):
    header, line = published(n="3").splitlines()
    theirs = (("exact,,256", "91"), ("exact,large,2048", "92"))
    lines = [line.replace("exact,,128", kind).replace("99.0", value) for kind, value in theirs]
    rows = []
    for size, arm in zip(sizes, ("ewc-exact", "ewc-large"), strict=True):
        rows += [row(arm, "ewc", "exact", 1.0, seed, 0.9, batch_size=size) for seed in (1, 2, 3)]
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "published.csv").write_text("\n".join([header, *lines]) + "\n")
    table = tables_of(study_of(tmp_path, rows))[0]
    assert table.header[1] == "λ" and "best" not in table.title  # one each: nothing was chosen
    shown = {cell[0]: cell[3] for cell in table.rows}
    assert shown == {"EXACT": "91.00 ± 0.10 (3)", "EXACT [large]": "92.00 ± 0.10 (3)"}


def test_a_note_names_the_deltas_of_the_arms_that_are_there(tmp_path):
    rows = [row("ewc-exact", "ewc", "exact", lam, 1, 0.9) for lam in (1.0, 10.0)]
    notes = " ".join(tables_of(study_of(tmp_path, rows))[0].notes)
    assert "(δ = 0.5 for ewc)" in notes


def test_a_study_that_nobody_published_says_so(results):
    table = tables_of(open_study(DIGITS, results))[0]
    assert table.header == ("Arm", "best λ", "ours, %")
    assert "There are no published numbers for this study." in table.notes


def test_diverged_runs_are_visible_and_never_the_best(tmp_path):
    rows = made_results.fisher_rows(seeds=(1, 2, 3), fishers=("exact", "empirical"))
    for r in rows:
        if r["fisher"] == "exact" and r["lambda"] == 1e4 and r["seed"] != 2:
            r |= {"accuracy": math.nan, "status": "diverged"}
        elif r["fisher"] == "exact" and r["lambda"] == 1e4:
            r["accuracy"] = 1.0  # what is left is the highest mean there
    study = study_of(tmp_path, rows)
    table = tables_of(study)[0]
    assert cells(table, "EXACT")[1] != "1e4" and cells(table, "EXACT")[2].endswith("(3)")
    assert "EXACT: seeds that diverged or failed, by λ: 1e4 (2)." in table.notes
    axes = draw(grid_of(study.runs, study.folder), "t").axes[0]
    crosses = [line for line in axes.get_lines() if line.get_marker() == "X" and len(line.get_xdata())]
    assert [tuple(line.get_xdata()) for line in crosses] == [(1e4,)] and crosses[0].get_ydata() == [100]


def test_a_seed_that_is_not_finished_changes_no_number(tmp_path):
    """A kill leaves a seed with its first lambdas: they alone would be complete, and the best of them best."""
    rows = made_results.fisher_rows(seeds=(1, 2, 3, 4), fishers=("exact",))
    begun = [r for r in rows if r["seed"] < 4 or (r["lambda"] or 0) <= 10]
    whole = tables_of(study_of(tmp_path / "a", [r for r in rows if r["seed"] < 4]))
    part = tables_of(study_of(tmp_path / "b", begun))
    assert cells(part[0], "EXACT") == cells(whole[0], "EXACT")
    assert {"EXACT: 12 of 56 runs are missing.", "EXACT: left out, because their seed or λ lacks others: 2 runs."} <= {
        *part[0].notes
    }
    added = tables_of(study_of(tmp_path / "c", [r for r in rows if r["seed"] == 1 or (r["lambda"] or 0) <= 1e8]))
    assert cells(added[0], "EXACT")[2].endswith("(4)")  # four seeds at nine lambdas, not one at fourteen
    assert "EXACT: 15 of 56 runs are missing." in added[0].notes


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (["1111", "1111", "1000"], ["1111", "1111", "0000"]),
        (["1111", "1100", "1100", "1100"], ["1100", "1100", "1100", "1100"]),
        (["0111", "1110"], ["0110", "0110"]),
        (["1100", "0000"], ["1100", "0000"]),
        (["0000"], ["0000"]),
    ],
)
def test_the_largest_part_in_which_every_seed_has_every_lambda(there, expected):
    as_bits = [np.array([[bit == "1" for bit in row] for row in rows]) for rows in (there, expected)]
    assert (finished(as_bits[0]) == as_bits[1]).all()


def test_unfinished_studies_say_what_is_missing(tmp_path):
    rows = made_results.fisher_rows(seeds=(1, 2, 3), fishers=("exact",))
    gone = [r for r in rows if r["seed"] == 3 and (r["lambda"] or 0) >= 1e11]
    table = tables_of(study_of(tmp_path, [r for r in rows if r not in gone]))[0]
    assert "EXACT: 3 of 42 runs are missing." in table.notes


# --- rises, gaps, pairs ----------------------------------------------------------------------------------------------


def test_rises_and_gaps_are_those_of_the_made_up_curves(results):
    study = open_study(MNIST, results)
    grid = grid_of(study.runs, study.folder)
    found = {shape.arm.fisher: shape for shape in shapes(study, grid)}
    for fisher, expected in made_results.RISES.items():
        assert found[fisher].rise.centre == pytest.approx(expected, abs=0.1)
        assert found[fisher].rise.low <= found[fisher].rise.centre <= found[fisher].rise.high
        assert not found[fisher].at_most
    # A decline of 0.35 points a decade, from four decades past the rise: one point at about seven decades.
    assert found["exact"].width.centre == pytest.approx(5.5, abs=0.7)
    assert found["batched"].edges[0] is False

    traces = log_traces(study, grid)
    gaps = dict(zip([a.fisher for a in grid.arms], traces, strict=True))
    np.testing.assert_allclose(gaps["exact"] - gaps["empirical"], 3, atol=1e-9)
    table = tables_of(study)[2]
    pairs = (("empirical", "exact"), ("batched", "empirical"), ("sample", "exact"), ("exact_500", "exact"))
    names = {fisher: arm.label for fisher, arm in zip([a.fisher for a in grid.arms], grid.arms, strict=True)}
    assert [r[0] for r in table.rows] == [f"{names[one]} {MINUS} {names[other]}" for one, other in pairs]
    apart = [made_results.RISES[one] - made_results.RISES[other] for one, other in pairs]
    predicted = [math.log10(made_results.TRACES[other] / made_results.TRACES[one]) for one, other in pairs]
    assert [float(r[2].split(" ")[0]) for r in table.rows] == pytest.approx(predicted, abs=0.006)
    shown = [float(r[1].split(" ")[0].replace(MINUS, "-")) for r in table.rows]
    assert shown == pytest.approx(apart, abs=0.15)


def test_a_trace_is_shown_with_the_factor_of_one_standard_deviation(results):
    assert trace_text(np.array([-2.0, np.nan, 0.0])) == f"1.00e-01 {TIMES}/÷ 26.0 (2)"  # sd of -2 and 0: sqrt(2)
    assert trace_text(np.array([-3.0])) == "1.00e-03 (1)"
    assert trace_text(np.array([np.nan])) == DASH
    study = open_study(MNIST, results)
    [shape] = [table for table in tables_of(study) if table.name == "shape"]
    own = {cells[0]: cells[-1] for cells in shape.rows}  # made with factors of 1.1 to 1.5: sd of their log10 0.0531
    assert own["EXACT"] == f"1.29e-02 {TIMES}/÷ 1.1 (5)"
    fallen = collapse(study)
    assert fallen
    shown = {cells[0]: cells[2] for cells in collapse_table(study, fallen).rows}
    assert own == {name: cell for name, cell in shown.items() if name in own}
    assert "1.29e-02 x/: 1.1 (5)" in plain(shape) and r"1.29e-02 $\times$/$\div$ 1.1 (5)" in latex(shape, MNIST)


def test_a_curve_that_begins_high_says_at_most(tmp_path):
    rows = [row("finetune", "finetune", "", None, seed, 0.80) for seed in (1, 2)]
    rows += [row("ewc-exact", "ewc", "exact", lam, s, 0.99) for lam in (1.0, 10.0, 100.0) for s in (1, 2)]
    shape = cells(tables_of(study_of(tmp_path, rows))[1], "EXACT")
    assert shape[1:4] == ("≤ 0.00", "2.00", "lower and upper")  # both seeds are alike: no interval of width 0


def test_identical_arms_are_called_identical(tmp_path):
    rows = made_results.fisher_rows(seeds=(1, 2, 3), fishers=("sample",), noise=0.1)
    rows += [{**r, **renamed(r, "empirical")} for r in rows if r["fisher"]]
    table = next(table for table in tables_of(study_of(tmp_path, rows)) if table.name == "paired")
    assert cells(table, f"SAMPLE {MINUS} EMPIRICAL")[2:] == ("0", "3", "identical", DASH)


def renamed(r, fisher):
    twin = row(f"ewc-{fisher}", "ewc", fisher, r["lambda"], r["seed"], 0.5)
    return {key: twin[key] for key in ("run_id", "config_id", "arm", "fisher")}


# --- timing ----------------------------------------------------------------------------------------------------------


def test_times_of_several_machines_are_not_divided(tmp_path):
    for column, other in (("device", "cuda"), ("hardware", "another processor")):
        rows = [r | ({column: other} if r["method"] == "finetune" else {}) for r in made_results.timing_rows()]
        made_results.write(tmp_path / column / "split_mnist_timing", rows)
        with pytest.raises(UserError, match=rf"its runs are of .*{other}.*: their times do not compare$"):
            timing_table(open_study("split_mnist_timing", tmp_path / column))


def test_the_table_at_the_end_of_a_run_says_at_most_and_nothing_where_there_is_no_rise(tmp_path):
    rows = [row("finetune", "finetune", "", None, seed, 0.80) for seed in (1, 2)]
    for fisher, accuracy in (("exact", 0.99), ("sample", 0.70)):
        rows += [row(f"ewc-{fisher}", "ewc", fisher, lam, s, accuracy) for lam in (1.0, 10.0) for s in (1, 2)]
    shown = summary_table(study_of(tmp_path, rows))
    assert cells(shown, "EXACT")[3] == "≤ 0.00" and cells(shown, "SAMPLE")[3] == DASH


def test_timing_table_holds_ratios_to_none(results):
    table = timing_table(open_study("split_mnist_timing", results))
    assert table.header == ("Estimator", "blog-final", "blog-draft", "one_sample", "ours", "one_sample, s", "ours, s")
    assert [r[0] for r in table.rows] == ["EXACT", "SAMPLE", "EMPIRICAL", "EXACT (n=500)", "BATCHED", "None"]
    assert cells(table, "EXACT") == ("EXACT", "2.28", "2.46", "2.46", "1.02", "246.0 ± 0.6 (3)", "102.0 ± 0.0 (3)")
    assert cells(table, "None")[1:5] == ("1.00",) * 4


# --- figures ---------------------------------------------------------------------------------------------------------


def test_figures_say_where_they_come_from(results, reported):
    png, svg = (results / "figures" / f"{MNIST}.{kind}" for kind in ("png", "svg"))
    text = Image.open(png).text
    assert text["Title"] == f"{MNIST}: Split MNIST, task-incremental, 5 seeds"
    assert text["Source"] == "cl_repro 0123456"
    assert "<dc:source>cl_repro 0123456</dc:source>" in svg.read_text()
    height, width = matplotlib.image.imread(png).shape[:2]
    assert (width, height) == (1920, 1000)


@pytest.mark.slow
def test_drawing_again_gives_the_same_bytes(results, reported, tmp_path):
    again = [path for one in drawings(open_study(MNIST, results)) for path in one.write(tmp_path)]
    assert [p.name for p in again] == [f"{MNIST}.png", f"{MNIST}.svg"]
    assert [(results / "figures" / p.name).read_bytes() for p in again] == [p.read_bytes() for p in again]


def test_the_figure_shows_means_bands_and_names(results):
    study = open_study(MNIST, results)
    figure = draw(grid_of(study.runs, study.folder), "Split MNIST")
    axes = figure.axes[0]
    assert {text.get_text() for text in axes.texts} == set(axes.get_legend_handles_labels()[1]) == NAMED
    assert not figure.legends
    assert axes.get_xscale() == "log"
    lines = {line.get_label(): line for line in axes.get_lines()}
    own = study.runs[(study.runs["fisher"] == "exact") & (study.runs["lambda"] == 1e3)]["accuracy"]
    assert lines["EXACT"].get_ydata()[3] == pytest.approx(100 * own.mean())
    assert len(axes.collections) == 5  # one band per curve
    top = axes.collections[0].get_paths()[0].vertices[:, 1].max()
    assert top == pytest.approx((lines["EXACT"].get_ydata() + sem_of(study, "exact")).max())
    none = study.runs[study.runs["method"] == "finetune"]["accuracy"]
    (band,) = (patch.get_extents().transformed(axes.transData.inverted()) for patch in axes.patches)
    assert (band.y0, band.y1) == pytest.approx((100 * (none.mean() - none.sem()), 100 * (none.mean() + none.sem())))


NAMED = {"None", "EXACT", "EXACT (n=500)", "SAMPLE", "EMPIRICAL", "BATCHED"}


def test_names_beside_curves_are_legible_and_hide_neither_each_other_nor_leave_the_panel(results):
    study = open_study(MNIST, results)
    figure = draw(grid_of(study.runs, study.folder), "Split MNIST")
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    boxes = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert not any(one.overlaps(other) for one, other in combinations(boxes.values(), 2))
    frame = axes.get_window_extent()
    for name, box in boxes.items():
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        lines = zip(*axes.get_legend_handles_labels(), strict=True)
        distances = {named: distance(box, course(line, 1.0)) for line, named in lines}
        assert min(distances, key=distances.get) == name
    for style in LOOKS.values():
        ink = np.array(to_rgb(inked(style.colour)))
        assert 1.05 / (luminance(ink) + 0.05) >= 4.5
    assert luminance(np.ones(3)) == pytest.approx(1) and inked("#000000") == "#000000"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["split_mnist_fisher", "context_window", "replay_vs_ewc"])
def test_names_in_committed_figures_are_nearest_to_their_own_curve_and_off_error_bars(name):
    study = open_study(name, ROOT / "results")
    drawing = main_drawings(study)[0]
    with styled():
        figure = drawing.draw()
        FigureCanvasAgg(figure).draw()
    for axes in figure.axes:
        handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        boxes = {text.get_text(): text.get_window_extent() for text in axes.texts if text.get_text() in handles}
        courses = {
            called: course(handle[0] if isinstance(handle, ErrorbarContainer) else handle, 1.0)
            for called, handle in handles.items()
        }
        for own, box in boxes.items():
            gaps = {other: distance(box, points) for other, points in courses.items()}
            assert gaps[own] <= min(gaps.values()) + 2  # pixels: where two curves meet
            for handle in handles.values():
                for points in bars(handle, 1.0):
                    assert distance(box, points) > 0


def distance(box, points):
    """Pixels from a box to the nearest of some points."""
    x, y = np.clip(points[:, 0], box.x0, box.x1), np.clip(points[:, 1], box.y0, box.y1)
    return np.hypot(points[:, 0] - x, points[:, 1] - y).min()


def test_a_long_title_takes_two_lines_within_the_figure():
    figure = Figure(figsize=(6, 4))
    headed(figure, "word " * 30)
    figure.draw_without_rendering()
    assert figure._suptitle.get_window_extent().x1 <= figure.bbox.x1


def test_more_curves_than_can_be_named_have_a_legend(results):
    study = open_study(MNIST, results)
    grid = grid_of(study.runs, study.folder)
    many = tuple(grid.arms[0]._replace(label=f"m{i}") for i in range(7))
    figure = draw(
        grid._replace(arms=many, accuracy=np.stack([grid.accuracy[0]] * 7), lost=grid.lost[:1].repeat(7, 0)), ""
    )
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["None", *(f"m{i}" for i in range(7))]
    assert not figure.axes[0].texts


def test_arms_with_too_few_lambdas_for_curves_are_dots_beside_the_published_means(tmp_path):
    study = "unifying_table1_permuted_mnist"
    own = {"study": study, "benchmark": "permuted_mnist", "scenario": "domain", "scale": "cpu", "batch_size": 256}
    rows = [row("finetune", "finetune", "", None, seed, 0.5 + seed / 100, **own) for seed in (1, 2, 3)]
    for method, lams in (("si", (1.0, 2.0)), ("siu", (5.0,)), ("mas", (5.0,))):
        rows += [row(method, method, "", lam, s, 0.9 + s / 100 - lam / 100, **own) for lam in lams for s in (1, 2, 3)]
    made = study_of(tmp_path, rows, study)
    grid = grid_of(made.runs, made.folder)
    assert dots.few(made.runs) and not dots.few(made.runs[made.runs["method"] == "finetune"])
    figure = dots.draw(made, grid, "title")
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["MAS  λ = 5", "SI  λ = 1e0", "SIU  λ = 5"]
    ours, theirs = ([c.lines[0] for c in axes.containers if c.lines[0].get_marker() == mark] for mark in "oD")
    assert [line.get_xydata().tolist()[0] for line in ours] == [
        pytest.approx([x, y]) for y, x in enumerate((87, 91, 87))
    ]
    assert sorted(line.get_xdata()[0] for line in theirs) == [96.3, 97.2, 97.3]
    sems = {round(each.mean, 4): each.sem for each in (published_estimate(r) for _, r in made.published.iterrows())}
    for container in (c for c in axes.containers if c.lines[0] in theirs):
        low, high = container.lines[2][0].get_segments()[0][:, 0]
        assert (high - low) / 2 == pytest.approx(sems[round(container.lines[0].get_xdata()[0], 4)])
    (none,) = (line for line in axes.lines if line.get_label() == "None")
    assert none.get_xdata() == pytest.approx([52, 52])
    bar = next(c for c in axes.containers if c.lines[0] is ours[0]).lines[2][0].get_segments()[0]
    assert bar[:, 0] == pytest.approx(
        [87 - 4.303 / 3**0.5, 87 + 4.303 / 3**0.5], abs=1e-3
    )  # t of two degrees of freedom
    said = figure.get_supxlabel()
    assert (
        "95% t-interval" in said
        and "hollow: Benzing (2022), mean ± 1 SEM, of another scale" in said
        and "dashed: None" in said
    )


def test_the_matrix_is_the_mean_over_seeds_of_every_task_after_every_task(tmp_path):
    """Seed s knows task j after task i as 90 - 10 (i - j) + s percent; before any task, and of tasks to come, 1.

    What it forgot is the mean over seeds of the runs' own number, not that of the mean matrix. Runs at lambdas that
    are not the best know nothing and forget everything.
    """
    rows = made_results.fisher_rows((1, 2), fishers=("exact",))
    best = max(made_results.LAMS, key=lambda lam: sum(r["accuracy"] for r in rows if r["lambda"] == lam))
    shown = [r["run_id"] for r in rows if r["lambda"] in (None, best)]
    rows = [r | {"forgetting": 0.1 + 0.1 * r["seed"] if r["run_id"] in shown else 1.0} for r in rows]
    folder = made_results.write(tmp_path / MNIST, rows, provenance=False)
    lines = [
        (r["run_id"], split, i, j, (90 - 10 * (i - j) + r["seed"] if 0 <= j <= i and r["run_id"] in shown else 1) / 100)
        for r in rows for split in ("test", "val") for i in range(-1, 3) for j in range(3)
    ]  # fmt: skip
    pd.DataFrame(lines, columns=list(pd.read_csv(folder / "accuracy.csv"))).to_csv(folder / "accuracy.csv", index=False)
    study = open_study(MNIST, tmp_path)
    none, exact = matrices.matrices(study)
    expected = [[91.5, np.nan, np.nan], [81.5, 91.5, np.nan], [71.5, 81.5, 91.5]]
    for one in (none, exact):
        np.testing.assert_allclose(one.accuracy, expected)
        assert one.plasticity == pytest.approx(91.5) and one.forgotten == pytest.approx(25)
    assert (none.name, exact.name) == ("None", f"EXACT\nλ = {lambda_text(best)}")
    figure = matrices.draw([none, exact], "title")
    assert [text.get_text() for text in figure.axes[0].texts] == ["92", "82", "92", "72", "82", "92"]
    assert [drawing.name for drawing in matrices.drawings(study)] == [f"matrix_{MNIST}"]
    last = [line for line in lines if line[2] == 2]  # evaluated at the end alone
    pd.DataFrame(last, columns=list(pd.read_csv(folder / "accuracy.csv"))).to_csv(folder / "accuracy.csv", index=False)
    assert matrices.drawings(study) == []


def sem_of(study, fisher):
    own = study.runs[study.runs["fisher"] == fisher]
    return 100 * own.groupby("lambda")["accuracy"].sem().to_numpy()


def test_a_spare_look_has_no_colour_of_an_estimator_or_a_method():
    own = {style.colour for style in (*LOOKS.values(), *METHODS.values())}
    spare = [style.colour for style in OTHERS]
    assert len(set(spare)) == len(spare) and not own & set(spare)


def test_every_arm_of_a_study_looks_different(results):
    study = open_study(MNIST, results)
    arms = grid_of(study.runs, study.folder).arms
    looks = [look(arm, i) for i, arm in enumerate(arms)]
    for part in ("colour", "marker"):
        assert len({getattr(style, part) for style in looks}) == len(arms)
    greys = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (rgb(style.colour) for style in looks))
    assert min(np.diff(greys)) > 0.1  # of 1: apart in grey, too


def test_arms_that_share_an_estimator_look_different(results):
    study = open_study(MNIST, results)
    grid = grid_of(study.runs, study.folder)
    twin = grid._replace(arms=(*grid.arms, *grid.arms), flat=(*grid.flat, *grid.flat))
    looks = looks_of(twin)
    assert len(set(looks)) == 2 * len(grid.arms) + 2 * len(grid.flat)
    assert looks[2 * len(grid.flat) :][: len(grid.arms)] == [look(arm, i) for i, arm in enumerate(grid.arms)]
    assert not any(style.marker for style in looks[: 2 * len(grid.flat)])  # lines, not curves


def test_arms_without_a_look_of_their_own_look_different(results):
    study = open_study(MNIST, results)
    grid = grid_of(study.runs, study.folder)
    many = tuple(grid.arms[0]._replace(method=f"m{i}", fisher="") for i in range(16))
    drawn = {(*style[:2], style.filled) for style in looks_of(grid._replace(arms=many, flat=()))}
    assert len(drawn) == len(many)


def rgb(colour):
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


def test_a_scale_that_is_not_the_papers_is_in_the_title(tmp_path):
    study = study_of(tmp_path, made_results.fisher_rows(fishers=("exact",), scale="smoke"))
    [drawing] = drawings(study)
    png, _ = drawing.write(tmp_path)
    assert Image.open(png).text["Title"].endswith("5 seeds, scale smoke")


@pytest.mark.parametrize(
    ("method", "fisher", "unit", "expected"),
    [
        ("finetune", "", None, "None"),
        ("joint", "", None, "JOINT"),
        ("ewc", "exact_50", None, "EXACT (n=50)"),
        ("ewc", "sample_100", None, "SAMPLE (n=100)"),
        ("ewc", "batched", 128, "BATCHED (b=128)"),
        ("ewc_offline", "predicted", None, "PREDICTED (EWC offline)"),
        ("ewc", "compat/gt_ripl", None, "GT-RIPL"),
        ("ewc", "compat/unknown", None, "UNKNOWN"),
        ("ewc", "one_sample/exact_500", None, "EXACT (n=500, one sample at a time)"),
    ],
)
def test_arms_have_the_blogs_names(method, fisher, unit, expected):
    assert label(method, fisher, unit) == expected


def test_the_batch_of_a_batched_fisher_is_read_from_its_configuration(tmp_path):
    rows = made_results.fisher_rows(seeds=(1, 2), fishers=("batched",))
    study = study_of(tmp_path, rows)
    configs = study.folder / "configs"
    configs.mkdir()
    (configs / f"{rows[-1]['config_id']}.yaml").write_text("fisher: {name: batched, batch_size: 32}\n")
    assert grid_of(study.runs, study.folder).arms[0].label == "BATCHED (b=32)"


# --- report and scripts ----------------------------------------------------------------------------------------------


def test_report_of_a_study_has_the_table_and_the_paths(results, reported):
    text = reported
    assert re.search(r"^EXACT +1e\d +99\.\d\d \+- 0\.\d\d \(5\) .* 99\.12 \+- 0\.16 \(30\) +agrees", text, re.MULTILINE)
    paths = [Path(line) for line in text.splitlines() if line.startswith(str(results))]
    assert {p.suffix for p in paths} == {".png", ".svg", ".md", ".tex", ".csv"} and all(p.is_file() for p in paths)
    assert text.isascii()


def test_report_of_ad_hoc_runs_is_a_listing(results):
    text = report("runs", results)
    rows = [re.split(r"  +", line.strip()) for line in text.splitlines()[4:7]]
    assert rows == [
        ["EXACT", "Split digits", "task", "mlp", "250", "95.00 (1), 1 lost"],
        ["None", "Split MNIST", "task", "mlp", "-", "90.00 +- 0.00 (2)"],
        ["EXACT", "Split MNIST", "task", "mlp", "1e1", "98.50 +- 0.50 (2)"],
    ]
    assert not (results / "figures" / "runs.png").exists()  # one lambda makes no curve


@pytest.mark.slow
def test_ad_hoc_curves_are_drawn_per_benchmark(tmp_path):
    rows = made_results.fisher_rows(seeds=(1, 2), fishers=("exact",), study="runs")
    other = made_results.fisher_rows(seeds=(1, 2), fishers=("exact",), study="runs", benchmark="split_digits")
    rows += [{**r, "config_id": r["config_id"][::-1]} for r in other]
    made_results.write(tmp_path / "runs", rows)
    report("runs", tmp_path)
    names = {p.name for p in (tmp_path / "figures").glob("*.png")}
    assert names == {"runs_split_digits_task_mlp.png", "runs_split_mnist_task_mlp.png"}


def test_two_settings_of_one_arm_are_told_apart(tmp_path):
    rows = made_results.fisher_rows(seeds=(1, 2), fishers=("exact",), study="runs")
    own = {"config_id": "e" * 8, "batch_size": 256}
    twins = [{**r, **own, "run_id": r["run_id"][::-1]} for r in rows if r["fisher"]]
    made_results.write(tmp_path / "runs", rows + twins)
    text = report("runs", tmp_path)
    assert "EXACT [batch_size=128]" in text and "EXACT [batch_size=256]" in text and "eeeeeeee" not in text


def test_folders_are_sorted_into_kinds(results):
    kinds = {name: open_study(name, results).kind for name in folders(results)}
    assert kinds == {MNIST: "curves", DIGITS: "curves", "split_mnist_timing": "timing", "runs": "listing"}


SCRIPTS = {
    "plot.py": {
        f"{name}.{suffix}"
        for name in (MNIST, DIGITS, f"collapse_{MNIST}", f"collapse_{DIGITS}", "memory_survival")
        for suffix in ("png", "svg")
    },
    "table.py": {
        f"{name}.{suffix}"
        for name in (MNIST, DIGITS, f"collapse_{MNIST}", f"collapse_{DIGITS}", "split_mnist_timing", "runs")
        for suffix in ("md", "tex")
    },
}
SHOWN = "table.py split_mnist_timing --show"


@pytest.fixture(scope="module")
def ran(results, tmp_path_factory):
    """What the scripts say, without torch, and the folder that each has written into."""
    folders = {line: tmp_path_factory.mktemp("out") for line in (*SCRIPTS, SHOWN)}
    common = {line: ("--results-dir", results, "--out", folder) for line, folder in folders.items()}
    said = processes.scripts(*((*line.split(), *options) for line, options in common.items()))
    return {line: (*of_one, folder) for (line, folder), of_one in zip(folders.items(), said, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_make_everything_that_fits_without_torch(ran, script):
    status, out, err, folder = ran[script]
    assert (status, err) == (0, "")
    assert {Path(line).name for line in out.splitlines()} == SCRIPTS[script]
    assert {p.name for p in folder.iterdir()} == SCRIPTS[script]


def test_what_make_says_needs_no_torch_imports_none():
    program = (
        "import runpy, sys\n"
        "for path in sys.argv[1:]:\n"
        "    runpy.run_path(path)\n"
        "    assert 'torch' not in sys.modules, path"
    )
    scripts = [str(ROOT / "scripts" / name) for name in ("plot.py", "table.py", "report.py", "ledger.py")]
    subprocess.run([sys.executable, "-c", program, *scripts], cwd=ROOT, check=True)


@pytest.mark.slow
def test_tables_are_shown_on_request(ran):
    status, out, *_ = ran[SHOWN]
    assert status == 0 and re.search(r"^EXACT +2\.28 +2\.46 +2\.46 +1\.02", out, re.MULTILINE)


# --- markup and settings ---------------------------------------------------------------------------------------------

AWKWARD = Table("t", "100 % of λ", ("a_b", "c|d"), (("x & y", f"{MINUS}1 ± 2"), ("#1 {z}", r"~^\ <5>")), ("a $ note",))


def test_latex_escapes_everything_and_is_ascii():
    text = latex(AWKWARD, "s")
    assert text.isascii()
    assert r"x \& y & $-$1 $\pm$ 2 \\" in text and r"\caption{100 \% of $\lambda$}" in text
    assert r"\#1 \{z\} & \textasciitilde{}\textasciicircum{}\textbackslash{} \textless{}5\textgreater{} \\" in text
    assert r"a \$ note" in text


def test_markdown_keeps_bars_inside_their_cells():
    lines = markdown(AWKWARD).splitlines()
    assert r"| a_b | c\|d |" in lines and r"| #1 {z} | \~^\\ \<5\> |" in lines


def test_columns_of_numbers_are_set_to_the_right_and_words_to_the_left():
    rows = (("a", f"{MINUS}1 ± 2", "agrees", "≤ 3.1", ""), ("2", DASH, "no", "[0.1, 2]", DASH))
    table = Table("t", "T", ("name", "x", "verdict", "rise", "none"), rows)
    assert "| --- | ---: | --- | ---: | ---: |" in markdown(table).splitlines()
    assert r"\begin{tabular}{lrlrr}" in latex(table, "s")


def test_a_column_without_a_number_for_one_reason_is_told_once():
    rows = (("a", "1", "n too small", DASH), ("b", "2", DASH, DASH))
    told = told_once(Table("t", "T", ("name", "x", "p", "d"), rows, ("first.",)), ["n too small"])
    assert (told.header, told.rows) == (("name", "x", "d"), (("a", "1", DASH), ("b", "2", DASH)))
    assert told.notes == ("first.", "Not shown: p (n too small).")
    mixed = Table("t", "T", ("name", "p"), (("a", "n too small"), ("b", "0.01")))
    assert told_once(mixed, ["n too small"]) == mixed


def test_plain_text_is_aligned_ascii():
    lines = plain(AWKWARD).splitlines()
    assert lines[2:5] == ["a_b         c|d", "------  -------", "x & y   -1 +- 2"]
    assert plain(AWKWARD).isascii()


def test_written_latex_is_ascii_with_as_many_cells_in_every_row(results, reported):
    text = (results / "tables" / f"{MNIST}.tex").read_text()
    assert text.isascii()
    for block in text.split(r"\toprule")[1:]:
        rows = [line for line in block.split(r"\bottomrule")[0].splitlines() if line.endswith(r"\\")]
        assert len({len(re.findall(r"(?<!\\)&", line)) for line in rows}) == 1


def test_numbers_as_text():
    assert [lambda_text(x) for x in (1, 1e13, 250, 0.01, math.nan)] == ["1e0", "1e13", "250", "1e-2", DASH]
    assert interval_text(Interval(-0.5, math.nan, math.nan, 1)) == f"{MINUS}0.50"


def test_settings_are_the_issues_numbers():
    found = settings.load(MNIST)
    assert found.delta_points == {"ewc": 0.5, "finetune": 5.0}
    assert (found.confidence, found.width_points, found.resamples, found.seed) == (0.95, 1.0, 2000, 0)
    assert (found.wilcoxon_from, found.bootstrap_from) == (6, 10)
    assert found.published_study == MNIST
    assert settings.load("split_mnist_timing").published_study == MNIST


def test_a_study_overrides_settings_key_by_key(tmp_path):
    conf = shutil.copytree(settings.conf_dir(), tmp_path / "conf")
    (conf / "study" / "other.yaml").write_text("analysis: {delta_points: {ewc: 2.5}, pairs: [[a, b]], note: said}\n")
    twin = "defaults: [other, override /model: mlp, _self_]\nanalysis: {delta_points: {si: 1}, note: null}\n"
    (conf / "study" / "twin.yaml").write_text(twin)
    assert settings.load("other", conf).delta_points == {"ewc": 2.5, "finetune": 5.0}
    assert settings.load(MNIST, conf).delta_points["ewc"] == 0.5
    found = settings.load("twin", conf)  # begins with the other, as its runs do
    assert (found.pairs, found.note) == ((("a", "b"),), None)
    assert found.delta_points == {"ewc": 2.5, "finetune": 5.0, "si": 1.0}


@pytest.mark.parametrize("name", ["", "no study", "../analysis", "a" * 5000, "\0", "a/b"])
def test_a_study_that_conf_does_not_have_has_the_settings_of_all(name):
    assert settings.load(name)._replace(published_study="") == settings.load("runs")._replace(published_study="")


def test_settings_of_every_study_are_those_that_hydra_composes():
    """A study that begins with another has its settings, for whom reads the file as for whom runs it."""
    for name in ("split_cifar10_timing", "split_cifar10_fisher_draft"):
        (composed,) = cli.arms(f"study={name}", "arms=null")
        own, found = composed["analysis"], settings.load(name)
        assert own["title"] == found.title and list(found.verdict_scales) == own["verdict_scales"] == ["paper"]
        assert (own["estimated_minutes"] or {}) == found.estimated_minutes
        assert own.get("published_study", name) == found.published_study


def test_what_figures_ask_of_a_study_changes_no_run(tmp_path):
    (cfg,) = cli.arms("benchmark=split_digits")
    other = cfg | {"analysis": {"title": "another"}}
    assert grid.make_arm(other)[2:4] == grid.make_arm(cfg)[2:4] and study.public(other) == study.public(cfg)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("confidence: 0.95", "confidence: 95", "confidence = 95.0 must be between 0 and 1"),
        ("  ewc: 0.5", "  ewc: -1", "delta_points = .* must be positive"),
        ("  resamples: 2000", "  resamples: many", "analysis.yaml: .*many"),
        ("  wilcoxon: 6", "  wilcoxon: 1", "at_least.wilcoxon = 1 must be at least 2"),
        ("estimated_minutes: null", "estimated_minutes: {a GPU: 0}", "estimated_minutes = .* must be positive"),
        ("trace_jump: 100", "trace_jump: 1", "trace_jump = 1.0 must be above 1"),
        ("width_points:", "widht_points:", "missing key 'width_points'"),
        ("kind:", "more: 1\nkind:", "unknown key 'more'"),
        ("confidence: 0.95", "confidence: [", "analysis.yaml: "),
    ],
)
def test_bad_settings_are_named(tmp_path, old, new, message):
    path = Path(shutil.copy(settings.conf_dir() / "analysis.yaml", tmp_path))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message) as caught:
        settings.load("split_mnist_timing", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ("analysis: {publisht: 1}", r"mine\.yaml: unknown key 'analysis.publisht' \(keys: confidence"),
        ("analysis: {kind: 1}", r"mine\.yaml: kind = 1 must be null or comparison"),
        ("analysis: [1]", r"mine\.yaml: "),
        ("analysis: {", r"mine\.yaml: while parsing a flow"),
        ("[1]", r"mine\.yaml: must hold keys with values, holds a list"),
    ],
)
def test_bad_settings_of_a_study_are_named_with_its_file(tmp_path, own, message):
    shutil.copy(settings.conf_dir() / "analysis.yaml", tmp_path)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "mine.yaml").write_text(own)
    with pytest.raises(UserError, match=message) as caught:
        settings.load("mine", tmp_path)
    assert "\n" not in str(caught.value)
