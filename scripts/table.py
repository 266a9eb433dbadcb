"""Write the tables of folders of results (Markdown and LaTeX), from their files alone, beside the published numbers."""

import argparse
from pathlib import Path

from cl_repro.analysis.command import make_files, planned, written
from cl_repro.analysis.kinds import Opened
from cl_repro.analysis.output.markup import plain


def make(arguments: argparse.Namespace) -> list[Path]:
    """Of the folders that are named, or of all."""
    those = planned(arguments, Opened.documents)
    if arguments.show:
        print("\n".join(plain(table) for _, documents in those for document in documents for table in document.tables))
    return written(arguments, those)


if __name__ == "__main__":
    make_files(__doc__, "tables", make, shows=True)
