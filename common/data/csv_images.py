"""Kaggle's form of Fashion-MNIST and sets like it: CSV files of a label and 784 pixels a line.

Source: the data set "Fashion MNIST" of Zalando Research on kaggle.com: `fashion-mnist_train.csv`
and `fashion-mnist_test.csv`, whose first line has the names `label`, `pixel1`, ..., `pixel784`.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from common.data.dataset import Dataset, Int64
from common.data.fashion_mnist import CLASSES
from common.data.image_decoder import UInt8
from common.errors import DataError
from common.files import read_ordinary

MOST_BYTES = 2**29  #: of a file; Kaggle's larger one has 133 MB


def files(folder: Path) -> dict[str, list[Path]]:
    """The CSV files for training and for testing."""
    try:
        found = sorted(folder.glob("*.csv"))
    except (OSError, ValueError):
        return {}
    return {part: [path for path in found if part in path.stem] for part in ("train", "test")}


def is_csv_folder(folder: Path) -> bool:
    """Whether a folder holds CSV files for training."""
    return bool(files(folder).get("train"))


def load(folder: Path) -> Dataset:
    """Return the images of two CSV files; DataError names the file at fault."""
    parts = []
    for part, paths in files(folder).items():
        if len(paths) != 1:
            raise DataError(
                f"the folder {folder} holds {len(paths)} CSV files with {part!r} in their names; "
                "leave one of each, such as fashion-mnist_train.csv and fashion-mnist_test.csv"
            )
        parts.append(read(paths[0]))
    (train_images, train_labels), (test_images, test_labels) = parts
    if train_images.shape[1:] != test_images.shape[1:]:
        raise DataError(f"the CSV files in {folder} have images of two sizes; give one set")
    count = int(max(train_labels.max(), test_labels.max())) + 1
    fashion = "fashion" in files(folder)["train"][0].name and count == len(CLASSES)
    names = CLASSES if fashion else tuple(map(str, range(count)))
    return Dataset(train_images, train_labels, test_images, test_labels, names, str(folder))


def read(path: Path) -> tuple[UInt8, Int64]:
    """Return the images (N, 1, H, W) and labels of one file."""
    try:
        first, _, rest = read_ordinary(path, MOST_BYTES).partition(b"\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give another file") from None
    columns = first.decode("ascii", "replace").strip().split(",")
    side = math.isqrt(len(columns) - 1)
    if columns[0] != "label" or side * side != len(columns) - 1 or not side:
        raise DataError(
            f"{path} does not begin with `label,pixel1,...` and a square number of pixels; give "
            "Kaggle's files as they are"
        )
    lines = [line for line in rest.split(b"\n") if line.strip()]
    try:
        numbers = np.array([line.split(b",") for line in lines], dtype="S8").astype(np.int64)
    except ValueError:
        raise DataError(f"{path} has lines that are not {len(columns)} whole numbers") from None
    if numbers.ndim != 2 or numbers.shape[1] != len(columns):
        raise DataError(f"{path} has lines that are not {len(columns)} whole numbers")
    labels, pixels = numbers[:, 0], numbers[:, 1:]
    if labels.min() < 0 or labels.max() >= 1000 or pixels.min() < 0 or pixels.max() > 255:
        raise DataError(f"{path} has a label outside of 0 to 999, or a pixel outside of 0 to 255")
    return pixels.astype(np.uint8).reshape(-1, 1, side, side), labels
