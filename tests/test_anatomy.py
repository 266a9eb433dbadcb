"""The anatomy of the Fisher: its mathematics, its passes beside those of a run, its files, its figures and tables."""

import io
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import fmean, geometric_mean

import cli
import made_results
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy.stats import spearmanr

from cl_repro.analysis.data.study import open_study
from cl_repro.analysis.lambdas import collapse
from cl_repro.analysis.lambdas.accuracy import NOTHING, interval_text
from cl_repro.analysis.lambdas.later_traces import later_table
from cl_repro.analysis.measurements import anatomy_cost
from cl_repro.analysis.measurements.anatomy import open_anatomy, spread
from cl_repro.analysis.measurements.anatomy_tables import confidence_table, document, explanation, layers_table
from cl_repro.common.errors import UserError
from cl_repro.common.tree import flat
from cl_repro.measurements import anatomy, program
from cl_repro.measurements.anatomy import measures
from cl_repro.measurements.anatomy.measures import confidence, distance, layer_shares, reference
from cl_repro.study import study
from cl_repro.study.config import CONF

TIMED = ["seconds", "epoch_seconds", "git_sha", "dirty", "finished"]
DIGITS = ("iterations=150", "model.hidden=[64]")  # some passes draw a wrong label, some do not


def made_importance(seed: int = 0, n: int = 200) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    value = torch.rand(n, generator=generator, dtype=torch.float64) ** 4
    value[::7] = 0.0
    return {"fc1.weight": value[:120].view(1, 10, 12), "fc1.bias": value[120:150], "head.weight": value[150:]}


# --- the measures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1e-7, 0.3, 1.0, 2e5])
def test_a_multiple_has_an_error_and_no_shape_error(factor: float) -> None:
    made = made_importance()
    found = distance(factor * flat(made), reference(made))
    assert found.error == pytest.approx(abs(factor - 1))
    assert found.shape_error < 1e-12
    assert found.rank_correlation == pytest.approx(1)


def test_the_shape_error_is_the_sine_of_the_angle_and_below_the_error_of_any_factor() -> None:
    e, f = flat(made_importance()), flat(made_importance(1))
    found = distance(f, reference(made_importance()))
    assert found.shape_error == pytest.approx(math.sqrt(1 - float(f @ e) ** 2 / float((f @ f) * (e @ e))))
    errors = [float((c * f - e).norm() / e.norm()) for c in np.linspace(-1, 2, 301)]
    assert found.shape_error <= min(errors) + 1e-12
    assert min(errors) == pytest.approx(found.shape_error, rel=1e-3)


def test_right_angles_and_nothing_at_all_are_as_far_as_it_gets() -> None:
    made = {"a.weight": torch.tensor([1.0, 2.0, 0.0, 0.0])}
    for other in ([0.0, 0.0, 3.0, 1.0], [0.0, 0.0, 0.0, 0.0]):
        found = distance(torch.tensor(other, dtype=torch.float64), reference(made))
        assert found.shape_error == 1
        assert math.isnan(found.rank_correlation)  # constant where the reference is not zero
    assert math.isnan(distance(flat(made), reference({"a.weight": torch.zeros(4)})).error)


def test_the_rank_correlation_is_spearmans_over_what_is_not_zero_in_the_reference() -> None:
    made = made_importance()
    e, there = flat(made), flat(made) != 0
    monotone = torch.where(there, e.sqrt(), torch.linspace(0, 9, len(e), dtype=e.dtype))  # anything goes elsewhere
    assert distance(monotone, reference(made)).rank_correlation == pytest.approx(1)
    assert distance(1 - monotone, reference(made)).rank_correlation == pytest.approx(-1)
    tied = (flat(made_importance(1)) * 8).round()
    expected = spearmanr(tied[there], e[there]).statistic
    assert distance(tied, reference(made)).rank_correlation == pytest.approx(expected)


