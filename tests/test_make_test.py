"""`make test` ends, with a failure, when one of its processes dies, or computes or waits for ever."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WAYS = {
    "dies": "import os, signal\ndef test_it(): os.kill(os.getpid(), signal.SIGSEGV)",
    "waits": "import time\ndef test_it(): time.sleep(1000)",
    # as a library that was given bad memory may, where no thread of Python gets a turn
    "waits alone": "import ctypes\ndef test_it(): ctypes.PyDLL(None).sleep(1000)",
}
# Files begin in the order of their names.
MANY = "\nimport pytest, time\n@pytest.mark.parametrize('i', range({}))\ndef test_next(i): time.sleep({})"


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_process_that_does_not_end_its_test_ends_them_all(way: str, tmp_path: Path) -> None:
    """With the settings of the project but for the limits of time; the other process ends the file it has begun."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (tmp_path / "tests" / "test_bad.py").write_text(WAYS[way] + MANY.format(50, 0))
    for name in range(20):
        (tmp_path / "tests" / f"test_later_{name}.py").write_text(MANY.format(20, 0.1))
    parallel = re.search(r"^PARALLEL := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert parallel
    limits = ["-o", "timeout=3", "-o", "faulthandler_timeout=6"]
    command = [sys.executable, "-m", "pytest", "-q", *parallel[1].split(), *limits]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    passed = re.search(r"1 failed, (\d+) passed", done.stdout)
    assert passed and int(passed[1]) < 20 * 20 / 2
    assert re.search(r"worker 'gw\d' crashed while running 'tests/test_bad.py::test_it'", done.stdout)
