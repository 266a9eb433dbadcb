r"""The diagonal Fisher of any `torch.nn.Module`, and the penalty of EWC, for a trainer of one's own.

Elastic Weight Consolidation (Kirkpatrick et al. 2017, equation 3) on `tasks`, pairs (x, y) of tensors, is:

    importance, anchor = {}, {}
    for x, y in tasks:
        optimizer = torch.optim.Adam(model.parameters())
        for rows in torch.randint(len(x), (iterations, 128)):
            loss = functional.cross_entropy(model(x[rows]), y[rows])
            (loss + quadratic_penalty(model, importance, anchor, lam)).backward()
            optimizer.step()
            optimizer.zero_grad()
        fisher = diagonal_fisher(model, (x, y))
        importance = {name: importance.get(name, 0) + value for name, value in fisher.items()}
        anchor = {name: p.detach().clone() for name, p in model.named_parameters()}
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from cl_repro.common.errors import UserError
from cl_repro.common.runtime import tf32
from cl_repro.importance import columns
from cl_repro.importance.by_score import pick
from cl_repro.importance.module_squares import (
    COLUMNS,
    FLOAT,
    FLOATS,
    NO_RULE,
    attributes_kept,
    check_alone,
    check_finite,
    logits,
    some_rows,
    sum_of_squares,
    trainable,
    ways,
)
from cl_repro.types import Tree

Data = tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]]
# (z [N, A], y [N], noise [N], draws) -> blocks [N, J, A] of columns, J at most COLUMNS: A x A numbers are never held.
Label = Callable[[Tensor, Tensor, Tensor, int], Iterable[Tensor]]
Choose = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # as `Choice.pick`

LABELS: dict[str, Label] = {  # as in `fisher` and `importance_sample`
    "exact": lambda z, y, noise, draws: columns.exact_blocks(z, COLUMNS),
    "sample": lambda z, y, noise, draws: [columns.towards(z, columns.draw(z, noise))],
    "empirical": lambda z, y, noise, draws: [columns.towards(z, y)],
    "predicted": lambda z, y, noise, draws: [columns.towards(z, z.argmax(1))],
    "importance_sample": lambda z, y, noise, draws: columns.importance_sample(z, noise, draws).split(COLUMNS, 1),
}
BY_SCORE = {f"{name}_by_score": LABELS[name] for name in ("exact", "importance_sample")}  # as in `by_score`
BATCHED = "batched"


def diagonal_fisher(
    model: nn.Module,
    data: Data,
    estimator: str = "exact",
    n: int | None = None,
    active: Sequence[int] | None = None,
    chunk: int | None = None,
    *,
    draws: int = 1,
    uniform_share: float = 0.1,
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
        model: maps x [N, *in] to logits [N, C], of each example for itself; parameters in float32 or float64.
        data: (x [N, *in], y [N] int64), or an iterable of such pairs, on any device.
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
        draws: labels of each example that `importance_sample` draws.
        uniform_share: of the probabilities by which examples are chosen by score, the share that is alike for all.
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
    labels = LABELS | BY_SCORE
    if estimator not in labels and estimator != BATCHED:
        raise UserError(f"estimator={estimator}: must be one of {', '.join([*labels, BATCHED])}")
    for name, value in (("n", n), ("chunk", chunk)):
        if value is not None and value < 1:
            raise UserError(f"{name}={value}: must be at least 1, or None")
    if draws < 1:
        raise UserError(f"draws={draws}: must be at least 1")
    if not 0 <= uniform_share <= 1:
        raise UserError(f"uniform_share={uniform_share}: must be in [0, 1]")
    check_model(model)
    classes = active_classes(active)
    generator = generator or torch.Generator().manual_seed(0)
    with evaluated(model):
        parts = batches(data, n, estimator, generator, next(iter(model.parameters())).device)
        if estimator == BATCHED:
            found = batched(model, parts, classes, chunk)
        else:
            label = lambda z, y, noise: labels[estimator](z, y, noise, draws)  # noqa: E731
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
        lam: the strength.

    Returns:
        [], on the device of the first parameter.

    Raises:
        UserError: if the model has no such parameter, or a shape differs.
    """
    params = dict(model.named_parameters())
    device = next(iter(params.values())).device
    total = torch.zeros((), device=device)
    for name, f in importance.items():
        if name not in params or name not in anchor:
            raise UserError(f"importance[{name!r}]: there is no such {'anchor' if name in params else 'parameter'}")
        if not f.shape == anchor[name].shape == params[name].shape:
            shapes = [list(t.shape) for t in (f, anchor[name], params[name])]
            raise UserError(f"{name}: shapes of importance, anchor and parameter differ: {shapes}")
        total = total + (f * (params[name] - anchor[name]).square()).sum().to(device)
    return lam / 2 * total


# --- what is asked of the arguments ----------------------------------------------------------------------------------


