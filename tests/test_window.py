"""grid=window: lambdas where lambda x trace(F) is near 1, the same for whoever launches the study next."""

import csv
import json
import math
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import cli
import pytest

from cl_repro.common.errors import UserError
from cl_repro.records import Store, kept
from cl_repro.records.identity import config_id
from cl_repro.study import grid, study, window

ARMS = "arms=[{method: finetune},{method: ewc,fisher: exact},{method: ewc,fisher: batched}]"
SMALL = ["study=split_digits_fisher", "grid=window", "grid.window.decades=2", "seeds=[3,1]", "iterations=8", ARMS]


@pytest.mark.parametrize("trace", [3.1e-9, 8.27e-6, 0.01, 0.0316, 1.0, 4.5e7])
@pytest.mark.parametrize("product", [0.1, 1.0, 30.0])
def test_lambdas_are_decades_from_the_product_on(trace, product):
    found = window.lambdas({"product": product, "decades": 5}, trace)
    assert len(found) == 5
    assert abs(math.log10(found[0] * trace / product)) <= 0.5 + 1e-9
    for smaller, larger in pairwise(found):
        assert larger / smaller == pytest.approx(10)
    assert found == window.lambdas({"product": 10 * product, "decades": 5}, 10 * trace)


def test_lambdas_are_those_of_the_other_grids_to_the_last_bit():
    """So that a run of a window is the same run, with the same id, as that of grid=blog."""
    (arm,) = cli.arms("grid=blog")
    blog = arm["grid"]["lambdas"]
    assert set(window.lambdas({"product": 1.0, "decades": 14}, 1.0)) == set(blog)


@pytest.mark.parametrize("trace", [0.0, -1.0, math.nan, math.inf])
def test_a_trace_that_places_nothing_is_refused(trace):
    with pytest.raises(UserError, match="which places no window; use grid=blog"):
        window.lambdas({"product": 1.0, "decades": 5}, trace)


def made_arms(results: Path) -> list[dict[str, Any]]:
    """The arms of the study, whose results go to a folder."""
    return [arm | {"results_dir": str(results)} for arm in cli.arms(*SMALL)]


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("results")
    assert study.compute_missing(made_arms(results), "test", cores=1).unfinished == ""
    return results


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with open(folder / "split_digits_fisher" / name) as file:
        return list(csv.DictReader(file))


def test_each_arm_has_the_window_of_its_own_trace(launched):
    """The trace of the first seed listed after the first task, as importance.csv has it."""
    runs = rows(launched, "runs.csv")
    assert len(runs) == 2 * (1 + 2 * 2)
    traces = {r["run_id"]: float(r["trace"]) for r in rows(launched, "importance.csv") if r["after_task"] == "0"}
    for arm in ("ewc-exact", "ewc-batched"):
        own = [r for r in runs if r["arm"] == arm]
        (trace,) = {traces[r["run_id"]] for r in own if r["seed"] == "3"}
        expected = window.lambdas({"product": 1.0, "decades": 2}, trace)
        assert sorted({float(r["lambda"]) for r in own}) == expected
    assert {r["lambda"] for r in runs if r["arm"] == "finetune"} == {""}


def test_whoever_comes_next_has_the_same_windows(launched):
    """Without measuring again: what is recorded holds, even if this machine would measure another decade."""
    folder = launched / "split_digits_fisher"
    before = rows(launched, "runs.csv")
    arms = made_arms(launched)
    assert study.compute_missing(arms, "again", cores=1).unfinished == ""
    assert rows(launched, "runs.csv") == before
    recorded = kept(folder, window.FILE)
    moved = {name: 1000 * trace for name, trace in recorded.items()}
    assert Store(folder).keep(window.FILE, moved) == recorded
    planned = grid.cells([grid.make_arm(cfg) for cfg in window.placed(arms, recorded)])
    assert {cell.run_id for cell in planned} == {row["run_id"] for row in before}


def test_seeds_that_are_added_have_the_lambdas_of_those_that_are_there(launched, tmp_path):
    """Of whatever trace: a launch of seed 1 alone would place no window of its own, here or elsewhere."""
    folder = tmp_path / "split_digits_fisher"
    shutil.copytree(launched / folder.name, folder)
    traces = {name: 1e5 * trace for name, trace in kept(folder, window.FILE).items()}  # as of a very different seed
    (folder / window.FILE).write_text(json.dumps(traces))
    added = [arm | {"results_dir": str(tmp_path), "seeds": [2]} for arm in cli.arms(*SMALL)]
    assert study.compute_missing(added, "more", cores=1).unfinished == ""
    assert kept(folder, window.FILE) == traces
    for arm in added[1:]:
        own = {
            float(r["lambda"])
            for r in rows(tmp_path, "runs.csv")
            if r["config_id"] == config_id(arm) and r["seed"] == "2"
        }
        assert sorted(own) == window.lambdas({"product": 1.0, "decades": 2}, traces[config_id(arm)])


def test_before_the_first_launch_nobody_knows_the_lambdas(tmp_path):
    arms = made_arms(tmp_path)
    assert window.wanted(arms, {}) == arms[1:]
    with pytest.raises(UserError, match="the first launch measures where"):
        grid.cells([grid.make_arm(cfg) for cfg in arms])


def test_a_damaged_record_is_refused_in_one_line(tmp_path):
    (tmp_path / window.FILE).write_text(json.dumps(["no", "traces"]))
    with pytest.raises(UserError, match="not readable as measurements; delete it"):
        kept(tmp_path, window.FILE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"product": 0}, "grid.window.product=0: must be a finite number above 0"),
        ({"product": math.inf}, "grid.window.product=inf: must be a finite number above 0"),
        ({"decades": 0}, "grid.window.decades=0: must be an integer from 1 to 300"),
        ({"decades": 2.5}, "grid.window.decades=2.5: must be an integer from 1 to 300"),
        (
            {"width": 3},
            "grid.window={'product': 1.0, 'decades': 2, 'width': 3}: must have the keys product and",
        ),
    ],
)
def test_bad_windows_are_refused_in_one_line(changes, message, tmp_path):
    arms = made_arms(tmp_path / "none")
    for arm in arms:
        arm["grid"]["window"] |= changes
    with pytest.raises(UserError) as caught:
        study.compute_missing(arms, "test", cores=1)
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "none").exists()


def test_tables_and_figure_say_that_it_is_a_window(launched):
    from cl_repro.analysis import report  # noqa: PLC0415 - matplotlib is slow to import

    printed = report("split_digits_fisher", launched)
    said = "a window of 2 values per arm, placed by the trace of its Fisher"
    assert said in printed
    assert said in (launched / "tables" / "split_digits_fisher.md").read_text()
    assert "a window of 2 values per arm" in (launched / "figures" / "split_digits_fisher.svg").read_text()
