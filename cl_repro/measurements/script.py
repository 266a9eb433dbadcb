"""The entry point of programs that measure besides training: overrides of the application in, paths of files out."""

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cl_repro.common import runtime
from cl_repro.common.errors import entry_point
from cl_repro.measurements import program
from cl_repro.measurements.program import Program
from cl_repro.study.config import register


def script(
    description: str | None,
    measures: Program,
    shown: Callable[[Path], Iterable[Path]] = lambda folder: (),
    given: Sequence[str] = (),
) -> None:
    """Run a program on its command line; a user's mistake is one line, and exit status 2.

    Args:
        description: for --help.
        measures: the program; after the word `status` it only tells how far it is.
        shown: from the results folder to figures and tables that are made of it, to be printed before its files.
        given: overrides that those of the command line come after.
    """
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        print(description)
        return
    register()
    runtime.prepare()
    with entry_point():
        if words[:1] == ["status"]:
            program.tell(measures, [*given, *words[1:]])
            return
        folder = program.measure_missing(measures, [*given, *words])
        print(*shown(folder), *sorted(folder.glob("*.csv")), *folder.glob("*.npz"), sep="\n")
