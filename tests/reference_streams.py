"""The random numbers of the reference code (GMvandeVen/continual-learning), replayed with plain torch calls.

Split MNIST MLP on a CPU: every linear layer first fills a buffer of ones with a uniform draw, then W, then b; all
layers are initialised a second time, W then b, and that second draw counts. A loader takes two 64-bit numbers from
the default generator: one is unused, the other seeds a private generator that makes the epoch's permutation.
"""

import math

import torch
from torch import Tensor

SIZES = {"fc1": (784, 400), "fc2": (400, 400), "head": (400, 10)}


def initial_weights(seed: int) -> dict[str, Tensor]:
    """Parameters of the 784-400-400-10 MLP; leaves torch's default generator where the reference leaves it."""
    torch.manual_seed(seed)
    params: dict[str, Tensor] = {}
    for second in (False, True):
        for name, (n_in, n_out) in SIZES.items():
            bound = 1 / math.sqrt(n_in)
            if not second:
                torch.empty(n_out).uniform_(1, 1)
            params[f"{name}.weight"] = torch.empty(n_out, n_in).uniform_(-bound, bound)
            params[f"{name}.bias"] = torch.empty(n_out).uniform_(-bound, bound)
    return params


def draw64() -> int:
    """The next 64-bit number of torch's default generator."""
    return int(torch.empty((), dtype=torch.int64).random_().item())


def loader_permutation(n: int) -> Tensor:
    """The order of one epoch of a shuffling loader over n examples."""
    draw64()
    generator = torch.Generator()
    generator.manual_seed(draw64())
    return torch.randperm(n, generator=generator)


def mini_batches(n: int, batch_size: int, iterations: int) -> Tensor:
    """[iterations, batch_size] positions: a new loader for every epoch, incomplete batches dropped."""
    per_epoch = n // batch_size
    epochs = [loader_permutation(n)[: per_epoch * batch_size] for _ in range(-(-iterations // per_epoch))]
    return torch.cat(epochs).view(-1, batch_size)[:iterations]