def check_model(model: nn.Module) -> None:
    """Refuse models whose Fisher would be wrong, by the name of the parameter or layer."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise UserError(f"model={type(model).__name__}: pass the module inside, `model.module`")
    for name, p in model.named_parameters():
        if nn.parameter.is_lazy(p):
            raise UserError(f"parameter {name!r} has no shape yet: call the model once")
        if p.dtype not in FLOAT and (p.is_floating_point() or p.is_complex()):
            raise UserError(
                f"parameter {name!r} is {p.dtype}: the Fisher needs float32 or float64; pass a copy in float32"
            )
        if p._backward_hooks:
            raise UserError(f"parameter {name!r} has a gradient hook: remove it, it would change the Fisher")
    if not trainable(model):
        raise UserError("model: no parameter requires a gradient")
    for name, module in model.named_modules():
        if module._compiled_call_impl is not None or hasattr(module, "_orig_mod"):
            raise UserError(f"layer {name!r} is compiled: pass the model as it was before torch.compile")
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise UserError(
                f"layer {name!r} normalises with the statistics of the batch: there is no Fisher of an example"
            )
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            for option in ("max_norm", "scale_grad_by_freq", "sparse"):
                if getattr(module, option):
                    raise UserError(f"layer {name!r} has {option}={getattr(module, option)}: there is no rule for it")


def active_classes(active: Sequence[int] | None) -> Tensor | None:
    """[A] int64, ascending."""
    if active is None:
        return None
    ids = torch.as_tensor(active)
    if ids.dim() != 1 or not len(ids) or ids.is_floating_point() or len(ids.unique()) < len(ids) or ids.min() < 0:
        raise UserError(f"active={active}: must be different class ids, at least one")
    return ids.long().sort().values


def positions(y: Tensor, z: Tensor, active: Tensor | None) -> Tensor:
    """Class ids -> where they are in z [N, A]."""
    classes = torch.arange(z.shape[1]) if active is None else active
    y, classes = y.to(z.device), classes.to(z.device)
    found = torch.searchsorted(classes, y).clamp(max=len(classes) - 1)
    if (wrong := y[classes[found] != y]).numel():
        rule = f"0 to {z.shape[1] - 1}" if active is None else f"one of active={active.tolist()}"
        raise UserError(f"data: label {int(wrong[0])}: must be {rule}")
    return found


def batches(
    data: Data, n: int | None, estimator: str, generator: Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """The examples that are used, in the data's batches, x on the device.

    Raises:
        UserError: if they are no such pairs, none, or fewer than n.
    """
    if isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        if estimator == BATCHED:
            raise UserError(
                "estimator=batched: needs an iterable of mini-batches, such as zip(x.split(128), y.split(128))"
            )
        x, y = checked(data)
        if n is not None:
            check_n(n, len(x))
            n = None if estimator in BY_SCORE else n  # which n of them is chosen later
            rows = torch.randperm(len(x), generator=generator, device=generator.device)[:n]
            x, y = x[rows.to(x.device)], y[rows.to(y.device)]
        data = [(x, y)]
    elif estimator in BY_SCORE:
        raise UserError(f"estimator={estimator}: needs a pair of tensors (x, y), to choose from all examples")
    used = 0
    for batch in data:
        x, y = checked(batch)
        x, y = x[: None if n is None else n - used], y[: None if n is None else n - used]
        if len(x):
            used += len(x)
            yield x.detach().to(device), y
        if used == n:
            return
    if not used:
        raise UserError("data: there are no examples")
    if n is not None:
        check_n(n, used)


def check_n(n: int, there: int) -> None:
    """Refuse more examples than there are."""
    if n > there:
        raise UserError(f"n={n}: the data have {there} examples; n must not be larger")


def checked(batch: object) -> tuple[Tensor, Tensor]:
    """A pair (x, y) that is one."""
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not all(isinstance(part, Tensor) for part in batch):
        raise UserError(f"data: a batch is a {type(batch).__name__}; must be a pair of tensors (x, y)")
    x, y = batch
    if y.dim() != 1 or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise UserError(f"data: y is {y.dtype} {list(y.shape)}; must be class ids [N], integers")
    if not x.dim() or len(x) != len(y):
        raise UserError(f"data: x is {list(x.shape)} and y {list(y.shape)}; must have one example for each label")
    # Tensors of inference mode cannot be part of a graph.
    return (x.clone() if x.is_inference() else x), y.long()


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """Meanwhile the model is in eval mode and autograd on; afterwards its state and torch's random numbers are back."""
    devices = {p.device for p in model.parameters()}
    cuda = [device.index for device in devices if device.type == "cuda"]
    was, fast = model.training, torch.backends.mha.get_fastpath_enabled()
    with (
        torch.random.fork_rng(cuda),
        torch.inference_mode(False),
        torch.enable_grad(),
        tf32(False),
        attributes_kept(model),  # `training` among them
        values_kept([*model.parameters(), *model.buffers()]),
        warnings.catch_warnings(),
    ):
        # What torch says when it takes the slow way under vmap; which parameters are slow is said once, elsewhere.
        warnings.filterwarnings("ignore", message=f".*{NO_RULE}")
        try:
            model.eval()
            torch.backends.mha.set_fastpath_enabled(False)  # it has no derivative, and under vmap does not know it
            with torch.autocast(next(iter(devices)).type, enabled=False):
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            model.train(was)


