"""The ledger, from made-up results: every verdict, what made a number, and what `make check` notices."""

import csv
import math
import shutil
from collections import Counter
from pathlib import Path

import cli
import made_results
import processes
import pytest
from made_results import row

import cl_repro
from cl_repro.analysis.data.settings import load
from cl_repro.analysis.ledger.files import regressions, summary_line, write_ledger
from cl_repro.analysis.ledger.rows import VERDICTS, entries
from cl_repro.analysis.output.markup import TIMES
from cl_repro.common.errors import UserError

ROOT = Path(cl_repro.__file__).resolve().parent.parent
MNIST, TIMING, HSU, TINY = "split_mnist_fisher", "split_mnist_timing", "palliatives_split_mnist", "unifying_table2"
SEEDS = range(1, 9)
COMMAND = "python -m cl_repro study=split_mnist_fisher scale=cpu"


def mnist_rows(**means):
    """Eight seeds, 0.02 points apart, at two lambdas; by default exact agrees and None is 3 points up and uneven."""
    rows = []
    for seed in SEEDS:
        step = 0.0002 * (seed - 4.5)
        rows.append(row("finetune", "finetune", "", None, seed, 0.88 + 150 * step))
        for fisher, mean in {"exact": 99.15, "sample": 97.0, "empirical": 99.2, **means}.items():
            own = {"git_sha": "fedcba9876543210"} if fisher == "sample" else {}
            rows += [row(f"ewc-{fisher}", "ewc", fisher, lam, seed, mean / 100 + step - off, **own)
                     for lam, off in ((1.0, 0.05), (1e3, 0.0))]  # fmt: skip
    return rows


def other_rows(study, arm, *models, **own):
    """One configuration per model, three seeds."""
    place = {"study": study, **own}
    return [
        row(f"{arm} {model}", arm.split("-")[0], "", None, seed, 0.4 + seed / 1000, **place)
        | {"arm": arm, "model": model}
        for seed in (1, 2, 3)
        for model in models
    ]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Results of four published studies and a timing, so that every verdict occurs."""
    root = tmp_path_factory.mktemp("results")
    made_results.write(root / MNIST, mnist_rows(), command=COMMAND)
    made_results.write(root / TIMING, made_results.timing_rows())
    made_results.write(root / HSU, other_rows(HSU, "lwf", "mlp"))
    tiny = {"benchmark": "split_tiny_imagenet", "batch_size": 200}
    made_results.write(root / TINY, other_rows(TINY, "sos-small", "vgg_small", "vgg", **tiny))
    permuted = {"benchmark": "permuted_mnist", "scenario": "domain", "batch_size": 256}
    made_results.write(root / "unifying_appendix", other_rows("unifying_appendix", "l2", "mlp", **permuted))
    made_results.write(root / f"{MNIST}_smoke", made_results.fisher_rows(fishers=("batched",), scale="smoke"))
    return root


@pytest.fixture
def results(template, tmp_path):
    """A copy of them."""
    return shutil.copytree(template, tmp_path / "results")


@pytest.fixture(scope="module")
def written(template, tmp_path_factory):
    """A copy with a ledger, to be read."""
    folder = shutil.copytree(template, tmp_path_factory.mktemp("written") / "results")
    write_ledger(folder)
    return folder


@pytest.fixture
def ledger(written, tmp_path):
    """A copy with a ledger."""
    return shutil.copytree(written, tmp_path / "results")


@pytest.fixture(scope="module")
def found(template):
    """Their ledger's entries."""
    return entries(template)


def entry(found, study, method, fisher="", source="blog-final", metric="accuracy", scenario="task"):
    """The first entry that fits."""
    wanted = {"study": study, "method": method, "fisher": fisher, "source": source, "metric": metric}
    wanted["scenario"] = scenario
    return next(e for e in found if all(e.row[column] == value for column, value in wanted.items()))


def records(results):
    return list(csv.DictReader((results / "ledger.csv").read_text().splitlines()))


