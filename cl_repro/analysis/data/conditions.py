"""The conditions of an arm's runs: the settings of its configuration, and those in which arms of one table differ.

Settings are those that a run depends on (`identity.SCIENCE`), by their place: `iterations`, `optim` (the choice),
`optim.lr`. An argument of a choice is compared where the choice is the same: adam's learning rate with adam's.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from cl_repro.common import moved
from cl_repro.records.identity import DESCRIPTION, SCIENCE, SWITCHES

Settings = dict[str, str]  # place -> value, as text
ROW = ("iterations", "batch_size", "dtype")  # columns of runs.csv that are settings, too
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it


def settings_of(rows: pd.DataFrame, folder: Path, names: Sequence[str]) -> list[Settings]:
    """The settings of arms, a row each, from the configurations in their folder; if one is missing, those of all rows.

    Names of arms say Fisher and size: arguments of a Fisher are compared between equal ones.
    """
    cfgs = [configuration_of(folder, config_id) for config_id in rows["config_id"]]
    if not all(cfg and "method" in cfg for cfg in cfgs):
        columns = ["method", *(key for key in ROW if key in rows)]
        return [dict(zip(columns, map(str, row), strict=True)) for row in rows[columns].itertuples(index=False)]
    found: list[Settings] = []
    for cfg, name in zip(cfgs, names, strict=True):
        known = dict.fromkeys(SWITCHES, False) | (cfg or {})  # one that is older than a switch has it off
        own = [setting for key in (*SCIENCE, *SWITCHES) for setting in flat(key, known.get(key)).items()]
        found.append(dict(own) | {"fisher": name})
    return found


def flat(place: str, value: Any) -> Settings:
    """A value of a configuration, and all that is inside it; null is not there, as in `identity.canonical`."""
    if isinstance(value, Mapping):
        found = {place: str(value["name"])} if "name" in value else {}
        for key, inner in value.items():
            found |= flat(f"{place}.{key}", inner) if key not in DESCRIPTION else {}
        return found
    if place.endswith("._target_"):
        return {place: moved.first(str(value))}
    return {} if value is None else {place: text(value)}


def text(value: Any) -> str:
    """As on the command line: 0.5, true, [100,100]; equal numbers alike."""
    if isinstance(value, list):
        return f"[{','.join(map(text, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(float(value)).removesuffix(".0") if isinstance(value, int | float) else str(value)


def differing(of: Sequence[Settings], deciding: Sequence[bool] | None = None) -> list[list[str]]:
    """For each arm the places in which settings differ, of those `deciding`: method and Fisher apart, its name."""
    found: list[list[str]] = [[] for _ in of]
    for place in dict.fromkeys(key for one in of for key in one if key not in ("method", "fisher")):
        values: dict[str, set[str | None]] = {}  # of those that made a choice
        for one, asked in zip(of, deciding or repeat(True), strict=False):
            values.setdefault(one.get(choice(place), ""), set()).update([one.get(place)] if asked else [])
        for places, one in zip(found, of, strict=True):
            if len(values[one.get(choice(place), "")]) > 1:
                places.append(place)
    return found


def choice(place: str) -> str:
    """What an argument belongs to: optim.lr to optim, method.memory.size to method.memory."""
    return place.rpartition(".")[0]


def unlike(a: Settings, b: Settings, places: Collection[str]) -> set[str]:
    """Those of `places` in which two arms differ, where both made the choice that they belong to."""
    return {p for p in places if a.get(p) != b.get(p) and a.get(choice(p)) == b.get(choice(p))}


def words(of: Settings, places: Sequence[str]) -> str:
    """E.g. gamma=0.5, iterations=50, optim.lr=0.01; an argument of the method without `method.`."""
    return ", ".join(f"{place.removeprefix('method.')}={of.get(place, 'null')}" for place in places)


def configuration_of(folder: Path, config_id: str) -> dict[str, Any] | None:
    """An arm's resolved configuration; None where it is not beside the rows, or is no such file."""
    path = folder / "configs" / f"{config_id}.yaml"
    try:
        cfg = configuration(path, path.stat().st_mtime_ns)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return cfg if isinstance(cfg, dict) else None


@lru_cache(maxsize=1024)
def configuration(path: Path, changed: int) -> Any:
    """What a file says that was last changed then: parsing one takes as long as all that is asked of it."""
    return yaml.load(path.read_bytes(), Loader=LOADER)
