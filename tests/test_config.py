"""Every file under conf/ composes and is accepted by its factory; every study runs; bad values: test_bad_input.py."""

from pathlib import Path

import cli
import made_cifar
import made_data
import pytest

from cl_repro import provenance, study, worker
from cl_repro.config import CONF, check


def options(group: str) -> list[str]:
    """All choices of a group, nested ones too."""
    folder = CONF / group
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


CHOICES = [
    (group, name)
    for group in ("benchmark", "scenario", "model", "optim", "method", "fisher", "grid", "scale")
    for name in options(group)
]


UNCUT = ["benchmark.train_per_task=null", "benchmark.test_per_task=null"]  # the made sets are small enough
SMALL = {  # of every model: a small one, on data it can read
    "mlp": ["model.hidden=[6]"],
    "slim_resnet18": ["benchmark=split_cifar10", "model.channels=2", *UNCUT],
    "convnet": ["benchmark=split_cifar10", "model.channels=[2,3]", "model.hidden=[6]", *UNCUT],
}


def made_sets(monkeypatch: pytest.MonkeyPatch, folder: Path, images: int) -> Path:
    """A folder with a small MNIST and a CIFAR-10 of some images per class."""
    made_data.mnist_like(monkeypatch, folder, per_class=300)
    made_cifar.write_npz(folder, made_cifar.small_cifar(monkeypatch, per_class=images))
    return folder


def rows_of(planned: study.Plan, folder: Path) -> list[dict]:
    """The rows of runs.csv of a plan, computed in this process."""
    workshop, source = worker.Workshop(lambda *_: None), provenance.Source("unknown", dirty=False)
    jobs = [worker.Job(chunk, planned.arms, folder, planned.device, source) for chunk in planned.chunks]
    return [row for job in jobs for row in workshop.rows(job)["runs.csv"]]


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_runs_two_steps(group: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made_sets(monkeypatch, tmp_path / "data", images=100)
    cut = ["iterations=2", "seeds=[1]", "batch_size=8", *SMALL[name if group == "model" else "mlp"]]
    if group == "benchmark":
        cut += UNCUT
    elif name not in SMALL or name == "mlp":
        cut += ["benchmark=split_mnist"]
    cut += [f"data_dir={folder}"]
    planned = study.plan(cli.arms(f"{group}={name}", *cut))
    rows = rows_of(planned, tmp_path)
    assert {row["status"] for row in rows} == {"ok"}
    assert len(rows) == len(planned.arms[0].cfg["grid"]["lambdas"] if planned.arms[0].uses_lambda else [None])
    column = {"scale": None, "grid": None, "optim": None}.get(group, group)
    if column:
        assert rows[0][column] == name
    (arm,) = planned.arms
    assert arm.uses_lambda == (worker.Workshop(lambda *_: None).method(arm.cfg).penalty_grad is not None)


# The rest is slow: large images, or one example at a time.
FAST = ("split_digits_fisher", "split_mnist_fisher", "split_mnist_fisher_val")
STUDIES = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in options("study")]


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_runs_two_steps(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made_sets(monkeypatch, tmp_path / "data", images=255)
    cut = ["iterations=2", "seeds=[1]", "batch_size=8", "grid.lambdas=[1000.0]", f"data_dir={folder}"]
    model = cli.arms(f"study={name}")[0]["model"]["name"]
    small = [override for override in SMALL[model] if not override.startswith("benchmark=")]
    planned = study.plan(cli.arms(f"study={name}", *cut, *small))
    rows = rows_of(planned, tmp_path)
    assert [row["status"] for row in rows] == ["ok"] * len(planned.arms)
    assert {row["study"] for row in rows} == {name}
    assert len({row["arm"] for row in rows}) == len(planned.arms)
    assert all(0 <= float(row["accuracy"]) <= 1 for row in rows)


def test_a_method_without_a_fisher_carries_none() -> None:
    (arm,) = cli.arms("method=finetune")
    assert arm["fisher"] is None
    (planned,) = study.plan([arm]).arms
    assert planned.label == "finetune"
    assert not planned.uses_lambda


def test_the_reference_settings_of_split_mnist() -> None:
    common = cli.arms("study=split_mnist_fisher", "scale=paper")[0]
    assert (common["iterations"], common["batch_size"], common["model"]["hidden"]) == (2000, 128, [400, 400])
    assert common["seeds"] == list(range(1, 31))
    assert common["grid"]["lambdas"] == [10.0**i for i in range(14)]
    assert (common["optim"]["lr"], common["optim"]["betas"], common["optim"]["reset"]) == (1e-3, [0.9, 0.999], False)


def test_a_mistake_in_a_sweep_is_one_line_after_the_other_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(monkeypatch, tmp_path, "-m", "lam=-1") == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("Error executing job")]
    assert lines == ["error: lambda=-1.0: must be a finite number of at least 0"]
    assert not [path for path in tmp_path.rglob("*.csv")]


def test_check_accepts_what_studies_use() -> None:
    for arm in cli.arms("study=split_digits_fisher"):
        check(arm)
