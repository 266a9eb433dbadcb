"""The results in the repository: intact, made by today's configuration, and saying what README and docs say."""

# ruff: noqa: RUF001 - minus signs and dashes as the pages have them

import csv
import re
from collections import Counter
from pathlib import Path
from typing import Any

import cli
import pytest
import yaml
from curves_of import curves, rises

from cl_repro.analysis.data.read import read_runs
from cl_repro.analysis.data.study import mixed_seeds, open_study
from cl_repro.analysis.kinds import STUDY, folders
from cl_repro.analysis.lambdas.accuracy import accuracy_rows
from cl_repro.analysis.lambdas.collapse import collapse
from cl_repro.analysis.lambdas.pairs import pair_tables
from cl_repro.analysis.lambdas.tables import gap_table, log_traces, shapes
from cl_repro.analysis.lambdas.timing import timings
from cl_repro.analysis.ledger.files import summary_line
from cl_repro.analysis.ledger.rows import NOT_RUN, VERDICTS, entries
from cl_repro.common import moved
from cl_repro.common.stats import DIFFERS, paired
from cl_repro.measurements.anatomy.folder import first_task_id
from cl_repro.measurements.idea import picture_id
from cl_repro.records import Store, identity, kept
from cl_repro.study import grid, provenance

RESULTS = cli.ROOT / "results"
README = (cli.ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {  # of the studies in the ledger
    "fisher": {"split_mnist_fisher", "split_cifar10_fisher", "split_cifar10_fisher_draft"},
    "unifying": {"unifying_table1", "unifying_table2", "unifying_appendix"},
    "comparison": {"hsu2018_table2", "palliatives_split_mnist"},
    "libraries": set(),
}
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
    cfg = dict.fromkeys((*identity.SCIENCE, *identity.SWITCHES, "label")) | cfg
    if "idea" in cfg:
        return picture_id(cfg)
    if cfg["method"] is None:  # of an anatomy, which holds what comes before the method
        return first_task_id(cfg, "cpu")
    if "figures" not in cfg:
        return identity.config_id(cfg)
    shared = identity.science(cfg) | {"reinit": None}
    label = f"c{cfg['lam']:g}" + ("_reinit" if cfg["reinit"] else "")
    return f"{identity.digest([shared, cfg['figures']['examples']], 4)}_{label}"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*/windows.json")), ids=lambda path: path.parent.name)
def test_committed_windows_are_those_of_the_lambdas_beside_them(path: Path) -> None:
    """Every trace is of a configuration that is there, and of the rows of its first seed.

    To 1e-3: the first task that was measured is one replica's, and rows may come from a stack, which rounds otherwise.
    """
    rows = Store(path.parent).read()
    seeds = {row["run_id"]: (row["config_id"], row["seed"]) for row in rows["runs.csv"]}
    measured = {
        (*seeds[row["run_id"]], float(row["trace"])) for row in rows["importance.csv"] if row["after_task"] == "0"
    }
    for config_id, trace in kept(path.parent, path.name).items():
        found = [value for name, seed, value in measured if (name, seed) == (config_id, "1")]
        assert found and all(value == pytest.approx(trace, rel=1e-3) for value in found)


def test_every_committed_configuration_still_has_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is renamed, moved or added: the same science, the same name; by the old targets and by the new."""
    paths = sorted(RESULTS.glob("*/configs/*.yaml"))
    assert len(paths) >= 308
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    cfgs = {path: yaml.load(path.read_bytes(), loader) for path in paths}
    assert {path: cfg for path, cfg in cfgs.items() if named_by(cfg) != path.stem} == {}
    rooms = ("memory", "methods", "models.mlp", "benchmarks")  # those of today, among them what was moved before
    again = {f"cl_repro.{room}": f"cl_repro.moved_again.{room}" for room in rooms}
    monkeypatch.setattr(moved, "MOVED", moved.MOVED | again)
    assert {path: cfg for path, cfg in cfgs.items() if named_by(by_todays_names(cfg)) != path.stem} == {}
    assert sum(by_todays_names(cfg) != cfg for cfg in cfgs.values()) == len(cfgs)


def by_todays_names(value: Any) -> Any:
    """A configuration as the files under conf/ would write it after these moves."""
    if isinstance(value, dict):
        return {k: moved.now(v) if k == "_target_" else by_todays_names(v) for k, v in value.items()}
    return [by_todays_names(v) for v in value] if isinstance(value, list) else value


def test_nothing_names_the_machine_it_was_made_on() -> None:
    for path in [*RESULTS.rglob("*.json"), *RESULTS.rglob("*.yaml")]:
        assert str(Path.home()) + "/" not in path.read_text()
        assert not any(folder in path.read_text() for folder in provenance.FOLDERS)


def test_mnist_gaps_between_rises_are_as_the_traces_predict() -> None:
    """To 0.3 decades; 3.13, 2.22 and what traces predict are in the README and results/tables/split_mnist_fisher.md."""
    at = rises(curves("split_mnist_fisher", RESULTS))
    for first, second, gap, predicted in (("empirical", "exact", 3.13, 3.30), ("batched", "empirical", 2.22, 2.10)):
        assert at[first] - at[second] == pytest.approx(gap, abs=0.005)
        assert gap == pytest.approx(predicted, abs=0.3)


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
    grid_, readme = curves("split_mnist_fisher", RESULTS), " ".join(README.split())
    found, traces = shapes(study, grid_), log_traces(study, grid_)
    gaps = gap_table(study, found, traces)
    assert gaps
    (gap, low, high, predicted), (gap2, low2, high2, predicted2) = (
        re.findall(r"\d\.\d\d", " ".join(row[1:]))[:4] for row in gaps.rows[:2]
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
    twin = collapse(open_study("split_cifar10_fisher_cpu", RESULTS))
    assert twin
    assert f": {twin.rescaled_spread.centre:.2f} instead of {twin.spread.centre:.2f} (" in readme


def test_the_readme_recommends_what_the_rises_say() -> None:
    study, grid_ = open_study("fisher_importance_sampling", RESULTS), curves("fisher_importance_sampling", RESULTS)
    found = {shape.arm.fisher: shape for shape in shapes(study, grid_)}
    readme = " ".join(README.split())
    gap = {fisher: shape.rise.centre - found["exact"].rise.centre for fisher, shape in found.items()}
    table_ = gap_table(study, list(found.values()), log_traces(study, grid_))
    assert table_
    limits = {row[0]: re.search(r"\[.*\]", row[1])[0].replace("+", "") for row in table_.rows}
    for fisher, name in (("importance_sample", "IMPORTANCE SAMPLE"), ("exact_by_score_500", "EXACT BY SCORE (n=500)")):
        assert f"{gap[fisher]:.2f} decades {limits[f'{name} − EXACT']}" in readme
    assert f"rises {gap['sample']:.2f} decades later" in readme
    assert f"rise {gap['exact_500']:.2f} {limits['EXACT (n=500) − EXACT']} decades later" in readme
    of_sample = []
    for place in ("permuted_mnist_cpu", "cifar10_100_cpu", "split_cifar100_cpu"):
        name = f"fisher_importance_sampling_{place}"
        other, other_grid = open_study(name, RESULTS), curves(name, RESULTS)
        rows = gap_table(other, shapes(other, other_grid), log_traces(other, other_grid))
        assert rows
        cells = {row[0]: row[1].replace("+", "") for row in rows.rows}
        assert re.search(rf"{re.escape(cells['IMPORTANCE SAMPLE − EXACT'])} \(\[[^]]*\]\([^)]*{name}\.md\)", readme)
        of_sample.append(cells["SAMPLE − EXACT"].partition(" ")[0])
    assert f"SAMPLE {', '.join(of_sample[:2])} and {of_sample[2]}." in readme


def test_the_readme_quotes_accuracies_rises_and_times() -> None:
    study, grid_ = open_study("split_mnist_fisher", RESULTS), curves("split_mnist_fisher", RESULTS)
    rise = {shape.arm.label: f"{shape.rise.centre:.2f}" for shape in shapes(study, grid_)}
    times = {row.fisher: row for row in timings(open_study("split_mnist_timing", RESULTS))}
    none, body = times[""], []
    rows = accuracy_rows(study, grid_)
    for row in rows:
        theirs, time = row.beside["blog-final"].theirs, times[row.arm.fisher]
        ratios = [
            f"{one.mean / none.ours.mean:.2f}" for one in (time.one_sample if time.fisher else time.ours, time.ours)
        ]
        means = [f"{one.mean:.2f} ± {one.sem:.2f}" for one in (row.ours, theirs)]
        body.append([row.arm.label, *means, rise.get(row.arm.label, "–"), *ratios])
    assert table(README, "Split MNIST, best λ")[1:] == body
    best = [row.ours.mean for row in rows if row.arm.method == "ewc"]
    assert f"At their best λ the five are within {max(best) - min(best):.2f} points" in README
    verdicts = Counter(row.beside["blog-final"].comparison.verdict for row in rows)
    assert verdicts == {"agrees": 3, "too few seeds": 3}
    assert "three of six rows agree, and three need more seeds" in " ".join(README.split())
    estimators, *_ = pair_tables(study, grid_)
    apart = {cells[0] for cells in estimators.rows if not re.search(r"\[−.*, \+", cells[2])}  # intervals without 0
    assert apart == {"EXACT − EXACT (n=500)", "EXACT (n=500) − BATCHED (b=128)"}


def table(text: str, first: str) -> list[list[str]]:
    """The cells of the table whose header begins so, without the line under it."""
    lines = text[text.index(f"| {first}") :].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if not line.startswith("|--")]


def test_the_readme_quotes_what_a_study_costs() -> None:
    with (RESULTS / "bench" / "whole_study.csv").open() as file:
        [row] = csv.DictReader(file)
    assert row["value_unit"] == "core-min"
    for seeds in (5, 30):
        assert re.search(rf"# {seeds} seeds.*: {float(row['value']) * seeds / 60:.0f} core-hours", README)


def test_readme_and_documentation_quote_the_ledger() -> None:
    found = entries(RESULTS)
    line = summary_line(found)
    assert f"\n- {line}\n" in (RESULTS / "LEDGER.md").read_text()
    assert f"Its summary: {line}" in " ".join((cli.ROOT / "docs/results.md").read_text().split())
    missing = sum(entry.verdict == NOT_RUN for entry in found)
    assert f"Of {len(found)} published numbers {missing} have not been run" in README
    verdicts = {row[1]: row[3] for row in table(README, "study")[1:]}
    for page, studies in PAGES.items():
        counted = Counter(entry.verdict for entry in found if entry.row.study in studies)
        text = ", ".join(f"{verdict} {counted[verdict]}" for verdict in VERDICTS if counted[verdict])
        assert verdicts.pop(f"[{page}](docs/studies/{page}.md)") == (text or "none was published")
    assert not verdicts
    assert {entry.row.study for entry in found} == set().union(*PAGES.values())


CLAIMS = {  # of Benzing's Table 1: (method, its published lambda on Permuted MNIST), minus the same
    "SIU − SI": (("siu", 2.0), ("si", 0.2)),
    "SIB − SI": (("sib", 0.5), ("si", 0.2)),
    "SI cost accuracy": (("si-large_batch", 1.0), ("si", 0.2)),
    "and SOS none": (("sos-large_batch", 10.0), ("sos", 1.0)),
    "AF − MAS": (("af", 200.0), ("mas", 500.0)),
    "√Fisher − MAS": (("sqrt_fisher", 2.0), ("mas", 500.0)),
}


def test_the_page_quotes_the_differences_of_table_1_at_the_published_coefficients() -> None:
    runs = read_runs(RESULTS / "unifying_table1_permuted_mnist_cpu")
    rows = table((cli.ROOT / "docs/studies/unifying.md").read_text(), "claim")[1:]
    for row, (one, other) in zip(rows, CLAIMS.values(), strict=True):
        a, b = (
            runs[(runs["arm"] == arm) & (runs["lambda"] == lam)].sort_values("seed")["accuracy"].to_numpy() * 100
            for arm, lam in (one, other)
        )
        found = paired(a, b, 0.95)
        text = f"{found.centre:+.1f} [{found.low:+.1f}, {found.high:+.1f}]".replace("-", "−")
        assert row[4] == text


@pytest.mark.parametrize("name", folders(RESULTS, STUDY))
def test_all_arms_of_a_committed_seed_are_of_one_kind_of_processor(name: str) -> None:
    assert mixed_seeds(read_runs(RESULTS / name)) == []
