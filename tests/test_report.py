"""The page of results: its numbers are the tables', its links resolve, it fetches nothing and repeats byte for byte."""

import base64
import gzip
import json
import math
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import made_results
import numpy as np
import pandas as pd
import pytest
from markupsafe import escape
from matplotlib.figure import Figure
from PIL import Image, PngImagePlugin

import cl_repro
from cl_repro.analysis.data.arms import NamedArm, grid_of, look
from cl_repro.analysis.data.looks import LIBRARIES, LOOKS, METHODS, OTHERS
from cl_repro.analysis.data.study import CURVES, open_study
from cl_repro.analysis.lambdas.collapse import collapse
from cl_repro.analysis.lambdas.tables import tables_of
from cl_repro.analysis.lambdas.timing import timing_table
from cl_repro.analysis.output.figures import save
from cl_repro.analysis.output.markup import DASH, Table
from cl_repro.common.errors import UserError
from cl_repro.common.stats import Estimate
from cl_repro.records.measured import IDEA, SEARCH

pytest.importorskip("plotly", reason="plotly is not installed: pip install 'cl_repro[report]'")
from plotly.offline import get_plotlyjs

from cl_repro.report import chart, curves, studies
from cl_repro.report import collect as collecting
from cl_repro.report import page as paging
from cl_repro.report.finding import finding
from cl_repro.report.ledger import ledger
from cl_repro.report.section import Place, Section

ROOT = Path(cl_repro.__file__).resolve().parent.parent
MNIST, TIMING, MANY = "split_mnist_fisher", "split_mnist_timing", "three_scenarios"
SCRIPT = '<script>alert("x")</script>'


