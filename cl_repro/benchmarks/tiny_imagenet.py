"""Tiny ImageNet: 200 classes of 64 x 64 colour images as ten tasks of 20 (De Lange et al. 2021; Benzing 2022, table 2).

M. De Lange et al.: A continual learning survey: defying forgetting in classification tasks. IEEE TPAMI 44 (2021).
Tasks are the same for every seed, and so are the rows that are trained on, unless `train_per_task` keeps some of them,
which the seed draws: a fifth of each task's training images is held out for validation and never trained on; the
official validation images are the test set.

The images are read from the folder that tiny-imagenet-200.zip unpacks to, and kept beside it as one `.npz`. Rows are
class by class, in the order of wnids.txt, and in that of the file names within a class. `make data` does not fetch
them, and the checksum is that of what was read: there is no known one to compare it with.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from cl_repro.benchmarks import rows
from cl_repro.benchmarks.data.arrays import Arrays, checksum
from cl_repro.benchmarks.data.files import UNREADABLE, MissingDataError, read_npz
from cl_repro.benchmarks.inputs import to_input
from cl_repro.common import rng
from cl_repro.common.errors import UserError
from cl_repro.common.progress import progress_bar
from cl_repro.types import Benchmark, Curriculum, Task

FOLDER, NPZ = "tiny-imagenet-200", "tiny-imagenet-200.npz"
SHAPE = (3, 64, 64)
CLASSES = 20  # of a task
AGAIN = "unpack tiny-imagenet-200.zip again"


class Counts(NamedTuple):
    """What makes the data set complete."""

    classes: int = 200
    train: int = 500  # images of a class
    test: int = 50


COUNTS = Counts()


def tiny_imagenet(
    n_tasks: int,
    scale: float,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    validation: bool = False,
    train_per_task: int | None = None,
    test_per_task: int | None = None,
    *,
    data_dir: Path | str,
    device: str | torch.device,
    dtype: torch.dtype = torch.float32,
) -> Benchmark:
    """Task k has the 20 classes from the (20 k)-th on.

    DEVIATES from the code of De Lange et al., whose tasks follow a list of their own (src/data/tinyimgnet_classes.txt)
    and whose validation images are an unseeded draw; here classes come in the order of wnids.txt.

    Args:
        n_tasks: 10 in the paper, which is all classes.
        scale: pixels are divided by it.
        mean: of each channel, subtracted after that; None, with std, for neither.
        std: of each channel; divides what is left.
        validation: accuracy is reported on the validation rows, too; which rows are trained on does not depend on it.
        train_per_task: random rows, of those that are trained on, that each task keeps, a function of seed and task;
            None: all 8,000.
        test_per_task: the same of its 1,000 test rows.
        data_dir: the folder that holds tiny-imagenet-200/, or its .npz.
        device: where the data live.
        dtype: of the network's input.

    Returns:
        The benchmark, with the uint8 images resident on the device.

    Raises:
        UserError: missing, incomplete or damaged data; an argument out of range.
    """
    inputs = to_input(scale, device, dtype, mean, std, SHAPE)
    most = COUNTS.classes // CLASSES
    if type(n_tasks) is not int or not 1 <= n_tasks <= most:
        raise UserError(
            f"benchmark.n_tasks={n_tasks}: must be an integer from 1 to {most}, with {CLASSES} classes each"
        )
    n_train = CLASSES * COUNTS.train * 4 // 5
    rows.check("train", train_per_task, n_train, "every task of tiny_imagenet")
    rows.check("test", test_per_task, CLASSES * COUNTS.test, "every task of tiny_imagenet")
    arrays = load(Path(data_dir).expanduser().absolute())
    own = [parted(k, n_train) for k in range(n_tasks)]

    def curriculum(seed: int) -> Curriculum:
        return Curriculum(y, y_test, tuple(task(seed, k) for k in range(n_tasks)))

    def task(seed: int, k: int) -> Task:
        train, val = own[k]
        return Task(
            rows.keep(train, train_per_task, seed, "train", k).to(device),
            rows.keep(of_task(k, COUNTS.test), test_per_task, seed, "test", k).to(device),
            tuple(range(CLASSES * k, CLASSES * (k + 1))),
            rows_val=val.to(device) if validation else None,
        )

    x, y, x_test, y_test = (torch.from_numpy(of).to(device) for of in arrays)
    return Benchmark(
        x=x,
        x_test=x_test,
        to_input=inputs,
        curriculum=curriculum,
        n_tasks=n_tasks,
        n_classes=CLASSES * n_tasks,
        checksum=checksum(arrays),
        splits=("test", "val") if validation else ("test",),
    )


def of_task(k: int, per_class: int) -> Tensor:
    """Rows of task k, where every class has as many: [20 per_class] int64."""
    return torch.arange(CLASSES * per_class * k, CLASSES * per_class * (k + 1))


def parted(k: int, n_train: int) -> tuple[Tensor, Tensor]:
    """The training images of task k: rows [n_train] that are trained on, and those for validation, each ascending."""
    whole = of_task(k, COUNTS.train)
    order = torch.randperm(len(whole), generator=rng.stream(0, "tiny_imagenet_validation", k))
    return whole[order[:n_train]].sort().values, whole[order[n_train:]].sort().values


# --- the files -------------------------------------------------------------------------------------------------------


def load(data_dir: Path) -> Arrays:
    """All images: from the `.npz` if it is there, else from the folder; then the `.npz` is written, if that can be.

    Args:
        data_dir: absolute path of the folder that holds both.

    Returns:
        Images [N, 3, 64, 64] and class numbers, in canonical order (module docstring).

    Raises:
        MissingDataError: neither is there.
        UserError: an image or a list is missing or damaged.
    """
    npz, folder = data_dir / NPZ, data_dir / FOLDER
    try:
        if npz.is_file():
            return cached(npz)
        if not (folder / "wnids.txt").is_file():
            raise MissingDataError(
                f"Tiny ImageNet not found: looked for {npz} and {folder / 'wnids.txt'}; unpack tiny-imagenet-200.zip "
                "there, or say where it is with the environment variable CL_REPRO_DATA or with data_dir=<folder>"
            )
        train, test = listed(folder)
    except OSError as error:
        raise UserError(f"{error.filename or data_dir}: cannot be read: {error.strerror}") from error
    bar = progress_bar(desc=FOLDER, total=len(train) + len(test), unit="image")
    with bar:
        arrays = Arrays(decoded(train, bar), labels(COUNTS.train), decoded(test, bar), labels(COUNTS.test))
    keep(npz, arrays)
    return arrays


def labels(per_class: int) -> np.ndarray:
    """Class numbers in canonical order, [classes per_class] int64."""
    return np.repeat(np.arange(COUNTS.classes), per_class)


def listed(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files of the training and of the test images, in canonical order."""
    names = (folder / "wnids.txt").read_text(errors="replace").split()
    if len(names) != COUNTS.classes or len(set(names)) < len(names):
        raise UserError(f"{folder / 'wnids.txt'}: must list {COUNTS.classes} classes, one a line, once each; {AGAIN}")
    train: list[Path] = []
    for name in names:
        images = folder / "train" / name / "images"
        train += complete(images, sorted(images.glob("*.JPEG")), COUNTS.train)
    annotations = folder / "val" / "val_annotations.txt"
    if not annotations.is_file():
        raise UserError(f"{annotations}: missing; {AGAIN}")
    by_class: dict[str, list[Path]] = {name: [] for name in names}
    for line in annotations.read_text(errors="replace").splitlines():
        image, name = [*line.split("\t"), "", ""][:2]  # then a box, of no use here
        if name not in by_class:
            raise UserError(f"{annotations}: {line[:60]!r} names no class of wnids.txt; {AGAIN}")
        by_class[name].append(folder / "val" / "images" / image)
    test = [
        path for name in names for path in complete(annotations, sorted(by_class[name]), COUNTS.test, f" of {name}")
    ]
    return train, test


