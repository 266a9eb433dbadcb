"""Measure every importance beside a run of Synaptic Intelligence, into results/unifying_figures_<benchmark>.

Usage: python scripts/unifying.py [key=value ...], with the overrides of `python -m cl_repro`, for example
study=unifying_figures_permuted_mnist scale=cpu seeds=[1,2]; with lam=0, or reinit=false lam=0.5, a control. Another
call adds rows, or replaces those of the same seeds and run. scripts/plot_unifying.py draws and tabulates them.
"""

import sys
from collections.abc import Sequence

from cl_repro import runtime, unifying
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
        folder = unifying.run(overrides)
        print(*sorted(folder.glob("*.csv")), *folder.glob("*.npz"), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
