"""What a run writes and prints at its end, and what `cl_repro.analysis` gives a notebook."""

from pathlib import Path

from matplotlib.figure import Figure

from cl_repro.analysis.data.arms import grid_of
from cl_repro.analysis.data.study import CURVES, describe, open_study
from cl_repro.analysis.kinds import main_drawings
from cl_repro.analysis.lambdas import collapse
from cl_repro.analysis.lambdas.curves import draw
from cl_repro.analysis.lambdas.tables import document, summary_table, tables_of
from cl_repro.analysis.output.markup import Table, plain
from cl_repro.common.errors import UserError


def rebuild(name: str, results_dir: Path) -> str:
    """As `cl_repro.analysis.report`."""
    study = open_study(name, results_dir)
    made = document(study)
    tables = made.write(results_dir / "tables")
    figures = [path for drawing in main_drawings(study) for path in drawing.write(results_dir / "figures")]
    shown = summary_table(study) if study.kind == CURVES else made.tables[0]
    return "\n".join([plain(shown), *map(str, [*figures, *tables, *sorted(study.folder.glob("*.csv"))])])


def tables_by_name(folder: Path) -> dict[str, Table]:
    """As `cl_repro.analysis.read_tables`."""
    study = open_study(folder.name, folder.parent)
    found = tables_of(study)
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
