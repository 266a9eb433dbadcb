"""Layers as functions, and the squares and absolute values of their per-example gradients.

A layer computes z = f(a; theta) and hands (name, kind, a, z) to `tap`, which is the identity in training.
An importance pass taps the layers: it keeps a and, by adding zeros to z, obtains D_j = d s_j / d z for output
column j. `Layer.sums` turns both into the sum over examples and columns of f of per-example gradients, their square or
absolute value, without ever holding one gradient per example longer than that takes:

    linear      d s_j / d W = D_j a^T                       sum_n sum_j f(D_jn a_n^T) = (sum_j f(D_j))^T f(a)
    convolution d s_j / d W = D_j U, U the window of a at each position     f of each, for a few examples at a time
    batch norm  d s_j / d gamma = sum_hw D_j (a - mu) / sqrt(var + eps), d s_j / d beta = sum_hw D_j; running mu, var

A layer must be applied once per forward pass: two uses would need their gradients summed before f.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Generator, Tensor
from torch.nn import functional

from cl_repro.common.errors import UserError
from cl_repro.types import Layer, Net, Tap, Tree

MOMENTUM, EPS = 0.1, 1e-5  # of batch normalisation; PyTorch's defaults
PAIRS_PAY = 4  # positions up to which convolution squares go by pairs of positions (measured: 4 pays, 16 does not)
# Elements of windows, and of per-example gradients, held at a time: the second-level cache of a core; on CUDA, enough
# to fill it.
HELD = {"cpu": 2**19, "cuda": 2**27}
FEW = 16  # examples that fit in there, up to which they are taken one by one: 1.3 times faster, slim ResNet-18, CPU

Elementwise = Callable[[Tensor], Tensor]  # torch.square or torch.abs; f(xy) = f(x) f(y)


def no_tap(name: str, layer: Layer, a: Tensor, z: Tensor) -> Tensor:
    """The identity on a layer's output."""
    return z


@torch.no_grad()
def head_input(net: Net, params: Tree, buffers: Tree, x: Tensor) -> Tree:
    """{"head": [N, units]}, what that layer reads of x [N, *shape] in evaluation; {} if there is no such layer."""
    read: Tree = {}

    def tap(name: str, layer: Layer, a: Tensor, z: Tensor) -> Tensor:
        if name == "head":
            read[name] = a
        return z

    net.apply(params, buffers, x, tap=tap)
    return read


def uniform(generator: Generator, fan_in: int, *shape: int) -> Tensor:
    """Uniform in +-1/sqrt(fan_in): PyTorch's default law for weights and biases of linear and convolution layers."""
    bound = 1 / math.sqrt(fan_in)
    return torch.empty(*shape).uniform_(-bound, bound, generator=generator)


