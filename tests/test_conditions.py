"""Rows that were made under different conditions: named, never subtracted; and the frame that people read."""

import re
import subprocess
import sys
from pathlib import Path

import cli
import made_results
import numpy as np
import pandas as pd
import pytest
import yaml
from made_results import row

from cl_repro.analysis import read_folder
from cl_repro.analysis.comparisons.comparison import compared, worth
from cl_repro.analysis.data.arms import arms_of, grid_of
from cl_repro.analysis.data.conditions import differing, flat
from cl_repro.analysis.data.study import LISTING, open_study
from cl_repro.analysis.lambdas.collapse import collapse
from cl_repro.analysis.lambdas.pairs import families
from cl_repro.analysis.lambdas.tables import gap_table, log_traces, shapes, tables_of
from cl_repro.analysis.lambdas.timing import timings
from cl_repro.analysis.output.markup import MINUS
from cl_repro.common.errors import UserError

RESULTS = cli.ROOT / "results"
CFG = {
    "benchmark": {"name": "split_mnist", "_target_": "b", "n_tasks": 5}, "scenario": {"name": "task"},
    "model": {"name": "mlp", "hidden": [100, 100]}, "optim": {"name": "adam", "lr": 1e-3},
    "iterations": 2000, "batch_size": 128, "dtype": "float32", "val_fraction": None, "tf32": False, "reinit": False,
}  # fmt: skip


def study_of(folder: Path, arms, name="mine", seeds=(1, 2, 3), lams=(1.0, 10.0, 100.0)):
    """Runs of arms (label, method, fisher, what its configuration has of its own), with their configurations."""
    rows = []
    for i, (called, method, fisher, own) in enumerate(arms):
        cfg = {**CFG, "method": {"name": method, "gamma": 1.0}, "fisher": {"name": fisher} if fisher else None, **own}
        given = {"study": name, "config_id": f"{i:08x}"}
        given |= {key: cfg[key] for key in ("batch_size", "dtype")} | {"iterations": np.max(cfg["iterations"])}
        values = lams if fisher else (None,)
        cells = [(lam, seed, j) for j, lam in enumerate(values) for seed in seeds]
        rows += [
            row(called, method, fisher, lam, seed, 0.90 + 0.03 * j + seed / 1e3, run_id=f"{i}-{j}-{seed}", **given)
            for lam, seed, j in cells
        ]
        (folder / name / "configs").mkdir(parents=True, exist_ok=True)
        (folder / name / "configs" / f"{i:08x}.yaml").write_text(yaml.safe_dump(cfg))
    made_results.write(folder / name, rows)
    return open_study(name, folder)


def labels(study):
    return [arm.label for arm in arms_of(study.runs, study.folder)]


def subtracted(study):
    pairs = [pair for family in families(study, grid_of(study.runs, study.folder)) for pair in family]
    return [(pair.first.arm.label, pair.second.arm.label) for pair in pairs]


NONE, EXACT, SAMPLE = (
    ("finetune", "finetune", "", {}),
    ("ewc-exact", "ewc", "exact", {}),
    ("ewc-sample", "ewc", "sample", {}),
)


def changed(arm, **own):
    return (*arm[:3], own)


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"iterations": 50}, ("iterations=2000", "iterations=50")),
        ({"iterations": [10, 20]}, ("iterations=2000", "iterations=[10,20]")),
        ({"batch_size": 16}, ("batch_size=128", "batch_size=16")),
        ({"optim": {"name": "adam", "lr": 0.5}}, ("optim.lr=0.001", "optim.lr=0.5")),
        ({"optim": {"name": "sgd", "lr": 0.5}}, ("optim=adam", "optim=sgd")),
        ({"model": {"name": "mlp", "hidden": [5]}}, ("model.hidden=[100,100]", "model.hidden=[5]")),
        (
            {"benchmark": {"name": "split_mnist", "_target_": "b", "n_tasks": 2}},
            ("benchmark.n_tasks=5", "benchmark.n_tasks=2"),
        ),
        ({"val_fraction": 0.2}, ("val_fraction=null", "val_fraction=0.2")),
        ({"dtype": "float64"}, ("dtype=float32", "dtype=float64")),
        ({"reinit": True}, ("reinit=false", "reinit=true")),
        ({"method": {"name": "ewc", "gamma": 0.5}}, ("gamma=1", "gamma=0.5")),
        (
            {"method": {"name": "ewc", "gamma": 1.0, "memory": {"name": "ring", "size": 9}}},
            ("memory=null", "memory=ring"),
        ),
    ],
)
def test_a_setting_in_which_arms_differ_is_named_and_they_are_not_subtracted(tmp_path, own, words):
    study = study_of(tmp_path, [EXACT, changed(SAMPLE, **own)])
    assert labels(study) == [f"EXACT [{words[0]}]", f"SAMPLE [{words[1]}]"]
    assert subtracted(study) == []
    same = study_of(tmp_path / "same", [EXACT, SAMPLE])
    assert labels(same) == ["EXACT", "SAMPLE"] and subtracted(same) == [("EXACT", "SAMPLE")]


