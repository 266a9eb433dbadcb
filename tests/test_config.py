"""Every file under conf/ composes and is accepted by its factory; every study runs; bad values: test_bad_input.py."""

import copy
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cli
import hydra
import made_cifar
import made_data
import made_tiny_imagenet
import numpy as np
import pytest
from omegaconf import OmegaConf

from cl_repro.benchmarks.data.arrays import CHECKSUMS, checksum
from cl_repro.common import runtime
from cl_repro.common.errors import UserError
from cl_repro.study import plan, provenance, study, worker
from cl_repro.study.compose import arms_of, written_out
from cl_repro.study.config import CONF, check
from cl_repro.study.jobs import Job


def options(group: str) -> list[str]:
    """All choices of a group, nested ones too."""
    folder = CONF / group
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


CHOICES = [
    (group, name)
    for group in ("benchmark", "protocol", "scenario", "model", "optim", "method", "fisher", "grid", "scale")
    for name in options(group)
]


UNCUT = ["benchmark.train_per_task=null", "benchmark.test_per_task=null"]  # the made sets are small enough
FEW = ["benchmark.train_per_task=40", "benchmark.test_per_task=10"]
SMALL = {  # of every model: a small one, on data it can read
    "mlp": ["model.hidden=[6,6]"],
    "slim_resnet18": ["benchmark=split_cifar10", "model.channels=2", *FEW],
    "keras_cnn": ["benchmark=split_cifar10", "model.channels=[2,3]", "model.units=6", *FEW],
    "vgg": ["benchmark=split_cifar10", "model.shrink=64", *FEW],
    "progressive": ["model.hidden=[6]", "optim=adam_reset"],
    "winners": ["model.hidden=[6]"],
    "convnet": ["benchmark=split_cifar10", "model.channels=[2,3]", "model.hidden=[6]", *FEW],
}


FEWER = {"ogd": ["method.n=5"]}  # of a method: what is too much of what the made sets have
SAME = {  # benchmarks that are the same data, trained in another way
    "permuted_mnist_large_batch": "permuted_mnist",
    "permuted_mnist_two": "permuted_mnist",
    "permuted_mnist_gpm": "permuted_mnist",
    "cifar10_100_large_batch": "cifar10_100",
    "split_mnist_short": "split_mnist",
    "split_mnist_padded": "split_mnist",
    "split_cifar10_short": "split_cifar10",
}


def follows(method: str) -> list[str]:
    """Plain gradient descent, for a method that projects the gradient or makes it; of rate 1 if it makes steps."""
    (arm,) = cli.arms(f"method={method}")
    made = worker.Workshop(lambda *_: None).method(arm)
    rate = ["optim.lr=1"] if made.needs.own_rates else []
    return ["optim=sgd", *rate] if made.project or made.descend else []


