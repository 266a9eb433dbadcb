"""Reading CIFAR: the canonical order, the original pickles, and what must not be executed; the real data if present."""

import os
import pickle
import pickletools
import warnings

import cli
import numpy as np
import pytest
import real_data
import torch
from made_cifar import SOURCES, batch, call, canonical, python2_pickle, shuffled, small_cifar, write_npz, write_pickles
from made_data import assert_same, one_line

from cl_repro.benchmarks.data import arrays as data
from cl_repro.benchmarks.data.files import MissingDataError
from cl_repro.benchmarks.data.pickles import Stored, array, read_pickle
from cl_repro.benchmarks.split import split
from cl_repro.common.errors import UserError
from cl_repro.study.factories import build

NAMES = list(SOURCES)
WRITERS = {
    "npz": write_npz,
    "pickles": write_pickles,
    "pickles by column": lambda *arguments: write_pickles(*arguments, by_column=True),
}


@pytest.fixture
def made(monkeypatch):
    return small_cifar(monkeypatch)


# Reading


@pytest.mark.parametrize("source", WRITERS)
@pytest.mark.parametrize("name", NAMES)
def test_every_source_in_any_order_gives_the_same_tensors(monkeypatch, tmp_path, name, source):
    made = small_cifar(monkeypatch, name)
    WRITERS[source](tmp_path, shuffled(made, seed=5), name)
    found = data.load(name, tmp_path)
    assert_same(found, made)
    assert all(array.flags.c_contiguous for array in found)


def test_pixels_of_both_sources_are_channel_row_column(monkeypatch, tmp_path):
    image = np.random.default_rng(1).integers(0, 256, (1, 3, 32, 32), np.uint8)
    made = data.Arrays(image, np.array([4]), image, np.array([4]))
    monkeypatch.setitem(data.CHECKSUMS, "cifar100", data.checksum(made))
    last = np.zeros((1, 32, 32, 3), np.uint8)
    flat = np.zeros((1, 3072), np.uint8)
    for c, h, w in np.ndindex(3, 32, 32):
        last[0, h, w, c] = flat[0, 1024 * c + 32 * h + w] = image[0, c, h, w]
    np.savez(tmp_path / "cifar100.npz", x_train=last, x_test=last, y_train=[4], y_test=[4])
    assert_same(data.load("cifar100", tmp_path), made)
    folder = tmp_path / "original" / "cifar-100-python"
    folder.mkdir(parents=True)
    for part in ("train", "test"):
        (folder / part).write_bytes(python2_pickle({b"data": flat, b"coarse_labels": [0], b"fine_labels": [4]}))
    assert_same(data.load("cifar100", tmp_path / "original"), made)


def test_equal_images_are_ordered_by_label_and_bytes_are_unsigned(monkeypatch, tmp_path):
    x = np.zeros((4, 3, 32, 32), np.uint8)
    x[0, 2, 31, 31] = 200  # the last byte decides, and 200 is larger than 100
    x[1, 2, 31, 31] = 100
    stored = data.Arrays(x, np.array([1, 2, 9, 3]), x, np.array([0, 0, 0, 0]))
    train, test = x[[3, 2, 1, 0]], x[[2, 3, 1, 0]]
    expected = data.Arrays(train, np.array([3, 9, 2, 1]), test, np.array([0, 0, 0, 0]))
    monkeypatch.setitem(data.CHECKSUMS, "cifar10", data.checksum(expected))
    write_npz(tmp_path, stored)
    assert_same(data.load("cifar10", tmp_path), expected)


def test_npz_is_preferred_to_pickles(made, tmp_path):
    write_npz(tmp_path, made)
    for path in write_pickles(tmp_path, made).iterdir():
        path.write_bytes(b"")
    assert_same(data.load("cifar10", tmp_path), made)


@pytest.mark.parametrize("name", NAMES)
def test_missing_data_say_what_where_and_how_to_get_them(tmp_path, name):
    with pytest.raises(MissingDataError) as error:
        data.load(name, tmp_path)
    source = SOURCES[name]
    first = tmp_path / source.folder / source.train[0]
    assert one_line(error).startswith(
        f"{source.title} not found: looked for {tmp_path / name}.npz and {first}; run `make data`"
    )


