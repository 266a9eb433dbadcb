"""What an arm is called and how it is drawn, and a study's runs as arrays.

Names are the blog's (finetune is "None"). Colours are recognisable from its figure (exact black, exact with n
samples grey, sample red, empirical orange, batched blue, None green), in shades that stay apart for colour-blind
readers and in grey; marker and dash pattern repeat the distinction.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cl_repro.analysis.data.conditions import configuration_of, differing, settings_of, unlike, words
from cl_repro.analysis.data.looks import COMPAT, LIBRARIES, LOOKS, METHODS, ONE_SAMPLE, OTHERS, Look, kind_of, parts
from cl_repro.analysis.data.settings import says_what_it_compares
from cl_repro.analysis.lambdas.shape import best, complete, seed_mean
from cl_repro.common.stats import Array

IN_WORDS = {"ewc_offline": "EWC offline", "ewc_guide": "EWC of guides"}  # methods with a Fisher, beside its name


class NamedArm(NamedTuple):
    """An arm as figures and tables name it: the runs of one configuration, over lambdas and seeds."""

    config_id: str
    method: str
    fisher: str
    label: str
    settings: tuple[tuple[str, str], ...] = ()  # (place, value), those in which arms of its table differ

    def unlike(self, other: "NamedArm") -> set[str]:
        """The settings in which the two differ besides method and Fisher, of those that arms of the table differ in."""
        mine, theirs = dict(self.settings), dict(other.settings)
        return unlike(mine, theirs, mine.keys() | theirs.keys()) - {"method", "fisher"}

    def compares(self, other: "NamedArm") -> bool:
        """Whether the two differ in one thing only: in method and Fisher, or in one setting."""
        same = (self.method, self.fisher) == (other.method, other.fisher)
        return len(self.unlike(other)) <= (1 if same else 0)


class Grid(NamedTuple):
    """A study's accuracies, percent. A arms with a lambda, S seeds, L lambdas, 0 among them; NaN if missing or lost.

    Of an arm that is not finished, the largest part in which every seed has every lambda (`finished`).
    """

    arms: tuple[NamedArm, ...]
    seeds: Array  # [S]
    lams: Array  # [L], ascending
    accuracy: Array  # [A, S, L]
    lost: Array  # [A, L], how many seeds diverged or failed
    left_out: Array  # [A, L], how many runs are outside of what is finished
    flat: tuple[tuple[NamedArm, Array], ...]  # methods without lambda: [S]
    window: bool = False  # whether the arms' lambdas are windows of their own, not one grid for all

    @property
    def window_note(self) -> str:
        """That the lambdas are a window, in words; empty if they are not."""
        if not self.window:
            return ""
        sizes = sorted({int(np.isfinite(arm).any(axis=0).sum()) for arm in self.accuracy})
        size = f"{sizes[0]}" + (f" to {sizes[-1]}" if len(sizes) > 1 else "")
        return f"λ: a window of {size} values per arm, placed by the trace of its Fisher"

    @property
    def penalised(self) -> "Grid":
        """The same without lambda = 0, which has no place on a logarithmic axis."""
        kept = self.lams > 0
        accuracy, lost, left_out = (of[..., kept] for of in (self.accuracy, self.lost, self.left_out))
        return self._replace(lams=self.lams[kept], accuracy=accuracy, lost=lost, left_out=left_out)

    @property
    def none(self) -> Array:
        """Accuracy of None, [S]; NaN where the study has no such arm."""
        values = [row for arm, row in self.flat if arm.method == "finetune"]
        return values[0] if values else np.full(self.seeds.size, np.nan)

    @property
    def floors(self) -> Array:
        """Accuracy of the None that each arm with a lambda can be compared with, [A, S]; NaN where there is none."""
        none = [(arm, row) for arm, row in self.flat if arm.method == "finetune"]
        absent = np.full(self.seeds.size, np.nan)
        rows = [next((row for other, row in none if arm.compares(other)), absent) for arm in self.arms]
        return np.array(rows).reshape(len(self.arms), self.seeds.size)

    def best(self) -> list[int | None]:
        """Per arm the index of the lambda of the highest seed mean, among those with all of the arm's seeds."""
        return [int(i) if i >= 0 else None for i in best(seed_mean(complete(self.accuracy)))]


