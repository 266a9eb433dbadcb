"""The command line that the scripts share: which studies, from where, to where."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from cl_repro.analysis.data.study import Study, studies
from cl_repro.analysis.lambdas.tables import write_tables
from cl_repro.analysis.output.markup import Table, plain
from cl_repro.common.errors import Parser, Skipping, entry_point, existing_folder
from cl_repro.records import check_place


def make_files(
    description: str | None,
    default_out: str,
    make: Callable[[argparse.Namespace], list[Path]],
    shows: bool = False,
) -> None:
    """Parse the command line, make the files, print their paths; a user's mistake is one line, and exit status 2.

    Args:
        description: for --help.
        default_out: folder under --results-dir.
        make: from `names`, `results_dir`, `out` (and `show`) to the paths written; with `skipping`, for folders that
            nobody has named.
        shows: whether there is a --show.
    """
    parser = Parser(description=description)
    parser.add_argument(
        "names", nargs="*", metavar="study", help="folders under --results-dir (default: every one that fits)"
    )
    parser.add_argument("--results-dir", type=existing_folder, default=Path("results"), help="default: %(default)s")
    parser.add_argument("--out", type=Path, help=f"default: <results-dir>/{default_out}")
    if shows:
        parser.add_argument("--show", action="store_true", help="also print the tables")
    with entry_point():
        arguments = parser.parse_args()
        arguments.out = arguments.out or arguments.results_dir / default_out
        arguments.skipping = Skipping(named=bool(arguments.names))
        check_place(arguments.out)
        print(*make(arguments), sep="\n")
        arguments.skipping.end()


def make_tables(
    arguments: argparse.Namespace, kinds: Sequence[str], tables: Callable[[Study], list[Table]]
) -> list[Path]:
    """Write the tables of the studies asked for, and print them if `show` says so; returns the paths."""
    # All are made before one is written: whatever is refused leaves nothing behind.
    made = []
    for study in studies(arguments.names, arguments.results_dir, kinds, arguments.skipping):
        with arguments.skipping.attempt(study.folder):
            made.append((study, tables(study)))
    if arguments.show:
        print("\n".join(plain(table) for _, those in made for table in those))
    return [path for study, those in made for path in write_tables(study, those, arguments.out)]
