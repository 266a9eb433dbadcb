"""Search the strength of a penalty task by task (De Lange et al. 2021), into results/strength_search_<benchmark>.

Usage: python scripts/strength_search.py [key=value ...], with the overrides of `python -m cl_repro`, for example
study=tiny_imagenet_search scale=cpu seeds=[1], or benchmark=split_digits val_fraction=0.2 optim=sgd_momentum method=si;
lam is the strength at first. The same command again searches what is missing. It writes attempts.csv and final.csv.
"""

import sys
from collections.abc import Sequence

from cl_repro import runtime, strength_search
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
        folder = strength_search.run(overrides)
        print(*sorted(folder.glob("*.csv")), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