def test_shares_are_of_layers_and_sum_to_one() -> None:
    made = made_importance()
    found = layer_shares(made)
    assert list(found) == ["fc1", "head"]
    assert sum(found.values()) == pytest.approx(1)
    assert found["head"] == pytest.approx(float(made["head.weight"].sum() / flat(made).sum()))


def test_the_expected_wrong_labels_are_the_sum_of_one_minus_p() -> None:
    z = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.arange(50) % 3
    p = z.softmax(1)
    own = p.gather(1, y[:, None])[:, 0]
    found = confidence(z, y)
    assert found.wrong_expected == pytest.approx(float((1 - own).sum()))
    assert found.cross_entropy == pytest.approx(float(-own.log().mean()))
    assert found.errors == int((p.argmax(1) != y).sum()) > 0
    assert found.wrong_max == pytest.approx(float((1 - own).max()))
    assert found.top_ten_share == pytest.approx(float((1 - own).sort().values[-10:].sum() / (1 - own).sum()))
    columns = (p[:, None, :] - torch.eye(3, dtype=p.dtype)).square().sum(2)  # [N, 3], |p - onehot(y)|^2
    assert found.exact_weight == pytest.approx(float((p * columns).sum(1).mean()))
    assert found.empirical_weight == pytest.approx(float(columns.gather(1, y[:, None]).mean()))


def test_probabilities_below_what_one_minus_p_can_tell_are_not_lost() -> None:
    found = confidence(torch.tensor([[50.0, 0.0], [0.0, 60.0]]), torch.tensor([0, 1]))
    p = math.exp(-50), math.exp(-60)
    assert found.wrong_expected == pytest.approx(sum(p), abs=0)
    assert found.cross_entropy == pytest.approx(sum(p) / 2, abs=0)
    assert found.exact_weight == pytest.approx(sum(p), abs=0)  # 2 p (1 - p), mean of two
    assert found.empirical_weight == pytest.approx(sum(x * x for x in p), abs=0)


# --- the passes and the files ----------------------------------------------------------------------------------------


