"""Train two tasks under several methods and look at them in a plane of parameter space, into results/idea; draw it.

Usage: python scripts/idea.py [key=value ...], with the overrides of `python -m cl_repro`; study=idea, if none is named.
"""

from collections.abc import Sequence
from pathlib import Path

from cl_repro import idea
from cl_repro.analysis.idea import plot_idea
from cl_repro.script import script


def main(overrides: Sequence[str]) -> list[Path]:
    """Train, measure, draw."""
    named = any(choice.startswith("study=") for choice in overrides)
    folder = idea.run(overrides if named else ["study=idea", *overrides])
    return [*plot_idea(folder, folder.parent / "figures"), *sorted(folder.glob("*.csv"))]


if __name__ == "__main__":
    script(__doc__, main)
