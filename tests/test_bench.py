"""The arithmetic of the benchmark, and that what it compares computes the same; never how long anything takes."""

import csv
import math
import subprocess
from functools import partial
from pathlib import Path

import pytest
import torch
from cli import arms
from made_experiments import digits, made_experiment, thinned
from made_trees import error, random_tree

from benches import (
    checkpoint,
    cuda,
    cuda_study,
    memory,
    modules,
    reference,
    report,
    store,
    sweep,
    whole_study,
    workloads,
)
from benches.measure import AT_MOST, NO_CUDA, Row, Setting, cost, figure, interleave, speedup, verdict
from cl_repro.common import tree
from cl_repro.engine import stack
from cl_repro.engine.lifecycle import begin
from cl_repro.engine.training import follow
from cl_repro.importance import quadratic_penalty
from cl_repro.importance.fisher import exact
from cl_repro.methods.baselines import finetune
from cl_repro.methods.ewc import ewc
from cl_repro.methods.quadratic import Pull
from cl_repro.models.slim_resnet18 import slim_resnet18
from cl_repro.records import Store
from cl_repro.study import grid, status
from cl_repro.study.factories import build

SETTING = Setting(rounds=1, data_dir=Path("nowhere"))


class Scripted:
    """A candidate that returns given seconds and writes down when it ran."""

    def __init__(self, name: str, seconds: list[float], log: list[str]) -> None:
        self.name, self.seconds, self.log = name, iter(seconds), log

    def __call__(self) -> float:
        self.log.append(self.name)
        return next(self.seconds)


def test_interleaves_and_takes_medians_without_the_first_round() -> None:
    log: list[str] = []
    candidates = {
        "a": Scripted("a", [100.0, 3.0, 1.0, 2.0], log),
        "b": Scripted("b", [0.0, 8.0, 10.0, 90.0], log),
    }
    assert interleave(candidates, rounds=3) == {"a": 2.0, "b": 10.0}
    assert log == ["a", "b"] * 4


def test_ratios_say_how_many_times_as_long_the_other_takes() -> None:
    row = speedup("step", ours=2.0, other=5.0, target=2.5)
    assert row.value == 2.5 and verdict(row) == "met"
    assert verdict(row._replace(target=2.6)) == "not met"


def test_costs_are_in_units_of_the_other() -> None:
    row = cost("pass", ours=3.0, other=120.0, target=2.5, of="%")
    assert row.value == 2.5 and verdict(row) == "met"
    assert verdict(row._replace(target=2.4)) == "not met"


def test_verdicts_without_value_target_or_sense() -> None:
    seconds, note = NO_CUDA
    for row in (speedup("row", seconds["ours"], 1.0, 20.0, note), cost("row", 1.0, seconds["other"], 20.0, note=note)):
        assert verdict(row) == "not measured"
        assert (row.ours, row.other, row.value, row.target, row.note) == (None, None, None, 20.0, note)
    assert verdict(speedup("row", 1.0, 2.0, None)) == "-"
    assert verdict(figure("row", float("nan"), "s", 1.0, "")) == "not met"


def test_the_table_shows_units_targets_and_verdicts() -> None:
    rows = [
        speedup("step", 0.0033, 0.0055, 1.6, "of a made machine"),
        cost("pass", 0.25, 0.2, 1.0, "epochs", note="of a made machine"),
        speedup("stack", math.nan, 1.0, 20.0, "no device"),
    ]
    lines = [" ".join(line.split()) for line in report.table("Speed", rows).splitlines()]
    assert "step [1] 3.30 ms 5.50 ms 1.67 x >= 1.6 x met" in lines
    assert "pass [1] 250 ms 200 ms 1.25 epochs <= 1 epochs not met" in lines
    assert "stack [2] - - - >= 20 x not measured" in lines
    assert lines[-2:] == ["[1] of a made machine", "[2] no device"]


