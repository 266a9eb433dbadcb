"""Sweeps as a user launches them: joblib and submitit for real, SLURM against commands that stand in for it."""

import csv
import multiprocessing
import os
import re
import signal
import subprocess
from collections import Counter
from functools import lru_cache
from pathlib import Path

import cli
import processes
import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.types import RunMode
from made_results import any_row
from omegaconf import DictConfig, OmegaConf

from cl_repro.__main__ import refuse, share
from cl_repro.analysis.data import read
from cl_repro.common.errors import UserError
from cl_repro.records import LAUNCH, Store
from cl_repro.records.schema import STUDY as FILES
from cl_repro.study import child, grid, pool, study
from cl_repro.study.compose import TYPED, note_typed, written
from cl_repro.study.config import CONF
from cl_repro.study.sweep import NOTES, Noted

TINY = ["seeds=[1]", "iterations=2"]


def launch(folder: Path, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`python -m cl_repro -m ARGUMENTS` in a folder to its end, every run noted in probe.jsonl there.

    Args:
        folder: to run in.
        arguments: after `-m`.
        path: of commands that come before all others.
    """
    environment = {"PATH": f"{path}{os.pathsep}{os.environ['PATH']}"} if path else {}
    process = processes.start(folder, "-m", *processes.PROBED, *arguments, environment=environment)
    with processes.gone_afterwards(process):
        out, err = process.communicate(timeout=processes.limit(600))
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def table(folder: Path, name: str = "runs") -> list[dict[str, str]]:
    """The rows of runs.csv, whose folder opens: the files are those provenance.json knows."""
    Store(folder / "results" / name)
    with open(folder / "results" / name / "runs.csv") as file:
        return list(csv.DictReader(file))


def lambdas(folder: Path) -> list[float]:
    return sorted(float(row["lambda"]) for row in table(folder))


def errors(process: subprocess.CompletedProcess[str]) -> list[str]:
    """Lines on standard error, without Hydra's line that names the job."""
    return [line for line in process.stderr.splitlines() if not line.startswith("Error executing job")]


@pytest.mark.slow
def test_under_joblib_a_job_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    process = launch(tmp_path, "hydra/launcher=workstation", "hydra.launcher.n_jobs=2", "lam=10,-1,100", *TINY)
    assert process.returncode == 2
    assert errors(process) == ["error: lambda=-1.0: must be a finite number of at least 0"]
    assert (
        "Error executing job with overrides: ['benchmark._target_=probe.split', 'allow_targets=[probe]', 'lam=-1'"
        in process.stderr
    )
    assert lambdas(tmp_path) == [10.0, 100.0]
    found = processes.notes(tmp_path)
    assert len(found) == 2
    assert all(note["process"].startswith("Loky") for note in found)
    assert (tmp_path / "results" / "figures" / "runs.png").read_bytes().endswith(b"IEND\xaeB`\x82")
    assert not list((tmp_path / "results").rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize(("how", "workers"), [(signal.SIGTERM, 1), (signal.SIGKILL, 2)])
def test_jobs_of_joblib_and_their_pools_end_with_the_command(how: int, workers: int, tmp_path: Path) -> None:
    launcher = ["hydra/launcher=workstation", "hydra.launcher.n_jobs=2", "lam=10,100"]
    process = processes.start(
        tmp_path, "-m", *launcher, "seeds=[1,2]", "iterations=1000000", "max_replicas=1", f"workers={workers}"
    )
    with processes.gone_afterwards(process):
        spool = tmp_path / "results" / "runs" / ".spool"
        processes.until(lambda: len([*spool.glob("*.running")]) == 2 * workers)
        os.kill(process.pid, how)
        process.wait()
        processes.until(lambda: not processes.group(process.pid), seconds=30)


@pytest.mark.slow
def test_under_submitit_a_job_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    process = launch(tmp_path, "hydra/launcher=local", "lam=10,-1,100", *TINY)
    assert process.returncode == 2
    assert errors(process) == ["error: lambda=-1.0: must be a finite number of at least 0"]
    assert lambdas(tmp_path) == [10.0, 100.0]
    assert len(processes.notes(tmp_path)) == 2
    commands = {entry["command"] for entry in Store(tmp_path / "results" / "runs").provenance()["invocations"]}
    assert commands == {  # that of the job, though its process was started by submitit
        f"python -m cl_repro benchmark._target_=probe.split 'allow_targets=[probe]' lam={lam} 'seeds=[1]' iterations=2"
        for lam in (10, 100)
    }


STUDY = [
    "study=split_digits_fisher",
    "arms=[{method: finetune},{method: ewc,fisher: exact},{method: ewc,fisher: batched}]",
    "grid.lambdas=[10,1000]",
    "seeds=[1,2]",
    "iterations=10",
    "max_replicas=1",
    "dtype=float64",
]
CELLS = 2 * (1 + 2 * 2)


@pytest.mark.slow
def test_copies_share_a_study_with_processes_of_their_own(tmp_path: Path) -> None:
    launcher = ["hydra/launcher=workstation", "hydra.launcher.n_jobs=2"]
    process = launch(tmp_path, *launcher, *STUDY, "copy=1,2", "workers=2")
    assert process.returncode == 0, process.stderr
    rows = table(tmp_path, "split_digits_fisher")
    assert len({row["run_id"] for row in rows}) == len(rows) == CELLS
    found = processes.notes(tmp_path)
    assert set(Counter(note["run"] for note in found).values()) == {1}  # nothing computed twice
    assert all(note["process"].startswith("Spawn") for note in found)  # not by the two jobs: by processes of theirs


def test_a_copy_is_the_same_science_and_the_same_record() -> None:
    one, two = (grid.make_arm(cli.arms(f"copy={i}")[0]) for i in (1, 2))
    assert one.config_id == two.config_id
    assert study.public(one.cfg) == study.public(two.cfg)


def test_chunks_that_another_launch_computes_come_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def compute(self: study.worker.Workshop, job: study.worker.Job, wait: bool) -> str:
        asked.append((job.chunk[0].lam, wait))
        return study.worker.BUSY if job.chunk[0].lam == 1.0 and not wait else study.worker.DONE

    monkeypatch.setattr(study.worker.Workshop, "compute", compute)
    planned = study.plan(cli.arms("grid.lambdas=[1.0,2.0,3.0]", "max_replicas=1", *TINY))
    source = study.provenance.Source("unknown", dirty=False)
    jobs = [study.worker.Job(chunk, planned.arms, tmp_path, "cpu", source) for chunk in planned.chunks]
    pool.compute(Store(tmp_path), jobs, 1, pool.Budget(None, 0.0))
    assert asked == [(1.0, False), (2.0, False), (3.0, False), (1.0, True)]


@pytest.mark.slow
def test_copies_from_the_shell_try_a_chunk_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next command tries it again."""
    tried = []

    def broken(self: study.worker.Workshop, job: study.worker.Job) -> None:
        tried.append(job.chunk)
        raise RuntimeError("made to fail")

    monkeypatch.setattr(study.worker.Workshop, "rows", broken)
    cli.undrawn(monkeypatch)
    for n in (1, 2):
        assert cli.run(monkeypatch, tmp_path, "-m", *TINY, "grid.lambdas=[10]", "copy=1,2,3") == 2
        assert len(tried) == n


# --- what a job may use of its machine --------------------------------------------------------------------------------


def test_a_job_without_the_environment_knows_its_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the jobs have in common comes with their configuration, whatever the folder is called."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(LAUNCH, "abc")
    note_typed(["allow_targets=[x]", "lam=1", "-m"])
    folder = str(tmp_path / "a b=', [c]")
    cfg = hydra_cfg(f"hydra.sweep.dir={written(folder)}")
    cfg = OmegaConf.create({"hydra": cfg})
    Noted().on_multirun_start(cfg)
    there = composed(tuple(cfg.hydra.overrides.hydra)).job.env_set
    assert there == {NOTES: folder, LAUNCH: "abc", TYPED: "allow_targets lam"}


@lru_cache
def composed(overrides: tuple[str, ...]) -> DictConfig:
    """Hydra's own configuration."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides), return_hydra_config=True).hydra


def hydra_cfg(*overrides: str, mode: RunMode = RunMode.MULTIRUN, num: int = 5) -> OmegaConf:
    """Hydra's own configuration in a job."""
    cfg = composed(overrides).copy()
    OmegaConf.set_readonly(cfg, False)
    cfg.mode, cfg.job.num = mode, num
    return cfg


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], (8, None)),  # one job after the other: each has the machine
        (["hydra/launcher=workstation"], (1, 5)),
        (["hydra/launcher=workstation", "hydra.launcher.n_jobs=3"], (2, 5)),
        (["hydra/launcher=workstation", "hydra.launcher.n_jobs=20"], (1, 5)),
        (["hydra/launcher=workstation", "hydra.launcher.n_jobs=-5"], (2, 5)),
        (["hydra/launcher=local"], (1, 5)),
        (["hydra/launcher=local", "hydra.launcher.cpus_per_task=4"], (4, 5)),
        (["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=4"], (4, None)),  # its devices are its own
        (["hydra/launcher=slurm"], (8, None)),
    ],
)
def test_a_job_takes_its_share_of_the_machine(overrides: list[str], expected: tuple[int, int | None]) -> None:
    assert share(hydra_cfg(*overrides), cores=8) == expected
    assert share(hydra_cfg(*overrides, mode=RunMode.RUN), cores=8) == (8, None)


