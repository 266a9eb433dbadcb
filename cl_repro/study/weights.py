"""Weights of finished runs, on request: `save=weights` keeps them beside the results, `load` gives the network back.

A file is in the safetensors format: tensors and text, nothing that could run code. It holds one network: parameters as
`params/<name>`, buffers as `buffers/<name>`, and in its header all that `load` needs to build the network, so that a
file can be taken elsewhere. What is saved is no part of a run's identity: the same run has the same id without it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cl_repro.common.errors import UserError
from cl_repro.engine import Experiment, Stack
from cl_repro.records import write_atomically
from cl_repro.study.config import SAVES
from cl_repro.study.factories import FLAGS, build, check_targets
from cl_repro.study.grid import Arm, Cell
from cl_repro.types import Net, Tree

FINAL, OF_TASKS = SAVES
KINDS = ("params", "buffers")


class Trained(NamedTuple):
    """A trained network; called with inputs [N, *shape] as its benchmark's `to_input` makes them, it gives logits."""

    net: Net
    params: Tree
    buffers: Tree
    about: dict[str, str]  # run_id, config_id, lambda, seed, tasks_learned; model, input_shape and n_outputs as JSON

    def __call__(self, x: Tensor) -> Tensor:
        """Logits [N, C] of inputs [N, *shape], evaluated, not trained."""
        return self.net.apply(self.params, self.buffers, x)[0]


def path_of(folder: Path, run_id: str, learned: int | None = None) -> Path:
    """Where a run's weights are: after its last task, or after so many."""
    return folder / "weights" / f"{run_id}{'' if learned is None else f'.task_{learned}'}.safetensors"


def save(
    folder: Path, arms: Sequence[Arm], chunk: Sequence[Cell], experiment: Experiment, stack: Stack, n: int
) -> None:
    """Write the weights of a chunk's replicas, which have learned n tasks, if its configuration asks for them."""
    benchmark, last = experiment.benchmark, n == experiment.benchmark.n_tasks
    wanted = arms[chunk[0].arm].cfg["save"]
    if wanted is None or (wanted == FINAL and not last):
        return
    to_bytes = library(f"save={wanted}").torch.save
    n_outputs = experiment.scenario.n_outputs(benchmark, benchmark.curriculum(chunk[0].seed).tasks)
    for i, cell in enumerate(chunk):
        about = {
            "format": "pt",
            "run_id": cell.run_id,
            "config_id": arms[cell.arm].config_id,
            "lambda": "" if cell.lam is None else repr(cell.lam),
            "seed": str(cell.seed),
            "tasks_learned": str(n),
            "model": json.dumps(arms[cell.arm].cfg["model"]),
            "input_shape": json.dumps(list(benchmark.x.shape[1:])),
            "n_outputs": json.dumps(n_outputs),
        }
        trees = dict(zip(KINDS, (stack.params, stack.buffers), strict=True))
        own = {f"{kind}/{name}": p[i].detach().cpu().clone() for kind, of in trees.items() for name, p in of.items()}
        write_atomically(path_of(folder, cell.run_id, None if last else n), to_bytes(own, about))


def library(what: str) -> ModuleType:
    """safetensors, which is an extra; without it, one line that begins with what needs it."""
    try:
        import safetensors.torch  # noqa: PLC0415 - an extra: runs that keep no weights do without
    except ModuleNotFoundError as error:
        raise UserError(
            f"{what}: safetensors is not installed; it comes with: pip install 'cl_repro[weights]'"
        ) from error
    return safetensors


def lacking(folder: Path, arms: Sequence[Arm], finished: Sequence[Cell]) -> str:
    """That finished runs lack weights that are wanted, and what to do, in one line; empty if they have all."""
    wanted = arms[0].cfg["save"]

    def complete(cell: Cell) -> bool:
        early = range(1, arms[cell.arm].cfg["benchmark"]["n_tasks"]) if wanted == OF_TASKS else ()
        return all(path_of(folder, cell.run_id, learned).exists() for learned in (*early, None))

    without = [cell for cell in finished if not complete(cell)] if wanted else []
    if not without:
        return ""
    return (
        f"{len(without)} finished runs in {folder} were computed without save={wanted}, or in part, and lack weights; "
        f"to have them, give the same command with results_dir=<another folder>"
    )


def load(folder: str | Path, run_id: str, learned: int | None = None, allow_targets: Sequence[str] = ()) -> Trained:
    """The network of a finished run that was computed with `save=weights`, or with `save=weights_of_tasks`.

    Args:
        folder: of the results, e.g. results/split_mnist_fisher.
        run_id: as in its runs.csv.
        learned: tasks; None: all of them.
        allow_targets: packages besides this one whose networks a file may name.

    Returns:
        The network, on the CPU.

    Raises:
        UserError: there is no such file, or it is not what `save` wrote.
    """
    path = path_of(Path(folder), run_id, learned)
    if not path.is_file():
        which = FINAL if learned is None else OF_TASKS
        raise UserError(
            f"{path}: no weights; runs keep them when they are computed with save={which}: give the study's command "
            f"with it, and with results_dir=<another folder> if the run is finished here"
        )
    safetensors = library(str(path))
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
        node, shape, n_outputs = (json.loads(about[key]) for key in ("model", "input_shape", "n_outputs"))
        net = network(node, shape, n_outputs, allow_targets)
        params, buffers = (part(tensors, kind) for kind in KINDS)
        if about["run_id"] != run_id or any(map(unlike, (params, buffers), net.init(torch.Generator()))):
            raise ValueError
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not the weights of run {run_id}, as save= writes them; restore the file") from error
    return Trained(net, params, buffers, about)


def network(node: Mapping[str, Any], shape: Sequence[int], n_outputs: int, allow_targets: Sequence[str]) -> Net:
    """The network of a model's configuration that was read from a file: only code that is allowed is run."""
    check_targets({**dict.fromkeys(FLAGS), "model": node, "allow_targets": list(allow_targets)})
    return build("model", node, input_shape=tuple(shape), n_outputs=n_outputs)


def part(tensors: Tree, kind: str) -> Tree:
    """The tensors of one kind (`params`, `buffers`), by their names in the network."""
    return {name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(f"{kind}/")}


def unlike(found: Tree, like: Tree) -> bool:
    """Whether names or shapes differ; a network's own order of them stands."""
    return {n: v.shape for n, v in found.items()} != {n: v.shape for n, v in like.items()}
