"""The command and the scripts as processes of their own, and what each process that trains says about itself."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import cli

# Notes which processes start, and for each run what the process that has trained it looks like. `benchmark._target_`
# makes every process import it.
PROBE = """
import json, os
from multiprocessing import current_process
import torch
from cl_repro.benchmarks.split import split
from cl_repro.study import rows

run_row = rows.run_row

def noted(job, cell, *others):
    denormal = torch.tensor([1e-310], dtype=torch.float64)
    note = {"run": cell.run_id, "process": current_process().name}
    note |= {"threads": torch.get_num_threads(), "kept": (denormal * 1.0).item()}
    with open(os.environ["PROBE"], "a") as file:
        file.write(json.dumps(note) + "\\n")
    return run_row(job, cell, *others)

rows.run_row = noted
with open(os.environ["PROBE"] + ".pids", "a") as file:
    file.write(f"{os.getpid()}\\n")
"""
PROBED = ("benchmark._target_=probe.split", "allow_targets=[probe]")


def start(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None, stderr: int = subprocess.PIPE
) -> subprocess.Popen[str]:
    """`python -m cl_repro ARGUMENTS` in a folder and a process group of its own; with PROBED among them, probed."""
    (folder / "probe.py").write_text(PROBE)
    paths = {"PYTHONPATH": f"{cli.ROOT}{os.pathsep}{folder}", "PROBE": str(folder / "probe.jsonl")}
    return subprocess.Popen(
        [sys.executable, "-m", "cl_repro", *arguments],
        cwd=folder,
        env={**os.environ, **paths, **(environment or {})},
        text=True,
        stdout=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
    )


@contextmanager
def gone_afterwards(*started: subprocess.Popen[str]) -> Iterator[None]:
    """Whatever happens, nothing of the groups of these processes is left."""
    try:
        yield
    finally:
        for process in started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def limit(seconds: float) -> float:
    """Seconds to wait for what takes this long at most on an idle machine: more where others are at work, too."""
    return min(1100.0, seconds * max(1.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1)))  # a slow test has 1200


def complaints(err: str) -> list[str]:
    """Lines of standard error but for progress, warnings of libraries, and the lines of code that these quote."""
    return [line for line in err.splitlines() if not re.search(r"^\d+/\d+ replicas: |Warning:|^  ", line)]


SCRIPTS = """
import contextlib, io, json, runpy, sys
found = []
for sys.argv in json.loads(sys.argv[1]):
    out, err, status = io.StringIO(), io.StringIO(), 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as stop:
        status = stop.code or 0
    assert not {"torch", "torchvision"} & set(sys.modules), f"torch was imported by {sys.argv}"
    found.append([status, out.getvalue(), err.getvalue()])
print(json.dumps(found))
"""


def scripts(*commands: Sequence[object]) -> list[tuple[int, str, str]]:
    """Scripts, one after the other in one process, which must import neither torch nor torchvision.

    Args:
        commands: of each the name of a file under scripts/, and its arguments.

    Returns:
        Of each the exit status, and what it wrote to standard output and standard error.
    """
    argv = [[str(cli.ROOT / "scripts" / str(name)), *map(str, arguments)] for name, *arguments in commands]
    environment = {**os.environ, "PYTHONPATH": str(cli.ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPTS, json.dumps(argv)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return [(status, out, err) for status, out, err in json.loads(done.stdout)]


def notes(folder: Path) -> list[dict]:
    """What the probe wrote, one per run computed; every process was prepared before it computed."""
    found = [json.loads(line) for line in (folder / "probe.jsonl").read_text().splitlines()]
    assert {note["threads"] for note in found} == {1}
    assert {note["kept"] for note in found} == {0.0}  # the denormal was flushed
    return found


def until(condition: Callable[[], object], seconds: float = 240) -> None:
    """Wait for it."""
    end = time.monotonic() + limit(seconds)
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def group(pid: int) -> list[int]:
    """Processes of a group that are alive (Linux)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            state, _, of_group = entry.read_text().rsplit(")", 1)[1].split()[:3]
            found += [int(entry.parent.name)] if int(of_group) == pid and state != "Z" else []
    return found


def workers(pid: int) -> list[int]:
    """Those of a group that train beside its first: of a pool, or jobs of joblib."""
    found = []
    for member in group(pid):
        with suppress(OSError):  # it ended meanwhile
            command = Path(f"/proc/{member}/cmdline").read_bytes()
            found += [member] if member != pid and (b"spawn_main" in command or b"popen_loky" in command) else []
    return found


def alive(pid: int) -> bool:
    """Running, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
