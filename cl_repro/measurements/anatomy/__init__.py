"""The anatomy of the Fisher: every estimator and number of examples on one trained network, beside the exact one."""

from cl_repro.measurements.anatomy.folder import PROGRAM

__all__ = ["PROGRAM"]
