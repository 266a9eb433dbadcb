#!/usr/bin/env python3
"""Download the data sets, or verify the ones that are there; never overwrites a file.

Runs never download: this is what `make data` calls. The digits come with scikit-learn.
"""

import argparse
import os
from pathlib import Path

from cl_repro.benchmarks.data.arrays import READERS
from cl_repro.benchmarks.data.download import prepare
from cl_repro.common.errors import Parser, entry_point


def main(arguments: list[str] | None = None) -> None:
    """Run the command line: `arguments` without the program's name, or those of the process."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(READERS), help=f"of {', '.join(READERS)} (default: all)")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path(os.environ.get("CL_REPRO_DATA") or "data"),
        help="folder of the data sets (default: $CL_REPRO_DATA, else data)",
    )
    with entry_point():
        options = parser.parse_args(arguments)
        prepare(options.names, options.data_dir)


if __name__ == "__main__":
    main()
