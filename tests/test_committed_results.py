"""The results in the repository: intact, made by today's configuration, and saying what the README says."""

import re
from pathlib import Path
from typing import Any

import cli
import pytest
import yaml
from curves_of import curves, rises

from cl_repro import grid, provenance
from cl_repro.analysis.accuracy import accuracy_rows
from cl_repro.analysis.collapse import collapse
from cl_repro.analysis.ledger import entries
from cl_repro.analysis.ledger_files import summary_line
from cl_repro.analysis.read import read_runs
from cl_repro.analysis.study import folders, mixed_seeds, open_study
from cl_repro.analysis.tables import gap_table, log_traces, shapes
from cl_repro.analysis.timing import timings
from cl_repro.anatomy.folder import first_task_id
from cl_repro.records import Store
from cl_repro.stats import DIFFERS

RESULTS = cli.ROOT / "results"
STUDIES = ["split_mnist_fisher", "split_mnist_timing"]


@pytest.mark.parametrize("name", STUDIES)
def test_todays_configuration_would_recompute_nothing(name: str) -> None:
    cells = grid.cells([grid.make_arm(cfg) for cfg in cli.arms(f"study={name}", "scale=cpu")])
    rows = Store(RESULTS / name).read()["runs.csv"]
    assert {cell.run_id for cell in cells} <= {row["run_id"] for row in rows}
    assert {row["dirty"] for row in rows} == {"False"}
    assert all((RESULTS / name / "configs" / f"{row['config_id']}.yaml").exists() for row in rows)


def named_by(cfg: dict[str, Any]) -> str:
    """The file that a program would write this to today; keys newer than it are at their default, null."""
    cfg = dict.fromkeys((*grid.SCIENCE, *grid.SWITCHES, "label")) | cfg
    if cfg["method"] is None:  # of an anatomy, which holds what comes before the method
        return first_task_id(cfg, "cpu")
    if "figures" not in cfg:
        return grid.digest(grid.science(cfg), 4)
    shared = grid.science(cfg) | {"reinit": None}
    label = f"c{cfg['lam']:g}" + ("_reinit" if cfg["reinit"] else "")
    return f"{grid.digest([shared, cfg['figures']['examples']], 4)}_{label}"


def test_every_committed_configuration_still_has_its_id() -> None:
    """Whatever is renamed, moved or added: the same science, the same name."""
    paths = sorted(RESULTS.glob("*/configs/*.yaml"))
    assert len(paths) >= 308
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    names = {path: named_by(yaml.load(path.read_bytes(), loader)) for path in paths}
    assert {path: name for path, name in names.items() if name != path.stem} == {}


def test_nothing_names_the_machine_it_was_made_on() -> None:
    for path in [*RESULTS.rglob("*.json"), *RESULTS.rglob("*.yaml")]:
        assert str(Path.home()) + "/" not in path.read_text()
        assert not any(folder in path.read_text() for folder in provenance.FOLDERS)


def test_mnist_gaps_between_rises_are_as_the_traces_predict() -> None:
    at = rises(curves("split_mnist_fisher", RESULTS))
    assert at["empirical"] - at["exact"] == pytest.approx(3, abs=1)
    assert at["batched"] - at["empirical"] == pytest.approx(2, abs=1)


def test_no_mnist_row_differs_from_both_published_ones() -> None:
    study = open_study("split_mnist_fisher", RESULTS)
    rows = accuracy_rows(study, curves("split_mnist_fisher", RESULTS))
    assert len(rows) == 6
    for row in rows:
        verdicts = [beside.comparison.verdict for beside in row.beside.values() if beside.comparison]
        assert len(verdicts) == 2
        assert set(verdicts) != {DIFFERS}


def test_the_published_order_of_times_is_there_one_sample_at_a_time_and_gone_in_ours() -> None:
    rows = {row.fisher: row for row in timings(open_study("split_mnist_timing", RESULTS))}
    order = ["exact", "sample", "empirical", "exact_500"]  # published: 2.46, 1.92, 1.86, 1.19 times None
    slow = [rows[fisher].one_sample.mean for fisher in order]
    assert slow[0] > 1.2 * max(slow[1:3])
    assert min(slow[1:3]) > 1.2 * slow[3]
    ours = [rows[fisher].ours.mean for fisher in [*order, "batched"]]
    assert max(ours) < 1.15 * min(ours)


def test_the_readme_quotes_the_gaps_and_the_spread_of_the_tables() -> None:
    study = open_study("split_mnist_fisher", RESULTS)
    grid_, readme = curves("split_mnist_fisher", RESULTS), " ".join((cli.ROOT / "README.md").read_text().split())
    found, traces = shapes(study, grid_), log_traces(study, grid_)
    gaps = gap_table(study, found, traces)
    assert gaps
    (gap, low, high, predicted), (gap2, low2, high2, predicted2) = (
        re.findall(r"\d\.\d\d", " ".join(row[1:]))[:4] for row in gaps.rows
    )
    assert (
        f"10^{gap} times larger than EXACT (interval {low} to {high}, the Fisher's traces predict {predicted})"
        in readme
    )
    assert f"10^{gap2} times larger still ({low2} to {high2}; {predicted2})" in readme
    collapsed = collapse(study)
    assert collapsed
    before, after = collapsed.spread, collapsed.rescaled_spread
    own, of_lambda = (f"{x.centre:.2f} decades [{x.low:.2f}, {x.high:.2f}]" for x in (after, before))
    assert f"within {own} instead of {of_lambda.replace(' decades', '')} (" in readme
    for shape in found:
        [row] = re.findall(rf"\| {re.escape(shape.arm.label)} \| [^|]*\| [^|]*\| ([\d.]+) \|", readme)
        assert row == f"{shape.rise.centre:.2f}"


def test_the_readme_quotes_the_ledgers_line() -> None:
    line = summary_line(entries(RESULTS))
    assert f"\n- {line}\n" in (RESULTS / "LEDGER.md").read_text()
    assert f"Its summary: {line} " in " ".join((cli.ROOT / "README.md").read_text().split())


@pytest.mark.parametrize("name", folders(RESULTS))
def test_all_arms_of_a_committed_seed_are_of_one_kind_of_processor(name: str) -> None:
    assert mixed_seeds(read_runs(RESULTS / name)) == []
