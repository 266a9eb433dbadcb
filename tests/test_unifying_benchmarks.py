"""Permuted benchmarks and Split CIFAR-10/100, and what the engine does with an order of pixels of each task's own."""

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import cli
import made_cifar
import made_data
import numpy as np
import oracles
import pytest
import real_data
import torch
from made_experiments import made_experiment, run, thinned
from made_trees import error, same
from torch import Tensor

from cl_repro.benchmarks import scenarios
from cl_repro.benchmarks.cifar10_100 import cifar10_100
from cl_repro.benchmarks.data import arrays as data
from cl_repro.benchmarks.hold_out import hold_out
from cl_repro.benchmarks.permuted import permuted, pixel_orders
from cl_repro.common import rng
from cl_repro.common.errors import UserError
from cl_repro.engine import Experiment, Replica, Stack, boundary, lifecycle
from cl_repro.engine.batches import batches
from cl_repro.engine.stack import look, start
from cl_repro.importance import fisher
from cl_repro.importance.batched import batched
from cl_repro.methods.baselines import joint
from cl_repro.methods.ewc import ewc
from cl_repro.types import Benchmark, Curriculum, Method, Needs, Tree

N, P, T = 1347, 64, 4  # training rows of the digits, pixels, tasks


def permuted_digits(n_tasks: int = T, **changes: Any) -> Benchmark:
    return permuted("digits", n_tasks, 16.0, data_dir=".", device="cpu", **{"dtype": torch.float64} | changes)


@cache
def orders(seed: int, n_tasks: int = T, n_pixels: int = P) -> list[np.ndarray]:
    """The permutations as the reference implementation draws them: from NumPy's global generator."""
    before = np.random.get_state()
    np.random.seed(seed)
    drawn = [np.random.permutation(n_pixels) for _ in range(n_tasks)]
    np.random.set_state(before)
    return drawn


# --- permuted: rows and orders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_pixel_orders_are_successive_draws_of_the_legacy_generator(seed: int) -> None:
    before = np.random.get_state()[1].copy()
    tasks = permuted_digits().curriculum(seed).tasks
    assert np.array_equal(np.random.get_state()[1], before)
    for task, expected in zip(tasks, orders(seed), strict=True):
        assert task.pixels.dtype == torch.int64
        assert task.pixels.tolist() == expected.tolist()
        assert sorted(expected) == list(range(P)) != list(expected), "the first task is permuted, too"
    every = {tuple(order) for s in (0, 1, 7) for order in orders(s)}
    assert len(every) == 3 * T


def test_the_orders_of_seed_1_on_mnist() -> None:
    first, second = (order[:6].tolist() for order in pixel_orders(784, 2, 1))
    assert first == [649, 265, 111, 301, 339, 559]
    assert second == [268, 577, 481, 497, 313, 532]


def test_every_task_has_all_rows_and_all_classes() -> None:
    benchmark, arrays = permuted_digits(), data.load("digits", ".")
    assert (benchmark.n_tasks, benchmark.n_classes, benchmark.splits) == (T, 10 * T, ("test",))
    assert benchmark.checksum == data.CHECKSUMS["digits"]
    assert np.array_equal(benchmark.x, arrays.x_train), "resident once, in the order of the files"
    curriculum = benchmark.curriculum(3)
    assert np.array_equal(curriculum.y, arrays.y_train)
    assert np.array_equal(curriculum.y_test, arrays.y_test)
    for k, task in enumerate(curriculum.tasks):
        assert task.rows.tolist() == list(range(N))
        assert task.rows_test.tolist() == list(range(450))
        assert task.classes == tuple(range(10 * k, 10 * k + 10))
        assert task.rows_val is None


def test_the_first_rows_can_be_left_out_of_training() -> None:
    for task in permuted_digits(skip_first=100).curriculum(1).tasks:
        assert task.rows.tolist() == list(range(100, N))
        assert len(task.rows_test) == 450
    assert permuted_digits(skip_first=N - 1).curriculum(1).tasks[0].rows.tolist() == [N - 1]


