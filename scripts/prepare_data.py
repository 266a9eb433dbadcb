#!/usr/bin/env python3
"""Download the data sets, or verify the ones that are there; never overwrites a file.

Runs never download: this is what `make data` calls. The digits come with scikit-learn.
"""

import argparse
import os
import sys
from pathlib import Path

from cl_repro.data.arrays import READERS
from cl_repro.data.download import prepare
from cl_repro.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; None: those of the process.

    Returns:
        Exit status: 0, or 2 after a one-line error.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["mnist"], help=f"of {', '.join(READERS)} (default: mnist)")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path(os.environ.get("CL_REPRO_DATA") or "data"),
        help="folder of the data sets (default: $CL_REPRO_DATA, else data)",
    )
    options = parser.parse_args(arguments)
    try:
        prepare(options.names, options.data_dir)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