def test_a_switch_that_is_off_is_as_one_that_an_older_configuration_does_not_name(tmp_path):
    study = study_of(tmp_path, [EXACT, changed(SAMPLE, channels_last=False)])
    assert labels(study) == ["EXACT", "SAMPLE"] and subtracted(study) == [("EXACT", "SAMPLE")]


def test_what_is_only_a_description_or_the_same_number_is_no_setting():
    one, other = ({"name": "a", "n": n, "protocol": {"x": n}, "rows_per_pass": n, "none": None} for n in (1, 1.0))
    assert flat("fisher", one) == flat("fisher", other) == {"fisher": "a", "fisher.n": "1"}
    assert differing([{"optim": "adam", "optim.lr": "1"}, {"optim": "sgd", "optim.lr": "2"}]) == [["optim"], ["optim"]]


def test_arms_of_one_name_are_told_apart_by_their_settings_never_by_a_hash(tmp_path):
    study = study_of(tmp_path, [EXACT, changed(EXACT, method={"name": "ewc", "gamma": 0.5})])
    assert study.kind == LISTING
    assert sorted(labels(study)) == ["EXACT [gamma=0.5]", "EXACT [gamma=1]"]
    [table] = tables_of(study)
    assert {cells[0] for cells in table.rows} == set(labels(study))


def test_without_configurations_the_columns_tell_arms_apart(tmp_path):
    study = study_of(tmp_path, [EXACT, changed(EXACT, iterations=50)])
    for path in (study.folder / "configs").iterdir():
        path.unlink()
    assert sorted(labels(study)) == ["EXACT [iterations=2000]", "EXACT [iterations=50]"]


# --- differences -----------------------------------------------------------------------------------------------------


def test_one_setting_of_one_estimator_may_be_subtracted_and_two_may_not(tmp_path):
    changes = ({}, {"batch_size": 16}, {"batch_size": 16, "iterations": 50})
    study = study_of(tmp_path, [changed(EXACT, **own) for own in changes])
    a, b, c = sorted(arms_of(study.runs, study.folder), key=lambda arm: arm.config_id)
    assert b.compares(a) and c.compares(b) and not c.compares(a)
    assert a.unlike(c) == {"batch_size", "iterations"}


def test_rises_and_gaps_are_above_the_none_of_the_same_conditions(tmp_path):
    empirical = ("ewc-empirical", "ewc", "empirical", {})
    short = {"iterations": 50}
    both = [NONE, EXACT, empirical, changed(NONE, **short), changed(EXACT, **short), changed(empirical, **short)]
    study = study_of(tmp_path, both)
    own = study_of(tmp_path / "own", both[:3])
    grid, alone = (grid_of(one.runs, one.folder) for one in (study, own))
    found = {shape.arm.label: shape.rise for shape in shapes(study, grid)}
    expected = {shape.arm.label: shape.rise for shape in shapes(own, alone)}
    assert found["EXACT [iterations=2000]"] == pytest.approx(expected["EXACT"], nan_ok=True)
    [other_none] = set(study.runs["config_id"][study.runs["iterations"] == 50]) & {
        arm.config_id for arm, _ in grid.flat
    }
    is_lower = study.runs["config_id"] == other_none
    lower = study.runs.assign(accuracy=study.runs["accuracy"].mask(is_lower, study.runs["accuracy"] - 0.05))
    found = {shape.arm.label: shape.rise.centre for shape in shapes(study, grid_of(lower, study.folder))}
    assert found["EXACT [iterations=2000]"] == pytest.approx(1.0)  # of 90, 93 and 96, above 90
    assert found["EXACT [iterations=50]"] == pytest.approx(0.5 / 3)  # above 85
    none_of_one = grid._replace(flat=grid.flat[:1])
    assert pd.isna(none_of_one.floors).any(axis=1).sum() == 2  # two arms lost the only None that is like them
    gaps = gap_table(study, shapes(study, grid), log_traces(study, grid))
    assert gaps and sorted(cells[0] for cells in gaps.rows) == [
        f"EMPIRICAL [iterations={n}] {MINUS} EXACT [iterations={n}]" for n in (2000, 50)
    ]
    assert collapse(study) is None  # of arms of different conditions
    assert len(subtracted(study)) == 2 * 1 + 2 * 2 + 2 + 1  # between estimators, with None, and over iterations


def test_times_of_different_conditions_are_refused(tmp_path):
    arms = [NONE, EXACT, ("ewc-one", "ewc", "one_sample/exact", {})]
    assert timings(study_of(tmp_path, arms))
    other = study_of(tmp_path / "other", [changed(NONE, iterations=50), *arms[1:]])
    with pytest.raises(UserError, match="its runs differ in iterations: their times do not compare"):
        timings(other)


