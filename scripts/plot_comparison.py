"""Draw studies that put methods side by side (PNG and SVG): accuracy against memory and compute.

Where arms differ in how many examples they store, accuracy against that number instead.
"""

import argparse
from pathlib import Path

from cl_repro.analysis.command import run
from cl_repro.analysis.comparison_figure import plot_comparison
from cl_repro.analysis.settings import COMPARISON
from cl_repro.analysis.study import folders, open_study, studies


def make(arguments: argparse.Namespace) -> list[Path]:
    """Draw the studies asked for, or every comparison there is."""
    names, root = arguments.names, arguments.results_dir
    there = names or [name for name in folders(root) if open_study(name, root).kind == COMPARISON]
    found = studies(there, root, (COMPARISON,)) if there else []
    return [path for study in found for path in plot_comparison(study, arguments.out)]


if __name__ == "__main__":
    run(__doc__, "figures", make)
