"""Train two tasks under several methods and look at them in a plane of parameter space, into results/idea; draw it.

Usage: python scripts/idea.py [key=value ...], with the overrides of `python -m cl_repro`; study=idea, if none is named.
After the word status it only says how far it is.
"""

import sys
from pathlib import Path

from cl_repro.analysis.measurements.idea import plot_idea
from cl_repro.measurements import idea
from cl_repro.measurements.script import script


def shown(folder: Path) -> list[Path]:
    """Draw."""
    return plot_idea(folder, folder.parent / "figures")


if __name__ == "__main__":
    named = any(word.startswith("study=") for word in sys.argv)
    script(__doc__, idea.PROGRAM, shown, [] if named else ["study=idea"])
