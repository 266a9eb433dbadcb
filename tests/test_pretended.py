"""The tests marked gpu on pretended CUDA devices, in a process of their own: torch must meet these before all else."""

import os
import subprocess
import sys

import cli
import pytest
import torch
from pretended import pretended

FOLDER = cli.ROOT / "tests" / "pretended"


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    if torch.version.cuda or sys.platform != "linux":
        pytest.skip("pretended CUDA is for a torch without CUDA, on Linux")
    if not pretended.compiler():
        pytest.skip("no C++ compiler: pretended CUDA cannot be built")
    pretended.build()
    paths = [str(FOLDER), str(cli.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PRETENDED_CUDA": "1"}


@pytest.mark.parametrize(
    "which", ["gpu and not slow", pytest.param("gpu and slow", marks=pytest.mark.slow, id="the rest")]
)
def test_cuda_ends_where_a_cpu_does(which: str, environment: dict[str, str]) -> None:
    """Every method, estimator and network, and the programs; see test_gpu.py."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", which, "tests/test_gpu.py"]
    done = subprocess.run(command, cwd=cli.ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " skipped" not in done.stdout


REFUSED = """
import torch
def refused(f):
    try: f()
    except (RuntimeError, TypeError): return True
x, far = torch.ones(3, device="cuda"), torch.ones(3, device="cuda:1")
assert refused(lambda: x + torch.ones(3)) and refused(lambda: x + far) and refused(lambda: x.numpy())
assert refused(lambda: torch.ones(3)[torch.tensor([1], device="cuda")])
assert refused(lambda: torch.rand(2, device="cuda", generator=torch.Generator()))
assert refused(lambda: x @ torch.ones(()))
assert x[torch.tensor([1])].item() == (x + torch.tensor(0.0))[0].item() == 1
there = torch.arange(6, device="cuda:1").view(2, 3)[:, 1:]
assert there[:, torch.tensor([0], device="cuda:1")].tolist() == [[1], [4]] and there.device.index == 1
"""


def test_it_refuses_what_cuda_refuses(environment: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", REFUSED], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
