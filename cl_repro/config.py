"""Configuration: types of the scalars, resolvers, and the rules that refuse bad values before any training.

Nobody below the entry point reads a configuration: `build` turns each group's node into the object it describes.
"""

import inspect
import math
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from pkgutil import resolve_name
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from cl_repro import moved
from cl_repro.errors import UserError
from cl_repro.records.csvs import UNWRITABLE

PACKAGE = Path(__file__).parent
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"

# Keys of a group's node that are not arguments of its factory.
NOT_ARGUMENTS = {"_target_", "name", "protocol", "reset", "rows_per_pass", "uses_lambda"}
# What a group's node must say besides `name` and `_target_`: true or false.
FLAGS = {"benchmark": (), "scenario": (), "model": (), "optim": ("reset",), "method": ("uses_lambda",), "fisher": ()}
OUTPUTS = {"bench", "figures", "ledger.csv", "ledger.md", "multirun", "published", "report", "tables"}
FACTORIES = ("cl_repro", "torch.optim")  # where what a `_target_` names is defined
LARGEST = {"float32": 3.4028234663852886e38, "float64": sys.float_info.max}  # beyond it a lambda is infinite
DTYPES = tuple(LARGEST)
RETRIES = ("all", "failed")
SAVES = ("weights", "weights_of_tasks")
MOST_DECADES = 300  # on either side of a lambda: more are none or infinitely many in any type of number
MOST_STEPS = 10**7  # the mini-batches of a task are drawn at once, before its training


@dataclass
class Schema:
    """Types of the top-level keys; the groups' nodes are checked against their factories."""

    name: str = MISSING
    scale: str = MISSING
    suffix: str = ""
    seeds: list[int] = MISSING
    iterations: Any = MISSING
    label: str | None = None
    reinit: bool = MISSING
    batch_size: int = MISSING
    lam: float = MISSING
    val_fraction: float | None = None
    data_dir: str = MISSING
    results_dir: str = MISSING
    device: str = MISSING
    dtype: str = MISSING
    tf32: bool = MISSING
    channels_last: bool = MISSING
    cuda_graph: bool = MISSING
    deterministic: bool = MISSING
    workers: Any = MISSING
    max_replicas: Any = MISSING
    share_first_task: bool = MISSING
    retry: str = MISSING
    time_budget: float | None = None
    save: str | None = None
    checkpoint_every: float = 300.0
    copy: int = MISSING
    rows_per_pass: Any = MISSING
    benchmark: dict[str, Any] = field(default_factory=dict)
    scenario: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    optim: dict[str, Any] = field(default_factory=dict)
    method: dict[str, Any] = field(default_factory=dict)
    fisher: Any = None
    grid: dict[str, Any] = field(default_factory=dict)
    arms: Any = None
    analysis: dict[str, Any] = field(default_factory=dict)
    allow_targets: list[str] = field(default_factory=list)


def register() -> None:
    """Make the schema and the resolvers known to Hydra."""
    ConfigStore.instance().store(name="schema", node=Schema)
    # ${upto:3} -> [1, 2, 3]
    OmegaConf.register_new_resolver("upto", lambda n: list(range(1, int(n) + 1)), replace=True)
    # ${decades:3,1} -> [0.3, 3.0, 30.0]; of what is no number, the rule that refuses it tells
    OmegaConf.register_new_resolver(
        "decades",
        lambda centre, n: (
            [float(f"{centre * 10.0**i:.12g}") for i in range(-n, n + 1)]
            if is_number(centre) and is_int(n) and n <= MOST_DECADES
            else [centre]
        ),
        replace=True,
    )
    # ${label:exact,500} -> exact_500, ${label:exact,null} -> exact
    OmegaConf.register_new_resolver(
        "label", lambda *parts: "_".join(str(p) for p in parts if p is not None), replace=True
    )
    OmegaConf.register_new_resolver("meanings", meanings, replace=True)


