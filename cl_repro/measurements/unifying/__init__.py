"""One run of Synaptic Intelligence, and every other importance measured beside it.

Named for Benzing (2022), *Unifying importance based regularisation methods for continual learning*, whose figures
are made of it.
"""

from cl_repro.measurements.unifying.folder import PROGRAM

__all__ = ["PROGRAM"]
