"""What a notebook uses: run, read, draw, without the names of the inside."""

import subprocess
import sys
from pathlib import Path

import cli
import pytest

import cl_repro
from cl_repro.analysis.data.study import open_study
from cl_repro.analysis.lambdas import collapse
from cl_repro.analysis.output.figures import save
from cl_repro.common.errors import UserError

RESULTS = cli.ROOT / "results"


def test_a_configuration_is_run_and_read_and_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("fisher=exact", "lam=10", "seeds=[1,2]", "iterations=5", "workers=1", f"results_dir={tmp_path}")
    runs = cl_repro.run(*asked)
    assert runs[["fisher", "lam", "seed", "status"]].to_numpy().tolist() == [
        ["exact", 10.0, 1, "ok"],
        ["exact", 10.0, 2, "ok"],
    ]
    monkeypatch.setattr("cl_repro.study.worker.Workshop.attempt", None)
    assert cl_repro.run(*asked).equals(runs)
    assert cl_repro.read_folder(tmp_path / "runs").equals(runs)


@pytest.mark.parametrize(("wrong", "rule"), [("lam=-1", "lambda"), ("lam=1,2", "lam"), ("nothing=1", "nothing")])
def test_what_the_command_refuses_is_refused(tmp_path: Path, wrong: str, rule: str) -> None:
    with pytest.raises(UserError, match=rule):
        cl_repro.run(wrong, f"results_dir={tmp_path}")
    assert not list(tmp_path.iterdir())


def test_the_tables_are_those_of_the_results() -> None:
    tables = cl_repro.read_tables(RESULTS / "split_mnist_fisher")
    text = (RESULTS / "tables" / "split_mnist_fisher.md").read_text(encoding="utf-8")
    shown = {name: table._repr_markdown_().removeprefix("#").strip() for name, table in tables.items()}
    last = [shown.pop(name) for name in ("collapse", "later")]
    assert text.endswith("\n\n".join(shown.values()) + "\n")
    text = (RESULTS / "tables" / "collapse_split_mnist_fisher.md").read_text(encoding="utf-8")
    assert text.endswith("\n\n".join(last) + "\n")


@pytest.mark.slow
def test_the_figure_is_that_of_the_results(tmp_path: Path) -> None:
    [drawing] = collapse.drawings(open_study("split_mnist_fisher", RESULTS))
    figure = cl_repro.draw_folder(RESULTS / "split_mnist_fisher", rescaled=True)
    saved = save(figure, drawing.title, drawing.source, tmp_path / "here" / drawing.name)
    for one, other in zip(saved, drawing.write(tmp_path), strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_a_folder_without_curves_has_no_figure_of_them() -> None:
    with pytest.raises(UserError, match=r"has no curves of accuracy against lambda$"):
        cl_repro.draw_folder(RESULTS / "hsu2018_table2")


@pytest.mark.slow
def test_the_lines_of_the_documentation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (cli.ROOT / "docs" / "running.md").read_text(encoding="utf-8")
    lines = page.partition("## From Python")[2].partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(lines, {})
    assert (tmp_path / "results" / "first_smoke" / "runs.csv").is_file()


def test_importing_it_imports_nothing_else() -> None:
    program = "import sys, cl_repro; print({'torch', 'pandas', 'hydra'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=cli.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_there_is_nothing_else() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cl_repro.nothing
