"""The section of a search of a penalty's lambda, from what `measure.py strength_search` has written."""

import pandas as pd

from cl_repro.analysis.data.arms import NamedArm, arms_of
from cl_repro.analysis.data.read import Measured
from cl_repro.analysis.data.study import benchmark_name, commits, origin
from cl_repro.analysis.kinds import SEARCH
from cl_repro.analysis.lambdas.accuracy import NOTHING, estimate_text
from cl_repro.analysis.output.markup import Table
from cl_repro.common.stats import estimate
from cl_repro.report.section import KINDS, Place, Section, capital, commands, minutes, one

AVERAGE = "average"  # the row of final.csv that is the mean over tasks


def section(place: Place, found: Measured) -> Section:
    """What a search has found."""
    folder, attempts, final = found.folder, found.tables["attempts"], found.tables["final"]
    searches, arms = final[final["task"] == AVERAGE], arms_of(final, folder)
    benchmarks, n, seeds = sorted(final["benchmark"].unique()), len(attempts), searches["seed"].nunique()
    return Section(
        name=folder.name,
        title=capital(KINDS[SEARCH]),
        kind=SEARCH,
        benchmark=one(final["benchmark"]),
        sentence=f"{' and '.join(map(benchmark_name, benchmarks))}, {seeds} seed{'s' * (seeds != 1)}: {KINDS[SEARCH]} "
        f"(De Lange et al. 2021), {len(arms)} method{'s' * (len(arms) != 1)}, {n:,} trainings.",
        facts=[
            ("Origin", origin(searches)),
            *commands(folder),
            ("Cost", f"{minutes(searches, 'seconds')}, the sum over {len(searches):,} searches."),
        ],
        commits=commits(searches),
        links=place.files(folder.name),
        pictures=place.pictures([folder.name], f"{folder.name}: {KINDS[SEARCH]}"),
        tables=[accuracy_table(arms, final), lambdas_table(arms, attempts)],
    )


def accuracy_table(arms: tuple[NamedArm, ...], final: pd.DataFrame) -> Table:
    """Test accuracy after the last task, of every method; `final` is final.csv."""
    tasks = [AVERAGE, *(task for task in dict.fromkeys(final["task"]) if task != AVERAGE)]
    fine = final.assign(accuracy=100 * final["accuracy"].where(final["status"] == "ok"))
    body = []
    for arm in arms:
        own = fine[fine["config_id"] == arm.config_id]
        points = [estimate(own["accuracy"][own["task"] == task]) for task in tasks]
        body.append((arm.label, estimate_text(points[0]), *(f"{p.mean:.1f}" if p.n else NOTHING for p in points[1:])))
    notes = (
        "Test accuracy in % after the last task: the mean over tasks ± SEM (n seeds); then of each task, its mean.",
    )
    header = ("Method", "average", *(f"task {task}" for task in tasks[1:]))
    return Table("accuracy", "Accuracy at the lambdas found", header, tuple(body), notes)


def lambdas_table(arms: tuple[NamedArm, ...], attempts: pd.DataFrame) -> Table:
    """The lambda each task was learned with, and how many trainings that took; `attempts` is attempts.csv."""
    tasks = sorted(attempts["task"].unique())
    kept = attempts[attempts["kept"]]  # fine-tuning has none
    body = []
    for arm in arms:
        own = kept[kept["config_id"] == arm.config_id]
        found = [own["strength"][own["task"] == task].dropna() for task in tasks]
        spread = [(f"{values.min():.3g}", f"{values.max():.3g}") if len(values) else (NOTHING,) for values in found]
        n = (attempts["config_id"] == arm.config_id).sum()
        body.append((arm.label, *(" to ".join(dict.fromkeys(ends)) for ends in spread), f"{n:,}"))
    notes = (
        "Lambda of the penalty in the training that was kept; where seeds differ, from the smallest to the largest.",
    )
    header = ("Method", *(f"task {task}" for task in tasks), "trainings")
    return Table("lambdas", "Lambdas found, task by task", header, tuple(body), notes)