def glorot_uniform(generator: Generator, fan_in: int, fan_out: int, *shape: int) -> Tensor:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)): Glorot and Bengio (2010), the "normalized initialization"."""
    bound = math.sqrt(6 / (fan_in + fan_out))
    return torch.empty(*shape).uniform_(-bound, bound, generator=generator)


def check_images(model: str, input_shape: Sequence[int]) -> None:
    """Refuse, for a network that convolves, examples that are not images [colours, height, width]."""
    if len(input_shape) != 3:
        raise UserError(f"model={model}: needs images [colours, height, width], not {list(input_shape)}")


def check_sizes(key: str, sizes: Sequence[int], *, some: bool = True) -> None:
    """Refuse layers without a unit or a channel, and, where there must be `some`, no layers."""
    if (some and not sizes) or not all(isinstance(size, int) and size >= 1 for size in sizes):
        raise UserError(f"model.{key}={list(sizes)}: must list layer sizes of at least 1")


def sum_of(f: Elementwise, deltas: Sequence[Tensor]) -> Tensor:
    """sum_j f(D_j), elementwise."""
    return torch.stack([f(d) for d in deltas]).sum(0) if len(deltas) > 1 else f(deltas[0])


# --- linear ----------------------------------------------------------------------------------------------------------


def linear_sums(f: Elementwise, a: Tensor, deltas: Sequence[Tensor]) -> Tree:
    """W: (sum_j f(D_j))^T f(a), b: sum_n sum_j f(D_j); a [N, in], D_j [N, out]."""
    d = sum_of(f, deltas)
    return {"weight": d.mT @ f(a), "bias": d.sum(0)}


LINEAR = Layer(linear_sums, lambda a: a)


def linear(params: Tree, name: str, a: Tensor, tap: Tap = no_tap) -> Tensor:
    """Z = a W^T + b, a [N, in] -> z [N, out]."""
    return tap(name, LINEAR, a, functional.linear(a, params[f"{name}.weight"], params[f"{name}.bias"]))


def init_linear(name: str, n_in: int, n_out: int, generator: Generator) -> Tree:
    """W [out, in] and b [out], by `uniform`."""
    return {
        f"{name}.weight": uniform(generator, n_in, n_out, n_in),
        f"{name}.bias": uniform(generator, n_in, n_out),
    }


def glorot_linear(name: str, n_in: int, n_out: int, generator: Generator, *, fan_out: int | None = None) -> Tree:
    """W [out, in] by `glorot_uniform`, b = 0 [out]; fan_out is `n_out` where it is not given."""
    return {
        f"{name}.weight": glorot_uniform(generator, n_in, fan_out or n_out, n_out, n_in),
        f"{name}.bias": torch.zeros(n_out),
    }


def init_perceptron(
    names: Sequence[str], sizes: Sequence[int], generator: Generator, law: Callable[..., Tree] = init_linear
) -> Tree:
    """Linear layers one after the other, the first from sizes[0] to sizes[1] units, drawn in this order."""
    params: Tree = {}
    for name, n_in, n_out in zip(names, sizes, sizes[1:], strict=False):
        params |= law(name, n_in, n_out, generator)
    return params


def perceptron(
    params: Tree, names: Sequence[str], a: Tensor, tap: Tap, activation: Callable[[Tensor], Tensor] = Tensor.relu
) -> Tensor:
    """What these linear layers make of a [N, in], with the activation after each but the last; z [N, out]."""
    for name in names[:-1]:
        a = activation(linear(params, name, a, tap))
    return linear(params, names[-1], a, tap)


# --- convolution -----------------------------------------------------------------------------------------------------


def channels_last(x: Tensor) -> Tensor:
    """On a CPU images [N, C, H, W] with the channels of a pixel next to each other in memory; same shape, same values.

    Convolutions keep that layout: a training step of slim ResNet-18 is 1.5 times faster than without. On CUDA, where
    that was not measured, the images as they are.
    """
    if x.device.type != "cpu":
        return x
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def every(stride: int, a: Tensor) -> Tensor:
    """Every stride-th pixel of a [N, C, H, W] in both directions, a view; its gradient has the channels last, too."""
    return a.permute(0, 2, 3, 1)[:, ::stride, ::stride].permute(0, 3, 1, 2)


def windows(a: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """What each output position sees: a [n, in, H, W] -> U [n, h, w, kernel, kernel, in], a view of a padded."""
    padded = functional.pad(a, (padding,) * 4)
    return padded.unfold(2, kernel, stride).unfold(3, kernel, stride).permute(0, 2, 3, 4, 5, 1)


def convolution_sums(
    f: Elementwise, a: Tensor, deltas: Sequence[Tensor], *, kernel: int, stride: int, padding: int, bias: bool
) -> Tree:
    """W: sum_n sum_j f(D_jn U_n), b: sum_n sum_j f(sum_l D_jnl); a [N, in, H, W], D_j [N, out, h, w].

    Fast where the channels are last in memory: copying a window then copies rows of it.
    """
    u = windows(a, kernel, stride, padding)
    ds = [d.permute(0, 2, 3, 1).flatten(1, 2).mT for d in deltas]  # [N, out, L]
    n_out, length, window = *ds[0].shape[1:], math.prod(u.shape[3:])
    at_once = max(1, HELD[a.device.type] // (window * max(n_out, length)))
    total = deltas[0].new_zeros(n_out, window)
    if f is torch.square and length <= PAIRS_PAY:
        total = sum((squares_by_pairs(d, u.reshape(-1, length, window)) for d in ds), start=total)
    elif at_once <= FEW:
        for n in range(len(a)):
            u_n = u[n].reshape(length, window)
            for d in ds:
                g = d[n] @ u_n
                total = total.addcmul_(g, g) if f is torch.square else total.add_(g.abs_())
    else:
        for part in (slice(first, first + at_once) for first in range(0, len(a), at_once)):
            u_part = u[part].reshape(-1, length, window)
            for d in ds:
                g = d[part] @ u_part
                total += (g.mul_(g) if f is torch.square else g.abs_()).sum(0)  # in place: g may be large
    result = {"weight": total.view(n_out, kernel, kernel, -1).permute(0, 3, 1, 2).contiguous()}
    if bias:
        result["bias"] = sum_of(f, [d.sum((2, 3)) for d in deltas]).sum(0)
    return result


def squares_by_pairs(d: Tensor, u: Tensor) -> Tensor:
    """sum_n (sum_l d_nol u_nli)^2 [out, in], one matrix product over examples and pairs of positions l <= m.

    (sum_l d_l u_l)^2 = sum_{l <= m} w_lm (d_l d_m) (u_l u_m), w = 1 on the diagonal, else 2. It costs (L + 1) / 2
    times the operations and never holds a gradient per example. d [n, out, L], u [n, L, in].
    """
    d = d.mT
    first, second = torch.triu_indices(d.shape[1], d.shape[1], device=d.device)
    weight = torch.where(first == second, 1.0, 2.0).to(d.dtype)[:, None]
    dd, uu = d[:, first] * d[:, second] * weight, u[:, first] * u[:, second]  # [n, pairs, .]
    return dd.flatten(0, 1).mT @ uu.flatten(0, 1)


def convolution(params: Tree, name: str, a: Tensor, tap: Tap = no_tap, *, stride: int = 1, padding: int = 0) -> Tensor:
    """A square convolution, with a bias if `params` has one; a [N, in, H, W] -> z [N, out, h, w]."""
    weight, bias = params[f"{name}.weight"], params.get(f"{name}.bias")
    kernel = weight.shape[-1]
    sums = partial(convolution_sums, kernel=kernel, stride=stride, padding=padding, bias=bias is not None)

    def sees(a: Tensor) -> Tensor:
        """Windows of a [N, in, H, W], [N L, in kernel kernel]."""
        return functional.unfold(a, kernel, stride=stride, padding=padding).mT.flatten(0, 1)

    # A 1x1 window sees every stride-th pixel alone, so it is applied to those: conv2d would do the same and give the
    # same bits. But oneDNN 3.12 (torch 2.13), on a CPU with AVX2 and no AVX-512, writes beyond its block of memory in
    # the backward pass of a 1x1 convolution of stride 2 with 2 to 7 channels that are last in memory.
    if kernel == 1 and not padding and a.device.type == "cpu":
        z = functional.conv2d(every(stride, a), weight, bias)
    else:
        z = functional.conv2d(a, weight, bias, stride=stride, padding=padding)
    return tap(name, Layer(sums, sees), a, z)


def init_convolution(name: str, n_in: int, n_out: int, kernel: int, generator: Generator, *, bias: bool) -> Tree:
    """W [out, in, kernel, kernel] and, if wanted, b [out], by `uniform`."""
    fan_in = n_in * kernel * kernel
    result = {f"{name}.weight": uniform(generator, fan_in, n_out, n_in, kernel, kernel)}
    return result | ({f"{name}.bias": uniform(generator, fan_in, n_out)} if bias else {})


def glorot_convolution(name: str, n_in: int, n_out: int, kernel: int, generator: Generator) -> Tree:
    """W [out, in, kernel, kernel] by `glorot_uniform`, each fan a window's: kernel^2 channels; b = 0 [out]."""
    shape, area = (n_out, n_in, kernel, kernel), kernel * kernel
    return {
        f"{name}.weight": glorot_uniform(generator, area * n_in, area * n_out, *shape),
        f"{name}.bias": torch.zeros(n_out),
    }


