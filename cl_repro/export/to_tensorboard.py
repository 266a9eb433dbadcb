"""TensorBoard: event files, a folder for each run, which is written anew; settings and results in its HPARAMS tab."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.plugins.scalar import summary_v2 as scalars
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tqdm import tqdm

from cl_repro.common.errors import told
from cl_repro.export.runs import Run


def put(runs: Sequence[Run], study: str, out: Path) -> str:
    """Write a study's runs; returns where they are."""
    folder = out / "tensorboard" / study
    with told(folder, "cannot be written"):
        for run in tqdm(runs, desc=study, disable=None):
            own = folder / f"{run.name} {run.run_id}"
            shutil.rmtree(own, ignore_errors=True)
            write(run, own)
    return f"in {folder}: tensorboard --logdir {folder.parent}"


def write(run: Run, folder: Path) -> None:
    """A run's event file. Its results stand after the last task."""
    writer = EventFileWriter(str(folder))
    last = int(run.settings["n_tasks"])
    began = run.finished - run.results.get("seconds_total", 0.0)

    def add(summary: Summary, step: int) -> None:
        writer.add_event(Event(wall_time=run.finished, step=step, summary=summary))

    try:
        add(hparams.hparams_pb(run.settings, trial_id=run.run_id, start_time_secs=began), 0)
        for name, curve in run.curves.items():
            for step, value in curve:
                add(scalars.scalar_pb(name, value), step)
        for name, value in run.results.items():
            add(scalars.scalar_pb(f"result/{name}", value), last)
    finally:
        writer.close()
