"""Split benchmarks: the class permutation of each seed, the tasks, and the input scaling."""

import numpy as np
import pytest
import real_data
import torch

from cl_repro.benchmarks.data.arrays import CHECKSUMS, load
from cl_repro.benchmarks.hold_out import hold_out
from cl_repro.benchmarks.split import class_permutation, split
from cl_repro.common.errors import UserError

# What a seed means in the reference implementation: the original classes of each task, and how
# many training images of MNIST they have.
REFERENCE = {
    1: ([2, 9, 6, 4, 0, 3, 1, 7, 8, 5], [11760, 11344, 12080, 12223, 12593]),
    2: ([4, 1, 5, 0, 7, 2, 3, 6, 9, 8], [12873, 11339, 11881, 12107, 11800]),
    3: ([5, 4, 1, 2, 9, 6, 7, 0, 3, 8], [12223, 11982, 12665, 11339, 11791]),
}
REFERENCE_TASKS = {
    1: [{4, 6}, {0, 5}, {3, 9}, {2, 7}, {8, 1}],
    2: [{3, 1}, {5, 6}, {0, 2}, {7, 4}, {9, 8}],
    3: [{7, 2}, {3, 8}, {1, 0}, {5, 6}, {9, 4}],
}
IDENTITY = [{0, 1}, {2, 3}, {4, 5}, {6, 7}, {8, 9}]


def digits(n_tasks=5, scale=16, **keywords):
    return split("digits", n_tasks, scale, **{"data_dir": ".", "device": "cpu"} | keywords)


def original_tasks(curriculum, y):
    return [set(y[of.rows].tolist()) for of in curriculum.tasks]


@pytest.mark.parametrize("seed", REFERENCE)
def test_class_permutation_is_the_reference_one(seed):
    p = class_permutation(10, seed)
    assert p.tolist() == REFERENCE[seed][0]
    inverse = np.argsort(p)
    assert [set(inverse[2 * k : 2 * k + 2].tolist()) for k in range(5)] == REFERENCE_TASKS[seed]


def test_seed_0_does_not_permute():
    assert class_permutation(10, 0).tolist() == list(range(10))


def test_class_permutation_leaves_numpys_global_generator_alone():
    before = np.random.get_state()[1].copy()
    class_permutation(10, 7)
    assert np.array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range(seed):
    with pytest.raises(UserError, match=rf"seed={seed}: must be at least 0 and below 2\*\*32"):
        class_permutation(10, seed)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_split_digits_cuts_the_rows_into_the_seeds_tasks(seed):
    arrays, curriculum = load("digits", "."), digits().curriculum(seed)
    expected = IDENTITY if seed == 0 else REFERENCE_TASKS[seed]
    assert original_tasks(curriculum, arrays.y_train) == expected
    p = class_permutation(10, seed)
    assert np.array_equal(curriculum.y.numpy(), p[arrays.y_train])
    assert np.array_equal(curriculum.y_test.numpy(), p[arrays.y_test])
    for k, of in enumerate(curriculum.tasks):
        assert of.classes == (2 * k, 2 * k + 1)
        assert set(curriculum.y[of.rows].tolist()) == set(of.classes)
        assert set(curriculum.y_test[of.rows_test].tolist()) == set(of.classes)
        for rows in (of.rows, of.rows_test):
            assert rows.dtype == torch.int64
            assert torch.equal(rows, rows.sort().values), "file order"
    for part, n in (("rows", 1347), ("rows_test", 450)):
        together = torch.cat([getattr(of, part) for of in curriculum.tasks])
        assert torch.equal(together.sort().values, torch.arange(n)), "each row exactly once"


@pytest.mark.parametrize("n_tasks", [1, 2, 5, 10])
def test_any_divisor_of_the_classes_is_a_number_of_tasks(n_tasks):
    benchmark = digits(n_tasks)
    tasks = benchmark.curriculum(4).tasks
    assert len(tasks) == benchmark.n_tasks == n_tasks
    assert [c for of in tasks for c in of.classes] == list(range(10))


