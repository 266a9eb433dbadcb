"""A network after its first task: trained by the engine, and its weights kept in a file for the next call."""

import io
import pickle
from pathlib import Path

import torch

from cl_repro.engine import Experiment, Stack
from cl_repro.engine.lifecycle import learn
from cl_repro.engine.replicas import healthy
from cl_repro.engine.stack import start
from cl_repro.errors import UserError
from cl_repro.records import write_atomically
from cl_repro.types import Method, Tree


def after_first_task(experiment: Experiment, seed: int, path: Path) -> Stack:
    """The network of a seed after its first task: from `path`, else trained now and saved there.

    Args:
        experiment: what trains it.
        seed: of its initial weights and mini-batches.
        path: of the weights file, which must be named after all that the weights depend on.

    Returns:
        A stack of one replica; the optimiser's moments are not kept.

    Raises:
        UserError: the first task diverged, or the file is not one of this network's weights.
    """
    stack = start(experiment, [seed])
    if path.exists():
        saved = load(path, stack)
        params, buffers = ({name: saved[f"{kind}/{name}"] for name in part} for kind, part in kinds(stack).items())
        return Stack([seed], params, buffers, experiment.optimiser(list(params.values())))
    learn(experiment, stack, 0, Method(), None)
    if not healthy(stack).all():
        raise UserError(f"seeds=[{seed}]: the first task diverged, so there is no network to look at")
    save(path, stack)
    return stack


def kinds(stack: Stack) -> dict[str, Tree]:
    """What a weights file holds of a stack."""
    return {"params": stack.params, "buffers": stack.buffers}


def save(path: Path, stack: Stack) -> None:
    """Write the weights, in a folder that git ignores."""
    content = io.BytesIO()
    torch.save({f"{kind}/{name}": v.cpu() for kind, part in kinds(stack).items() for name, v in part.items()}, content)
    write_atomically(path.with_name(".gitignore"), b"*\n")
    write_atomically(path, content.getvalue())


def load(path: Path, like: Stack) -> Tree:
    """The tensors of a weights file, on the device of `like` and with its names, shapes and types."""
    expected = {f"{kind}/{name}": v for kind, part in kinds(like).items() for name, v in part.items()}
    device = next(iter(expected.values())).device
    try:
        saved = torch.load(path, map_location=device, weights_only=True)  # refuses whatever could run code
    except (OSError, EOFError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: not a file of plain tensors; remove it, and the network is trained again") from error
    same = isinstance(saved, dict) and {k: form(v) for k, v in saved.items()} == {
        k: form(v) for k, v in expected.items()
    }
    if not same:
        raise UserError(f"{path}: not the weights of this network; remove it, and the network is trained again")
    return saved


def form(value: object) -> object:
    """Shape and type of a tensor."""
    return (value.shape, value.dtype) if isinstance(value, torch.Tensor) else None
