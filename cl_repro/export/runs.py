"""What a finished run is to another tool: settings, results and curves, from the CSVs of a results folder. No torch."""

import json
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from cl_repro.analysis.data.conditions import configuration_of, flat
from cl_repro.analysis.data.read import RUNS, read_accuracy, read_further, read_runs
from cl_repro.records.identity import SCIENCE, SWITCHES

MEASURED = ("accuracy", "forgetting", "bwt", "fwt", "peak_memory", *(name for name in RUNS if name.startswith("sec")))
Value = str | int | float | bool


class Run(NamedTuple):
    """A row of runs.csv, and what the other files say of it."""

    run_id: str
    name: str  # ewc-exact lambda=100 seed=1
    settings: dict[str, Value]  # columns of runs.csv, and the configuration by place: optim.lr
    results: dict[str, float]  # at the end; fractions, seconds and bytes as in the files
    curves: dict[str, list[tuple[int, float]]]  # name -> (tasks learned, value), ascending
    finished: float  # seconds since 1970


def runs_of(folder: Path) -> list[Run]:
    """The finished runs of a results folder, in the order of runs.csv.

    Args:
        folder: results/<study>.

    Raises:
        UserError: a file is missing, cut short, edited, or of another schema.
    """
    runs = read_runs(folder)
    results = {
        row["run_id"]: {name: float(row[name]) for name in MEASURED if not pd.isna(row[name])}
        for row in runs.to_dict("records")
    }
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {run_id: {} for run_id in results}

    def finished(frame: pd.DataFrame) -> pd.DataFrame:  # a merge that was killed leaves rows of runs that wait for it
        return frame[frame["run_id"].isin(list(results))]

    accuracy = finished(read_accuracy(folder)).sort_values(["after_task", "task"], kind="stable")
    for run_id, split, after, task, value in rows(accuracy, ("split", "after_task", "task", "accuracy")):
        curves[run_id].setdefault(f"accuracy/{split}/task_{task + 1}", []).append((after + 1, value))
    learned = accuracy[accuracy["task"] <= accuracy["after_task"]]
    means = learned.groupby(["run_id", "split", "after_task"])["accuracy"].mean().reset_index()
    for run_id, split, after, value in rows(means, ("split", "after_task", "accuracy")):
        curves[run_id].setdefault(f"accuracy/{split}/mean_of_learned", []).append((after + 1, value))
    for run_id, after, value in rows(finished(read_further(folder, "importance.csv")), ("after_task", "trace")):
        curves[run_id].setdefault("importance/trace", []).append((after + 1, value))
    for run_id, kind, value in rows(finished(read_further(folder, "storage.csv")), ("kind", "bytes")):
        results[run_id][f"bytes/{kind}"] = float(value)
    for run_id, measure, value in rows(finished(read_further(folder, "representation.csv")), ("measure", "value")):
        results[run_id][f"representation/{measure}"] = value
    return [
        Run(
            row["run_id"],
            f"{row['arm']}{'' if pd.isna(row['lambda']) else ' lambda={:g}'.format(row['lambda'])} seed={row['seed']}",
            settings(row, folder),
            results[row["run_id"]],
            curves[row["run_id"]],
            datetime.fromisoformat(row["finished"]).timestamp(),
        )
        for row in runs.to_dict("records")
    ]


def rows(frame: pd.DataFrame, columns: tuple[str, ...]) -> list[tuple]:
    """run_id and these columns of every row whose last one is a number, as Python's own numbers."""
    frame = frame[frame[columns[-1]].notna()]
    return list(zip(*(frame[name].tolist() for name in ("run_id", *columns)), strict=True))


def settings(row: dict[str, Value], folder: Path) -> dict[str, Value]:
    """What decided a run, and where it was made; without its configuration if that is not beside the rows."""
    columns = {n: row[n] for n in RUNS if n not in MEASURED and not pd.isna(row[n]) and row[n] != ""}
    cfg = configuration_of(folder, str(row["config_id"])) or {}
    places = {place: text for key in (*SCIENCE, *SWITCHES) for place, text in flat(key, cfg.get(key)).items()}
    return {place: number(text) for place, text in places.items()} | columns


def number(text: str) -> Value:
    """The number or truth value that a text is, if it is one."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float) else text
