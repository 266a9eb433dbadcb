"""Reading and verifying data sets, on small made files; on the real ones where they are."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import real_data
from made_data import assert_same, idx_bytes, one_line, small_mnist, write_npz, write_raw
from sklearn.datasets import load_digits

from cl_repro.benchmarks.data import arrays as data
from cl_repro.benchmarks.data import mnist
from cl_repro.benchmarks.data.files import MissingDataError
from cl_repro.common.errors import UserError


@pytest.fixture
def made(monkeypatch):
    return small_mnist(monkeypatch)


# Reading


def test_npz_is_read_with_labels_of_any_integer_type(made, tmp_path):
    write_npz(tmp_path, made, y_train=made.y_train.astype(np.uint8))
    assert_same(data.load("mnist", tmp_path), made)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_raw_idx_files_give_the_same_arrays(made, tmp_path, suffix):
    write_raw(tmp_path, made, suffix)
    assert_same(data.load("mnist", tmp_path), made)


def test_npz_is_preferred_to_raw_files(made, tmp_path):
    write_npz(tmp_path, made)
    for path in write_raw(tmp_path, made).iterdir():
        path.write_bytes(b"")
    assert_same(data.load("mnist", tmp_path), made)


def test_loading_twice_reads_once(made, tmp_path):
    write_npz(tmp_path, made)
    first = data.load("mnist", tmp_path)
    (tmp_path / "mnist.npz").unlink()
    assert data.load("mnist", tmp_path) is first


def test_relative_and_home_folders(made, tmp_path, monkeypatch):
    write_npz(tmp_path, made)
    monkeypatch.chdir(tmp_path.parent)
    assert_same(data.load("mnist", tmp_path.name), made)
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert_same(data.load("mnist", f"~/{tmp_path.name}"), made)


def test_a_repaired_file_is_read_again(made, tmp_path):
    path = tmp_path / "mnist.npz"
    path.write_bytes(b"not yet")
    with pytest.raises(UserError):
        data.load("mnist", tmp_path)
    write_npz(tmp_path, made)
    assert_same(data.load("mnist", tmp_path), made)


def test_digits_is_a_stratified_cut_of_scikit_learns():
    whole, found = load_digits(), data.load("digits", "nowhere")
    assert (found.x_train.shape, found.x_test.shape) == ((1347, 8, 8), (450, 8, 8))
    assert found.x_train.dtype == np.uint8
    assert found.y_train.dtype == np.int64
    assert (found.x_train.min(), found.x_train.max()) == (0, 16)

    def rows(x, y):
        return sorted((int(label), image.astype(int).tobytes()) for image, label in zip(x, y, strict=True))

    together = rows(found.x_train, found.y_train) + rows(found.x_test, found.y_test)
    assert sorted(together) == rows(whole.images, whole.target), "every scan exactly once"
    share = np.bincount(whole.target) * 450 / 1797
    assert np.abs(np.bincount(found.y_test) - share).max() < 1


# What is wrong with the data is one line that names the file


def test_missing_data_says_what_where_and_how_to_get_it(tmp_path):
    with pytest.raises(MissingDataError) as error:
        data.load("mnist", tmp_path)
    message = one_line(error)
    raw = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    assert f"MNIST not found: looked for {tmp_path / 'mnist.npz'} and {raw}[.gz]" in message
    for remedy in ("`make data`", "CL_REPRO_DATA", "data_dir=<folder>"):
        assert remedy in message


@pytest.mark.parametrize("part", mnist.PARTS)
def test_one_missing_raw_file_is_named(made, tmp_path, part):
    gone = write_raw(tmp_path, made) / mnist.PARTS[part][0]
    gone.unlink()
    with pytest.raises(MissingDataError) as error:
        data.load("mnist", tmp_path)
    assert str(gone) in one_line(error)


def test_unknown_name_lists_the_allowed_ones(tmp_path):
    with pytest.raises(UserError, match="dataset=emnist: unknown data set; allowed: digits, mnist, cifar10, cifar100"):
        data.load("emnist", tmp_path)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.999])
def test_truncated_npz(made, tmp_path, keep):
    path = write_npz(tmp_path, made)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(UserError) as error:
        data.load("mnist", tmp_path)
    assert one_line(error).startswith(f"{path}: cannot be read (")
    assert "move it away and run `make data`" in one_line(error)


def test_npz_with_a_flipped_byte(made, tmp_path):
    path = write_npz(tmp_path, made)
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        data.load("mnist", tmp_path)
    assert one_line(error).startswith(f"{path}: ")


def test_npz_without_an_array(made, tmp_path):
    path = tmp_path / "mnist.npz"
    np.savez(path, **{k: v for k, v in made._asdict().items() if k != "y_test"})
    with pytest.raises(UserError) as error:
        data.load("mnist", tmp_path)
    assert one_line(error).startswith(f"{path}: no array 'y_test'; it must hold x_train, y_train,")


def test_npz_of_pickled_objects_is_refused_unopened(made, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    path = write_npz(tmp_path, made, x_train=np.array([Trap()], dtype=object))
    with pytest.raises(UserError) as error:
        data.load("mnist", tmp_path)
    assert one_line(error).startswith(f"{path}: cannot be read (Object arrays cannot be loaded")
    assert not (tmp_path / "executed").exists()


def test_single_array_named_npz(made, tmp_path):
    path = tmp_path / "mnist.npz"
    with path.open("wb") as file:
        np.save(file, made.x_train)
    with pytest.raises(UserError) as error:
        data.load("mnist", tmp_path)
    assert one_line(error).startswith(f"{path}: cannot be read (")


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("x_train", lambda x: x[:, None]),
        ("x_train", lambda x: x[..., None]),
        ("x_test", lambda x: x.reshape(-1, 784)),
        ("x_test", lambda x: x.astype("f4")),
        ("x_train", lambda x: x.astype(">i8")),
        ("y_train", lambda y: y[:, None]),
        ("y_test", lambda y: y.astype("f8")),
    ],
)
def test_the_same_data_in_another_shape_or_type_are_the_same(made, tmp_path, key, change):
    write_npz(tmp_path, made, **{key: change(getattr(made, key))})
    assert_same(data.load("mnist", tmp_path), made)


@pytest.mark.parametrize(
    ("key", "change", "says"),
    [
        ("x_train", lambda x: x / 255, "is float64, must be uint8, or whole numbers from 0 to 255"),
        ("x_train", lambda x: x.astype(int) - 128, "is int64, must be uint8, or whole numbers from 0 to 255"),
        ("x_test", lambda x: x + 1j, "is complex128, must be uint8, or whole numbers from 0 to 255"),
        ("x_test", lambda x: np.full(x.shape, np.nan), "is float64, must be uint8, or whole numbers from 0 to 255"),
        ("x_train", lambda x: x[:, :27], "has shape [12, 27, 28], must be [N, 28, 28]"),
        ("x_train", lambda x: x[0], "has shape [28, 28], must be [N, 28, 28]"),
        ("y_train", lambda y: y + 0.5, "is float64, must be integers"),
        ("y_train", lambda y: y.astype(str), "is <U21, must be integers"),
        ("y_train", lambda y: y[1:], "has shape [11], must be [12], a label for each image"),
        ("y_test", lambda y: np.eye(10)[y], "has shape [5, 10], must be [5], a label for each image"),
        ("y_test", lambda y: y[0], "has shape [], must be [5], a label for each image"),
    ],
)
def test_what_is_no_image_or_label_is_told(made, tmp_path, key, change, says):
    path = write_npz(tmp_path, made, **{key: change(getattr(made, key))})
    with pytest.raises(UserError) as error:
        data.load("mnist", tmp_path)
    assert one_line(error) == f"{path}: {key} {says}"


@pytest.mark.parametrize("write", [write_npz, write_raw])
def test_wrong_data_name_file_and_both_checksums(made, tmp_path, write):
    other = made._replace(y_test=(made.y_test + 1) % 10)
    origin = write(tmp_path, other)
    with pytest.raises(UserError) as error:
        data.load("mnist", tmp_path)
    assert not isinstance(error.value, MissingDataError)
    assert one_line(error) == (
        f"{origin}: not the real mnist: checksum {data.checksum(other)}, "
        f"expected {data.checksum(made)}; move it away and run `make data`"
    )


def test_other_digits_are_the_librarys_fault_and_make_data_would_not_help(monkeypatch):
    monkeypatch.setitem(data.CHECKSUMS, "digits", "0" * 64)
    with pytest.raises(UserError) as error:
        data.load("digits", "nowhere")
    assert one_line(error).startswith("scikit-learn ")
    assert one_line(error).endswith(f"expected {'0' * 64}; install the scikit-learn of constraints.txt")


def test_checksum_sees_values_shapes_order_and_which_array(made):
    def flipped(x):
        x = x.copy()
        x[-1, -1, -1] ^= 1
        return x

    variants = [
        made,
        made._replace(x_train=flipped(made.x_train)),
        made._replace(x_train=made.x_train.reshape(12, 784)),
        made._replace(x_train=made.x_train[::-1]),
        data.Arrays(*made[2:], *made[:2]),
    ]
    assert len({data.checksum(v) for v in variants}) == len(variants)


def test_checksum_ignores_memory_layout(made):
    same = made._replace(x_train=np.asfortranarray(made.x_train), y_test=made.y_test.astype(">i4"))
    assert data.checksum(same) == data.checksum(made)


# The real data


def test_real_mnist_is_the_original_to_the_byte():
    """The md5 sums of the four original IDX files, which our checksum stands for."""
    found = data.load("mnist", real_data.require("mnist"))
    sums = [hashlib.md5(idx_bytes(array)).hexdigest() for array in found]
    assert sums == [
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ]


def test_tests_without_real_data_say_where_they_looked(tmp_path, monkeypatch):
    monkeypatch.setattr(real_data, "candidates", lambda: [tmp_path / "a", tmp_path / "b"])
    with pytest.raises(pytest.skip.Exception) as skipped:
        real_data.require("mnist")
    assert f"real mnist not found in {tmp_path / 'a'}, {tmp_path / 'b'}" in str(skipped.value)


def test_the_users_own_folder_is_looked_at_first(monkeypatch, tmp_path):
    monkeypatch.setenv("CL_REPRO_DATA", str(tmp_path))
    assert real_data.candidates()[:2] == [tmp_path, real_data.ROOT / "data"]