def whole(benchmark: str) -> list[str]:
    """What makes a benchmark use all of the made sets."""
    return [*UNCUT, "benchmark.skip_first=0"] if benchmark.startswith("permuted") else UNCUT


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Made once: with 100 images per class."""
    with pytest.MonkeyPatch.context() as patch:
        yield made_sets(patch, tmp_path_factory.mktemp("data"), images=100)


def made_sets(monkeypatch: pytest.MonkeyPatch, folder: Path, images: int) -> Path:
    """A folder with a small MNIST, a CIFAR-10 of some images per class, and a CIFAR-100 of as many, of 50 classes."""
    made_data.mnist_like(monkeypatch, folder, per_class=300)
    made_cifar.write_npz(folder, made_cifar.small_cifar(monkeypatch, per_class=images))
    ten = made_cifar.small_cifar(monkeypatch, "cifar100", per_class=images)
    tens = 10 * (np.arange(10 * images) % 5)
    fifty = ten._replace(y_train=ten.y_train + tens, y_test=ten.y_test + tens)
    monkeypatch.setitem(CHECKSUMS, "cifar100", checksum(fifty))
    made_cifar.write_npz(folder, fifty, "cifar100")
    return folder


def rows_of(planned: study.Plan, folder: Path) -> list[dict]:
    """The rows of runs.csv of a plan, computed in this process."""
    workshop, source = worker.Workshop(lambda *_: None), provenance.Source("unknown", dirty=False)
    jobs = [Job(chunk, planned.arms, folder, planned.device, source) for chunk in planned.chunks]
    return [row for job in jobs for row in workshop.rows(job)["runs.csv"]]


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_runs_two_steps(
    group: str, name: str, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sets
    if name == "tiny_imagenet":
        folder = tmp_path
        made_tiny_imagenet.write(monkeypatch, folder, classes=100)
    cut = ["iterations=2", "seeds=[1]", "batch_size=8", *SMALL[name if group == "model" else "mlp"]]
    if group == "benchmark":
        has = cli.arms(f"benchmark={name}")[0]["benchmark"]
        cut += [override for override in whole(name) if override.split("=")[0].removeprefix("benchmark.") in has]
    elif name not in SMALL or name in ("mlp", "progressive", "winners"):
        cut += ["benchmark=split_mnist"]
    if group == "method":
        cut += [*FEWER.get(name, []), *follows(name)]
    if group == "fisher":
        cut += ["benchmark.n_tasks=2", "benchmark.train_per_task=1000"]  # exact_1000 wants as many
    cut += [f"data_dir={folder}"]
    planned = study.plan(cli.arms(f"{group}={name}", *cut))
    rows = rows_of(planned, tmp_path)
    assert {row["status"] for row in rows} == {"ok"}
    assert len(rows) == len(planned.arms[0].cfg["grid"]["lambdas"] if planned.arms[0].uses_lambda else [None])
    column = {"protocol": None, "scale": None, "grid": None, "optim": None}.get(group, group)
    if column:
        assert rows[0][column] == SAME.get(name, name)
    (arm,) = planned.arms
    method = worker.Workshop(lambda *_: None).method(arm.cfg)
    assert arm.uses_lambda == any((method.penalty_grad, method.loss, method.predict))


# The rest is slow: large images, one example at a time, or one of these on other rows.
FAST = ("split_digits_fisher", "split_mnist_fisher")
STUDIES = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in options("study")]


def as_written(name: str) -> Any:
    """A study, its arms not composed."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(hydra.compose("config", overrides=[f"study={name}"]))


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_runs_two_steps(name: str, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sets if name in FAST else made_sets(monkeypatch, tmp_path / "data", images=280)
    first = as_written(name)
    arms_choose = any("iterations" in arm for arm in written_out(first["arms"] or []))
    if name == "tiny_imagenet_search":
        made_tiny_imagenet.write(monkeypatch, folder)
        arms_choose = True  # what a batch of the Fisher is, and how many tasks
    cut = ["scale=smoke" if arms_choose else "iterations=2"]
    cut += ["seeds=[1]", "batch_size=8", "grid.lambdas=[0.001]", f"data_dir={folder}", f"results_dir={tmp_path}"]
    small = [override for override in SMALL[first["model"]["name"]] if not override.startswith("benchmark")]
    planned = study.plan(cli.arms(f"study={name}", *cut, *small, *whole(first["benchmark"]["name"])))
    rows = rows_of(planned, tmp_path)
    n_different = len({arm.config_id for arm in planned.arms})  # arms may differ in what has been cut
    assert [row["status"] for row in rows] == ["ok"] * n_different
    assert {row["study"] for row in rows} == {first["name"]}
    assert len({(row["arm"], row["scenario"]) for row in rows}) == n_different
    labels = {(arm.label, arm.cfg["scenario"]["name"]) for arm in planned.arms}
    assert len(labels) == len(planned.arms)
    assert all(0 <= float(row["accuracy"]) <= 1 for row in rows)


def test_a_method_without_a_fisher_carries_none() -> None:
    (arm,) = cli.arms("method=finetune")
    assert arm["fisher"] is None
    (planned,) = study.plan([arm]).arms
    assert planned.label == "finetune"
    assert not planned.uses_lambda


def test_the_reference_settings_of_split_mnist() -> None:
    (common,) = cli.arms("study=split_mnist_fisher", "scale=paper", "arms=[{method: ewc}]")
    assert (common["iterations"], common["batch_size"], common["model"]["hidden"]) == (2000, 128, [400, 400])
    assert common["seeds"] == list(range(1, 31))
    assert common["grid"]["lambdas"] == [10.0**i for i in range(14)]
    assert (common["optim"]["lr"], common["optim"]["betas"], common["optim"]["reset"]) == (1e-3, [0.9, 0.999], False)


def test_a_mistake_in_a_sweep_is_one_line_after_the_other_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cli.undrawn(monkeypatch)
    cut = ["iterations=2", "seeds=[1]", "workers=1"]
    assert cli.run(monkeypatch, tmp_path, "-m", "lam=-1,10", *cut) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("Error executing job")]
    assert lines == ["error: lambda=-1.0: must be a finite number of at least 0"]
    with open(tmp_path / "results" / "runs" / "runs.csv") as file:
        assert [float(row["lambda"]) for row in csv.DictReader(file)] == [10.0]


# --- iterations of each task, labels --------------------------------------------------------------------------------

