"""The page: sections and ledger set in one HTML file that fetches nothing."""

import base64
import gzip
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image
from plotly.offline import get_plotlyjs

from cl_repro.errors import Skipping, UserError
from cl_repro.records import write_atomically
from cl_repro.report.collect import collect
from cl_repro.report.ledger import Ledger, ledger
from cl_repro.report.section import Picture, Section
from cl_repro.stats import AGREES, DIFFERS, TOO_FEW

LIMIT = 6_000_000  # bytes of a page
TAG = 250  # bytes at most around a picture and its description
WIDTH, QUALITY = 1200, 75  # pixels at most, of a picture in the page; its files are linked
DPI = 200  # of a picture that does not say
COLOURS = {AGREES: "good", DIFFERS: "bad", TOO_FEW: "open", "met": "good", "not met": "bad"}  # of verdicts
FOLDED = ("points", "paired", "paired-none", "selection", "optimism", "layers")  # tables that are folded up at first


class Shown(NamedTuple):
    """A picture in the page."""

    uri: str  # data
    inches: float  # its width as drawn, which its letters are made for


def write_page(names: Sequence[str], results_dir: Path, out: Path, skipping: Skipping | None = None) -> list[Path]:
    """Write <out>/index.html; say in one line on standard error if pictures had no room in it.

    Args:
        names: folders under `results_dir`; empty: all.
        results_dir: the folder of all results.
        out: folder, made if missing.
        skipping: what to do with a bad folder; None: it is an error.

    Returns:
        The path.

    Raises:
        UserError: as `collect`, `ledger` and `page`.
    """
    path = out / "index.html"
    html, left_out = page(collect(names, results_dir, out, skipping), ledger(results_dir, skipping))
    write_atomically(path, html)
    if left_out:
        names_of = ", ".join(picture.path.name for picture in left_out)
        print(f"warning: {path} has no room below {LIMIT:,} bytes for {names_of}: linked only", file=sys.stderr)
    return [path]


def page(sections: Sequence[Section], published: Ledger | None) -> tuple[bytes, list[Picture]]:
    """The page, and the pictures that do not fit below `LIMIT`: those are linked and not shown.

    Args:
        sections: in reading order.
        published: the ledger, if there are published numbers.

    Returns:
        HTML, the same for the same files; pictures.

    Raises:
        UserError: it would be larger than `LIMIT` without any picture.
    """
    environment = Environment(
        loader=PackageLoader("cl_repro.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(code=code, colour=colour)
    environment.tests["folded"] = FOLDED.__contains__
    template = environment.get_template("page.html.jinja")
    groups: dict[str, list[Section]] = {}
    for section in sections:
        groups.setdefault(section.group, []).append(section)
    shas = sorted({sha for section in sections for sha in section.commits.split("+") if sha})
    plotly = packed(get_plotlyjs()) if any(section.charts or section.more for section in sections) else ""

    def render(images: dict[Path, Shown]) -> bytes:
        content = {"sections": sections, "groups": groups, "ledger": published, "commits": shas}
        return template.render(**content, plotly=plotly, images=images).encode()

    images: dict[Path, Shown] = {}
    size = len(render(images))
    if size > LIMIT:
        raise UserError(f"the page would have {size:,} bytes, more than {LIMIT:,}: name fewer studies")
    pictures = [picture for section in sections for picture in section.pictures]
    pictures += [picture for section in sections for picture in section.drawn]  # a chart shows the same
    for picture in pictures:
        image = shrunk(picture.path)
        added = len(image.uri) + len(picture.alt.encode()) + TAG
        if size + added <= LIMIT:
            images[picture.path] = image
            size += added
    return render(images), [picture for picture in pictures if picture.path not in images]


def shrunk(path: Path) -> Shown:
    """The picture as WebP, `WIDTH` pixels wide or less."""
    data = io.BytesIO()
    with Image.open(path) as image:
        inches = image.width / image.info.get("dpi", (DPI, DPI))[0]
        width = min(WIDTH, image.width)
        small = image.convert("RGB").resize(
            (width, round(image.height * width / image.width)), Image.Resampling.LANCZOS
        )
    small.save(data, format="WEBP", quality=QUALITY, method=4)
    return Shown("data:image/webp;base64," + base64.b64encode(data.getvalue()).decode(), inches)


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
