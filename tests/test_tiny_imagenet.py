"""Tiny ImageNet: what the reader makes of a made folder, the tasks, and what it refuses."""

from pathlib import Path
from typing import Any

import made_data
import made_tiny_imagenet
import numpy as np
import pytest
import torch
from PIL import Image

from cl_repro.benchmarks import tiny_imagenet as reader
from cl_repro.benchmarks.data.arrays import Arrays, checksum
from cl_repro.benchmarks.data.files import MissingDataError
from cl_repro.benchmarks.tiny_imagenet import FOLDER, NPZ, tiny_imagenet
from cl_repro.common.errors import UserError
from cl_repro.types import Benchmark

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
JPEG = 3  # what its compression may change a colour by


def made(folder: Path, n_tasks: int = 2, **changes: Any) -> Benchmark:
    return tiny_imagenet(n_tasks, 255.0, data_dir=folder, device="cpu", **changes)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], made_tiny_imagenet.Paths]:
    """A small complete folder in tmp_path: its classes, and the colour of every file."""
    return made_tiny_imagenet.write(monkeypatch, tmp_path)


# --- the files ------------------------------------------------------------------------------------------------------


def test_images_are_class_by_class_as_wnids_txt_lists_them_then_by_name(written, tmp_path):
    wnids, colours = written
    arrays, root = reader.load(tmp_path), tmp_path / FOLDER
    annotated = dict(line.split("\t")[:2] for line in (root / "val" / "val_annotations.txt").read_text().splitlines())
    train = [(root / "train" / w / "images" / f"{w}_{j}.JPEG", k) for k, w in enumerate(wnids) for j in range(5)]
    test = [
        (root / "val" / "images" / name, k) for k, w in enumerate(wnids) for name in sorted(annotated)
        if annotated[name] == w
    ]  # fmt: skip
    for x, y, files in ((arrays.x_train, arrays.y_train, train), (arrays.x_test, arrays.y_test, test)):
        assert (x.dtype, x.shape) == (np.uint8, (len(files), 3, 64, 64))
        assert (y.dtype, y.tolist()) == (np.int64, [k for _, k in files])
        for image, (path, _) in zip(x.astype(int), files, strict=True):
            colour = colours[path] if len(colours[path]) == 3 else colours[path] * 3  # grey: three equal channels
            assert np.abs(image - np.array(colour)[:, None, None]).max() <= JPEG


def test_rows_and_columns_of_an_image_are_not_exchanged(written, tmp_path):
    wnids, _ = written
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:16, :, 0] = 255  # the upper quarter is red
    Image.fromarray(pixels).save(tmp_path / FOLDER / "train" / wnids[3] / "images" / f"{wnids[3]}_2.JPEG", quality=95)
    found = reader.load(tmp_path).x_train[3 * 5 + 2].astype(int)
    assert found[0, :12].min() > 200 and found[0, 20:].max() < 50 and found[1:].max() < 100


def test_the_npz_gives_the_same_arrays_and_no_image_is_read_again(written, tmp_path):
    first = reader.load(tmp_path)
    for path in (tmp_path / FOLDER).rglob("*"):
        path.unlink() if path.is_file() else None
    second = reader.load(tmp_path)
    made_data.assert_same(second, first)
    assert made(tmp_path).checksum == checksum(first) == checksum(second)
    assert sorted(path.name for path in tmp_path.iterdir()) == [FOLDER, NPZ]


def test_where_the_npz_cannot_be_written_the_images_are_there_all_the_same(written, tmp_path, monkeypatch):
    def full(*arguments: Any, **named: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert len(reader.load(tmp_path).y_train) == 200
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]


# --- the tasks ------------------------------------------------------------------------------------------------------


def test_tasks_are_twenty_classes_and_a_fifth_of_their_training_rows_is_held_out(written, tmp_path):
    benchmark = made(tmp_path, validation=True)
    assert (benchmark.n_tasks, benchmark.n_classes, benchmark.splits) == (2, 40, ("test", "val"))
    curriculum = benchmark.curriculum(1)
    held_out = []
    for k, task in enumerate(curriculum.tasks):
        assert task.classes == tuple(range(20 * k, 20 * k + 20))
        assert (len(task.rows), len(task.rows_val)) == (80, 20)
        both = torch.cat([task.rows, task.rows_val])
        assert sorted(both.tolist()) == [i for i, c in enumerate(curriculum.y.tolist()) if c in task.classes]
        assert task.rows_test.tolist() == [i for i, c in enumerate(curriculum.y_test.tolist()) if c in task.classes]
        held_out.append((task.rows_val - 100 * k).tolist())
    assert held_out[0] != held_out[1], "a draw for each task"
    assert held_out[0] != list(range(80, 100)), "a random one"
    for other in (made(tmp_path, validation=True).curriculum(7), made(tmp_path).curriculum(1)):
        assert [task.rows.tolist() for task in other.tasks] == [task.rows.tolist() for task in curriculum.tasks]
    assert made(tmp_path).splits == ("test",)
    assert made(tmp_path, n_tasks=1).n_classes == 20


def test_a_task_can_keep_random_rows_of_those_that_are_trained_on(written, tmp_path):
    whole, some = made(tmp_path, validation=True), made(tmp_path, validation=True, train_per_task=30, test_per_task=7)
    for seed in (1, 2):
        for task, kept in zip(whole.curriculum(seed).tasks, some.curriculum(seed).tasks, strict=True):
            assert (len(kept.rows), len(kept.rows_test)) == (30, 7)
            assert set(kept.rows.tolist()) <= set(task.rows.tolist())
            assert set(kept.rows_test.tolist()) <= set(task.rows_test.tolist())
            assert torch.equal(kept.rows_val, task.rows_val)
    first, second = (some.curriculum(seed).tasks[0].rows for seed in (1, 2))
    assert not torch.equal(first, second)


