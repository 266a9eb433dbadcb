"""The results of `measure.py unifying`, read from its files alone, with the published numbers beside them."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cl_repro.analysis.data.arms import setting
from cl_repro.analysis.data.read import read_optional, read_provenance, read_published, read_table
from cl_repro.analysis.data.study import benchmark_name, commits
from cl_repro.analysis.output.markup import DASH, MINUS
from cl_repro.common.errors import UserError
from cl_repro.common.stats import Estimate, estimate
from cl_repro.records import read_bytes, verified
from cl_repro.records.measured import UNIFYING
from cl_repro.records.schema import REFERENCE

TRIMMED = "trimmed.csv"  # correlations by another rule than the largest x; folders from before it was written lack it
BY_X = "x"  # weights that are left out of a correlation: those of the largest x
MAIN, NO_INIT, NO_PENALTY = "main", "no re-init", "c = 0"  # what a run is for
# In words, by the suffix of the folder; others are named by it.
SCALES = {
    "": "the paper's scale",
    "_cpu": "CPU twin, not the paper's scale",
    "_first_task": "the paper's scale, first task only",
    "_first_steps": "the paper's scale, first steps of the first task only",
}
PUBLISHED = "published"  # of a row or a mark that is of the paper
ORDER = ("permuted_mnist", "cifar10_100")  # of panels; others follow


class Scatter(NamedTuple):
    """Some weights after the first task of one run and seed."""

    run: str
    seed: int
    of: dict[str, NDArray[np.float32]]  # measure -> [weights]


class Figures(NamedTuple):
    """One folder that `measure.py unifying` has written; all frames have the column `kind`, what the run is for."""

    folder: Path
    networks: pd.DataFrame
    correlations: pd.DataFrame  # with `by`: which weights are left out
    measures: pd.DataFrame
    summed: pd.DataFrame  # with `drop`: the loss before the first step less the loss
    noise: pd.DataFrame
    scatter: Scatter | None
    published: pd.DataFrame  # rows of this benchmark
    suffix: str  # of the folder, where the scale has a protocol of its own; empty at the paper's

    @property
    def name(self) -> str:
        """The name of the folder, which figures and tables have, too."""
        return self.folder.name

    @property
    def main(self) -> pd.DataFrame:
        """Rows of `networks` of the main run, one a seed."""
        return self.networks[self.networks["kind"] == MAIN]

    @property
    def benchmark(self) -> str:
        """The benchmark, as titles of panels have it: Permuted MNIST."""
        return benchmark_name(self.data)

    @property
    def data(self) -> str:
        """The benchmark, as in the configuration: permuted_mnist."""
        return str(self.networks["benchmark"].iloc[0])

    @property
    def scale(self) -> str:
        """The scale of the protocol, in words."""
        return SCALES.get(self.suffix, f"scale {self.suffix.lstrip('_')}, not the paper's scale")

    @property
    def mark(self) -> str:
        """The scale in brackets, for titles that stand alone; empty at the paper's."""
        return f" ({self.scale})" if self.suffix else ""

    @property
    def twin(self) -> bool:
        """Whether it is of a smaller protocol than the paper's."""
        return self.suffix.endswith(("_cpu", "_smoke"))

    @property
    def on_the_way(self) -> bool:
        """Whether nothing was measured at the end of a task: the run was followed for its sums alone."""
        return self.correlations.empty

    @property
    def tasks(self) -> list[int]:
        """The tasks that were followed, from 1 on."""
        return sorted(self.summed["task"].unique())

    def r(self, x: str, y: str, kind: str = MAIN, dropped: float = 0.0, by: str = BY_X) -> dict[int, Estimate]:
        """Pearson's r by task, over seeds, without a share of the weights; without the tasks that have none."""
        c = self.correlations
        own = c[(c["kind"] == kind) & (c["x"] == x) & (c["y"] == y) & np.isclose(c["dropped"], dropped)]
        own = own[own["by"] == by]
        if y == "af_many" and x == "af":  # a task of too few examples to have more: the same estimate twice
            own = own[own["r"] < 1]
        found = {int(task): estimate(rows) for task, rows in own.groupby("task")["r"]}
        return {task: one for task, one in found.items() if one.n}

    def r_of_scatter(self, x: str, y: str) -> float:
        """Pearson's r over all weights, of the run, seed and task whose weights are scattered."""
        assert self.scatter
        c = self.correlations[(self.correlations["run"] == self.scatter.run) & (self.correlations["task"] == 1)]
        own = c[(c["seed"] == self.scatter.seed) & (c["x"] == x) & (c["y"] == y) & (c["dropped"] == 0)]
        return float(own["r"].iloc[0]) if len(own) else np.nan

    def sums(self, task: int) -> pd.DataFrame:
        """Rows of summed.csv of the main run, seed by seed."""
        return self.summed[(self.summed["kind"] == MAIN) & (self.summed["task"] == task)]

    def path(self, task: int) -> pd.DataFrame:
        """The same of the first seed."""
        own = self.sums(task)
        return own[own["seed"] == own["seed"].iloc[0]] if len(own) else own

    def theirs(self, quantity: str) -> dict[int, float]:
        """The published values of a quantity, e.g. r(si,sos), by task; a row without task is of all tasks."""
        rows = self.published[self.published["quantity"] == quantity].set_index("task")["value"]
        of = {task: rows.get(task, rows.get(np.nan)) for task in self.tasks}
        return {task: value for task, value in of.items() if value is not None}


