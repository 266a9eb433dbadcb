"""Draw and tabulate, from CSVs alone, what differs between estimators of the Fisher.

Of a study of curves: do they collapse on the axis lambda x trace? Of results/anatomy_*: error against cost, and why
sample behaves like empirical.
"""

import argparse
from pathlib import Path

from cl_repro.analysis.lambdas.collapse import plot_collapse
from cl_repro.analysis.measurements.anatomy import open_anatomy
from cl_repro.analysis.measurements.anatomy_cost import plot_cost
from cl_repro.analysis.measurements.anatomy_tables import write_tables
from cl_repro.analysis.output.command import make_files
from cl_repro.common.errors import UserError


def make(arguments: argparse.Namespace) -> list[Path]:
    """Figures to `out`, tables to tables/ beside the studies; all that fits, or what is named."""
    results, tables = arguments.results_dir, arguments.results_dir / "tables"
    there = sorted(path.parent.name for path in results.glob("*/anatomy.csv"))
    anatomies = [name for name in arguments.names or there if (results / name / "anatomy.csv").exists()]
    others = [name for name in arguments.names if name not in anatomies]
    paths, skipping = [], arguments.skipping
    if others or not arguments.names:
        paths += plot_collapse(others, results, arguments.out, tables, skipping)
    for name in anatomies:
        with skipping.attempt(results / name):
            found = open_anatomy(name, results)
            paths += [*plot_cost(found, arguments.out), *write_tables(found, tables)]
    if not paths and not skipping.skipped:
        raise UserError(f"nothing to draw under {results}: run scripts/anatomy.py or a study first")
    return paths


if __name__ == "__main__":
    make_files(__doc__, "figures", make)
