"""A data set of ordinary images: a folder with one folder for each class.

    DIR/train/CLASS/*.png        DIR/test/CLASS/*.jpg        the same classes in both, at least two

The folder for testing may also be called val, valid or validation. If DIR has the class folders
themselves, `split` divides them.

A file is an image if its ending belongs to one of `FORMATS`. Hidden files and other endings
(`Thumbs.db`, `.txt`) are ignored. Each image is read in these steps (common/data/image_decoder.py):
the first of several frames, rotated by its EXIF data, 16 bits reduced to 8, transparent parts on
white, converted to grey or RGB, and resized bilinearly. Pillow's bilinear filter averages when it
shrinks. Height and width are scaled independently.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np

from common.data.dataset import Dataset
from common.data.image_decoder import endings
from common.data.image_files import Files, inspect_image
from common.errors import DataError
from common.terminal import tracked

PARTS = ("train", "test")
TEST_NAMES = ("test", "val", "valid", "validation")  #: the first that is there
SPLIT_SEED = 0
Classes = dict[str, list[Path]]  #: the image files of each class
LAYOUT = "give a folder that holds train/CLASS/ and test/CLASS/ with `--data DIR`"


def is_class_folder(folder: Path) -> bool:
    """Return whether a folder holds folders. Fashion-MNIST's folder does not."""
    try:
        return any(not each.name.startswith(".") and each.is_dir() for each in folder.iterdir())
    except (OSError, ValueError):
        return False


def load(folder: Path, size: int, split: float | None = None) -> Dataset:
    """Return the images of a folder of class folders.

    `split` is the share of each class that is for testing, in a folder that is not divided.

    The images keep their height and width if these are equal for all and at most `size`. Otherwise
    all are resized to `size` x `size`. The data set is grey only if every image is grey. Classes
    alternate in the order of the images, so the first N images are balanced. Only the header of
    each file is read here: a truncated file is detected when it is first decoded.

    Raises DataError that names the file or folder at fault.
    """
    train, test, second = _divided(folder, split)
    for one, other, lacking in (
        (PARTS[0], second, sorted(set(train) - set(test))),
        (second, PARTS[0], sorted(set(test) - set(train))),
    ):
        if lacking:
            raise DataError(
                f"{folder / one / lacking[0]} is a class that {folder / other} lacks; give both "
                "the same class folders"
            )
    if len(train) < 2:
        raise DataError(f"{folder} holds fewer than two classes; {LAYOUT}")
    classes = sorted(train)
    rows = [_alternate([part[name] for name in classes]) for part in (train, test)]
    channels, height, width = _common_shape([path for part in rows for path, _ in part], size)
    images = [Files([path for path, _ in part], channels, height, width) for part in rows]
    labels = [np.array([label for _, label in part], np.int64) for part in rows]
    return Dataset(images[0], labels[0], images[1], labels[1], tuple(classes), str(folder))


def _divided(folder: Path, split: float | None) -> tuple[Classes, Classes, str]:
    """Return the training and test images of each class, and the name of the test folder."""
    inside = {path.name for path in _entries(folder)[0]}
    second = next((name for name in TEST_NAMES if name in inside), PARTS[1])
    if PARTS[0] in inside or second in inside:
        if split is not None:
            raise DataError(
                f"{folder} is divided into {PARTS[0]} and {second} already; leave out `--split`"
            )
        return _classes(folder / PARTS[0]), _classes(folder / second), second
    if split is None:
        raise DataError(
            f"the folder {folder / PARTS[0]} is missing; {LAYOUT}, or divide the class folders in "
            f"{folder} with `--split 0.2`"
        )
    train, test = dict[str, list[Path]](), dict[str, list[Path]]()
    random = np.random.RandomState(SPLIT_SEED)
    for name, paths in sorted(_classes(folder).items()):
        count = round(len(paths) * split)
        if not 0 < count < len(paths):
            raise DataError(
                f"{folder / name} holds {len(paths)} image(s), of which `--split {split}` takes "
                f"{count} for testing; give more images, or another share"
            )
        chosen = set(random.permutation(len(paths))[:count].tolist())
        test[name] = [path for index, path in enumerate(paths) if index in chosen]
        train[name] = [path for index, path in enumerate(paths) if index not in chosen]
    return train, test, PARTS[1]


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Return the image files of each class; DataError if a class has none."""
    names, loose = _entries(folder)
    if loose:
        raise DataError(f"{loose[0]} is not in a class folder; {LAYOUT}")
    found = {}
    for name in names:
        inner, found[name.name] = _entries(name)
        if inner:
            raise DataError(f"{inner[0]} is a folder inside a class; put its images into {name}")
        if not found[name.name]:
            raise DataError(
                f"{name} holds no image of a known format ({', '.join(sorted(endings()))}); put "
                "some there, or remove it"
            )
    return found


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders and the images in a folder, sorted; DataError if it cannot be read."""
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        raise DataError(f"the folder {folder} is missing; {LAYOUT}") from None
    except OSError as error:
        raise DataError(f"{folder} cannot be read as a folder ({error.strerror})") from None
    folders = [path for path in entries if path.is_dir()]
    known = endings()
    images = [p for p in entries if p.suffix.lower() in known and p not in set(folders)]
    links = [p for p in entries if p.is_symlink() and not p.exists()]
    if links:
        raise DataError(f"{links[0]} is a broken link; remove it")
    return folders, images


def _alternate(classes: Sequence[Sequence[Path]]) -> list[tuple[Path, int]]:
    """Return each path with its label: the first of each class, then the second of each, ..."""
    rounds = zip_longest(*classes)
    return [(path, label) for each in rounds for label, path in enumerate(each) if path]


def _common_shape(paths: Sequence[Path], size: int) -> tuple[int, int, int]:
    """Return channels, height and width for all images: the common ones, or `size`."""
    shapes = {inspect_image(path) for path in tracked(paths, "inspecting", "images")}
    channels, sizes = max(shape[0] for shape in shapes), {shape[1:] for shape in shapes}
    height, width = sizes.pop()
    if sizes or max(height, width) > size:
        height = width = size
    return channels, height, width
