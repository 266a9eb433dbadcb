"""One bad folder among the results is named and left out; the others are done, and the exit status is not 0."""

from pathlib import Path

import cli
import made_results
import pytest

from cl_repro.common.errors import Skipping, UserError

GOOD, EDITED, CUT = "split_mnist_fisher", "a_edited", "z_cut"
DONE = {
    "table.py": f"tables/collapse_{GOOD}.md",
    "plot.py": f"figures/collapse_{GOOD}.png",
    "report.py": "report/index.html",
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three studies, two of them damaged."""
    for name in (GOOD, EDITED, CUT):
        rows = made_results.fisher_rows(seeds=(1, 2), fishers=("exact", "empirical"))
        made_results.write(tmp_path / "results" / name, rows)
    runs = tmp_path / "results" / EDITED / "runs.csv"
    runs.write_text(runs.read_text().replace(",30.0,", ",31.0,", 1))
    (tmp_path / "results" / CUT / "provenance.json").write_text("{")
    return tmp_path / "results"


@pytest.mark.parametrize("script", ["table.py", pytest.param("plot.py", marks=pytest.mark.slow), "report.py"])
def test_bad_folders_are_named_and_the_others_done(
    script: str, results: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(results.parent)
    assert cli.script(monkeypatch, script) == 2
    out, err = capfd.readouterr()
    assert DONE[script] in out
    assert (results / DONE[script]).exists()
    first, second, last = err.splitlines()
    assert first.startswith(f"skipped results/{EDITED}: results/{EDITED}/runs.csv: edited since the run wrote it")
    assert second.startswith(f"skipped results/{CUT}: results/{CUT}/provenance.json: unreadable or cut short")
    assert last == f"error: skipped results/{EDITED}, results/{CUT}; the rest is done"


def test_a_folder_that_is_named_ends_the_command(
    results: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(results.parent)
    assert cli.script(monkeypatch, "table.py", GOOD, EDITED) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: results/{EDITED}/runs.csv: edited")
    assert not (results / "tables").exists()


def test_the_ledger_opens_no_folder_that_nothing_was_published_of(
    results: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(results.parent)
    assert cli.script(monkeypatch, "ledger.py") == 0
    assert "LEDGER.md" in capfd.readouterr().out


def test_a_mistake_of_the_program_is_told_with_its_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    skipping, done = Skipping(named=False), []
    for name in ("a", "b"):
        with skipping.attempt(Path(name)):
            done.append(1 / (name == "b"))
    assert done == [1.0]
    assert "ZeroDivisionError" in capfd.readouterr().err
    with pytest.raises(UserError, match=r"^skipped a; the rest is done$"):
        skipping.end()
    with pytest.raises(ZeroDivisionError), Skipping().attempt(Path("a")):
        done.append(1 / 0)
