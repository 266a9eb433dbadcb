"""Measure every importance beside a run of Synaptic Intelligence, into results/unifying_figures_<benchmark>.

Usage: python scripts/unifying.py [key=value ...], with the overrides of `python -m cl_repro`, for example
study=unifying_figures_permuted_mnist scale=cpu seeds=[1,2]; with lam=0, or reinit=false lam=0.5, a control. Another
call adds what is missing; after the word status it says how far it is. scripts/plot_unifying.py draws and tabulates.
"""

from cl_repro.measurements import unifying
from cl_repro.measurements.script import script

if __name__ == "__main__":
    script(__doc__, unifying.PROGRAM)
