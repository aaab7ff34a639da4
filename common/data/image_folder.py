"""Ordinary images: a folder of class folders as a data set, and single files for `predict`.

    DIR/train/CLASS/*.png        DIR/test/CLASS/*.jpg        the same classes in both, two or more

A file counts as an image by its ending (`FORMATS`); hidden files and other endings (`Thumbs.db`,
`.txt`) are passed over. Each image is read like this: turned as its EXIF data says, the first of
several frames, transparent parts laid on white, 16 bits cut to 8, converted to grey or to RGB, and
resized bilinearly (Pillow's, which averages when it shrinks; the sides are scaled independently).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.data.dataset import Dataset
from common.data.image_files import Files, endings, inspect_image
from common.errors import DataError

PARTS = ("train", "test")
LAYOUT = "give a folder that holds train/CLASS/ and test/CLASS/ with `--data DIR`"


def is_class_folder(folder: Path) -> bool:
    """Whether a folder holds folders, as Fashion-MNIST's does not."""
    try:
        return any(not each.name.startswith(".") and each.is_dir() for each in folder.iterdir())
    except (OSError, ValueError):
        return False


def load(folder: Path, size: int) -> Dataset:
    """The images of a folder of class folders; DataError, naming the file, for what is wrong.

    They keep their own height and width if these are the same for all and at most `size`; else
    all are resized to `size` x `size`. They are grey only if all are. The classes take turns in
    the order of the images, so that the first N hold as many of each. Only the head of each file
    is read here: one that was cut is found when it is first asked for.
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
    rows = [_take_turns([part[name] for name in classes]) for part in (train, test)]
    channels, height, width = _common_shape([path for part in rows for path, _ in part], size)
    images = [Files([path for path, _ in part], channels, height, width) for part in rows]
    labels = [np.array([label for _, label in part], np.int64) for part in rows]
    return Dataset(images[0], labels[0], images[1], labels[1], tuple(classes), str(folder))


def _classes(folder: Path) -> dict[str, list[Path]]:
    """The images of each class of `train` or `test`; DataError for one that has none."""
    names, loose = _entries(folder)
    if loose:
        raise DataError(f"{loose[0]} is in no class; {LAYOUT}")
    found = {}
    for name in names:
        inner, found[name.name] = _entries(name)
        if inner:
            raise DataError(f"{inner[0]} is a folder inside a class; put its images into {name}")
        if not found[name.name]:
            raise DataError(
                f"{name} holds no image (read are {', '.join(sorted(endings()))}); put some "
                "there, or remove it"
            )
    return found


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders and the images in a folder, sorted; DataError if it cannot be read."""
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        raise DataError(f"the folder {folder} is missing; {LAYOUT}") from None
    except OSError as error:
        raise DataError(f"{folder} is no folder that can be read ({error.strerror})") from None
    folders = [path for path in entries if path.is_dir()]
    known = endings()
    images = [p for p in entries if p.suffix.lower() in known and p not in set(folders)]
    links = [p for p in entries if p.is_symlink() and not p.exists()]
    if links:
        raise DataError(f"{links[0]} is a link that leads nowhere; remove it")
    return folders, images


def _take_turns(classes: Sequence[Sequence[Path]]) -> list[tuple[Path, int]]:
    """Every path with its class's number: the first of each class, then the second of each."""
    turns = zip_longest(*classes)
    return [(path, label) for turn in turns for label, path in enumerate(turn) if path]


def _common_shape(paths: Sequence[Path], size: int) -> tuple[int, int, int]:
    bar = tqdm(paths, "looking at", unit=" images", disable=not sys.stderr.isatty(), leave=False)
    shapes = {inspect_image(path) for path in bar}
    channels, sizes = max(shape[0] for shape in shapes), {shape[1:] for shape in shapes}
    height, width = sizes.pop()
    if sizes or max(height, width) > size:
        height = width = size
    return channels, height, width
