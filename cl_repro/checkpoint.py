"""A chunk that was stopped between two tasks, as a file: with it, a study in slices gets on task by task.

Nothing in the file can run code: it holds plain containers and tensors. The state of a method is a NamedTuple of
tensors and trees, nested at will; its types are written as names, and looked up among the modules loaded anyway.
"""

import io
import pickle
import sys
from dataclasses import astuple
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cl_repro.engine import Experiment, Progress, Seconds, Stack

Origin = dict[str, str]
"""Code, libraries, machine and data: what must be the same when a run goes on."""


MALFORMED = (LookupError, TypeError, ValueError, AttributeError, RuntimeError, EOFError, pickle.UnpicklingError)


class Unusable(Exception):
    """Not a checkpoint of this chunk."""


def dump(at: Progress, experiment: Experiment, origin: Origin) -> bytes:
    """The content of the file.

    Args:
        at: replicas between two tasks.
        experiment: what they share. The optimiser's moments are kept only if the next task goes on with them.
        origin: to be compared by `load`.

    Raises:
        TypeError: the state of the method is not what `types.Method` says of one.
    """
    stack, kept = at.stack, {} if experiment.reset_optimiser else at.stack.optimiser.state
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
    }
    file = io.BytesIO()
    torch.save(content, file)  # tensors that share memory still do when they are loaded
    return file.getvalue()


def load(data: bytes, experiment: Experiment, seeds: list[int], origin: Origin) -> Progress | None:
    """What `dump` was given; None if another origin has written it, so that the chunk has to begin again.

    Args:
        data: the content of the file.
        experiment: of the chunk.
        seeds: of its replicas.
        origin: of this process.

    Raises:
        Unusable: truncated, edited, or of something else.
    """
    try:
        place = partial(placed, device=experiment.device)
        found = torch.load(io.BytesIO(data), map_location=place, weights_only=True)
        if found["origin"] != origin:
            return None
        if found["seeds"] != seeds:
            raise Unusable
        params = found["params"]
        optimiser = experiment.optimiser(list(params.values()))
        for p, moments in zip(params.values(), found["moments"], strict=True):
            if moments:
                optimiser.state[p] = moments
        stack = Stack(
            seeds, params, found["buffers"], optimiser, Seconds(*found["seconds"]), found["steps"], found["stored"]
        )
        accuracy = [a.numpy() for a in found["accuracy"]]
        return Progress(found["learned"], stack, restored(found["state"]), accuracy, found["traces"])
    except MALFORMED as error:
        raise Unusable from error


def placed(storage: Any, location: str, device: str) -> Any:
    """Tensors of a CUDA device come back on the experiment's, whichever it is now; those of the CPU stay there."""
    return storage if location == "cpu" else storage.cuda(torch.device(device).index)


def plain(state: Any) -> Any:
    """A state without types of its own."""
    if state is None or isinstance(state, Tensor):
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
    if isinstance(state, tuple):
        module, name, values = state
        kind = getattr(sys.modules[module], name)
        if not (isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")):
            raise ValueError(name)
        return kind(*(restored(value) for value in values))
    return state
