"""Measure every estimator on a trained first task, into results/anatomy_<benchmark>; then draw and tabulate it.

Usage: python scripts/anatomy.py [key=value ...], with the overrides of `python -m cl_repro`, for example
benchmark=split_mnist seeds=[1,2,3]. Weights are kept beside the results: a second call trains nothing again.
"""

from collections.abc import Sequence
from pathlib import Path

from cl_repro import anatomy
from cl_repro.analysis.anatomy import open_anatomy
from cl_repro.analysis.anatomy_cost import plot_cost
from cl_repro.analysis.anatomy_tables import write_tables
from cl_repro.script import script


def main(overrides: Sequence[str]) -> list[Path]:
    """Measure, draw, tabulate."""
    folder = anatomy.run(overrides)
    found = open_anatomy(folder.name, folder.parent)
    paths = plot_cost(found, folder.parent / "figures") + write_tables(found, folder.parent / "tables")
    return [*paths, *sorted(folder.glob("*.csv"))]


if __name__ == "__main__":
    script(__doc__, main)
