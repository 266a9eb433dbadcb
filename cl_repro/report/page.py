"""The report: an index with what was found and the ledger, and a page a benchmark, of files that fetch nothing."""

import base64
import gzip
import io
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image
from plotly.offline import get_plotlyjs

from cl_repro.analysis.output.markup import Table
from cl_repro.common.errors import Skipping, UserError
from cl_repro.common.stats import AGREES, DIFFERS, TOO_FEW
from cl_repro.records import write_atomically
from cl_repro.report.collect import collect
from cl_repro.report.finding import Finding, finding
from cl_repro.report.ledger import Ledger, ledger
from cl_repro.report.section import HEADLINE, Picture, Place, Section

LIMIT = 6_000_000  # bytes of all pages together, with the program of the charts
INDEX = 1_000_000  # of the first
TAG, PART = 250, 220  # bytes at most around a picture and its description, and of each of its panels
WIDTH, QUALITY = 1200, 75  # pixels at most, of a picture in a page; its files are linked
DPI = 200  # of a picture that does not say
PROGRAM = "charts.js"  # of the pages that have charts: once for all of them, since it takes 2 MB
COLOURS = {AGREES: "good", DIFFERS: "bad", TOO_FEW: "open", "met": "good", "not met": "bad"}  # of verdicts
FOLDED = ("points", "paired", "paired-none", "selection", "optimism", "layers")  # tables that are folded up at first


class Shown(NamedTuple):
    """A picture in a page."""

    uri: str  # data
    inches: float  # its width as drawn, which its letters are made for
    width: int  # pixels
    height: int
    panels: tuple[tuple[float, ...], ...]  # left, top, width, height in pixels: what a narrow screen shows in turn


class Page(NamedTuple):
    """One file of the report."""

    file: str
    title: str
    sections: list[Section]


def write_page(names: Sequence[str], results_dir: Path, out: Path, skipping: Skipping | None = None) -> list[Path]:
    """Write <out>/index.html, a page a benchmark, and what their charts need; returns the paths, the index first.

    Of folders and `skipping` as `collect`. Says in one line on standard error if pictures had no room.

    Raises:
        UserError: as `collect`, `ledger` and `pages`.
    """
    sections = collect(names, results_dir, out, skipping)
    found = finding(Place(results_dir, out)) if any(section.name == HEADLINE for section in sections) else None
    made, left_out = pages(sections, ledger(results_dir, skipping), found)
    for file, content in made.items():
        write_atomically(out / file, content)
    if left_out:
        names_of = ", ".join(picture.path.name for picture in left_out)
        print(f"warning: {out} has no room below {LIMIT:,} bytes for {names_of}: linked only", file=sys.stderr)
    return [out / file for file in made]


def pages(
    sections: Sequence[Section], published: Ledger | None, found: Finding | None = None
) -> tuple[dict[str, bytes], list[Picture]]:
    """The files of the report by name, index.html first, and the pictures that do not fit below `LIMIT`: only linked.

    The same sections, in reading order, give the same files. The first begins with what was found, if that is there.

    Raises:
        UserError: they would be larger than `LIMIT` without any picture.
    """
    environment = Environment(
        loader=PackageLoader("cl_repro.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(code=code, colour=colour, fronted=fronted)
    environment.tests["folded"] = FOLDED.__contains__
    template = environment.get_template("page.html.jinja")
    groups: dict[str, list[Section]] = {}
    for section in sections:
        groups.setdefault(section.group, []).append(section)
    sheets = [Page(f"{slug(group)}.html", group, own) for group, own in groups.items()]
    shas = sorted({sha for section in sections for sha in section.commits.split("+") if sha})
    charted = any(section.charts or section.more for section in sections)
    made = {PROGRAM: f'"use strict";\nconst PACKED = "{packed(get_plotlyjs())}";\n'.encode()} if charted else {}

    def render(images: dict[Path, Shown]) -> dict[str, bytes]:
        common = {"pages": sheets, "images": images, "program": PROGRAM}
        first = {"sheet": None, "ledger": published, "commits": shas, "finding": found}
        files = {"index.html": template.render(**common, **first).encode()}
        for sheet in sheets:
            own: dict[str, Any] = {"sheet": sheet, "ledger": None, "commits": [], "finding": None}
            files[sheet.file] = template.render(**common, **own).encode()
        return files | made

    images = {found.picture.path: shrunk(found.picture.path)} if found else {}
    empty = render(images)
    size = sum(map(len, empty.values()))
    if size > LIMIT or len(empty["index.html"]) > INDEX:
        raise UserError(f"the report would have {size:,} bytes, more than {LIMIT:,}: name fewer studies")
    pictures = [picture for section in sections for picture in section.pictures]
    pictures += [picture for section in sections for picture in section.drawn]  # a chart shows the same
    for picture in pictures:
        image = shrunk(picture.path)
        added = len(image.uri) + len(picture.alt.encode()) + TAG + PART * len(image.panels)
        if size + added <= LIMIT:
            images[picture.path] = image
            size += added
    return render(images), [picture for picture in pictures if picture.path not in images]


def slug(title: str) -> str:
    """A title as the name of a file."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "page"


def fronted(table: Table) -> Table:
    """The table with ours and the verdicts right after the names of its rows, where a narrow screen shows them.

    Of several verdicts each says on whose number it is.
    """
    names = list(table.header)
    several = names.count("verdict") > 1
    if several:
        sources = [name.removesuffix(", %") for name in names]
        names = [f"verdict, {sources[i - 2]}" if name == "verdict" else name for i, name in enumerate(names)]
    ours = [i for i, name in enumerate(names) if i and name.split(",")[0] == "ours"]
    verdicts = [i for i, name in enumerate(names) if name.startswith("verdict")]
    order = [0, *ours, *verdicts]
    order += [i for i in range(len(names)) if i not in order]
    rows = tuple(tuple(row[i] for i in order) for row in table.rows)
    return table._replace(header=tuple(names[i] for i in order), rows=rows)


def shrunk(path: Path) -> Shown:
    """The picture as WebP, `WIDTH` pixels wide or less."""
    data = io.BytesIO()
    with Image.open(path) as image:
        inches = image.width / image.info.get("dpi", (DPI, DPI))[0]
        width = min(WIDTH, image.width)
        height = round(image.height * width / image.width)
        boxes = json.loads(image.info.get("Panels", "[]"))
        small = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    small.save(data, format="WEBP", quality=QUALITY, method=4)
    panels = tuple((x * width, y * height, (x1 - x) * width, (y1 - y) * height) for x, y, x1, y1 in boxes)
    uri = "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()
    return Shown(uri, inches, width, height, panels)


def packed(script: str) -> str:
    """Compressed, as base64: a program of 4.8 MB takes 2.0 MB of the page."""
    return base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()


def code(text: str) -> Markup:
    """Escaped; what is between backticks is set as code."""
    parts = [
        Markup("<code>{}</code>").format(part) if i % 2 else escape(part) for i, part in enumerate(text.split("`"))
    ]
    return Markup("").join(parts)


def colour(verdict: str) -> str:
    """The class of a verdict's cell, by its first words; `plain` for those that decide nothing."""
    return next((name for words, name in COLOURS.items() if verdict.startswith(words)), "plain")
