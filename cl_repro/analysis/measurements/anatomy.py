"""The anatomy of the Fisher, read from the CSVs that `measure.py anatomy` has written."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cl_repro.analysis.data.arms import label, setting
from cl_repro.analysis.data.looks import LOOKS
from cl_repro.analysis.data.read import read_provenance, read_table
from cl_repro.analysis.data.study import benchmark_name, commits
from cl_repro.analysis.lambdas.accuracy import NOTHING
from cl_repro.common.errors import UserError
from cl_repro.records.measured import ANATOMY


class Anatomy(NamedTuple):
    """One folder that `measure.py anatomy` has written."""

    folder: Path
    passes: pd.DataFrame  # one row per estimate; with `ratio` to the seed's exact trace, `cost` in epochs, `label`
    layers: pd.DataFrame
    confidence: pd.DataFrame  # one row per seed
    scale: str  # as describe() says it of a study: empty if it is the paper's

    @property
    def name(self) -> str:
        """The name of the folder, which figures and tables have, too."""
        return self.folder.name

    @property
    def title(self) -> str:
        """Benchmark, model, number of seeds, and the scale if it is not the paper's."""
        first, n = self.confidence.iloc[0], len(self.confidence)
        scale = f", scale {self.scale}" if self.scale else ""
        return f"{benchmark_name(first['benchmark'])}, {first['model']}, first task, {n} seed{'s' * (n != 1)}{scale}"

    @property
    def source(self) -> str:
        """The program and the commits that measured it, for the foot of a figure."""
        return f"cl_repro {commits(self.passes)}"


def open_anatomy(name: str, results_dir: Path) -> Anatomy:
    """Read results/<name>; where `n` is all it is NaN. Raises UserError where a file is damaged, or has no rows."""
    folder = results_dir / name
    known = read_provenance(folder)
    passes, layers, confidence = (
        read_table(folder / file, ANATOMY[file], known) for file in ("anatomy.csv", "layers.csv", "confidence.csv")
    )
    if passes.empty or confidence.empty:
        raise UserError(f"{folder / 'anatomy.csv'} has no rows: measure it first")
    size = passes["seed"].map(confidence.set_index("seed")["examples"])
    whole = passes["estimator"].map(passes["n"].isna().groupby(passes["estimator"]).any())
    passes = passes[~((passes["n"] >= size) & whole)]  # those of all examples are there without n
    exact = passes[(passes["estimator"] == "exact") & passes["n"].isna()].set_index("seed")["trace"]
    units = zip(passes["estimator"], passes["n"], passes["unit"], strict=True)
    passes = passes.assign(
        ratio=passes["trace"] / passes["seed"].map(exact),
        cost=passes["seconds"] / passes["epoch_seconds"],
        label=[label("ewc", e if np.isnan(n) else f"{e}_{n:.0f}", u if u > 1 else None) for e, n, u in units],
    )
    order = {name: i for i, name in enumerate(LOOKS)}
    passes = passes.sort_values(["estimator", "n"], key=lambda c: c.map(order) if c.name == "estimator" else c)
    suffix = setting(folder, str(passes["config_id"].iloc[0]), "suffix")  # of a scale with another protocol
    return Anatomy(folder, passes, layers, confidence, scale=str(suffix or "").lstrip("_"))


def spread(values: ArrayLike) -> str:
    """E.g. 0.34 [0.33, 0.35]: median, smallest, largest, in three digits; one number where all are equal."""
    x = np.asarray(values, dtype=float)
    x = x[np.isfinite(x)]
    if not x.size:
        return NOTHING
    middle, low, high = map(_number, (np.median(x), x.min(), x.max()))
    return middle if low == high else f"{middle} [{low}, {high}]"


def _number(value: float) -> str:
    """Three digits; counts in full, powers of ten as they are."""
    return f"{value:.0f}" if value >= 100 and value < 1e7 else f"{value:.3g}"