def measured(folder: Path, *overrides: str) -> pd.DataFrame:
    """Run the anatomy of the digits into a folder; its estimates."""
    done = program.measure_missing(anatomy.PROGRAM, [*DIGITS, *overrides, f"results_dir={folder}"])
    return pd.read_csv(done / "anatomy.csv")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results folder with the anatomy of two seeds of the digits."""
    folder = tmp_path_factory.mktemp("results")
    measured(folder, "seeds=[1,2]")
    return folder


@pytest.fixture
def rows(results: Path) -> pd.DataFrame:
    return pd.read_csv(results / "anatomy_split_digits" / "anatomy.csv")


def test_every_estimator_and_number_of_examples_is_there(rows: pd.DataFrame) -> None:
    one = rows[(rows["seed"] == 1) & (rows["repeat"] == 0)]
    cells = set(zip(one["estimator"], one["n"].fillna(0), strict=True))
    labelled = ("exact", "empirical", "sample", "predicted", "importance_sample")
    of_n = {(name, n) for name in labelled for n in (50, 100, 0)}
    of_n |= {(name, n) for name in ("exact_by_score", "importance_sample_by_score") for n in (50, 100)}
    assert cells == of_n | {("batched", 0)}  # 500 and 2000 are more than a task of the digits has
    exact = rows[(rows["estimator"] == "exact") & rows["n"].isna()]
    assert (exact[["error", "shape_error"]] == 0).all().all()
    assert (exact["rank_correlation"] == 1).all()
    assert (exact["backward_passes"] == exact["examples"]).all()  # two classes: one column
    batched = rows[rows["estimator"] == "batched"]
    assert (batched["backward_passes"] == -(-batched["examples"] // 32)).all()
    assert (rows["seconds"] > 0).all() and (rows["epoch_seconds"] > 0).all()


def test_an_estimate_is_that_of_a_run(rows: pd.DataFrame, tmp_path: Path) -> None:
    """Weights, examples and label noise of a run: `sample` depends on all three."""
    arms = cli.arms(*DIGITS, "method=ewc", "fisher=sample", "seeds=[2]", f"results_dir={tmp_path}")
    folder = study.compute_missing(arms, "made", cores=1).folder
    run = pd.read_csv(folder / "importance.csv").set_index("after_task")["trace"][0]
    own = rows[(rows["seed"] == 2) & (rows["estimator"] == "sample") & (rows["repeat"] == 0) & rows["n"].isna()]
    assert own["trace"].item() == pytest.approx(run, rel=1e-5)


def test_what_is_drawn_by_size_is_nearer_to_exact_than_what_is_not(rows: pd.DataFrame) -> None:
    """Two classes: one importance-sampled label is exact. Draws of examples are of their own."""
    label = rows[rows["estimator"] == "importance_sample"].set_index(["seed", "n", "repeat"]).sort_index()
    exact = rows[rows["estimator"] == "exact"].set_index(["seed", "n"])["trace"]
    assert label["trace"].to_numpy() == pytest.approx(
        exact.reindex(label.index.droplevel("repeat")).to_numpy(), rel=1e-5
    )
    chosen = rows[rows["estimator"] == "exact_by_score"]
    assert chosen.groupby(["seed", "n"])["trace"].nunique().eq(5).all()
    medians = rows[rows["n"] == 100].groupby("estimator")["error"].median()
    assert medians["exact_by_score"] < medians["exact"]
    assert (chosen["backward_passes"] == chosen["n"]).all()


def test_sample_is_empirical_exactly_where_it_draws_no_wrong_label(rows: pd.DataFrame) -> None:
    sample = rows[rows["estimator"] == "sample"]
    assert (sample["equals_empirical"].astype(bool) == (sample["wrong_drawn"] == 0)).all()
    assert sample["equals_empirical"].nunique() == 2  # or the line above asks little
    assert sample.groupby(["seed", "n"], dropna=False)["trace"].nunique().max() > 1  # the draws are of their own


def test_another_seed_is_added_and_those_that_are_there_stay(results: Path, tmp_path: Path) -> None:
    """Also behind a folder that an earlier version has replaced as a whole."""
    shutil.copytree(results, tmp_path / "results")
    path = tmp_path / "results" / "anatomy_split_digits"
    known = json.loads((path / "provenance.json").read_text())
    (path / "provenance.json").write_text(json.dumps(known | {"previous": known["files"]}))
    before = (path / "anatomy.csv").read_text()
    measured(tmp_path / "results", "seeds=[1,3]")
    after = (path / "anatomy.csv").read_text()
    assert after.startswith(before)
    assert set(pd.read_csv(io.StringIO(after))["seed"]) == {1, 2, 3}


@pytest.mark.slow
def test_estimators_that_an_earlier_version_had_not_are_added_on_the_same_network(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sample among them, which is compared with one that is there; what describes the network is not doubled."""
    with monkeypatch.context() as earlier:
        earlier.setattr(anatomy.folder, "ESTIMATORS", ("exact", "empirical", "predicted"))
        measured(tmp_path, "seeds=[1]")
    folder = tmp_path / "anatomy_split_digits"
    before = {path.name: path.read_text() for path in folder.glob("*.csv")}
    with monkeypatch.context() as elsewhere:  # as on another kind of processor: here it is trained one step longer
        config_id = pd.read_csv(folder / "anatomy.csv")["config_id"][0]
        elsewhere.setattr(anatomy.folder, "first_task_id", lambda *_: config_id)
        with pytest.raises(UserError, match=r"^seeds=\[1\]: here its network has a cross entropy of"):
            measured(tmp_path, "seeds=[1]", "iterations=151")
    assert {path.name: path.read_text() for path in folder.glob("*.csv")} == before
    measured(tmp_path, "seeds=[1]")
    after = {path.name: path.read_text() for path in folder.glob("*.csv")}
    assert all(after[name].startswith(before[name]) for name in before)
    assert after["confidence.csv"] == before["confidence.csv"]
    for name in ("anatomy.csv", "layers.csv"):
        whole, added = (pd.read_csv(place / name) for place in (results / folder.name, folder))
        expected, found = (
            frame.drop(columns=TIMED, errors="ignore").sort_values(["estimator", "n", "repeat"], kind="stable")
            for frame in (whole[whole["seed"] == 1], added)
        )
        pd.testing.assert_frame_equal(found.reset_index(drop=True), expected.reset_index(drop=True))
    measured(tmp_path, "seeds=[1]")
    assert {path.name: path.read_text() for path in folder.glob("*.csv")} == after, "nothing is measured twice"


