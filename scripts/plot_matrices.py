"""Draw, for every study, the accuracy of each task after each (PNG and SVG), of every arm at its best lambda."""

import argparse
from pathlib import Path

from cl_repro.analysis.comparisons.matrices import plot_matrices
from cl_repro.analysis.data.settings import COMPARISON
from cl_repro.analysis.data.study import ARMS, CURVES, LISTING, opened, studies
from cl_repro.analysis.output.command import make_files


def make(arguments: argparse.Namespace) -> list[Path]:
    """Draw the studies asked for, or all."""
    kinds, skipping, paths = (CURVES, ARMS, LISTING, COMPARISON), arguments.skipping, []
    names, root = arguments.names, arguments.results_dir
    for study in studies(names, root, kinds) if names else opened([], root, skipping):
        with skipping.attempt(study.folder):
            paths += plot_matrices(study, arguments.out)
    return paths


if __name__ == "__main__":
    make_files(__doc__, "figures", make)