def meanings() -> str:
    """What each group and key means, a line each, for `--help`: the comments of the files that have them."""
    texts = [(CONF / name).read_text(encoding="utf-8") for name in ("config.yaml", "scale/cpu.yaml")]
    found = re.findall(r"^(?:  - )?(\w+): \S.*?\s# (.*)$", "\n".join(texts), re.MULTILINE)
    return "\n".join(f"  {key:<16}  {meaning}" for key, meaning in found)


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
    if not is_name(node.get("name")):
        raise UserError(f"{group}.name={node.get('name')}: must be text of at least one character")
    factory = find(group, node["_target_"])
    arguments = {
        key: build(f"{group}.{key}", value) if isinstance(value, Mapping) and "_target_" in value else value
        for key, value in node.items()
        if key not in NOT_ARGUMENTS
    }
    allowed = [p for p in inspect.signature(factory).parameters if p not in given]
    for key in arguments:
        if key not in allowed:
            raise UserError(f"{group}.{key}: {node['name']} takes no such key; allowed: {', '.join(allowed) or 'none'}")
    missing = [
        p.name
        for p in inspect.signature(factory).parameters.values()
        if p.default is p.empty and p.name in allowed and p.name not in arguments
    ]
    if missing:
        raise UserError(f"{group}.{missing[0]}: {node['name']} needs this key")
    for key, value in arguments.items():
        if not is_finite(value):
            raise UserError(f"{group}.{key}={value}: must be a finite number")
        if not is_held(value):
            raise UserError(f"{group}.{key}={value}: must be an integer of 64 bits")
        annotation = inspect.signature(factory).parameters[key].annotation
        if not fits(value, annotation):
            rule = inspect.formatannotation(annotation).replace("collections.abc.", "")
            raise UserError(f"{group}.{key}={value}: must be of type {rule}")
    try:
        return factory(**arguments, **given)
    except (TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{group}={node['name']}: {' '.join(str(error).split())}") from error


def find(group: str, target: Any) -> Any:
    """The factory that a node's `_target_`, which `check_targets` has seen, names.

    Raises:
        UserError: there is none, or what is found there was defined elsewhere: `cl_repro.provenance.os.system` is no
            factory of this package.
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


def check(cfg: Mapping[str, Any]) -> None:
    """Refuse values no run can have.

    Args:
        cfg: the resolved configuration of one arm.

    Raises:
        UserError: with the key, the value and the rule.
    """
    names = [one.name for one in fields(Schema)]
    for key in sorted({*cfg} ^ {*names}):
        rule = f"unknown key; allowed: {', '.join(sorted(names))}" if key in cfg else "missing; every run has it"
        raise UserError(f"{key}: {rule}")
    check_characters(cfg)
    check_nodes(cfg)
    check_targets(cfg)
    check_folder(cfg)
    check_seeds(cfg["seeds"])
    check_counts(cfg)
    for key in ("workers", "max_replicas", "rows_per_pass"):
        if cfg[key] != "auto" and not is_count(cfg[key]):
            raise UserError(f"{key}={cfg[key]}: must be auto or an integer from 1 to {MOST_STEPS}")
    suggested = (
        cfg["model"].get("rows_per_pass") if cfg["rows_per_pass"] == "auto" else dict.fromkeys(("cpu", "cuda"), 1)
    )
    if not isinstance(suggested, Mapping) or not all(is_count(suggested.get(kind)) for kind in ("cpu", "cuda")):
        raise UserError(
            f"model.rows_per_pass={suggested}: must be {{cpu: N, cuda: N}}, integers from 1 to {MOST_STEPS}"
        )
    if cfg["dtype"] not in DTYPES:
        raise UserError(f"dtype={cfg['dtype']}: must be one of {', '.join(DTYPES)}")
    if cfg["retry"] not in RETRIES:
        raise UserError(f"retry={cfg['retry']}: must be one of {', '.join(RETRIES)}")
    if cfg["save"] is not None and cfg["save"] not in SAVES:
        raise UserError(f"save={cfg['save']}: must be one of {', '.join(SAVES)}, or null for no weights")
    if not (is_number(cfg["checkpoint_every"]) and cfg["checkpoint_every"] > 0):
        raise UserError(f"checkpoint_every={cfg['checkpoint_every']}: must be a number of seconds above 0")
    if cfg["time_budget"] is not None and not (is_number(cfg["time_budget"]) and cfg["time_budget"] > 0):
        raise UserError(f"time_budget={cfg['time_budget']}: must be a number of seconds above 0, or null for no end")
    if cfg["val_fraction"] is not None and not 0 < cfg["val_fraction"] < 1:
        raise UserError(f"val_fraction={cfg['val_fraction']}: must be between 0 and 1, or null for no validation rows")
    check_grid(cfg["grid"])
    check_largest(cfg)


def check_characters(value: Any, key: str = "") -> None:
    """Refuse text, of whatever setting, that no table, terminal or file name can hold."""
    if isinstance(value, str) and UNWRITABLE.search(value):
        raise UserError(f"{key}={value!r}: must have no control characters")
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for name, one in inner:
        check_characters(one, f"{key}.{name}".lstrip("."))


def check_largest(cfg: Mapping[str, Any]) -> None:
    """Refuse lambdas that would be infinite, wherever they come from."""
    largest = LARGEST[cfg["dtype"]]
    for lam in cfg["grid"]["lambdas"] or ():
        if lam > largest:
            raise UserError(f"lambda={lam}: must be at most {largest:.3g}, the largest {cfg['dtype']}")


def check_counts(cfg: Mapping[str, Any]) -> None:
    """Refuse a batch of no examples, and tasks of no iterations or of too many."""
    n_tasks, length = cfg["benchmark"].get("n_tasks"), cfg["iterations"]
    epochs = isinstance(length, Mapping)
    if epochs and set(length) != {"epochs"}:
        raise UserError(f"iterations={length}: must be a number, a list of them, or {{epochs: a number or a list}}")
    key, given, least = ("iterations.epochs", length["epochs"], 0) if epochs else ("iterations", length, 1)
    for name, values, first in (("batch_size", [cfg["batch_size"]], 1), (key, per_task(given, 1), least)):
        for value in values:
            if not (is_int(value) and first <= value <= MOST_STEPS):
                rule = "" if name == "batch_size" else ", or a list of one for each task"
                whole = cfg["batch_size"] if name == "batch_size" else given
                raise UserError(f"{name}={whole}: must be an integer from {first} to {MOST_STEPS}{rule}")
    if isinstance(given, list) and len(given) != n_tasks:
        rule = f"must be one number, or one for each of the benchmark.n_tasks={n_tasks} tasks"
        raise UserError(f"{key}={given}: {rule}")
    if not any(per_task(given, 1)):
        raise UserError(f"{key}={given}: must train at least one task")


def per_task(given: int | list[int], n_tasks: int) -> list[int]:
    """Iterations, or epochs, of each task; one number is for all."""
    return given if isinstance(given, list) else [given] * n_tasks


def check_nodes(cfg: Mapping[str, Any]) -> None:
    """Refuse a group's file without what the program asks of every file of that group."""
    for group, flags in FLAGS.items():
        node = cfg[group]
        if node is None and group == "fisher":
            continue
        for key in ("name", "_target_", *flags):
            if not isinstance(node, Mapping) or key not in node:
                raise UserError(f"{group}.{key}: missing; every file under {group}/ has it")
            if key in flags and not isinstance(node[key], bool):
                raise UserError(f"{group}.{key}={node[key]}: must be true or false")
            if key not in flags and not is_name(node[key]):
                raise UserError(f"{group}.{key}={node[key]}: must be text of at least one character")


def check_folder(cfg: Mapping[str, Any]) -> None:
    """Refuse a name that is no name of a folder, and results without a place."""
    for key, whole in (("name", cfg["name"]), ("suffix", f"_{cfg['suffix']}")):
        if not re.fullmatch(r"\w[\w.-]*", whole):
            raise UserError(
                f"{key}={cfg[key]}: names a folder under results_dir, so it must be of letters, digits, _, - and ."
            )
    whole = cfg["name"] + cfg["suffix"]
    if whole.lower() in OUTPUTS:
        raise UserError(f"name={whole}: must be none of {', '.join(sorted(OUTPUTS))}, which results_dir has of its own")
    if not cfg["results_dir"]:
        raise UserError("results_dir=: must name a folder")


def check_grid(grid: Mapping[str, Any]) -> None:
    """Refuse lambdas no run can have, and windows without a place or a width."""
    for key in grid:
        if key not in ("lambdas", "window", "centre", "each_side"):
            raise UserError(f"grid.{key}: unknown key; allowed: lambdas, window, centre, each_side")
    each_side, centre = grid.get("each_side", 0), grid.get("centre", 1.0)
    if not is_int(each_side) or not 0 <= each_side <= MOST_DECADES:
        raise UserError(f"grid.each_side={each_side}: must be an integer from 0 to {MOST_DECADES}, in decades")
    if not is_number(centre) or centre <= 0:
        raise UserError(f"grid.centre={centre}: must be a finite number above 0")
    lambdas, window = grid.get("lambdas"), grid.get("window")
    if window is not None:
        check_window(window)
        if lambdas is None:
            return
    if not lambdas or not isinstance(lambdas, list):
        raise UserError(f"grid.lambdas={lambdas}: must list at least one lambda")
    for lam in lambdas:
        if not is_number(lam) or lam < 0:
            raise UserError(f"lambda={lam}: must be a finite number of at least 0")
    if len(set(map(float, lambdas))) < len(lambdas):
        raise UserError(f"grid.lambdas={list(lambdas)}: must not repeat a value")


def check_window(window: Any) -> None:
    """Refuse a window without a place or a width."""
    if not isinstance(window, Mapping) or set(window) != {"product", "decades"}:
        raise UserError(f"grid.window={window}: must have the keys product and decades")
    if not is_number(window["product"]) or window["product"] <= 0:
        raise UserError(f"grid.window.product={window['product']}: must be a finite number above 0")
    if not is_int(window["decades"]) or not 1 <= window["decades"] <= MOST_DECADES:
        raise UserError(f"grid.window.decades={window['decades']}: must be an integer from 1 to {MOST_DECADES}")


def check_one_lambda(cfg: Mapping[str, Any]) -> None:
    """Refuse a grid, for programs that train at one lambda, `lam`."""
    if cfg["grid"]["lambdas"] != [cfg["lam"]]:
        raise UserError("grid: this program takes one lambda, lam; choose grid=one")


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse an empty list, repetitions and seeds outside NumPy's range."""
    if not seeds:
        raise UserError("seeds=[]: must list at least one seed")
    for seed in seeds:
        if not is_int(seed) or not 0 <= seed < 2**32:
            raise UserError(f"seeds={list(seeds)}: {seed} must be an integer from 0 to 2**32 - 1")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds={list(seeds)}: must not repeat a seed")


def is_name(value: Any) -> bool:
    """Text of at least one character."""
    return isinstance(value, str) and bool(value)


def is_count(value: Any) -> bool:
    """An integer from 1 to `MOST_STEPS`."""
    return is_int(value) and 1 <= value <= MOST_STEPS


def is_held(value: Any) -> bool:
    """Whether torch can hold every integer in a value."""
    if isinstance(value, list):
        return all(map(is_held, value))
    return not is_int(value) or -(2**63) <= value < 2**63


def is_number(value: Any) -> bool:
    """A finite number that is no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_finite(value: Any) -> bool:
    """Whether a value has no infinite number, and none that is not a number, in it."""
    if isinstance(value, list):
        return all(map(is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def is_int(value: Any) -> bool:
    """An integer that is no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


SCALARS: dict[Any, Callable[[Any], bool]] = {
    int: is_int,
    float: lambda value: is_int(value) or isinstance(value, float),
    bool: lambda value: isinstance(value, bool),
    str: lambda value: isinstance(value, str),
    NoneType: lambda value: value is None,
}
"""Annotated type -> whether a value of a YAML file has it."""
