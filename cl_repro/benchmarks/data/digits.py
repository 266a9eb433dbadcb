"""The digits of scikit-learn: 1797 real scans of 8 x 8 pixels, installed with the library."""

from pathlib import Path

import numpy as np


def read_digits(data_dir: Path) -> tuple[str, dict[str, np.ndarray]]:
    """Read the digits, pixels 0..16, and cut them once and for all into 1347 / 450 rows; no folder is needed."""
    # Imported here: scikit-learn takes a second that a run on other data need not spend.
    import sklearn  # noqa: PLC0415
    from sklearn.datasets import load_digits  # noqa: PLC0415
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    digits = load_digits()
    x, y = digits.images.astype(np.uint8), digits.target
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=450, stratify=y, random_state=0)
    arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    return f"scikit-learn {sklearn.__version__}", arrays
