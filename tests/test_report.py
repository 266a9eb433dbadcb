"""The page of results: its numbers are the tables', its links resolve, it fetches nothing and repeats byte for byte."""

import json
import math
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import made_results
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cl_repro
from cl_repro.analysis.markup import DASH, Table
from cl_repro.analysis.study import CURVES, open_study
from cl_repro.analysis.tables import tables_of
from cl_repro.analysis.timing import timing_table
from cl_repro.errors import UserError

pytest.importorskip("plotly", reason="plotly is not installed: pip install 'cl_repro[report]'")
from cl_repro.report import collect as collecting
from cl_repro.report import curves
from cl_repro.report import page as paging
from cl_repro.report.ledger import ledger

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
def html(content) -> str:
    return paging.page(*content).decode()


@pytest.fixture(scope="module")
def reader(html) -> Reader:
    return Reader(html)


def tables_in(reader: Reader, section: str) -> list[list[list[str]]]:
    """Tables of a section in order, with their headers, without those of its charts."""
    found = {name: rows for name, rows in reader.tables.items() if name.startswith(f"{section}-")}
    return [rows for name, rows in found.items() if "-chart-" not in name]


def as_rows(table: Table) -> list[list[str]]:
    return [list(table.header), *map(list, table.rows)]


def payload_of(study) -> dict:
    return json.loads(curves.charts(study)[0].payload)


def test_tables_on_the_page_are_those_of_the_analysis(results, reader):
    study = open_study(MNIST, results)
    assert study.kind == CURVES
    shown = tables_in(reader, MNIST)
    for table in tables_of(study):
        assert as_rows(table) in shown
    assert len(shown) == len(tables_of(study)) + 1  # how far the curves fall on one
    assert tables_in(reader, TIMING) == [as_rows(timing_table(open_study(TIMING, results)))]
    for note in tables_of(study)[0].notes:
        assert note in reader.texts


def test_ledger_counts_every_published_row_and_colours_its_verdicts(reader):
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
    assert len(cells) > 2 * collecting.ROWS and len(rows) == 1 + 3 * 3
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
    (chart,) = curves.charts(open_study(MNIST, tmp_path))
    assert chart.left_out == ("SAMPLE",) and len(chart.axes) == 2
    payload = json.loads(chart.payload)
    placed = {payload["arms"][i] for i, x in enumerate(payload["axes"][1]["x"]) if x is not None}
    assert placed == {i for i, key in enumerate(chart.keys) if key.label != "SAMPLE"}
    traces[:0].to_csv(folder / "importance.csv", index=False)
    (chart,) = curves.charts(open_study(MNIST, tmp_path))
    assert len(chart.axes) == 1 and chart.left_out == ()


def test_bands_stop_where_no_spread_is_known():
    points = [curves.Estimate(90.0 + i, math.nan if i == 2 else 1.0, 5) for i in range(6)]
    x = np.arange(1.0, 7.0)
    (band,) = curves._band(0, [x], points, curves.look(curves.Arm("", "ewc", "exact", ""), 0))
    assert band.x == [[1, 2, 2, 1, None, 4, 5, 6, 6, 5, 4]]
    assert list(band.trace.y) == [91, 92, 90, 89, None, 94, 95, 96, 94, 93, 92]


def test_every_link_resolves(results, reader):
    ids = reader.values("id")
    assert len(ids) == len(set(ids))
    links = reader.values("href")
    for link in links:
        there = link[1:] in ids if link.startswith("#") else (results / "report" / unquote(link)).resolve().is_file()
        assert there, link
    for name in ("runs.csv", "accuracy.csv", "importance.csv", "provenance.json"):
        assert f"../{MNIST}/{name}" in links
    labelled = [of for name in ("aria-labelledby", "for") for of in reader.values(name)]
    assert set(labelled) <= set(ids)


def test_nothing_is_fetched(reader):
    for tag, found in reader.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "audio", "video")
        for name in ("src", "srcset", "data", "poster", "action", "background"):
            assert (found.get(name) or "data:").startswith("data:")
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


def test_pictures_that_do_not_fit_are_linked_only(content, html, monkeypatch):
    monkeypatch.setattr(paging, "LIMIT", len(html.encode()) - 1)
    short = paging.page(*content)
    assert len(short) < len(html.encode())
    assert b"<img" not in short and f'href="../figures/{TIMING}.png"'.encode() in short
    monkeypatch.setattr(paging, "LIMIT", 10_000)
    with pytest.raises(UserError, match=r"would have .* bytes, more than 10,000: name fewer studies"):
        paging.page(*content)


def test_bench_rows_are_beside_their_targets(reader):
    rows = reader.tables["bench-1-bench"]
    assert rows[1:] == [["a / b [1]", "2.35 x", "≥ 2 x", "met"], ["c", DASH, "≥ 2 x", "not measured"]]
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
    text = paging.page(sections, None).decode()
    assert SCRIPT.lower() not in text.lower() and SCRIPT.upper() not in text
    reader = Reader(text)
    assert sum(tag == "script" for tag, _ in reader.tags) == 3  # one chart, plotly, and ours
    assert any(SCRIPT in found for found in reader.texts)
    assert SCRIPT.upper() + "</SCRIPT>" in reader.tables[f"{MNIST}-1-accuracy"][2][0]
    hover = [t.get("hovertemplate") or "" for t in json.loads(reader.scripts[0])["traces"]]
    assert any("&lt;SCRIPT&gt;" in found for found in hover) and not any("<SCRIPT" in found for found in hover)


def test_nothing_to_show_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"no results under .*make reproduce"):
        paging.write_page([], tmp_path, tmp_path / "report")
    with pytest.raises(UserError, match=r"no results at .*other"):
        paging.write_page(["other"], tmp_path, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_the_headline_comes_first_and_speed_last(results, tmp_path):
    names = [section.name for section in collecting.collect([], results, results / "report")]
    assert names == [MNIST, TIMING, MANY, "bench"]
    for name, benchmark in (("split_mnist_a", "split_mnist"), ("digits", "split_digits"), ("cifar", "split_cifar10")):
        made_results.write(tmp_path / name, made_results.fisher_rows((1,), ("exact",), benchmark=benchmark))
    made_results.write(tmp_path / MNIST, made_results.fisher_rows((1,), ("exact",)))
    sections = collecting.collect([], tmp_path, tmp_path / "report")
    assert [section.name for section in sections] == [MNIST, "split_mnist_a", "cifar", "digits"]
    assert [section.group for section in sections] == ["Split MNIST", "Split MNIST", "Split CIFAR-10", "Split digits"]


def test_script_writes_the_same_page_twice_without_torch(results, html, tmp_path):
    program = (
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", program, ROOT / "scripts" / "report.py", "--results-dir", results]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    path = results / "report" / "index.html"
    assert out == f"{path}\n"
    assert path.read_text() == html


@pytest.mark.slow  # all committed results: several seconds
def test_page_of_the_committed_results_is_small():
    results = ROOT / "results"
    page = paging.page(collecting.collect([], results, results / "report"), ledger(results))
    assert len(page) < 6_000_000
    text = page.decode()
    assert all(f'id="{path.parent.name}"' in text for path in results.glob("*/anatomy.csv"))
