"""What a user calls an arm is shown as it is written: in a terminal, a figure, Markdown, LaTeX and HTML."""

import html
import io
import re

import cli
import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from cl_repro.analysis.data.arms import NamedArm, look
from cl_repro.analysis.lambdas.curves import curve, line
from cl_repro.analysis.output.figures import literal
from cl_repro.analysis.output.markup import Table, latex, markdown, plain
from cl_repro.common.errors import visible
from cl_repro.report.chart import template
from cl_repro.study import grid, status

LABELS = [
    "[/b]",
    "[b]x[/b]",
    r"$\frac$",
    r"a $x$ and \$y$",
    "<b>&amp;</b>",
    "100 % {x} %{y}",
    "_private_",
    "[text](link)",
    "~~x~~ `y` *z* | # ^ \\",
    "[1]",
]


@pytest.mark.parametrize("label", LABELS)
def test_a_terminal_shows_it(label: str) -> None:
    (cfg,) = cli.arms("seeds=[1]")
    arm, out = grid.make_arm(cfg | {"label": label}), io.StringIO()
    cells = grid.cells([arm])
    table = status.table_of(arm, cells, {cell.run_id: "missing" for cell in cells})
    Console(file=out, width=200).print(table)
    assert out.getvalue().splitlines()[0].strip() == label
    shown = plain(Table("t", label, (label, "x"), ((label, label),), (label,)))
    assert shown.count(label) == 5


@pytest.mark.parametrize("control", ["\x1b[31m", "\r", "\n", "\x07", "\x00", "\u202e"])
def test_nothing_makes_a_terminal_obey(control: str) -> None:
    """Such a label is refused before a run; an old one is shown with its escape written out."""
    written = control.encode("unicode_escape").decode()
    assert visible(f"a{control}b") == f"a{written}b"
    assert f"a{written}b" in plain(Table("t", "title", ("x", f"a{control}b"), ()))
    assert visible("λ = 1 ± 2, é") == "λ = 1 ± 2, é"


@pytest.mark.parametrize("label", LABELS)
def test_a_figure_shows_it(label: str) -> None:
    figure = Figure()
    axes = figure.subplots()
    arm = NamedArm("x", "ewc", "exact", label)
    style = look(arm, 0)
    curve(axes, arm, np.array([1.0, 10.0]), np.ones((2, 2)), style, 0)
    line(axes, arm, np.ones(2), style)
    axes.set_title(literal(label))
    texts = [*axes.legend().get_texts(), axes.title]
    assert len(texts) == 3
    for text in texts:
        written, is_math = text._preprocess_math(text.get_text())
        assert not is_math and written.lstrip("\N{ZERO WIDTH SPACE}") == label
    figure.canvas.draw()


def unescaped(text: str) -> str:
    """What CommonMark makes of it: a backslash before a mark is left out."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text)


@pytest.mark.parametrize("label", LABELS)
def test_markdown_shows_it(label: str) -> None:
    heading, _, row = markdown(Table("t", label, (label, "x"), ())).splitlines()[:3]
    cell = row.removeprefix("| ").removesuffix(" | x |")
    assert (unescaped(heading), unescaped(cell)) == (f"## {label}", label)
    bare = re.sub(r"\\.", "", cell)
    assert not re.search(r"[|*`<>&$~]|\]\(|\b_|_\b", bare)


@pytest.mark.parametrize("label", LABELS)
def test_latex_shows_it(label: str) -> None:
    row = latex(Table("t", "title", ("x",), ((label,),)), "s").split(r"\midrule")[1].split(r"\bottomrule")[0].strip()
    cell = row.removesuffix(r"\\").strip()
    names = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textasciigrave": "`"}
    names |= {"textless": "<", "textgreater": ">"}
    assert not cell.startswith(("[", "*"))  # an argument of the line before, and of its end
    shown = re.sub(r"\\(text\w+)\{\}|\\(.)", lambda m: names[m[1]] if m[1] else m[2], cell.removeprefix("{}"))
    assert shown == label


@pytest.mark.parametrize("label", LABELS)
def test_plotly_shows_it(label: str) -> None:
    """It reads a few tags and the entities of HTML, and what is between %{ and }."""
    text = template(label)
    assert re.findall(r"%\{.*?\}", text) == ["%{text}"]
    name = re.fullmatch(r"<b>(.*)</b><br>%\{text\}<extra></extra>", text)
    assert name and "<" not in name[1] and html.unescape(name[1]) == label
