"""A study as a user runs it: one command, killed and continued, run twice, run again."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cli
import pytest

from cl_repro import worker

SMALL = [
    "study=split_digits_fisher",
    "arms=[{method: finetune},{method: ewc,fisher: exact},{method: ewc,fisher: batched}]",
    "seeds=[1,2]",
    "grid.lambdas=[10,1000]",
    "iterations=30",
    "dtype=float64",
    "max_replicas=2",
    "workers=2",
]
CELLS = 2 * (1 + 2 * 2)
MEASURED = ["accuracy", "forgetting", "bwt", "fwt", "status", "lambda", "seed", "arm", "config_id"]


def start(folder: Path) -> subprocess.Popen[str]:
    """The command, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "cl_repro", *SMALL],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(cli.ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(folder: Path) -> str:
    """Run the command to its end; what it printed."""
    process = start(folder)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out


def table(folder: Path) -> dict[str, list[str]]:
    """What was measured, by run_id."""
    with open(folder / "results" / "split_digits_fisher" / "runs.csv") as file:
        found = list(csv.DictReader(file))
    result = {row["run_id"]: [row[key] for key in MEASURED] for row in found}
    assert len(result) == len(found)  # no run twice
    return result


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    out = finish(folder)
    assert "BATCHED" in out
    assert "results/figures/split_digits_fisher.png" in out
    return folder


def test_it_writes_rows_figure_tables_and_configurations(undisturbed: Path) -> None:
    results = undisturbed / "results"
    assert len(table(undisturbed)) == CELLS
    assert (results / "figures" / "split_digits_fisher.svg").stat().st_size > 1000
    assert "EXACT" in (results / "tables" / "split_digits_fisher.md").read_text()
    assert len(list((results / "split_digits_fisher" / "configs").glob("*.yaml"))) == 3
    assert not list(undisturbed.glob("*.log"))  # nothing is left beside the results
    with open(results / "split_digits_fisher" / "accuracy.csv") as file:
        assert sum(1 for _ in file) == 1 + CELLS * 6 * 5


def test_the_same_command_again_recomputes_nothing(undisturbed: Path) -> None:
    runs = undisturbed / "results" / "split_digits_fisher" / "runs.csv"
    before = runs.read_bytes(), runs.stat().st_mtime_ns
    finish(undisturbed)
    assert (runs.read_bytes(), runs.stat().st_mtime_ns) == before


@pytest.mark.parametrize("victim", ["parent", "worker"])
def test_killed_in_the_middle_and_continued(undisturbed: Path, tmp_path: Path, victim: str) -> None:
    process = start(tmp_path)
    runs = tmp_path / "results" / "split_digits_fisher" / "runs.csv"
    until = time.monotonic() + 120
    while not runs.exists():
        assert time.monotonic() < until
        assert process.poll() is None, "finished before it could be killed"
        time.sleep(0.05)
    workers = children(process.pid)
    assert workers
    os.kill(process.pid if victim == "parent" else workers[-1], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    if victim == "worker":
        assert process.returncode == 2
        assert err.strip().splitlines()[-1].startswith("error: a worker process died")
    for pid in workers:  # no orphan goes on
        while alive(pid):
            assert time.monotonic() < until
            time.sleep(0.05)
    done = table(tmp_path)
    assert 0 < len(done) < CELLS
    finish(tmp_path)
    assert table(tmp_path) == table(undisturbed)


def test_two_launches_at_once_share_the_work(undisturbed: Path, tmp_path: Path) -> None:
    both = [start(tmp_path), start(tmp_path)]
    for process in both:
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
    assert table(tmp_path) == table(undisturbed)


def children(pid: int) -> list[int]:
    """Worker processes of a process (Linux)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
            command = (entry.parent / "cmdline").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        if int(fields[1]) == pid and b"spawn_main" in command:
            found.append(int(entry.parent.name))
    return found


def alive(pid: int) -> bool:
    """Running, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_sweep_from_the_shell_fills_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["-m", "fisher=exact,empirical", "lam=10,100", "seeds=[1]", "iterations=5", "workers=1"]
    assert cli.run(monkeypatch, tmp_path, *arguments) == 0
    with open(tmp_path / "results" / "runs" / "runs.csv") as file:
        rows = list(csv.DictReader(file))
    assert {(row["fisher"], float(row["lambda"])) for row in rows} == {
        (fisher, lam) for fisher in ("exact", "empirical") for lam in (10.0, 100.0)
    }
    assert "EMPIRICAL" in capfd.readouterr().out


def test_a_chunk_that_fails_is_recorded_and_the_rest_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [*SMALL[:-1], "workers=1"]
    rows = worker.Workshop.rows

    def broken(self: worker.Workshop, job: worker.Job) -> dict:
        if job.chunk[0].seed == 2 and job.chunk[0].lam:
            raise RuntimeError("made to fail")
        return rows(self, job)

    monkeypatch.setattr(worker.Workshop, "rows", broken)
    assert cli.run(monkeypatch, tmp_path, *command) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: 4 of 10 runs are missing; 2 chunks failed")
    assert "RuntimeError: made to fail" in error
    assert len(table(tmp_path)) == CELLS - 4
    failed = list((tmp_path / "results" / "split_digits_fisher" / "failed").glob("*.json"))
    assert len(failed) == 2
    assert "in broken" in failed[0].read_text()

    computed = []

    def counted(self: worker.Workshop, job: worker.Job) -> dict:
        computed.append(job.chunk)
        return rows(self, job)

    monkeypatch.setattr(worker.Workshop, "rows", counted)
    assert cli.run(monkeypatch, tmp_path, *command, "retry=failed") == 0
    assert len(computed) == 2
    assert len(table(tmp_path)) == CELLS
    assert not list((tmp_path / "results" / "split_digits_fisher" / "failed").glob("*.json"))
