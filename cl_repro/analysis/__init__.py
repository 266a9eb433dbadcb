"""Figures and tables as pure functions of the CSV files under results/. Nothing here imports torch."""

from pathlib import Path


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