@pytest.mark.parametrize("n_tasks", [0, -5, 3, 11, 2.5])
def test_n_tasks_must_divide_the_classes(n_tasks):
    rule = rf"n_tasks={n_tasks}: must divide the 10 classes of digits: one of 1, 2, 5, 10"
    with pytest.raises(UserError, match=rule):
        digits(n_tasks)


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), "big"])
def test_scale_must_be_positive(scale):
    with pytest.raises(UserError, match=f"scale={scale}: must be a finite number above 0"):
        digits(scale=scale)


def kept(seed, n=50, n_tasks=5):
    """The training rows of each task where n rows are kept, and of the whole tasks."""
    cut, whole = digits(n_tasks, train_per_task=n).curriculum(seed), digits(n_tasks).curriculum(seed)
    for a, b in zip(cut.tasks, whole.tasks, strict=True):
        assert torch.equal(a.rows_test, b.rows_test), "test rows are another cut"
        assert a.classes == b.classes
    assert torch.equal(cut.y, whole.y)
    return [task.rows for task in cut.tasks], [task.rows for task in whole.tasks]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_train_per_task_keeps_that_many_random_rows_of_every_task(seed):
    rows, whole = kept(seed)
    for some, of in zip(rows, whole, strict=True):
        assert len(some) == 50
        assert torch.equal(some, some.unique()), "sorted, without repetition"
        assert torch.isin(some, of).all()
        position = torch.searchsorted(of, some).double() / len(of)
        assert abs(position.mean() - 0.5) < 5 / (12 * 50) ** 0.5, "from the whole task, not from its start"
    assert all(map(torch.equal, rows, kept(seed)[0])), "the same for the same seed"
    more = kept(seed, 80)[0]
    assert all(torch.isin(a, b).all() for a, b in zip(rows, more, strict=True)), "more rows are these and others"


def test_train_per_task_draws_differ_between_tasks_and_seeds():
    """Seeds that do not differ in the classes of a task, so that only the draw can."""
    assert class_permutation(10, 1).tolist() != class_permutation(10, 2).tolist()
    one, two = (digits(1, train_per_task=100).curriculum(seed).tasks[0].rows for seed in (1, 2))
    assert not torch.equal(one, two)
    whole = [task.rows for task in digits(5).curriculum(0).tasks]
    rows = [task.rows for task in digits(5, train_per_task=50).curriculum(0).tasks]
    positions = [torch.searchsorted(of, some).tolist() for some, of in zip(rows, whole, strict=True)]
    assert len(set(map(tuple, positions))) == 5


def test_train_per_task_of_all_rows_is_no_cut():
    n = min(len(task.rows) for task in digits().curriculum(0).tasks)
    bound = digits(10, train_per_task=None).curriculum(0)
    smallest = sum(sorted(len(task.rows) for task in bound.tasks)[:2])
    assert smallest <= n
    for seed in range(20):
        assert {len(task.rows) for task in digits(train_per_task=smallest).curriculum(seed).tasks} == {smallest}
    assert torch.equal(digits(1, train_per_task=1347).curriculum(3).tasks[0].rows, torch.arange(1347))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_test_per_task_does_the_same_to_test_rows_alone(seed):
    cut, whole = digits(5, test_per_task=30).curriculum(seed), digits(5).curriculum(seed)
    positions = []
    for some, of in zip(cut.tasks, whole.tasks, strict=True):
        assert torch.equal(some.rows, of.rows)
        assert len(some.rows_test) == 30
        assert torch.isin(some.rows_test, of.rows_test).all()
        assert torch.equal(some.rows_test, some.rows_test.unique())
        positions.append(torch.searchsorted(of.rows_test, some.rows_test).tolist())
    assert len(set(map(tuple, positions))) == 5  # a draw for each task, not the first rows
    with pytest.raises(
        UserError, match=r"benchmark.test_per_task=451: must be an integer from 1 to 450, the test rows"
    ):
        digits(1, test_per_task=451)


