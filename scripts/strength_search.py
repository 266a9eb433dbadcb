"""Search the lambda of a penalty task by task (De Lange et al. 2021), into results/strength_search_<benchmark>.

Usage: python scripts/strength_search.py [key=value ...], with the overrides of `python -m cl_repro`, for example
study=tiny_imagenet_search scale=cpu seeds=[1], or benchmark=split_digits val_fraction=0.2 optim=sgd_momentum method=si;
lam is lambda at first. The same command again searches what is missing; after the word status it says how far it
is. It writes attempts.csv and final.csv.
"""

from cl_repro.measurements import strength_search
from cl_repro.measurements.script import script

if __name__ == "__main__":
    script(__doc__, strength_search.PROGRAM)
