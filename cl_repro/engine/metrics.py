"""From the accuracy matrix to the field's summary numbers.

A [T + 1, T]: A[0] is the untrained network, A[k + 1, j] the test accuracy on task j after training on task k
(0-based), fractions. Definitions: Lopez-Paz and Ranzato (2017, GEM) for bwt and fwt, Chaudhry et al. (2018) for
forgetting. In scenario=class no output of a later task is active before it is learned: there fwt is 0 by construction.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Summary(NamedTuple):
    """All fractions; nan where there is only one task."""

    accuracy: float  # mean over tasks after the last one
    forgetting: float  # mean over old tasks of (best so far, before the last task) - (now)
    bwt: float  # mean over old tasks of (now) - (right after it was learned)
    fwt: float  # mean over later tasks of (just before it is learned) - (untrained network); 0 in scenario=class


def summary(matrix: NDArray[np.float64]) -> Summary:
    """The four numbers of one run; matrix [T + 1, T] as in the module docstring."""
    untrained, after = matrix[0], matrix[1:]
    t = after.shape[1]
    last = after[-1]
    if t == 1:
        return Summary(float(last.mean()), np.nan, np.nan, np.nan)
    best = after[:-1, :-1].max(0)
    learned = after.diagonal()[:-1]
    before = after.diagonal(1)
    return Summary(
        accuracy=float(last.mean()),
        forgetting=float((best - last[:-1]).mean()),
        bwt=float((last[:-1] - learned).mean()),
        fwt=float((before - untrained[1:]).mean()),
    )
