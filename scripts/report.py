"""Write the report of all results, <out>/index.html and a page a benchmark: static, from stored files alone."""

import argparse
from pathlib import Path

from cl_repro.analysis.command import make_files
from cl_repro.report.page import write_page


def make(arguments: argparse.Namespace) -> list[Path]:
    """The page, of everything that is there or of what is named."""
    return write_page(arguments.names, arguments.results_dir, arguments.out, arguments.skipping)


if __name__ == "__main__":
    make_files(__doc__, "report", make)
