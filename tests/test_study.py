"""A study as a user runs it: one command, run twice, run again, and what its terminal shows."""

import csv
import errno
import fcntl
import io
import os
import pty
import re
import signal
import struct
import termios
import time
from collections import Counter
from multiprocessing import popen_spawn_posix
from pathlib import Path
from typing import Any

import cli
import processes
import pytest

from cl_repro.common import runtime
from cl_repro.common.errors import UserError
from cl_repro.records import Store
from cl_repro.study import pool, rows, study, worker
from cl_repro.study.jobs import Job

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
THEIRS = ["allow_targets=[made_networks]"]
MEASURED = ["accuracy", "forgetting", "bwt", "fwt", "status", "lambda", "seed", "arm"]


def table(folder: Path) -> dict[str, list[str]]:
    """What was measured, by run_id."""
    with open(folder / "results" / "split_digits_fisher" / "runs.csv") as file:
        found = list(csv.DictReader(file))
    result = {row["run_id"]: [row[key] for key in MEASURED] for row in found}
    assert len(result) == len(found)  # no run twice
    return result


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Computed in this process alone."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        assert cli.run(patch, folder, *SMALL[:-1], "workers=1") == 0
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


def test_the_same_command_again_recomputes_nothing(undisturbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = undisturbed / "results" / "split_digits_fisher" / "runs.csv"
    before = runs.read_bytes(), runs.stat().st_mtime_ns
    assert cli.run(monkeypatch, undisturbed, *SMALL) == 0
    assert (runs.read_bytes(), runs.stat().st_mtime_ns) == before


@pytest.mark.slow
def test_two_launches_at_once_compute_each_run_once(undisturbed: Path, tmp_path: Path) -> None:
    """One with a pool, one without; and what each of them prints."""
    commands = (SMALL, [*SMALL[:-1], "workers=1"])
    started = [processes.start(tmp_path, *command, *processes.PROBED) for command in commands]
    with processes.gone_afterwards(*started):
        for process in started:
            out, err = process.communicate(timeout=processes.limit(240))
            assert (process.returncode, processes.complaints(err)) == (0, [])  # only results: this is no terminal
            assert "BATCHED" in out
            assert "results/figures/split_digits_fisher.png" in out
    # the probe is another `_target_`: another name of the same runs
    assert sorted(table(tmp_path).values()) == sorted(table(undisturbed).values())
    computed = Counter(note["run"] for note in processes.notes(tmp_path))
    assert len(computed) == CELLS
    assert set(computed.values()) == {1}


def test_a_sweep_from_the_shell_fills_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["-m", "fisher=exact,empirical", "lam=10", "seeds=[1]", "iterations=5", "workers=1"]
    assert cli.run(monkeypatch, tmp_path, *arguments) == 0
    with open(tmp_path / "results" / "runs" / "runs.csv") as file:
        rows = list(csv.DictReader(file))
    assert {(row["fisher"], float(row["lambda"])) for row in rows} == {
        (fisher, 10.0) for fisher in ("exact", "empirical")
    }
    out = capfd.readouterr().out
    assert out.count("results/tables/runs.md") == 1  # one table, of all jobs
    assert re.search(r"^EXACT .*\nEMPIRICAL ", out, re.MULTILINE)
    assert not list((tmp_path / "results" / "multirun").glob("*-*"))


def test_a_sweep_that_is_refused_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.run(monkeypatch, tmp_path, "-m", "lam=-1,-2") == 2
    assert not list(tmp_path.iterdir())
    kept = tmp_path / "results" / "multirun" / "0" / "mine"
    kept.parent.mkdir(parents=True)
    kept.touch()
    assert cli.run(monkeypatch, tmp_path, "-m", "lam=-1,-2") == 2
    assert kept.exists()


def test_a_sweep_of_which_a_job_is_refused_shows_what_the_others_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["-m", "fisher=exact", "lam=10", "seeds=[1]", "iterations=5,-1", "workers=1"]
    assert cli.run(monkeypatch, tmp_path, *arguments) == 2
    said = capfd.readouterr()
    assert said.out.count("results/tables/runs.md") == 1
    assert said.err.strip().splitlines()[-1].startswith("error: iterations=-1: ")


def test_a_chunk_that_fails_is_recorded_and_the_rest_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [*SMALL[:-1], "workers=1"]
    cli.undrawn(monkeypatch)
    rows = worker.Workshop.rows

    def broken(self: worker.Workshop, job: Job) -> dict:
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

    def counted(self: worker.Workshop, job: Job) -> dict:
        computed.append(job.chunk)
        return rows(self, job)

    monkeypatch.setattr(worker.Workshop, "rows", counted)
    assert cli.run(monkeypatch, tmp_path, *command, "retry=failed") == 0
    assert len(computed) == 2
    assert len(table(tmp_path)) == CELLS
    assert not list((tmp_path / "results" / "split_digits_fisher" / "failed").glob("*.json"))


# --- progress ---------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """What tqdm takes for a terminal."""

    def isatty(self) -> bool:
        return True


def shown(text: str) -> list[str]:
    """The states of the bar, in order."""
    return [line for line in re.split(r"[\r\n]+", text) if "replicas" in line]


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    """Three chunks: of two, two and one replicas."""
    planned = study.plan(cli.arms("grid.lambdas=[1,2,3,4,5]", "seeds=[1]", "iterations=10", "max_replicas=2"))
    source = study.provenance.Source("unknown", dirty=False)
    return [Job(chunk, planned.arms, tmp_path, "cpu", source) for chunk in planned.chunks]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_in_a_terminal_and_no_line_of_what_is_short_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: list[Job], terminal: bool
) -> None:
    def compute(self: worker.Workshop, job: Job, wait: bool) -> str:
        self.report(self.size(job), 3, 0.25)
        return worker.FAILED if len(job.chunk) == 1 else worker.DONE

    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(worker.Workshop, "compute", compute)
    pool.compute(Store(tmp_path), jobs, 1, pool.Budget(None, 0.0))
    bars = shown(stream.getvalue())
    if not terminal:
        assert stream.getvalue() == ""
        return
    counts = [bar.split(":")[0] for bar in bars]
    assert list(dict.fromkeys(counts)) == ["0/5 replicas", "2/5 replicas", "4/5 replicas"]  # the third has failed
    assert "100%" in bars[-1]
    assert "task 4, loss 0.2500" in bars[-1]
    assert re.search(r"\[\d\d:\d\d<\d\d:\d\d, ", bars[-1])  # time gone < time to go


