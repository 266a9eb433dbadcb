"""Draw how long items stay in a memory (PNG and SVG): the memories themselves, beside the law of random eviction."""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cl_repro.analysis.data.looks import METHODS
from cl_repro.analysis.lambdas.curve_names import named_beside
from cl_repro.analysis.output.command import make_files
from cl_repro.analysis.output.figures import headed, save, styled
from cl_repro.common.errors import UserError
from cl_repro.measurements.survival import left, survival

NAME = "memory_survival"
SIZE, OFFERED = 500, 4000  # M, and examples offered after the memory is full
COLOURS = {"insert_all": "#A6761D", "reservoir": METHODS["replay"].colour}


def make(arguments: argparse.Namespace) -> list[Path]:
    """There is one such figure, of no study."""
    if arguments.names:
        raise UserError(f"plot_survival.py: {arguments.names[0]}: must name no study: it draws the memories alone")
    with styled():
        return save(draw(), NAME, "cl_repro/memory.py, seed 0", arguments.out / NAME)


def draw() -> Figure:
    """Which fraction of the first M items is left after n more have been offered."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")  # inches
    axes, n = figure.add_subplot(), np.linspace(0, OFFERED, 201)
    axes.plot(n, left(SIZE, n), color="#444444", linestyle="--", linewidth=1.2, label="law: (1 \N{MINUS SIGN} 1/M)ⁿ")
    axes.plot(n, SIZE / (SIZE + n), color="#444444", linestyle=":", linewidth=1.2, label="law: M / (M + n)")
    for policy, colour in COLOURS.items():
        at, kept = survival(policy, SIZE, OFFERED)
        axes.plot(at[:: OFFERED // 25], kept[:: OFFERED // 25], "o", color=colour, markersize=5, label=policy)
    headed(figure, f"What a memory of M = {SIZE} examples keeps")
    axes.set_xlabel("examples offered after it is full, n")
    axes.set_ylabel("fraction of the first M items left")
    axes.set_ylim(0, 1.03)
    named_beside(axes)
    return figure


if __name__ == "__main__":
    make_files(__doc__, "figures", make)