class Reader(HTMLParser):
    """Tables as rows of cells, attributes and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: dict[str, list[list[str]]] = {}
        self.classes: dict[str, dict[str, str]] = {}  # of a table's verdicts: text -> class
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.open: list[str] = []
        self._table, self._verdict = "", ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag not in ("meta", "input", "img", "path", "br"):
            self.open.append(tag)
        if tag == "table":
            self._table = found["id"]
            self.tables[self._table], self.classes[self._table] = [], {}
        if tag == "tr":
            self.tables[self._table].append([])
        if tag in ("th", "td"):
            self.tables[self._table][-1].append("")
            self._verdict = found.get("class") or ""
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        if tag not in ("path",):
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("th", "td"):
            self.tables[self._table][-1][-1] += data
            if self._verdict.startswith("verdict "):
                self.classes[self._table][data] = self._verdict
        elif self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif self.open and self.open[-1] != "style":
            self.texts.append(data)

    def values(self, name: str) -> list[str]:
        return [found[name] or "" for _, found in self.tags if name in found]


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """A study of curves with lost seeds, one of timing, one of several scenarios; a picture, and rows of bench."""
    root = tmp_path_factory.mktemp("results")
    rows = made_results.fisher_rows(fishers=("exact", "empirical"))
    for lost in (rows[10], rows[12]):  # of exact and seed 1, among 14 lambdas
        lost |= {"accuracy": math.nan, "status": "diverged"}
    made_results.write(root / MNIST, rows, command="python -m cl_repro study=a <b>")
    made_results.write(root / TIMING, made_results.timing_rows())
    made_results.write(root / MANY, many_rows())
    (root / "figures").mkdir()
    Image.new("RGB", (20, 10), "red").save(root / "figures" / f"{TIMING}.png")
    (root / "bench").mkdir()
    bench = {"name": "a / b", "value": 2.345, "value_unit": "x", "target": 2, "better": "at least", "note": "n <1>"}
    bench |= {"ours": 1.0, "other": 2.345, "unit": "s", "rounds": 3, "date": "2026-11-21"}
    stamp = {"verdict": "met", "git_sha": "0123456789", "dirty": False, "hardware": "a processor", "torch": "2.13.0"}
    other = {"name": "c", "value": math.nan, "note": "", "verdict": "not measured"}
    pd.DataFrame([bench | stamp, bench | stamp | other]).to_csv(root / "bench" / "steps.csv", index=False)
    return root


def many_rows() -> list[dict]:
    """Three scenarios, 87 cells of arm and lambda."""
    rows = []
    for scenario in ("task", "domain", "class"):
        own = made_results.fisher_rows((1, 2), ("exact", "sample"), scenario=scenario, study="runs")
        change = {key: scenario[0] for key in ("run_id", "config_id")}
        rows += [row | {key: prefix + row[key][1:] for key, prefix in change.items()} for row in own]
    return rows


@pytest.fixture(scope="module")
def content(results) -> tuple:
    return collecting.collect([], results, results / "report"), ledger(results)


@pytest.fixture(scope="module")
def pages(content) -> dict[str, bytes]:
    """The files of the report."""
    made, left_out = paging.pages(*content)
    assert left_out == []
    return made


@pytest.fixture(scope="module")
def reader(pages) -> Reader:
    """All pages, read one after the other."""
    return Reader(joined(pages))


def joined(pages: dict[str, bytes]) -> str:
    return "".join(content.decode() for file, content in pages.items() if file.endswith(".html"))


def html_of(sections: list[Section]) -> str:
    """The pages of some sections, one after the other."""
    return joined(paging.pages(sections, None)[0])


def tables_in(reader: Reader, section: str) -> list[list[list[str]]]:
    """Tables of a section in order, with their headers, without those of its charts."""
    found = {name: rows for name, rows in reader.tables.items() if name.startswith(f"{section}-")}
    return [rows for name, rows in found.items() if "-chart-" not in name and "-more-" not in name]


def as_rows(table: Table) -> list[list[str]]:
    return [list(table.header), *map(list, table.rows)]


def payload_of(study) -> dict:
    return json.loads(curves.charts(study)[0].payload)


def test_tables_on_the_page_are_those_of_the_analysis(results, reader):
    study = open_study(MNIST, results)
    assert study.kind == CURVES
    shown = tables_in(reader, MNIST)
    for table in tables_of(study):
        assert as_rows(paging.fronted(table)) in shown
    assert len(shown) == len(tables_of(study)) + 1  # how far the curves fall on one
    assert tables_in(reader, TIMING) == [as_rows(paging.fronted(timing_table(open_study(TIMING, results))))]
    for note in tables_of(study)[0].notes:
        assert note in reader.texts


def test_ledger_counts_every_published_row_and_colours_its_verdicts(content, reader):
    assert content[1].counts.notes[0] in reader.texts and "published numbers: agrees " in content[1].counts.notes[0]
    published = pd.read_csv(ROOT / "results" / "published" / "published.csv")
    header, total, *studies = reader.tables["ledger-counts"]
    assert total[:2] == ["all", str(len(published))]
    assert {row[0]: int(row[1]) for row in studies} == published.groupby("study").size().to_dict()
    verdicts = reader.classes[f"ledger-{MNIST}"]
    assert verdicts
    kinds = {"agrees": "good", "differs": "bad", "too few seeds": "open", "shown": "plain", "not yet run": "plain"}
    for text, found in verdicts.items():
        assert found == f"verdict {next(kind for start, kind in kinds.items() if text.startswith(start))}"
    assert set(header[2:]) <= set(kinds)
    for start, kind in {**kinds, "met": "good", "not met": "bad", "not measured": "plain"}.items():
        assert paging.colour(f"{start} (n = 3 needed)") == kind


def test_a_long_listing_is_shown_in_short(results, reader):
    (rows,) = tables_in(reader, MANY)
    cells = tables_of(open_study(MANY, results))[0].rows
    assert len(cells) > 2 * studies.ROWS and len(rows) == 1 + 3 * 3
    best = pd.DataFrame(cells).assign(mean=[float(cell[-1].split()[0]) for cell in cells]).groupby([0, 2])["mean"].max()
    assert {(row[0], row[2]): float(row[5].split()[0]) for row in rows[1:]} == best.to_dict()
    assert all(tuple(row) in cells for row in rows[1:])


def test_points_of_a_chart_are_means_over_the_seeds_that_are_there(results):
    study = open_study(MNIST, results)
    payload, runs = payload_of(study), study.runs[study.runs["status"] == "ok"]
    line = next(i for i, trace in enumerate(payload["traces"]) if "<b>EXACT</b>" in trace.get("hovertemplate", ""))
    cells = 100 * runs[runs["fisher"] == "exact"].groupby("lambda")["accuracy"].agg(["mean", "sem"])
    n = runs[runs["fisher"] == "exact"].groupby("lambda").size().to_numpy()
    assert payload["axes"][0]["x"][line] == cells.index.to_list()
    np.testing.assert_allclose(payload["traces"][line]["y"], cells["mean"], atol=1e-4)
    for text, lam, mean, sem, seeds in zip(
        payload["traces"][line]["text"], cells.index, cells["mean"], cells["sem"], n, strict=True
    ):
        assert text == f"λ = 1e{math.log10(lam):.0f}<br>mean {mean:.2f} %<br>SEM {sem:.2f}<br>n = {seeds} seeds"
    assert set(n) == {4, 5}
    band = payload["traces"][next(i for i, arm in enumerate(payload["arms"]) if arm == payload["arms"][line])]
    assert band["fill"] == "toself"
    outline = [*(cells["mean"] + cells["sem"]), *(cells["mean"] - cells["sem"])[::-1]]
    np.testing.assert_allclose(band["y"], outline, rtol=1e-5)


def test_the_second_axis_is_lambda_times_the_trace(results):
    study = open_study(MNIST, results)
    first, second = payload_of(study)["axes"]
    assert "trace" in second["title"] and "trace" not in first["title"]
    for trace, before, after in zip(payload_of(study)["traces"], first["x"], second["x"], strict=True):
        for name, estimator in (("EXACT", "exact"), ("EMPIRICAL", "empirical")):
            if f"<b>{name}</b>" in trace.get("hovertemplate", ""):
                size = made_results.TRACES[estimator] * np.prod([1 + 0.1 * s for s in made_results.SEEDS]) ** 0.2
                np.testing.assert_allclose(after, np.array(before) * size, rtol=1e-5)
    for axis in (first, second):
        x = [value for own in axis["x"] for value in own if value is not None]
        assert 10 ** axis["range"][0] < min(x) and max(x) < 10 ** axis["range"][1]


def test_lost_seeds_are_crosses(results):
    crosses = [t for t in payload_of(open_study(MNIST, results))["traces"] if t.get("marker", {}).get("symbol") == "x"]
    assert [text for one in crosses for text in one["text"]] == [
        "λ = 1e5<br>1 seed diverged or failed",
        "λ = 1e7<br>1 seed diverged or failed",
    ]


def test_a_curve_without_traces_has_one_axis_and_an_arm_without_is_left_out(tmp_path):
    rows = made_results.fisher_rows(fishers=("exact", "empirical", "sample"))
    folder = made_results.write(tmp_path / MNIST, rows, provenance=False)
    traces = pd.read_csv(folder / "importance.csv", dtype=str)
    ids = {row["run_id"] for row in rows if row["fisher"] == "sample"}
    traces[~traces["run_id"].isin(ids)].to_csv(folder / "importance.csv", index=False)
    (made,) = curves.charts(open_study(MNIST, tmp_path))
    assert made.left_out == ("SAMPLE",) and len(made.axes) == 2
    payload = json.loads(made.payload)
    placed = {payload["arms"][i] for i, x in enumerate(payload["axes"][1]["x"]) if x is not None}
    assert placed == {i for i, key in enumerate(made.keys) if key.label != "SAMPLE"}
    traces[:0].to_csv(folder / "importance.csv", index=False)
    (made,) = curves.charts(open_study(MNIST, tmp_path))
    assert len(made.axes) == 1 and made.left_out == ()


def test_bands_stop_where_no_spread_is_known():
    points = [Estimate(90.0 + i, math.nan if i == 2 else 1.0, 5) for i in range(6)]
    x = np.arange(1.0, 7.0)
    (band,) = chart.band(0, [x], points, look(NamedArm("", "ewc", "exact", ""), 0))
    assert band.x == [[1, 2, 2, 1, None, 4, 5, 6, 6, 5, 4]]
    assert list(band.trace.y) == [91, 92, 90, 89, None, 94, 95, 96, 94, 93, 92]


def test_every_link_resolves(results, pages):
    readers = {file: Reader(content.decode()) for file, content in pages.items() if file.endswith(".html")}
    assert {*readers} == {"index.html", "split-mnist.html", "speed-and-memory.html"}
    ids = {file: reader.values("id") for file, reader in readers.items()}
    for file, reader in readers.items():
        assert len(ids[file]) == len(set(ids[file]))
        for link in reader.values("href"):
            path, _, anchor = unquote(link).partition("#")
            there = (results / "report" / path).resolve().is_file() or path in pages or not path
            assert there and (not anchor or anchor in ids[path or file]), link
        labelled = [of for name in ("aria-labelledby", "for") for of in reader.values(name)]
        assert set(labelled) <= set(ids[file])
        assert {one for one in readers if one != file} <= {link.partition("#")[0] for link in reader.values("href")}
    links = readers["split-mnist.html"].values("href")
    for name in ("runs.csv", "accuracy.csv", "importance.csv", "provenance.json"):
        assert f"../{MNIST}/{name}" in links


def test_nothing_is_fetched(reader):
    for tag, found in reader.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "audio", "video")
        for name in ("src", "srcset", "data", "poster", "action", "background"):
            value = found.get(name) or "data:"
            assert value.startswith("data:") or (tag, value) == ("script", paging.PROGRAM)
        if "http" in (found.get("href") or ""):
            assert tag == "a"
    policy = next(
        found["content"] for tag, found in reader.tags if found.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none';") and "http" not in policy


def test_pictures_are_inlined_and_linked(reader):
    (image,) = [found for tag, found in reader.tags if tag == "img"]
    assert image["src"].startswith("data:image/webp;base64,") and TIMING in image["alt"]
    assert f"../figures/{TIMING}.png" in reader.values("href")


def test_pictures_that_do_not_fit_are_linked_only(content, pages, monkeypatch):
    whole = sum(map(len, pages.values()))
    monkeypatch.setattr(paging, "LIMIT", whole - 1)
    short, left_out = paging.pages(*content)
    assert sum(map(len, short.values())) < whole and [picture.path.stem for picture in left_out] == [TIMING]
    assert "<img" not in joined(short) and f'href="../figures/{TIMING}.png"' in joined(short)
    monkeypatch.setattr(paging, "LIMIT", 10_000)
    with pytest.raises(UserError, match=r"would have .* bytes, more than 10,000: name fewer studies"):
        paging.pages(*content)


def test_bench_rows_are_beside_their_targets(reader):
    rows = reader.tables["bench-1-bench"]
    assert rows[1:] == [["a / b [1]", "met", "2.35 x", "≥ 2 x"], ["c", "not measured", DASH, "≥ 2 x"]]
    assert "[1] n <1>" in reader.texts


def test_cost_and_commands_are_stated(results, reader):
    minutes = sum(row["seconds_total"] for row in made_results.fisher_rows(fishers=("exact", "empirical"))) / 60
    assert any(text.startswith(f"{minutes:,.0f} core-minutes") for text in reader.texts)
    assert "python -m cl_repro study=a <b>" in reader.texts
    assert any("0123456" in text for text in reader.texts)


def test_everything_is_escaped(tmp_path):
    odd = {"study": MNIST, "config_id": "odd"}
    rows = made_results.fisher_rows(fishers=("exact",), seeds=(1, 2), hardware=SCRIPT, benchmark=SCRIPT, model=SCRIPT)
    rows += [
        made_results.row("ewc-odd", "ewc", f"{SCRIPT}</script>", lam, seed, 0.9 + seed / 100, **odd, hardware=SCRIPT,
                         benchmark=SCRIPT, model=SCRIPT)
        for lam in (1.0, 10.0)
        for seed in (1, 2)
    ]  # fmt: skip
    made_results.write(tmp_path / MNIST, rows, command=f"python {SCRIPT} `{SCRIPT}`")
    sections = collecting.collect([], tmp_path, tmp_path / "report")
    made, _ = paging.pages(sections, None)
    text = joined(made)
    assert SCRIPT.lower() not in text.lower() and SCRIPT.upper() not in text
    assert {*made} == {"index.html", "script-alert-x-script.html", paging.PROGRAM}
    reader = Reader(text)
    assert sum(tag == "script" for tag, _ in reader.tags) == 5  # ours twice, one chart, what draws it, and with what
    assert any(SCRIPT in found for found in reader.texts)
    assert SCRIPT.upper() + "</SCRIPT>" in reader.tables[f"{MNIST}-1-accuracy"][2][0]
    payload = next(script for script in reader.scripts if script.startswith("{"))
    hover = [t.get("hovertemplate") or "" for t in json.loads(payload)["traces"]]
    assert any("&lt;SCRIPT&gt;" in found for found in hover) and not any("<SCRIPT" in found for found in hover)


def test_nothing_to_show_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"no results under .*make reproduce"):
        paging.write_page([], tmp_path, tmp_path / "report")
    with pytest.raises(UserError, match=r"no results at .*other \(there: none\)"):
        paging.write_page(["other"], tmp_path, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_the_headline_comes_first_and_speed_last(results, tmp_path):
    names = [section.name for section in collecting.collect([], results, results / "report")]
    assert names == [MNIST, TIMING, MANY, "bench"]
    for name, benchmark in (("split_mnist_a", "split_mnist"), ("digits", "split_digits"), ("cifar", "split_cifar10")):
        made_results.write(tmp_path / name, made_results.fisher_rows((1,), ("exact",), benchmark=benchmark))
    made_results.write(tmp_path / MNIST, made_results.fisher_rows((1,), ("exact",)))
    idea_of(tmp_path)
    two = [row for name in ("a", "b") for row in made_results.fisher_rows((1,), ("exact",), benchmark=name)]
    made_results.write(tmp_path / "two_smoke", two)
    sections = collecting.collect([], tmp_path, tmp_path / "report")
    assert [section.name for section in sections] == [MNIST, "split_mnist_a", "cifar", "digits", "two_smoke", "idea"]
    assert [section.group for section in sections] == [
        "Split MNIST", "Split MNIST", "Split CIFAR-10", "Split digits", "Several benchmarks", "How methods work",
    ]  # fmt: skip


@pytest.mark.slow
def test_script_writes_the_same_pages_twice_without_torch(results, pages):
    program = (
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", program, ROOT / "scripts" / "report.py", "--results-dir", results]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    folder = results / "report"
    assert out.splitlines() == [str(folder / file) for file in pages] and next(iter(pages)) == "index.html"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == pages


def picture_of(root: Path, name: str, width: int = 20, source: str = "") -> None:
    """A figure of that name, 200 dots an inch."""
    (root / "figures").mkdir(exist_ok=True)
    text = PngImagePlugin.PngInfo()
    text.add_text("Source", source)
    Image.new("RGB", (width, 10), "red").save(root / "figures" / f"{name}.png", dpi=(200, 200), pnginfo=text)


def section_of(root: Path, name: str) -> Section:
    return next(one for one in collecting.collect([], root, root / "report") if one.name == name)


def line_of(payload: dict, name: str, axis: int = 0) -> tuple[list[float], list[float]]:
    """Abscissae and ordinates of an arm's curve."""
    (i,) = (i for i, trace in enumerate(payload["traces"]) if f"<b>{name}</b>" in trace.get("hovertemplate", ""))
    return payload["axes"][axis]["x"][i], payload["traces"][i]["y"]


