"""Sweeps on a real SLURM: `make test-slurm` starts one of two nodes here, and these tests use any that runs."""

import csv
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cli
import processes
import pytest

from cl_repro.records import Store
from cl_repro.records.schema import STUDY

pytestmark = pytest.mark.slurm
STATE = ["sinfo", "--noheader", "--format=%T"]
HERE = shutil.which("sinfo") and subprocess.run(STATE, capture_output=True, check=False).returncode == 0
JOB = ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=2", "workers=1"]
ARMS = "arms=[{method: finetune},{method: ewc,fisher: exact}]"
SMALL = ["study=split_digits_fisher", ARMS, "grid.lambdas=[10,1000]", "max_replicas=1", "checkpoint_every=1"]
CELLS = 3  # a seed
# What a job without the environment of its sweep is given: srun hands on to it what there is, and finds this package.
PATHS = f"SLURM_EXPORT_ENV=ALL PYTHONPATH={cli.ROOT}"
FOLDER = Path("results", "split_digits_fisher")
CIRCUMSTANCES = {"finished", "git_sha", "dirty", "peak_memory", "hardware"} | {
    key for key in STUDY["runs.csv"] if key.startswith("seconds_")
}


@pytest.fixture(autouse=True)
def node() -> Iterator[None]:
    """A SLURM; a job that is queued again waits for two minutes there, which these tests cut short."""
    if not HERE:
        pytest.skip("no SLURM runs here; `make test-slurm` starts one, as root on Debian")
    over = threading.Event()

    def at_once() -> None:
        waits: dict[str, int] = {}  # seconds, by job; its last process may take some to end
        while not over.wait(1):
            waiting = [job.split()[0] for job in queue("--states=PENDING", "--format=%i %r") if "BeginTime" in job]
            waits = {job: waits.get(job, 0) + 1 for job in waiting}
            for job in [job for job, seconds in waits.items() if seconds > 5]:
                subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=False)

    thread = threading.Thread(target=at_once)
    thread.start()
    yield
    over.set()
    thread.join()


def queue(*options: str) -> list[str]:
    """Of `squeue`: a line a job."""
    return subprocess.run(["squeue", "--noheader", *options], capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )[:-1]