def test_a_task_can_keep_random_rows() -> None:
    some = permuted_digits(skip_first=1000, train_per_task=50, test_per_task=30)
    tasks = [task for seed in (1, 2) for task in some.curriculum(seed).tasks]
    for task in tasks:
        assert (len(task.rows), len(task.rows_test)) == (50, 30)
        assert torch.equal(task.rows, task.rows.unique())
        assert task.rows.min() >= 1000
    for part in ("rows", "rows_test"):
        assert len({tuple(getattr(task, part).tolist()) for task in tasks}) == 2 * T, "a draw for each task and seed"
    again = [task for seed in (1, 2) for task in some.curriculum(seed).tasks]
    assert same([task.rows for task in again], [task.rows for task in tasks])
    whole = permuted_digits(skip_first=1000, train_per_task=N - 1000)
    assert whole.curriculum(1).tasks[1].rows.tolist() == list(range(1000, N))


def test_validation_rows_are_held_out_of_permuted_tasks_as_of_any() -> None:
    for seed in (1, 2):
        for k, task in enumerate(hold_out(permuted_digits(), 0.1).curriculum(seed).tasks):
            assert torch.cat([task.rows, task.rows_val]).sort().values.tolist() == list(range(N))
            assert task.pixels.tolist() == orders(seed)[k].tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_tasks": 0}, "n_tasks=0: must be an integer of at least 1"),
        ({"n_tasks": True}, "n_tasks=True: must be an integer of at least 1"),
        ({"skip_first": -1}, "skip_first=-1: must be an integer from 0 to 1346; digits has 1347 training rows"),
        ({"skip_first": N}, "skip_first=1347: must be an integer from 0 to 1346; digits has 1347 training rows"),
        (
            {"skip_first": 1000, "train_per_task": 348},
            "train_per_task=348: must be an integer from 1 to 347, the training rows of every task of permuted digits, "
            "or null for all rows",
        ),
        (
            {"test_per_task": 451},
            "test_per_task=451: must be an integer from 1 to 450, the test rows of every task of permuted digits, "
            "or null for all rows",
        ),
    ],
)
def test_bad_arguments_of_permuted_are_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        permuted_digits(**changes)
    assert made_data.one_line(caught) == f"benchmark.{message}"


def test_permuted_needs_a_scale_and_a_known_data_set() -> None:
    with pytest.raises(UserError, match=r"benchmark\.scale=0: must be a finite number above 0"):
        permuted("digits", T, 0, data_dir=".", device="cpu")
    with pytest.raises(UserError, match="dataset=minst: unknown data set"):
        permuted("minst", T, 16, data_dir=".", device="cpu")


def test_pixels_of_all_channels_are_permuted_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = made_cifar.small_cifar(monkeypatch)
    made_cifar.write_npz(tmp_path, made)
    benchmark = permuted("cifar10", 2, 255.0, data_dir=tmp_path, device="cpu")
    images = torch.from_numpy(made.x_train)
    for k, task in enumerate(benchmark.curriculum(5).tasks):
        order = orders(5, 2, 3072)[k]
        expected = made.x_train.reshape(-1, 3072)[:, order].reshape(-1, 3, 32, 32).astype(np.float32) / 255
        assert np.array_equal(look(benchmark, images, task.pixels), expected)
        one_each = task.pixels.expand(len(images), -1)
        assert np.array_equal(look(benchmark, images, one_each), expected)
        assert np.array_equal(look(benchmark, images.view(4, 5, 3, 32, 32), task.pixels).flatten(0, 1), expected)
    assert np.array_equal(look(benchmark, images, None), made.x_train.astype(np.float32) / 255)


# --- permuted: what the engine sees ---------------------------------------------------------------------------------

STACKS = [[2], [2, 2], [3, 1, 3]]  # K = 1; one mini-batch for all; each replica its seed's


def permuted_experiment(seeds_benchmark: Benchmark | None = None, **changes: Any) -> Experiment:
    return made_experiment(seeds_benchmark or permuted_digits(), scenarios.domain(), **changes)


