"""What a run writes and prints at its end."""

from pathlib import Path

from cl_repro.analysis.accuracy import accuracy_rows
from cl_repro.analysis.arms import grid_of
from cl_repro.analysis.comparison_figure import plot_comparison
from cl_repro.analysis.curves import plot_study
from cl_repro.analysis.markup import Table, plain
from cl_repro.analysis.settings import COMPARISON
from cl_repro.analysis.study import CURVES, TIMING, Study, most_lambdas, open_study
from cl_repro.analysis.tables import shapes, summary_table, tables_of, write_tables
from cl_repro.analysis.timing import timing_table


def rebuild(name: str, results_dir: Path) -> str:
    """As `cl_repro.analysis.report`."""
    study = open_study(name, results_dir)
    tables = [timing_table(study)] if study.kind == TIMING else tables_of(study)
    paths = write_tables(study, tables, results_dir / "tables")
    if study.kind == COMPARISON:
        paths = plot_comparison(study, results_dir / "figures") + paths
    elif study.kind != TIMING and most_lambdas(study.runs) > 1:
        paths = plot_study(study, results_dir / "figures") + paths
    shown = _summary(study) if study.kind == CURVES else tables[0]
    csvs = sorted(study.folder.glob("*.csv"))
    return "\n".join([plain(shown), *map(str, [*paths, *csvs])])


def _summary(study: Study) -> Table:
    grid = grid_of(study.runs, study.folder)
    return summary_table(study, grid, accuracy_rows(study, grid), shapes(study, grid))