def complete(where: Path, images: list[Path], n: int, of: str = "") -> list[Path]:
    """The images, if there are n of them."""
    if len(images) != n:
        raise UserError(f"{where}: {len(images)} images{of}, must be {n}; {AGAIN}")
    return images


def decoded(paths: list[Path], bar: tqdm) -> np.ndarray:
    """JPEG files as [N, 3, 64, 64] uint8; grey images have three equal channels."""
    x = np.empty((len(paths), *SHAPE), np.uint8)
    for i, path in enumerate(paths):
        try:
            with Image.open(path, formats=["JPEG"]) as image:
                pixels = np.asarray(image.convert("RGB"))  # [height, width, channels]
        except (*UNREADABLE, SyntaxError) as error:
            what = (
                "missing"
                if isinstance(error, FileNotFoundError)
                else f"no JPEG that can be read ({type(error).__name__})"
            )
            raise UserError(f"{path}: {what}; {AGAIN}") from error
        if pixels.shape != (*SHAPE[1:], SHAPE[0]):
            raise UserError(f"{path}: is {pixels.shape[1]} x {pixels.shape[0]} pixels, must be 64 x 64; {AGAIN}")
        x[i] = pixels.transpose(2, 0, 1)
        bar.update()
    return x


def cached(npz: Path) -> Arrays:
    """What `keep` wrote."""
    remedy = f"remove it, and it is made again from {npz.parent / FOLDER}"
    try:
        arrays = Arrays(**read_npz(npz))
    except UserError as error:
        raise UserError(f"{npz}: cannot be read; {remedy}") from error
    for x, y, n in ((arrays.x_train, arrays.y_train, COUNTS.train), (arrays.x_test, arrays.y_test, COUNTS.test)):
        if x.dtype != np.uint8 or x.shape != (COUNTS.classes * n, *SHAPE) or not np.array_equal(y, labels(n)):
            raise UserError(f"{npz}: not Tiny ImageNet as this program keeps it; {remedy}")
    return arrays


def keep(npz: Path, arrays: Arrays) -> None:
    """Write the images as one file, under a temporary name first; where that cannot be, they are decoded every time."""
    partial = npz.with_name(f".{NPZ}.{os.getpid()}.tmp")
    try:
        with open(partial, "wb") as file:
            np.savez(file, **arrays._asdict())
        os.replace(partial, npz)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
