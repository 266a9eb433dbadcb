"""What a run writes and prints at its end, and what `cl_repro.analysis` gives a notebook."""

from pathlib import Path

from matplotlib.figure import Figure

from cl_repro.analysis.data.arms import grid_of
from cl_repro.analysis.data.study import CURVES, describe, open_study
from cl_repro.analysis.kinds import main_drawings
from cl_repro.analysis.lambdas import collapse
from cl_repro.analysis.lambdas.curves import draw
from cl_repro.analysis.lambdas.tables import document, summary_table, tables_of
from cl_repro.analysis.output.figures import styled
from cl_repro.analysis.output.markup import Table, plain
from cl_repro.common.errors import UserError


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
    study = open_study(name, results_dir)
    made = document(study)
    tables = made.write(results_dir / "tables")
    figures = [path for drawing in main_drawings(study) for path in drawing.write(results_dir / "figures")]
    shown = [summary_table(study)] if study.kind == CURVES else made.tables[:1]
    return "\n".join([*map(plain, shown), *map(str, [*figures, *tables, *sorted(study.folder.glob("*.csv"))])])


def read_tables(folder: str | Path) -> dict[str, Table]:
    """The tables of a results folder, as `results/tables` has them; a notebook shows each as one.

    Args:
        folder: e.g. results/split_mnist_fisher.

    Returns:
        By their names, in reading order: of a study of curves accuracy, shape, gaps, pairs, selection, optimism, and,
        if they can be compared, collapse and later.

    Raises:
        UserError: a file is missing, cut short, edited, or of another schema.
    """
    study = open_study(Path(folder).name, Path(folder).parent)
    found = tables_of(study)
    if study.kind == CURVES:
        found += collapse.tables(study)
    return {table.name: table for table in found}


def draw_folder(folder: str | Path, rescaled: bool = False) -> Figure:
    """Accuracy against lambda, of a results folder with one benchmark, scenario and model.

    Args:
        folder: e.g. results/split_mnist_fisher.
        rescaled: beside it also against lambda times the trace of the importance.

    Returns:
        The figure, as `results/figures` has it; a notebook shows it.

    Raises:
        UserError: it is no study of curves (rescaled: with traces), or as `read_tables`.
    """
    study = open_study(Path(folder).name, Path(folder).parent)
    collapsed = collapse.collapse(study) if study.kind == CURVES and rescaled else None
    if study.kind != CURVES or (rescaled and not collapsed):
        raise UserError(f"{folder}: has no curves of accuracy against lambda{' with traces' if rescaled else ''}")
    title = describe(study.runs)
    with styled():
        return collapse.draw(collapsed, title) if collapsed else draw(grid_of(study.runs, study.folder), title)
