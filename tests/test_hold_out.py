"""A validation split: disjoint from what is trained and measured on, and a function of seed and task alone."""

from pathlib import Path

import cli
import pytest
import torch
from made_experiments import digits, made_experiment, thinned

from cl_repro.benchmarks.hold_out import hold_out
from cl_repro.common.errors import UserError
from cl_repro.engine import batches, boundary
from cl_repro.engine.stack import start
from cl_repro.study import grid, provenance, study, worker
from cl_repro.study.jobs import Job
from cl_repro.types import Benchmark


@pytest.fixture(scope="module")
def whole() -> Benchmark:
    return digits()


@pytest.mark.parametrize("fraction", [0.1, 0.5, 1e-9])
def test_rows_are_parted(whole: Benchmark, fraction: float) -> None:
    for seed in (1, 2):
        parted = hold_out(whole, fraction).curriculum(seed)
        for before, after in zip(whole.curriculum(seed).tasks, parted.tasks, strict=True):
            assert after.rows_val is not None
            assert len(after.rows_val) == max(1, round(fraction * len(before.rows)))
            assert torch.cat([after.rows, after.rows_val]).sort().values.equal(before.rows)
            assert after.rows_test.equal(before.rows_test)


def test_which_rows_is_a_function_of_seed_and_task(whole: Benchmark) -> None:
    """Of tasks of one size, as places among their rows."""
    alike = thinned(whole, 40)

    def held(seed: int) -> list[list[bool]]:
        pairs = zip(alike.curriculum(seed).tasks, hold_out(alike, 0.1).curriculum(seed).tasks, strict=True)
        return [torch.isin(before.rows, after.rows_val).tolist() for before, after in pairs]

    assert held(1) == held(1)
    places = [tuple(of_task) for seed in (1, 2) for of_task in held(seed)]
    assert len(set(places)) == len(places) == 10


def test_no_held_out_row_is_ever_trained_on(whole: Benchmark) -> None:
    made = made_experiment(hold_out(whole, 0.2))
    held = {row for task in made.benchmark.curriculum(1).tasks for row in task.rows_val.tolist()}
    assert held
    for task in range(5):
        seen = set(batches.batches(made, [1], task, range(task + 1)).rows.flatten().tolist())
        assert not seen & held


def test_validation_accuracy_is_of_the_held_out_rows(whole: Benchmark) -> None:
    made = made_experiment(hold_out(whole, 0.2))
    stack = start(made, [1])
    found = boundary.evaluate(made, stack, 0, "val")
    curriculum = made.benchmark.curriculum(1)
    params = {name: p[0] for name, p in stack.params.items()}
    for k, task in enumerate(curriculum.tasks):
        z, _ = made.net.apply(params, {}, made.benchmark.x[task.rows_val].double() / 16)
        low, high = sorted(task.classes)
        guess = torch.where(z[:, high] > z[:, low], high, low)
        right = (guess == curriculum.y[task.rows_val]).double().mean().item()
        assert found[0, k] == pytest.approx(right, abs=1e-12)


def test_rows_of_both_splits_are_recorded(tmp_path: Path) -> None:
    cut = ["iterations=2", "seeds=[1]", "grid.lambdas=[10.0]", "val_fraction=0.1", f"results_dir={tmp_path}"]
    planned = study.plan(cli.arms("study=split_digits_fisher", "arms=[{method: ewc}]", *cut))
    source = provenance.Source("unknown", dirty=False)
    job = Job(planned.chunks[0], planned.arms, tmp_path, "cpu", source)
    rows = worker.Workshop(lambda *_: None).rows(job)["accuracy.csv"]
    assert [row["split"] for row in rows] == ["test"] * 30 + ["val"] * 30


def test_it_is_part_of_the_identity_of_a_run_only_where_it_is_used() -> None:
    def ids(*overrides: str) -> set[str]:
        return {cell.run_id for cell in grid.cells([grid.make_arm(cfg) for cfg in cli.arms(*overrides)])}

    assert not ids("val_fraction=0.1") & ids()
    two = "arms=[{method: finetune}, {method: ewc, fisher: exact}]"
    assert not ids("study=split_mnist_fisher_val", two) & ids("study=split_mnist_fisher", two)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1.5])
def test_a_fraction_outside_its_range_is_refused(value: float) -> None:
    (arm,) = cli.arms()
    with pytest.raises(UserError, match=f"val_fraction={value}.*: must be between 0 and 1"):
        study.plan([arm | {"val_fraction": value}])
