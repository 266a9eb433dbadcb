"""Which sections the page has: every results folder that something can be said of, in reading order."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from cl_repro.analysis import kinds
from cl_repro.analysis.data.study import commits, origin
from cl_repro.analysis.measurements import unifying, unifying_tables
from cl_repro.analysis.measurements.anatomy import Anatomy
from cl_repro.analysis.measurements.anatomy_tables import tables_of
from cl_repro.analysis.measurements.unifying_figures import figures_of
from cl_repro.common.errors import Skipping, UserError
from cl_repro.report import bench, explained, search, studies
from cl_repro.report.section import BENCH, GROUPS, HEADLINE, KINDS, Link, Place, Section, capital, commands, one

BENCHMARKS = ("split_mnist", "split_cifar10", "permuted_mnist", "cifar10_100", "tiny_imagenet")  # others follow


def collect(names: Sequence[str], results_dir: Path, page: Path, skipping: Skipping | None = None) -> list[Section]:
    """The sections of the page: by benchmark, then by kind; the headline study first, how methods work and speed last.

    Args:
        names: folders under `results_dir`; empty: every one that something can be said of.
        results_dir: the folder of all results.
        page: the folder that the page will be in, where links start from.
        skipping: what to do with a bad folder; None: it is an error.

    Raises:
        UserError: there is nothing, or a folder cannot be opened.
    """
    place, skipping, sections = Place(results_dir, page), skipping or Skipping(), list[Section]()
    for group in kinds.opened(names, results_dir, skipping):
        with skipping.attempt(group.folder):
            sections.append(SECTIONS[group.kind](place, *group.found))
    if not names:
        measured = sorted((results_dir / BENCH).glob("*.csv"))
        sections += [*explained.survival(place), *([bench.section(place, measured)] if measured else [])]
    if not sections:
        raise UserError(f"no results under {results_dir}: run `make reproduce` first")
    return sorted(sections, key=_rank)


def _rank(section: Section) -> tuple:
    benchmark, known = section.benchmark, section.benchmark in BENCHMARKS
    first = BENCHMARKS.index(benchmark) if known else len(BENCHMARKS) + (not benchmark) + (section.kind in GROUPS)
    smoke = section.name.endswith("_smoke")
    return (first, benchmark, smoke, list(KINDS).index(section.kind), section.name != HEADLINE, section.name)


def _anatomy(place: Place, found: Anatomy) -> Section:
    """Estimates of the Fisher on one trained network."""
    about = KINDS[kinds.ANATOMY]
    drawn = ", drawn by importance" if (found.passes["estimator"] == "importance_sample").any() else ""
    alt = f"{found.title}: error of every estimate of the Fisher against its cost; the tables hold the numbers"
    return Section(
        name=found.name,
        title=capital(about) + drawn,
        kind=kinds.ANATOMY,
        benchmark=one(found.confidence["benchmark"]),
        sentence=f"{found.title}: {about}; {len(found.passes)} passes.",
        pictures=place.pictures([found.name], alt),
        tables=tables_of(found),
        facts=[("Origin", origin(found.passes)), *commands(found.folder)],
        commits=commits(found.passes),
        links=place.files(found.name),
    )


def _figures(place: Place, *group: unifying.Figures) -> Section:
    """Figures of Benzing (2022) of one scale, with the tables of every benchmark in them."""
    names, first = [own.name for own in group], group[0]
    pictures = [
        picture
        for name in figures_of(group)
        for picture in place.pictures(
            [f"unifying_{name}{first.suffix}"],
            f"Benzing (2022), figure {name.removeprefix('fig')}, {first.scale}; the tables hold the numbers",
        )
    ]
    networks = pd.concat([own.networks for own in group])
    return Section(
        name=f"unifying_figures{first.suffix}" if len(group) > 1 else names[0],
        title=f"Benzing (2022), figures: {first.scale}",
        kind=kinds.FIGURES,
        benchmark=one(networks["benchmark"]),
        sentence=f"{' and '.join(own.benchmark for own in group)}, {unifying.seeds(group)}: {KINDS[kinds.FIGURES]}.",
        pictures=pictures,
        tables=[
            table._replace(title=f"{own.benchmark}: {table.title}")
            for own in group
            for table in unifying_tables.tables_of(own)
        ],
        facts=[("Origin", origin(networks)), *(fact for own in group for fact in commands(own.folder))],
        commits=commits(networks),
        links=[Link(f"{name}/{link.text}", link.href) for name in names for link in place.files(name)],
    )


SECTIONS: dict[str, Callable[..., Section]] = {
    kinds.STUDY: studies.section,
    kinds.ANATOMY: _anatomy,
    kinds.FIGURES: _figures,
    kinds.SEARCH: search.section,
    kinds.IDEA: explained.idea,
}