def swept(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A sweep, to its end."""
    folder.mkdir(exist_ok=True)
    process = processes.start(folder, "-m", *JOB, *SMALL, *arguments)
    with processes.gone_afterwards(process):
        out, err = process.communicate(timeout=processes.limit(900))
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def science(folder: Path) -> dict[str, list[tuple[str, ...]]]:
    """All rows of the tables, sorted, without circumstances; every run is there once."""
    Store(folder / FOLDER)
    found = {}
    for name, columns in STUDY.items():
        with open(folder / FOLDER / name, newline="") as file:
            found[name] = sorted(
                tuple(row[c] for c in columns if c not in CIRCUMSTANCES) for row in csv.DictReader(file)
            )
    runs = [row[0] for row in found["runs.csv"]]
    assert len(set(runs)) == len(runs)
    return found


def undisturbed(folder: Path, *arguments: str) -> dict[str, list[tuple[str, ...]]]:
    """The rows of the same study without SLURM."""
    folder.mkdir(exist_ok=True)
    process = processes.start(folder, *SMALL, "workers=1", *arguments)
    with processes.gone_afterwards(process):
        _, err = process.communicate(timeout=processes.limit(900))
    assert process.returncode == 0, err
    return science(folder)


def log(folder: Path) -> str:
    """What the jobs have said."""
    return "".join(path.read_text() for path in sorted((folder / "results" / "multirun" / ".submitit").rglob("*.out")))


def requeued(folder: Path) -> int:
    """How often a job has queued itself again."""
    return len(re.findall(r"^submitit INFO .* Requeued job", log(folder), re.M))


def test_two_jobs_on_two_nodes_share_a_study_and_the_terminal_has_its_table(tmp_path: Path) -> None:
    work = ["seeds=[1,2]", "iterations=200"]
    one_job_fills_a_node = ["copy=1,2", "hydra.launcher.cpus_per_task=2"]
    done = swept(tmp_path / "slurm", *work, *one_job_fills_a_node)
    assert done.returncode == 0, done.stderr + log(tmp_path / "slurm")
    assert f"{FOLDER}/runs.csv" in done.stdout
    lines = done.stderr.splitlines()  # cpus_per_task and mem_gb are typed
    assert lines in ([], ["sacct keeps no accounts here: the queue is asked instead"])
    assert science(tmp_path / "slurm") == undisturbed(tmp_path / "here", *work)
    assert len(science(tmp_path / "slurm")["runs.csv"]) == 2 * CELLS


def test_jobs_ask_for_what_their_chunks_hold_and_need_no_environment(tmp_path: Path) -> None:
    """Two processes, of one of two copies that share six chunks; SLURM keeps a job's record for five minutes."""
    measured = ["hydra.launcher.cpus_per_task=null", "hydra.launcher.mem_gb=null", "workers=2", "copy=1,2"]
    bare = ["+hydra.launcher.additional_parameters.export=NONE", f'hydra.launcher.setup=["export {PATHS}"]']
    work = ["seeds=[1,2]", "iterations=20"]
    done = swept(tmp_path / "slurm", *work, *measured, *bare)
    assert done.returncode == 0, done.stderr + log(tmp_path / "slurm")
    assert f"{FOLDER}/runs.csv" in done.stdout
    [number] = {name.split("_")[0] for name in log_ids(tmp_path / "slurm")}
    asked = {line for line in queue("--states=all", f"--jobs={number}", "--format=%C %m")}
    [(cpus, memory)] = [line.split() for line in asked]
    gb = int(re.fullmatch(r"(\d+)G", memory)[1])
    assert f"a job asks for hydra.launcher.cpus_per_task={cpus} and hydra.launcher.mem_gb={gb}, as meas" in done.stderr
    assert cpus == "2"
    with open(tmp_path / "slurm" / FOLDER / "runs.csv", newline="") as file:
        held = 3 * max(int(row["peak_memory"]) for row in csv.DictReader(file))  # the third hands out the chunks
    assert held <= gb * 2**30 <= 1.5 * held + 2**30
    assert science(tmp_path / "slurm") == undisturbed(tmp_path / "here", *work)


# In a job every 50 steps take five seconds more, of no processor: a chunk is as long however busy the machine is.
SLOW = """
import os, time
from cl_repro.benchmarks.split import split
from cl_repro.engine import lifecycle

advance = lifecycle.advance

def slowly(course, steps, *others):
    advance(course, steps, *others)
    time.sleep(5 if "SLURM_JOB_ID" in os.environ else 0)

lifecycle.advance = slowly
"""
ONE_CHUNK = ["seeds=[1]", "arms=[{method: ewc,fisher: exact}]", "grid.lambdas=[10]", "benchmark.n_tasks=2"]


def test_a_chunk_longer_than_a_job_may_last_ends(tmp_path: Path) -> None:
    """Of two minutes a job has 50 to 110 seconds: SLURM sends its signal up to a minute before it was asked to."""
    for name in ("slurm", "here"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "slow.py").write_text(SLOW)
    work = [*ONE_CHUNK, "iterations=800", "benchmark._target_=slow.split", "allow_targets=[slow]"]  # 160 seconds
    limit = ["hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=10"]
    done = swept(tmp_path / "slurm", *work, *limit, "copy=1")
    assert done.returncode == 0, done.stderr + log(tmp_path / "slurm")
    assert requeued(tmp_path / "slurm") >= 1
    assert "begin again" not in log(tmp_path / "slurm")
    assert science(tmp_path / "slurm") == undisturbed(tmp_path / "here", *work)


def test_a_job_whose_time_budget_is_over_goes_on_by_itself(tmp_path: Path) -> None:
    """With a budget of nothing each job gets on by 50 steps, or by what follows a task."""
    work = [*ONE_CHUNK, "iterations=100"]
    done = swept(tmp_path / "slurm", *work, "time_budget=1e-9", "copy=1")
    assert done.returncode == 0, done.stderr + log(tmp_path / "slurm")
    assert requeued(tmp_path / "slurm") >= 2
    assert science(tmp_path / "slurm") == undisturbed(tmp_path / "here", *work)


def test_after_scancel_the_command_ends_and_the_same_command_goes_on(tmp_path: Path) -> None:
    work = ["seeds=[1,2]", "iterations=1000", "copy=1,2"]
    folder = tmp_path / "slurm"
    folder.mkdir()
    process = processes.start(folder, "-m", *JOB, *SMALL, *work)
    with processes.gone_afterwards(process):
        limit = time.monotonic() + processes.limit(300)
        while not list((folder / FOLDER).glob("runs.csv")):  # a run is finished, another one has begun
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.2)
        for job in log_ids(folder):
            subprocess.run(["scancel", job], check=True)
        _, err = process.communicate(timeout=processes.limit(300))
    assert process.returncode == 2
    assert [line for line in err.splitlines() if line.startswith("error: launcher: ")]
    assert "Traceback" not in err
    done = swept(folder, *work)
    assert done.returncode == 0, done.stderr + log(folder)
    assert science(folder) == undisturbed(tmp_path / "here", *work[:2])


def log_ids(folder: Path) -> set[str]:
    """The numbers of the jobs that a command has started."""
    return {
        path.name.split("_")[0] for path in (folder / "results" / "multirun" / ".submitit").rglob("*_submitted.pkl")
    }


def test_two_sweeps_at_once_compute_each_run_once(tmp_path: Path) -> None:
    work = ["seeds=[1,2]", "iterations=500", "copy=1,2"]
    folder = tmp_path / "slurm"
    folder.mkdir()
    both = [processes.start(folder, "-m", *JOB, *SMALL, *work) for _ in range(2)]
    for process in both:
        with processes.gone_afterwards(process):
            _, err = process.communicate(timeout=processes.limit(900))
        assert process.returncode == 0, err + log(folder)
    assert science(folder) == undisturbed(tmp_path / "here", *work[:2])
    assert not list((folder / FOLDER).glob("failed/*"))
