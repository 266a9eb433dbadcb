"""One run of Synaptic Intelligence, and every other importance measured beside it (Benzing 2022, figures)."""

from cl_repro.unifying.folder import run

__all__ = ["run"]
