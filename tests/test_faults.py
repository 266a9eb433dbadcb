"""Kills, full disks, damaged files and rivals: nothing is lost or doubled, and the same command continues."""

import csv
import errno
import itertools
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cli
import processes
import pytest
import torch
from filelock import Timeout

from cl_repro.__main__ import main
from cl_repro.common.errors import UserError
from cl_repro.engine import lifecycle
from cl_repro.records import LAUNCH, Store, checkpoint_file, files
from cl_repro.records.schema import RUNS, STUDY
from cl_repro.study import grid, plan, status, study, worker
from cl_repro.study.jobs import Job

torch.set_num_threads(1)  # as the application does
ARMS = "arms=[{method: finetune},{method: ewc,fisher: exact},{method: ewc,fisher: batched}]"
SMALL = ["study=split_digits_fisher", ARMS, "grid.lambdas=[10,1000]", "dtype=float64", "max_replicas=1"]
CELLS_A_SEED = 1 + 2 * 2
# What may differ between two computations of one cell.
CIRCUMSTANCES = {"finished", "git_sha", "dirty", "peak_memory"} | {key for key in RUNS if key.startswith("seconds_")}


def science(folder: Path) -> dict[str, list[tuple[str, ...]]]:
    """All rows of the tables as text, sorted, without circumstances; every run there once."""
    Store(folder)  # opens: the tables are those that provenance.json knows
    found = {}
    for name, columns in STUDY.items():
        with open(folder / name, newline="") as file:
            rows = list(csv.DictReader(file))
        found[name] = sorted(tuple(row[c] for c in columns if c not in CIRCUMSTANCES) for row in rows)
        assert len(set(found[name])) == len(rows)
    run_ids = Counter(row[0] for row in found["runs.csv"])
    assert set(run_ids.values()) == {1}
    assert {row[0] for name in STUDY for row in found[name]} == set(run_ids)
    return found


# --- kill -9 ----------------------------------------------------------------------------------------------------------


HOW = {  # the settings of a launch: in one process, in a pool, and as two jobs of joblib that share the study
    "one": ["workers=1"],
    "pool": ["workers=2"],
    "joblib": ["-m", "hydra/launcher=workstation", "hydra.launcher.n_jobs=2", "copy=1,2", "workers=1"],
}


class Fork:
    """The command in a fork of this process, which has everything imported; as far as `Launch` needs a `Popen`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.said, self.returncode = folder / "said.txt", None
        self.pid = os.fork()
        if self.pid:
            return
        status = 99
        try:
            os.setsid()
            sys.stdout = sys.stderr = open(self.said, "w", buffering=1)  # noqa: SIM115 - of this process to its end
            os.chdir(folder)
            sys.argv = ["cl_repro", *arguments]
            main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def poll(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        if self.returncode is None and (found := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.returncode = os.waitstatus_to_exitcode(found[1])
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for its end; what it has said."""
        processes.until(lambda: self.poll() is not None, timeout)
        return "", "".join(line for line in self.said.read_text().splitlines(True) if "error: " in line)


