"""The command line that the scripts share: which folders of results, from where, to where."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from cl_repro.analysis.kinds import Opened, opened
from cl_repro.analysis.output.figures import Drawing
from cl_repro.analysis.output.markup import Document
from cl_repro.common.errors import Parser, Skipping, UserError, entry_point, existing_folder
from cl_repro.records import check_place, folder_name


def make_files(
    description: str | None,
    default_out: str,
    make: Callable[[argparse.Namespace], list[Path]],
    shows: bool = False,
) -> None:
    """Parse the command line, make the files, print their paths; a user's mistake is one line, and exit status 2.

    `make` is given `names`, `results_dir`, `out` (by default the folder `default_out` there), `what`, which is that
    name, and `skipping`, for folders that nobody has named; `show`, if there is such an option.
    """
    parser = Parser(description=description)
    parser.add_argument(
        "names", nargs="*", metavar="folder", help="folders under --results-dir (default: every one that fits)"
    )
    parser.add_argument("--results-dir", type=existing_folder, default=Path("results"), help="default: %(default)s")
    parser.add_argument("--out", type=Path, help=f"default: <results-dir>/{default_out}")
    if shows:
        parser.add_argument("--show", action="store_true", help="also print the tables")
    with entry_point():
        arguments = parser.parse_args()
        arguments.out = arguments.out or arguments.results_dir / default_out
        arguments.what = default_out
        arguments.skipping = Skipping(named=bool(arguments.names))
        check_place(arguments.out)
        arguments.names = [folder_name(given, arguments.results_dir) for given in arguments.names]
        paths = make(arguments)
        print(*paths, sep="\n", end="\n" if paths else "")
        arguments.skipping.end()


Made = TypeVar("Made", Drawing, Document)


def planned(arguments: argparse.Namespace, of: Callable[[Opened], list[Made]]) -> list[tuple[Path, list[Made]]]:
    """What is to be written of the folders asked for; all that is refused is refused before anything is written.

    Raises:
        UserError: there are no results, or nothing is made of a folder that is named.
    """
    results, skipping, found = arguments.results_dir, arguments.skipping, list[tuple[Path, list[Made]]]()
    for group in opened(arguments.names, results, skipping):
        with skipping.attempt(group.folder):
            made = of(group)
            if arguments.names and not made:
                raise UserError(f"{group.folder}: no {arguments.what} are made of it")
            found.append((group.folder, made))
    if not found and not skipping.skipped:
        raise UserError(f"no results under {results}: run `make reproduce` first")
    return found


def written(arguments: argparse.Namespace, those: Sequence[tuple[Path, list[Made]]]) -> list[Path]:
    """Write what was planned; returns the paths."""
    paths: list[Path] = []
    for folder, made in those:
        with arguments.skipping.attempt(folder):
            for one in made:
                paths += one.write(arguments.out)
    return paths
