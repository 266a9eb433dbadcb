"""Measure every estimator on a trained first task, into results/anatomy_<benchmark>; then draw and tabulate it.

Usage: python scripts/anatomy.py [key=value ...], with the overrides of `python -m cl_repro`, for example
benchmark=split_mnist seeds=[1,2,3]. Weights are kept beside the results: a second call trains nothing again.
"""

import sys
from collections.abc import Sequence

from cl_repro import anatomy, runtime
from cl_repro.analysis.anatomy import open_anatomy
from cl_repro.analysis.anatomy_cost import plot_cost
from cl_repro.analysis.anatomy_tables import write_tables
from cl_repro.config import register
from cl_repro.errors import entry_point


def main(overrides: Sequence[str]) -> None:
    """A user's mistake is one line, and exit status 2."""
    if {"-h", "--help"} & set(overrides):
        print(__doc__)
        return
    register()
    runtime.prepare()
    with entry_point():
        folder = anatomy.run(overrides)
        found = open_anatomy(folder.name, folder.parent)
        paths = plot_cost(found, folder.parent / "figures") + write_tables(found, folder.parent / "tables")
        print(*paths, *sorted(folder.glob("*.csv")), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