def test_workers_auto_are_the_cores_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study.runtime, "cores", lambda: 16)
    monkeypatch.setattr(study.runtime, "cuda_devices", lambda: 4)
    assert pool.processes("auto", "cpu", n_jobs=100) == 16
    assert pool.processes("auto", "cpu", n_jobs=100, cores=3) == 3
    assert pool.processes("auto", "cpu", n_jobs=2, cores=3) == 2
    assert pool.processes("auto", "cuda", n_jobs=100, cores=3) == 4  # one per device
    assert pool.processes("auto", "cuda:1", n_jobs=100, cores=3) == 1
    assert pool.processes("auto", "cuda", n_jobs=100, cores=9, each=6) == 8  # a core for each
    assert pool.processes("auto", "cuda:1", n_jobs=100, cores=9, each=6) == 6
    assert pool.processes(5, "cuda:1", n_jobs=100, cores=3) == 5


def test_processes_of_a_pool_take_one_cuda_device_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    counter, taken = multiprocessing.get_context("spawn").Value("i", 0), []
    monkeypatch.setattr(study.runtime, "cuda_devices", lambda: 2)
    monkeypatch.setattr(study.torch.cuda, "set_device", taken.append)
    for _ in range(3):
        child.start(None, None, counter, "cuda")
    child.start(None, None, counter, "cuda:1")
    child.start(None, None, counter, "cpu")
    assert taken == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hydra/launcher=slurm"], 'launcher: RuntimeError: Could not detect "srun"'),
        (["hydra/launcher=workstation", "hydra.launcher.n_jobs=0"], "launcher: ValueError: n_jobs == 0"),
        (["hydra/launcher=workstation", "hydra.launcher.jobs=2"], "unknown key hydra.launcher.jobs; allowed: _target_"),
        (["hydra/launcher=cluster"], "Available options in 'hydra/launcher': basic"),
        (["copy=one"], "copy"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_a_launcher_refuses_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert cli.run(monkeypatch, tmp_path, "-m", "lam=1,2", *arguments) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]