def test_a_csv_carries_its_origin_and_survives_a_machine_that_cannot_measure_it(tmp_path: Path) -> None:
    measured, absent = [speedup("step", 1.0, 2.0, 1.6)], [speedup("step", math.nan, 2.0, 1.6, "no device")]
    path = report.write("steps", measured, SETTING, tmp_path)
    assert path == tmp_path / "steps.csv"
    with path.open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["value"], row["verdict"], row["rounds"], row["torch"]) == ("2", "met", "1", torch.__version__)
    assert all(row[key] for key in ("git_sha", "hardware", "date"))
    assert report.write("steps", absent, SETTING, tmp_path) is None
    assert ",met," in path.read_text(encoding="utf-8")


def test_without_cuda_its_rows_are_not_measured() -> None:
    rows = [*cuda.rows(SETTING), *cuda_study.rows(SETTING)]
    assert {verdict(row) for row in rows} == {"not measured"}
    assert [row.target for row in rows if row.target] == [20.0, 100.0, 300.0]


def test_the_code_of_the_cuda_rows_runs_on_any_device() -> None:
    benchmark = thinned(digits(dtype=torch.float32), 20)
    experiment = made_experiment(benchmark, iterations=2, share_first_task=True, dtype=torch.float32)
    stacked, single = cuda.step(experiment, 3)(), cuda.step(experiment, 1)()
    assert cuda.fisher_pass(experiment)() > 0
    assert stacked > 0 and single > 0
    # 2 seeds x 3 replicas in stacks of at most 4: one seed each
    assert cuda_study.study_seconds(experiment, [1, 2], [1.0, 10.0, 100.0], [exact()], limit=4) > 0


