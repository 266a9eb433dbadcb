"""The diagonal Fisher of any `torch.nn.Module`, and the penalty of EWC."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from cl_repro.common.errors import UserError
from cl_repro.common.rules import one_of, require
from cl_repro.importance import columns
from cl_repro.importance.by_score import pick
from cl_repro.importance.library.arguments import (
    BATCHED,
    BY_SCORE,
    COUNTS,
    COUNTS_OR_NONE,
    DRAWN,
    LABELS,
    Choose,
    Data,
    active_classes,
    batches,
    check_first,
    check_model,
    positions,
)
from cl_repro.importance.library.forward import check_alone, logits, trainable
from cl_repro.importance.library.untouched import evaluated
from cl_repro.importance.library.ways import check_finite, sum_of_squares, ways
from cl_repro.types import Tree

SHARE = 0.1  # of the probabilities by which examples are chosen by score, what is alike for all
FLOATS = {"cpu": 2**25, "cuda": 2**29}  # of layers' outputs and derivatives held at a time, when nobody says


def diagonal_fisher(
    model: nn.Module,
    data: Data,
    estimator: str = "exact",
    n: int | None = None,
    active: Sequence[int] | None = None,
    chunk: int | None = None,
    *,
    draws: int = 1,
    uniform_share: float = SHARE,
    generator: Generator | None = None,
) -> dict[str, Tensor]:
    r"""The diagonal Fisher information of a classifier.

        F_i = (1/N) sum_n E_y (d log p(y|x_n) / d theta_i)^2          (van de Ven, ICLR blog post 2025)

    Scale: the MEAN over examples of squared per-example gradients of log p, no prefactor, unit (nats/parameter)^2.
    `batched` is (1/M) sum_B ((1/|B|) sum_{n in B} d log p(y_n|x_n) / d theta_i)^2, the mean over M mini-batches of the
    squared gradient of their mean loss: `fisher=batched` with `reduction: mean`.

    The model is evaluated in eval mode, without autocast and TF32. Its parameters (the same objects), modes, gradients,
    buffers, attributes and hooks and the random numbers of torch are afterwards as they were, also after an error; what
    its forward pass changes elsewhere (a list in a list, a file) is not known here.

    What is proved of the model, and what not: that it is a function of each example alone is asked of the first, the
    middle and the last example of each pass, and of every example that is measured one at a time. That a layer's rows
    are examples, which its rule needs, is proved for all: under `torch.vmap` no shape can depend on values, and where
    that refuses the model, a backward pass with a weight for each example shows whose row is whose.

    Args:
        model: maps x [N, *in] to logits [N, C], of each example for itself; parameters that require a gradient in
            float32 or float64, and so is what they are reached through.
        data: (x [N, *in], y [N] int64), or an iterable of such pairs, on any device, from
            where x goes to the model's by chunks.
        estimator: whose label the gradient has: `exact` (all, weighted by p(y|x): C - 1 backward passes), `sample` (one
            drawn from the model), `empirical` (the data's), `predicted` (the most probable), `importance_sample` (drawn
            by the size of its term and weighed, unbiased: `draws` backward passes, for any number of classes); or
            `exact_by_score` and `importance_sample_by_score`, whose n examples of a pair are chosen by what a forward
            pass says of each, and weighed (`importance.by_score`); or `batched`, whose mini-batches are those of an
            iterable: `zip(x.split(128), y.split(128))`.
        n: examples used: of a pair drawn without replacement; of an iterable the first ones. None: all.
        active: class ids that enter the softmax; None: all C.
        chunk: examples per pass. It bounds the memory and changes the result by no more than rounding. None: what takes
            about 128 MB on a CPU, 2 GB elsewhere, besides a few copies of the parameters, for any number of classes.
            Two examples are needed at a time whatever it says.
        draws: labels of each example that `importance_sample` and `importance_sample_by_score` draw; others: 1.
        uniform_share: of the probabilities by which `exact_by_score` and `importance_sample_by_score` choose examples,
            the share that is alike for all; others: 0.1.
        generator: of the examples of a pair and the labels that are drawn; None: one with seed 0.

    Returns:
        {name: [*shape]} of the parameters that require a gradient, in the order of `model.named_parameters()`, in
        their dtype: in float32 the square of a gradient below about 1e-19 loses digits, and below 1e-23 it is 0.

    Raises:
        UserError: if an argument is outside these rules, or the model is one whose Fisher cannot be right: it returns
            probabilities, or squares overflow (then float64 helps), or are NaN.

    Cost: for all parameters of Linear, Conv1d, Conv2d, BatchNorm, LayerNorm, GroupNorm and Embedding modules that are
    called once, about C - 1 backward passes of each chunk. Others (a weight that is tied, or used outside its module;
    other layers) take a gradient per example, with `torch.vmap` or, where it refuses the model, one at a time. Two
    examples are computed one at a time first, and a parameter that comes out otherwise goes the slower way.
    """
    require("estimator", estimator, one_of([*LABELS, BATCHED]))
    for name, value in (("n", n), ("chunk", chunk)):
        require(name, value, COUNTS_OR_NONE)
    require("draws", draws, COUNTS)
    if not 0 <= uniform_share <= 1:
        raise UserError(f"uniform_share={uniform_share}: must be in [0, 1]")
    if draws != 1 and estimator not in DRAWN:
        raise UserError(f"draws={draws}: estimator={estimator} does not use it; {' and '.join(DRAWN)} do")
    if uniform_share != SHARE and estimator not in BY_SCORE:
        raise UserError(
            f"uniform_share={uniform_share}: estimator={estimator} does not use it; {' and '.join(BY_SCORE)} do"
        )
    check_model(model)
    classes = active_classes(active)
    generator = generator or torch.Generator().manual_seed(0)
    with evaluated(model):
        parts = batches(data, n, estimator, generator)
        if estimator == BATCHED:
            found = batched(model, parts, classes, chunk)
        else:
            label = lambda z, y, noise: LABELS[estimator](z, y, noise, draws)  # noqa: E731
            choose = partial(pick, n=n, uniform_share=uniform_share) if estimator in BY_SCORE else None
            found = mean_of_squares(model, parts, label, classes, chunk, generator, choose)
        check_finite(found)
        return found


def quadratic_penalty(
    model: nn.Module, importance: Mapping[str, Tensor], anchor: Mapping[str, Tensor], lam: float
) -> Tensor:
    r"""(lam/2) sum_i F_i (theta_i - theta*_i)^2, to be added to the loss; prefactor lam/2, as in `methods.ewc`.

    Args:
        model: its parameters are theta.
        importance: F by parameter name; parameters that it does not name are free. Empty: no penalty yet.
        anchor: theta* by parameter name, at least those of F.
        lam: lambda.

    Returns:
        [], on the device of the first parameter.

    Raises:
        UserError: if the model has no such parameter, a shape differs, the anchor moves with the parameter, or lam is
            negative or no number.
    """
    params = dict(model.named_parameters())
    if not params:
        raise UserError("model: has no parameters")
    if not lam >= 0:
        raise UserError(f"lam={lam}: must be at least 0")
    device = next(iter(params.values())).device
    total = torch.zeros((), device=device)
    for name, f in importance.items():
        if name not in params or name not in anchor:
            raise UserError(f"importance[{name!r}]: there is no such {'anchor' if name in params else 'parameter'}")
        if not f.shape == anchor[name].shape == params[name].shape:
            shapes = [list(t.shape) for t in (f, anchor[name], params[name])]
            raise UserError(f"{name}: shapes of importance, anchor and parameter differ: {shapes}")
        if same_memory(anchor[name], params[name]):
            raise UserError(f"anchor[{name!r}] is the parameter itself, and moves with it: keep `p.detach().clone()`")
        total = total + (f * (params[name] - anchor[name]).square()).sum().to(device)
    return lam / 2 * total


def same_memory(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors begin at one place; those of torch.compile and torch.func cannot be asked."""
    if not torch.compiler.is_compiling():
        with suppress(RuntimeError):
            return a.data_ptr() == b.data_ptr() != 0
    return False


