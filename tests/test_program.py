"""Measurements beside a study: killed at any moment and started again, in time, again, and told how far they are."""

import io
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cli
import pandas as pd
import pytest

from cl_repro.common.errors import UserError
from cl_repro.measurements import anatomy, idea, program, strength_search, unifying
from cl_repro.measurements.program import Bench, Program
from cl_repro.records import Store
from cl_repro.study import study

PROGRAMS = {of.script: of for of in (anatomy.PROGRAM, idea.PROGRAM, strength_search.PROGRAM, unifying.PROGRAM)}
SMALL = {
    "anatomy": ["iterations=30", "model.hidden=[5]", "seeds=[1,2]"],
    "idea": [
        "benchmark.n_tasks=2", "iterations=20", "model.hidden=[5]", "+benchmark.protocol.idea={points: 3, every: 5}",
        "name=idea", "seeds=[1]", "arms=[{method: finetune},{method: ewc, lam: 10}]",
    ],
    "unifying": [
        "benchmark.n_tasks=2", "iterations=6", "model.hidden=[5]", "method=si", "optim=adam_reset", "lam=0.5",
        "reinit=true", "+benchmark.protocol.figures.full_every=2", "+benchmark.protocol.figures.points=3",
        "seeds=[1,2]",
    ],
    "strength_search": [
        "benchmark.n_tasks=2", "model.hidden=[5]", "optim=sgd_momentum", "lam=0.5", "val_fraction=0.2", "seeds=[1]",
        "+benchmark.protocol.search.epochs=2", "+benchmark.protocol.search.rates=[0.1]",
        "arms=[{method: si},{method: l2}]", "+benchmark.protocol.search.rates_first=[0.1,0.01]",
    ],
}  # fmt: skip
TIMED = ("seconds", "epoch_seconds", "finished")


def run(of: Program, folder: Path, *overrides: str) -> Path:
    """Measure digits into a folder."""
    return program.measure_missing(of, [*SMALL[of.script], *overrides, f"results_dir={folder}"])


def tables(of: Program, folder: Path) -> dict[str, Any]:
    """All rows but for what takes time; other files as they are."""
    found: dict[str, Any] = {}
    for name in sorted(path.name for path in folder.glob("[!.]*.*") if path.name != "provenance.json"):
        data = (folder / name).read_bytes()
        if name in of.tables:
            frame = pd.read_csv(io.BytesIO(data), dtype=str)
            found[name] = frame[[column for column in frame if column not in TIMED]].to_csv()
        else:
            found[name] = data
    return found


@contextmanager
def counted(path: Path) -> Iterator[None]:
    """Every cell that begins is a line of this file."""
    with pytest.MonkeyPatch.context() as patched:
        rows = Bench.rows

        def noted(self: Bench, job: Any) -> Any:
            with path.open("a") as file:
                file.write(f"{job.chunk[0].run_id}\n")
            return rows(self, job)

        patched.setattr(Bench, "rows", noted)
        yield


def test_who_interrupts_a_measurement_reads_one_line_and_keeps_its_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = Bench.rows

    def interrupted(self: Bench, job: Any) -> Any:
        if job.chunk[0].seed == 2:
            raise KeyboardInterrupt
        return rows(self, job)

    monkeypatch.setattr(Bench, "rows", interrupted)
    assert cli.script(monkeypatch, "measure.py", "unifying", *SMALL["unifying"], f"results_dir={tmp_path}") == 130
    err = capfd.readouterr().err
    assert err.splitlines()[-1] == "interrupted; what is finished is kept: the same command continues"
    assert "Traceback" not in err
    [folder] = (path.parent for path in tmp_path.glob("*/networks.csv"))
    assert pd.read_csv(folder / "networks.csv")["seed"].tolist() == [1]


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_killed_at_a_random_moment_it_goes_on_and_its_rows_are_those_of_an_undisturbed_one(
    name: str, tmp_path: Path
) -> None:
    """By a signal that nothing catches, after a share of the computing time; one cell at most is measured twice."""
    of, notes, share = PROGRAMS[name], tmp_path / "notes", random.random()
    began = time.process_time()
    with counted(tmp_path / "all"):
        expected = run(of, tmp_path / "undisturbed")
    spent = time.process_time() - began
    with counted(notes):
        if (pid := os.fork()) == 0:
            signal.setitimer(signal.ITIMER_VIRTUAL, max(1e-3, share * spent))  # SIGVTALRM ends the process
            try:
                run(of, tmp_path / "killed")
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        done = run(of, tmp_path / "killed")
    told = f"killed after {share:.3f} of {spent:.2f} s"
    assert tables(of, done) == tables(of, expected), told
    assert len(notes.read_text().split()) <= len((tmp_path / "all").read_text().split()) + 1, told
    assert not list((done / ".spool").glob("*.json")), told