def test_channels_are_normalised_each_with_its_own_mean_and_deviation(written, tmp_path):
    benchmark = made(tmp_path, mean=MEAN, std=STD, dtype=torch.float64)
    x = benchmark.to_input(benchmark.x[:7])
    for channel in range(3):
        expected = (benchmark.x[:7, channel].numpy() / 255 - MEAN[channel]) / STD[channel]
        assert np.allclose(x[:, channel], expected, rtol=1e-12, atol=1e-12)


# --- what must be refused -------------------------------------------------------------------------------------------


def one_line(folder: Path, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        made(folder, **changes)
    return made_data.one_line(caught).replace(f"{folder}/", "")


def test_a_folder_without_the_data_says_where_it_looked(tmp_path):
    with pytest.raises(MissingDataError) as caught:
        made(tmp_path)
    assert made_data.one_line(caught) == (
        f"Tiny ImageNet not found: looked for {tmp_path / NPZ} and {tmp_path / FOLDER / 'wnids.txt'}; unpack "
        "tiny-imagenet-200.zip there, or say where it is with the environment variable CL_REPRO_DATA or with "
        "data_dir=<folder>"
    )


def test_what_is_missing_or_damaged_is_named(written, tmp_path):
    (wnids, _), root = written, tmp_path / FOLDER
    again = "; unpack tiny-imagenet-200.zip again"
    annotations, images = root / "val" / "val_annotations.txt", root / "train" / wnids[1] / "images"
    text = annotations.read_text()
    first, second = sorted(images.iterdir())[:2]
    content = second.read_bytes()
    # each is found before those above it, which stay as they are
    name = next(line.split("\t")[0] for line in text.splitlines() if wnids[2] in line)
    (root / "val" / "images" / name).unlink()
    assert one_line(tmp_path) == f"{FOLDER}/val/images/{name}: missing{again}"
    Image.new("RGB", (64, 32)).save(second)
    where = f"{FOLDER}/train/{wnids[1]}/images"
    assert one_line(tmp_path) == f"{where}/{second.name}: is 64 x 32 pixels, must be 64 x 64{again}"
    for damaged in (content[: len(content) // 2], b"", b"no image"):
        second.write_bytes(damaged)
        assert one_line(tmp_path).startswith(f"{where}/{second.name}: no JPEG that can be read (")
    annotations.write_text(text + "val_9999.JPEG\tn99999999\t0\n")
    assert one_line(tmp_path).endswith(r"'val_9999.JPEG\tn99999999\t0' names no class of wnids.txt" + again)
    annotations.write_text("\n".join(line for line in text.splitlines() if name not in line))
    assert one_line(tmp_path) == f"{FOLDER}/val/val_annotations.txt: 1 images of {wnids[2]}, must be 2{again}"
    annotations.unlink()
    assert one_line(tmp_path) == f"{FOLDER}/val/val_annotations.txt: missing{again}"
    first.unlink()
    assert one_line(tmp_path) == f"{where}: 4 images, must be 5{again}"
    (root / "wnids.txt").write_text("\n".join([*wnids[:-1], wnids[0]]))
    assert one_line(tmp_path) == f"{FOLDER}/wnids.txt: must list 40 classes, one a line, once each{again}"
    assert not (tmp_path / NPZ).exists()


def test_a_damaged_or_foreign_npz_is_named(written, tmp_path):
    arrays, npz = reader.load(tmp_path), tmp_path / NPZ
    remedy = f"; remove it, and it is made again from {tmp_path / FOLDER}"
    with pytest.raises(UserError) as caught:
        npz.write_bytes(npz.read_bytes()[:5000])
        made(tmp_path)
    assert made_data.one_line(caught) == f"{npz}: cannot be read{remedy}"
    wrong = [
        arrays._replace(x_test=arrays.x_test[:, :, :32]),
        arrays._replace(y_train=arrays.y_train[::-1]),
        arrays._replace(x_train=arrays.x_train.astype(np.int64)),
        Arrays(arrays.x_test, arrays.y_test, arrays.x_train, arrays.y_train),
    ]
    for other in wrong:
        np.savez(npz, **other._asdict())
        with pytest.raises(UserError) as caught:
            made(tmp_path)
        assert made_data.one_line(caught) == f"{npz}: not Tiny ImageNet as this program keeps it{remedy}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_tasks": 11}, "n_tasks=11: must be an integer from 1 to 10, with 20 classes each"),
        ({"n_tasks": 0}, "n_tasks=0: must be an integer from 1 to 10, with 20 classes each"),
        (
            {"train_per_task": 8001},
            "train_per_task=8001: must be an integer from 1 to 8000, the training rows of every task of tiny_imagenet, "
            "or null for all rows",
        ),
        (
            {"test_per_task": 1001},
            "test_per_task=1001: must be an integer from 1 to 1000, the test rows of every task of tiny_imagenet, "
            "or null for all rows",
        ),
        ({"mean": MEAN}, "std=None: must be 3 finite numbers, one for each channel (mean and std may both be null)"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_read(changes, message, tmp_path):
    assert one_line(tmp_path, **changes) == f"benchmark.{message}"