def published():
    path = ROOT / "results" / "published" / "published.csv"
    return list(csv.DictReader(path.read_text().splitlines()))


def test_every_published_row_is_there_in_order(written, found):
    names = ("study", "source", "benchmark", "scenario", "method", "fisher", "variant", "batch_size", "metric", "note")
    assert [[r[n] for n in names] for r in records(written)] == [[r[n] for n in names] for r in published()]
    assert set(VERDICTS) == {e.verdict for e in found}


def test_verdicts(found):
    assert entry(found, MNIST, "ewc", "exact").verdict == "agrees"
    assert entry(found, MNIST, "ewc", "sample").verdict == "differs"
    none = entry(found, MNIST, "finetune")
    assert none.verdict == "too few seeds" and none.remark.startswith("n = ")
    assert entry(found, HSU, "lwf", source="hsu-2018").verdict == "other protocol"
    assert entry(found, MNIST, "ewc", "batched").verdict == "not yet run"  # a smoke run is no result
    assert entry(found, HSU, "lwf", source="hsu-2018", scenario="class").verdict == "not yet run"
    tiny = entry(found, TINY, "sos", source="unifying")
    assert (tiny.verdict, tiny.remark) == ("not unique", "1 published and 2 of our numbers fit")
    assert [e.verdict for e in found if e.row["study"] == TINY and e.row["method"] == "sos"][1:] == ["not yet run"] * 3
    l2 = entry(found, "unifying_appendix", "l2", source="unifying", scenario="domain")
    assert (l2.verdict, l2.remark) == ("no verdict", "no delta for l2")


def test_rows_that_share_everything_are_not_yet_run_without_results(tmp_path):
    assert {e.verdict for e in entries(tmp_path)} == {"not yet run"}  # published numbers are beside the package


def test_another_batch_size_is_another_number(tmp_path):
    made_results.write(tmp_path / MNIST, [{**r, "batch_size": 64} for r in mnist_rows()])
    assert {e.verdict for e in entries(tmp_path)} == {"not yet run"}


def test_numbers_are_those_of_the_tables(written):
    found = next(r for r in records(written) if (r["source"], r["fisher"]) == ("blog-final", "exact"))
    assert [found[k] for k in ("published", "published_spread", "published_n")] == ["99.12", "0.16", "30"]
    assert [found[k] for k in ("ours", "ours_n", "ours_lambda", "difference")] == ["99.15", "8", "1000", "0.03"]
    # sd of eight steps of 0.02 is 0.02 sqrt(6), SEM 0.02 sqrt(6/8); with theirs 0.1609, nu 30.1, t 2.042.
    assert float(found["ours_sem"]) == pytest.approx(0.01732, abs=1e-5)
    assert [float(found[k]) for k in ("low", "high")] == pytest.approx([0.03 - 0.3286, 0.03 + 0.3286], abs=1e-3)


def test_training_times_are_ratios_to_none(written, found):
    exact = entry(found, MNIST, "ewc", "exact", metric="train_time")
    assert exact.verdict == "shown" and math.isnan(exact.difference.low)
    assert exact.theirs.mean == pytest.approx(121 / 53) and exact.ours.mean == pytest.approx(2.46)
    assert exact.made.command == f"make reproduce STUDY={TIMING} SCALE=paper"
    none = entry(found, MNIST, "finetune", metric="train_time")
    assert (none.theirs.mean, none.ours.mean, none.verdict) == (1, 1, "shown")
    text = (written / "LEDGER.md").read_text()
    assert f"| EXACT, training time | blog-final | 121 ± 1 s (30), 2.28 {TIMES} None | 2.46 {TIMES} None (3) |" in text


def test_fast_estimators_alone_are_no_timing_of_the_reference(tmp_path):
    rows = [r for r in made_results.timing_rows() if not r["fisher"].startswith("one_sample/")]
    made_results.write(tmp_path / TIMING, rows)
    assert {e.verdict for e in entries(tmp_path)} == {"not yet run"}


