"""What should a practitioner use? Methods side by side in each scenario: accuracy, memory, compute, stored data.

Every method has the same number of candidates for lambda. The one of the highest mean accuracy on validation rows is
taken, and its test accuracy reported; without validation rows the test set chooses, and the tables say so.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cl_repro.analysis.data.arms import NamedArm, arms_of, finished, untrained
from cl_repro.analysis.data.read import read_accuracy, read_further
from cl_repro.analysis.data.study import SCENARIOS, Study, mixed_seeds, origin
from cl_repro.analysis.lambdas.accuracy import NOTHING, estimate_text, interval_text, lambda_text
from cl_repro.analysis.lambdas.selection import validation_accuracy
from cl_repro.analysis.lambdas.shape import best, complete, seed_mean
from cl_repro.analysis.output.markup import MINUS, TIMES, Table, told_once
from cl_repro.common.stats import Array, Interval, estimate, paired

FINETUNE, JOINT = "finetune", "joint"
NAMES = {
    "l2": "L2",
    "ewc": "EWC",
    "ewc_offline": "EWC offline",
    "si": "SI",
    "mas": "MAS",
    "mas_batched": "MAS of batches",
    "lwf": "LwF",
    "der": "DER",
    "der_plus_plus": "DER++",
    "gpm": "GPM",
    "ogd": "OGD",
    "la_maml": "La-MAML",
}
PENALTY, DISTILLATION, STORING, STRUCTURE, BOUND = "penalty", "distillation", "replay", "structure", "bound"
FAMILIES = {  # what they are, in words, and their colours
    BOUND: ("nothing, or all data", "#555555"),
    PENALTY: ("penalty: numbers per parameter", "#0072B2"),
    DISTILLATION: ("distillation: logits or a network", "#009E73"),
    STRUCTURE: ("structure: projections, columns, sparse units", "#8A3FA0"),
    STORING: ("replay: stored examples", "#D55E00"),
}
STRUCTURAL = ("gpm", "ogd", "sharpening")  # beside networks of another structure
MEASURED = ["accuracy", "forgetting", "plasticity", "overlap"]  # columns
FEATURES = ("context",)  # keep features of examples, with their labels
NO_BASE = "no finetuning beside it"  # why there is no ratio


class Entry(NamedTuple):
    """One method in one scenario, at the lambda chosen for it; arrays have one value per seed, NaN where lost."""

    arm: NamedArm
    scenario: str
    lam: float  # NaN without one
    at_edge: bool  # of its candidates
    accuracy: Array  # [S], percent, mean over tasks after the last
    forgetting: Array  # [S], points
    plasticity: Array  # [S], percent, mean over tasks of the accuracy right after each was learned
    storage: dict[str, int]  # bytes, by kind
    overlap: Array  # [S], how much tasks share the units that the head reads, 0 to 1; NaN: not measured
    compute: Array  # [S], seconds of training and importances, as a ratio to finetune's of the same seed
    asking: Array  # [S], seconds of evaluation, as a ratio to finetune's of the same seed
    mixed: NDArray[np.bool_]  # [S], whether the seed's arms mix processors
    other_network: bool = False  # whether its network is not the one that finetune has
    told: str = ""  # what tells it from others of one name: BATCHED (b=16)

    @property
    def name(self) -> str:
        """E.g. LwF; EWC, exact (n=500); replay [20 a class]."""
        base = NAMES.get(self.arm.method, self.arm.method.replace("_", " "))
        estimator, _, n = self.arm.fisher.rpartition("_")
        detail = f"{estimator} (n={n})" if n.isdigit() else self.arm.fisher
        _, bracket, own = self.arm.label.partition(" [")  # what tells apart arms of one method and estimator
        base = f"{base}, {detail}" if detail else base
        return self.told or f"{base}{bracket}{own}".replace("_", " ")

    def minus(self, other: "Entry", confidence: float) -> Interval:
        """This accuracy minus another's, paired by those seeds that do not mix processors."""
        return paired(np.where(self.mixed, np.nan, self.accuracy), other.accuracy, confidence)

    @property
    def bytes(self) -> int:
        """All that the method keeps between tasks, in bytes."""
        return sum(self.storage.values())

    @property
    def family(self) -> str:
        """By what protects: nothing, numbers per parameter, a teacher, stored examples, or how a network may change."""
        if self.arm.method in STRUCTURAL or self.other_network:
            return STRUCTURE
        if self.arm.method in (FINETUNE, JOINT):
            return BOUND
        if self.arm.method in FEATURES:
            return STORING
        return STORING if "examples" in self.storage else DISTILLATION if "teacher" in self.storage else PENALTY


