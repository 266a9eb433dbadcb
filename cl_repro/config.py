"""Configuration: types of the scalars, resolvers, and the rules that refuse bad values before any training.

Nobody below the entry point reads a configuration: `build` turns each group's node into the object it describes.
"""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.utils import get_object
from omegaconf import MISSING, OmegaConf

from cl_repro.errors import UserError

PACKAGE = Path(__file__).parent
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"

# Keys of a group's node that are not arguments of its factory.
NOT_ARGUMENTS = {"_target_", "name", "protocol", "reset", "uses_lambda"}
DTYPES = ("float32", "float64")
RETRIES = ("all", "failed")


@dataclass
class Schema:
    """Types of the top-level keys; the groups' nodes are checked against their factories."""

    name: str = MISSING
    scale: str = MISSING
    suffix: str = ""
    seeds: list[int] = MISSING
    iterations: int = MISSING
    batch_size: int = MISSING
    lam: float = MISSING
    val_fraction: float | None = None
    data_dir: str = MISSING
    results_dir: str = MISSING
    device: str = MISSING
    dtype: str = MISSING
    workers: Any = MISSING
    max_replicas: Any = MISSING
    share_first_task: bool = MISSING
    retry: str = MISSING
    copy: int = MISSING
    rows_per_pass: int = MISSING
    benchmark: dict[str, Any] = field(default_factory=dict)
    scenario: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    optim: dict[str, Any] = field(default_factory=dict)
    method: dict[str, Any] = field(default_factory=dict)
    fisher: Any = None
    grid: dict[str, Any] = field(default_factory=dict)
    arms: Any = None


def register() -> None:
    """Make the schema and the resolvers known to Hydra."""
    ConfigStore.instance().store(name="schema", node=Schema)
    # ${upto:3} -> [1, 2, 3]
    OmegaConf.register_new_resolver("upto", lambda n: list(range(1, int(n) + 1)), replace=True)
    # ${label:exact,500} -> exact_500, ${label:exact,null} -> exact
    OmegaConf.register_new_resolver(
        "label", lambda *parts: "_".join(str(p) for p in parts if p is not None), replace=True
    )


def build(group: str, node: Mapping[str, Any], **given: Any) -> Any:
    """Call the factory of a group's node.

    Args:
        group: the group's name, for messages.
        node: `_target_` and the factory's arguments; `name` and the like are not passed on.
        given: arguments that only the running program knows.

    Returns:
        What the factory returns.

    Raises:
        UserError: a key that the factory does not take (the allowed ones are named), or a value it refuses.
    """
    factory = get_object(node["_target_"])
    arguments = {key: value for key, value in node.items() if key not in NOT_ARGUMENTS}
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
    try:
        return factory(**arguments, **given)
    except (TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{group}={node['name']}: {' '.join(str(error).split())}") from error


def check(cfg: Mapping[str, Any]) -> None:
    """Refuse values no run can have.

    Args:
        cfg: the resolved configuration of one arm.

    Raises:
        UserError: with the key, the value and the rule.
    """
    check_seeds(cfg["seeds"])
    for key in ("iterations", "batch_size", "rows_per_pass"):
        if cfg[key] < 1:
            raise UserError(f"{key}={cfg[key]}: must be at least 1")
    for key in ("workers", "max_replicas"):
        if cfg[key] != "auto" and not (is_int(cfg[key]) and cfg[key] >= 1):
            raise UserError(f"{key}={cfg[key]}: must be auto or an integer of at least 1")
    if cfg["dtype"] not in DTYPES:
        raise UserError(f"dtype={cfg['dtype']}: must be one of {', '.join(DTYPES)}")
    if cfg["retry"] not in RETRIES:
        raise UserError(f"retry={cfg['retry']}: must be one of {', '.join(RETRIES)}")
    if cfg["val_fraction"] is not None and not 0 < cfg["val_fraction"] < 1:
        raise UserError(f"val_fraction={cfg['val_fraction']}: must be between 0 and 1, or null for no validation rows")
    lambdas = cfg["grid"]["lambdas"]
    if not lambdas:
        raise UserError("grid.lambdas=[]: must list at least one lambda")
    for lam in lambdas:
        if isinstance(lam, bool) or not isinstance(lam, int | float) or not math.isfinite(lam) or lam < 0:
            raise UserError(f"lambda={lam}: must be a finite number of at least 0")
    if len(set(map(float, lambdas))) < len(lambdas):
        raise UserError(f"grid.lambdas={list(lambdas)}: must not repeat a value")


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse an empty list, repetitions and seeds outside NumPy's range."""
    if not seeds:
        raise UserError("seeds=[]: must list at least one seed")
    for seed in seeds:
        if not is_int(seed) or not 0 <= seed < 2**32:
            raise UserError(f"seeds={list(seeds)}: {seed} must be an integer from 0 to 2**32 - 1")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds={list(seeds)}: must not repeat a seed")


def is_int(value: Any) -> bool:
    """An integer that is no bool."""
    return isinstance(value, int) and not isinstance(value, bool)
