"""`save=weights`: the network of a run comes back as it was, nothing that runs code does, and no id changes."""

import json
import sys
from pathlib import Path

import cli
import made_cifar
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cl_repro.common import rng
from cl_repro.common.errors import UserError
from cl_repro.engine.boundary import active_mask, estimate
from cl_repro.records import Store
from cl_repro.study import grid, study, weights, worker
from cl_repro.types import Tree

SMALL = ("grid.lambdas=[1,1000]", "seeds=[1,2]", "iterations=3", "workers=1", "device=cpu", "dtype=float64")


def computed(folder: Path, *overrides: str) -> list[dict]:
    """Compute a small study; its arms."""
    arms = cli.arms(*SMALL, *overrides, f"results_dir={folder}")
    assert not study.compute_missing(arms, "test", cores=1).unfinished
    return arms


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    """A study that keeps the weights after every task."""
    folder = tmp_path_factory.mktemp("kept")
    return folder / "runs", computed(folder, "save=weights_of_tasks")


def rows(folder: Path, file: str) -> list[dict]:
    return Store(folder).read([file])[file]


def test_the_accuracies_of_the_loaded_networks_are_those_of_the_run(kept: tuple[Path, list[dict]]) -> None:
    """After every task, on every task."""
    folder, [cfg] = kept
    experiment = worker.Workshop(lambda *_: None).experiment(grid.make_arm(cfg), "cpu")
    n_tasks = experiment.benchmark.n_tasks
    for run in rows(folder, "runs.csv"):
        curriculum = experiment.benchmark.curriculum(int(run["seed"]))
        said = {
            (int(row["after_task"]), int(row["task"])): float(row["accuracy"])
            for row in rows(folder, "accuracy.csv")
            if row["run_id"] == run["run_id"]
        }
        for learned in range(1, n_tasks + 1):
            found = weights.load(folder, run["run_id"], learned if learned < n_tasks else None)
            assert found.about["tasks_learned"] == str(learned) and float(found.about["lambda"]) == float(run["lambda"])
            for j, task in enumerate(curriculum.tasks):
                z = found(experiment.benchmark.to_input(experiment.benchmark.x_test[task.rows_test]))
                z = z.masked_fill(~active_mask(experiment, curriculum, learned - 1, j), float("-inf"))
                right = z.argmax(1) == experiment.scenario.label(curriculum.y_test[task.rows_test], task)
                assert right.double().mean().item() == pytest.approx(said[learned - 1, j], rel=1e-5)


def test_an_estimator_measures_a_loaded_network_as_the_run_did(kept: tuple[Path, list[dict]]) -> None:
    folder, [cfg] = kept
    workshop = worker.Workshop(lambda *_: None)
    experiment, estimator = workshop.experiment(grid.make_arm(cfg), "cpu"), workshop.estimator(cfg)
    assert estimator
    for row in rows(folder, "importance.csv"):
        found = weights.load(folder, row["run_id"], int(row["after_task"]) + 1)
        stacked = [{name: value[None] for name, value in of.items()} for of in (found.params, found.buffers)]
        one = [{name: value[0] for name, value in of.items()} for of in stacked]
        made = estimate(experiment, *stacked, estimator, int(found.about["seed"]), int(row["after_task"]))
        assert one[0].keys() == made.keys()
        assert sum(value.sum().item() for value in made.values()) == pytest.approx(float(row["trace"]), rel=1e-5)


def test_buffers_come_back_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch normalisation's running statistics, which a network is evaluated with."""
    made_cifar.write_npz(tmp_path, made_cifar.small_cifar(monkeypatch))
    images = ("benchmark=split_cifar10", f"data_dir={tmp_path}", "benchmark.train_per_task=null")
    small = ("scale=paper", "batch_size=2", "seeds=[1]", "method=finetune")
    cfg, *_ = computed(
        tmp_path, "model=convnet", "model.channels=[4,4]", "model.hidden=[]", *images, *small, "save=weights"
    )
    [run] = rows(tmp_path / "runs", "runs.csv")
    found = weights.load(tmp_path / "runs", run["run_id"])
    experiment = worker.Workshop(lambda *_: None).experiment(grid.make_arm(cfg), "cpu")
    fresh = experiment.net.init(rng.stream(1, "init"))[1]
    assert fresh.keys() == found.buffers.keys() != set()
    assert not any(torch.equal(fresh[name], value) for name, value in found.buffers.items())
    with pytest.raises(UserError, match=r"no weights; runs keep them .* save=weights_of_tasks"):
        weights.load(tmp_path / "runs", run["run_id"], 1)