def compared(study: Study) -> list[Entry]:
    """Every method in every scenario, scenarios in the order of `SCENARIOS`, methods in that of `arms_of`."""
    runs = study.runs.assign(held_out=validation_accuracy(study), plasticity=plasticity(study))
    measures = read_further(study.folder, "representation.csv")
    overlaps = measures[measures["measure"] == "overlap"].set_index("run_id")["value"]
    runs["overlap"] = overlaps.reindex(runs["run_id"]).to_numpy(dtype=float)
    storage = read_further(study.folder, "storage.csv").groupby("run_id")[["kind", "bytes"]]
    kept = {run_id: dict(zip(of["kind"], of["bytes"].astype(int), strict=True)) for run_id, of in storage}
    found = []
    for scenario in [s for s in SCENARIOS if (runs["scenario"] == s).any()]:
        part = runs[runs["scenario"] == scenario]
        choosing = part["seed"].isin(study.settings.chosen_on)
        judges, part = (part[choosing], part[~choosing]) if study.settings.chosen_on else (part, part)
        seeds = np.unique(part["seed"])
        mixed = np.isin(seeds, mixed_seeds(study.runs))
        arms = arms_of(part, study.folder)
        for arm in arms:
            own, judged = (of[of["config_id"] == arm.config_id] for of in (part, judges))
            if judged.empty and own["lambda"].notna().any():  # the seeds that choose its lambda have not been run yet
                continue
            none = finetuned(part[part["config_id"].isin([a.config_id for a in arms if not a.unlike(arm)])])
            none = none.set_index("seed")
            base, base_asking = (np.where(mixed, np.nan, of) for of in spent(none, seeds))
            lam, at_edge = chosen(own if judged.empty else judged)
            rows = (own if np.isnan(lam) else own[own["lambda"] == lam]).set_index("seed")
            if rows.empty:  # they have chosen one that the others have not been run at yet
                continue
            fine = rows[rows["status"] == "ok"].reindex(seeds)
            seconds, asking = spent(rows, seeds)
            other = not none.empty and rows["model"].iloc[0] != none["model"].iloc[0]
            accuracy, forgetting, plastic, shared = fine[MEASURED].to_numpy(dtype=float).T
            if untrained(study.folder, arm.config_id):  # nothing was learned that could be forgotten
                forgetting, plastic = (np.full(seeds.size, np.nan) for _ in range(2))
            measured = 100 * accuracy, 100 * forgetting, 100 * plastic, kept.get(rows["run_id"].iloc[0], {}), shared
            costs = seconds / base, asking / base_asking
            found.append(Entry(arm, scenario, lam, at_edge, *measured, *costs, mixed, other))
    count = Counter((entry.scenario, entry.name) for entry in found)
    return [e._replace(told=e.arm.label) if count[e.scenario, e.name] > 1 else e for e in found]


