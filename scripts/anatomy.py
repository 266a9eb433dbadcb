"""Measure every estimator on a trained first task, into results/anatomy_<benchmark>; then draw and tabulate it.

Usage: python scripts/anatomy.py [key=value ...], with the overrides of `python -m cl_repro`, for example
benchmark=split_mnist seeds=[1,2,3]. The same command again measures what is missing; after the word status it says how
far it is.
"""

from pathlib import Path

from cl_repro.analysis.measurements.anatomy import open_anatomy
from cl_repro.analysis.measurements.anatomy_cost import plot_cost
from cl_repro.analysis.measurements.anatomy_tables import write_tables
from cl_repro.measurements import anatomy
from cl_repro.measurements.script import script


def shown(folder: Path) -> list[Path]:
    """Draw, tabulate."""
    found = open_anatomy(folder.name, folder.parent)
    return plot_cost(found, folder.parent / "figures") + write_tables(found, folder.parent / "tables")


if __name__ == "__main__":
    script(__doc__, anatomy.PROGRAM, shown)