@pytest.mark.parametrize("file", ["data_batch_4", "test_batch"])
def test_one_missing_batch_is_named(made, tmp_path, file):
    gone = write_pickles(tmp_path, made) / file
    gone.unlink()
    with pytest.raises(MissingDataError) as error:
        data.load("cifar10", tmp_path)
    assert str(gone) in one_line(error)


def test_other_data_are_refused_with_both_checksums(made, tmp_path):
    other = made._replace(y_test=(made.y_test + 1) % 10)
    folder = write_pickles(tmp_path, other)
    with pytest.raises(UserError) as error:
        data.load("cifar10", tmp_path)
    assert one_line(error) == (
        f"{folder}: not the real cifar10: checksum {data.checksum(other)}, "
        f"expected {data.checksum(made)}; move it away and run `make data`"
    )


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("x_train", lambda x: x),  # as in the original files, not as in Keras
        ("x_test", lambda x: x.reshape(-1, 3072).astype("f8")),
        ("y_train", lambda y: y[:, None]),
    ],
)
def test_npz_of_the_same_data_in_another_shape_are_the_same(made, tmp_path, key, change):
    write_npz(tmp_path, made, **{key: change(getattr(made, key))})
    assert_same(data.load("cifar10", tmp_path), made)


@pytest.mark.parametrize(
    ("key", "change", "what"),
    [
        (
            "x_train",
            lambda x: x.transpose(0, 2, 3, 1) / 255,
            "is float64, must be uint8, or whole numbers from 0 to 255",
        ),
        ("x_test", lambda x: x[:, :2], "has shape [20, 2, 32, 32], must be [N, 32, 32, 3]"),
        ("y_test", lambda y: y[:-1], "has shape [19], must be [20], a label for each image"),
        ("y_train", lambda y: np.eye(10)[y], "has shape [20, 10], must be [20], a label for each image"),
        ("y_train", lambda y: y / 3, "is float64, must be integers"),
    ],
)
def test_npz_of_other_shapes_and_types_is_refused(made, tmp_path, key, change, what):
    path = write_npz(tmp_path, made, **{key: change(getattr(made, key))})
    with pytest.raises(UserError) as error:
        data.load("cifar10", tmp_path)
    assert one_line(error) == f"{path}: {key} {what}"


# The original pickles