@contextmanager
def values_kept(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Afterwards the tensors have the values, gradients and flags they had before; what is as it was is not touched."""
    before = [(t, t._version, t.detach().clone(), t.requires_grad, t.grad) for t in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for t, version, value, flag, grad in before:
                if t._version != version or not torch.equal(t, value):  # through .data: without a new version
                    t.copy_(value)
                if t.requires_grad != flag:
                    t.requires_grad_(flag)
                t.grad = grad


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
    for x, y in parts:
        if plan is None:
            check_first(model, x[:2])
            plan = ways(model, x[:2], active)
            blocks = label(plan.z, positions(y[:2], plan.z, active), plan.z.new_zeros(len(plan.z)).double())
            width = max((block.shape[1] for block in islice(blocks, 1)), default=0)
        size = chunk or max(1, FLOATS.get(x.device.type, FLOATS["cuda"]) // max(1, plan.each + width * plan.column))
        count += len(x)
        used = chosen(model, x, y, active, size, choose, generator) if choose else (x, y, x.new_ones(len(x)))
        for x_part, y_part, w in zip(*(t.split(size) for t in used), strict=True):
            noise = torch.rand(len(x_part), generator=generator, dtype=torch.float64, device=generator.device)

            def of_logits(z: Tensor, y: Tensor = y_part, noise: Tensor = noise, w: Tensor = w) -> Iterable[Tensor]:
                blocks = label(z, positions(y, z, active), noise.to(z.device))
                return (w.sqrt().to(z)[:, None, None] * s for s in blocks) if choose else blocks

            found = sum_of_squares(model, plan, x_part, active, of_logits)
            total = {name: value + found[name] for name, value in total.items()}
    return {name: value / count for name, value in total.items()}


def chosen(
    model: nn.Module, x: Tensor, y: Tensor, active: Tensor | None, size: int, choose: Choose, generator: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """The examples that are used, and their weights [n], when all have been looked at, `size` at a time."""
    scores = torch.cat([columns.variance(logits(model, part, active).detach()) for part in x.split(size)])
    u = torch.rand((), generator=generator, dtype=torch.float64, device=generator.device)
    at, weight = choose(scores, u.to(scores.device))
    return x[at], y[at.to(y.device)], weight


def check_first(model: nn.Module, x: Tensor) -> None:
    """Refuse what the model cannot read, and a model that returns probabilities, by the first examples."""
    try:
        z = model(x.clone())
    except RuntimeError as error:
        if (right := readable(model, x)) is None:
            raise
        reason = str(error).splitlines()[0]
        raise UserError(f"x is {x.dtype}, which the model cannot read: pass it as {right} ({reason})") from error
    if isinstance(z, Tensor) and z.dtype in FLOAT and z.dim() == 2 and z.shape[1] > 1:
        off = (z.detach().sum(1) - 1).abs().max()
        if (z >= 0).all() and off < 1e-5:
            raise UserError(
                "the model returns probabilities, all at least 0 and of sum 1: must be logits; leave out its softmax"
            )


def readable(model: nn.Module, x: Tensor) -> torch.dtype | None:
    """In which other type the model reads x: that of its parameters, or ids; None if it fails with these, too."""
    for dtype in (next(iter(trainable(model).values())).dtype, torch.int64):
        with suppress(Exception):
            if x.dtype != dtype:
                model(x.to(dtype))
                return dtype
    return None


def batched(model: nn.Module, parts: Iterable[tuple[Tensor, Tensor]], active: Tensor | None, chunk: int | None) -> Tree:
    """The mean over mini-batches of the squared gradient of their mean loss."""
    params, count = trainable(model), 0
    total = {name: torch.zeros_like(p) for name, p in params.items()}
    for x, y in parts:
        if not count:
            check_first(model, x[:2])
        gradient = {name: torch.zeros_like(p) for name, p in params.items()}
        for x_part, y_part in zip(x.split(chunk or len(x)), y.split(chunk or len(y)), strict=True):
            z = logits(model, x_part, active)
            check_alone(model, x_part, active, z, some_rows(x_part))
            loss = functional.cross_entropy(z, positions(y_part, z, active), reduction="sum") / len(x)
            grads = torch.autograd.grad(loss, list(params.values()), materialize_grads=True)
            gradient = {name: gradient[name] + g for name, g in zip(params, grads, strict=True)}
        total = {name: value + gradient[name].square() for name, value in total.items()}
        count += 1
    return {name: value / count for name, value in total.items()}
