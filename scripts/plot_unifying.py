"""Draw the figures of Benzing (2022) and tabulate their values beside the published ones, from stored files alone.

Folders of results that scripts/unifying.py has written; those of one scale share their figures.
"""

import argparse
from pathlib import Path

from cl_repro.analysis.measurements.unifying import by_scale, folders, open_figures
from cl_repro.analysis.measurements.unifying_figures import plot_all
from cl_repro.analysis.measurements.unifying_tables import write_tables
from cl_repro.analysis.output.command import make_files
from cl_repro.common.errors import UserError


def make(arguments: argparse.Namespace) -> list[Path]:
    """Figures to `out`, tables to tables/ beside the results; all that is there, or what is named."""
    results = arguments.results_dir
    names = arguments.names or folders(results)
    if not names:
        raise UserError(f"nothing to draw under {results}: run scripts/unifying.py first")
    found, paths = [], []
    for name in names:
        with arguments.skipping.attempt(results / name):
            found.append(open_figures(name, results))
    for group in by_scale(found):
        with arguments.skipping.attempt(results / group[0].name):
            paths += plot_all(group, arguments.out)
    for one in found:
        with arguments.skipping.attempt(results / one.name):
            paths += write_tables(one, results / "tables")
    return paths


if __name__ == "__main__":
    make_files(__doc__, "figures", make)
