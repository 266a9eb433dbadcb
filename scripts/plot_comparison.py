"""Draw studies that put methods side by side (PNG and SVG): accuracy against memory and compute.

Where arms differ in how many examples they store, accuracy against that number instead.
"""

import argparse
from pathlib import Path

from cl_repro.analysis.comparisons.comparison_figure import plot_comparison
from cl_repro.analysis.data.settings import COMPARISON
from cl_repro.analysis.data.study import opened, studies
from cl_repro.analysis.output.command import make_files


def make(arguments: argparse.Namespace) -> list[Path]:
    """Draw the studies asked for, or every comparison there is."""
    names, root, skipping, paths = arguments.names, arguments.results_dir, arguments.skipping, []
    found = studies(names, root, (COMPARISON,)) if names else opened([], root, skipping)
    for study in found:
        if study.kind == COMPARISON:
            with skipping.attempt(study.folder):
                paths += plot_comparison(study, arguments.out)
    return paths


if __name__ == "__main__":
    make_files(__doc__, "figures", make)
