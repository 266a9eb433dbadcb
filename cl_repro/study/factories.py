"""From a node of the configuration to what its factory builds."""

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pkgutil import resolve_name
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from cl_repro.common import moved
from cl_repro.common.errors import UserError
from cl_repro.common.rules import FINITE, HELD, NAME, is_int, require

# Keys of a group's node that are not arguments of its factory.
NOT_ARGUMENTS = {"_target_", "name", "protocol", "reset", "rows_per_pass", "uses_lambda"}
# What a group's node must say besides `name` and `_target_`: true or false.
FLAGS = {"benchmark": (), "scenario": (), "model": (), "optim": ("reset",), "method": ("uses_lambda",), "fisher": ()}
FACTORIES = ("cl_repro", "torch.optim")  # where what a `_target_` names is defined


def build(group: str, node: Mapping[str, Any], **given: Any) -> Any:
    """Call the factory of a group's node.

    Args:
        group: the group's name, for messages.
        node: `_target_` and the factory's arguments; `name` and the like are not passed on. An argument that is such
            a node itself is built first.
        given: arguments that only the running program knows.

    Returns:
        What the factory returns.

    Raises:
        UserError: a key that the factory does not take (the allowed ones are named), or a value it refuses.
    """
    require(f"{group}.name", node.get("name"), NAME)
    factory = find(group, node["_target_"])
    arguments = {
        key: build(f"{group}.{key}", value) if isinstance(value, Mapping) and "_target_" in value else value
        for key, value in node.items()
        if key not in NOT_ARGUMENTS
    }
    parameters = {name: p for name, p in inspect.signature(factory).parameters.items() if name not in given}
    for key in arguments:
        if key not in parameters:
            allowed = ", ".join(parameters) or "none"
            raise UserError(f"{group}.{key}: {node['name']} takes no such key; allowed: {allowed}")
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in arguments:
            raise UserError(f"{group}.{key}: {node['name']} needs this key")
    for key, value in arguments.items():
        annotation = parameters[key].annotation
        said = inspect.formatannotation(annotation).replace("collections.abc.", "")
        for rule in (FINITE, HELD, (partial(fits, annotation=annotation), f"of type {said}")):
            require(f"{group}.{key}", value, rule)
    try:
        return factory(**arguments, **given)
    except (TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{group}={node['name']}: {' '.join(str(error).split())}") from error


def find(group: str, target: Any) -> Any:
    """The factory that a node's `_target_`, which `check_targets` has seen, names.

    Raises:
        UserError: there is none, or what is found there was defined elsewhere: `cl_repro.study.provenance.os.system`
            is no factory of this package.
    """
    try:
        factory = resolve_name(moved.now(target))
    except (AttributeError, ImportError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise UserError(f"{group}._target_={target}: must be the dotted path of a factory ({text})") from error
    if not callable(factory):
        raise UserError(f"{group}._target_={target}: must be a factory, is a {type(factory).__name__}")
    defined = str(getattr(factory, "__module__", None))
    if not within(defined, FACTORIES if within(target, FACTORIES) else (*FACTORIES, re.split("[.:]", target)[0])):
        raise UserError(f"{group}._target_={target}: must be defined in {' or '.join(FACTORIES)}, is of {defined}")
    return factory


def within(path: str, packages: Collection[str]) -> bool:
    """Whether a dotted path is that of one of these packages, or of something in one."""
    return any(moved.within(path, package) for package in packages)


def check_targets(cfg: Mapping[str, Any]) -> None:
    """Refuse, before anything of it is imported, what is of other packages than this one and those that are allowed."""
    allowed = [*FACTORIES, *cfg["allow_targets"]]
    for key, target in targets({group: cfg[group] for group in FLAGS}):
        if not (isinstance(target, str) and within(target, allowed)):
            raise UserError(
                f"{key}={target}: must be the dotted path of a factory in {' or '.join(allowed)}; "
                "allow_targets=[package] on the command line allows another package"
            )


def targets(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every `_target_` in a configuration, behind its key."""
    if isinstance(value, Mapping | list):
        for name, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            at = f"{key}.{name}" if key else str(name)
            if name == "_target_":
                yield at, inner
            yield from targets(inner, at)


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value of a YAML file has an annotated type; a type that no YAML file can write says nothing."""
    if annotation in SCALARS:
        return SCALARS[annotation](value)
    if hasattr(annotation, "_fields"):  # a NamedTuple, as a node of its own builds
        return isinstance(value, annotation)
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is tuple and Ellipsis not in inner and isinstance(value, list) and len(value) != len(inner):
        return False
    if origin in (list, tuple, Sequence):
        return isinstance(value, list) and all(any(fits(v, one) for one in inner) for v in value)
    if origin in (Union, UnionType):
        said = [one for one in inner if one in SCALARS or get_origin(one)]
        return not said or any(fits(value, one) for one in said)
    return True


SCALARS: dict[Any, Callable[[Any], bool]] = {
    int: is_int,
    float: lambda value: is_int(value) or isinstance(value, float),
    bool: lambda value: isinstance(value, bool),
    str: lambda value: isinstance(value, str),
    NoneType: lambda value: value is None,
}
"""Annotated type -> whether a value of a YAML file has it."""
