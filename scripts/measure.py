"""Measure what no study does, into results/<name>; then draw and tabulate it.

Usage: python scripts/measure.py PROGRAM [status] [key=value ...], with the overrides of `python -m cl_repro`:

  anatomy          every estimator on a trained first task, into results/anatomy_<benchmark>;
                   benchmark=split_mnist seeds=[1,2,3]
  unifying         every importance beside a run of Synaptic Intelligence, into results/unifying_figures_<benchmark>;
                   study=unifying_figures_permuted_mnist scale=cpu seeds=[1,2]; with lam=0, or reinit=false lam=0.5,
                   a control
  idea             two tasks under several methods in a plane of parameter space, into results/idea;
                   study=idea, if none is named
  strength_search  the lambda of a penalty, task by task (De Lange et al. 2021), into attempts.csv and final.csv of
                   results/strength_search_<benchmark>; study=tiny_imagenet_search scale=cpu seeds=[1], or
                   benchmark=split_digits val_fraction=0.2 optim=sgd_momentum method=si; lam is the first

The same command again measures what is missing; with the word status it says how far it is.
"""

import sys
from pathlib import Path

from cl_repro.analysis.kinds import folders, kind_of, opened
from cl_repro.common import runtime
from cl_repro.common.errors import Skipping, UserError, entry_point
from cl_repro.measurements import anatomy, idea, program, strength_search, unifying
from cl_repro.study.config import register

PROGRAMS = {one.PROGRAM.script: one.PROGRAM for one in (anatomy, unifying, idea, strength_search)}


def main(words: list[str]) -> None:
    """Run the command line."""
    if {"-h", "--help"} & set(words):
        print(__doc__)
        return
    name, words = (words[0], words[1:]) if words else ("", [])
    if name not in PROGRAMS:
        raise UserError(f"measure.py: {name or 'no program'}: must be one of {', '.join(PROGRAMS)}")
    if name == "idea" and not any(word.startswith("study=") for word in words):
        words.insert(words[:1] == ["status"], "study=idea")
    register()
    runtime.prepare()
    if words[:1] == ["status"]:
        program.tell(PROGRAMS[name], words[1:])
        return
    folder = program.measure_missing(PROGRAMS[name], words)
    print(*shown(folder), *sorted(folder.glob("*.csv")), *folder.glob("*.npz"), sep="\n")


def shown(folder: Path) -> list[Path]:
    """Draw and tabulate a folder, with those that share its figures; returns the paths. A bad one is left out."""
    results, paths = folder.parent, list[Path]()
    for group in opened(folders(results, kind_of(folder)), results, Skipping(named=False)):
        if folder in [one.folder for one in group.found]:
            for made, place in ((group.drawings(), "figures"), (group.documents(), "tables")):
                for one in made:
                    paths += one.write(results / place)
    return paths


if __name__ == "__main__":
    with entry_point():
        main(sys.argv[1:])
