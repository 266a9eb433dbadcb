"""`export`: what each target reads back is what the CSVs say; a target that is not installed is skipped by name."""

import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cli
import made_results
import pytest
import yaml

from cl_repro.export.runs import Run, runs_of

STUDY = "split_mnist_fisher"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two arms, one of them with a run that diverged, and the configuration of one."""
    rows = [
        made_results.row("ewc-exact", "ewc", "exact", 100.0, 1, 0.991),
        made_results.row("ewc-exact", "ewc", "exact", 1e9, 1, float("nan")),
        made_results.row("finetune", "finetune", "", None, 1, 0.87),
    ]
    folder = made_results.write(tmp_path / "results" / STUDY, rows)
    (folder / "configs").mkdir()
    cfg = {"optim": {"name": "adam", "lr": 1e-05, "betas": [0.9, 0.999]}, "method": {"name": "ewc"}, "tf32": False}
    (folder / "configs" / f"{rows[0]['config_id']}.yaml").write_text(yaml.safe_dump(cfg))
    return folder


def export(monkeypatch: pytest.MonkeyPatch, results: Path, target: str) -> int:
    """`python -m cl_repro export`, in the folder that results/ is in."""
    return cli.run(monkeypatch, results.parent.parent, "export", "--to", target, STUDY)


def test_a_run_is_its_rows(results: Path) -> None:
    fine, lost, none = runs_of(results)
    assert [run.name for run in (fine, lost, none)] == [
        "ewc-exact lambda=100 seed=1",
        "ewc-exact lambda=1e+09 seed=1",
        "finetune seed=1",
    ]
    said = {
        "optim": "adam",
        "optim.lr": 1e-05,
        "optim.betas": "[0.9,0.999]",
        "method": "ewc",
        "lambda": 100.0,
        "seed": 1,
    }
    assert said.items() <= fine.settings.items() and "lambda" not in none.settings and "fisher" not in none.settings
    assert (fine.results["accuracy"], fine.results["seconds_total"]) == (0.991, 30.7)
    assert "accuracy" not in lost.results and lost.settings["status"] == "diverged"
    assert not set(fine.settings) & set(fine.results)
    assert fine.curves["importance/trace"] == [(k + 1, pytest.approx(1e-2 * 1.1 * (1 + k))) for k in range(4)]
    assert set(lost.curves) == {"importance/trace"}  # its accuracies are no numbers
    assert none.curves["accuracy/test/task_5"] == [(5, 0.87)] and "importance/trace" not in none.curves


def test_the_mean_is_over_the_tasks_learned(results: Path) -> None:
    """Of the untrained network there is none; after two tasks it is that of the first two."""
    path = results / "accuracy.csv"
    run_id = runs_of(results)[0].run_id
    table = [f"{run_id},test,{k},{j},{(k + 2) * (j + 1) / 100}" for k in (-1, 0, 1) for j in range(5)]
    path.write_text("\n".join([path.read_text().splitlines()[0], *table, "unfinished,test,0,0,0.5", ""]))
    made_results.write_provenance(results)
    curves = runs_of(results)[0].curves
    assert curves["accuracy/test/mean_of_learned"] == [(1, pytest.approx(0.02)), (2, pytest.approx(0.045))]
    assert curves["accuracy/test/task_3"] == [(0, 0.03), (1, 0.06), (2, 0.09)]


def test_reading_needs_no_torch(results: Path) -> None:
    code = "import sys; from pathlib import Path; from cl_repro.export import runs_of; runs_of(Path(sys.argv[1]))"
    code += "; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, str(results)], check=True, cwd=cli.ROOT)


def expected(run: Run) -> dict[str, list[tuple[int, float]]]:
    return {
        name: [(step, pytest.approx(value, rel=1e-6)) for step, value in curve] for name, curve in run.curves.items()
    }


def test_tensorboard_reads_back_every_run(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2  # noqa: PLC0415 - with it
    from tensorboard.util.tensor_util import make_ndarray  # noqa: PLC0415

    for _ in range(2):  # again: the same, not twice
        assert export(monkeypatch, results, "tensorboard") == 0
    folders = results.parent.parent / "exports" / "tensorboard" / STUDY
    assert len(list(folders.iterdir())) == 3
    for run in runs_of(results):
        found = accumulator.EventAccumulator(str(folders / f"{run.name} {run.run_id}"))
        found.Reload()
        tags = set(found.Tags()["tensors"]) - {metadata.SESSION_START_INFO_TAG}
        scalars = {tag: [(e.step, make_ndarray(e.tensor_proto).item()) for e in found.Tensors(tag)] for tag in tags}
        results_of = {f"result/{name}": [(5, pytest.approx(value))] for name, value in run.results.items()}
        assert scalars == expected(run) | results_of
        content = found.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
        start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
        values = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
        assert values == run.settings and start.group_name == run.run_id


def test_mlflow_reads_back_every_run(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    store = (results.parent.parent / "exports" / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client, ids = mlflow.tracking.MlflowClient(store), []
    for _ in range(2):
        mlflow.set_tracking_uri(None)
        assert export(monkeypatch, results, "mlflow") == 0
        ids.append(
            {run.info.run_id for run in client.search_runs([client.get_experiment_by_name(STUDY).experiment_id])}
        )
    mlflow.set_tracking_uri(None)
    assert ids[0] == ids[1] and len(ids[0]) == 3  # the second time they are there
    found = {run.data.tags["cl_repro.run_id"]: run for run in map(client.get_run, ids[0])}
    for run in runs_of(results):
        there = found[run.run_id]
        assert there.info.run_name == run.name and there.info.status == "FINISHED"
        assert there.info.end_time == 1000 * run.finished
        assert there.data.params == {name: str(value) for name, value in run.settings.items()}
        curves = {
            name: [(m.step, m.value) for m in client.get_metric_history(there.info.run_id, name)] for name in run.curves
        }
        assert curves == expected(run)
        ends = {name.removeprefix("result/"): v for name, v in there.data.metrics.items() if name.startswith("result/")}
        assert ends == run.results


def test_a_run_that_was_cut_off_is_sent_again(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    from cl_repro.export import to_mlflow  # noqa: PLC0415 - with it

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = mlflow.tracking.MlflowClient((results.parent.parent / "store").as_uri())
    experiment = client.create_experiment("one")
    client.create_run(experiment, tags={to_mlflow.TAG: "begun"})
    to_mlflow.send(client, experiment, runs_of(results)[0]._replace(run_id="sent"))
    assert to_mlflow.known(client, experiment) == {"sent"}


def records(path: Path) -> Iterator[bytes]:
    """Of a file in LevelDB's log format, behind the 7 bytes that W&B puts before it."""
    data, at, whole = path.read_bytes(), 7, b""
    while at < len(data):
        left = 32768 - at % 32768
        if left < 7:  # the rest of a block
            at += left
            continue
        size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # complete, or the last part
            yield whole
            whole = b""


