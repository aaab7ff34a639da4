"""A data set of ordinary images: a folder with one folder for each class.

    DIR/train/CLASS/*.png        DIR/test/CLASS/*.jpg        the same classes in both, at least two

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
LAYOUT = "give a folder that holds train/CLASS/ and test/CLASS/ with `--data DIR`"


def is_class_folder(folder: Path) -> bool:
    """Return whether a folder holds folders. Fashion-MNIST's folder does not."""
    try:
        return any(not each.name.startswith(".") and each.is_dir() for each in folder.iterdir())
    except (OSError, ValueError):
        return False


def load(folder: Path, size: int) -> Dataset:
    """Return the images of a folder of class folders.

    The images keep their height and width if these are equal for all and at most `size`. Otherwise
    all are resized to `size` x `size`. The data set is grey only if every image is grey. Classes
    alternate in the order of the images, so the first N images are balanced. Only the header of
    each file is read here: a truncated file is detected when it is first decoded.

    Raises DataError that names the file or folder at fault.
    """
    train, test = (_classes(folder / part) for part in PARTS)
    for one, other, lacking in (
        (PARTS[0], PARTS[1], sorted(set(train) - set(test))),
        (PARTS[1], PARTS[0], sorted(set(test) - set(train))),
    ):
        if lacking:
            raise DataError(
                f"{folder / one / lacking[0]} is a class that {folder / other} lacks; give both "
                "the same class folders"
            )
    if len(train) < 2:
        raise DataError(f"{folder / 'train'} holds fewer than two classes; {LAYOUT}")
    classes = sorted(train)
    rows = [_alternate([part[name] for name in classes]) for part in (train, test)]
    channels, height, width = _common_shape([path for part in rows for path, _ in part], size)
    images = [Files([path for path, _ in part], channels, height, width) for part in rows]
    labels = [np.array([label for _, label in part], np.int64) for part in rows]
    return Dataset(images[0], labels[0], images[1], labels[1], tuple(classes), str(folder))


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