def test_what_is_saved_changes_no_row_and_no_configuration(kept: tuple[Path, list[dict]], tmp_path: Path) -> None:
    folder, _ = kept
    computed(tmp_path)
    assert not (tmp_path / "runs" / "weights").exists()
    for file in ("accuracy.csv", "importance.csv"):
        assert rows(folder, file) == rows(tmp_path / "runs", file)
    assert [row["run_id"] for row in rows(folder, "runs.csv")] == [
        r["run_id"] for r in rows(tmp_path / "runs", "runs.csv")
    ]
    configs = [
        {path.name: path.read_bytes() for path in (at / "configs").iterdir()} for at in (folder, tmp_path / "runs")
    ]
    assert configs[0] == configs[1]


def test_a_run_that_was_stopped_without_save_is_told_when_it_is_finished(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arms = [arm | {"time_budget": 1e-9} for arm in cli.arms(*SMALL, f"results_dir={tmp_path}")]
    assert study.compute_missing(arms, "test", cores=1).stopped
    assert capfd.readouterr().err == ""
    computed(tmp_path, "save=weights_of_tasks")
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith("4 finished runs") and "or in part, and lack weights" in line


def test_finished_runs_without_weights_are_told_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    computed(tmp_path)
    assert capfd.readouterr().err == ""
    computed(tmp_path, "save=weights")
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(f"4 finished runs in {tmp_path / 'runs'} were computed without save=weights")
    other = tmp_path / "of the last task alone"
    computed(other, "save=weights")
    computed(other, "save=weights")
    assert capfd.readouterr().err == ""
    computed(other, "save=weights_of_tasks")
    assert capfd.readouterr().err.startswith(f"4 finished runs in {other / 'runs'} were computed without save=weights_")
    [run, *_] = rows(tmp_path / "runs", "runs.csv")
    with pytest.raises(UserError, match=r"no weights; runs keep them when they are computed with save=weights:"):
        weights.load(tmp_path / "runs", run["run_id"])


def changed(path: Path, tensors: Tree | None = None, **about: str) -> None:
    """Write a weights file again, with other content."""
    with safe_open(path, framework="pt") as file:
        header, old = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(old if tensors is None else tensors, path, {**header, **about})


MODEL = {"_target_": "cl_repro.models.mlp.mlp", "name": "mlp", "hidden": [400, 400]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:500]), "not the weights of run"),
        (lambda path: path.write_bytes(b"\x80\x04}q\x00."), "not the weights of run"),  # a pickle
        (lambda path: changed(path, {"params/head.weight": torch.zeros(1)}), "not the weights of run"),
        (lambda path: changed(path, model="{"), "not the weights of run"),
        (lambda path: changed(path, run_id="another"), "not the weights of run"),
        (lambda path: changed(path, n_outputs="3"), "not the weights of run"),
        (lambda path: changed(path, model=json.dumps(MODEL | {"_target_": "os.system"})), "must be the dotted path"),
        (
            lambda path: changed(path, model=json.dumps(MODEL | {"hidden": "echo"})),
            "model.hidden=echo: must be of type",
        ),
    ],
)
def test_a_file_that_is_not_ours_is_refused(change, says: str, kept: tuple[Path, list[dict]], tmp_path: Path) -> None:
    folder, _ = kept
    [run, *_] = rows(folder, "runs.csv")
    path = weights.path_of(tmp_path, run["run_id"])
    path.parent.mkdir()
    path.write_bytes(weights.path_of(folder, run["run_id"]).read_bytes())
    weights.load(tmp_path, run["run_id"])
    change(path)
    with pytest.raises(UserError) as caught:
        weights.load(tmp_path, run["run_id"])
    assert str(caught.value).startswith(f"{path}: ") and says in str(caught.value)


def test_without_the_library_one_line_names_the_extra_before_anything_trains(
    kept: tuple[Path, list[dict]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "safetensors"]:
        monkeypatch.setitem(sys.modules, name, None)  # as where it is not installed
    says = r"safetensors is not installed; it comes with: pip install 'cl_repro\[weights\]'$"
    with pytest.raises(UserError, match=rf"^save=weights: {says}"):
        computed(tmp_path, "save=weights")
    assert not any(tmp_path.iterdir())
    folder, _ = kept
    [run, *_] = rows(folder, "runs.csv")
    with pytest.raises(UserError, match=says):
        weights.load(folder, run["run_id"])
    computed(tmp_path)
