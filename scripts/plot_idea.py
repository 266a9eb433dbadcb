"""Draw the plane of parameter space (PNG and SVG) again, from results/<name>/paths.csv and plane.csv."""

import argparse
from pathlib import Path

from cl_repro.analysis.command import run
from cl_repro.analysis.idea import plot_idea


def make(arguments: argparse.Namespace) -> list[Path]:
    """Draw the folders named, or every one there is."""
    root = arguments.results_dir
    names = arguments.names or sorted(path.parent.name for path in root.glob("*/paths.csv"))
    return [path for name in names for path in plot_idea(root / name, arguments.out)]


if __name__ == "__main__":
    run(__doc__, "figures", make)