def device_of(model: nn.Module) -> torch.device:
    """Where the model is: where its first parameter is."""
    return next(iter(model.parameters())).device


# --- the means -------------------------------------------------------------------------------------------------------


def mean_of_squares(
    model: nn.Module,
    parts: Iterable[tuple[Tensor, Tensor]],
    label: Callable[[Tensor, Tensor, Tensor], Iterable[Tensor]],
    active: Tensor | None,
    chunk: int | None,
    generator: Generator,
    choose: Choose | None = None,
) -> Tree:
    """The estimators that square the gradients of examples: of all, or of those that are chosen, weighed."""
    plan, total, count = None, {name: torch.zeros_like(p) for name, p in trainable(model).items()}, 0
    device = device_of(model)
    for x, y in parts:
        if plan is None:
            first = x[:2].to(device)
            check_first(model, first)
            plan = ways(model, first, active)
            blocks = label(plan.z, positions(y[:2], plan.z, active), plan.z.new_zeros(len(plan.z)).double())
            width = max((block.shape[1] for block in islice(blocks, 1)), default=0)
        size = chunk or max(1, FLOATS.get(device.type, FLOATS["cuda"]) // max(1, plan.each + width * plan.column))
        count += len(x)
        everyone = x, y, torch.ones(len(x), device=device)
        used = chosen(model, x, y, active, size, choose, generator) if choose else everyone
        drawn = torch.rand(len(used[0]), generator=generator, dtype=torch.float64, device=generator.device)
        for x_part, y_part, w, noise in zip(*(t.split(size) for t in (*used, drawn)), strict=True):

            def of_logits(z: Tensor, y: Tensor = y_part, noise: Tensor = noise, w: Tensor = w) -> Iterable[Tensor]:
                root = w.sqrt().to(z)[:, None, None]
                return (root * s for s in label(z, positions(y, z, active), noise.to(z.device)))

            found = sum_of_squares(model, plan, x_part.to(device), active, of_logits)
            total = {name: value + found[name] for name, value in total.items()}
    return {name: value / count for name, value in total.items()}


def chosen(
    model: nn.Module, x: Tensor, y: Tensor, active: Tensor | None, size: int, choose: Choose, generator: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """The examples that are used, and their weights [n], when all have been looked at, `size` at a time."""
    device = device_of(model)
    parts = (logits(model, part.to(device), active).detach() for part in x.split(size))
    scores = torch.cat([columns.variance(z) for z in parts])
    u = torch.rand((), generator=generator, dtype=torch.float64, device=generator.device)
    at, weight = choose(scores, u.to(scores.device))
    return x[at.to(x.device)], y[at.to(y.device)], weight


def batched(model: nn.Module, parts: Iterable[tuple[Tensor, Tensor]], active: Tensor | None, chunk: int | None) -> Tree:
    """The mean over mini-batches of the squared gradient of their mean loss."""
    params, count, device = trainable(model), 0, device_of(model)
    total = {name: torch.zeros_like(p) for name, p in params.items()}
    for x, y in parts:
        if not count:
            check_first(model, x[:2].to(device))
        gradient = {name: torch.zeros_like(p) for name, p in params.items()}
        for x_part, y_part in zip(x.split(chunk or len(x)), y.split(chunk or len(y)), strict=True):
            z = logits(model, x_part.to(device), active)
            check_alone(model, x_part.to(device), active, z)
            loss = functional.cross_entropy(z, positions(y_part, z, active), reduction="sum") / len(x)
            grads = torch.autograd.grad(loss, list(params.values()), materialize_grads=True)
            gradient = {name: gradient[name] + g for name, g in zip(params, grads, strict=True)}
        total = {name: value + gradient[name].square() for name, value in total.items()}
        count += 1
    return {name: value / count for name, value in total.items()}
