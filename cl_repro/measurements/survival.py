r"""How long an item stays in a memory: by the memory itself, and by the law of random eviction.

Where every example offered takes the place of a random one, an item survives n of them with (1 - 1/M)^n, so earlier
tasks vanish exponentially; a reservoir of M keeps M / (M + n) of its first items.
"""

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from cl_repro.analysis.data.looks import METHODS
from cl_repro.analysis.lambdas.curve_names import named_beside
from cl_repro.analysis.output.figures import Drawing, headed
from cl_repro.memory import Contents, Item, Memory, insert_all, reservoir

POLICIES: dict[str, Callable[[int], Memory]] = {"insert_all": insert_all, "reservoir": reservoir}
SIZE, OFFERED = 500, 4000  # of the figure: M, and examples offered after the memory is full
COLOURS = {"insert_all": "#A6761D", "reservoir": METHODS["replay"].colour}


def left(size: int, n: ArrayLike) -> NDArray[np.float64]:
    """(1 - 1/M)^n."""
    return np.power(1 - 1 / size, np.asarray(n, dtype=float))


def survival(policy: str, size: int, offered: int, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """What is left of the first M items while more are offered.

    Args:
        policy: insert_all or reservoir.
        size: M.
        offered: N, examples after the first M.
        seed: of the draws.

    Returns:
        n [N + 1], and the fraction of the first M that the memory holds after n more.
    """
    memory, contents = POLICIES[policy](size), Contents()
    draws = np.random.default_rng(seed).random(size + offered)
    fractions = []
    for row, u in enumerate(draws):
        contents.seen += 1
        item = Item(row, 0, 0)
        assert memory.offer
        at = memory.offer(contents, item, float(u))
        if at is not None:
            contents.put(at, item)
        if row >= size - 1:
            fractions.append(sum(kept.row < size for kept in contents.slots) / size)
    return np.arange(offered + 1), np.array(fractions)


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


DRAWING = Drawing("memory_survival", "memory_survival", "cl_repro/memory.py, seed 0", draw)
