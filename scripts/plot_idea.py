"""Draw the plane of parameter space (PNG and SVG) again, from results/<name>/paths.csv and plane.csv."""

import argparse
from pathlib import Path

from cl_repro.analysis.measurements.idea import plot_idea
from cl_repro.analysis.output.command import make_files


def make(arguments: argparse.Namespace) -> list[Path]:
    """Draw the folders named, or every one there is."""
    root = arguments.results_dir
    names = arguments.names or sorted(path.parent.name for path in root.glob("*/paths.csv"))
    paths = []
    for name in names:
        with arguments.skipping.attempt(root / name):
            paths += plot_idea(root / name, arguments.out)
    return paths


if __name__ == "__main__":
    make_files(__doc__, "figures", make)
