"""Figures and tables as pure functions of the CSV files under results/. Nothing here imports torch."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from cl_repro.analysis.output.markup import Table

__all__ = ["draw_folder", "read_folder", "read_tables", "report"]


def read_folder(folder: str | Path) -> "pd.DataFrame":
    """The runs of a results folder, one row each, in the order of the tables.

    Every key has a value in every row, so that grouping by it drops none. Columns:

    - benchmark, scenario, model: as in runs.csv.
    - arm: its name in the tables, another one for every configuration of a benchmark and scenario.
    - settings: in words, those in which it differs from other arms of its benchmark and scenario, as far as they make
      the same choice: optim=sgd, optim.lr=0.3, memory.size=200, gamma=0.5. Empty if in none, or if there is no
      configuration beside the rows.
    - lambda: text, as in the tables, e.g. 1e3; none for methods without.
    - lam: the same as a number; NaN for methods without.
    - seed.
    - accuracy: percent, the mean over tasks after the last one; NaN where the run was lost (see status).
    - forgetting: points, the mean over old tasks of the best accuracy so far minus the last; NaN likewise.
    - seconds: of training and importances.
    - status: ok, diverged or failed.
    - method, fisher, run_id, config_id: as in runs.csv; fisher is empty for methods without.

    Args:
        folder: e.g. results/split_mnist_fisher.

    Returns:
        The frame; its index counts the rows.

    Raises:
        UserError: runs.csv is missing, cut short, edited, or of another schema.
    """
    from cl_repro.analysis.data.frame import read  # noqa: PLC0415 - as below

    return read(Path(folder))


def read_tables(folder: str | Path) -> "dict[str, Table]":
    """The tables of a results folder, as `results/tables` has them; a notebook shows each as one.

    Args:
        folder: e.g. results/split_mnist_fisher.

    Returns:
        By their names, in reading order: of a study of curves accuracy, shape, gaps, pairs, selection and optimism.

    Raises:
        UserError: a file is missing, cut short, edited, or of another schema.
    """
    from cl_repro.analysis.summary import tables_by_name  # noqa: PLC0415 - as below

    return tables_by_name(Path(folder))


def draw_folder(folder: str | Path, rescaled: bool = False) -> "Figure":
    """Accuracy against lambda, of a results folder with one benchmark, scenario and model.

    Args:
        folder: e.g. results/split_mnist_fisher.
        rescaled: beside it also against lambda times the trace of the importance.

    Returns:
        The figure, as `results/figures` has it; a notebook shows it.

    Raises:
        UserError: it is no study of curves (rescaled: with traces), or as `read_tables`.
    """
    from cl_repro.analysis.summary import figure_of  # noqa: PLC0415 - as below

    return figure_of(Path(folder), rescaled)


def report(name: str, results_dir: Path) -> str:
    """Rebuild figure and tables of one results folder.

    They go to `figures/` and `tables/` beside it.

    Args:
        name: of the folder under `results_dir`.
        results_dir: the folder of all results.

    Returns:
        What to print at the end of a run: a compact table and the paths written.

    Raises:
        UserError: a file is missing, cut short, edited, or of another schema.
    """
    # Imported here: matplotlib and pandas take a second that `import cl_repro.analysis` should not cost.
    from cl_repro.analysis.summary import rebuild  # noqa: PLC0415

    return rebuild(name, Path(results_dir))