def test_the_rows_of_convolutions_compare_with_one_replica_as_the_studies_train_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a small network: a row for each way of computing, and for each size of a stack."""
    monkeypatch.setattr(cuda, "ITERATIONS", 1)
    monkeypatch.setattr(cuda, "RECORDED", 1)
    monkeypatch.setattr(cuda, "STACKS", (2,))
    monkeypatch.setattr(cuda, "slim_resnet18", lambda _, **given: slim_resnet18(2, **given))
    monkeypatch.setattr(cuda, "random_data", lambda *_: workloads.random_data(2, 20, 10, (3, 8, 8)))
    made, before = workloads.experiment, torch.backends.cudnn.deterministic
    monkeypatch.setattr(cuda, "experiment", lambda *a, **given: made(a[0], (), 4, *a[3:], **given))
    rows = cuda.convolutions(*cuda.of_convolutions(Setting(1, Path(), "cpu")))
    fisher_row, *steps = rows
    assert fisher_row.value == pytest.approx(100 * fisher_row.ours / fisher_row.other) and fisher_row.target == 100
    assert [row.name.split(", ")[3] for row in steps] == [
        "TF32 / float32",
        "channels last / first",
        "repeatable / in any order",
        "cuda_graph=true / without",
        "deterministic=true / without",
        "K = 2",
    ]
    single = {row.other for row in steps if "repeatable" not in row.name} | {steps[2].ours}
    assert len(single) == 1 and all(row.value > 0 for row in rows)
    assert torch.backends.cudnn.deterministic == before


@pytest.mark.parametrize("penalised", [True, False])
def test_the_usual_style_computes_the_engine_s_gradient(penalised: bool) -> None:
    # steps of size 1: what the weights lose is the gradient
    experiment = made_experiment(hidden=(9, 7), iterations=1, optimiser=partial(torch.optim.SGD, lr=1.0))
    of_seed = stack.start(experiment, [1])
    before = tree.at(tree.select(of_seed.params, torch.tensor([0])), 0)
    shapes = {name: tuple(p.shape) for name, p in before.items()}
    anchor, importance = random_tree(shapes, 1), {k: v.square() for k, v in random_tree(shapes, 2).items()}
    lam = 30.0
    state = Pull(torch.tensor(lam), anchor, importance, {name: lam * f for name, f in importance.items()})

    method, state = (ewc(), state) if penalised else (finetune(), None)
    course = begin(experiment, of_seed, 1, method, state)
    drawn = course.drawn
    follow(course, course.steps)
    after = tree.at(of_seed.params, 0)

    model = modules.mlp((64, 9, 7, 10)).double()
    model.load_state_dict(before)
    penalty = partial(quadratic_penalty, importance=importance, anchor=anchor, lam=lam) if penalised else None
    x = experiment.benchmark.to_input(experiment.benchmark.x[drawn.rows[0, 0]])
    classes = digits().curriculum(1).tasks[1].classes
    reference.loss(model, x, drawn.label[0, 0], classes, penalty).backward()
    theirs = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert error({name: p - after[name] for name, p in before.items()}, theirs) < 1e-13

    model.load_state_dict(before)
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    reference.train(model, optimiser, experiment.benchmark, drawn, classes, penalty)
    assert error(after, {name: p.detach() for name, p in model.named_parameters()}) < 1e-13


def test_items_one_at_a_time_are_the_resident_examples() -> None:
    benchmark = digits(dtype=torch.float32)
    task = benchmark.curriculum(1).tasks[0]
    label = benchmark.curriculum(1).y[task.rows]
    items = reference.Items(benchmark.x[task.rows], label)
    assert len(items) == len(task.rows)
    image, y = items[3]
    # the digits are scaled by 16, items by 255
    assert torch.allclose(image * 255 / 16, benchmark.to_input(benchmark.x[task.rows[3]])) and y == label[3]
    sizes = [len(y) for _, y in reference.loader(benchmark.x[task.rows], label, 32)]
    assert sizes == [32] * (len(task.rows) // 32)


def test_the_study_s_minutes_count_what_the_engine_does() -> None:
    """With one cost set to a minute and all others to nothing, the minutes are a count."""
    names = [f"{side} {method}" for side in ("ours", "other") for method in ("finetune", "ewc")]
    names += [f"pass {name}" for name in whole_study.PASSES] + [f"example {name}" for name in whole_study.LOOPS]
    names += ["evaluate", "draw", "load"]

    def ours(name: str) -> float:
        return whole_study.our_minutes({n: 60.0 * (n == name) for n in names})

    def usual(name: str) -> float:
        return whole_study.usual_minutes({n: 60.0 * (n == name) for n in names})

    assert ours("ours ewc") == 70 * 4 * 2000
    assert ours("ours finetune") == 5 * 2000  # the shared first task, and None's four
    assert ours("pass exact") == 1 + 14 * 3
    assert ours("evaluate") == 2 + 71 * 4
    assert ours("draw") == 1 + 71 * 4
    assert usual("other ewc") == 70 * 4 * 2000
    assert usual("example sample") == 14 * 4 * 12_000
    assert usual("example exact") == 14 * 4 * (12_000 + 500)
    assert usual("load") == pytest.approx(71 * 5 * 2000 + 14 * 4 * 12_000 / 128)


def test_memory_sees_a_method_that_keeps_every_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe finds a leak of one tree a task, and none in ours."""
    kept: list[object] = []

    def hoarding(*arguments: object) -> object:
        kept.append(torch.zeros(1_000_000))
        return inner(*arguments)

    method = ewc()
    inner = method.end_task
    assert inner is not None
    monkeypatch.setattr(memory, "TASKS", 4)
    clean = memory.run_probed(method, replicas=1, examples=100)
    leaky = memory.run_probed(method._replace(end_task=hoarding), replicas=1, examples=100)
    assert clean.training[3] == pytest.approx(clean.training[1], rel=1e-3)
    assert leaky.training[3] - leaky.training[1] == pytest.approx(2 * 4e6, rel=1e-3)
    assert leaky.peak[3] - leaky.peak[2] == pytest.approx(4e6, rel=1e-3)


def test_stacks_stay_within_their_limit() -> None:
    row: Row = memory.bounded()
    assert row.ours == row.other == 16 and verdict(row) == "met"


def test_the_study_s_estimators_are_those_of_its_configuration() -> None:
    fishers = [arm["fisher"] for arm in arms("study=split_mnist_fisher") if arm["fisher"]]
    assert [fisher["name"] for fisher in fishers] == list(whole_study.PASSES)
    for fisher in fishers:
        ours, theirs = whole_study.PASSES[fisher["name"]], build("fisher", fisher)
        assert (ours.rows(12_000), ours.batch_size) == (theirs.rows(12_000), theirs.batch_size)


