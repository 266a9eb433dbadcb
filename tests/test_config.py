"""Every file under conf/ composes and is accepted by its factory; every study runs; bad values are refused."""

from pathlib import Path

import cli
import made_data
import pytest

from cl_repro import provenance, study, worker
from cl_repro.config import CONF, check
from cl_repro.errors import UserError


def options(group: str) -> list[str]:
    """All choices of a group, nested ones too."""
    folder = CONF / group
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


CHOICES = [
    (group, name)
    for group in ("benchmark", "scenario", "model", "optim", "method", "fisher", "grid", "scale")
    for name in options(group)
]


def rows_of(planned: study.Plan, folder: Path) -> list[dict]:
    """The rows of runs.csv of a plan, computed in this process."""
    workshop, source = worker.Workshop(lambda *_: None), provenance.Source("unknown", dirty=False)
    jobs = [worker.Job(chunk, planned.arms, folder, planned.device, source) for chunk in planned.chunks]
    return [row for job in jobs for row in workshop.rows(job)["runs.csv"]]


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_runs_two_steps(group: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made_data.mnist_like(monkeypatch, tmp_path / "data", per_class=300)
    cut = ["iterations=2", "seeds=[1]", "batch_size=8", "model.hidden=[6]", f"data_dir={folder}"]
    if group != "benchmark":
        cut.append("benchmark=split_mnist")
    planned = study.plan(cli.arms(f"{group}={name}", *cut))
    rows = rows_of(planned, tmp_path)
    assert {row["status"] for row in rows} == {"ok"}
    assert len(rows) == len(planned.arms[0].cfg["grid"]["lambdas"] if planned.arms[0].uses_lambda else [None])
    column = {"scale": None, "grid": None, "optim": None}.get(group, group)
    if column:
        assert rows[0][column] == name
    (arm,) = planned.arms
    assert arm.uses_lambda == (worker.Workshop(lambda *_: None).method(arm.cfg).penalty_grad is not None)


@pytest.mark.parametrize("name", options("study"))
def test_every_study_runs_two_steps(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made_data.mnist_like(monkeypatch, tmp_path / "data", per_class=300)
    cut = ["iterations=2", "seeds=[1]", "batch_size=8", "model.hidden=[6]", "grid.lambdas=[1000.0]"]
    planned = study.plan(cli.arms(f"study={name}", *cut, f"data_dir={folder}"))
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


REFUSED = [
    (["lam=-1"], "lambda=-1.0: must be a finite number of at least 0"),
    (["lam=inf"], "lambda=inf: must be a finite number of at least 0"),
    (["lam=nan"], "lambda=nan: must be a finite number of at least 0"),
    (["seeds=[]"], "seeds=[]: must list at least one seed"),
    (["seeds=[1,1]"], "seeds=[1, 1]: must not repeat a seed"),
    (["seeds=[-1]"], "seeds=[-1]: -1 must be an integer from 0 to 2**32 - 1"),
    (["iterations=0"], "iterations=0: must be at least 1"),
    (["batch_size=0"], "batch_size=0: must be at least 1"),
    (["batch_size=5000"], "batch_size=5000: must be at most the 272 examples of task 0 of seed 1"),
    (["dtype=float16"], "dtype=float16: must be one of float32, float64"),
    (["device=tpu"], "device=tpu: must be auto, cpu, cuda or cuda:<index>"),
    (["workers=0"], "workers=0: must be auto or an integer of at least 1"),
    (["max_replicas=many"], "max_replicas=many: must be auto or an integer of at least 1"),
    (["retry=some"], "retry=some: must be one of all, failed"),
    (["grid.lambdas=[]"], "grid.lambdas=[]: must list at least one lambda"),
    (["grid.lambdas=[1,1e0]"], "must not repeat a value"),
    (["fisher.n=0"], "fisher.n=0: the number of examples must be at least 1, or null for all"),
    (["fisher.n=5000"], "fisher.n=5000: must be at most the 272 examples of task 0 of seed 1"),
    (["fisher.normalisation=n"], "fisher.normalisation=n: must be exact or reference"),
    (["fisher=batched", "fisher.batch_size=0"], "fisher.batch_size=0: must be at least 1"),
    (["fisher=batched", "fisher.batch_size=300"], "fisher.batch_size=300: must be at most the 272 examples"),
    (["fisher=batched", "fisher.reduction=max"], "fisher.reduction=max: must be mean or sum"),
    (["fisher=batched", "+fisher.labels=sample"], "fisher.labels: batched takes no such key; allowed: batch_size"),
    (["fisher=one_sample/exact", "fisher.labels=both"], "fisher.labels=both: must be one of all, sample, true, pred"),
    (["benchmark.n_tasks=3"], "benchmark.n_tasks=3: must divide the 10 classes of digits"),
    (["method.gamma=2"], "method.gamma=2: must be from 0 to 1"),
    (["optim.lr=-1"], "optim=adam: Invalid learning rate: -1"),
    (["model.hidden=[0]"], "model.hidden=[0]: must list layer sizes of at least 1"),
    (["arms=[]"], "arms=[]: must be a list of choices"),
    (["arms=[{fisher: exact}]", "fisher=exact"], "fisher=: this study lists its arms"),
    (["study=split_digits_fisher", "method=joint"], "method=: this study lists its arms"),
]


@pytest.mark.parametrize(("overrides", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_bad_values_are_refused_before_any_training(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        study.plan(cli.arms(*overrides))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["method=foo"], "Could not find 'method/foo' Available options in 'method': ewc ewc_offline finetune joint"),
        (["fisher=foo"], "Available options in 'fisher': batched empirical exact"),
        (["benchmark=foo"], "Available options in 'benchmark': split_digits split_mnist"),
        (["fisher.m=3"], "unknown key fisher.m; allowed: _target_, n, name, normalisation"),
        (["speed=3"], "unknown key speed; allowed: arms, batch_size, benchmark"),
        (["method=finetune", "fisher=exact"], "Could not override 'fisher'"),
        (["iterations=many"], "iterations=many"),
        (["study=split_digits_fisher", "fisher.n=4"], "arm method=finetune: unknown key fisher.n"),
        (["lam=-1"], "lambda=-1.0"),
        (["-m", "lam=-1"], "lambda=-1.0"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_mistake_on_the_command_line_is_one_line_and_writes_nothing(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert cli.run(monkeypatch, tmp_path, *arguments) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("Error executing job")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not [path for path in tmp_path.rglob("*.csv")]


def test_check_accepts_what_studies_use() -> None:
    for arm in cli.arms("study=split_digits_fisher"):
        check(arm)
