"""Ours beside a published comparison of methods: verdicts by deltas of the rows, in table, figure and ledger."""

import shutil

import made_results
import pytest
from made_results import row
from scipy.stats import t as student

from cl_repro.analysis.comparisons.beside import COLOURS, draw, pairs_of
from cl_repro.analysis.comparisons.comparison import compared
from cl_repro.analysis.data.study import open_study
from cl_repro.analysis.lambdas.tables import tables_of
from cl_repro.analysis.ledger.files import regressions, write_ledger
from cl_repro.analysis.ledger.rows import entries
from cl_repro.analysis.output.markup import MINUS

STUDY, SEEDS = "hsu2018_table2", range(1, 21)
SAID = "that these rows agree says little"


def rows_of(arm, mean, scenario, spread=0.001):
    """Twenty seeds, `spread` apart around a mean in percent."""
    name, own = f"{arm} {scenario}", {"study": STUDY, "scenario": scenario}
    at = [mean / 100 + spread * (seed - 10.5) / 20 for seed in SEEDS]
    made = [row(name, arm.split("-")[0], "", None, seed, x, **own) for seed, x in zip(SEEDS, at, strict=True)]
    return [{**one, "arm": arm} for one in made]


def made(larger=95.6):
    """Adam 1 point above 93.46 ± 2.01 (its delta 3.0), SGD 2 points below 97.98 ± 0.09 (1), SI with a wide spread."""
    rows = rows_of("finetune", 94.46, "task") + rows_of("finetune-sgd", 95.98, "task")
    rows += rows_of("si", 64.8, "domain", 0.5) + rows_of("l2", 66.1, "domain") + rows_of("rehearsal", 90.8, "class")
    return rows + rows_of("rehearsal-4400_images", larger, "class")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Their folder, and a ledger."""
    root = tmp_path_factory.mktemp("results")
    made_results.write(root / STUDY, made())
    write_ledger(root)
    return root


def test_each_row_is_judged_by_its_own_delta(results):
    table = next(table for table in tables_of(open_study(STUDY, results)) if table.name == "beside")
    found = {(cells[0], cells[1]): cells[2:] for cells in table.rows}
    assert [pair[1] for pair in found] == ["Adam", "SGD", "L2", "SI", "naive rehearsal", "naive rehearsal-C"]
    assert found["task-incremental", "Adam"][-2:] == ("3.015", "agrees")
    assert found["task-incremental", "SGD"][-2:] == ("1", "differs")
    assert found["class-incremental", "naive rehearsal-C"][0] == "rehearsal [4400 images]"
    centre = found["task-incremental", "SGD"][3]
    assert centre.startswith(f"{MINUS}2.00 [{MINUS}2.07") and found["domain-incremental", "SI"][-1].startswith(
        "too few seeds"
    )
    assert any(SAID in note for note in table.notes) and any("(of each row, beside it)" in note for note in table.notes)


def test_pairs_that_are_asked_for_are_compared_seed_by_seed(results):
    """SI minus L2 is -1.3 + 49.9 x with x of even steps over twenty seeds: its t-interval in closed form."""
    table = next(table for table in tables_of(open_study(STUDY, results)) if table.name == "pairs")
    steps = [49.9 * (seed - 10.5) / 20 for seed in SEEDS]
    half = student.ppf(0.975, 19) * (sum(step**2 for step in steps) / 19 / 20) ** 0.5
    text = f"-1.30 [{-1.3 - half:+.2f}, {-1.3 + half:+.2f}]".replace("-", MINUS)
    assert table.rows == (("domain-incremental", f"SI {MINUS} L2", text, "20"),)


def test_the_ledger_tells_variants_apart_and_says_what_their_agreement_means(results):
    study = [entry for entry in entries(results) if entry.row["study"] == STUDY]
    verdict = {(e.row["scenario"], e.row["method"], e.row["variant"]): e.verdict for e in study}
    assert verdict["task", "finetune", ""] == "agrees" and verdict["task", "finetune", "sgd"] == "differs"
    assert verdict["class", "rehearsal", ""] == verdict["class", "rehearsal", "4400_images"] == "agrees"
    assert list(verdict.values()).count("not yet run") == len(study) - 6 == 24
    text = (results / "LEDGER.md").read_text()
    assert text.count(SAID) == 1 and "| differs, δ = 1 |" in text


def test_a_row_that_differs_now_is_told_from_those_of_other_variants_and_scenarios(results, tmp_path):
    shutil.copy(results / "ledger.csv", tmp_path)
    made_results.write(tmp_path / STUDY, made(larger=93.0))
    name = f"{STUDY}, hsu-2018, split_mnist, class, rehearsal, 4400_images, 128, accuracy"
    assert regressions(tmp_path) == [f"{name}: agrees in the ledger, now differs"]


def test_the_figure_draws_each_difference_in_the_colour_of_its_verdict(results):
    study = open_study(STUDY, results)
    figure = draw(study, pairs_of(study, compared(study)), "title")
    task, domain, class_ = figure.axes
    names = [axes.get_title("left").split()[-1] for axes in figure.axes]
    assert names == ["task-incremental", "domain-incremental", "class-incremental"]
    assert domain.get_xlabel() == f"accuracy, ours {MINUS} published (points)"
    centres = {c.lines[0].get_color(): c.lines[0].get_xdata()[0] for c in task.containers if hasattr(c, "has_xerr")}
    assert centres == {COLOURS["agrees"]: pytest.approx(1.0), COLOURS["differs"]: pytest.approx(-2.0)}
    assert [text.get_text() for text in class_.texts] == ["90.8 | 90.8", "95.6 | 95.6", "ours | theirs, %"]
    assert SAID in " ".join(figure.legends[0].get_title().get_text().split())
