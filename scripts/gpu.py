"""All that a CUDA GPU is for, in slices: correctness, speed, then the studies that a CPU cannot afford.

Give the same command again, and it continues; what is left is printed at the end. See `make gpu`.
"""

import math
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from cl_repro.common import runtime
from cl_repro.common.errors import Parser, UserError, entry_point, refuse
from cl_repro.study import provenance

ROOT = Path(__file__).resolve().parent.parent
STAMPS = ROOT / ".gpu"  # a file for every check or bench that was done, with its commit
LEAST = 20.0  # seconds that a slice must have for a study to go on


class Work(NamedTuple):
    """One thing to do; a study goes on where it stopped, anything else is done as a whole."""

    name: str
    command: tuple[str, ...]  # after the name of the interpreter
    seconds: float = LEAST  # that it needs, or that a study gets on in
    study: bool = False


def study(name: str, *overrides: str, scale: str = "paper") -> Work:
    """A slice of a study at the paper's scale, or at that of a processor."""
    return Work(
        f"{name} {' '.join(overrides)}".strip(),
        ("-m", "cl_repro", f"study={name}", f"scale={scale}", *overrides),
        study=True,
    )


def bench(group: str, seconds: float) -> Work:
    """A group of `make bench`."""
    return Work(f"bench {group}", ("scripts/bench.py", "--only", group), seconds)


ALONE = "max_replicas=1"  # a stack of convolutions is no faster per replica; several processes may be: not measured yet
SEEDS = ",".join(map(str, range(22, 31)))  # those before are committed, from a CPU
FIRST = ("grid.window.product=1.0e+5", "grid.window.decades=1")  # one lambda an arm, before the window
CIFAR10 = [
    study("split_cifar10_fisher", f"seeds=[{','.join(map(str, range(1, n + 1)))}]", ALONE, "workers=6", *grid)
    for n in (1, 2, 3)
    for grid in (FIRST, ())
]
WORK = [
    Work("tests", ("-m", "pytest", "-q", "-m", "gpu", "-n", "4", "tests"), 90.0),
    bench("cuda", 120.0),
    study("split_mnist_fisher", f"seeds=[{SEEDS}]", "max_replicas=280"),  # four seeds a stack: a slice ends whole ones
    CIFAR10[0],
    study("fisher_importance_sampling_permuted_mnist", scale="cpu"),  # the three are 12 core-hours there
    study("fisher_importance_sampling_cifar10_100", scale="cpu"),
    study("fisher_importance_sampling_split_cifar100", scale="cpu"),
    *CIFAR10[1:],
    study("split_cifar10_timing"),
    study("unifying_table1_permuted_mnist", "workers=4"),
    study("unifying_table1_cifar10_100", "workers=4"),
    bench("cuda_study", 300.0),
]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line: `arguments` without the program's name, or those of the process."""
    parser = Parser(description=__doc__)
    parser.add_argument("--budget", type=float, default=540.0, help="seconds of this slice (default: %(default)s)")
    with entry_point():
        budget = parser.parse_args(arguments).budget
        if not 0 < budget < math.inf:
            raise UserError(f"--budget={budget:g}: must be a number of seconds above 0")
        if not runtime.cuda_devices():
            refuse("torch sees no CUDA device here")
        left = a_slice(WORK, time.monotonic() + budget)
        print("\n".join(["left:", *(f"  {work.name}" for work in left)]) if left else "nothing is left")


def a_slice(works: list[Work], deadline: float) -> list[Work]:
    """Do, in order, what there is time for; returns what is left."""
    left = []
    for work in works:
        remaining = deadline - time.monotonic()
        if stamped(work):
            continue
        if remaining < work.seconds or not done(work, remaining):
            left.append(work)
    return left


def done(work: Work, seconds: float) -> bool:
    """Do it within so many seconds; whether it is complete."""
    budget = [f"time_budget={seconds:.0f}"] if work.study else []
    print(f"{work.name}: {seconds:.0f} s left", flush=True)
    try:
        # A study ends by itself, in time if its tasks take as long as those before; the rest is for its tables.
        subprocess.run(
            [sys.executable, *work.command, *budget], cwd=ROOT, check=True, timeout=seconds + 60 * work.study
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        print(f"{work.name}: {type(error).__name__}", flush=True)
        return False
    if not work.study:
        STAMPS.mkdir(exist_ok=True)
        stamp(work).write_text(provenance.source().git_sha)
    return True


def stamp(work: Work) -> Path:
    """The file that says at which commit something was done."""
    return STAMPS / work.name.replace(" ", "_")


def stamped(work: Work) -> bool:
    """Whether it was done at this commit."""
    return stamp(work).exists() and stamp(work).read_text() == provenance.source().git_sha


if __name__ == "__main__":
    main()