class Sweep:
    """A study of so many seeds, one chunk a cell; where its results are, and how long its parts take."""

    def __init__(self, folder: Path, seeds: int, how: str = "pool", begin: Path | None = None) -> None:
        folder.mkdir()
        self.folder, self.results, self.how = folder, folder / "results" / "split_digits_fisher", how
        self.command = [*HOW[how], *SMALL, f"seeds={list(range(1, seeds + 1))}", "iterations=20"]
        if begin:
            shutil.copytree(begin, self.results)

    def finish_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Run to the end in this process, which takes the start of three."""
        assert cli.run(monkeypatch, self.folder, "workers=1", *self.command[len(HOW[self.how]) :]) == 0

    def start(self) -> "Launch":
        return Launch(self, (Fork if self.how == "one" else processes.start)(self.folder, *self.command))


class Launch:
    """A process of a sweep, and what can be seen of it from outside."""

    def __init__(self, sweep: Sweep, process: Any) -> None:
        self.sweep, self.process, self.began = sweep, process, time.time()

    def marks(self) -> set[tuple[str, int]]:
        """Of the chunks it computes now, told from those that killed ones have left."""
        found = set()
        for path in (self.sweep.results / ".spool").glob("*.running"):
            try:
                changed = path.stat().st_mtime_ns
            except FileNotFoundError:
                continue
            if changed / 1e9 > self.began:
                found.add((path.name, changed))
        return found

    def until(self, condition: Callable[[], object], pause: float = 0.02) -> bool:
        """Wait for it; whether it came before the command ended by itself."""
        limit = time.monotonic() + processes.limit(600)
        while not condition():
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < limit
            time.sleep(pause)
        return True

    def kill(self, victim: str, rng: random.Random) -> bool:
        """Kill the parent or another process of the command; wait until all are gone. Whether one was left to kill."""
        others = processes.workers(self.process.pid)
        pid = rng.choice(others) if victim == "worker" and others else self.process.pid
        killed = pid in processes.group(self.process.pid)
        with suppress(ProcessLookupError):  # it ended by itself
            os.kill(pid, signal.SIGKILL)
        _, err = self.said = self.process.communicate(timeout=processes.limit(120))
        if pid != self.process.pid:  # else a worker that was just being started tells that nobody reads its pipe
            assert "Traceback" not in err, err
        if self.sweep.how == "pool" and killed and pid != self.process.pid and self.process.returncode:
            assert self.process.returncode == 2
            (line,) = processes.complaints(err)
            assert line.startswith("error: a worker process died")
        processes.until(lambda: not processes.group(self.process.pid), 600)  # no orphan goes on
        return killed

    def wait_for(self, phase: str, rng: random.Random) -> bool:
        """Wait for a random moment of a phase; whether it came."""
        if phase == "start":
            time.sleep(rng.uniform(0, 1 if self.sweep.how == "one" else 4))
            return self.process.poll() is None
        if not self.until(self.marks):
            return False
        if phase == "training":
            time.sleep(rng.uniform(0, 1))
            return self.process.poll() is None
        path = self.sweep.results / "provenance.json"  # the first and the last file of a merge
        before = path.stat().st_mtime_ns
        came = self.until(lambda: path.stat().st_mtime_ns != before, pause=0)
        time.sleep(rng.choice([0, 0.001, 0.002, 0.004, 0.008]))
        return came


def in_a_merge(results: Path) -> bool:
    """Whether a merge has begun and not ended."""
    path = results / "provenance.json"
    return path.exists() and "appending" in json.loads(path.read_text())


def kill_again_and_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, seeds: int, kills: dict[str, int]
) -> Counter[tuple[str, str]]:
    """Launches of a study, by `HOW`, most of which are killed at random, until there are so many; each then completed.

    Half of the studies begin with nothing, half with most of their rows. Wherever one is complete, its rows have to be
    those of one that nobody disturbed, and nothing may be left beside them.
    """
    late = Sweep(folder / "late", seeds * 5 // 6)
    late.finish_here(monkeypatch)
    undisturbed = Sweep(folder / "undisturbed", seeds, begin=late.results)
    undisturbed.finish_here(monkeypatch)
    rng, landed, number = moments(), Counter[tuple[str, str]](), itertools.count()
    for how, wanted in kills.items():
        done = 0
        while done < wanted:
            begin = late.results if next(number) % 2 else None
            sweep = Sweep(folder / f"{how} {done} {bool(begin)}", seeds, how, begin)
            for _ in range(min(wanted - done, 12)):
                phase, launch = rng.choice(["start", "training", "training", "merge", "merge"]), sweep.start()
                there = launch.wait_for(phase, rng)
                if not launch.kill(rng.choice(["parent", "worker"]), rng) or not there:
                    assert launch.process.returncode in (0, -signal.SIGKILL), launch.said
                    break  # it was complete
                done += 1
                landed[how, "kill"] += 1
                landed[how, "late" if begin else "early"] += 1
                landed[how, "training"] += bool(launch.marks())
                landed[how, "merge"] += in_a_merge(sweep.results)
            print(f"so far {dict(landed)}", flush=True)
            sweep.finish_here(monkeypatch)
            assert_nothing_lost(sweep, undisturbed, seeds)
            shutil.rmtree(sweep.folder)
    return landed


@pytest.mark.slow
def test_killed_at_random_moments_and_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.undrawn(monkeypatch)
    landed = kill_again_and_again(tmp_path, monkeypatch, 12, {"one": 16, "pool": 8, "joblib": 4})
    assert sum(landed[how, "training"] for how in HOW) >= 5
    assert sum(landed[how, "late"] for how in HOW) >= 5
    assert sum(landed[how, "early"] for how in HOW) >= 5


# --- kill -9 within tasks ---------------------------------------------------------------------------------------------

EVERY = 1.0  # seconds between two checkpoints
LONG = ["grid.lambdas=[10]", "seeds=[1]", "workers=1", "iterations=1500", f"checkpoint_every={EVERY}"]


class Journal:
    """Every place in its tasks that a launch has reached, and when: where it began, and each stop between steps."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Forks of this process write it."""
        self.path, advance = path, lifecycle.advance

        def noted(task: int, taken: int) -> None:
            with open(path, "a") as file:
                file.write(f"{os.getpid()} {task} {taken} {time.monotonic()}\n")

        def advanced(course: lifecycle.Course, steps: int, *others: Any) -> None:
            if not self.of(os.getpid()):  # where it began
                noted(course.task, course.taken)
            advance(course, steps, *others)
            # what follows a task counts as lost if its checkpoint is not written
            through = course.taken == course.steps
            noted(course.task + through, 0 if through else course.taken)

        monkeypatch.setattr(lifecycle, "advance", advanced)

    def of(self, pid: int) -> dict[tuple[int, int], float]:
        """(task, steps) -> when, of one launch."""
        lines = [line.split() for line in self.path.read_text().splitlines()] if self.path.exists() else []
        return {(int(task), int(taken)): float(at) for own, task, taken, at in lines if int(own) == pid}