@pytest.mark.slow
def test_what_a_terminal_shows_of_a_pool(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = processes.start(tmp_path, *SMALL, stderr=theirs)
    os.close(theirs)
    text = b""
    while True:
        try:
            text += (got := os.read(ours, 4096))
        except OSError:  # how Linux says that the other end is closed
            break
        if not got:
            break
    with processes.gone_afterwards(process):
        process.communicate(timeout=processes.limit(240))
    assert process.returncode == 0
    bars = shown(text.decode())
    assert bars[0].startswith(f"0/{CELLS} replicas:   0%")
    assert "loss" not in bars[0]
    assert bars[-1].startswith(f"{CELLS}/{CELLS} replicas: 100%")
    assert any(re.search(r"task [2-5], loss \d\.\d{4}", bar) for bar in bars)
    assert all(len(bar) <= 120 for bar in bars)


def test_a_layer_that_an_estimator_cannot_measure_is_named_before_any_training(tmp_path: Path) -> None:
    """With what still measures it."""
    network = [*THEIRS, "model._target_=made_networks.with_slope", "model.hidden=[4]", "seeds=[1]", "iterations=2"]
    place = f"results_dir={tmp_path / 'none'}"
    with pytest.raises(UserError) as error:
        study.compute_missing(cli.arms(*network, "fisher=exact", place), "test", cores=1)
    assert str(error.value) == (
        "model=mlp with fisher=exact: no tapped layer measures the parameters ['slope']; fisher=batched and "
        "fisher=one_sample/... measure any network"
    )
    assert not (tmp_path / "none").exists()
    for fisher in ("batched", "one_sample/exact"):
        ended = study.compute_missing(
            cli.arms(*network, f"fisher={fisher}", f"results_dir={tmp_path}"), "test", cores=1
        )
        assert ended.unfinished == ""


def resident() -> int:
    """Bytes of memory of this process at the moment (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_two_hundred_runs_of_an_arm_take_the_memory_of_a_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one process, a chunk each: what is held when a run ends, of the last twenty and of those after the first."""
    held, run_row = [], rows.run_row
    monkeypatch.setattr(rows, "run_row", lambda *given: held.append(resident()) or run_row(*given))
    asked = ["lam=10", f"seeds={list(range(1, 201))}", "iterations=1", "max_replicas=1", f"results_dir={tmp_path}"]
    asked += ["benchmark.n_tasks=2", "benchmark.train_per_task=40", "benchmark.test_per_task=20", "model.hidden=[10]"]
    runtime.prepare()
    assert study.compute_missing(cli.arms(*asked), "test", cores=1).unfinished == ""
    assert len(held) == 200
    assert sum(held[-20:]) <= 1.05 * sum(held[10:30]), [size // 10**6 for size in held[::10]]


# --- workers that die -------------------------------------------------------------------------------------------------

ADVICE = {
    signal.SIGSEGV: "again; should it die there again, with ONEDNN_MAX_CPU_ISA=SSE41 in the environment",
    signal.SIGKILL: "run the same command again, with fewer workers",
}


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGSEGV, signal.SIGKILL])
def test_a_worker_that_dies_is_named_by_signal_and_chunk_and_loses_nothing(how: signal.Signals, tmp_path: Path) -> None:
    network = [*THEIRS, "model._target_=made_networks.killer", "model.hidden=[4]", f"model.init={int(how)}"]
    arms = cli.arms("method=l2", "lam=3", "iterations=2", "seeds=[1,2]", "max_replicas=1", *network)
    for arm in arms:
        arm["results_dir"] = str(tmp_path)
    planned = study.plan(arms)
    store = Store(planned.folder)
    store.create()
    source = study.provenance.Source("unknown", dirty=False)
    jobs = [Job(chunk, planned.arms, store.folder, "cpu", source) for chunk in planned.chunks]
    with pytest.raises(UserError) as caught:
        pool.compute_in_pool(jobs, 1, pool.Budget(None, 0.0), lambda *_: None, lambda *_: store.merge())
    chunk = study.grid.chunk_id(planned.chunks[1])
    text = f"a worker process died ({how.name}) in chunk {chunk} (l2, seed 2, lambda 3); "
    assert str(caught.value).startswith(text)
    assert str(caught.value).endswith(ADVICE[how])
    before = (store.folder / "runs.csv").read_text()
    assert len(before.splitlines()) == 2  # the chunk that was finished
    assert study.compute_missing(arms, "test", cores=1).unfinished == ""
    after = (store.folder / "runs.csv").read_text()
    assert len(after.splitlines()) == 3
    assert before.splitlines()[1] in after