def label(method: str, fisher: str, unit: int | None = None) -> str:
    """The arm's name in figures and tables; `unit`: examples per gradient of a batched Fisher, if known.

    E.g. None, JOINT, EXACT, EXACT BY SCORE (n=500), BATCHED (b=128); of another library's Fisher the library.
    """
    if not fisher:
        return "None" if method == "finetune" else method.upper().replace("_", " ")
    if fisher.startswith(COMPAT) and (known := LIBRARIES.get(fisher.removeprefix(COMPAT))):
        return known[0]
    estimator, n = parts(fisher)
    detail = [f"n={n}"] if n else []
    detail += [f"b={unit}"] if unit else []
    detail += [] if method == "ewc" else [IN_WORDS.get(method, method)]
    detail += ["one sample at a time"] if fisher.startswith(ONE_SAMPLE) else []
    return estimator.removeprefix(COMPAT).upper().replace("_", " ") + (f" ({', '.join(detail)})" if detail else "")


def variant(called: str, method: str, fisher: str) -> str:
    """What a study calls an arm (`label=`) beside its method and Fisher, e.g. sgd of finetune-sgd; else empty."""
    own = called.removeprefix(method).lstrip("-")
    return "" if own == fisher else own


def look(arm: NamedArm, position: int) -> Look:
    """How an arm is drawn; `position` picks among the looks of arms without one of their own."""
    if known := LIBRARIES.get(arm.fisher.removeprefix(COMPAT)):
        return known[1]
    own = LOOKS.get(kind_of(arm.fisher) if arm.fisher else arm.method) or METHODS.get(arm.method)
    return own or OTHERS[position % len(OTHERS)]


def looks_of(grid: Grid) -> list[Look]:
    """Of all arms, those without lambda first: their own, or a spare one where an arm before has the same."""
    flat = [arm for arm, _ in grid.flat]
    own = [look(arm, position) for arms in (flat, grid.arms) for position, arm in enumerate(arms)]
    spares = (*OTHERS, *(other._replace(filled=False) for other in OTHERS))
    found: list[Look] = []
    for i, style in enumerate(own):
        spare = (other if i >= len(flat) else other._replace(marker="") for other in spares)
        found.append(next((other for other in spare if other not in found), style) if style in found else style)
    return found


def arms_of(runs: pd.DataFrame, folder: Path) -> tuple[NamedArm, ...]:
    """The arms of some runs in the order of figures and tables: None, joint, then the estimators as in `LOOKS`.

    One per config_id; their configurations may be in configs/ of the folder. Where two would share a name, what their
    study calls them (`label=`) is appended. So are the settings in which they differ: those that share a name even so,
    and all whose study does not itself say what it compares (`analysis` in its file), but for arms that it names.
    """
    rows, order = runs.drop_duplicates("config_id"), list(LOOKS)
    arms = unnamed(rows, folder)
    shared = Counter(arm.label for arm in arms)
    details = [
        variant(called, arm.method, arm.fisher) if shared[arm.label] > 1 else ""
        for arm, called in zip(arms, rows["arm"], strict=True)
    ]

    def rank(arm: NamedArm) -> tuple:
        key = kind_of(arm.fisher) if arm.fisher else arm.method
        parts = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", arm.label)]  # 5 before 10
        return (order.index(key) if key in order else len(order), arm.method, arm.fisher, parts, arm.config_id)

    return tuple(sorted(named(arms, details, rows, folder), key=rank))


def unnamed(rows: pd.DataFrame, folder: Path) -> list[NamedArm]:
    """One arm for each row, with the name of its method and Fisher alone."""
    return [
        NamedArm(i, m, f, label(m, f, setting(folder, i, "fisher.batch_size") if kind_of(f) == "batched" else None))
        for i, m, f in zip(rows["config_id"], rows["method"], rows["fisher"], strict=True)
    ]


def settings_in_words(runs: pd.DataFrame, folder: Path) -> dict[str, str]:
    """The settings in which configurations differ, by config_id: all of them, whatever the names of their arms say."""
    rows = runs.drop_duplicates("config_id")
    of = settings_of(rows, folder, [arm.label for arm in unnamed(rows, folder)])
    return {i: words(own, places) for i, own, places in zip(rows["config_id"], of, differing(of), strict=True)}


