"""What `diagonal_fisher` is given, and what it refuses: models, class ids, and batches of examples."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from numbers import Integral

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.module import _global_backward_hooks, _global_backward_pre_hooks
from torch.utils.data import Dataset, IterableDataset

from cl_repro.common.errors import UserError
from cl_repro.common.rules import Rule
from cl_repro.importance import columns, fisher
from cl_repro.importance.library.forward import FLOAT, trainable
from cl_repro.importance.library.ways import COLUMNS

Data = tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]]
# (z [N, A], y [N], noise [N], draws) -> blocks [N, J, A] of columns, J at most COLUMNS: A x A numbers are never held.
Label = Callable[[Tensor, Tensor, Tensor, int], Iterable[Tensor]]
Choose = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # as `Choice.pick`

COUNTS: Rule = (lambda value: isinstance(value, Integral) and int(value) >= 1, "an integer of at least 1")
COUNTS_OR_NONE: Rule = (lambda value: value is None or COUNTS[0](value), f"{COUNTS[1]}, or None")

PAIRS = "data must be a pair of tensors (x, y), or an iterable of such pairs: a DataLoader"
BATCHED, BY_SCORE = "batched", ("exact_by_score", "importance_sample_by_score")
DRAWN = ("importance_sample", "importance_sample_by_score")  # whose labels are as many as `draws`


def one_block(label: fisher.Label) -> Label:
    """The columns of a label, all at once."""
    return lambda z, y, noise, draws: [label(z, y, noise)]


LABELS: dict[str, Label] = {name: one_block(label) for name, label in fisher.LABELS.items()} | {
    "exact": lambda z, y, noise, draws: columns.exact_blocks(z, COLUMNS),
    "importance_sample": lambda z, y, noise, draws: columns.importance_sample(z, noise, draws).split(COLUMNS, 1),
}
LABELS |= {name: LABELS[name.removesuffix("_by_score")] for name in BY_SCORE}


def check_model(model: nn.Module) -> None:
    """Refuse models whose Fisher would be wrong, by the name of the parameter or layer."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise UserError(f"model={type(model).__name__}: pass the module inside, `model.module`")
    check_parameters(model)
    check_layers(model)


def check_parameters(model: nn.Module) -> None:
    """Refuse parameters without gradients that could be squared."""
    for name, p in model.named_parameters():
        if nn.parameter.is_lazy(p):
            raise UserError(f"parameter {name!r} has no shape yet: call the model once")
        if p.requires_grad and p.is_inference():
            raise UserError(f"parameter {name!r} is of inference mode, without gradients: make the model outside of it")
        if p.requires_grad and p.dtype not in FLOAT:
            raise UserError(
                f"parameter {name!r} is {p.dtype}: the Fisher needs float32 or float64; pass a copy in float32"
            )
        if p._backward_hooks:
            raise UserError(f"parameter {name!r} has a gradient hook: remove it, it would change the Fisher")
    if not trainable(model):
        raise UserError("model: no parameter requires a gradient")


def check_layers(model: nn.Module) -> None:
    """Refuse layers of which examples have no gradient of their own, or one that is changed on its way."""
    if _global_backward_hooks or _global_backward_pre_hooks:
        raise UserError("there is a backward hook on all modules: remove it, it would change the Fisher")
    for name, module in model.named_modules():
        if module._backward_hooks or module._backward_pre_hooks:
            raise UserError(f"layer {name!r} has a backward hook: remove it, it would change the Fisher")
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
    with suppress(TypeError, ValueError, RuntimeError):
        ids = torch.as_tensor(active if isinstance(active, Tensor) else [*active], device="cpu")
        whole = not ids.is_floating_point() and not ids.is_complex() and ids.dtype != torch.bool
        if whole and ids.dim() == 1 and len(ids) and len(ids.unique()) == len(ids) and ids.min() >= 0:
            return ids.long().sort().values
    raise UserError(f"active={active}: must be different class ids, at least one")


def batches(data: Data, n: int | None, estimator: str, generator: Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """The examples that are used, in the data's batches.

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
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        raise UserError(f"data: a {type(data).__name__} has single examples; pass a DataLoader of it")
    if not isinstance(data, Iterable):
        raise UserError(f"data={data}: {PAIRS}")
    used = 0
    for batch in data:
        x, y = checked(batch)
        x, y = x[: None if n is None else n - used], y[: None if n is None else n - used]
        if len(x):
            used += len(x)
            yield x.detach(), y
        if used == n:
            return
    if not used:
        raise UserError("data: there are no examples")
    if n is not None:
        check_n(n, used)


def checked(batch: object) -> tuple[Tensor, Tensor]:
    """A pair (x, y) that is one."""
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not all(isinstance(part, Tensor) for part in batch):
        raise UserError(f"data: a batch is a {type(batch).__name__}; {PAIRS}")
    x, y = batch
    if y.dim() != 1 or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise UserError(f"data: y is {y.dtype} {list(y.shape)}; must be class ids [N], integers")
    if not x.dim() or len(x) != len(y):
        raise UserError(f"data: x is {list(x.shape)} and y {list(y.shape)}; must have one example for each label")
    # Tensors of inference mode cannot be part of a graph.
    return (x.clone() if x.is_inference() else x), y.long()


def check_n(n: int, there: int) -> None:
    """Refuse more examples than there are."""
    if n > there:
        raise UserError(f"n={n}: the data have {there} examples; n must not be larger")


def positions(y: Tensor, z: Tensor, active: Tensor | None) -> Tensor:
    """Class ids -> where they are in z [N, A]."""
    classes = torch.arange(z.shape[1], device=z.device) if active is None else active.to(z.device)
    y = y.to(z.device)
    found = torch.searchsorted(classes, y).clamp(max=len(classes) - 1)
    if (wrong := y[classes[found] != y]).numel():
        rule = f"0 to {z.shape[1] - 1}" if active is None else f"one of active={active.tolist()}"
        raise UserError(f"data: label {int(wrong[0])}: must be {rule}")
    return found


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