def test_a_worker_killed_while_the_next_is_started_is_a_dead_worker(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool then closes the queue that the next would read: an OSError in the middle of its start."""
    launch, started = popen_spawn_posix.Popen._launch, []

    def killing(self: popen_spawn_posix.Popen, process: Any) -> None:
        for pid in started:
            os.kill(pid, signal.SIGKILL)
            while not process._args[0]._reader.closed:
                time.sleep(0.01)
        launch(self, process)
        started.append(self.pid)

    monkeypatch.setattr(popen_spawn_posix.Popen, "_launch", killing)
    with pytest.raises(UserError, match=r"^a worker process died before it had a chunk \(SIGKILL\)"):
        pool.compute_in_pool(jobs, 2, pool.Budget(None, 0.0), lambda *_: None, lambda *_: None)


def test_a_system_that_starts_no_process_is_no_dead_worker(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: popen_spawn_posix.Popen, process: Any) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(popen_spawn_posix.Popen, "_launch", refused)
    with pytest.raises(BlockingIOError):
        pool.compute_in_pool(jobs, 2, pool.Budget(None, 0.0), lambda *_: None, lambda *_: None)


def test_of_several_dead_workers_the_one_that_the_pool_did_not_end_is_named(jobs: list[Job]) -> None:
    ended, killed = -signal.SIGTERM, -signal.SIGABRT
    first, second, _ = jobs
    assert study.grid.chunk_id(second.chunk) in pool.death({1: ended, 2: killed, 3: ended}, {1: first, 2: second})
    assert pool.death({1: ended, 2: ended}, {1: first}).startswith("a worker process died (SIGTERM)")
    assert pool.death({1: 0, 2: 3}, {}).startswith("a worker process died before it had a chunk (exit status 3)")
    assert pool.death({}, {}).startswith("a worker process died before it had a chunk")
    assert "under `if __name__ == '__main__':` alone" in pool.death({1: 1, 2: ended}, {})