def test_wandb_offline_files_hold_every_run(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    from wandb.proto.wandb_internal_pb2 import Record  # noqa: PLC0415 - with it

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    assert export(monkeypatch, results, "wandb") == 0
    here = results.parent.parent / "exports" / "wandb"
    for run in runs_of(results):
        [file] = here.glob(f"offline-run-*-{run.run_id}/*.wandb")
        config: dict[str, Any] = {}
        curves: dict[str, list[tuple[int, float]]] = {}
        summary: dict[str, Any] = {}
        for record in map(Record.FromString, records(file)):
            if record.HasField("run"):
                assert (record.run.project, record.run.run_group) == ("cl_repro", STUDY)
                assert (record.run.run_id, record.run.display_name) == (run.run_id, run.name)
                config |= {one.key: yaml.safe_load(one.value_json) for one in record.run.config.update}
            items = {
                (one.key or "/".join(one.nested_key)): yaml.safe_load(one.value_json) for one in record.history.item
            }
            for name in items.keys() & run.curves.keys():
                curves.setdefault(name, []).append((items["tasks_learned"], items[name]))
            summary |= {(one.key or "/".join(one.nested_key)): one.value_json for one in record.summary.update}
        assert curves == expected(run)
        assert {name: config[name] for name in run.settings if name != "optim.lr"} == {
            name: value for name, value in run.settings.items() if name != "optim.lr"
        }
        assert float(config.get("optim.lr", 0)) == run.settings.get("optim.lr", 0)
        assert {name: float(summary[f"result/{name}"]) for name in run.results} == run.results


@pytest.mark.parametrize("target", ["wandb", "mlflow", "tensorboard"])
def test_a_target_that_is_not_installed_names_its_extra(
    target: str, results: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, target, None)
    monkeypatch.delitem(sys.modules, f"cl_repro.export.to_{target}", raising=False)
    for name in [name for name in sys.modules if name.startswith(f"{target}.")]:
        monkeypatch.delitem(sys.modules, name)
    assert export(monkeypatch, results, target) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line == f"error: --to={target}: {target} is not installed; it comes with: pip install 'cl_repro[{target}]'"
    assert not (results.parent.parent / "exports").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--to", "excel", STUDY), "argument --to: invalid choice: 'excel'"),
        ((STUDY,), "the following arguments are required: --to"),
        (("--to", "tensorboard"), "the following arguments are required: study"),
        (("--to", "tensorboard", "none"), "no runs.csv in results/none"),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...],
    says: str,
    results: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert cli.run(monkeypatch, results.parent.parent, "export", *arguments) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ") and says in line
    assert not (results.parent.parent / "exports").exists()
