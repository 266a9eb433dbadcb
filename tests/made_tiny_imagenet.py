"""A folder laid out as tiny-imagenet-200, of small JPEGs of one colour each."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cl_repro.benchmarks import tiny_imagenet as reader

Paths = dict[Path, tuple[int, ...]]


def write(
    monkeypatch: pytest.MonkeyPatch, folder: Path, classes: int = 40, train: int = 5, test: int = 2
) -> tuple[list[str], Paths]:
    """Write it, and let it count as complete as long as `monkeypatch` holds.

    Classes are written, and listed, in no order; the first image of every class is grey.

    Returns:
        The classes, in the order of wnids.txt, and the colour of every file: (red, green, blue), or (grey,).
    """
    monkeypatch.setattr(reader, "COUNTS", reader.Counts(classes, train, test))
    rng = np.random.default_rng(0)
    root = folder / reader.FOLDER
    wnids = [f"n{i:08d}" for i in rng.permutation(classes)]
    (root / "val" / "images").mkdir(parents=True)
    (root / "wnids.txt").write_text("\n".join(wnids) + "\n")
    colours: Paths = {}

    def image(path: Path, grey: bool) -> None:
        colours[path] = tuple(rng.integers(0, 256, 1 if grey else 3).tolist())
        Image.new("L" if grey else "RGB", (64, 64), colours[path][0] if grey else colours[path]).save(path, "JPEG")

    annotations = []
    for i, wnid in enumerate(sorted(wnids)):
        (root / "train" / wnid / "images").mkdir(parents=True)
        for j in reversed(range(train)):
            image(root / "train" / wnid / "images" / f"{wnid}_{j}.JPEG", grey=j == 0)
        for j in range(test):
            name = f"val_{j * classes + i}.JPEG"
            image(root / "val" / "images" / name, grey=j == 0)
            annotations.append(f"{name}\t{wnid}\t0\t0\t63\t63\n")
    rng.shuffle(annotations)
    (root / "val" / "val_annotations.txt").write_text("".join(annotations))
    return wnids, colours
