"""A table of strings as Markdown, LaTeX and plain text.

Cells are written once, in plain Unicode (99.12 ± 0.16, −0.03, λ); each format replaces what it cannot show. The plain
form is pure ASCII, so that no terminal fails on it.
"""

import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from cl_repro.common.errors import visible
from cl_repro.records import verifiable, write_atomically
from cl_repro.records.files import UNVERIFIED

MINUS, DASH, TIMES = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"
NUMBER = re.compile(rf"[\[≤≥<+{MINUS}-]*\s*\d")  # at the beginning of a cell
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "`": r"\textasciigrave{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", MINUS: "$-$", DASH: "--", "λ": r"$\lambda$", "δ": r"$\delta$", "≤": r"$\leq$", "≥": r"$\geq$",
    TIMES: r"$\times$", "÷": r"$\div$", "√": r"$\surd$",
}  # fmt: skip
ASCII = {
    "±": "+-", MINUS: "-", DASH: "-", "λ": "lambda", "δ": "delta", "≤": "<=", "≥": ">=", TIMES: "x", "÷": ":",
    "√": "sqrt ",
}  # fmt: skip
# What Markdown, with GitHub's formulas, reads as something else: an underscore at an end of a word, and a link, too.
MARKDOWN = re.compile(r"[\\|*`<>&$~]|(?<!\w)_|_(?!\w)|(?<=\])\(")


class Table(NamedTuple):
    """Strings in rows; columns of numbers are set to the right, of words to the left."""

    name: str  # of the LaTeX label, e.g. accuracy
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """As in a terminal."""
        return plain(self)

    def _repr_markdown_(self) -> str:
        """As a notebook shows it, one heading level lower than in a file."""
        return f"#{markdown(self)}"


def to_the_right(table: Table) -> list[bool]:
    """Of each column whether it holds numbers; the first holds names."""
    columns = ([row[i] for row in table.rows if row[i] not in ("", DASH)] for i in range(len(table.header)))
    return [i > 0 and all(map(NUMBER.match, cells)) for i, cells in enumerate(columns)]


def told_once(table: Table, reasons: Collection[str]) -> Table:
    """The table without columns in which no arm has a number, for one of these reasons: a note says it once."""
    dropped: dict[int, str] = {}
    for i, cells in enumerate(zip(*table.rows, strict=True)):
        match [*set(cells) - {DASH}]:
            case [only] if only in reasons:
                dropped[i] = only
    if not dropped:
        return table
    kept = [i for i in range(len(table.header)) if i not in dropped]
    note = "Not shown: " + "; ".join(f"{table.header[i]} ({why})" for i, why in dropped.items()) + "."
    rows = tuple(tuple(row[i] for i in kept) for row in table.rows)
    return table._replace(header=tuple(table.header[i] for i in kept), rows=rows, notes=(*table.notes, note))


def markdown(table: Table) -> str:
    """The table with its title as heading and its notes as a list."""
    line = "| {} |".format
    rows = [" | ".join(_escaped(cell) for cell in row) for row in (table.header, *table.rows)]
    rule = " | ".join("---:" if right else "---" for right in to_the_right(table))
    body = "\n".join(line(row) for row in (rows[0], rule, *rows[1:]))
    notes = "\n".join(f"- {_escaped(note)}" for note in table.notes)
    return "\n\n".join(part for part in (f"## {_escaped(table.title)}", body, notes) if part) + "\n"


def latex(table: Table, study: str) -> str:
    """A floating table of the packages booktabs and graphicx, shrunk where it is wider than the line; all is escaped.

    Its label is `tab:<study>-<name>`.
    """
    rows = [" & ".join(_replaced(cell, LATEX) for cell in row) + r" \\" for row in (table.header, *table.rows)]
    rows = [f"{{}}{row}" if row.startswith(("[", "*")) else row for row in rows]  # else the line before would read it
    notes = [rf"\par\smallskip {{\footnotesize {_replaced(note, LATEX)}}}" for note in table.notes]
    lines = [
        r"\begin{table}",
        r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{_replaced(table.title, LATEX)}}}",
        rf"\label{{tab:{study}-{table.name}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{''.join('lr'[right] for right in to_the_right(table))}}}",
        r"\toprule",
        rows[0],
        r"\midrule",
        *rows[1:],
        r"\bottomrule",
        r"\end{tabular}}",
        *notes,
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def plain(table: Table) -> str:
    """The table for a terminal: ASCII, columns aligned, title above and notes below."""
    cells = [[_replaced(cell, ASCII) for cell in row] for row in (table.header, *table.rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.header))]
    lines = ["  ".join([row[0].ljust(widths[0]), *_right(row[1:], widths[1:])]).rstrip() for row in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    notes = [_replaced(note, ASCII) for note in table.notes]
    shown = [_replaced(table.title, ASCII), "", *lines, *([""] if notes else []), *notes]
    return "\n".join(map(visible, shown)) + "\n"


class Document(NamedTuple):
    """Tables that have files of their own."""

    name: str  # of the files, and of the labels in them
    heading: str  # the Markdown file's first line
    tables: list[Table]  # in reading order
    folder: Path  # that they are made of; where nothing says whether it is as it was written, the heading does

    def write(self, out: Path) -> list[Path]:
        """Write <out>/<name>.md and .tex, in a folder that is made if missing; returns the paths."""
        heading = self.heading + (f" ({UNVERIFIED})" if not verifiable(self.folder) else "")
        md, tex = out / f"{self.name}.md", out / f"{self.name}.tex"
        write_atomically(md, "\n".join([f"# {heading}\n", *map(markdown, self.tables)]).encode())
        comment = f"% {heading}. Needs \\usepackage{{booktabs,graphicx}}.\n"
        write_atomically(tex, "\n".join([comment, *(latex(table, self.name) for table in self.tables)]).encode())
        return [md, tex]


def _right(cells: list[str], widths: list[int]) -> list[str]:
    return [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]


def _escaped(text: str) -> str:
    return MARKDOWN.sub(r"\\\g<0>", text)


def _replaced(text: str, replacements: dict[str, str]) -> str:
    return "".join(replacements.get(character, character) for character in text)
