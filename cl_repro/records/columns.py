"""Columns: their types, and those that several tables have.

A `number` may be empty (there is none: of a run that diverged, of a method without lambda); an `integer` and a
`boolean` may not; `text` may be empty.
"""

from collections.abc import Mapping
from typing import NamedTuple

TEXT, FLOAT, INT, BOOL = "text", "number", "integer", "boolean"


class Column(NamedTuple):
    """One column of a CSV."""

    type: str  # TEXT, FLOAT, INT or BOOL
    meaning: str
    unit: str = ""


Table = Mapping[str, Column]  # by name, in the order of the file

FRACTION = "fraction"
USUAL: Table = {
    "run_id": Column(TEXT, "hash of configuration, lambda and seed: the same cell of two studies is the same run"),
    "config_id": Column(TEXT, "hash of what an arm computes, but for lambda and seed; its settings are in configs/"),
    "arm": Column(TEXT, "what the study calls the configuration"),
    "benchmark": Column(TEXT, "name of the benchmark"),
    "model": Column(TEXT, "name of the network"),
    "method": Column(TEXT, "name of the method"),
    "fisher": Column(TEXT, "name of the estimator; empty where the method uses none, or its own"),
    "lambda": Column(FLOAT, "of the penalty; empty for methods without one"),
    "seed": Column(INT, "of tasks, initial weights and batches"),
    "accuracy": Column(FLOAT, "mean over tasks after the last one; empty if the run diverged", FRACTION),
    "status": Column(TEXT, "ok or diverged"),
    "dtype": Column(TEXT, "type of weights and activations"),
    "device": Column(TEXT, "cpu or cuda"),
    "hardware": Column(TEXT, "processor, cores and threads; or the CUDA device"),
    "torch": Column(TEXT, "version"),
    "git_sha": Column(TEXT, "commit of the code"),
    "dirty": Column(BOOL, "whether code or configuration differed from the commit"),
    "finished": Column(TEXT, "when, UTC"),
    "schema_version": Column(INT, "of the results; another one is refused"),
}
ORIGIN = ("dtype", "device", "hardware", "torch", "git_sha", "dirty", "finished", "schema_version")


def usual(*names: str) -> dict[str, Column]:
    """Columns that several tables have."""
    return {name: USUAL[name] for name in names}