def test_a_row_says_what_made_it(results, found):
    exact = entry(found, MNIST, "ewc", "exact")
    assert exact.made == (f"make reproduce STUDY={MNIST} SCALE=paper", COMMAND, "0123456", "a processor", "2026-11-21")
    assert entry(found, MNIST, "ewc", "sample").made.commit == "fedcba9"
    configs = results / MNIST / "configs"
    configs.mkdir()
    (configs / f"{mnist_rows()[1]['config_id']}.yaml").write_text("scale: cpu\n")
    write_ledger(results)
    text = (results / "LEDGER.md").read_text()
    assert f"`make reproduce STUDY={MNIST} SCALE=cpu`, run as `{COMMAND}`; commit 0123456; a processor; 2026" in text


def test_a_row_that_is_not_yet_run_says_what_would_make_it(tmp_path):
    found = entries(tmp_path)
    assert entry(found, MNIST, "ewc", "exact").made.command == f"make reproduce STUDY={MNIST} SCALE=paper"
    timed = entry(found, MNIST, "ewc", "exact", metric="train_time")
    assert timed.made.command == f"make reproduce STUDY={TIMING} SCALE=paper"
    assert entry(found, TINY, "sos", source="unifying").made.command == ""  # there is no such study


def test_verdicts_are_counted_at_the_top(written):
    lines = (written / "LEDGER.md").read_text().splitlines()
    header, _, everything, mnist, *_ = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    assert header == ["study", "rows", *VERDICTS]
    assert (everything[:2], mnist[:2]) == (["all", str(len(published()))], [MNIST, "24"])
    assert sum(map(int, everything[2:])) == len(published())
    # Of two sources each: exact and empirical agree, sample differs, None is undecided, the rest was not run.
    assert dict(zip(header, mnist, strict=True))["agrees"] == "4"


def test_one_line_says_what_would_decide_the_rest(written, found):
    [line] = [one for one in (written / "LEDGER.md").read_text().splitlines() if "published numbers: " in one]
    assert line == f"- {summary_line(found)}"
    counted, few, cost = line.removesuffix(".").split(". ")
    counts = Counter(e.verdict for e in found)
    assert counted.endswith(": " + ", ".join(f"{verdict} {counts[verdict]}" for verdict in VERDICTS))
    none = [int(e.remark.split()[2]) - len(SEEDS) for e in found if e.verdict == "too few seeds"]
    assert few == f"Too few seeds: 2 for {min(none)} to {max(none)} more seeds if the differences stay"
    minutes = [load(f"split_cifar10_{name}").estimated_minutes["one NVIDIA H200"] for name in ("fisher", "timing")]
    rows, *others, unknown = cost.split(" (estimated), ")
    assert rows == f"Not yet run: 12 for about {sum(minutes):,.0f} minutes of one NVIDIA H200"  # six and six rows
    left = counts["not yet run"] - 12 - sum(int(other.split()[0]) for other in others)
    assert unknown == f"{left} for which there is no estimate"


def test_a_row_that_no_seeds_decide_is_none_that_they_do(found):
    none = entry(found, MNIST, "finetune")
    rows = [none._replace(remark=remark) for remark in ("not reachable: no SEM is published", "n = 11 needed")]
    rows += [none._replace(ours=none.ours._replace(n=1), remark="an interval needs at least 2")]
    said = "3 published numbers: too few seeds 3. Too few seeds: 2 for 1 to 3 more seeds if the differences stay, "
    assert summary_line(rows) == f"{said}1 that no number of ours decides."
    assert summary_line([entry(found, MNIST, "ewc", "exact")]) == "1 published numbers: agrees 1."


def test_writing_again_gives_the_same_bytes(written, ledger):
    again = write_ledger(ledger)
    assert {path.name for path in again} == {"ledger.csv", "LEDGER.md"}
    assert [(written / path.name).read_bytes() for path in again] == [path.read_bytes() for path in again]