@pytest.mark.slow
def test_another_configuration_and_an_edited_file_are_refused(results: Path, tmp_path: Path) -> None:
    shutil.copytree(results / "anatomy_split_digits", tmp_path / "made")
    with pytest.raises(UserError, match="another configuration; set name="):
        measured(tmp_path, "seeds=[1]", "name=made", "batch_size=64")
    path = tmp_path / "made" / "anatomy.csv"
    path.write_text(path.read_text().replace(",exact,", ",exactly,", 1))
    with pytest.raises(UserError, match="edited since the run wrote it"):
        measured(tmp_path, "seeds=[1]", "name=made")
    with pytest.raises(UserError, match="edited since the run wrote it"):
        open_anatomy("made", tmp_path)


def test_what_no_task_can_do_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batch_size=5000: must be at most the 272 examples"):
        measured(tmp_path, "seeds=[1]", "batch_size=5000")
    assert not list(tmp_path.iterdir())


# --- tables and figures ----------------------------------------------------------------------------------------------


def test_the_explanation_says_what_the_numbers_say(results: Path) -> None:
    found = open_anatomy("anatomy_split_digits", results)
    ratio = found.confidence["empirical_weight"] / found.confidence["exact_weight"]
    assert confidence_table(found).rows[-1][1] == spread(ratio) and ratio.max() < 1
    many = found.passes.assign(n=found.passes["n"].replace(100, 500))
    rows = many[(many["estimator"] == "exact") & (many["n"] == 500)]
    text = " ".join(explanation(found._replace(passes=many)))
    assert f"EXACT of 500 examples is {spread(rows['shape_error'])} away" in text
    sample = found.passes[(found.passes["estimator"] == "sample") & found.passes["n"].isna()]
    for drawn, says, denies in (
        (0, "is EMPIRICAL, number for number, in 10 of 10", "for want"),
        (3, "for want", "ber,"),
    ):
        told = found.passes.copy()
        told.loc[sample.index, "wrong_drawn"] = drawn
        told.loc[sample.index, "equals_empirical"] = str(drawn == 0)
        text = " ".join(explanation(found._replace(passes=told)))
        assert says in text and denies not in text
        assert f"{10 if drawn == 0 else 0} of 10 passes drew none" in text
        expected = found.confidence["wrong_expected"]
        assert f"draws {spread(expected)} of them in expectation" in text
        assert f"none at all with probability about {spread(np.exp(-expected))}." in text
        assert f"EMPIRICAL {spread(ratio)} times EXACT" in text and "EXACT of 500" not in text  # a task has fewer
        assert ("rare large passes" in text) == (drawn == 0), "of networks that are sure"
    for share, says in ((0.5, "Few examples decide"), (0.04, "Many examples decide")):  # of 272 to 289: alike 0.035
        other = found.confidence.assign(top_ten_share=share)
        assert says in " ".join(explanation(found._replace(confidence=other)))


