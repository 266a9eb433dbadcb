"""cl_repro: studies of catastrophic forgetting, reproduced, explained and extended.

Importing the package imports nothing else, so that figures and tables can be rebuilt without torch.
"""

__version__ = "0.2.0"
