"""What a section of the page is made of, and what all sections say in the same way."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pandas as pd

from cl_repro.analysis.data.read import read_provenance
from cl_repro.analysis.data.settings import COMPARISON
from cl_repro.analysis.data.study import ARMS, CURVES, LISTING, TIMING, benchmark_name
from cl_repro.analysis.kinds import ANATOMY, FIGURES, IDEA, SEARCH
from cl_repro.analysis.output.markup import Table
from cl_repro.records import verifiable
from cl_repro.records.files import UNVERIFIED
from cl_repro.report.chart import Chart

SURVIVAL, BENCH = "survival", "bench"
KINDS = {
    CURVES: "accuracy against λ",
    ARMS: "one λ an arm",
    SEARCH: "lambda searched task by task",
    COMPARISON: "methods side by side",
    TIMING: "training time",
    ANATOMY: "how the estimates of the Fisher differ",
    FIGURES: "importance measures beside one run of SI",
    LISTING: "several benchmarks, scenarios or settings",
    IDEA: "two tasks in a plane of parameter space",
    SURVIVAL: "how long an example stays in a memory",
    BENCH: "speed and memory",
}  # in reading order
HEADLINE = "split_mnist_fisher"  # first of its benchmark, which is the first
MIXED = "Several benchmarks"
GROUPS = {IDEA: "How methods work", SURVIVAL: "How methods work", BENCH: "Speed and memory"}  # others: the benchmark's


class Link(NamedTuple):
    """A file beside the page."""

    text: str
    href: str  # relative to the page


class Picture(NamedTuple):
    """A figure that was drawn from the same files; wide ones of several panels are stacked on a narrow screen."""

    path: Path  # PNG
    alt: str
    links: list[Link]  # PNG and SVG


class Section(NamedTuple):
    """One results folder on the page, or several that share their figures; in reading order from `charts` on."""

    name: str
    title: str  # in words
    kind: str
    benchmark: str  # empty where there are several
    sentence: str
    facts: list[tuple[str, str]]  # origin, command, cost; code between backticks
    commits: str  # joined by +
    links: list[Link]
    charts: Sequence[Chart] = ()
    drawn: Sequence[Picture] = ()  # of what the charts show
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    more: Sequence[Chart] = ()  # behind the tables

    @property
    def group(self) -> str:
        """The page of the report that it is on: that of its kind or of its benchmark."""
        return GROUPS.get(self.kind) or (benchmark_name(self.benchmark) if self.benchmark else MIXED)


class Place(NamedTuple):
    """Where results are, and where the page will be."""

    results: Path
    page: Path  # folder

    def links(self, paths: Iterable[Path]) -> list[Link]:
        """Links to those files that are there, named as the files are."""
        return [
            Link(path.name, quote(Path(os.path.relpath(path, self.page)).as_posix()))
            for path in paths
            if path.is_file()
        ]

    def files(self, name: str) -> list[Link]:
        """Tables and provenance of a results folder, and what is made of it."""
        folder = self.results / name
        made = [self.results / "tables" / f"{stem}.md" for stem in (name, f"collapse_{name}")]
        made.append(self.results / "figures" / f"matrix_{name}.png")
        return self.links([*sorted(folder.glob("*.csv")), folder / "provenance.json", *made])

    def pictures(self, stems: Iterable[str], alt: str) -> list[Picture]:
        """Those of the figures that have been drawn, for the report."""
        paths = [self.results / "figures" / f"{stem}.png" for stem in stems]
        return [Picture(path, alt, self.links([path, path.with_suffix(".svg")])) for path in paths if path.is_file()]


def commands(folder: Path) -> list[tuple[str, str]]:
    """The commands that made a folder, and the checksums of its data, from provenance.json."""
    known: dict[str, Any] = read_provenance(folder)
    made = dict.fromkeys(f"`{one['command']}`" for one in known.get("invocations", []))
    data = [f"{name} {checksum[:12]}" for name, checksum in sorted(known.get("data", {}).items())]
    facts = [] if verifiable(folder) else [("Checksums", UNVERIFIED)]
    facts += [("Command", "; ".join(made)), ("Data, SHA-256", ", ".join(data))]
    return [(name, text) for name, text in facts if text]


def minutes(rows: pd.DataFrame, seconds: str) -> str:
    """The sum of a column of seconds, for each kind of device, in minutes."""
    sums = rows.groupby("device")[seconds].sum() / 60
    return " and ".join(f"{n:,.0f} {'core' if device == 'cpu' else device}-minutes" for device, n in sums.items())


def capital(text: str) -> str:
    """The text with its first letter as a capital."""
    return text[:1].upper() + text[1:]


def one(values: pd.Series) -> str:
    """The value that all have; empty if they differ."""
    return str(values.iloc[0]) if values.nunique() == 1 else ""