def test_shares_of_layers_are_of_all_examples(results: Path) -> None:
    found = open_anatomy("anatomy_split_digits", results)
    layers = found.layers.assign(share=found.layers["share"].where(found.layers["n"].isna(), 9.0))
    whole = layers[layers["n"].isna() & (layers["estimator"] == "exact")].groupby("layer", sort=False)["share"].mean()
    table = layers_table(found._replace(layers=layers))
    assert [(cells[0], cells[1]) for cells in table.rows] == [(name, f"{100 * x:.1f}") for name, x in whole.items()]


@pytest.mark.slow
def test_figure_and_tables_are_made_from_the_csvs_without_torch(results: Path, tmp_path: Path) -> None:
    made_results.write(results / "made_study", made_results.fisher_rows(seeds=(1, 2), fishers=("exact", "batched")))
    program = (
        "import runpy, sys; sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__'); assert 'torch' not in sys.modules"
    )
    for name in ("plot.py", "table.py"):
        script, out = cli.ROOT / "scripts" / name, tmp_path / name
        command = [sys.executable, "-c", program, script, "--results-dir", results, "--out", out]
        subprocess.run(command, check=True, capture_output=True)
    made = {"anatomy_split_digits", "collapse_made_study", "made_study"}
    for kind in ("png", "svg"):
        stems = {path.stem for path in (tmp_path / "plot.py").glob(f"*.{kind}")}
        assert stems == {*made, "memory_survival"}
    assert {path.stem for path in (tmp_path / "table.py").glob("*.md")} == made
    found = open_anatomy("anatomy_split_digits", results)
    [drawing] = anatomy_cost.drawings(found)
    again = drawing.write(tmp_path / "again")
    assert all(path.read_bytes() == (tmp_path / "plot.py" / path.name).read_bytes() for path in again)
    text = document(found).write(tmp_path)[0].read_text()
    assert "| EXACT (n=50) |" in text and "| BATCHED (b=32) |" in text and "| fc1 |" in text


def test_curves_that_differ_in_scale_only_collapse(tmp_path: Path) -> None:
    made_results.write(tmp_path / "made", made_results.fisher_rows(seeds=range(1, 11)))
    made = open_study("made", tmp_path)
    found = collapse.collapse(made)
    assert found is not None
    rises = made_results.RISES
    assert found.spread.centre == pytest.approx(max(rises.values()) - min(rises.values()), abs=0.03)
    moved = [rises[arm.fisher] + math.log10(made_results.TRACES[arm.fisher]) for arm in found.grid.arms]
    assert found.rescaled_spread.centre == pytest.approx(max(moved) - min(moved), abs=0.03)
    assert found.rescaled_spread.low <= found.rescaled_spread.centre <= found.rescaled_spread.high < 1
    left, right = collapse.draw(found, "made").axes
    x = [{line.get_label(): line.get_xdata() for line in axes.lines} for axes in (left, right)]
    for a, arm in enumerate(found.grid.arms):
        assert x[1][arm.label] == pytest.approx(x[0][arm.label] * 10 ** found.log_trace[a])


def test_curves_that_do_not_differ_in_scale_do_not_collapse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_results, "TRACES", dict.fromkeys(made_results.TRACES, 1e-3))
    made_results.write(tmp_path / "made", made_results.fisher_rows())
    found = collapse.collapse(open_study("made", tmp_path))
    assert found is not None
    assert found.rescaled_spread.centre == pytest.approx(found.spread.centre)
    assert "accounts for 0%" in collapse.table(open_study("made", tmp_path), found).notes[1]


