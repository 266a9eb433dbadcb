"""`python -m cl_repro export`: finished runs, with their curves, to where people keep theirs. From the CSVs alone.

One file per target; each has `put(runs, study, out)`. `runs` says what a run is. Nothing is sent while a study trains:
many replicas train in one process, as one stack, and the results folder is what counts.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from cl_repro.common.errors import Parser, UserError
from cl_repro.export.runs import runs_of
from cl_repro.records import check_place, folder_name

TARGETS = ("wandb", "mlflow", "tensorboard")


def main(arguments: Sequence[str]) -> None:
    """`python -m cl_repro export --to tensorboard split_mnist_fisher`.

    Raises:
        UserError: unknown names, a damaged folder, a target whose package is not installed, or which refuses the runs.
    """
    given = parser().parse_args(arguments)
    check_place(given.out)
    names = [folder_name(name, given.results_dir) for name in given.names]
    found = {name: runs_of(given.results_dir / name) for name in names}  # all are read before one is sent
    try:
        target = import_module(f"cl_repro.export.to_{given.to}")
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise UserError(
            f"--to={given.to}: {package} is not installed; it comes with: pip install 'cl_repro[{given.to}]'"
        ) from error
    for name, runs in found.items():
        print(f"{name}: {len(runs)} runs, {target.put(runs, name, given.out)}")


def parser() -> Parser:
    """What reads the command line of `cl-repro export`."""
    result = Parser(
        prog="cl-repro export", description="Finished runs, with their curves, to other tools.", allow_abbrev=False
    )
    result.add_argument("names", nargs="+", metavar="study", help="folders under --results-dir")
    result.add_argument("--to", required=True, choices=TARGETS, help="; ".join((
        "wandb: the project $WANDB_PROJECT (default: cl_repro); WANDB_MODE=offline writes under --out",
        "mlflow: an experiment of each study's name at $MLFLOW_TRACKING_URI (default: files under --out)",
        "tensorboard: event files under --out",
    )))  # fmt: skip
    result.add_argument("--results-dir", type=Path, default=Path("results"), help="default: %(default)s")
    result.add_argument("--out", type=Path, default=Path("exports"), help="what stays here; default: %(default)s")
    return result