def finetuned(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs of finetuning; where it has several arms, of the one without a name of its own."""
    none = runs[runs["method"] == FINETUNE]
    return none[none["arm"] == FINETUNE] if none["config_id"].nunique() > 1 else none


def spent(runs: pd.DataFrame, seeds: Array) -> tuple[Array, Array]:
    """Seconds of training and importances, and of evaluation, [S] each, of runs indexed by their seed.

    Those of a processor where there are any: a GPU shares its time among the seeds of a stack.
    """
    on_cpu = runs["device"] == "cpu"
    runs = runs[on_cpu] if on_cpu.any() else runs
    work = runs["seconds_train"] + runs["seconds_fisher"].fillna(0)
    return tuple(of.reindex(seeds).to_numpy(dtype=float) for of in (work, runs["seconds_eval"]))


def chosen(own: pd.DataFrame) -> tuple[float, bool]:
    """The lambda of one arm's runs, NaN without one, and whether it is the first or last of several candidates."""
    if own["lambda"].isna().all():
        return np.nan, False
    judge = "held_out" if own["held_out"].notna().any() else "accuracy"
    fine = own.assign(judged=own[judge].where(own["status"] == "ok"))
    table = fine.pivot(index="seed", columns="lambda", values="judged")  # lambdas ascending
    whole = finished(fine.pivot(index="seed", columns="lambda", values="run_id").notna().to_numpy())
    i = int(best(seed_mean(complete(np.where(whole, table.to_numpy(dtype=float), np.nan)))))
    return float(table.columns[max(i, 0)]), i >= 0 and table.shape[1] > 1 and i in (0, table.shape[1] - 1)


def plasticity(study: Study) -> pd.Series:
    """Mean over the tasks of the test accuracy right after each was learned, a fraction, in the order of runs."""
    rows = read_accuracy(study.folder)
    learned = rows[(rows["split"] == "test") & (rows["after_task"] == rows["task"])]
    per_run = learned.groupby("run_id")["accuracy"].mean().reindex(study.runs["run_id"])
    return pd.Series(per_run.to_numpy(dtype=float), index=study.runs.index)


# --- tables -----------------------------------------------------------------------------------------------------------


def comparison_tables(study: Study, found: list[Entry]) -> list[Table]:
    """The overview, one table a scenario, the pairs that are asked for, and what storing examples is worth."""
    of_scenarios = [scenario_table(found, scenario) for scenario in scenarios_of(found)]
    tables = [overview(study, found), *of_scenarios, pair_table(study, found), worth(study, found)]
    return [told_once(table, [NO_BASE]) for table in tables if table.rows]


def scenarios_of(found: list[Entry]) -> list[str]:
    """Those that are there, in order."""
    return list(dict.fromkeys(entry.scenario for entry in found))


def has_base(found: list[Entry]) -> bool:
    """Whether some seed has finetuning beside it, of whose times others are multiples."""
    return any(np.isfinite(entry.compute).any() for entry in found)


def overview(study: Study, found: list[Entry]) -> Table:
    """One row per method, its accuracy in each scenario, and what it costs."""
    scenarios, base = scenarios_of(found), has_base(found)
    body = []
    for name in dict.fromkeys(entry.name for entry in found):
        own = {entry.scenario: entry for entry in found if entry.name == name}
        cells = [estimate_text(estimate(own[s].accuracy)) if s in own else NOTHING for s in scenarios]
        most = max(own.values(), key=lambda entry: entry.bytes)
        ratio = estimate(np.concatenate([entry.compute for entry in own.values()]))
        stores = "all" if most.arm.method == JOINT else "yes" if "examples" in most.storage else "no"
        stores = "features" if most.arm.method in FEATURES else stores
        body.append((name, *cells, bytes_text(most.bytes), ratio_text(ratio.mean) if base else NO_BASE, stores))
    header = ("Method", *(f"{SCENARIOS[s]}, %" for s in scenarios), "extra memory", "compute", "stores data")
    most = study.runs.groupby("config_id")["lambda"].nunique().max()
    rows = read_accuracy(study.folder)
    held_out = rows["run_id"][rows["split"] == "val"].isin(study.runs["run_id"]).any()
    by = "on held-out training rows" if held_out else "ON THE TEST SET"
    if study.settings.chosen_on:
        by = f"{', '.join(map(str, study.settings.chosen_on))} on the test set, which are not reported"
    best = f"that is best, of at most {most} candidates, in the mean over seeds {by}; each scenario has its own"
    best = best if most > 1 else "of the study's configuration"
    notes = (
        f"Test accuracy, mean over tasks after the last: mean ± SEM (n seeds), at the λ {best}.",
        "Extra memory: bytes that the method keeps beside network, gradient and optimiser, as it is implemented here "
        "(a penalty keeps anchor, importance and their product); the largest of the scenarios. Compute: processor "
        "seconds of training and importances as a ratio to finetune's of the same seed, mean over seeds and scenarios.",
        origin(study.runs),
    )
    return Table("comparison", "Methods side by side", header, tuple(body), notes)


def scenario_table(found: list[Entry], scenario: str) -> Table:
    """Everything of one scenario."""
    base, body = has_base(found), []
    for entry in (entry for entry in found if entry.scenario == scenario):
        lam = lambda_text(entry.lam) + (" (edge)" if entry.at_edge else "")
        numbers = [estimate_text(estimate(of)) for of in (entry.accuracy, entry.forgetting, entry.plasticity)]
        kinds = ", ".join(f"{kind} {bytes_text(n)}" for kind, n in entry.storage.items()) or NOTHING
        shared = estimate_text(estimate(entry.overlap)) if np.isfinite(entry.overlap).any() else NOTHING
        ratios = [ratio_text(estimate(of).mean) if base else NO_BASE for of in (entry.compute, entry.asking)]
        body.append((entry.name, lam, *numbers, shared, kinds, *ratios))
    measures = ("accuracy, %", "forgetting, points", "plasticity, %", "overlap", "kept", "compute", "evaluation")
    header = ("Method", "λ", *measures)
    notes = (
        "Forgetting: mean over old tasks of the best accuracy so far minus the last. Plasticity: mean over tasks of "
        "the accuracy right after each was learned. Edge: the chosen λ is the first or last candidate. Overlap: of "
        "the units that the head reads, between tasks: 0 none in common, 1 the same. Evaluation: processor seconds, as "
        "a ratio to finetune's.",
    )
    return Table(scenario, SCENARIOS[scenario].capitalize(), header, tuple(body), notes)


def pair_table(study: Study, found: list[Entry]) -> Table:
    """The differences that the study's file lists, in each scenario, paired by seed."""
    at = {(entry.scenario, entry.name): entry for entry in found}
    asked = [
        (s, *pair) for s in scenarios_of(found) for pair in study.settings.pairs if all((s, n) in at for n in pair)
    ]
    body = []
    for scenario, one, other in asked:
        body.append(difference(at[scenario, one], at[scenario, other], study))
    header = ("Scenario", "difference", "points of accuracy", "seeds")
    note = f"{study.settings.confidence:.0%} t-intervals paired by seed, not corrected for there being {len(body)}."
    return Table("pairs", "Differences between methods", header, tuple(body), (note,))


def worth(study: Study, found: list[Entry]) -> Table:
    """How much better each method that stores examples is than the best penalty, and than the best without examples."""
    body = []
    for scenario in scenarios_of(found):
        there = [entry for entry in found if entry.scenario == scenario and np.isfinite(entry.accuracy).any()]
        for entry in (entry for entry in there if entry.family == STORING):
            for families in ((PENALTY,), (PENALTY, DISTILLATION, STRUCTURE)):  # then all without examples
                if others := [one for one in there if one.family in families and one.arm.compares(entry.arm)]:
                    other = max(others, key=lambda one: np.nanmean(one.accuracy))
                    body.append(difference(entry, other, study))
    header = ("Scenario", "difference", "points of accuracy", "seeds")
    notes = (
        "What stores examples minus the best penalty, and, where that is another, minus the best of all without "
        f"examples. Differences of test accuracy, {study.settings.confidence:.0%} t-intervals paired by seed; which "
        "method is best is decided on the same seeds, in its favour.",
    )
    return Table("worth", "What storing examples is worth", header, tuple(dict.fromkeys(body)), notes)


def difference(one: Entry, other: Entry, study: Study) -> tuple[str, ...]:
    """A row: scenario, which two, points of accuracy with their interval, seeds."""
    gap = one.minus(other, study.settings.confidence)
    return SCENARIOS[one.scenario], f"{one.name} {MINUS} {other.name}", interval_text(gap), str(gap.n)


def bytes_text(n: int) -> str:
    """E.g. 0, 480 kB, 5.7 MB."""
    if n < 100:
        return f"{n} B" if n else "0"
    power = int(np.log10(n) / 3 + 1e-9)
    return f"{n / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def ratio_text(value: float) -> str:
    """E.g. 1.43x."""
    return f"{value:.2f}{TIMES}" if np.isfinite(value) else NOTHING
