"""Seeds whose arms were computed on several kinds of processor: named, kept in means, and in no difference of arms."""

import made_results
import numpy as np
import pytest
from made_results import row

from cl_repro.analysis.comparisons.comparison import compared
from cl_repro.analysis.data.arms import grid_of
from cl_repro.analysis.data.study import mixed_seeds, open_study, unmixed
from cl_repro.analysis.lambdas.collapse import collapse
from cl_repro.analysis.lambdas.collapse import table as collapse_table
from cl_repro.analysis.lambdas.pairs import families
from cl_repro.analysis.lambdas.tables import tables_of
from cl_repro.common.stats import paired

MNIST, METHODS, SEEDS = "split_mnist_fisher", "palliatives_split_mnist", (1, 2, 3, 4, 5)
GPU, NAMED = {"device": "cuda", "hardware": "a GPU"}, "as their arms mix processors"


def curves(tmp_path, elsewhere):
    """None, EXACT and EMPIRICAL; rows of which `elsewhere` is true are of a GPU, and 3 points worse."""
    rows = made_results.fisher_rows(SEEDS, ("exact", "empirical"))
    moved = [r | GPU | {"accuracy": r["accuracy"] - 0.03} if elsewhere(r) else r for r in rows]
    made_results.write(tmp_path / MNIST, moved)
    return open_study(MNIST, tmp_path)


def bodies(study):
    """The rows of every table, by its name."""
    return {table.name: table.rows for table in tables_of(study)}


def test_a_mixed_seed_is_named_and_in_no_difference(tmp_path):
    study = curves(tmp_path, lambda r: r["seed"] == 3 and r["fisher"] == "empirical")
    assert mixed_seeds(study.runs) == [3]
    found = bodies(study)
    without = bodies(unmixed(study))
    assert [name for name in found if found[name] != without[name]] == ["accuracy", "shape", "selection", "optimism"]
    assert {cells[3] for cells in found["paired"] + found["paired-none"]} == {"4"}
    assert all(cells[2].endswith("(5)") for cells in found["accuracy"])
    note = f"Not paired, {NAMED}, and on another a seed is another network: seeds 3."
    assert sum(any(note in said for said in table.notes) for table in tables_of(study)) == 1
    fallen = collapse(study)
    assert fallen and fallen.grid.seeds.tolist() == [1, 2, 4, 5]
    assert note in collapse_table(study, fallen).notes


def test_the_difference_is_that_of_the_other_seeds(tmp_path):
    study = curves(tmp_path, lambda r: r["seed"] == 3 and r["fisher"] == "empirical")
    left = unmixed(study)
    [[pair], _] = families(left, grid_of(left.runs, left.folder))
    runs = study.runs[study.runs["seed"] != 3].sort_values("seed")
    at = [
        runs[(runs["fisher"] == side.arm.fisher) & (runs["lambda"] == side.lam)] for side in (pair.first, pair.second)
    ]
    assert pair.difference == pytest.approx(paired(*(100 * of["accuracy"].to_numpy() for of in at), 0.95))


def test_seeds_of_several_machines_are_paired_if_each_is_of_one(tmp_path):
    study = curves(tmp_path, lambda r: r["seed"] > 3)
    assert unmixed(study) is study
    tables = tables_of(study)
    assert {cells[3] for table in tables if table.name == "paired" for cells in table.rows} == {"5"}
    assert NAMED not in " ".join(note for table in tables for note in table.notes)


def test_a_machine_with_more_cores_is_no_other_processor(tmp_path):
    study = curves(tmp_path, lambda r: False)
    names = [f"a processor, {2 + i % 7} cores, 1 thread per process" for i in range(len(study.runs))]
    assert mixed_seeds(study.runs.assign(hardware=names)) == []
    assert mixed_seeds(study.runs.assign(hardware=[*names[1:], "another, 2 cores, 1 thread per process"])) == [5]


def test_lambdas_of_one_arm_on_several_machines_mix_too_and_a_study_of_such_seeds_alone_has_no_differences(tmp_path):
    study = curves(tmp_path, lambda r: r["fisher"] == "exact" and r["lambda"] == 1.0)
    assert mixed_seeds(study.runs) == list(SEEDS)
    assert list(bodies(study)) == ["accuracy", "shape", "selection", "optimism"]
    assert collapse(study) is None


def test_methods_side_by_side_leave_a_mixed_seed_out_of_differences_and_ratios(tmp_path):
    rows = [
        row(method, method, "", lam, seed, at + seed**2 / 1000, study=METHODS, seconds_train=seconds)
        for method, lam, at, seconds in (
            ("finetune", None, 0.5, 10.0),
            ("si", 1.0, 0.6, 14.0),
            ("replay", 1.0, 0.9, 18.0),
        )
        for seed in SEEDS
    ]
    mixed = [r | GPU | {"accuracy": 0.1} if (r["method"], r["seed"]) == ("replay", 2) else r for r in rows]
    made_results.write(tmp_path / METHODS, mixed)
    study = open_study(METHODS, tmp_path)
    found = {entry.arm.method: entry for entry in compared(study)}
    assert found["replay"].minus(found["si"], 0.95)[::3] == (pytest.approx(30.0), 4)
    assert found["si"].minus(found["replay"], 0.95)[::3] == (pytest.approx(-30.0), 4)
    np.testing.assert_allclose(found["replay"].compute, np.where(np.arange(5) == 1, np.nan, 18.5 / 10.5))
    overview = tables_of(study)[0]
    assert any(f"{NAMED}, and on another" in note for note in overview.notes)
    assert "(5)" in next(cells for cells in overview.rows if cells[0] == "replay")[1]
