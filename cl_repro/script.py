"""The entry point of programs that measure besides training: overrides of the application in, paths of files out."""

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cl_repro import runtime
from cl_repro.config import register
from cl_repro.errors import entry_point


def script(description: str | None, run: Callable[[Sequence[str]], Iterable[Path]]) -> None:
    """Run a program on its command line; a user's mistake is one line, and exit status 2.

    Args:
        description: for --help.
        run: from Hydra's overrides to the paths to print.
    """
    overrides = sys.argv[1:]
    if {"-h", "--help"} & set(overrides):
        print(description)
        return
    register()
    runtime.prepare()
    with entry_point():
        print(*run(overrides), sep="\n")
