"""The lambda of a penalty found task by task, on validation rows of the task at hand (De Lange et al. 2021)."""

from cl_repro.measurements.strength_search.folder import PROGRAM

__all__ = ["PROGRAM"]