@pytest.mark.slow
def test_killed_at_20_random_moments_within_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kill costs: the seconds from the place that the next launch begins at, to the kill.

    They are at most those between two checkpoints and, as the kill comes between two stops and a checkpoint is written
    where the next stop would be late if it took as long as the longest before, two of the longest.
    """
    cli.undrawn(monkeypatch)
    journal, rng = Journal(tmp_path / "journal", monkeypatch), moments()
    undisturbed, killed, within, number = tmp_path / "undisturbed", 0, 0, itertools.count()
    undisturbed.mkdir()
    assert cli.run(monkeypatch, undisturbed, *LONG) == 0
    while killed < 20:
        folder, last = tmp_path / f"study {next(number)}", None
        folder.mkdir()
        results = folder / "results" / "runs"
        while True:
            launch = Fork(folder, *LONG)
            processes.until(lambda launch=launch: journal.of(launch.pid) or launch.poll() is not None)
            if last:  # where this one begins, the one before had been so long before its kill
                before, kill = last
                lost = kill - before[next(iter(journal.of(launch.pid)))]
                stops = [*before.values(), kill]
                assert lost <= EVERY + 2 * max(b - a for a, b in itertools.pairwise(stops)), (lost, stops)
            seconds = rng.uniform(0, 3) if killed < 20 else 600
            end = time.monotonic() + seconds
            processes.until(lambda launch=launch, end=end: launch.poll() is not None or time.monotonic() > end, 600)
            if launch.poll() is not None:
                assert launch.returncode == 0
                break  # it was complete
            os.kill(launch.pid, signal.SIGKILL)
            kill = time.monotonic()
            processes.until(lambda launch=launch: launch.poll() is not None)
            last, killed = (journal.of(launch.pid), kill), killed + 1
            within += list(last[0])[-1][1] > 0
        assert science(results) == science(undisturbed / "results" / "runs")
        left = {path.name for path in (results / ".spool").iterdir() if path.suffix != ".first_task"}
        assert left <= {".gitignore", "store.lock", "report.lock"}
    assert within >= 10


def moments() -> random.Random:
    """What chooses them, other ones in every call."""
    seed = random.randrange(10**6)
    print(f"moments of seed {seed}")  # pytest shows it if the test fails
    return random.Random(seed)


def assert_nothing_lost(killed: Sweep, undisturbed: Sweep, seeds: int) -> None:
    """The rows are those of a study that nobody disturbed, and nothing is left beside them."""
    assert science(killed.results) == science(undisturbed.results)
    assert len(science(killed.results)["runs.csv"]) == seeds * CELLS_A_SEED
    left = {path.name for path in killed.results.iterdir()}
    assert left == {*STUDY, "provenance.json", "configs", ".spool"}
    assert {path.name for path in (killed.results / ".spool").iterdir()} == {".gitignore", "store.lock", "report.lock"}


# --- disks ------------------------------------------------------------------------------------------------------------


class Disk:
    """What the operating system would refuse below a folder; the interpreter asks before it opens, makes or renames."""

    def __init__(self) -> None:
        self.folder, self.free, self.readonly = "", 0, False
        sys.addaudithook(self.asked)  # for good: there is no way to remove one

    def asked(self, event: str, arguments: tuple) -> None:
        if not self.folder or event not in ("open", "os.mkdir", "os.rename", "os.remove"):
            return
        path = arguments[1 if event == "os.rename" else 0]
        if not str(path).startswith(self.folder):
            return
        if event == "open":
            flags, exists = arguments[2], os.path.exists(path)
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR))
            refused = writes and not (flags & os.O_EXCL and exists) and (self.readonly or not exists)
        else:
            refused = not (event == "os.mkdir" and os.path.exists(path)) and (self.readonly or event != "os.remove")
        if refused:
            if self.free == 0:
                code = errno.EROFS if self.readonly else errno.ENOSPC
                raise OSError(code, os.strerror(code), str(path))
            self.free -= 1

    @contextmanager
    def full(self, folder: Path, free: int = 0, readonly: bool = False) -> Iterator[None]:
        """After `free` more new files, folders and renames below a folder all others fail."""
        self.folder, self.free, self.readonly = str(folder), free, readonly
        try:
            yield
        finally:
            self.folder = ""


DISK = Disk()
TINY = [*SMALL[:1], "arms=[{method: finetune},{method: ewc,fisher: exact}]", *SMALL[3:], "iterations=2", "workers=1"]


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The chunks whose rows were computed, in order."""
    found, rows = [], worker.Workshop.rows

    def noted(self: worker.Workshop, job: Job) -> dict:
        result = rows(self, job)
        found.append(grid.chunk_id(job.chunk))
        return result

    monkeypatch.setattr(worker.Workshop, "rows", noted)
    return found


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[[str], tuple[Path, Callable[[], study.Ended]]]:
    """Makes a study of two chunks in a folder of this name: its results folder, and what runs it."""
    cfgs = cli.arms(*TINY, "seeds=[1]", "grid.lambdas=[10]")

    def make(name: str) -> tuple[Path, Callable[[], study.Ended]]:
        own = [cfg | {"results_dir": str(tmp_path / name)} for cfg in cfgs]
        return tmp_path / name / "split_digits_fisher", lambda: study.compute_missing(own, "made", cores=1)

    return make