def test_without_the_plugins_it_says_how_to_get_them(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        refuse(HydraException("In 'hydra/launcher/workstation': Could not load 'hydra/launcher/joblib'."))
    assert "pip install 'cl_repro[launchers]'" in capfd.readouterr().err


@pytest.mark.parametrize("bug", [ZeroDivisionError("a bug"), FileNotFoundError(2, "a bug", "somewhere")])
def test_a_bug_in_a_job_keeps_its_traceback(bug: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise bug

    monkeypatch.setattr(study, "compute_missing", broken)
    with pytest.raises(type(bug)):
        cli.run(monkeypatch, tmp_path, "-m", "lam=1,2")


def test_a_table_that_a_run_replaces_while_it_is_read_is_not_called_edited(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "runs"
    store = Store(folder)
    rows = [dict.fromkeys(FILES["importance.csv"], "0") | {"run_id": f"{i}"} for i in range(3)]

    def merge(i: int) -> None:
        store.put(f"{i}", {"runs.csv": [any_row(f"{i}")], "importance.csv": [rows[i]]})
        store.merge()

    merge(0)
    before = store.provenance()
    merge(1)
    merge(2)  # now `before` does not even know it as the previous one
    assert len(read.read_table(folder / "importance.csv", FILES["importance.csv"], before)) == 3
    with open(folder / "importance.csv", "a") as file:
        file.write("x,0,0\n")
    with pytest.raises(UserError, match="edited"):
        read.read_table(folder / "importance.csv", FILES["importance.csv"], before)


# --- SLURM, without one -----------------------------------------------------------------------------------------------

# Each task of the array is the script itself, in the background, as a node would run it; task 0 is preempted once.
SLURM = {
    "sbatch": """
for script; do :; done
cp "$script" "$SLURM_HOME/script"
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$script")
for i in $(seq 0 "$last"); do "$SLURM_HOME/bin/task" "$i" >/dev/null 2>&1 & done
echo "Submitted batch job 77"
""",
    "task": """
export SLURM_ARRAY_JOB_ID=77 SLURM_ARRAY_TASK_ID="$1" SLURM_JOB_ID="77$1" SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1
export SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0
bash "$SLURM_HOME/script"
[ $? -eq 0 ] && touch "$SLURM_HOME/done.$1"
""",
    "srun": """
while :; do case "$1" in
  --output) out="$2"; shift 2;;
  --error) err="$2"; shift 2;;
  -*) shift;;
  *) break;;
esac; done
name() { echo "$1" | sed "s/%A/77/g; s/%a/$SLURM_ARRAY_TASK_ID/g; s/%t/0/g"; }
"$@" >>"$(name "$out")" 2>>"$(name "$err")" &
job=$!
if [ "$SLURM_ARRAY_TASK_ID" = 0 ] && [ ! -e "$SLURM_HOME/requeued" ]; then
  until grep -qx "$job" "$PROBE.pids" || ! kill -0 "$job"; do sleep 0.05; done  # until it is at work
  kill -USR2 "$job"
fi
wait "$job"
""",
    "scontrol": """
echo "$*" >>"$SLURM_HOME/requeued"
"$SLURM_HOME/bin/task" "${2#77_}" >/dev/null 2>&1 &
""",
    "sacct": """
echo "JobID|State|NodeList"
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$SLURM_HOME/script")
for i in $(seq 0 "$last"); do
  if [ -e "$SLURM_HOME/done.$i" ]; then echo "77_$i|COMPLETED|node1"; else echo "77_$i|RUNNING|node1"; fi
done
""",
}


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The commands of SLURM that submitit calls, in a folder for PATH."""
    (folder / "bin").mkdir(parents=True)
    for name, text in SLURM.items():
        (folder / "bin" / name).write_text("#!/bin/bash" + text)
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("SLURM_HOME", str(folder))
    return folder / "bin"


@pytest.mark.slow
def test_slurm_gets_one_array_and_a_job_it_preempts_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [
        "hydra.launcher.partition=gpu",
        "hydra.launcher.gpus_per_node=1",
        "hydra.launcher.cpus_per_task=4",
        "hydra.launcher.mem_gb=8",
        "hydra.launcher.timeout_min=30",
        "hydra.launcher.array_parallelism=2",
        'hydra.launcher.setup=["export CL_REPRO_COMMIT=from_setup"]',
    ]
    home = tmp_path / "slurm"
    path = stand_in(home, monkeypatch)
    work = [*STUDY, "copy=1,2,3", "workers=1"]
    process = launch(tmp_path, "hydra/launcher=slurm", *asked, *work, path=path)
    logs = "".join(log.read_text() for log in (tmp_path / "results" / "multirun").rglob("*.err"))
    assert process.returncode == 0, process.stderr + logs

    script = (home / "script").read_text()
    flags = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script, flags=re.M))
    expected = {"array": "0-2%2", "time": "30", "partition": "gpu", "gpus-per-node": "1", "cpus-per-task": "4"}
    expected |= {"mem": "8GB", "requeue": "", "signal": "USR2@60", "job-name": "cl_repro", "open-mode": "append"}
    assert expected.items() <= flags.items()
    assert script.index("export CL_REPRO_COMMIT=from_setup") < script.index("srun ")

    assert (home / "requeued").read_text() == "requeue 77_0\n"
    rows = table(tmp_path, "split_digits_fisher")
    assert len({row["run_id"] for row in rows}) == len(rows) == CELLS
    counts = Counter(note["run"] for note in processes.notes(tmp_path))
    assert sorted(counts.values()) in ([1] * CELLS, [1] * (CELLS - 1) + [2])  # only the interrupted chunk, if any
