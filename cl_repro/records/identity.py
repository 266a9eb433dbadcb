"""What names a run: its configuration, as far as it decides what is computed."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cl_repro.common import moved

SCHEMA_VERSION = 1  # of the results; goes up when code changes what the same configuration computes

# What a run depends on. Paths, device and the like do not belong here; lambda and seed are added per replica.
SCIENCE = (
    "benchmark",
    "scenario",
    "model",
    "optim",
    "method",
    "fisher",
    "iterations",
    "batch_size",
    "val_fraction",
    "dtype",
)
# Likewise; one that is off counts as null and is left out of the id, so that results from before it keep their names.
SWITCHES = ("tf32", "channels_last", "reinit")
# Keys inside the nodes above that change no result (rows_per_pass: only the order of a sum).
DESCRIPTION = {"name", "protocol", "rows_per_pass", "uses_lambda"}


def canonical(value: Any) -> Any:
    """Equal settings, equal text.

    1, 1.0 and 1e0 are one number; keys that only describe are left out, and so are keys that are null, so that a new
    option whose default is null renames no old result. Code that has moved has the name that it had first.
    """
    if isinstance(value, Mapping):
        kept = {k: v for k, v in sorted(value.items()) if k not in DESCRIPTION and v is not None}
        return {str(k): moved.first(str(v)) if k == "_target_" else canonical(v) for k, v in kept.items()}
    if isinstance(value, list | tuple):
        return [canonical(v) for v in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (float(value) + 0.0).hex()  # -0.0 and 0.0 are one number, too
    return value


def digest(value: Any, size: int) -> str:
    """Hexadecimal digest of 2 `size` characters of a canonical value."""
    text = json.dumps([SCHEMA_VERSION, canonical(value)], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


def science(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What a run depends on, but for lambda and seed."""
    return {key: cfg[key] for key in SCIENCE} | {key: cfg[key] or None for key in SWITCHES}


def config_id(cfg: Mapping[str, Any]) -> str:
    """Names a configuration by what its runs depend on, but for lambda and seed."""
    return digest(science(cfg), 4)
