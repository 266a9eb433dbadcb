"""A user's model while it is measured: evaluated, with other parameters, one example at a time; then as it was."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from cl_repro.common.runtime import tf32
from cl_repro.importance.library.rules import own
from cl_repro.types import Tree

NO_RULE = "not yet implemented the batching rule"  # what torch warns of when it takes examples apart under vmap


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """Meanwhile the model is in eval mode and autograd on; afterwards its state and torch's random numbers are back."""
    devices = {p.device for p in model.parameters()}
    cuda = [device.index for device in devices if device.type == "cuda"]
    was, fast, cudnn = model.training, torch.backends.mha.get_fastpath_enabled(), torch.backends.cudnn.enabled
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
            if any(isinstance(module, nn.RNNBase) for module in model.modules()):
                torch.backends.cudnn.enabled = False  # its recurrent layers have no backward pass in eval mode
            with torch.autocast(next(iter(devices)).type, enabled=False):
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            torch.backends.cudnn.enabled = cudnn
            model.train(was)


@contextmanager
def values_kept(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Afterwards the tensors have the values, gradients and flags they had before; what is as it was is not touched."""
    before = [(t, version(t), t.detach().clone(), t.requires_grad, t.grad) for t in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for t, known, value, flag, grad in before:
                if version(t) != known or not torch.equal(t, value):  # through .data: without a new version
                    with torch.inference_mode(t.is_inference()), torch.no_grad():
                        t.copy_(value)
                if t.requires_grad != flag:
                    t.requires_grad_(flag)
                t.grad = grad


def version(t: Tensor) -> int | None:
    """How often a tensor was changed in place; tensors of inference mode do not count it."""
    return None if t.is_inference() else t._version


@contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """Afterwards the modules have the attributes, parameters, buffers and hooks they had before: the same objects.

    Of attributes that are lists, dictionaries or sets, the items too; what a module keeps elsewhere is not known here.
    """
    before = {module: dict(vars(module)) for module in model.modules()}
    containers = [
        (value, value.copy())
        for attributes in before.values()
        for value in attributes.values()
        if isinstance(value, list | dict | set)
    ]
    try:
        yield
    finally:
        for module, attributes in before.items():
            vars(module).clear()
            vars(module).update(attributes)
        for value, items in containers:
            value.clear()
            value.extend(items) if isinstance(value, list) else value.update(items)


def with_parameters(model: nn.Module, params: Tree, x: Tensor) -> Tensor:
    """model(x) with these parameters, by name, in the place of its own, wherever a module has them.

    `torch.func.functional_call` loses the parameters of a module that is registered under two names.

    Raises:
        TypeError: if a module is TorchScript's, whose parameters are not Python's to put in place.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise TypeError("a module of TorchScript")
    new = {id(p): params[name] for name, p in model.named_parameters() if name in params}
    with attributes_kept(model):
        for module in model.modules():
            for key, p in own(module).items():
                module._parameters[key] = new.get(id(p), p)  # type: ignore[assignment]  # a tensor will do
        return model(x)


def one_by_one(model: nn.Module, params: Tree, x: Tensor) -> Tensor:
    """The outputs [N, C] for x, each example alone and with its own of the parameters [N, *shape], by `torch.vmap`."""
    with sdpa_kernel(SDPBackend.MATH):  # the others have no batching rule
        return torch.vmap(lambda p, example: with_parameters(model, p, example[None])[0])(params, x.clone())