Tiny = Callable[[str], tuple[Path, Callable[[], study.Ended]]]


@pytest.mark.slow
def test_a_disk_that_is_full_after_any_number_of_files(tiny: Tiny, computed: list[str]) -> None:
    expected, run = tiny("undisturbed")
    assert not run().unfinished
    for free in range(1000):
        folder, run = tiny(str(free))
        computed.clear()
        try:
            with DISK.full(folder.parent, free):
                run()
        except UserError as error:
            assert "No space left on device" in str(error)
            assert "\n" not in str(error)
        else:
            break  # there was room for all of it
        assert not run().unfinished
        assert len(computed) <= 2 + 1  # at most the chunk that could not be spooled twice
        assert science(folder) == science(expected)
        assert not list(folder.rglob("*.tmp"))
    assert free > 20


@pytest.mark.parametrize("size", [0, 200, 2000])
def test_a_disk_that_is_full_in_the_middle_of_a_file(tiny: Tiny, size: int) -> None:
    expected, run = tiny("undisturbed")
    run()
    folder, run = tiny("other")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        with pytest.raises(UserError, match="File too large") as error:
            run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert not run().unfinished
    assert science(folder) == science(expected)


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("rows", ["none", "some"])
def test_a_results_folder_that_is_read_only(
    tiny: Tiny, computed: list[str], monkeypatch: pytest.MonkeyPatch, rows: str
) -> None:
    folder, run = tiny("study")
    if rows == "some":
        with monkeypatch.context() as patched:
            patched.setattr(study, "compute", lambda store, jobs, *_: worker_of(jobs[:1]) or 1)
            assert run().unfinished.startswith("1 of 2 runs are missing")
    before = content(folder.parent)
    with DISK.full(folder.parent, readonly=True), pytest.raises(UserError, match="Read-only file system") as error:
        run()
    assert "\n" not in str(error.value)
    assert content(folder.parent) == before
    assert len(computed) == (rows == "some")
    assert not run().unfinished
    assert len(computed) == 2


