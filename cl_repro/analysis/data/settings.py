"""The numbers of the analysis, of conf/analysis.yaml and of one study. Read with OmegaConf alone, without torch."""

import math
import os
from collections.abc import Callable
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cl_repro.common.errors import UserError

PACKAGE = Path(__file__).resolve().parents[2]
COMPARISON = "comparison"


class Settings(NamedTuple):
    """The numbers of the analysis for one study."""

    confidence: float  # two-sided
    delta_points: dict[str, float]  # by method
    width_points: float
    trace_jump: float  # times the first task's trace
    resamples: int
    seed: int  # of the bootstrap
    wilcoxon_from: int  # seeds
    bootstrap_from: int  # seeds
    gaps: tuple[tuple[str, str], ...]  # (minuend, subtrahend), fishers
    verdict_scales: tuple[str, ...]
    estimated_minutes: dict[str, float]  # by device, of the study at the paper's scale; empty: not known
    published_study: str
    pairs: tuple[tuple[str, str], ...]  # (minuend, subtrahend), labels of arms; empty: all pairs
    chosen_on: tuple[int, ...]  # seeds that choose lambda in a comparison, and are not reported
    kind: str | None  # comparison: methods side by side, by what they cost; None: what the runs allow
    note: str | None  # said beside verdicts; None: nothing
    title: str | None  # of the study in the report; None: what kind it is of


# The keys of those fields that are called otherwise.
NESTED = {
    "resamples": "bootstrap.resamples",
    "seed": "bootstrap.seed",
    "wilcoxon_from": "at_least.wilcoxon",
    "bootstrap_from": "at_least.bootstrap",
}
KEYS = tuple(dict.fromkeys(NESTED.get(field, field).partition(".")[0] for field in Settings._fields))
# Of a field whether it may have a value, and in words which.
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "confidence": (lambda value: 0 < value < 1, "between 0 and 1"),
    "delta_points": (lambda value: all(points > 0 for points in value.values()), "positive"),
    "estimated_minutes": (lambda value: all(0 < minutes < math.inf for minutes in value.values()), "positive"),
    "width_points": (lambda value: value > 0, "positive"),
    "trace_jump": (lambda value: value > 1, "above 1"),
    "resamples": (lambda value: value >= 1, "at least 1"),
    "seed": (lambda value: value >= 0, "at least 0"),
    "kind": (lambda value: value in (None, COMPARISON), f"null or {COMPARISON}"),
    "wilcoxon_from": (lambda value: value >= 2, "at least 2"),
    "bootstrap_from": (lambda value: value >= 2, "at least 2"),
}


def conf_dir() -> Path:
    """The configuration tree: inside the package in a wheel, beside it in a checkout."""
    inside = PACKAGE / "conf"
    return inside if inside.is_dir() else PACKAGE.parent / "conf"


def load(study: str, conf: Path | None = None) -> Settings:
    """The settings of a study: those of conf/analysis.yaml, but for what the study's own file says under `analysis`.

    `study` is as in the column of runs.csv; its file is conf/study/<study>.yaml, if there is one. `conf` is the folder
    of the configuration; None: the package's.

    Raises:
        UserError: a file is missing or unreadable, a key is missing or unknown, or a value is outside its range.
    """
    conf = conf or conf_dir()
    path = conf / "analysis.yaml"
    if not path.is_file():
        raise UserError(f"no analysis settings at {path}: restore conf/analysis.yaml")
    return _settings(study, tuple((one, _content(one)) for one in (path, *_files(study, conf))))


def _files(study: str, conf: Path) -> list[Path]:
    """The file of a study, behind those that it begins with, as Hydra reads them; none if conf/ has no such study."""
    path = conf / "study" / f"{study}.yaml"
    if not os.path.isfile(path):  # which is false of a text that can name no file, too
        return []
    defaults = _tree(path, _content(path)).get("defaults") or []
    bases = [one for one in defaults if isinstance(one, str) and one != "_self_"]
    return [*(file for base in bases for file in _files(base, conf)), path]


@cache
def _settings(study: str, files: tuple[tuple[Path, str], ...]) -> Settings:
    """`load` of these contents, once: a ledger asks for the same studies many times."""
    place = " or ".join(str(path) for path, _ in files)
    general, *own = (_tree(path, content) for path, content in files)
    own = [tree.get("analysis") or {} for tree in own]
    try:
        _refuse("missing", [key for key in KEYS if key not in general], place)
        _refuse("unknown", [key for key in general if key not in KEYS], place)
        _refuse("unknown", [f"analysis.{key}" for one in own for key in one if key not in KEYS], place)
        merged: Any = OmegaConf.to_container(OmegaConf.merge(general, *own), resolve=True)
        return _checked(merged, study, place)
    except UserError:
        raise
    except (OmegaConfBaseException, AttributeError, TypeError, ValueError, KeyError) as error:
        raise UserError(f"{place}: {str(error).splitlines()[0]}") from error


def of_file(study: str) -> dict[str, Any]:
    """What the package's file of a study says under `analysis`; {} if there is no such file, or it says nothing."""
    own = (_tree(path, _content(path)).get("analysis") or {} for path in _files(study, conf_dir()))
    merged: Any = OmegaConf.to_container(OmegaConf.merge({}, *own), resolve=True)
    return merged


def companions() -> dict[str, str]:
    """Studies that belong beside the published numbers of another, and which, e.g. a timing."""
    names = sorted(path.stem for path in (conf_dir() / "study").glob("*.yaml"))
    return {name: beside for name in names if (beside := load(name).published_study) != name}


def says_what_it_compares(study: str) -> bool:
    """Whether a study lists its pairs, or its kind: then it is meant that its arms differ."""
    own = load(study)
    return bool(own.pairs or own.kind)


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from error


@cache
def _tree(path: Path, content: str) -> dict[str, Any]:
    try:
        tree: Any = OmegaConf.to_container(OmegaConf.load(StringIO(content)))
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path}: must hold keys with values, holds a {type(tree).__name__}")
    return tree


def _refuse(problem: str, keys: list[str], place: str) -> None:
    if keys:
        raise UserError(f"{place}: {problem} key {keys[0]!r} (keys: {', '.join(KEYS)})")


def _checked(tree: dict[str, Any], study: str, place: str) -> Settings:
    settings = Settings(
        confidence=float(tree["confidence"]),
        delta_points={str(method): float(points) for method, points in tree["delta_points"].items()},
        width_points=float(tree["width_points"]),
        trace_jump=float(tree["trace_jump"]),
        resamples=int(tree["bootstrap"]["resamples"]),
        seed=int(tree["bootstrap"]["seed"]),
        wilcoxon_from=int(tree["at_least"]["wilcoxon"]),
        bootstrap_from=int(tree["at_least"]["bootstrap"]),
        gaps=tuple((str(minuend), str(subtrahend)) for minuend, subtrahend in tree["gaps"]),
        verdict_scales=tuple(str(scale) for scale in tree["verdict_scales"]),
        estimated_minutes={
            str(device): float(minutes) for device, minutes in (tree["estimated_minutes"] or {}).items()
        },
        published_study=str(tree["published_study"] or study),
        pairs=tuple((str(minuend), str(subtrahend)) for minuend, subtrahend in tree["pairs"]),
        chosen_on=tuple(int(seed) for seed in tree["chosen_on"]),
        kind=tree["kind"],
        note=tree["note"],
        title=tree["title"],
    )
    for field, (holds, rule) in RULES.items():
        if not holds(value := getattr(settings, field)):
            raise UserError(f"{place}: {NESTED.get(field, field)} = {value} must be {rule}")
    return settings
