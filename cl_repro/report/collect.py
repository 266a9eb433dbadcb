"""Which sections the page has: every results folder that something can be said of, in reading order."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from cl_repro.analysis.data.study import commits, folders, open_study, origin
from cl_repro.analysis.measurements import unifying, unifying_tables
from cl_repro.analysis.measurements.anatomy import Anatomy, open_anatomy
from cl_repro.analysis.measurements.anatomy_tables import confidence_table, layers_table, passes_table
from cl_repro.analysis.measurements.unifying_figures import figures_of
from cl_repro.common.errors import Skipping, UserError
from cl_repro.report import bench, explained, search, studies
from cl_repro.report.section import (
    ANATOMY,
    BENCH,
    FIGURES,
    GROUPS,
    HEADLINE,
    KINDS,
    Link,
    Place,
    Section,
    capital,
    commands,
    one,
)

BENCHMARKS = ("split_mnist", "split_cifar10", "permuted_mnist", "cifar10_100", "tiny_imagenet")  # others follow


def collect(names: Sequence[str], results_dir: Path, page: Path, skipping: Skipping | None = None) -> list[Section]:
    """The sections of the page in reading order.

    Args:
        names: folders under `results_dir`; empty: every one that something can be said of.
        results_dir: the folder of all results.
        page: the folder that the page will be in, where links start from.
        skipping: what to do with a bad folder; None: it is an error.

    Returns:
        At least one: by benchmark, then by kind; the headline study first, how methods work and speed last.

    Raises:
        UserError: there is nothing, or `open_study`, `open_anatomy`, `open_figures` or `read_table` refuse a folder.
    """
    place, whole = Place(results_dir, page), not names
    anatomies, ideas, searches = (
        sorted(path.parent.name for path in results_dir.glob(f"*/{file}") if whole or path.parent.name in names)
        for file in ("anatomy.csv", explained.FILE, search.FILE)
    )
    figures = [name for name in unifying.folders(results_dir) if whole or name in names]
    others = {*anatomies, *ideas, *searches, *figures}
    runs = folders(results_dir) if whole else [name for name in names if name not in others]
    skipping, sections, opened = skipping or Skipping(), [], []
    makers: list[tuple[Sequence[str], Callable[[str], Section]]] = [
        (runs, lambda name: studies.section(open_study(name, results_dir), place)),
        (anatomies, lambda name: _anatomy(open_anatomy(name, results_dir), place)),
        (searches, lambda name: search.section(name, place)),
        (ideas, lambda name: explained.idea(name, place)),
    ]
    for name, make in ((name, make) for own, make in makers for name in own):
        with skipping.attempt(results_dir / name):
            sections.append(make(name))
    for name in figures:
        with skipping.attempt(results_dir / name):
            opened.append(unifying.open_figures(name, results_dir))
    for group in unifying.by_scale(opened):
        with skipping.attempt(results_dir / group[0].name):
            sections.append(_figures(group, place))
    if whole:
        measured = sorted((results_dir / BENCH).glob("*.csv"))
        sections += [*explained.survival(place), *([bench.section(measured, place)] if measured else [])]
    if not sections:
        raise UserError(f"no results under {results_dir}: run `make reproduce` first")
    return sorted(sections, key=_rank)


def _rank(section: Section) -> tuple:
    benchmark, known = section.benchmark, section.benchmark in BENCHMARKS
    first = BENCHMARKS.index(benchmark) if known else len(BENCHMARKS) + (not benchmark) + (section.kind in GROUPS)
    smoke = section.name.endswith("_smoke")
    return (first, benchmark, smoke, list(KINDS).index(section.kind), section.name != HEADLINE, section.name)


def _anatomy(found: Anatomy, place: Place) -> Section:
    """Estimates of the Fisher on one trained network."""
    alt = f"{found.title}: error of every estimate of the Fisher against its cost; the tables hold the numbers"
    return Section(
        name=found.name,
        title=capital(KINDS[ANATOMY])
        + (", drawn by importance" if (found.passes["estimator"] == "importance_sample").any() else ""),
        kind=ANATOMY,
        benchmark=one(found.confidence["benchmark"]),
        sentence=f"{found.title}: {KINDS[ANATOMY]}; {len(found.passes)} passes.",
        pictures=place.pictures([found.name], alt),
        tables=[confidence_table(found), passes_table(found), layers_table(found)],
        facts=[("Origin", origin(found.passes)), *commands(place.results / found.name)],
        commits=commits(found.passes),
        links=place.files(found.name),
    )


def _figures(group: Sequence[unifying.Figures], place: Place) -> Section:
    """Figures of Benzing (2022) of one scale, with the tables of every benchmark in them."""
    names = [own.name for own in group]
    alt = f"{group[0].scale}; the tables hold the numbers"
    pictures = [
        picture._replace(alt=f"Benzing (2022), figure {name.removeprefix('fig')}, {picture.alt}")
        for name in figures_of(group)
        for picture in place.pictures([f"unifying_{name}{group[0].suffix}"], alt)
    ]
    tables = []
    for own in group:
        tables += [table._replace(title=f"{own.benchmark}: {table.title}") for table in unifying_tables.tables_of(own)]
    networks = pd.concat([own.networks for own in group])
    return Section(
        name=f"unifying_figures{group[0].suffix}" if len(group) > 1 else names[0],
        title=f"Benzing (2022), figures: {group[0].scale}",
        kind=FIGURES,
        benchmark=one(networks["benchmark"]),
        sentence=f"{' and '.join(own.benchmark for own in group)}, {unifying.seeds(group)}: {KINDS[FIGURES]}.",
        pictures=pictures,
        tables=tables,
        facts=[("Origin", origin(networks)), *(fact for name in names for fact in commands(place.results / name))],
        commits=commits(networks),
        links=[Link(f"{name}/{link.text}", link.href) for name in names for link in place.files(name)],
    )
