"""Studies of catastrophic forgetting, reproduced, explained and extended.

What a notebook needs is here: `run` a configuration or a study, read its rows (`read_folder`) and tables
(`read_tables`), draw its curves (`draw_folder`), and measure a Fisher in a trainer of your own.

Importing the package imports nothing else, so that figures and tables can be rebuilt without torch: each of these names
brings what it needs when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cl_repro.analysis import draw_folder, read_folder, read_tables
    from cl_repro.importance import diagonal_fisher, quadratic_penalty
    from cl_repro.study.from_python import run

__version__ = "0.2.0"
__all__ = ["diagonal_fisher", "draw_folder", "quadratic_penalty", "read_folder", "read_tables", "run"]
HOMES = ("cl_repro.analysis", "cl_repro.importance", "cl_repro.study.from_python")


def __getattr__(name: str) -> Any:
    """One of these names, from the module that has it."""
    if name in __all__:
        for home in HOMES:
            if hasattr(module := import_module(home), name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
