"""Write the accuracy tables (Markdown and LaTeX) of studies and runs, beside the published numbers."""

import argparse
from pathlib import Path

from cl_repro.analysis.data.settings import COMPARISON
from cl_repro.analysis.data.study import ARMS, CURVES, LISTING
from cl_repro.analysis.lambdas.tables import tables_of
from cl_repro.analysis.output.command import make_files, make_tables


def make(arguments: argparse.Namespace) -> list[Path]:
    """Accuracy, rise and width, gaps, paired differences; methods side by side; a plain listing for ad-hoc runs."""
    return make_tables(arguments, (CURVES, ARMS, COMPARISON, LISTING), tables_of)


if __name__ == "__main__":
    make_files(__doc__, "tables", make, shows=True)
