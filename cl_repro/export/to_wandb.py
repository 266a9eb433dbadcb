"""Weights & Biases: a run for each of ours, under the same id, in a group for each study.

A run that is sent again goes to the same id. WANDB_MODE=offline writes folders that `wandb sync` sends later.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import wandb
from tqdm import tqdm

from cl_repro.common.errors import UserError
from cl_repro.export.runs import Run

STEP = "tasks_learned"


def put(runs: Sequence[Run], study: str, out: Path) -> str:
    """Send a study's runs; returns where they are."""
    # of the machine that trained, nothing is known here; of this one, nothing matters
    settings = wandb.Settings(
        console="off", silent=True, disable_git=True, disable_code=True, x_disable_stats=True, x_disable_meta=True
    )
    project = os.environ.get("WANDB_PROJECT") or "cl_repro"
    try:
        out.mkdir(parents=True, exist_ok=True)
        for run in tqdm(runs, desc=study, disable=None):
            given = {"id": run.run_id, "name": run.name, "group": study, "config": run.settings}
            with wandb.init(project=project, dir=out, resume="allow", settings=settings, **given) as sent:
                sent.define_metric("*", step_metric=STEP)
                for step, values in steps(run).items():
                    sent.log({STEP: step, **values}, step=step)
                sent.summary.update({f"result/{name}": value for name, value in run.results.items()})
            offline = sent.offline
    except (wandb.Error, OSError) as error:
        raise UserError(f"--to=wandb: {' '.join(str(error).split())}") from error
    return f"in {out}: wandb sync {out / 'wandb'}/offline-run-*" if runs and offline else f"in project {project}"


def steps(run: Run) -> dict[int, dict[str, float]]:
    """A run's curves by step."""
    result: dict[int, dict[str, float]] = {}
    for name, curve in run.curves.items():
        for step, value in curve:
            result.setdefault(step, {})[name] = value
    return dict(sorted(result.items()))