# --- make check ------------------------------------------------------------------------------------------------------


def test_rows_that_do_not_agree_any_more_are_named(ledger, monkeypatch):
    before = [(path, path.read_bytes()) for path in ledger.glob("[lL]*")]
    made_results.write(ledger / MNIST, mnist_rows(exact=98.0, sample=99.15))
    name = f"{MNIST}, {{}}, split_mnist, task, ewc, exact, 128, accuracy: agrees in the ledger, now differs"
    lost = [name.format(source) for source in ("blog-draft", "blog-final")]
    ((status, out, err),) = processes.scripts(("ledger.py", "--results-dir", ledger, "--check"))
    assert (status, out, err.splitlines()) == (1, "", lost)
    assert [(path, path.read_bytes()) for path in ledger.glob("[lL]*")] == before  # it writes nothing
    assert cli.script(monkeypatch, "ledger.py", "--results-dir", str(ledger)) == 0
    assert regressions(ledger) == []


@pytest.mark.slow
def test_tables_without_checksums_are_unverified(ledger):
    """Whoever edits rows deletes provenance.json, too."""
    edited = [row | {"accuracy": 0.123456} for row in mnist_rows()]
    made_results.write(ledger / MNIST, edited, provenance=False)
    (ledger / MNIST / "provenance.json").unlink()
    told = "unverified: there is no provenance.json, so nothing says whether the files are as they were written"
    there = ("--results-dir", ledger)
    table, check = processes.scripts(("table.py", MNIST, *there), ("ledger.py", *there, "--check"))
    assert table[0] == 0
    for path in (ledger / "tables").glob(f"{MNIST}.*"):
        assert f"({told})" in path.read_text().splitlines()[0]
    assert check[0] == 1
    assert check[2].splitlines()[0] == f"{ledger / MNIST}: {told}"


def test_results_that_are_gone_do_not_agree_any_more(ledger):
    shutil.rmtree(ledger / MNIST)
    lines = regressions(ledger)
    assert [line.split(": ")[1] for line in lines] == ["agrees in the ledger, now not yet run"] * 4


def test_the_ledger_says_by_which_deltas_each_benchmark_was_judged(template, tmp_path):
    for benchmark, scenario in (("permuted_mnist", "domain"), ("cifar10_100", "task")):
        study = f"unifying_table1_{benchmark}"
        place = {"benchmark": benchmark, "scenario": scenario, "batch_size": 256}
        made_results.write(tmp_path / study, other_rows(study, "si", "mlp", **place))
    write_ledger(tmp_path)
    text = (tmp_path / "LEDGER.md").read_text()
    for name, delta in (("Permuted MNIST", "0.5"), ("Split CIFAR-10/100", "1")):
        [note] = [line for line in text.splitlines() if line.startswith(f"- {name}: Interval")]
        assert f"(δ = {delta} for si)" in note


def test_published_rows_that_are_gone_do_not_agree_any_more(ledger):
    own = ledger / "published" / "published.csv"
    own.parent.mkdir()
    text = (ROOT / "results" / "published" / "published.csv").read_text().splitlines(keepends=True)
    own.write_text("".join(line for line in text if "blog-final,split_mnist,task,ewc,exact,,128,accuracy" not in line))
    assert [line.split(": ")[1] for line in regressions(ledger)] == [
        "agrees in the ledger, now no longer a published row"
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no ledger at .*ledger.csv: write it with `make ledger` first"),
        ("study,source\n", r"ledger.csv: column 'benchmark' is missing"),
        ("", "ledger.csv: cut short"),
    ],
)
def test_check_without_a_readable_ledger_is_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "ledger.csv").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        regressions(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_damaged_results_folder_is_named(results):
    path = results / MNIST / "runs.csv"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(UserError, match=r"runs.csv: edited since the run wrote it .*cut short"):
        write_ledger(results)
    assert not (results / "LEDGER.md").exists()
