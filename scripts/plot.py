"""Draw the figures of folders of results (PNG and SVG) from files alone; without names of all, and of memories, too."""

import argparse
from pathlib import Path

from cl_repro.analysis.command import make_files, planned, written
from cl_repro.analysis.kinds import Opened
from cl_repro.measurements import survival


def make(arguments: argparse.Namespace) -> list[Path]:
    """Of the folders that are named, or of all."""
    paths = written(arguments, planned(arguments, Opened.drawings))
    return paths if arguments.names else paths + survival.DRAWING.write(arguments.out)


if __name__ == "__main__":
    make_files(__doc__, "figures", make)