def test_looking_into_a_read_only_folder(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    folder, run = tiny("study")
    run()
    cfgs = [cfg | {"results_dir": str(folder.parent)} for cfg in cli.arms(*TINY, "seeds=[1,2]", "grid.lambdas=[10]")]
    with DISK.full(folder.parent, readonly=True):
        status.status(cfgs)
        plan.plan(cfgs)
    shown = " ".join(capsys.readouterr().out.split())
    assert "2 done" in shown and "2 missing" in shown
    assert "4 runs in 4 chunks, 2 finished" in shown


def worker_of(jobs: list[Job]) -> None:
    workshop = worker.Workshop(lambda *_: None)
    for job in jobs:
        workshop.compute(job)


def test_a_truncated_table_is_one_line_and_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], computed: list[str]
) -> None:
    command = [*TINY, "seeds=[1]", "grid.lambdas=[10]"]
    cli.undrawn(monkeypatch)
    assert cli.run(monkeypatch, tmp_path, *command) == 0
    path = tmp_path / "results" / "split_digits_fisher" / "accuracy.csv"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    before = content(tmp_path)
    capsys.readouterr()
    assert cli.run(monkeypatch, tmp_path, *command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "accuracy.csv" in line
    assert content(tmp_path) == before
    path.write_bytes(whole)
    assert cli.run(monkeypatch, tmp_path, *command) == 0
    assert len(computed) == 2  # by the first command


def test_a_truncated_note_of_a_failure_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create()
    store.failures.mkdir()
    (store.failures / "one.json").write_text('{"run_ids": [')
    with pytest.raises(UserError, match=r"failed/one\.json: truncated or edited; remove it") as error:
        store.failed()
    assert "\n" not in str(error.value)


# --- rivals -----------------------------------------------------------------------------------------------------------


def test_two_machines_that_cut_a_study_differently_and_see_no_locks_leave_one_row_a_run(tmp_path: Path) -> None:
    store, stacks = Store(tmp_path), []
    for limit in (1, 3):
        planned = study.plan(cli.arms(*TINY, "seeds=[1,2]", "grid.lambdas=[10,1000]", f"max_replicas={limit}"))
        source = study.provenance.Source("unknown", dirty=False)
        workshop = worker.Workshop(lambda *_: None)
        for chunk in planned.chunks:
            rows = workshop.rows(Job(chunk, planned.arms, tmp_path, "cpu", source))
            store.put(grid.chunk_id(chunk), rows)
            stacks += [row["replicas_in_chunk"] for row in rows["runs.csv"]]
    assert len(set(stacks)) > 1
    assert len(stacks) == 2 * 6
    store.merge()
    assert len(science(tmp_path)["runs.csv"]) == 6
    assert len(science(tmp_path)["accuracy.csv"]) == 6 * 6 * 5


def test_processes_of_one_number_on_two_machines_do_not_share_a_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, path = os.fsync, tmp_path / "file"

    def other_machine_writes(descriptor: int) -> None:
        fsync(descriptor)
        with monkeypatch.context() as there:
            there.setattr(files.os, "fsync", fsync)
            there.setattr(files.platform, "node", lambda: "other")
            files.write_atomically(path, b"theirs")
        assert path.read_bytes() == b"theirs"

    monkeypatch.setattr(files.os, "fsync", other_machine_writes)
    files.write_atomically(path, b"ours")
    assert path.read_bytes() == b"ours"
    assert list(tmp_path.iterdir()) == [path]


def test_a_chunk_that_fails_is_tried_once_by_all_copies_of_a_launch(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, run = tiny("study")
    tried = []

    def broken(self: worker.Workshop, job: Job) -> dict:
        tried.append(job.chunk)
        raise RuntimeError("made to fail")

    monkeypatch.setattr(worker.Workshop, "rows", broken)
    monkeypatch.setenv(LAUNCH, "one")
    for _ in range(3):  # one copy after the other
        assert "2 chunks failed" in run().unfinished
    assert len(tried) == 2
    monkeypatch.setenv(LAUNCH, "two")  # a new command
    assert run().unfinished
    assert len(tried) == 4
    assert {failure["launch"] for failure in Store(folder).failed().values()} == {"two"}
    monkeypatch.delenv(LAUNCH)
    assert run().unfinished
    assert run().unfinished
    assert len(tried) == 8


def test_a_copy_that_waits_for_a_chunk_counts_its_failure(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure is on record before the chunk's lock is free."""
    folder, run = tiny("study")
    free_at_record = []
    note = Store.note_failure

    def noted(self: Store, chunk: str, *others: object) -> None:
        note(self, chunk, *others)
        try:
            self.chunk_lock(chunk).acquire(timeout=0)
        except Timeout:
            free_at_record.append(False)
        else:
            free_at_record.append(True)

    monkeypatch.setattr(Store, "note_failure", noted)
    monkeypatch.setattr(worker.Workshop, "rows", lambda *_: 1 / 0)
    assert run().unfinished
    assert free_at_record == [False, False]
    assert len(list((folder / "failed").iterdir())) == 2


def test_only_what_is_missing_is_computed_whatever_the_chunks_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed, rows = [], worker.Workshop.rows

    def noted(self: worker.Workshop, job: Job) -> dict:
        computed.extend((cell.seed, cell.lam) for cell in job.chunk)
        return rows(self, job)

    def run(*settings: str) -> dict[str, dict]:
        computed.clear()
        made = ["study=split_digits_fisher", "arms=[{method: ewc,fisher: exact}]", "iterations=2", "workers=1"]
        cfgs = [cfg | {"results_dir": str(tmp_path)} for cfg in cli.arms(*made, *settings)]
        assert not study.compute_missing(cfgs, "made", cores=1).unfinished
        return {row["run_id"]: row for row in Store(tmp_path / "split_digits_fisher").read()["runs.csv"]}

    monkeypatch.setattr(worker.Workshop, "rows", noted)
    first = run("seeds=[1,2]", "grid.lambdas=[1,10]", "max_replicas=128")
    assert {row["replicas_in_chunk"] for row in first.values()} == {"4"}
    second = run("seeds=[1,2,3]", "grid.lambdas=[1,10]", "max_replicas=128")
    assert computed == [(3, 1.0), (3, 10.0)]
    third = run("seeds=[1,2,3]", "grid.lambdas=[1,10,100]", "max_replicas=2")
    assert computed == [(seed, 100.0) for seed in (1, 2, 3)]
    assert [row["replicas_in_chunk"] for row in third.values()] == ["4"] * 4 + ["2"] * 2 + ["1"] * 3
    assert first.items() < second.items() < third.items()
    assert {path.name for path in (tmp_path / "split_digits_fisher/.spool").iterdir()} == {".gitignore", "store.lock"}


def test_a_note_of_a_failure_goes_when_its_runs_are_there_by_another_chunk(tiny: Tiny) -> None:
    folder, run = tiny("study")
    store = Store(folder)
    run()
    store.note_failure("of another cut", [*store.finished()], "Traceback")
    store.forget_failures()
    assert not store.failed()


def test_a_complete_study_leaves_no_locks_and_marks_of_its_chunks(tiny: Tiny) -> None:
    folder, run = tiny("study")
    store = Store(folder)
    store.create()
    (store.spool / "other.lock").touch()  # of a chunk that was killed, cut as no chunk is now
    with store.chunk_lock("held"), store.chunk_lock("stopped"), store.chunk_lock("outrun"):
        for chunk, run_ids in (("stopped", ["of another study"]), ("outrun", [])):
            checkpoint_file(folder, chunk).touch()
            (store.spool / f"{chunk}.running").write_text(json.dumps(run_ids))
        run()
        assert (store.spool / "held.lock").exists()
    store.tidy()
    assert {path.stem for path in store.spool.iterdir()} == {".gitignore", "store", "stopped"}
    with store.chunk_lock("stopped"):
        store.forget("stopped")
    assert {path.name for path in store.spool.iterdir()} == {".gitignore", "store.lock"}