def test_a_rise_at_the_first_lambda_of_an_arm_is_an_upper_bound(tmp_path: Path) -> None:
    rows = made_results.fisher_rows()  # exact: half-way at 10^1.5; its grid begins at 100 here
    rows = [row for row in rows if row["fisher"] != "exact" or row["lambda"] >= 100]
    made_results.write(tmp_path / "made", rows)
    made = open_study("made", tmp_path)
    found = collapse.collapse(made)
    assert found is not None
    shown = {row[0]: row for row in collapse.table(made, found).rows}
    assert shown["EXACT"][1].startswith("≤ 2.00") and shown["EXACT"][3].startswith("≤ ")
    assert not any("≤" in cell for name, row in shown.items() if name != "EXACT" for cell in row)
    rises = [each.centre for each in found.rises]
    assert shown["spread, decades"][1].startswith(f"≥ {max(rises) - min(rises):.2f}")  # EXACT's is the smallest
    assert [axes.get_title("left") for axes in collapse.draw(found, "made").axes] == [
        rf"$\bf{{{letter}}}$  rises at least {interval_text(one, sign='')} decades apart"
        for letter, one in zip("ab", (found.spread, found.rescaled_spread), strict=True)
    ]


def test_how_far_apart_rises_are_at_least_where_some_are_upper_bounds() -> None:
    values = np.array([[1.0, 2.0, 4.0]])
    for at_most, expected in (
        ((False, False, False), 3),
        ((True, False, False), 3),  # its own may be less still
        ((False, False, True), 1),  # may be anywhere below 4: the other two are sure
        ((False, True, True), 0),
        ((True, True, True), -np.inf),  # nothing is known
    ):
        assert collapse.apart(values, at_most) == expected


def test_runs_below_the_rise_are_told_apart_by_the_fisher_of_later_tasks(tmp_path: Path) -> None:
    rows = made_results.fisher_rows()
    made_results.write(tmp_path / "made", rows)
    path = tmp_path / "made" / "importance.csv"
    traces = pd.read_csv(path)
    below = [r for r in rows if r["fisher"] == "exact" and 0 < r["lambda"] < 10 ** made_results.RISES["exact"]]
    jumped = [r["run_id"] for r in below if r["seed"] == 1]
    traces.loc[traces["run_id"].isin(jumped) & (traces["after_task"] == 2), "trace"] *= 1000
    traces.to_csv(path, index=False)
    made_results.write_provenance(tmp_path / "made")
    made = open_study("made", tmp_path)
    found = collapse.collapse(made)
    assert found is not None
    table = later_table(made, found.grid, found.rises)
    assert table is not None
    shown = {row[0]: row[1:] for row in table.rows}
    means = [100 * fmean(r["accuracy"] for r in below if (r["seed"] == 1) == large) for large in (True, False)]
    assert shown["EXACT"][1:3] == (str(len(jumped)), f"{means[0]:.2f}")
    assert shown["EMPIRICAL"][1:3] == ("0", NOTHING)
    assert shown["all"][1] == str(len(jumped)) and int(shown["all"][3]) > int(shown["EXACT"][3])
    of = {(row.run_id, row.after_task): row.trace for row in traces.itertuples()}
    tasks = sorted({task for _, task in of} - {0})
    typical = geometric_mean(of[r["run_id"], k] / of[r["run_id"], 0] for r in below for k in tasks)
    assert shown["EXACT"][0] == f"{typical:.3g}"


def test_a_study_without_two_traces_has_nothing_to_collapse(tmp_path: Path) -> None:
    made_results.write(tmp_path / "made", made_results.fisher_rows(fishers=("exact",)))
    made = open_study("made", tmp_path)
    assert collapse.collapse(made) is None and collapse.drawings(made) == collapse.documents(made) == []


def test_the_accuracy_study_is_the_published_one_and_more() -> None:
    ours, published = (
        yaml.safe_load((CONF / "study" / f"{name}.yaml").read_text())
        for name in ("fisher_anatomy", "split_mnist_fisher")
    )
    assert ours["defaults"] == published["defaults"]  # so equal arms have equal run ids
    fishers = [arm.get("fisher") for arm in ours["arms"]]
    assert all(arm in ours["arms"] for arm in published["arms"])
    assert {f"{name}{n}" for name in ("exact", "sample", "empirical") for n in ("", "_500")} < set(fishers)


def test_ranks_share_what_is_equal() -> None:
    assert measures.ranks(torch.tensor([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1, 3.5, 2]
