"""A chunk that was stopped between two tasks or two steps, as a file: with it, a study in slices gets on.

The file begins with the SHA-256 of the rest, so that what a disk, a copy or a hand has changed is noticed. Nothing in
it can run code: it holds plain containers and tensors. The state of a method is a NamedTuple of tensors and trees,
nested at will; its types are written as names, and looked up among the modules loaded anyway.
"""

import hashlib
import io
import pickle
import sys
from dataclasses import astuple
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cl_repro.common import moved
from cl_repro.engine import Experiment, Middle, Progress, Seconds, Stack, start
from cl_repro.types import Tree

Origin = dict[str, str]
"""Runs, code, libraries, machine and data: what must be the same when they go on."""

MALFORMED = (LookupError, TypeError, ValueError, AttributeError, RuntimeError, EOFError, pickle.UnpicklingError)
SHA256 = hashlib.sha256().digest_size  # bytes


class Unusable(Exception):
    """Not a checkpoint of this chunk; the text says why."""


def dump(at: Progress, experiment: Experiment, origin: Origin) -> bytes:
    """The content of the file; `load` compares the origin.

    The optimiser's moments are kept only if what comes next goes on with them.

    Raises:
        TypeError: the state of the method is not what `types.Method` says of one.
    """
    stack = at.stack
    kept = {} if experiment.reset_optimiser and not at.middle else stack.optimiser.state
    content = {
        "origin": origin,
        "learned": at.learned,
        "seeds": stack.seeds,
        "params": stack.params,
        "buffers": stack.buffers,
        "moments": [kept.get(p, {}) for p in stack.params.values()],
        "steps": stack.steps,
        "stored": stack.stored,
        "seconds": astuple(stack.seconds),
        "state": plain(at.state),
        "accuracy": [torch.from_numpy(a) for a in at.accuracy],
        "traces": at.traces,
        "middle": at.middle and at.middle._asdict(),
    }
    file = io.BytesIO()
    torch.save(content, file)  # tensors that share memory still do when they are loaded
    return sealed(file.getvalue())


def sealed(content: bytes) -> bytes:
    """What `load` opens: the content behind its checksum."""
    return hashlib.sha256(content).digest() + content


def load(data: bytes, experiment: Experiment, seeds: list[int], origin: Origin) -> Progress | None:
    """What `dump` was given; None if another origin has written it, so that the chunk has to begin again.

    Raises:
        Unusable: truncated, edited, or of something else than a chunk of this experiment and these seeds.
    """
    content = data[SHA256:]
    if sealed(content) != data:
        raise Unusable("its content is not that of its checksum")
    try:
        place = partial(placed, device=experiment.device)
        found = torch.load(io.BytesIO(content), map_location=place, weights_only=True)
        if found["origin"] != origin:
            return None
        if wrong := misfits(found, experiment, seeds):
            raise Unusable(f"its {', '.join(wrong)} are not of this chunk")
        params = found["params"]
        optimiser = experiment.optimiser(list(params.values()))
        for p, moments in zip(params.values(), found["moments"], strict=True):
            if moments:
                optimiser.state[p] = moments
        spent, steps, stored = Seconds(*found["seconds"]), found["steps"], found["stored"]
        stack = Stack(found["seeds"], params, found["buffers"], optimiser, spent, steps, stored)
        accuracy = [a.numpy() for a in found["accuracy"]]
        middle = found["middle"] and Middle(**found["middle"])
        return Progress(found["learned"], stack, restored(found["state"]), accuracy, found["traces"], middle)
    except MALFORMED as error:
        raise Unusable("it has no such content") from error


def misfits(found: dict[str, Any], experiment: Experiment, seeds: list[int]) -> list[str]:
    """What does not fit these replicas and a position in their tasks, by name."""
    n_tasks, learned, middle, k = experiment.benchmark.n_tasks, found["learned"], found["middle"], len(seeds)
    untrained = start(experiment, seeds[:1])
    of_splits = (k, len(experiment.benchmark.splits), n_tasks)
    fits = {
        "seeds": found["seeds"] == seeds,
        "tasks": type(learned) is int and (0 if middle else 1) <= learned <= n_tasks - bool(middle),
        "steps": not middle or (type(middle["taken"]) is int and middle["taken"] > 0),
        "params": shapes(found["params"]) == shapes(untrained.params, k),
        "buffers": shapes(found["buffers"]) == shapes(untrained.buffers, k),
        "moments": len(found["moments"]) == len(found["params"])
        and all(
            value.shape in ((), p.shape)
            for p, moments in zip(found["params"].values(), found["moments"], strict=True)
            for value in moments.values()
        ),
        "accuracies": [(*a.shape, a.dtype) for a in found["accuracy"]] == (learned + 1) * [(*of_splits, torch.float64)],
        "traces": len(found["traces"]) in (0, min(learned, n_tasks - 1))
        and all(trace.shape == (k,) for trace in found["traces"]),
    }
    return [name for name, fit in fits.items() if not fit]


def shapes(tree: Tree, k: int | None = None) -> dict[str, tuple[Any, ...]]:
    """Shape and type of every tensor of a stacked tree, or of one of k replicas."""
    return {name: (k or len(value), *value.shape[1:], value.dtype) for name, value in tree.items()}


def placed(storage: Any, location: str, device: str) -> Any:
    """Tensors of a CUDA device come back on the experiment's, whichever it is now; those of the CPU stay there.

    On a CPU they are only looked at, for their origin.
    """
    return storage if "cpu" in (location, device) else storage.cuda(torch.device(device).index)


def plain(state: Any) -> Any:
    """A state without types of its own."""
    if isinstance(state, Tensor) or state == ():
        return state
    if isinstance(state, dict):
        return {name: plain(value) for name, value in state.items()}
    kind = type(state)
    if hasattr(state, "_asdict") and getattr(sys.modules[kind.__module__], kind.__qualname__, None) is kind:
        return (kind.__module__, kind.__qualname__, [plain(value) for value in state])
    raise TypeError(f"{kind.__qualname__}: a state must consist of tensors, dictionaries, and NamedTuples of a module")


def restored(state: Any) -> Any:
    """The inverse of `plain`."""
    if isinstance(state, dict):
        return {name: restored(value) for name, value in state.items()}
    if isinstance(state, tuple) and state:
        module, name, values = state
        module, _, name = moved.now(f"{module}.{name}").rpartition(".")
        kind = getattr(sys.modules[module], name)
        if not (isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")):
            raise ValueError(name)
        return kind(*(restored(value) for value in values))
    return state