def drawn_examples(
    seed: int, task: int, trains_on: Sequence[int], batch_size: int = 16, stream: str = "order"
) -> tuple[np.ndarray, np.ndarray]:
    """Rows [B], and the task of each [B], of the first mini-batch of a pool of whole tasks, one after the other."""
    at = rng.batches(rng.stream(seed, stream, task), N * len(trains_on), batch_size, 1)[0].numpy()
    return at % N, np.array(trains_on)[at // N]


def permuted_inputs(seed: int, rows: Sequence[int], owners: Sequence[int], images: np.ndarray) -> Tensor:
    """One image at a time: pixel j of the input is pixel order[j] of the image."""
    inputs = [images[row].reshape(P)[orders(seed)[owner]] for row, owner in zip(rows, owners, strict=True)]
    return torch.from_numpy(np.stack(inputs).reshape(-1, 8, 8) / 16)


def plain_gradient(experiment: Experiment, params: Tree, x: Tensor, y: Tensor) -> Tree:
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    loss = -experiment.net.apply(leaves, {}, x)[0].log_softmax(1)[torch.arange(len(y)), y].mean()
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


@pytest.mark.parametrize("seeds", STACKS)
@pytest.mark.parametrize(("task", "trains_on"), [(0, [0]), (2, [2]), (2, [0, 1, 2])])
def test_a_step_sees_each_example_with_its_own_tasks_pixels(seeds: list[int], task: int, trains_on: list[int]) -> None:
    """One step of plain gradient descent, so that the gradient can be read off the weights."""
    experiment = permuted_experiment(optimiser=partial(torch.optim.SGD, lr=1.0), iterations=1)
    stack = start(experiment, seeds)
    before = {name: p.clone() for name, p in stack.params.items()}
    lifecycle.learn(experiment, stack, task, Method(needs=Needs(all_tasks=len(trains_on) > 1)), None)
    arrays = data.load("digits", ".")
    for k, seed in enumerate(seeds):
        rows, owners = drawn_examples(seed, task, trains_on)
        assert set(owners) == set(trains_on)
        x, y = permuted_inputs(seed, rows, owners, arrays.x_train), torch.from_numpy(arrays.y_train[rows])
        expected = plain_gradient(experiment, {name: p[k] for name, p in before.items()}, x, y)
        step = {name: before[name][k] - p[k] for name, p in stack.params.items()}
        assert error(step, expected) < 1e-11


@pytest.mark.parametrize("seeds", STACKS)
def test_independent_gradients_see_each_example_with_its_own_tasks_pixels(seeds: list[int]) -> None:
    experiment = permuted_experiment(iterations=1)
    stack = start(experiment, seeds)
    before = {name: p.clone() for name, p in stack.params.items()}
    watching = Method(
        observe=lambda state, seen, change: seen, needs=Needs(gradients=("batch", "independent"), all_tasks=True)
    )
    found = lifecycle.learn(experiment, stack, 1, watching, torch.zeros(len(seeds)))
    arrays = data.load("digits", ".")
    for k, seed in enumerate(seeds):
        for kind, stream in (("batch", "order"), ("independent", "independent")):
            rows, owners = drawn_examples(seed, 1, [0, 1], stream=stream)
            x, y = permuted_inputs(seed, rows, owners, arrays.x_train), torch.from_numpy(arrays.y_train[rows])
            expected = plain_gradient(experiment, {name: p[k] for name, p in before.items()}, x, y)
            seen = {name: g if len(seeds) == 1 else g[k] for name, g in found[kind].items()}
            assert error(seen, expected) < 1e-11


def trained(experiment: Experiment, seeds: list[int]) -> Stack:
    return run(experiment, joint(), [Replica(seed, 0.0, None) for seed in seeds]).stack


@pytest.mark.parametrize("seeds", STACKS)
def test_accuracy_is_counted_on_permuted_images(seeds: list[int]) -> None:
    experiment = permuted_experiment(iterations=40, rows_per_pass=70)
    stack, arrays = trained(experiment, seeds), data.load("digits", ".")
    found = boundary.evaluate(experiment, stack, T - 1)
    for k, seed in enumerate(seeds):
        for task in range(T):
            x = permuted_inputs(seed, range(450), [task] * 450, arrays.x_test)
            z = experiment.net.apply({name: p[k] for name, p in stack.params.items()}, {}, x)[0]
            assert found[k, task] == (z.argmax(1).numpy() == arrays.y_test).mean()
    assert len(set(found.flatten().tolist())) > len(set(seeds))  # or the test shows little


@pytest.mark.parametrize("seeds", STACKS)
def test_validation_accuracy_is_counted_on_permuted_images(seeds: list[int]) -> None:
    experiment = permuted_experiment(hold_out(permuted_digits(), 0.2), iterations=40)
    stack, arrays = trained(experiment, seeds), data.load("digits", ".")
    found = boundary.evaluate(experiment, stack, T - 1, "val")
    for k, seed in enumerate(seeds):
        for task in range(T):
            rows = experiment.benchmark.curriculum(seed).tasks[task].rows_val.tolist()
            x = permuted_inputs(seed, rows, [task] * len(rows), arrays.x_train)
            z = experiment.net.apply({name: p[k] for name, p in stack.params.items()}, {}, x)[0]
            assert found[k, task] == (z.argmax(1).numpy() == arrays.y_train[rows]).mean()


@pytest.mark.parametrize("seeds", STACKS)
def test_an_importance_is_of_permuted_images(seeds: list[int]) -> None:
    experiment = permuted_experiment(thinned(permuted_digits(), 9), hidden=(5,), rows_per_pass=4)
    stack, arrays = start(experiment, seeds), data.load("digits", ".")
    found = boundary.measure(experiment, stack, 2, [fisher.exact()] * len(seeds))
    for k, seed in enumerate(seeds):
        x = permuted_inputs(seed, range(9), [2] * 9, arrays.x_train)
        params = {name: p[k] for name, p in stack.params.items()}
        expected = {name: f / 9 for name, f in oracles.exact(experiment.net, params, x, list(range(10))).items()}
        assert error({name: f[k] for name, f in found.items()}, expected) < 1e-11


# --- permuting pixels is permuting the columns of the first layer -----------------------------------------------------


def with_pixels(benchmark: Benchmark, pixels: Tensor | None) -> Benchmark:
    """The same tasks, with one order of the pixels in all of them."""

    def curriculum(seed: int) -> Curriculum:
        own = benchmark.curriculum(seed)
        return own._replace(tasks=tuple(task._replace(pixels=pixels) for task in own.tasks))

    return benchmark._replace(curriculum=curriculum)


def unpermuted(params: Tree, seeds: list[int], task: int) -> Tree:
    """Weights that do to images as they are what `params` do to a task's: w' x = w x[order]."""
    columns = params["fc1.weight"].clone()
    for k, seed in enumerate(seeds):
        columns[k][:, orders(seed)[task]] = params["fc1.weight"][k]
    return params | {"fc1.weight": columns}


def stack_of(experiment: Experiment, params: Tree, seeds: list[int]) -> Stack:
    copies = {name: p.clone() for name, p in params.items()}
    return Stack(seeds, copies, {}, experiment.optimiser(list(copies.values())))


@pytest.mark.parametrize("seeds", STACKS)
@pytest.mark.parametrize("task", [0, 3])
def test_training_importance_and_accuracy_follow_the_columns_of_the_first_layer(seeds: list[int], task: int) -> None:
    """Twelve steps of Adam, which knows no order of its parameters."""
    permutes, plain = permuted_experiment(), permuted_experiment(with_pixels(permuted_digits(), None))
    one = start(permutes, seeds)
    other = stack_of(plain, unpermuted(one.params, seeds, task), seeds)
    for experiment, stack in ((permutes, one), (plain, other)):
        lifecycle.learn(experiment, stack, task, Method(), None)
    assert error(unpermuted(one.params, seeds, task), other.params) < 1e-9
    estimators = [fisher.sample(100), batched(16), fisher.sample(100)][: len(seeds)]
    found = boundary.measure(permutes, one, task, estimators)
    assert error(unpermuted(found, seeds, task), boundary.measure(plain, other, task, estimators)) < 1e-7
    accuracy = [boundary.evaluate(experiment, stack, task) for experiment, stack in ((permutes, one), (plain, other))]
    assert (accuracy[0][:, task] == accuracy[1][:, task]).all()
    assert (accuracy[0][:, 1] != accuracy[1][:, 1]).any(), "another task has other columns"


@pytest.mark.parametrize("seeds", STACKS)
@pytest.mark.parametrize("method", [joint(), ewc()])
def test_the_identity_changes_no_bit(seeds: list[int], method: Method) -> None:
    rows = [Replica(seed, 100.0, fisher.empirical() if method.end_task else None) for seed in seeds]
    two = permuted_digits(2, dtype=torch.float32)
    plain = permuted_experiment(with_pixels(two, None), dtype=torch.float32)
    identity = plain._replace(benchmark=with_pixels(plain.benchmark, torch.arange(P)))
    expected, found = (run(experiment, method, rows) for experiment in (plain, identity))
    assert same(found.params, expected.params)
    for a, b in zip(found.outcomes, expected.outcomes, strict=True):
        assert (a.accuracy == b.accuracy).all()
        assert a.traces == b.traces
    other = run(permuted_experiment(two, dtype=torch.float32), method, rows)
    assert not same(other.params, expected.params)


@pytest.mark.parametrize(
    ("make", "n_outputs", "trained"),
    [
        (scenarios.domain, 10, range(10)),
        (scenarios.task, 10 * T, range(10, 20)),
        (scenarios.class_, 10 * T, range(20)),
    ],
)
def test_every_task_has_outputs_of_its_own_but_in_the_domain_incremental_scenario(make, n_outputs, trained) -> None:
    """Which rows of the head the second task moves, and where its labels are."""
    experiment = permuted_experiment()._replace(scenario=make())
    drawn = batches(experiment, [1], 1, (1,))
    task = experiment.benchmark.curriculum(1).tasks[1]
    assert experiment.scenario.n_outputs(experiment.benchmark, experiment.benchmark.curriculum(1).tasks) == n_outputs
    y = experiment.benchmark.curriculum(1).y[drawn.rows]
    assert (drawn.label == y + (0 if n_outputs == 10 else 10)).all()
    assert drawn.masks[1].nonzero()[:, 0].tolist() == list(trained)
    assert set(task.classes) == set(range(10, 20))


# --- Split CIFAR-10/100 ---------------------------------------------------------------------------------------------

PER_CLASS = {"cifar10": 40, "cifar100": 20}  # training images; half as many test images


def made_cifar_of(n_classes: int, per_class: int) -> data.Arrays:
    """Images that tell where they come from: canonical order by two leading bytes, a third that names the class."""
    generator = np.random.default_rng(n_classes)

    def split(n: int) -> tuple[np.ndarray, np.ndarray]:
        y = generator.permutation(np.repeat(np.arange(n_classes), n))
        x = np.zeros((len(y), 3, 32, 32), np.uint8)
        x[:, 0, 0, 0], x[:, 0, 0, 1] = np.divmod(np.arange(len(y)), 256)
        x[:, 0, 0, 2], x[:, 0, 0, 3] = y, n_classes
        return x, y

    return data.Arrays(*split(per_class), *split(per_class // 2))


@pytest.fixture(scope="module")
def made() -> dict[str, data.Arrays]:
    return {f"cifar{n}": made_cifar_of(n, PER_CLASS[f"cifar{n}"]) for n in (10, 100)}


@pytest.fixture(scope="module")
def folder(made: dict[str, data.Arrays], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cifar")
    for name, arrays in made.items():
        made_cifar.write_npz(path, arrays, name)
    return path


@pytest.fixture(autouse=True)
def made_counts_as_real(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "folder" in request.fixturenames:
        for name, arrays in request.getfixturevalue("made").items():
            monkeypatch.setitem(data.CHECKSUMS, name, data.checksum(arrays))


def split_cifar(folder: Path, n_tasks: int = 6, **changes: Any) -> Benchmark:
    return cifar10_100(n_tasks, 255.0, data_dir=folder, device="cpu", **changes)


@pytest.mark.parametrize("n_tasks", [1, 6, 11])
def test_tasks_are_cifar10_then_tens_of_cifar100(folder: Path, made: dict[str, data.Arrays], n_tasks: int) -> None:
    benchmark = split_cifar(folder, n_tasks, validation=True)
    curriculum = benchmark.curriculum(4)
    assert (benchmark.n_tasks, benchmark.n_classes) == (len(curriculum.tasks), 10 * n_tasks) == (n_tasks, 10 * n_tasks)
    for name, arrays in made.items():
        assert f"{name} {data.checksum(arrays)}" in benchmark.checksum.split(", ")
    for k, task in enumerate(curriculum.tasks):
        assert task.classes == tuple(range(10 * k, 10 * k + 10))
        source = "cifar100" if k else "cifar10"
        n = PER_CLASS[source] * 10
        for rows, x, y, expected in (
            (torch.cat([task.rows, task.rows_val]), benchmark.x, curriculum.y, n),
            (task.rows_test, benchmark.x_test, curriculum.y_test, n // 2),
        ):
            assert len(rows) == len(rows.unique()) == expected
            label, of = x[rows][:, 0, 0, 2].long(), x[rows][:, 0, 0, 3]
            assert (of == (100 if k else 10)).all(), "the right data set"
            assert torch.equal(y[rows], label + 10 * (k > 0)), "fine labels 0 to 9 are classes 10 to 19"
            assert set(y[rows].tolist()) == set(task.classes)
        assert torch.equal(task.rows_test, task.rows_test.sort().values)


def test_a_tenth_of_the_training_rows_is_validation_whether_reported_or_not(folder: Path) -> None:
    with_val, without = split_cifar(folder, validation=True), split_cifar(folder)
    assert (with_val.splits, without.splits) == (("test", "val"), ("test",))
    for task, other in zip(with_val.curriculum(1).tasks, without.curriculum(1).tasks, strict=True):
        n = len(task.rows) + len(task.rows_val)
        assert len(task.rows_val) == n / 10
        assert not set(task.rows.tolist()) & set(task.rows_val.tolist())
        assert other.rows_val is None
        assert torch.equal(other.rows, task.rows)
        for rows in (task.rows, task.rows_val):
            assert torch.equal(rows, rows.sort().values)


def test_validation_rows_are_the_last_of_a_permutation_that_depends_on_the_size_alone(
    folder: Path, made: dict[str, data.Arrays]
) -> None:
    """Places in a list of the task's rows, class by class: the same in every task of CIFAR-100."""
    benchmark = split_cifar(folder, 11, validation=True)
    y = np.concatenate([made["cifar10"].y_train, 10 + made["cifar100"].y_train])
    for k, task in enumerate(benchmark.curriculum(1).tasks):
        n = 200 if k else 400
        listed = [row for c in task.classes for row in range(len(y)) if y[row] == c]
        order = torch.randperm(n, generator=rng.stream(0, "cifar10_100_validation", n)).tolist()
        assert task.rows_val.tolist() == sorted(listed[i] for i in order[n - n // 10 :])
    assert max(order[n - n // 10 :]) > n // 2 > min(order[n - n // 10 :])


def test_nothing_changes_between_seeds(folder: Path) -> None:
    benchmark = split_cifar(folder, validation=True)
    first = benchmark.curriculum(0)
    for seed in (1, 2, 99):
        other = benchmark.curriculum(seed)
        assert torch.equal(other.y, first.y)
        for a, b in zip(other.tasks, first.tasks, strict=True):
            assert a.classes == b.classes
            assert same((a.rows, a.rows_val, a.rows_test), (b.rows, b.rows_val, b.rows_test))


@pytest.mark.parametrize(("train", "test"), [([60, 20, 30, 40, 50, 60], 25), (30, [70, 10, 20, 30, 40, 50])])
def test_twins_keep_random_rows_of_those_that_are_trained_on(folder: Path, train: Any, test: Any) -> None:
    whole, cut = (
        split_cifar(folder, validation=True, **given)
        for given in ({}, {"train_per_task": train, "test_per_task": test})
    )
    kept: dict[str, set[tuple[int, ...]]] = {"rows": set(), "rows_test": set()}
    for seed in (1, 2):
        for k, (task, all_of) in enumerate(zip(cut.curriculum(seed).tasks, whole.curriculum(seed).tasks, strict=True)):
            assert len(task.rows) == (train[k] if isinstance(train, list) else train)
            assert len(task.rows_test) == (test[k] if isinstance(test, list) else test)
            assert torch.isin(task.rows, all_of.rows).all()
            assert torch.isin(task.rows_test, all_of.rows_test).all()
            assert torch.equal(task.rows_val, all_of.rows_val)
            for part, of in kept.items():
                assert torch.equal(getattr(task, part), getattr(task, part).unique())
                of.add(tuple((torch.searchsorted(getattr(all_of, part), getattr(task, part))).tolist()))
    assert {part: len(of) for part, of in kept.items()} == {"rows": 12, "rows_test": 12}, "a draw for each"


def test_inputs_are_pixels_over_255(folder: Path, made: dict[str, data.Arrays]) -> None:
    benchmark = split_cifar(folder)
    assert benchmark.x.dtype == torch.uint8
    whole = np.concatenate([made["cifar10"].x_train, made["cifar100"].x_train]).astype(np.float32) / 255
    assert np.array_equal(benchmark.to_input(benchmark.x), whole)
    assert len(benchmark.x_test) == 200 + 1000


def test_a_fraction_can_be_held_out_unless_validation_rows_are_there(folder: Path) -> None:
    cut = hold_out(split_cifar(folder), 0.5)
    for task, whole in zip(cut.curriculum(1).tasks, split_cifar(folder).curriculum(1).tasks, strict=True):
        assert torch.cat([task.rows, task.rows_val]).sort().values.equal(whole.rows)
    with pytest.raises(UserError) as caught:
        hold_out(split_cifar(folder, validation=True), 0.5)
    assert made_data.one_line(caught) == (
        "val_fraction=0.5: must be null where benchmark.validation=true gives validation rows already"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_tasks": 0}, "n_tasks=0: must be an integer from 1 to 11: CIFAR-10, and CIFAR-100 in tens"),
        ({"n_tasks": 12}, "n_tasks=12: must be an integer from 1 to 11: CIFAR-10, and CIFAR-100 in tens"),
        (
            {"train_per_task": 181},
            "train_per_task=181: must be an integer from 1 to 180, the training rows of task 1, or null for all rows",
        ),
        (
            {"train_per_task": [361, 1, 1, 1, 1, 1]},
            "train_per_task=361: must be an integer from 1 to 360, the training rows of task 0, or null for all rows",
        ),
        (
            {"test_per_task": [1, 1, 1, 1, 1, 0]},
            "test_per_task=0: must be an integer from 1 to 100, the test rows of task 5, or null for all rows",
        ),
        (
            {"test_per_task": [10, 10]},
            "test_per_task=[10, 10]: must be one number, one for each of the 6 tasks, or null for all rows",
        ),
    ],
)
def test_bad_arguments_of_cifar10_100_are_one_line(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        split_cifar(folder, **changes)
    assert made_data.one_line(caught) == f"benchmark.{message}"


def test_a_missing_data_set_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cifar10.npz").symlink_to(folder / "cifar10.npz")
    with pytest.raises(UserError, match=r"CIFAR-100 not found: looked for .*cifar100\.npz"):
        split_cifar(tmp_path)


# --- the configurations ---------------------------------------------------------------------------------------------


def protocols(name: str, scale: str, *overrides: str) -> list[dict[str, Any]]:
    """Iterations and batch of a scale, and those of its large batches."""
    (cfg,) = cli.arms(f"benchmark={name}", "scenario=domain", f"scale={scale}", *overrides)
    protocol = cfg["benchmark"]["protocol"]
    return [cfg, protocol, protocol["large"]]


def test_the_published_settings_of_permuted_mnist() -> None:
    cfg, protocol, large = protocols("permuted_mnist", "paper")
    benchmark = cfg["benchmark"]
    assert (benchmark["n_tasks"], benchmark["skip_first"], benchmark["scale"]) == (10, 5000, 255)
    assert benchmark["train_per_task"] is benchmark["test_per_task"] is None
    assert (cfg["iterations"], cfg["batch_size"], cfg["suffix"]) == (20 * (60_000 // 256), 256, "")
    assert large == {"batch_size": 2048, "iterations": 20 * (60_000 // 2048), "lr": 0.001 * 2048 / 256}
    assert protocol["long"]["iterations"] == 10 * cfg["iterations"]
    assert cfg["model"]["hidden"] == [2000, 2000]
    assert {key: protocol[key] for key in ("xi", "importance_n", "init", "bias")} == {
        "xi": 0.1, "importance_n": 1000, "init": "glorot_uniform", "bias": 0.1
    }  # fmt: skip
    assert cfg["seeds"] == [1, 2, 3]


def test_the_published_settings_of_cifar10_100() -> None:
    cfg, protocol, large = protocols("cifar10_100", "paper")
    benchmark = cfg["benchmark"]
    assert (benchmark["n_tasks"], benchmark["validation"], benchmark["scale"]) == (6, False, 255)
    assert benchmark["train_per_task"] is benchmark["test_per_task"] is None
    assert (cfg["iterations"], cfg["batch_size"]) == ([60 * (45_000 // 256)] + 5 * [60 * (4_500 // 256)], 256)
    first, later = 60 * (45_000 // 2048), 600 * (4_500 // 2048)
    assert large == {"batch_size": 2048, "iterations": [first, *5 * [later]], "lr": 0.001}
    keys = ("xi", "importance_n", "channels", "units", "init", "bias")
    assert [protocol[key] for key in keys] == [0.001, 500, [32, 64], 512, "glorot_uniform", 0.0]
    assert cfg["seeds"] == list(range(1, 11))


@pytest.mark.parametrize("scale", ["smoke", "cpu"])
@pytest.mark.parametrize(
    ("name", "sizes"), [("permuted_mnist", [55_000] * 10), ("cifar10_100", [45_000, *5 * [4_500]])]
)
def test_no_twin_asks_for_more_than_its_tasks_have(name: str, sizes: list[int], scale: str) -> None:
    cfg, protocol, large = protocols(name, scale)
    given = cfg["benchmark"]["train_per_task"]
    kept = given if isinstance(given, list) else [given or size for size in sizes]
    assert all(1 <= n <= size for n, size in zip(kept, sizes, strict=True))
    assert max(cfg["batch_size"], large["batch_size"], protocol["importance_n"]) <= min(kept)
    assert cfg["suffix"] == f"_{scale}"
    for steps in (protocol["iterations"], large["iterations"]):
        assert not isinstance(steps, list) or len(steps) == cfg["benchmark"]["n_tasks"]


# --- the real data --------------------------------------------------------------------------------------------------


def test_permuted_mnist_leaves_out_the_first_5000_rows_of_the_files() -> None:
    folder = real_data.require("mnist")
    benchmark = permuted("mnist", 10, 255.0, 5000, data_dir=folder, device="cpu")
    curriculum = benchmark.curriculum(1)
    for task in curriculum.tasks:
        assert (len(task.rows), len(task.rows_test), len(task.pixels)) == (55_000, 10_000, 784)
    # the files begin with 5 0 4 1 9, and what the loader of TensorFlow's tutorials calls training with 7 3 4 6 1
    assert curriculum.y[:5].tolist() == [5, 0, 4, 1, 9]
    assert curriculum.y[curriculum.tasks[9].rows[:10]].tolist() == [7, 3, 4, 6, 1, 8, 1, 0, 9, 8]


@pytest.mark.slow  # it sorts 120,000 images
def test_sizes_of_cifar10_100() -> None:
    folder = real_data.require("cifar100")
    assert real_data.require("cifar10") == folder
    benchmark = cifar10_100(11, 255.0, True, data_dir=folder, device="cpu")
    curriculum = benchmark.curriculum(1)
    sizes = [tuple(map(len, (task.rows, task.rows_val, task.rows_test))) for task in curriculum.tasks]
    assert sizes == [(45_000, 5_000, 10_000)] + 10 * [(4_500, 500, 1_000)]
    make_up = [torch.bincount(curriculum.y[task.rows_val]).tolist()[-10:] for task in curriculum.tasks]
    assert all(counts == make_up[1] for counts in make_up[1:]), "every task of CIFAR-100 holds out alike"
    for task in curriculum.tasks:
        for rows in (task.rows, task.rows_val):
            assert set(curriculum.y[rows].tolist()) == set(task.classes)
