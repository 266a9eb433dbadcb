"""MLflow: an experiment for each study; a run that is there already, by its run_id, is left as it is."""

import os
from collections.abc import Sequence
from pathlib import Path

import mlflow
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from tqdm import tqdm

from cl_repro.common.errors import UserError
from cl_repro.export.runs import Run

TAG = "cl_repro.run_id"
AT_ONCE = 100, 1000  # parameters and metrics in one request, at most
FILES = "MLFLOW_ALLOW_FILE_STORE"  # without it MLflow refuses folders, which it keeps up but develops no further


def put(runs: Sequence[Run], study: str, out: Path) -> str:
    """Send a study's runs; returns where they are."""
    if not mlflow.is_tracking_uri_set():
        os.environ.setdefault(FILES, "true")
        mlflow.set_tracking_uri((out / "mlruns").absolute().as_uri())
    where = mlflow.get_tracking_uri()
    try:
        client = MlflowClient()
        found = client.get_experiment_by_name(study)
        experiment = found.experiment_id if found else client.create_experiment(study)
        there = known(client, experiment)
        fresh = [run for run in runs if run.run_id not in there]
        for run in tqdm(fresh, desc=study, disable=None):
            send(client, experiment, run)
    except (MlflowException, OSError) as error:
        raise UserError(f"--to=mlflow: {where}: {' '.join(str(error).split())}") from error
    return f"{len(runs) - len(fresh)} of them there before, at {where}"


def known(client: MlflowClient, experiment: str) -> set[str]:
    """run_ids of what was sent in full before."""
    result, token = set[str](), None
    while token != "":
        page = client.search_runs([experiment], "attributes.status = 'FINISHED'", page_token=token)
        result |= {run.data.tags.get(TAG, "") for run in page}
        token = page.token or ""
    return result


def send(client: MlflowClient, experiment: str, run: Run) -> None:
    """One run; only when all of it is there it counts as finished."""
    began, ended = (int(1000 * at) for at in (run.finished - run.results.get("seconds_total", 0.0), run.finished))
    made = client.create_run(experiment, start_time=began, tags={TAG: run.run_id}, run_name=run.name).info.run_id
    params = [Param(name, str(value)) for name, value in run.settings.items()]
    metrics = [Metric(name, value, ended, step) for name, curve in run.curves.items() for step, value in curve]
    metrics += [Metric(f"result/{name}", value, ended, 0) for name, value in run.results.items()]
    of_params, of_metrics = AT_ONCE
    for first in range(0, len(params), of_params):
        client.log_batch(made, params=params[first : first + of_params])
    for first in range(0, len(metrics), of_metrics):
        client.log_batch(made, metrics=metrics[first : first + of_metrics])
    client.set_terminated(made, "FINISHED", ended)