ROWS = np.arange(6, dtype=np.uint8).reshape(2, 3)
OF_PYTHON_2 = {  # Python 2.7.18, numpy 1.16.6: cPickle.dumps({"data": rows, "labels": [6, 300]}, 2)
    by_column: b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03(K\x06M,\x01eU\x04dataq\x04cnumpy.core.multiarray\n_reconstruct\n"
    b"q\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87R"
    b"q\t(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb" + content + b"tbu."
    for by_column, content in {
        False: b"\x89U\x06\x00\x01\x02\x03\x04\x05",
        True: b"\x88U\x06\x00\x03\x01\x04\x02\x05",
    }.items()
}


@pytest.mark.parametrize("by_column", [False, True])
def test_a_pickle_of_python_2_is_read(tmp_path, by_column):
    path = tmp_path / "batch"
    path.write_bytes(OF_PYTHON_2[by_column])
    found = read_pickle(path)
    assert found.keys() == {b"labels", b"data"}
    assert found[b"labels"] == [6, 300]
    assert_same([array(found[b"data"], ["u1"])], [ROWS])


@pytest.mark.parametrize("by_column", [False, True])
def test_the_made_pickles_are_python_2s(by_column):
    """What these tests read is made here: opcode by opcode what Python 2 wrote, but for its memo."""

    def program(content):
        return [(op.name, argument) for op, argument, _ in pickletools.genops(content) if op.name != "BINPUT"]

    made = python2_pickle({b"labels": [6, 300], b"data": np.asfortranarray(ROWS) if by_column else ROWS})
    assert program(made) == program(OF_PYTHON_2[by_column])


def ordinary_loads(content):
    """What torchvision does; it executes what it reads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy.core is an old name
        return pickle.loads(content, encoding="bytes")


def test_numpy_reads_the_same_from_a_made_batch(tmp_path, made):
    content = batch(made.x_train, made.y_train)
    ordinary = ordinary_loads(content)
    (tmp_path / "batch").write_bytes(content)
    ours = read_pickle(tmp_path / "batch")
    assert_same([array(ours[b"data"], ["u1"])], [ordinary[b"data"]])
    assert ours[b"labels"] == ordinary[b"labels"] == made.y_train.tolist()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("keys", [bytes, str])
@pytest.mark.parametrize("by_column", [False, True])
def test_batches_that_python_3_wrote_again_are_read(made, tmp_path, protocol, keys, by_column):
    """By whatever NumPy is installed here, and under the name that the modules of NumPy 1 had."""
    for i, path in enumerate(sorted(write_pickles(tmp_path, made).iterdir())):
        batch = ordinary_loads(path.read_bytes())
        batch[b"data"] = np.asfortranarray(batch[b"data"]) if by_column else batch[b"data"]
        batch[b"labels"] = np.array(batch[b"labels"]) if i % 2 else batch[b"labels"]
        content = pickle.dumps({key.decode() if keys is str else key: value for key, value in batch.items()}, protocol)
        assert b"numpy._core." in content or b"numpy.core." in content
        if protocol < 4 and i > 2:  # names are lines, not of a stated length
            content = content.replace(b"numpy._core.", b"numpy.core.")
        path.write_bytes(content)
    assert_same(data.load("cifar10", tmp_path), made)


def test_a_pickle_of_python_3_that_calls_a_shell_is_not_executed(made, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, (f"touch '{tmp_path / 'executed'}'",)

    write_pickles(tmp_path, made)
    content = pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [Attack()]})
    assert refusal(tmp_path, content).startswith("refused: it refers to posix.system")
    assert not (tmp_path / "executed").exists()
    pickle.loads(content)
    assert (tmp_path / "executed").exists(), "a real attack"


def refusal(folder, content):
    """What reading CIFAR-10 with one such batch says, after the name of its file."""
    path = folder / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        data.load("cifar10", folder)
    start, end = f"{path}: cannot be read (", "); move it away and run `make data`"
    message = one_line(error)
    assert message.startswith(start), message
    assert message.endswith(end)
    return message.removeprefix(start).removesuffix(end)


@pytest.mark.parametrize("key", [b"data", b"labels", b"another"])
def test_a_pickle_that_calls_a_shell_is_not_executed(made, tmp_path, key):
    write_pickles(tmp_path, made)
    done = tmp_path / "executed"
    attack = python2_pickle({key: call("posix.system", f"touch '{done}'".encode())})
    assert refusal(tmp_path, attack) == "refused: it refers to posix.system, and a data set needs no such thing"
    assert not done.exists()
    ordinary_loads(attack)
    assert done.exists(), "a real attack"


@pytest.mark.parametrize(
    "name",
    [
        "__builtin__.eval",
        "builtins.eval",
        "os.system",
        "copy_reg._reconstructor",
        "numpy.load",
        "numpy.core.multiarray.fromfile",
        "numpy.core.multiarray.scalar",
        "numpy.testing._private.utils.runstring",
        "cl_repro.benchmarks.data.cifar.read_cifar",
    ],
)
def test_every_name_but_those_of_an_array_is_refused(made, tmp_path, name):
    write_pickles(tmp_path, made)
    assert refusal(tmp_path, python2_pickle({b"data": call(name, b"1")})).startswith("refused: it refers to ")


def test_a_name_inside_an_allowed_one_is_refused(made, tmp_path):
    write_pickles(tmp_path, made)
    content = b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93."
    assert "refers to numpy.ndarray.__init__" in refusal(tmp_path, content)


def test_an_array_of_objects_is_refused_and_its_objects_not_executed(made, tmp_path):
    write_pickles(tmp_path, made)
    done = tmp_path / "executed"
    objects = b"](" + call("posix.system", f"touch '{done}'".encode()) + b"e"
    attack = python2_pickle({b"data": np.zeros((1, 1), np.uint8), b"labels": [0]})
    for old, new in {b"U\x02u1": b"U\x02O8", b"K\x00tb": b"K\x3ftb", b"U\x01\x00": objects}.items():
        attack = attack.replace(old, new)  # type, its flags, content
    assert refusal(tmp_path, attack).startswith("refused: it refers to posix.system")
    assert not done.exists()
    ordinary_loads(attack)
    assert done.exists(), "a real attack"


def test_bytes_that_pretend_to_be_pointers_to_objects_are_refused(made, tmp_path):
    """A type of objects without the flag for objects: numpy's own unpickling takes the bytes for their addresses."""
    write_pickles(tmp_path, made)
    forged = python2_pickle({b"data": np.zeros((1, 1), "<i8"), b"labels": [0]}).replace(b"U\x02i8", b"U\x02O8")
    assert refusal(tmp_path, forged) == "its images are not an array of uint8"


def changed(made, **parts):
    """A batch with other entries; None takes one away."""
    content = {b"data": made.x_train.reshape(-1, 3072), b"labels": made.y_train.tolist()}
    content |= {key.encode(): value for key, value in parts.items()}
    return python2_pickle({key: value for key, value in content.items() if value is not None})


@pytest.mark.parametrize(
    ("parts", "what"),
    [
        ({"data": None}, "no 'data' in it"),
        ({"labels": None}, "no 'labels' in it"),
        ({"data": [1, 2]}, "its images are not an array of uint8"),
        ({"data": np.zeros((20, 3072), np.float32)}, "its images are not an array of uint8"),
        ({"data": np.zeros((20, 784), np.uint8)}, "its images have shape [20, 784], expected [N, 3072]"),
        ({"labels": [1, 2]}, "'labels' is not a list of 20 class numbers, one for each image"),
        ({"labels": [b"1"] * 20}, "'labels' is not a list of 20 class numbers, one for each image"),
        ({"labels": [-1] * 20}, "'labels' is not a list of 20 class numbers, one for each image"),
        ({"labels": b"1" * 20}, "'labels' is not a list of 20 class numbers, one for each image"),
    ],
)
def test_batches_of_other_content_are_refused(made, tmp_path, parts, what):
    write_pickles(tmp_path, made)
    assert refusal(tmp_path, changed(made, **parts)) == what


def test_an_array_shorter_than_its_shape_is_refused(made, tmp_path):
    write_pickles(tmp_path, made)
    content = changed(made).replace(b"K\x14M\x00\x0c\x86", b"K\x15M\x00\x0c\x86")  # 21 rows, the bytes of 20
    assert refusal(tmp_path, content) == "its images are not an array of uint8"


@pytest.mark.parametrize("keep", [0.0, 0.0001, 0.3, 0.999])
def test_truncated_batch(made, tmp_path, keep):
    write_pickles(tmp_path, made)
    content = batch(made.x_train, made.y_train)
    assert refusal(tmp_path, content[: int(len(content) * keep)])


@pytest.mark.parametrize(
    "content",
    [b"<html>", b"\x80\x02].", b"\x80\x02K\x01.", b"\x80\x09N.", b"\x80\x02N}b."],
)
def test_what_is_no_pickled_dictionary_is_refused(made, tmp_path, content):
    write_pickles(tmp_path, made)
    assert refusal(tmp_path, content)


def test_the_stand_in_for_arrays_runs_nothing_of_numpys():
    stored = Stored(1, 2)
    stored.__setstate__({"state": 3, "__class__": int})
    assert type(stored) is Stored
    assert stored.arguments == (1, 2)


# As a benchmark

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def cifar(folder, **keywords):
    given = {"mean": list(MEAN), "std": list(STD), "data_dir": folder, "device": "cpu"}
    return split("cifar10", 5, 255.0, **given | keywords)


@pytest.fixture
def folder(made, tmp_path):
    write_npz(tmp_path, made)
    return tmp_path


def test_split_cifar10_is_the_published_protocol(folder, made):
    (cfg,) = cli.arms("benchmark=split_cifar10", "scale=paper")
    benchmark = build("benchmark", cfg["benchmark"], data_dir=folder, device="cpu", dtype=torch.float32)
    assert (benchmark.n_tasks, benchmark.n_classes, benchmark.checksum) == (5, 10, data.checksum(made))
    assert benchmark.x.dtype == torch.uint8
    x = benchmark.to_input(benchmark.x)
    pixels = made.x_train / 255
    for c in range(3):
        np.testing.assert_allclose(x[:, c].numpy(), (pixels[:, c] - MEAN[c]) / STD[c], rtol=0, atol=1e-6)
    assert sum(len(task.rows) for task in benchmark.curriculum(1).tasks) == len(made.y_train), "no row is left out"
    assert (cfg["batch_size"], cfg["iterations"]) == (256, 2000)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("leading", [(), (4,), (2, 3, 4)])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_normalisation_is_three_correctly_rounded_steps(folder, dtype, leading, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    n = int(np.prod(leading)) * 3072
    x = (torch.arange(n) % 256).to(torch.uint8).reshape(*leading, 3, 32, 32).to(device)
    before = x.clone()
    found = cifar(folder, dtype=dtype, device=device).to_input(x)
    kind = np.float32 if dtype == torch.float32 else np.float64
    mean, std = (np.array(v, kind)[:, None, None] for v in (MEAN, STD))
    expected = (before.cpu().numpy().astype(kind) / kind(255) - mean) / std
    assert found.dtype == dtype
    assert np.array_equal(found.cpu().numpy(), expected)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"mean": None}, "benchmark.mean=None: must be 3 finite numbers, one for each channel"),
        ({"std": None}, "benchmark.std=None: must be 3 finite numbers, one for each channel"),
        ({"mean": [0.5]}, "benchmark.mean=[0.5]: must be 3 finite numbers, one for each channel"),
        ({"mean": 0.5}, "benchmark.mean=0.5: must be 3 finite numbers, one for each channel"),
        ({"std": [1, 2, "x"]}, "benchmark.std=[1, 2, 'x']: must be 3 finite numbers, one for each channel"),
        ({"std": [1, 2, float("nan")]}, "benchmark.std=[1, 2, nan]: must be 3 finite numbers, one for each channel"),
        ({"std": [1, 0, 1]}, "benchmark.std=[1, 0, 1]: must be above 0"),
    ],
)
def test_mean_and_std_are_one_number_a_channel(folder, keywords, message):
    with pytest.raises(UserError) as error:
        cifar(folder, **keywords)
    assert one_line(error).startswith(message)


