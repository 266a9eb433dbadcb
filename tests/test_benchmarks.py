"""Split benchmarks: the class permutation of each seed, the tasks, and the input scaling."""

import numpy as np
import pytest
import real_data
import torch

from cl_repro.benchmarks.split import class_permutation, split
from cl_repro.data.arrays import CHECKSUMS, load
from cl_repro.errors import UserError

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
