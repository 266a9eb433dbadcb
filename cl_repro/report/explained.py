"""The sections on how methods work: two tasks in a plane of parameter space, and what a memory keeps."""

import numpy as np
import pandas as pd
from PIL import Image

from cl_repro.analysis.data.read import Measured
from cl_repro.analysis.data.study import benchmark_name
from cl_repro.analysis.kinds import IDEA
from cl_repro.analysis.lambdas.accuracy import lambda_text
from cl_repro.analysis.measurements.idea import NAMES
from cl_repro.analysis.output.markup import MINUS, Table
from cl_repro.report.section import KINDS, SURVIVAL, Place, Section, capital, commands

MEMORY = "memory_survival"  # the figure that scripts/plot.py draws of no folder


def idea(place: Place, found: Measured) -> Section:
    """What `measure.py idea` has measured."""
    name, paths, known = found.folder.name, found.tables["paths"], found.provenance
    runs, data = known.get("invocations", []), [benchmark_name(one) for one in known.get("data", {})]
    shas = sorted({one["git_sha"][:7] + "-dirty" * one["dirty"] for one in runs})
    machines = "; ".join(dict.fromkeys(f"torch {one['torch']}, {one['hardware']}" for one in runs))
    n = paths["arm"].nunique()
    return Section(
        name=name,
        title=capital(KINDS[IDEA]),
        kind=IDEA,
        benchmark="",
        sentence=f"{', '.join([*data, KINDS[IDEA]])}: after task A, task B is learned from the same weights in {n} "
        f"way{'s' * (n != 1)}.",
        facts=[
            *([("Origin", f"Runs of commit {'+'.join(shas)}, {machines}.")] if runs else []),
            *commands(found.folder),
        ],
        commits="+".join(shas),
        links=place.files(name),
        pictures=place.pictures([name], f"{capital(KINDS[IDEA])}: regions where each is solved, and paths of training"),
        tables=[ends_table(paths)],
    )


def ends_table(paths: pd.DataFrame) -> Table:
    """Where the path of each method begins and ends; `paths` is paths.csv."""
    rows = [("after task A", paths.iloc[0].drop("lambda"))]
    rows += [(NAMES.get(arm, arm), own.iloc[-1]) for arm, own in paths.groupby("arm", sort=False)]
    body = tuple(
        (
            name,
            lambda_text(end.get("lambda", np.nan)),
            *(f"{100 * end[task]:.1f}" for task in ("accuracy_a", "accuracy_b")),
            f"{np.sqrt(end['x'] ** 2 + end['y'] ** 2 + end['off_plane'] ** 2):.2f}",
            f"{end['off_plane']:.2f}",
        )
        for name, end in rows
    )
    notes = (
        "Distances are Euclidean, in the space of all parameters; the plane goes through the weights after task A and "
        "the ends of the first and of the last method. One seed; accuracies are those on the test set.",
    )
    header = ("Method", "λ", "task A, %", "task B, %", "distance from the start", "off the plane")
    return Table("ends", "Where training on task B ends", header, body, notes)


def survival(place: Place) -> list[Section]:
    """The law of memories, if its figure has been drawn; it is drawn from the memories themselves, without a table."""
    alt = "The fraction of its first examples that a memory still holds, against the examples offered after it is full"
    pictures = place.pictures([MEMORY], alt)
    if not pictures:
        return []
    with Image.open(pictures[0].path) as image:
        source = image.info.get("Source", "")
    law = (
        f"{capital(KINDS[SURVIVAL])}: where every example offered takes the place of a random one, an example "
        f"survives n of them with probability (1 {MINUS} 1/M)ⁿ, so earlier tasks vanish exponentially; a reservoir of "
        "M examples keeps M / (M + n) of its first ones."
    )
    made = [("Origin", source)] if source else []
    return [
        Section(
            name=MEMORY,
            title=capital(KINDS[SURVIVAL]),
            kind=SURVIVAL,
            benchmark="",
            sentence=law,
            facts=[*made, ("Command", "`make figures`")],
            commits="",
            links=[],
            pictures=pictures,
        )
    ]