def open_figures(name: str, results_dir: Path) -> Figures:
    """Read results/<name>, rows in the order in which they were written. Raises UserError where a file is damaged."""
    folder = results_dir / name
    known = read_provenance(folder)
    files = [file for file in UNIFYING if file != TRIMMED]
    tables = {Path(file).stem: read_table(folder / file, UNIFYING[file], known) for file in files}
    if tables["networks"].empty:
        raise UserError(f"{folder / 'networks.csv'} has no rows: measure it first")
    trimmed = read_optional(folder / TRIMMED, UNIFYING[TRIMMED])
    tables["correlations"] = pd.concat([tables["correlations"].assign(by=BY_X), *([trimmed] if len(trimmed) else [])])
    kinds = kind_of_runs(tables["networks"])
    tables = {file: rows.assign(kind=rows["run"].map(kinds)) for file, rows in tables.items()}
    start = tables["summed"].groupby(["run", "seed", "task"])["loss"].transform("first")
    tables["summed"]["drop"] = start - tables["summed"]["loss"]
    first = tables["networks"].iloc[0]
    config = f"{first['config_id']}_{first['run']}"
    suffix = setting(folder, config, "suffix")
    if suffix is None:  # not taken for the paper's scale
        raise UserError(f"{folder / 'configs' / config}.yaml: missing or unreadable, or without suffix: of what scale?")
    published = read_published(results_dir, "unifying_reference.csv", REFERENCE)
    own = published[published["benchmark"] == first["benchmark"]]
    scatter = read_scatter(folder / "scatter.npz", known)
    return Figures(folder, **tables, scatter=scatter, published=own, suffix=str(suffix))


def kind_of_runs(networks: pd.DataFrame) -> dict[str, str]:
    """What each run is for. The main run has a penalty and re-initialises; where there is none, it is the first.

    Of several that are for the same, the first counts.
    """
    runs = networks.drop_duplicates("run")
    kinds: dict[str, str] = {}
    for run, lam, reinit in zip(runs["run"], runs["lam"], runs["reinit"], strict=True):
        kind = NO_PENALTY if lam == 0 else MAIN if reinit else NO_INIT
        kinds[run] = kind if kind not in kinds.values() else ""
    if MAIN not in kinds.values():
        kinds[next(iter(kinds))] = MAIN
    return kinds


def read_scatter(path: Path, known: dict) -> Scatter | None:
    """The weights of scatter plots; None if there are none. Raises UserError if the file is not as it was written."""
    if not path.exists() and path.name not in known.get("files", {}):
        return None
    data = verified(path, known, lambda: read_provenance(path.parent)) if known else read_bytes(path)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = dict(file)
        run, seed = str(arrays.pop("run")), int(arrays.pop("seed"))
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not the weights of a scatter plot ({type(error).__name__})") from error
    return Scatter(run, seed, arrays)


def by_scale(found: Sequence[Figures]) -> list[list[Figures]]:
    """Folders of one scale together: their panels stand side by side, in the order of the paper.

    Raises UserError where two are of one scale and benchmark: a figure has one place for them.
    """
    places: dict[tuple[str, str], str] = {}
    for f in found:
        other = places.setdefault((f.suffix, f.data), f.name)
        if other != f.name:
            raise UserError(
                f"{other} and {f.name} are of one benchmark and scale: name those to draw, one of these two"
            )
    ranked = sorted(found, key=lambda f: (ORDER.index(f.data) if f.data in ORDER else len(ORDER), f.name))
    return [[f for f in ranked if f.suffix == suffix] for suffix in dict.fromkeys(f.suffix for f in ranked)]


def source(found: Sequence[Figures]) -> str:
    """The program and the commits that measured it, for the foot of a figure."""
    return f"cl_repro {commits(pd.concat([f.networks for f in found]))}"


def seeds(found: Sequence[Figures]) -> str:
    """E.g. 3 seeds, of the main runs, and how many of all runs diverged, if any."""
    n = sorted({len(f.main) for f in found})
    bad = sum(int((f.networks["status"] != "ok").sum()) for f in found)
    diverged = f" ({bad} run{'s' * (bad != 1)} diverged)" if bad else ""
    return f"{' and '.join(map(str, n))} seed{'s' * (n != [1])}{diverged}"


def number(value: float | None, digits: int = 3) -> str:
    """So many digits; a dash where there is no number."""
    return DASH if value is None or np.isnan(value) else f"{value:.{digits}g}".replace("-", MINUS)


def published_row(values: Sequence[float | None], digits: int = 3) -> list[tuple[str, ...]]:
    """What stands below ours in a table, if any of these was published."""
    cells = tuple(number(value, digits) for value in values)
    return [(PUBLISHED, *cells)] if set(cells) != {DASH} else []
