"""Write the timing table (Markdown and LaTeX): training time relative to None, published and ours."""

import argparse
from pathlib import Path

from cl_repro.analysis.data.study import TIMING
from cl_repro.analysis.lambdas.timing import timing_table
from cl_repro.analysis.output.command import make_files, make_tables


def make(arguments: argparse.Namespace) -> list[Path]:
    """One table per timing study."""
    return make_tables(arguments, (TIMING,), lambda study: [timing_table(study)])


if __name__ == "__main__":
    make_files(__doc__, "tables", make, shows=True)
