"""The curves of a results folder, and where they rise."""

from pathlib import Path

import numpy as np

from cl_repro.analysis.data.arms import Grid, grid_of
from cl_repro.analysis.data.study import open_study
from cl_repro.analysis.lambdas.shape import rise


def curves(name: str, results: Path) -> Grid:
    """Accuracies of a study by arm, seed and lambda."""
    study = open_study(name, results)
    return grid_of(study.runs, study.folder)


def rises(found: Grid) -> dict[str, float]:
    """log10 lambda at which each estimator's mean curve is half-way between None and its best."""
    return {
        arm.fisher: float(rise(np.log10(found.lams), found.accuracy[i].mean(0), found.none.mean()))
        for i, arm in enumerate(found.arms)
    }