def test_a_comparison_takes_differences_and_ratios_only_between_like_runs(tmp_path):
    """A study of methods with protocols of their own, into whose folder a second command wrote other settings."""
    name = "palliatives_split_mnist"  # its file says that its methods are compared as they are
    lwf = ("lwf", "lwf", "exact", {"optim": {"name": "sgd", "lr": 0.5}})
    plain = study_of(tmp_path / "plain", [NONE, EXACT, lwf], name)
    assert sorted(labels(plain)) == ["EXACT", "EXACT (lwf)", "None"]
    mixed = study_of(
        tmp_path / "mixed", [NONE, EXACT, changed(NONE, iterations=50), changed(EXACT, iterations=50)], name
    )
    assert sorted(labels(mixed)) == [f"{arm} [iterations={n}]" for arm in ("EXACT", "None") for n in (2000, 50)]
    for entry in compared(mixed):
        assert (entry.compute == 1).all() or entry.arm.fisher
    storing = [entry._replace(storage={"examples": 1}) if "=50" in entry.name else entry for entry in compared(mixed)]
    assert worth(mixed, [e for e in storing if e.arm.fisher and e.scenario == "task"]).rows != ()
    unlike = [e for e in storing if "EWC" in e.name and "=2000" in e.name]
    replay = next(e for e in storing if "=50" in e.name and e.arm.fisher)
    assert worth(mixed, [*unlike, replay._replace(arm=replay.arm._replace(method="replay"))]).rows == ()


def test_two_commands_into_one_folder_are_listed_and_not_compared(tmp_path, monkeypatch, capfd):
    common = ("benchmark=split_digits", "scale=smoke", "model.hidden=[5]", "workers=1", "seeds=[1]")
    assert cli.run(monkeypatch, tmp_path, *common, "iterations=2", "fisher=exact") == 0
    assert cli.run(monkeypatch, tmp_path, *common, "iterations=3", "fisher=sample") == 0
    text = (tmp_path / "results/tables/runs_smoke.md").read_text()
    assert "| EXACT [iterations=2] |" in text and "| SAMPLE [iterations=3] |" in text
    assert MINUS not in text and "Difference" not in text


# --- the frame -------------------------------------------------------------------------------------------------------


def test_the_recipe_of_the_documentation_counts_every_row_without_torch(tmp_path):
    [recipe] = re.findall(
        r"```python\n(from cl_repro.analysis import read_folder.*?)```",
        (cli.ROOT / "docs/results.md").read_text(),
        re.S,
    )
    counted = recipe.replace("print(", "counts = (")
    assert counted != recipe
    counted += "\nimport sys\nprint(len(runs), counts['size'].sum(), len(counts), 'torch' in sys.modules)\n"
    done = subprocess.run([sys.executable, "-c", counted], cwd=cli.ROOT, capture_output=True, text=True, check=True)
    lines = len((RESULTS / "palliatives_split_mnist" / "runs.csv").read_text().splitlines()) - 1
    assert lines == 768
    assert done.stdout.split() == ["768", "768", str(768 // 3), "False"]  # three seeds each: no scenarios are mixed


def test_the_frame_has_every_run_its_numbers_and_its_settings_in_words(tmp_path):
    rows = [changed(EXACT, method={"name": "ewc", "gamma": 0.5}), EXACT, changed(SAMPLE, iterations=50), NONE]
    study = study_of(tmp_path, rows)
    found = read_folder(study.folder)
    assert len(found) == len(study.runs) and set(found["run_id"]) == set(study.runs["run_id"])
    keys = ["benchmark", "scenario", "model", "arm", "settings", "lambda"]
    assert not found[keys].isna().any(axis=None)
    assert dict(zip(found["arm"], found["settings"], strict=True)) == {
        "None [iterations=2000]": "iterations=2000",
        "EXACT [gamma=0.5, iterations=2000]": "gamma=0.5, iterations=2000",
        "EXACT [gamma=1, iterations=2000]": "gamma=1, iterations=2000",
        "SAMPLE [gamma=1, iterations=50]": "gamma=1, iterations=50",
    }
    cells = found.groupby(keys)["accuracy"].agg(["mean", "size"])
    assert cells["size"].sum() == len(found) and (cells["size"] == 3).all()
    assert found[found["lambda"] == "none"]["accuracy"].tolist() == pytest.approx([90.1, 90.2, 90.3])
    assert sorted(found["lambda"].unique()) == ["1e0", "1e1", "1e2", "none"]
    described = re.findall(r"^    - ([\w, ]+?)[.:]", str(read_folder.__doc__), re.MULTILINE)
    assert {name for line in described for name in line.split(", ")} == set(found.columns)


def test_a_lost_run_has_a_row_without_an_accuracy(tmp_path):
    rows = [row("finetune", "finetune", "", None, seed, accuracy) for seed, accuracy in ((1, 0.9), (2, float("nan")))]
    made_results.write(tmp_path / "made", rows)
    found = read_folder(str(tmp_path / "made"))
    assert found["status"].tolist() == ["ok", "diverged"] and found["accuracy"].isna().tolist() == [False, True]


def test_lambdas_that_are_rounded_in_tables_stay_apart(tmp_path):
    study = study_of(tmp_path, [EXACT], lams=(316.2277, 316.22771, 0.0))
    assert sorted(read_folder(study.folder)["lambda"].unique()) == ["0", "316.2277", "316.22771"]