@pytest.mark.parametrize(
    "name",
    ["idea", "unifying", *(pytest.param(name, marks=pytest.mark.slow) for name in ("anatomy", "strength_search"))],
)
def test_what_no_time_is_left_for_comes_next_and_what_is_there_stays(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first cell of a launch always begins; `status` tells, with and without a folder."""
    of, own = PROGRAMS[name], SMALL[name]
    chunks = [len(chunk) for chunk in program.chunks(of, of.arms(own))]
    cells, later = sum(chunks), sum(chunks[1:])
    program.tell(of, [*own, f"results_dir={tmp_path}"])
    told = capsys.readouterr().out
    assert f"{cells} missing" in told
    if name == "anatomy":
        assert told.splitlines()[2].split()[:2] == ["-", "··"], "a network without a penalty has no lambda"
    if later:
        with pytest.raises(UserError, match=f"^{later} of {cells} runs are missing; the same command"):
            run(of, tmp_path, "time_budget=1e-9")
        first = {path.name: path.read_bytes() for path in tmp_path.glob("*/*.csv")}
        program.tell(of, [*own, f"results_dir={tmp_path}"])
        assert f"{chunks[0]} done  · {later} missing" in capsys.readouterr().out
    folder = run(of, tmp_path)
    whole = {path.name: path.read_bytes() for path in folder.glob("*.csv")}
    if later:
        assert all(whole[file].startswith(content) for file, content in first.items())
    program.tell(of, [*own, f"results_dir={tmp_path}"])
    assert f"{cells} done" in capsys.readouterr().out
    notes = tmp_path / "notes"
    with counted(notes):
        run(of, tmp_path)
    assert not notes.exists(), "nothing is measured twice"
    assert {path.name: path.read_bytes() for path in folder.glob("*.csv")} == whole


@pytest.mark.slow
def test_a_cell_that_fails_is_recorded_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(bench: Bench, job: Any) -> Any:
        if job.chunk[0].seed == 2:
            raise ZeroDivisionError("made")
        return rows(job)

    def rows(job: Any) -> Any:
        row = dict.fromkeys(("repeat", "examples", "unit", "backward_passes"), 1)
        return {"anatomy.csv": [row | {"estimator": job.arms[cell.arm].label} for cell in job.chunk]}

    def seeds(folder: Path) -> list[int]:
        found = pd.read_csv(folder / "anatomy.csv").groupby("seed", sort=False).size()
        assert (found == 8).all()
        return found.index.tolist()

    failing = anatomy.PROGRAM._replace(measure=measure)
    with pytest.raises(UserError, match=r"8 of 24 runs are missing; 1 chunks failed.*: ZeroDivisionError: made;"):
        run(failing, tmp_path, "seeds=[1,2,3]")
    assert seeds(tmp_path / "anatomy_split_digits") == [1, 3]
    folder = run(failing._replace(measure=lambda bench, job: rows(job)), tmp_path, "seeds=[1,2,3]", "retry=failed")
    assert seeds(folder) == [1, 3, 2]
    assert not list((folder / "failed").glob("*"))


def test_the_folder_of_a_study_and_of_another_program_are_refused(tmp_path: Path) -> None:
    own = ["benchmark.n_tasks=2", "iterations=1", "seeds=[1]", "model.hidden=[5]"]
    made = study.compute_missing(cli.arms(*own, "method=finetune", f"results_dir={tmp_path}"), "made", cores=1).folder
    with pytest.raises(UserError, match="is the folder of a study; set name="):
        run(anatomy.PROGRAM, tmp_path, f"name={made.name}")
    other = tmp_path / "other"
    other.mkdir()
    (other / "provenance.json").write_text(
        '{"schema_version": 1, "files": {"a.csv": "0"}, "previous": {}, "data": {}, "invocations": []}'
    )
    with pytest.raises(UserError, match="is the folder of another program; set name="):
        run(anatomy.PROGRAM, tmp_path, "name=other")


FOLDERS = [
    (of, path.parent)
    for of in (anatomy.PROGRAM, idea.PROGRAM, unifying.PROGRAM)
    for path in sorted((cli.ROOT / "results").glob(f"*/{[*of.tables][-1]}"))
]


@pytest.mark.parametrize(("of", "folder"), FOLDERS, ids=lambda value: value.name if isinstance(value, Path) else "")
def test_a_committed_folder_goes_on(of: Program, folder: Path, tmp_path: Path) -> None:
    """Its cells are finished; a new one is added behind them, and what else is there stays."""
    made = shutil.copytree(folder, tmp_path / "made")
    store = Store(made, of.tables, of.key)
    rows, names = store.read(), [name for name in store.provenance()["files"]]
    before = {name: (made / name).read_bytes() for name in names}
    assert store.finished() == {"_".join(row[column] for column in of.key) for row in rows[store.last]} != set()
    store.create()
    store.put("again", {name: rows.get(name, []) for name in of.tables})
    store.merge()
    assert {name: (made / name).read_bytes() for name in names} == before, "nothing is doubled"
    if of.key:
        seed = {"seed": "77"}
        store.put("new", {name: [row | seed for row in rows.get(name, []) if row["seed"] == "1"] for name in of.tables})
        store.merge()
        for name in of.tables:
            assert (made / name).read_bytes().startswith(before.get(name, b""))
    assert Store(made, of.tables, of.key).finished() >= store.finished()