@pytest.mark.slow
def test_the_same_as_a_picture_is_folded_and_gives_way_to_the_other_pictures(results, tmp_path, monkeypatch, capsys):
    made_results.write(tmp_path / MNIST, made_results.fisher_rows((1, 2), ("exact", "empirical")))
    made_results.write(tmp_path / TIMING, made_results.timing_rows())
    for name in (MNIST, TIMING, f"collapse_{MNIST}"):
        picture_of(tmp_path, name)
    paths = paging.write_page([], tmp_path, tmp_path / "report")
    assert capsys.readouterr().err == ""
    assert [path.name for path in paths] == ["index.html", "split-mnist.html", paging.PROGRAM]
    reader = Reader(paths[1].read_text())
    alts = [found["alt"] for tag, found in reader.tags if tag == "img"]
    assert len(alts) == 2 and f"../figures/collapse_{MNIST}.png" in reader.values("href")
    assert reader.texts.count("The same as a picture") == 1
    monkeypatch.setattr(paging, "LIMIT", sum(path.stat().st_size for path in paths) - 1)
    paging.write_page([], tmp_path, tmp_path / "report")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("warning: ")
    assert f"{paging.LIMIT:,} bytes for {MNIST}.png" in lines[0] and TIMING not in lines[0]


def test_the_index_begins_with_what_was_found_and_a_bar_of_verdicts(tmp_path):
    made_results.write(tmp_path / MNIST, made_results.fisher_rows())
    place = Place(tmp_path, tmp_path / "report")
    assert finding(place) is None  # its figure has not been drawn
    picture_of(tmp_path, f"collapse_{MNIST}")
    found, study = finding(place), open_study(MNIST, tmp_path)
    grid = grid_of(study.runs, study.folder)
    best = [np.nanmean(grid.accuracy[a, :, i]) for a, i in enumerate(grid.best())]
    collapsed = collapse(study)
    assert f"5 ways of computing it reach {min(best):.1f} to {max(best):.1f} %" in found.text
    assert f"(without a penalty {np.mean(grid.none):.1f} %)" in found.text
    for spread in (collapsed.spread, collapsed.rescaled_spread):
        assert f" {spread.centre:.2f} " in found.text
    paging.write_page([], tmp_path, tmp_path / "report")
    text = (tmp_path / "report" / "index.html").read_text()
    reader = Reader(text)
    assert found.text in reader.texts
    order = ["<h1>", escape(found.text), "<img ", 'class="bar"', 'id="pages"', '<section id="ledger"', "<footer>"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "0123456" in text[places[-1] :] and "0123456" not in text[: places[4]]  # hashes come last
    (bar,) = (attributes["aria-label"] for tag, attributes in reader.tags if attributes.get("class") == "bar")
    counts = dict(reversed(part.split(" ", 1)) for part in bar.split(", "))
    published = pd.read_csv(ROOT / "results" / "published" / "published.csv")
    assert sum(map(int, counts.values())) == len(published) and int(counts["not yet run"]) > 0
    widths = [float(style) for style in re.findall(r'style="flex-grow: (\d+)"', text)]
    assert widths == [*map(int, counts.values())]
    assert "git" not in found.text and not re.search(r"[0-9a-f]{7}", found.text)


def test_ours_and_verdicts_stand_beside_the_name_of_their_row():
    header = ("Arm", "best λ", "ours, %", "a, %", "ours − theirs", "verdict", "b, %", "ours − theirs", "verdict")  # noqa: RUF001
    table = Table("accuracy", "t", header, (tuple("0123456789"[: len(header)]),))
    made = paging.fronted(table)
    assert made.header[:4] == ("Arm", "ours, %", "verdict, a", "verdict, b") and made.rows == (tuple("025813467"),)
    one = Table("ledger", "t", ("number", "source", "published", "ours", "verdict"), (tuple("01234"),))
    assert paging.fronted(one).header == ("number", "ours", "verdict", "source", "published")
    other = Table("x", "t", ("a", "b"), (("0", "1"),))
    assert paging.fronted(other) == other


def test_a_narrow_screen_shows_the_panels_of_a_picture_in_turn(tmp_path):
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    save(figure, "t", "s", tmp_path / "two")
    shown = paging.shrunk(tmp_path / "two.png")
    assert len(shown.panels) == 2 and (shown.width, shown.height) == (1200, 480)
    for (x, _, w, h), axes in zip(shown.panels, (left, right), strict=True):
        frame = axes.get_position()
        assert x <= 1200 * frame.x0 and 1200 * frame.x1 <= x + w + 1 and h > 480 * frame.height
    assert shown.panels[0][0] + shown.panels[0][2] <= shown.panels[1][0] + 1
    left.sharey(right)
    right.tick_params(labelleft=False)  # its rows are named in the other panel alone
    save(figure, "t", "s", tmp_path / "two")
    assert paging.shrunk(tmp_path / "two.png").panels == ()


def test_arms_with_too_few_lambdas_for_curves_are_shown_as_their_picture(tmp_path):
    arms = (("si", (1.0, 2.0)), ("mas", (5.0,)), ("siu", (5.0,)))
    rows = [
        made_results.row(method, method, "", lam, seed, 0.9 + seed / 100, study=MNIST)
        for method, lams in arms for lam in lams for seed in (1, 2)
    ]  # fmt: skip
    made_results.write(tmp_path / MNIST, rows)
    picture_of(tmp_path, MNIST)
    section = section_of(tmp_path, MNIST)
    assert section.kind == CURVES and [*section.charts] == [*section.drawn] == []
    assert [picture.path.stem for picture in section.pictures] == [MNIST]


def test_titles_are_words(results):
    sections = collecting.collect([], results, results / "report")
    assert [section.title for section in sections] == [
        "Five ways of computing the Fisher", "What each Fisher costs in time",
        "Several benchmarks, scenarios or settings", "What make bench measures",
    ]  # fmt: skip


def test_a_picture_is_as_wide_as_it_was_drawn(tmp_path):
    for name, pixels in (("a", 1280), ("b", 2520)):
        picture_of(tmp_path, name, pixels)
        shown = paging.shrunk(tmp_path / "figures" / f"{name}.png")
        assert shown.inches == pytest.approx(pixels / 200, rel=1e-4)
        data = base64.b64decode(shown.uri.partition(",")[2])
        (tmp_path / "a.webp").write_bytes(data)
        with Image.open(tmp_path / "a.webp") as image:
            assert image.width == paging.WIDTH == 1200
    assert len(data) < 1000


def test_plotly_is_beside_the_pages_once_compressed(pages):
    text = pages[paging.PROGRAM].decode().partition('PACKED = "')[2].partition('"')[0]
    assert gzip.decompress(base64.b64decode(text)).decode() == get_plotlyjs()
    assert sum(map(len, pages.values())) < 2_300_000
    charted = {file for file in pages if f'src="{paging.PROGRAM}"'.encode() in pages[file]}
    assert charted == {"split-mnist.html"}


def test_bands_are_fainter_where_many_lie_over_each_other(results, monkeypatch):
    study, opacities = open_study(MNIST, results), []
    for many in (2, 1):  # there are two curves
        monkeypatch.setattr(curves, "MANY", many)
        fills = [trace["fillcolor"] for trace in payload_of(study)["traces"] if trace.get("fill") == "toself"]
        opacities.append(sorted(float(fill.removesuffix(")").split(",")[-1]) for fill in fills))
    assert opacities == [[0.13, 0.13, 0.13], [0.065, 0.065, 0.13]]  # None's stays


def test_arms_that_would_look_alike_do_not(tmp_path):
    rows = [
        made_results.row(arm, method, fisher, lam, seed, 0.9 + seed / 100, study=MNIST)
        for arm, method, fisher, lams in (
            ("finetune", "finetune", "", (None,)),
            ("finetune-winners", "finetune", "", (None,)),
            ("ewc-predicted", "ewc", "predicted", (1.0, 10.0)),
            ("ewc-anew", "ewc", "predicted", (1.0, 10.0)),
            ("ewc-exact", "ewc", "exact", (1.0, 10.0)),
        )
        for lam in lams
        for seed in (1, 2)
    ]
    made_results.write(tmp_path / MNIST, rows)
    (made,) = curves.charts(open_study(MNIST, tmp_path))
    keys = {key.label: key for key in made.keys}
    assert set(keys) == {"None", "None [winners]", "EXACT", "PREDICTED", "PREDICTED [anew]"}
    assert len({(key.colour, key.outline, key.filled) for key in keys.values()}) == 5
    assert keys["None [winners]"].outline == keys["None"].outline == ""
    own = (LOOKS[name].colour for name in ("finetune", "exact", "predicted"))
    assert set(own) <= {key.colour for key in keys.values()}
    traces = [trace for trace in json.loads(made.payload)["traces"] if trace.get("hovertemplate")]
    drawn = {trace["hovertemplate"][3:].partition("</b>")[0]: trace["line"]["color"] for trace in traces}
    assert drawn == {label: key.colour for label, key in keys.items()}


def test_every_look_has_a_marker_of_its_own():
    for one in (*LOOKS.values(), *METHODS.values(), *OTHERS, *(own for _, own in LIBRARIES.values())):
        assert one.marker in chart.MARKERS
    names, outlines = zip(*chart.MARKERS.values(), strict=True)
    assert len(set(outlines)) == len(outlines) and len(set(names) - {"circle"}) == len(names) - 2


# --- comparisons ------------------------------------------------------------------------------------------------------


def compared_rows(study: str, arms: dict[tuple[str, str, float | None], float], fisher: str = "") -> list[dict]:
    """Rows of three seeds in two scenarios, from (arm, method, lambda) -> accuracy of seed 0."""
    return [
        made_results.row(
            f"{arm}-{scenario}", method, fisher if method == "ewc" else "", lam, seed, accuracy - shift + seed / 100,
            study=study, scenario=scenario,
        )
        | {"arm": arm}
        for scenario, shift in (("task", 0.0), ("class", 0.3))
        for (arm, method, lam), accuracy in arms.items()
        for seed in (1, 2, 3)
    ]  # fmt: skip


def test_a_comparison_shows_its_picture_its_tables_and_then_accuracy_against_lambda(tmp_path):
    name, lams = "palliatives_split_mnist", (1.0, 10.0, 100.0)
    arms = {("finetune", "finetune", None): 0.5, ("joint", "joint", None): 0.9}
    arms |= {("si", "si", lam): 0.6 + 0.1 * i for i, lam in enumerate(lams)}
    rows = compared_rows(name, arms)
    for fisher in ("exact", "empirical"):  # with traces
        ewc = {(f"ewc-{fisher}", "ewc", lam): 0.55 + 0.1 * i for i, lam in enumerate(lams)}
        rows += compared_rows(name, ewc, fisher)
    columns = compared_rows(name, {("sharpening", "sharpening", lam): 0.7 for lam in lams})
    rows += [row | {"model": "winners"} for row in columns]  # another network, the same chart
    made_results.write(tmp_path / name, rows)
    picture_of(tmp_path, name)
    section = section_of(tmp_path, name)
    assert [picture.path.stem for picture in section.pictures] == [name]
    assert [*section.charts] == [*section.drawn] == []
    assert section.tables[0].name == "comparison"
    assert [made.title for made in section.more] == [
        f"Split MNIST, {which}-incremental, 3 seeds" for which in ("class", "task")
    ]
    for made, shift in zip(section.more, (30, 0), strict=True):
        assert len(made.axes) == 1 and {"None", "JOINT", "SI", "EXACT", "SHARPENING"} <= {
            key.label for key in made.keys
        }
        x, y = line_of(json.loads(made.payload), "SI")
        assert x == [*lams] and y == pytest.approx([62 - shift, 72 - shift, 82 - shift])
    text = html_of([section])
    order = [text.index(part) for part in ("<img", ">Methods side by side<", f'id="{name}-more-1"')]
    assert order == sorted(order) and f'src="{paging.PROGRAM}"' in text


def test_stored_examples_are_the_axis_where_arms_differ_in_them(tmp_path):
    name, sizes = "replay_vs_ewc", (1, 5, 20)
    arms = {("finetune", "finetune", None): 0.5, ("joint", "joint", None): 0.96}
    arms |= {(f"replay-{n}_a_class", "replay", 1.0): 0.6 + n / 100 for n in sizes}
    arms |= {(f"replay-insert_all_{n}_a_class", "replay", 1.0): 0.4 + n / 100 for n in sizes}
    rows = compared_rows(name, arms)
    ewc = {("ewc-exact", "ewc", lam): 0.5 + 0.1 * i for i, lam in enumerate((1.0, 10.0, 100.0))}
    rows += compared_rows(name, ewc, "exact")
    lost = next(row for row in rows if row["arm"] == "replay-20_a_class" and row["seed"] == 3)
    lost |= {"accuracy": math.nan, "status": "diverged"}  # of the task scenario
    made_results.write(tmp_path / name, rows)
    picture_of(tmp_path, name)
    section = section_of(tmp_path, name)
    assert [picture.path.stem for picture in section.drawn] == [name]
    assert [*section.pictures] == [*section.more] == []
    for made, shift in zip(section.charts, (0, 30), strict=True):
        payload, tail = json.loads(made.payload), 1.5 if not shift else 2.0
        assert payload["layout"]["xaxis"]["tickvals"] == [*sizes]
        x, y = line_of(payload, "replay, end-of-task memory")
        assert x == [*sizes] and y == pytest.approx([63 - shift, 67 - shift, 80 + tail - shift])
        x, y = line_of(payload, "replay, everything inserted")
        assert x == [*sizes] and y == pytest.approx([43 - shift, 47 - shift, 62 - shift])
        for flat, mean in (("joint", 98), ("EWC, exact Fisher", 72), ("None", 52)):
            x, y = line_of(payload, flat)
            assert (x[0], x[-1]) == (1, 20) and y == pytest.approx([mean - shift] * len(x))
        low, high = payload["axes"][0]["range"]
        assert low < 0 and high > math.log10(20)
    rows = dict((row[0], row[1:]) for row in section.charts[0].table.rows)
    assert list(rows) == ["1", "5", "20"]
    assert [rows["20"][0].split()[0], rows["20"][0].split()[-1]] == ["81.50", "(2)"]
    hover = next(t["text"] for t in json.loads(section.charts[0].payload)["traces"] if "end-of-task" in str(t))
    assert hover[2] == "20 a class<br>mean 81.50 %<br>SEM 0.50<br>n = 2 seeds"


# --- how methods work, and searches -----------------------------------------------------------------------------------


def idea_of(root: Path) -> None:
    """Two methods' paths, made up, with a plane and a figure."""
    (root / "idea").mkdir(parents=True)
    rows = [
        ("finetune", math.nan, step, 3.0 * step, 0.0, 4.0 * step, 0.9 - 0.1 * step, 0.1 + 0.4 * step)
        for step in (0, 1, 2)
    ]
    rows += [("ewc-exact", 300.0, step, 0.0, 6.0 * step, 8.0 * step, 0.9, 0.1 + 0.3 * step) for step in (0, 1, 2)]
    pd.DataFrame(rows, columns=list(IDEA["paths.csv"])).to_csv(root / "idea" / "paths.csv", index=False)
    pd.DataFrame(0.0, index=[0], columns=list(IDEA["plane.csv"])).to_csv(root / "idea" / "plane.csv", index=False)
    picture_of(root, "idea", 1920)


def test_the_plane_of_two_tasks_has_a_section(tmp_path):
    idea_of(tmp_path)
    section = section_of(tmp_path, "idea")
    assert section.group == "How methods work" and section.commits == ""
    assert [picture.path.stem for picture in section.pictures] == ["idea"]
    assert section.tables[0].rows == (
        ("after task A", DASH, "90.0", "10.0", "0.00", "0.00"),
        ("no penalty", DASH, "70.0", "90.0", "10.00", "8.00"),
        ("EWC, exact Fisher", "300", "90.0", "70.0", "20.00", "16.00"),
    )
    reader = Reader(html_of([section]))
    assert {"../idea/paths.csv", "../idea/plane.csv", "../figures/idea.png"} <= set(reader.values("href"))
    (image,) = (found for tag, found in reader.tags if tag == "img")
    assert image["style"] == "--inches: 9.60"
    made_results.write(tmp_path / TIMING, made_results.timing_rows())
    for name in ("idea", TIMING):
        assert [one.name for one in collecting.collect([name], tmp_path, tmp_path / "report")] == [name]


def test_what_a_memory_keeps_is_shown_once_it_is_drawn(tmp_path):
    idea_of(tmp_path)
    assert [one.name for one in collecting.collect([], tmp_path, tmp_path / "report")] == ["idea"]
    picture_of(tmp_path, "memory_survival", source="cl_repro/memory.py, seed <0>")
    section = section_of(tmp_path, "memory_survival")
    assert section.facts[0] == ("Origin", "cl_repro/memory.py, seed <0>")
    text = html_of([section])
    assert "<dt>Files</dt>" not in text and "seed &lt;0&gt;" in text and "(1 \N{MINUS SIGN} 1/M)ⁿ" in text
    assert "../figures/memory_survival.png" in Reader(text).values("href")
    assert "Results of 1 commit" not in text
    both = html_of([section, section._replace(name="other", commits="abc")])
    assert "<summary>Results of 1 commit</summary><p>abc</p>" in both


def test_searches_show_accuracies_and_the_lambdas_that_were_kept(tmp_path):
    folder = tmp_path / "strength_search_split_digits"
    stamp = {"hardware": "a processor", "torch": "2", "device": "cpu", "dtype": "float32"}
    stamp |= {"finished": "2026-11-21", "schema_version": 1}
    final, attempts = [], []
    for method, seed, status in (("si", 1, "ok"), ("si", 2, "ok"), ("mas", 1, "ok"), ("mas", 2, "diverged")):
        key = {"config_id": f"id-{method}", "arm": method, "seed": seed}
        of = {"benchmark": "split_digits", "model": "mlp", "method": method, "fisher": "", "status": status}
        of |= {"seconds": 60.0, "git_sha": "abcdef0123", "dirty": False}
        for task, accuracy in (("1", 0.5 + seed / 10), ("2", 0.9), ("average", 0.7 + seed / 20)):
            final.append(key | of | stamp | {"task": task, "accuracy": accuracy})
        for task in (1, 2):
            one = {"task": task, "phase": 1, "attempt": 1, "lr": 0.1, "epochs": 3, "accuracy": 0.9, "kept": True}
            attempts.append(key | one | {"strength": math.nan})
            for attempt in (1, 2):
                again = {"phase": 2, "attempt": attempt, "strength": 8.0 * seed / 2**attempt, "kept": attempt == 2}
                attempts.append(key | one | again)
    folder.mkdir()
    pd.DataFrame(final)[list(SEARCH["final.csv"])].to_csv(folder / "final.csv", index=False)
    pd.DataFrame(attempts)[list(SEARCH["attempts.csv"])].to_csv(folder / "attempts.csv", index=False)
    section = section_of(tmp_path, folder.name)
    assert section.group == "Split digits" and section.commits == "abcdef0"
    assert "2 seeds" in section.sentence and "2 methods, 24 trainings" in section.sentence
    accuracy, lambdas = section.tables
    assert accuracy.header == ("Method", "average", "task 1", "task 2")
    assert dict((row[0], row[1:]) for row in accuracy.rows) == {
        "SI": ("77.50 ± 2.50 (2)", "65.0", "90.0"),
        "MAS": ("75.00 (1)", "60.0", "90.0"),
    }
    assert dict((row[0], row[1:]) for row in lambdas.rows) == {
        "SI": ("2 to 4", "2 to 4", "12"),
        "MAS": ("2 to 4", "2 to 4", "12"),
    }
    assert ("Cost", "4 core-minutes, the sum over 4 searches.") in section.facts
    links = [link.href for link in section.links]
    assert links == [f"../{folder.name}/attempts.csv", f"../{folder.name}/final.csv"]


@pytest.mark.slow  # all committed results: several seconds
def test_the_page_of_the_committed_results_is_small_and_so_is_each_section():
    results = ROOT / "results"
    sections = collecting.collect([], results, results / "report")
    place = Place(results, results / "report")
    made, left_out = paging.pages(sections, ledger(results), finding(place))
    text = joined(made)
    assert left_out == []
    assert all(f'id="{path.parent.name}"' in text for path in results.glob("*/anatomy.csv"))
    assert all(f'id="{name}"' in text for name in ("idea", "memory_survival", "palliatives_split_mnist"))
    assert sum(map(len, made.values())) < paging.LIMIT == 6_000_000
    assert len(made["index.html"]) < paging.INDEX == 1_000_000
    assert len(made) == 1 + len({section.group for section in sections}) + 1  # and the program of the charts
    parts = re.findall(r"<section .*?</section>", text, re.DOTALL)
    assert len(parts) == len(sections) + 2  # and the list of pages, and the ledger
    for part in parts:  # plotly takes 2 MB, which leaves 4 for about twenty of them
        assert len(part.encode()) < 150_000 + 80_000 * part.count("<img "), part[:80]