def test_images_without_channels_have_one_mean_and_std():
    given = {"data_dir": ".", "device": "cpu", "dtype": torch.float64}
    plain, made = split("digits", 5, 16, **given), split("digits", 5, 16, mean=[0.1], std=[0.3], **given)
    expected = (plain.to_input(plain.x[:5]) - 0.1) / 0.3
    torch.testing.assert_close(made.to_input(made.x[:5]), expected, rtol=1e-15, atol=1e-15)
    with pytest.raises(UserError, match=r"benchmark.mean=\[0.1, 0.2\]: must be 1 finite number in a list"):
        split("digits", 5, 16, mean=[0.1, 0.2], std=[0.3, 0.3], **given)


# The real data

MOMENTS = {  # of the training pixels / 255, per channel, as commonly published
    "cifar10": ((0.49140, 0.48216, 0.44653), (0.24703, 0.24349, 0.26159)),
    "cifar100": ((0.50708, 0.48655, 0.44092), (0.26733, 0.25644, 0.27615)),
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n_classes"), [("cifar10", 10), ("cifar100", 100)])
def test_real_cifar_is_complete_balanced_and_has_the_published_moments(name, n_classes):
    found = data.load(name, real_data.require(name))
    assert (found.x_train.shape, found.x_test.shape) == ((50_000, 3, 32, 32), (10_000, 3, 32, 32))
    assert np.bincount(found.y_train).tolist() == [50_000 // n_classes] * n_classes
    assert np.bincount(found.y_test).tolist() == [10_000 // n_classes] * n_classes
    share = np.stack([np.bincount(found.x_train[:, c].ravel(), minlength=256) for c in range(3)]) / (50_000 * 1024)
    value = np.arange(256) / 255
    mean = share @ value
    std = np.sqrt(share @ value**2 - mean**2)
    assert np.allclose([mean, std], MOMENTS[name], rtol=0, atol=6e-6)
    first = found.x_train[:1000], found.y_train[:1000]
    assert_same(first, canonical(*first))


def test_real_split_cifar10_has_the_reference_tasks():
    data_dir = real_data.require("cifar10")
    curriculum = cifar(data_dir).curriculum(1)
    y = data.load("cifar10", data_dir).y_train
    tasks = [set(y[task.rows].tolist()) for task in curriculum.tasks]
    assert tasks == [{4, 6}, {0, 5}, {3, 9}, {2, 7}, {8, 1}]
    assert [(len(task.rows), len(task.rows_test)) for task in curriculum.tasks] == [(10_000, 2_000)] * 5
