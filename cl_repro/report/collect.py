"""What the page says of each results folder: charts, pictures, tables, where they come from, links to the files."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pandas as pd

from cl_repro.analysis import unifying
from cl_repro.analysis.accuracy import NOTHING, at_best, estimate_text, lambda_text
from cl_repro.analysis.anatomy import Anatomy, open_anatomy
from cl_repro.analysis.anatomy_tables import confidence_table, layers_table, passes_table
from cl_repro.analysis.arms import grid_of
from cl_repro.analysis.collapse import collapse
from cl_repro.analysis.collapse import table as collapse_table
from cl_repro.analysis.markup import Table
from cl_repro.analysis.read import BOOL, FLOAT, TEXT, read_provenance, read_table
from cl_repro.analysis.settings import COMPARISON
from cl_repro.analysis.study import (
    ARMS,
    CURVES,
    LISTING,
    PLACE,
    TIMING,
    Study,
    benchmark_name,
    commits,
    describe,
    folders,
    most_lambdas,
    open_study,
    origin,
)
from cl_repro.analysis.tables import tables_of
from cl_repro.analysis.timing import timing_table
from cl_repro.analysis.unifying_figures import figures_of
from cl_repro.analysis.unifying_tables import correlations_table, extents_table, noise_table, sums_table, way_table
from cl_repro.errors import UserError
from cl_repro.report.curves import Chart, charts
from cl_repro.stats import estimate

HEADLINE = "split_mnist_fisher"  # first of its benchmark, which is the first
BENCHMARKS = ("split_mnist", "split_cifar10", "permuted_mnist", "cifar10_100", "tiny_imagenet")  # others follow
ANATOMY, FIGURES, BENCH = "anatomy", "figures", "bench"
KINDS = {
    CURVES: "accuracy against λ",
    ARMS: "one λ an arm",
    COMPARISON: "methods side by side",
    TIMING: "training time",
    ANATOMY: "how the estimates of the Fisher differ",
    FIGURES: "importance measures beside one run of SI",
    LISTING: "several benchmarks, scenarios or settings",
}  # in reading order
MIXED, SPEED = "Several benchmarks", "Speed and memory"
ROWS = 30  # of a listing; a longer one is shown in short
MEASURED = {
    "name": TEXT, "value": FLOAT, "value_unit": TEXT, "target": FLOAT, "better": TEXT, "note": TEXT, "verdict": TEXT,
    "git_sha": TEXT, "dirty": BOOL, "hardware": TEXT, "torch": TEXT,
}  # fmt: skip


class Link(NamedTuple):
    """A file beside the page."""

    text: str
    href: str  # relative to the page


class Picture(NamedTuple):
    """A figure that was drawn from the same files."""

    path: Path  # PNG
    alt: str
    links: list[Link]  # PNG and SVG


class Section(NamedTuple):
    """One results folder on the page, or several that share their figures."""

    name: str
    kind: str
    benchmark: str  # empty where there are several
    sentence: str
    charts: list[Chart]
    pictures: list[Picture]
    tables: list[Table]
    facts: list[tuple[str, str]]  # origin, command, cost; code between backticks
    commits: str
    links: list[Link]

    @property
    def group(self) -> str:
        """Heading in the list of contents."""
        return SPEED if self.kind == BENCH else benchmark_name(self.benchmark) if self.benchmark else MIXED


class Place(NamedTuple):
    """Where results are, and where the page will be."""

    results: Path
    page: Path  # folder

    def links(self, paths: Iterable[Path]) -> list[Link]:
        """To those that are there, by their names."""
        return [
            Link(path.name, quote(Path(os.path.relpath(path, self.page)).as_posix()))
            for path in paths
            if path.is_file()
        ]

    def files(self, name: str) -> list[Link]:
        """Tables and provenance of a results folder, and what is made of it."""
        folder = self.results / name
        made = [self.results / "tables" / f"{stem}.md" for stem in (name, f"collapse_{name}")]
        return self.links([*sorted(folder.glob("*.csv")), folder / "provenance.json", *made])

    def pictures(self, stems: Iterable[str], alt: str) -> list[Picture]:
        """The figures that have been drawn."""
        paths = [self.results / "figures" / f"{stem}.png" for stem in stems]
        return [Picture(path, alt, self.links([path, path.with_suffix(".svg")])) for path in paths if path.is_file()]


def collect(names: Sequence[str], results_dir: Path, page: Path) -> list[Section]:
    """The sections of the page in reading order.

    Args:
        names: folders under `results_dir`; empty: every one that something can be said of.
        results_dir: the folder of all results.
        page: the folder that the page will be in, where links start from.

    Returns:
        At least one: by benchmark, then by kind; the headline study first, speed last.

    Raises:
        UserError: there is nothing, or `open_study`, `open_anatomy` or `open_figures` refuse a folder.
    """
    place = Place(results_dir, page)
    anatomies = sorted(path.parent.name for path in results_dir.glob("*/anatomy.csv"))
    figures, studies = unifying.folders(results_dir), folders(results_dir)
    if names:
        anatomies, figures = ([name for name in found if name in names] for found in (anatomies, figures))
        studies = [name for name in names if name not in (*anatomies, *figures)]
    sections = [_study(open_study(name, results_dir), place) for name in studies]
    sections += [_anatomy(open_anatomy(name, results_dir), place) for name in anatomies]
    opened = [unifying.open_figures(name, results_dir) for name in figures]
    sections += [_figures(group, place) for group in unifying.by_scale(opened)]
    sections.sort(key=_rank)
    measured = [] if names else sorted((results_dir / BENCH).glob("*.csv"))
    if measured:
        sections.append(_bench(measured, place))
    if not sections:
        raise UserError(f"no results under {results_dir}: run `make reproduce` first")
    return sections


def _rank(section: Section) -> tuple:
    benchmark, known = section.benchmark, section.benchmark in BENCHMARKS
    first = BENCHMARKS.index(benchmark) if known else len(BENCHMARKS) + (not benchmark)
    smoke = section.name.endswith("_smoke")
    return (first, benchmark, smoke, list(KINDS).index(section.kind), section.name != HEADLINE, section.name)


def _study(study: Study, place: Place) -> Section:
    """Runs: chart, tables, origin and cost."""
    runs, curved = study.runs, study.kind in (CURVES, LISTING) and most_lambdas(study.runs) > 1
    places = [*runs.groupby(PLACE).groups]
    stems = [study.name, f"collapse_{study.name}", *("_".join([study.name, *key]) for key in places if len(places) > 1)]
    pictures = place.pictures(stems, f"{study.name}: {KINDS[study.kind]}")
    drawn = [link for picture in pictures for link in picture.links]
    return Section(
        name=study.name,
        kind=study.kind,
        benchmark=_one(runs["benchmark"]),
        sentence=_sentence(study),
        charts=charts(study) if curved else [],
        pictures=[] if curved else pictures,
        tables=_tables(study),
        facts=[("Origin", origin(runs)), *_commands(study.folder), ("Cost", _cost(runs))],
        commits=commits(runs),
        links=place.files(study.name) + (drawn if curved else []),
    )


def _sentence(study: Study) -> str:
    """Benchmark, scenario, seeds and scale, and what was run."""
    runs, n = study.runs, most_lambdas(study.runs)
    arms, bad = runs["config_id"].nunique(), int((runs["status"] != "ok").sum())
    parts = [
        f"{KINDS[study.kind]}, {arms} arm{'s' * (arms != 1)}" + (f", up to {n} values of λ" if n > 1 else ""),
        f"network {', '.join(sorted(runs['model'].unique()))}",
        f"{len(runs):,} run{'s' * (len(runs) != 1)}" + (f", of which {bad} diverged or failed" if bad else ""),
    ]
    return f"{describe(runs)}: {'; '.join(parts)}."


def _tables(study: Study) -> list[Table]:
    """As `make tables`; a listing of many cells in short; where curves rise before and after scaling."""
    if study.kind == TIMING:
        return [timing_table(study)]
    if study.kind == LISTING:
        return [table if len(table.rows) <= ROWS else _in_short(study, table) for table in tables_of(study)]
    tables, found = tables_of(study), collapse(study) if study.kind == CURVES else None
    after = next((i for i, table in enumerate(tables, 1) if table.name == "gaps"), 2)
    return [*tables[:after], *([collapse_table(study, found)] if found else []), *tables[after:]]


def _in_short(study: Study, table: Table) -> Table:
    """The best λ of every arm instead of all; cut where even that is long."""
    body = []
    for (benchmark, scenario, model), runs in study.runs.groupby(PLACE):
        for arm, lam, values in at_best(grid_of(runs, study.folder)):
            row = (arm.label, benchmark_name(benchmark), scenario, model, lambda_text(lam))
            body.append((*row, estimate_text(estimate(values))))
    left_out = [f"{len(body) - ROWS} more arms are left out here."] if len(body) > ROWS else []
    short = f"Every arm at the λ of its highest mean; all {len(table.rows)} cells of arm and λ are in runs.csv."
    header = (*table.header[:4], "best λ", table.header[-1])
    return Table("best", "Every arm at its best λ", header, tuple(body[:ROWS]), (short, *left_out, *table.notes))


def _anatomy(found: Anatomy, place: Place) -> Section:
    """Estimates of the Fisher on one trained network."""
    alt = f"{found.title}: error of every estimate of the Fisher against its cost; the tables hold the numbers"
    return Section(
        name=found.name,
        kind=ANATOMY,
        benchmark=_one(found.confidence["benchmark"]),
        sentence=f"{found.title}: {KINDS[ANATOMY]}; {len(found.passes)} passes.",
        charts=[],
        pictures=place.pictures([found.name], alt),
        tables=[confidence_table(found), passes_table(found), layers_table(found)],
        facts=[("Origin", origin(found.passes)), *_commands(place.results / found.name)],
        commits=commits(found.passes),
        links=place.files(found.name),
    )


def _figures(group: Sequence[unifying.Figures], place: Place) -> Section:
    """Figures of Benzing (2022) of one scale, with the tables of every benchmark in them."""
    names = [one.name for one in group]
    alt = f"{group[0].scale}; the tables hold the numbers"
    pictures = [
        picture._replace(alt=f"Benzing (2022), figure {name.removeprefix('fig')}, {picture.alt}")
        for name in figures_of(group)
        for picture in place.pictures([f"unifying_{name}{group[0].suffix}"], alt)
    ]
    tables = []
    for one in group:
        made = [correlations_table(one), sums_table(one), way_table(one), extents_table(one)]
        made += [noise_table(one)] if len(one.noise) else []
        tables += [table._replace(title=f"{one.benchmark}: {table.title}{one.mark}") for table in made if table.rows]
    networks = pd.concat([one.networks for one in group])
    return Section(
        name=f"unifying_figures{group[0].suffix}" if len(group) > 1 else names[0],
        kind=FIGURES,
        benchmark=_one(networks["benchmark"]),
        sentence=f"{' and '.join(one.benchmark for one in group)}, {unifying.seeds(group)}: {KINDS[FIGURES]}.",
        charts=[],
        pictures=pictures,
        tables=tables,
        facts=[("Origin", origin(networks)), *(fact for name in names for fact in _commands(place.results / name))],
        commits=commits(networks),
        links=[Link(f"{name}/{link.text}", link.href) for name in names for link in place.files(name)],
    )


def _bench(paths: Sequence[Path], place: Place) -> Section:
    """What `make bench` measured."""
    found = {path: read_table(path, MEASURED, {}) for path in paths}
    rows = pd.concat(found.values())
    where = "; ".join(sorted(rows["hardware"].unique()))
    origins = f"Measured at commit {commits(rows)}, torch {', '.join(sorted(rows['torch'].unique()))}, {where}."
    return Section(
        name=BENCH,
        kind=BENCH,
        benchmark="",
        sentence="Ratios within one process, medians of interleaved rounds, beside their targets.",
        charts=[],
        pictures=[],
        tables=[
            _measured(title, pd.concat(tables))
            for title, tables in (
                ("Speed", [table for path, table in found.items() if path.stem != "memory"]),
                (
                    "Memory of all tensors a run holds",
                    [table for path, table in found.items() if path.stem == "memory"],
                ),
            )
            if tables
        ],
        facts=[("Origin", origins), ("Command", "`make bench`")],
        commits=commits(rows),
        links=place.links(paths),
    )


def _measured(title: str, table: pd.DataFrame) -> Table:
    """Rows of `make bench` beside their targets."""
    notes = list(dict.fromkeys(note for note in table["note"] if note))
    body = []
    for row in table.to_dict("records"):
        mark = f" [{notes.index(row['note']) + 1}]" if row["note"] else ""
        sign = "≥" if row["better"] == "at least" else "≤"
        result, target = (_quantity(row[key], row["value_unit"]) for key in ("value", "target"))
        body.append((row["name"] + mark, result, target if target == NOTHING else f"{sign} {target}", row["verdict"]))
    marked = tuple(f"[{i}] {note}" for i, note in enumerate(notes, 1))
    return Table(BENCH, title, ("What", "result", "target", "verdict"), tuple(body), marked)


def _quantity(value: float, unit: str) -> str:
    return NOTHING if pd.isna(value) else f"{value:.3g} {unit}"


def _commands(folder: Path) -> list[tuple[str, str]]:
    """The commands that made a folder, and the checksums of its data, from provenance.json."""
    known: dict[str, Any] = read_provenance(folder)
    commands = dict.fromkeys(f"`{one['command']}`" for one in known.get("invocations", []))
    data = [f"{name} {checksum[:12]}" for name, checksum in sorted(known.get("data", {}).items())]
    facts = [("Command", "; ".join(commands)), ("Data, SHA-256", ", ".join(data))]
    return [(name, text) for name, text in facts if text]


def _cost(runs: pd.DataFrame) -> str:
    """Sums of seconds_total by kind of device, and the largest memory of a process."""
    sums = runs.groupby("device")["seconds_total"].sum() / 60
    minutes = [f"{total:,.0f} {'core' if device == 'cpu' else device}-minutes" for device, total in sums.items()]
    shared = "; a first task that runs share is counted in each" if runs["shared_first_task"].any() else ""
    most = runs["peak_memory"].max()
    peak = f"; largest memory of a process {most / 1e9:.2g} GB" if most > 0 else ""
    return f"{' and '.join(minutes)}, the sum over {len(runs):,} runs{shared}{peak}."


def _one(values: pd.Series) -> str:
    """The value, if all are equal."""
    return str(values.iloc[0]) if values.nunique() == 1 else ""
