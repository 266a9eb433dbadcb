"""The committed figures, tables and ledger are what today's code makes of the committed CSVs, on whatever processor."""

import os
import re
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path

import cli
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cl_repro.analysis.output.figures import save

RESULTS = cli.ROOT / "results"
SHADE, PIXELS = 24, 50  # of 255, and how many: another processor rounds the edge of a letter or a colour otherwise
AWAY = 0.02  # points of an SVG
NUMBER = re.compile(r"(?<![\w#.])-?\d+\.?\d*(?:e-?\d+)?")
OWN = re.compile(
    r'(?<=["#])[A-Za-z]+[0-9a-f]{10}|base64,[^"]*'
)  # names made of what they name, and pictures in pictures


def other_pixels(one: Path, other: Path) -> int:
    """How many pixels of two PNGs differ by more than `SHADE`; all of them, where their sizes do."""
    with Image.open(one) as a, Image.open(other) as b:
        if a.size != b.size:
            return a.width * a.height
        x, y = (np.asarray(image.convert("RGB"), dtype=int) for image in (a, b))
    return int((abs(x - y).max(axis=2) > SHADE).sum())


def other_drawing(one: Path, other: Path) -> bool:
    """Whether two SVGs differ in more than their numbers, or in one by more than `AWAY`."""
    a, b = (OWN.sub("", path.read_text()) for path in (one, other))
    if NUMBER.sub("0", a) != NUMBER.sub("0", b):
        return True
    x, y = (np.array(NUMBER.findall(text), dtype=float) for text in (a, b))
    return not np.allclose(x, y, rtol=0, atol=AWAY)


@pytest.mark.slow  # all figures: minutes
def test_the_committed_figures_tables_and_ledger_are_those_of_the_committed_rows(tmp_path):
    copy = shutil.copytree(RESULTS, tmp_path / "results", ignore=shutil.ignore_patterns("figures", "report", "tables"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for script in ("plot.py", "table.py", "ledger.py"):  # as `make figures tables ledger`
        command = [sys.executable, cli.ROOT / "scripts" / script, "--results-dir", copy]
        done = subprocess.run(command, cwd=cli.ROOT, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
    for folder in ("figures", "tables"):
        names = [{path.name for path in (root / folder).iterdir()} for root in (RESULTS, copy)]
        assert names[0] == names[1]
    texts = [*(f"tables/{path.name}" for path in (copy / "tables").iterdir()), "LEDGER.md", "ledger.csv"]
    assert [name for name in texts if (copy / name).read_bytes() != (RESULTS / name).read_bytes()] == []
    drawn = sorted(
        p for p in (copy / "figures").iterdir() if p.read_bytes() != (RESULTS / "figures" / p.name).read_bytes()
    )
    stale = chain(
        (p.name for p in drawn if p.suffix == ".png" and other_pixels(p, RESULTS / "figures" / p.name) > PIXELS),
        (p.name for p in drawn if p.suffix == ".svg" and other_drawing(p, RESULTS / "figures" / p.name)),
    )
    assert [*stale] == []


def test_what_no_digit_of_a_figure_shows_changes_no_byte_of_it(tmp_path):
    """The place of a panel in its last bit, which is another from one drawing to the next."""
    for name, left in (("a", 0.1), ("b", np.nextafter(0.1, 1))):
        figure = Figure(figsize=(4, 3))
        for bottom in (0.1, 0.6):
            figure.add_axes((left, bottom, 0.8, 0.3)).plot([0, 1, 2])
        save(figure, "title", "source", tmp_path / name / "figure")
    a, b = (tmp_path / name / "figure.svg" for name in ("a", "b"))
    assert a.read_bytes() == b.read_bytes()
    assert len(set(re.findall(r'<clipPath id="(\w+)"', a.read_text()))) == 2


def test_a_figure_of_another_number_is_told_and_one_of_another_rounding_is_not(tmp_path):
    """A point that moves by half a percent of the panel, and one that moves by a thousandth of a point."""
    for name, y in (("a", 1.0), ("rounded", 1.0 + 1e-6), ("moved", 1.01)):
        figure = Figure(figsize=(4, 3))
        figure.add_subplot().plot([0, 1, 2], [0, y, 2], "o-", linewidth=2)
        save(figure, "title", "source", tmp_path / name / "figure")
    names = ("a", "rounded", "moved")
    png, svg = ({name: tmp_path / name / f"figure.{kind}" for name in names} for kind in ("png", "svg"))
    assert other_pixels(png["a"], png["rounded"]) <= PIXELS < other_pixels(png["a"], png["moved"])
    assert not other_drawing(svg["a"], svg["rounded"]) and other_drawing(svg["a"], svg["moved"])
