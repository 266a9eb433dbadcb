"""What a run writes and prints at its end."""

from pathlib import Path

from matplotlib.figure import Figure

from cl_repro.analysis.comparisons.comparison_figure import plot_comparison
from cl_repro.analysis.data.arms import grid_of
from cl_repro.analysis.data.settings import COMPARISON
from cl_repro.analysis.data.study import ARMS, CURVES, TIMING, Study, describe, most_lambdas, open_study
from cl_repro.analysis.lambdas import collapse
from cl_repro.analysis.lambdas.accuracy import accuracy_rows
from cl_repro.analysis.lambdas.curves import draw, plot_study
from cl_repro.analysis.lambdas.tables import shapes, summary_table, tables_of, write_tables
from cl_repro.analysis.lambdas.timing import timing_table
from cl_repro.analysis.output.markup import Table, plain
from cl_repro.common.errors import UserError


def rebuild(name: str, results_dir: Path) -> str:
    """As `cl_repro.analysis.report`."""
    study = open_study(name, results_dir)
    tables = _tables(study)
    paths = write_tables(study, tables, results_dir / "tables")
    if study.kind == COMPARISON:
        paths = plot_comparison(study, results_dir / "figures") + paths
    elif study.kind == ARMS or (study.kind != TIMING and most_lambdas(study.runs) > 1):
        paths = plot_study(study, results_dir / "figures") + paths
    shown = _summary(study) if study.kind == CURVES else tables[0]
    csvs = sorted(study.folder.glob("*.csv"))
    return "\n".join([plain(shown), *map(str, [*paths, *csvs])])


def tables_by_name(folder: Path) -> dict[str, Table]:
    """As `cl_repro.analysis.read_tables`."""
    study = open_study(folder.name, folder.parent)
    found = _tables(study)
    if study.kind == CURVES and (collapsed := collapse.collapse(study)):
        found.append(collapse.table(study, collapsed))
    return {table.name: table for table in found}


def figure_of(folder: Path, rescaled: bool) -> Figure:
    """As `cl_repro.analysis.draw_folder`."""
    study = open_study(folder.name, folder.parent)
    collapsed = collapse.collapse(study) if study.kind == CURVES and rescaled else None
    if study.kind != CURVES or (rescaled and not collapsed):
        raise UserError(f"{folder}: has no curves of accuracy against lambda{' with traces' if rescaled else ''}")
    title = describe(study.runs)
    return collapse.draw(collapsed, title) if collapsed else draw(grid_of(study.runs, study.folder), title)


def _tables(study: Study) -> list[Table]:
    return [timing_table(study)] if study.kind == TIMING else tables_of(study)


def _summary(study: Study) -> Table:
    grid = grid_of(study.runs, study.folder)
    return summary_table(study, grid, accuracy_rows(study, grid), shapes(study, grid))