@pytest.mark.parametrize("n", [0, -1, 1348, 2.5, "all", True])
def test_train_per_task_must_fit_every_task(n):
    rule = (
        f"benchmark.train_per_task={n}: must be an integer from 1 to 1347, the training rows of the smallest possible"
    )
    with pytest.raises(UserError, match=rule):
        digits(1, train_per_task=n)


def test_validation_rows_are_held_out_of_the_rows_that_are_kept():
    cut = digits(train_per_task=50)
    for task, whole in zip(hold_out(cut, 0.2).curriculum(1).tasks, cut.curriculum(1).tasks, strict=True):
        assert (len(task.rows), len(task.rows_val)) == (40, 10)
        assert torch.equal(torch.cat([task.rows, task.rows_val]).sort().values, whole.rows)


def test_unknown_data_set_names_the_allowed_ones():
    with pytest.raises(UserError, match="dataset=minst: unknown data set; allowed: digits, mnist"):
        split("minst", 5, 255, data_dir=".", device="cpu")


def test_benchmark_describes_its_data():
    benchmark = digits()
    assert (benchmark.n_tasks, benchmark.n_classes) == (5, 10)
    assert benchmark.checksum == CHECKSUMS["digits"]
    assert benchmark.x.dtype == benchmark.x_test.dtype == torch.uint8
    assert (benchmark.x.shape, benchmark.x_test.shape) == ((1347, 8, 8), (450, 8, 8))
    assert benchmark.to_input(benchmark.x).max() == 1  # 16 is the darkest pixel


@pytest.mark.parametrize("scale", [255, 16])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_to_input_is_the_correctly_rounded_quotient(scale, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    to_input = digits(scale=scale, device=device).to_input
    x = torch.arange(256, dtype=torch.uint8, device=device).reshape(2, 2, 8, 8)
    before = x.clone()
    expected = np.arange(256, dtype=np.float32).reshape(2, 2, 8, 8) / np.float32(scale)
    assert np.array_equal(to_input(x).cpu().numpy(), expected)
    assert torch.equal(x, before)


def test_to_input_never_writes_to_its_argument_even_if_that_has_the_right_type():
    x = torch.full((2, 8, 8), 8.0)
    assert torch.equal(digits().to_input(x), torch.full((2, 8, 8), 0.5))
    assert x.unique().tolist() == [8.0]


def test_to_input_in_double_precision():
    x = digits(dtype=torch.float64, scale=255).to_input(torch.full((1, 8, 8), 7, dtype=torch.uint8))
    assert x.dtype == torch.float64
    assert x.unique().tolist() == [7 / 255]


@pytest.mark.parametrize("seed", REFERENCE)
def test_split_mnist_tasks_are_the_reference_ones(seed):
    data_dir = real_data.require("mnist")
    curriculum = split("mnist", 5, 255, data_dir=data_dir, device="cpu").curriculum(seed)
    y = load("mnist", data_dir).y_train
    assert original_tasks(curriculum, y) == REFERENCE_TASKS[seed]
    assert [len(of.rows) for of in curriculum.tasks] == REFERENCE[seed][1]
    assert sum(len(of.rows_test) for of in curriculum.tasks) == 10_000


def test_position_in_a_task_is_the_reference_row_of_the_file():
    """Seed 1's first mini-batch of the reference: positions in its first task, rows of MNIST."""
    data_dir = real_data.require("mnist")
    curriculum = split("mnist", 5, 255, data_dir=data_dir, device="cpu").curriculum(1)
    positions = [9263, 5543, 4105, 2806, 3723, 4590, 1660, 4181, 7823, 1317]
    rows = [47252, 28225, 20984, 14248, 19021, 23359, 8336, 21345, 39636, 6469]
    assert curriculum.tasks[0].rows[positions].tolist() == rows
