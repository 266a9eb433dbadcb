"""Named random streams: every draw comes from its own generator, keyed by what it is for.

A stream depends on (seed, name, task) alone, never on who drew before or on the other replicas. Adding a consumer
moves no other stream, and forking a run needs no generator state. Streams are drawn on the CPU, the same for every
device; only what every step draws anew (dropout) is drawn on the device itself.

DEVIATES from all reference code: initial weights, orders of mini-batches and drawn labels are not theirs for any seed.
Which classes or permutations are a task is (`benchmarks`). All arms of a seed see the same mini-batches, so that they
are paired; in van de Ven's code those of "None" are others from the second task on.
"""

import hashlib

import numpy as np
import torch
from torch import Generator, Tensor


def stream(seed: int, name: str, task: int = 0, device: str = "cpu") -> Generator:
    """The generator of stream `name` for `seed` and `task`; what it draws is another on another kind of device."""
    return Generator(device).manual_seed(int.from_bytes(_key(seed, name, task), "little", signed=True))


def numpy_stream(seed: int, name: str, task: int = 0) -> np.random.Generator:
    """NumPy's generator of a stream, for draws that depend on those before."""
    return np.random.default_rng(int.from_bytes(_key(seed, name, task), "little"))


def _key(seed: int, name: str, task: int) -> bytes:
    return hashlib.blake2b(f"{seed}/{name}/{task}".encode(), digest_size=8).digest()


def batches(generator: Generator, n: int, batch_size: int, iterations: int) -> Tensor:
    """Mini-batches of `iterations` steps: shuffled epochs without replacement, incomplete batches dropped.

    DEVIATES from Benzing's code on MNIST, which joins what an epoch leaves over with the beginning of the next one, and
    goes on in the same epoch when the task changes. Here, as in van de Ven's code, the rest of an epoch is dropped, and
    every task begins with a new one.

    Args:
        generator: where the shuffles come from.
        n: examples of the task, at least `batch_size`.
        batch_size: B.
        iterations: number of steps.

    Returns:
        [iterations, B] int64, positions in 0..n-1.
    """
    per_epoch = n // batch_size
    epochs = -(-iterations // per_epoch)
    shuffles = [torch.randperm(n, generator=generator)[: per_epoch * batch_size] for _ in range(epochs)]
    return torch.cat(shuffles).view(-1, batch_size)[:iterations]


def whole_epochs(generator: Generator, n: int, batch_size: int, epochs: int) -> Tensor:
    """Mini-batches of shuffled epochs without replacement, the last of each with what is left.

    Args:
        generator: where the shuffles come from.
        n: examples of the task, at least 1.
        batch_size: B.
        epochs: number of passes, at least 0.

    Returns:
        [epochs ceil(n / B), B] int64, positions in 0..n-1; a smaller mini-batch ends with -1.
    """
    per_epoch = -(-n // batch_size)
    order = torch.full((epochs, per_epoch * batch_size), -1)
    for of_epoch in order:
        of_epoch[:n] = torch.randperm(n, generator=generator)
    return order.view(epochs * per_epoch, batch_size)