# --- batch normalisation ---------------------------------------------------------------------------------------------


def norm_sums(mean: Tensor, var: Tensor, f: Elementwise, a: Tensor, deltas: Sequence[Tensor]) -> Tree:
    """Gamma: sum_n sum_j f(sum_hw D_j (a - mu) / sqrt(var + eps)), beta: sum_n sum_j f(sum_hw D_j)."""
    normalised = functional.batch_norm(a, mean, var, eps=EPS)
    return {
        "weight": sum_of(f, [(d * normalised).sum((2, 3)) for d in deltas]).sum(0),
        "bias": sum_of(f, [d.sum((2, 3)) for d in deltas]).sum(0),
    }


def batch_norm(params: Tree, buffers: Tree, name: str, a: Tensor, tap: Tap = no_tap, *, train: bool) -> Tensor:
    """Batch normalisation of maps a [N, C, H, W], z [N, C, H, W].

    Args:
        params: gamma and beta, `weight` and `bias` of the layer, [C].
        buffers: its running `mean` and `var`, [C].
        name: of the layer.
        a: its input.
        tap: as for every layer; only with running statistics.
        train: normalise with the statistics of the batch, and let the running ones follow, in place: a network takes
            copies of what it was given; else use the running ones.
    """
    mean, var = buffers[f"{name}.mean"], buffers[f"{name}.var"]
    gamma, beta = params[f"{name}.weight"], params[f"{name}.bias"]
    if not train:  # z = scale a + shift; torch's own function is slower to differentiate
        scale = gamma * (var + EPS).rsqrt()
        shift = beta - mean * scale
        z = torch.addcmul(shift[:, None, None], scale[:, None, None], a)
        return tap(name, Layer(partial(norm_sums, mean, var)), a, z)
    return functional.batch_norm(a, mean, var, gamma, beta, training=True, momentum=MOMENTUM, eps=EPS)


def init_batch_norm(name: str, channels: int) -> tuple[Tree, Tree]:
    """Gamma 1 and beta 0, running mean 0 and variance 1, [channels] each."""
    return (
        {f"{name}.weight": torch.ones(channels), f"{name}.bias": torch.zeros(channels)},
        {f"{name}.mean": torch.zeros(channels), f"{name}.var": torch.ones(channels)},
    )
