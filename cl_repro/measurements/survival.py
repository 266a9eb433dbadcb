r"""How long an item stays in a memory: by the memory itself, and by the law of random eviction.

Where every example offered takes the place of a random one, an item survives n of them with (1 - 1/M)^n, so earlier
tasks vanish exponentially; a reservoir of M keeps M / (M + n) of its first items.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cl_repro.memory import Contents, Item, Memory, insert_all, reservoir

POLICIES: dict[str, Callable[[int], Memory]] = {"insert_all": insert_all, "reservoir": reservoir}


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