def named(arms: Sequence[NamedArm], details: list[str], rows: pd.DataFrame, folder: Path) -> list[NamedArm]:
    """Arms, of a row each, with their settings and names that tell them apart; `details` are appended in any case."""
    names = [full(arm.label, [detail]) for arm, detail in zip(arms, details, strict=True)]
    count = Counter(names)
    groups = [[i for i, name in enumerate(names) if name == one] for one, n in count.items() if n > 1]
    if len(arms) > 1 and not ("study" in rows and says_what_it_compares(str(rows["study"].iloc[0]))):
        groups.append([*range(len(arms))])
    if not groups:
        return [arm._replace(label=name) for arm, name in zip(arms, names, strict=True)]
    of = settings_of(rows, folder, [arm.label for arm in arms])
    places: list[list[str]] = [[] for _ in arms]
    for group in groups:
        asked = [not details[i] or count[names[i]] > 1 for i in group]
        for i, found in zip(group, differing([of[i] for i in group], asked), strict=True):
            places[i] += [place for place in found if place not in places[i]]
    every = {place for found in places for place in found}
    kept = every | {place.rpartition(".")[0] for place in every} | {"method", "fisher"}
    result = []
    for arm, detail, settings, found in zip(arms, details, of, places, strict=True):
        own = tuple((place, value) for place, value in settings.items() if place in kept)
        result.append(arm._replace(label=full(arm.label, [detail, words(settings, found)]), settings=own))
    shared = Counter(arm.label for arm in result)  # only where no configuration is there to tell them apart
    unknown = ([f"unknown settings {arm.config_id}"] if shared[arm.label] > 1 else [] for arm in result)
    return [arm._replace(label=full(arm.label, detail)) for arm, detail in zip(result, unknown, strict=True)]


def full(name: str, details: Sequence[str]) -> str:
    """A name with what is appended to it, if anything is."""
    said = ", ".join(detail for detail in details if detail)
    return f"{name} [{said}]" if said else name


def grid_of(runs: pd.DataFrame, folder: Path) -> Grid:
    """Arrange the runs of one benchmark, scenario and model, each once, by arm (as in `arms_of`), seed and lambda."""
    seeds, lams = np.unique(runs["seed"]), np.unique(runs["lambda"].dropna())
    runs = runs.assign(accuracy=100 * runs["accuracy"].where(runs["status"] == "ok"))
    curved, flat, accuracy, lost, left_out = [], [], [], [], []
    for arm in arms_of(runs, folder):
        own = runs[runs["config_id"] == arm.config_id]
        if own["lambda"].isna().all():
            flat.append((arm, own.set_index("seed")["accuracy"].reindex(seeds).to_numpy()))
            continue
        ids, values = (
            own.pivot(index="seed", columns="lambda", values=of).reindex(index=seeds, columns=lams)
            for of in ("run_id", "accuracy")
        )
        there = ids.notna().to_numpy()
        whole = finished(there)
        curved.append(arm)
        accuracy.append(np.where(whole, values.to_numpy(), np.nan))
        lost.append((whole & np.isnan(accuracy[-1])).sum(axis=0))
        left_out.append((there & ~whole).sum(axis=0))
    shape = (len(curved), seeds.size, lams.size)
    return Grid(
        arms=tuple(curved),
        seeds=seeds,
        lams=lams,
        accuracy=np.array(accuracy, dtype=float).reshape(shape),
        lost=np.array(lost, dtype=int).reshape(shape[0], shape[2]),
        left_out=np.array(left_out, dtype=int).reshape(shape[0], shape[2]),
        flat=tuple(flat),
        window=any(setting(folder, arm.config_id, "grid.window") is not None for arm in curved),
    )


def finished(there: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of the runs that are there the most in which every seed has every lambda, [S, L] both.

    A seed whose lambdas a kill has cut short would otherwise leave the few that it has, and a lambda that was added for
    a few seeds all others.
    """
    rows = there[there.any(axis=1)]
    sets = np.unique(np.vstack([rows, rows.all(axis=0)]), axis=0)  # those of a seed, and those that all have
    have = np.array([(there >= one).all(axis=1) for one in sets])  # [sets, S]
    most = (have.sum(axis=1) * sets.sum(axis=1)).argmax()
    return have[most, :, None] & sets[most]


def setting(folder: Path, config_id: str, key: str) -> Any:
    """A key of an arm's resolved configuration, e.g. fisher.batch_size; None where it or the file is not there."""
    found: Any = configuration_of(folder, config_id)
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def untrained(folder: Path, config_id: str) -> list[int]:
    """Tasks, from 0 on, that an arm takes no step for, as joint training that trains once, after the last."""
    steps = setting(folder, config_id, "iterations")
    steps = next(iter(steps.values())) if isinstance(steps, dict) else steps
    return [task for task, n in enumerate(steps) if n == 0] if isinstance(steps, list) else []
