"""MNIST from `mnist.npz` (Keras' layout) or from the original IDX files (torchvision's layout)."""

from pathlib import Path

import numpy as np

from cl_repro.benchmarks.data.files import labelled_images, missing, read_npz
from cl_repro.benchmarks.data.idx import read_idx

RAW = Path("MNIST", "raw")
PARTS = {
    "x_train": ("train-images-idx3-ubyte", 3),
    "y_train": ("train-labels-idx1-ubyte", 1),
    "x_test": ("t10k-images-idx3-ubyte", 3),
    "y_test": ("t10k-labels-idx1-ubyte", 1),
}


def read_mnist(data_dir: Path) -> tuple[str, dict[str, np.ndarray]]:
    """Read MNIST from a folder: `mnist.npz` if it is there, else `MNIST/raw/*-ubyte[.gz]`.

    Args:
        data_dir: absolute path of the folder.

    Returns:
        Where the data came from, and x_train, y_train, x_test, y_test.

    Raises:
        MissingDataError: neither is complete.
        UserError: a file is damaged.
    """
    npz, raw = data_dir / "mnist.npz", data_dir / RAW
    arrays: dict[str, np.ndarray] = {}
    if npz.is_file():
        stored = read_npz(npz)
        for split in ("train", "test"):
            x, y = labelled_images(npz, stored, split, ((28, 28), (784,), (1, 28, 28), (28, 28, 1)))
            arrays |= {f"x_{split}": x.reshape(-1, 28, 28), f"y_{split}": y}
        return str(npz), arrays
    for part, (name, ndim) in PARTS.items():
        found = [path for path in (raw / name, raw / f"{name}.gz") if path.is_file()]
        if not found:
            raise missing("MNIST", f"{npz} and {raw / name}[.gz]")
        arrays[part] = read_idx(found[0], ndim)
    return str(raw), arrays
