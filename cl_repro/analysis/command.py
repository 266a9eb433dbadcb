"""The command line that the scripts share: which studies, from where, to where."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cl_repro.analysis.markup import Table, plain
from cl_repro.analysis.study import Study, studies
from cl_repro.analysis.tables import write_tables
from cl_repro.errors import UserError


def run(
    description: str | None,
    default_out: str,
    make: Callable[[argparse.Namespace], list[Path]],
    shows: bool = False,
) -> int:
    """Parse the command line, make the files, print their paths.

    Args:
        description: for --help.
        default_out: folder under --results-dir.
        make: from `names`, `results_dir`, `out` (and `show`) to the paths written.
        shows: whether there is a --show.

    Returns:
        Exit status: 0, or 2 after a user's mistake, which is told in one line on stderr.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "names", nargs="*", metavar="study", help="folders under --results-dir (default: every one that fits)"
    )
    parser.add_argument("--results-dir", type=Path, default=Path("results"), help="default: %(default)s")
    parser.add_argument("--out", type=Path, help=f"default: <results-dir>/{default_out}")
    if shows:
        parser.add_argument("--show", action="store_true", help="also print the tables")
    arguments = parser.parse_args()
    arguments.out = arguments.out or arguments.results_dir / default_out
    try:
        for path in make(arguments):
            print(path)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def make_tables(
    arguments: argparse.Namespace, kinds: Sequence[str], tables: Callable[[Study], list[Table]]
) -> list[Path]:
    """Write the tables of the studies asked for, and print them if `show` says so; returns the paths."""
    paths = []
    for study in studies(arguments.names, arguments.results_dir, kinds):
        made = tables(study)
        if arguments.show:
            print("\n".join(map(plain, made)))
        paths += write_tables(study, made, arguments.out)
    return paths
