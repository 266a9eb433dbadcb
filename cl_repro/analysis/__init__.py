"""Figures and tables as pure functions of the CSV files under results/. Nothing here imports torch.

Importing the package imports nothing else: matplotlib and pandas take a second. Each of its names brings what it needs
when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cl_repro.analysis.data.frame import read_folder
    from cl_repro.analysis.summary import draw_folder, read_tables, report

__all__ = ["draw_folder", "read_folder", "read_tables", "report"]


def __getattr__(name: str) -> Any:
    """One of these names, from the module that has it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "data.frame" if name == "read_folder" else "summary"
    return getattr(import_module(f"{__name__}.{home}"), name)