TINY = ["study=split_digits_fisher", "arms=[{method: finetune},{method: ewc,fisher: exact}]", "grid.lambdas=[10]"]


def test_what_surrounds_training_is_measured_on_the_whole_study_without_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded, merge = [], Store.merge

    def noted(self: Store) -> None:
        merge(self)
        recorded.append(len(self.read()["runs.csv"]))

    monkeypatch.setattr(Store, "merge", noted)
    row = sweep.overhead(2, [*TINY, "seeds=[1,2]", "iterations=2", "max_replicas=1", "device=cpu"])
    assert recorded.count(4) == 3  # at the end of every round, one more than counted; the training has no store
    assert recorded[-1] == 4
    assert row.ours is not None and row.other is not None and row.ours > 0
    assert row.value == pytest.approx(100 * row.ours / row.other)
    assert (row.value_unit, row.target, row.better) == ("%", 2.0, AT_MOST)


def test_jobs_beside_each_other_are_those_after_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def command(folder: Path, *arguments: str) -> store.Used:
        assert not list(folder.iterdir())
        called.append(arguments)
        return store.Used(2.0 if "hydra/launcher=workstation" in arguments else 3.0, 0.0, "")

    monkeypatch.setattr(sweep, "command", command)
    row = sweep.beside_each_other(rounds=1)
    assert (row.value, row.target, verdict(row)) == (1.5, 1.4, "met")
    assert "6 digits jobs, 1 rounds; needs 2 idle cores: load average before it" in row.note
    ours, other = called[:2]
    assert called == [ours, other] * 2
    assert [word for word in ours if "launcher" not in word] == list(other)
    assert arms(*[word.split(",")[0] for word in other[3:]])


@pytest.mark.slow
def test_status_is_asked_about_a_study_that_looks_finished(tmp_path: Path) -> None:
    command = [*TINY, "seeds=[1,2]"]
    made = [grid.make_arm(cfg) for cfg in arms(*command)]
    assert store.pretend(tmp_path, made) == 4
    cells = grid.cells(made)
    assert set(status.progress_of(cells, Store(tmp_path / "split_digits_fisher")).state.values()) == {"done"}
    assert len(Store(tmp_path / "split_digits_fisher").read()["accuracy.csv"]) == 4 * 6 * 5
    row = sweep.answer(rounds=1, overrides=command)
    assert row.name == "status of 4 runs"
    assert row.value is not None and row.other is not None and row.other > 0


@pytest.mark.slow
def test_the_store_is_measured_with_rows_that_are_read() -> None:
    merge, status_, peak, tables = store.grown(rounds=1, seeds=2, lambdas=2)
    assert merge.value is not None and status_.value is not None and tables.value is not None
    assert 0 < merge.value < tables.value
    assert peak.value is not None and 20 < peak.value < 500
    assert "22 runs with 38 rows each" in merge.note


def test_the_bookkeeping_of_a_chunk_is_told_of_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "END", 10)
    row = store.bookkeeping(15)
    assert row.value is not None and 0 < row.value < 5
    assert row.note.startswith("the last 10 chunks, ")


def test_a_checkpoint_is_measured_with_all_that_its_replicas_hold() -> None:
    """Of three networks: weights, two moments, and the anchor, importance and weight of EWC, in four bytes."""
    replicas = [stack.Replica(1, 10.0, exact(50))] * 3
    written, size = checkpoint.of("three", workloads.digits_experiment(2), replicas, rounds=1)
    n = 64 * 100 + 100 + 100 * 100 + 100 + 100 * 10 + 10
    assert size.other == pytest.approx(3 * 6 * 4 * n / 1e6, rel=1e-3)
    assert size.value is not None and 1 < size.value < 1.1
    assert written.value is not None and 0 < written.value < 100


def test_a_command_that_fails_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        store.command(tmp_path, "-m", "cl_repro", "status", "study=none")