INTEGER = "must be an integer from 1 to 10000000, or a list of one for each task"
FIVE = "must be one number, or one for each of the benchmark.n_tasks=5 tasks"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([2, 3], f"[2, 3]: {FIVE}"),
        ([2, 3, 4, 5, 6, 7], f"[2, 3, 4, 5, 6, 7]: {FIVE}"),
        ([], f"[]: {FIVE}"),
        ([2, 3, 0, 5, 6], f"[2, 3, 0, 5, 6]: {INTEGER}"),
        ([2, 3, "many", 5, 6], f"[2, 3, 'many', 5, 6]: {INTEGER}"),
        ([2, 3, 10000001, 5, 6], f"[2, 3, 10000001, 5, 6]: {INTEGER}"),
        ([[2, 3, 4, 5, 6]], f"[[2, 3, 4, 5, 6]]: {INTEGER}"),
        (0, f"0: {INTEGER}"),
        (2.5, f"2.5: {INTEGER}"),
        (True, f"True: {INTEGER}"),
        (None, f"None: {INTEGER}"),
        ("many", f"many: {INTEGER}"),
    ],
)
def test_iterations_are_one_number_or_one_for_each_task(given: Any, says: str) -> None:
    (arm,) = cli.arms()
    with pytest.raises(UserError) as caught:
        check(arm | {"iterations": given})
    assert str(caught.value) == f"iterations={says}"


@pytest.mark.parametrize("iterations", [[2, 60, 1, 3, 4], 7])
@pytest.mark.parametrize("method", ["si", "ewc", "der", "finetune"])
@pytest.mark.parametrize("share", [True, False])
def test_the_progress_of_a_chunk_ends_at_what_it_announces(
    method: str, iterations: int | list[int], share: bool, tmp_path: Path
) -> None:
    """Of those who observe or store, and so share no first task, too."""
    (arm,) = cli.arms(f"method={method}", "seeds=[1,2]")
    planned = study.plan([arm | {"iterations": iterations, "share_first_task": share}])
    done = 0

    def report(n: int, task: int, loss: float) -> None:
        nonlocal done
        done += n

    (chunk,) = planned.chunks
    job = Job(chunk, planned.arms, tmp_path, planned.device, provenance.Source("unknown", dirty=False))
    worker.Workshop(report).rows(job)
    shared = method not in ("si", "der") and share
    announced = 2 * (sum([60, 1, 3, 4]) + 2 * (not shared) if iterations != 7 else 7 * (5 - shared))
    assert done == worker.Workshop(report).size(job) == announced


def test_a_plan_counts_the_iterations_of_each_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only training moves: a thousandth of a second an iteration."""
    seconds = 0.0

    def train(experiment: plan.engine.Experiment, *_: object) -> None:
        nonlocal seconds
        seconds += 0.001 * sum(map(experiment.steps, range(5)))

    monkeypatch.setattr(plan.engine, "train", train)
    monkeypatch.setattr(runtime, "clock", lambda device: seconds)
    for iterations in ("[200,30,20,10,40]", "60"):
        planned = study.plan(cli.arms("method=si", f"iterations={iterations}", "seeds=[1,2]"))
        workshop, (chunk,) = worker.Workshop(lambda *_: None), planned.chunks
        assert plan.seconds_per_run(workshop, planned, chunk) == pytest.approx(0.3 / 2)


def test_a_label_names_the_arm_and_not_the_run(tmp_path: Path) -> None:
    cut = ["iterations=[2,1,1,1,3]", "seeds=[1]", "arms=[{method: si, label: mine, reinit: true}, {method: sos}]"]
    mine, sos = rows_of(study.plan(cli.arms(*cut)), tmp_path)
    assert (mine["arm"], mine["method"], sos["arm"]) == ("mine", "si", "sos")
    assert mine["iterations"] == 3
    cut[-1] = "arms=[{method: si, reinit: true}, {method: si}]"
    plain, kept = rows_of(study.plan(cli.arms(*cut)), tmp_path)
    assert (plain["arm"], plain["run_id"], plain["accuracy"]) == ("si", mine["run_id"], mine["accuracy"])
    assert kept["run_id"] != plain["run_id"]
    assert kept["accuracy"] != plain["accuracy"]


@pytest.mark.parametrize("label", ["EWC (ours)", "0.10", "1e3", "true", "null", "a=b, [c] {d}", "it's \\"])
def test_text_in_an_arm_stays_text(label: str) -> None:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("config")
        cfg.arms = [{"method": "ewc", "label": label, "fisher": "exact_500", "grid.lambdas": [1, 10]}]
        (arm,) = arms_of(cfg, [])
    assert (arm["label"], arm["fisher"]["n"], arm["grid"]["lambdas"]) == (label, 500, [1, 10])


def texts(node: Any, place: tuple = ()) -> Iterator[tuple]:
    """Where a configuration has text."""
    if isinstance(node, str):
        yield place
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from texts(value, (*place, key))


def test_no_text_setting_takes_control_characters() -> None:
    [cfg] = cli.arms("benchmark=split_digits", "method=ewc", "label=a")
    places = [*texts(cfg), ("benchmark", "protocol")]
    assert len(places) > 15
    for place in places:
        for character in ("\r", "\n", "\0", "\x1b", "\x85"):
            spoiled = copy.deepcopy(cfg)
            node = spoiled
            for key in place[:-1]:
                node = node[key]
            node[place[-1]] = f"a{character}b"
            with pytest.raises(UserError, match="must have no control characters") as error:
                check(spoiled)
            assert str(error.value).startswith(f"{'.'.join(map(str, place))}='a\\")
