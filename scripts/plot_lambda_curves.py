"""Draw accuracy against lambda (PNG and SVG) from results/<study>/runs.csv."""

import argparse
from pathlib import Path

from cl_repro.analysis.data.study import ARMS, CURVES, LISTING, most_lambdas, studies
from cl_repro.analysis.lambdas.curves import plot_study, with_a_curve
from cl_repro.analysis.output.command import make_files


def make(arguments: argparse.Namespace) -> list[Path]:
    """Draw the studies asked for, or every one that has a curve."""
    skipping, paths = arguments.skipping, []
    found = studies(arguments.names, arguments.results_dir, (CURVES, ARMS, LISTING), skipping)
    drawn = [study for study in found if arguments.names or study.kind == ARMS or most_lambdas(study.runs) > 1]
    for study in drawn:
        with_a_curve(study)  # refused before the first is drawn
    for study in drawn:
        with skipping.attempt(study.folder):
            paths += plot_study(study, arguments.out)
    return paths


if __name__ == "__main__":
    make_files(__doc__, "figures", make)
