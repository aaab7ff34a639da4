"""Ordinary images: a folder of class folders as a data set, and single files for `predict`.

    DIR/train/CLASS/*.png        DIR/test/CLASS/*.jpg        the same classes in both, two or more

A file counts as an image by its ending (`FORMATS`); hidden files and other endings (`Thumbs.db`,
`.txt`) are passed over. Each image is read like this: turned as its EXIF data says, the first of
several frames, transparent parts laid on white, 16 bits cut to 8, converted to grey or to RGB, and
resized bilinearly (Pillow's, which averages when it shrinks; the sides are scaled independently).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from common.errors import DataError, one_line

if TYPE_CHECKING:
    from PIL.Image import Image

    from common.data import Dataset

UInt8 = npt.NDArray[np.uint8]

#: Pillow's names; what is left out needs a program outside it (EPS) or is seldom a photograph
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
PARTS = ("train", "test")
LAYOUT = "give a folder that holds train/CLASS/ and test/CLASS/ with `--data DIR`"
TRANSPOSED = (5, 6, 7, 8)  # the EXIF orientations that exchange height and width


class Files:
    """Images in files, uint8 (N, C, H, W), decoded when they are asked for."""

    def __init__(self, paths: Sequence[Path], channels: int, height: int, width: int) -> None:
        self.paths = list(paths)
        self.shape = (len(self.paths), channels, height, width)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, which: slice | npt.NDArray[Any]) -> UInt8:
        """The images of a slice or of an array of indices; DataError for one that is damaged."""
        chosen = np.arange(len(self))[which]
        images = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        for image, index in zip(images, chosen, strict=True):
            image[:] = decode(self.paths[index], *self.shape[1:])
        return images

    def first(self, count: int | None) -> Files:
        """The first images, not decoded; None for all."""
        return Files(self.paths[:count], *self.shape[1:])


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
    from common.data import Dataset

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


def decode(path: Path, channels: int, height: int, width: int) -> UInt8:
    """The image in a file, uint8 (C, H, W); DataError if it is damaged, cut, or none."""
    from PIL import Image, ImageOps

    with _opened(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):
            upright = _eight_bits(upright)
        if upright.has_transparency_data:
            upright = upright.convert("RGBA")
            white = Image.new("RGBA", upright.size, "white")
            upright = Image.alpha_composite(white, upright)
        upright = upright.convert("L" if channels == 1 else "RGB")
        if upright.size != (width, height):
            upright = upright.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(upright).reshape(height, width, channels).transpose(2, 0, 1)


def look(path: Path) -> tuple[int, int, int]:
    """Channels (1 if it is grey, else 3), height and width, from the head of an image's file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of what is refused here anyway
        with _opened(path) as image:
            height, width = image.height, image.width
            # A TIFF's size is told as if turned. In a PNG, EXIF data may follow the pixels, and to
            # ask for it would read them all.
            if image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info):
                turned = image.getexif().get(0x0112) in TRANSPOSED
                height, width = (width, height) if turned else (height, width)
            return 1 if _is_grey(image) else 3, height, width


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
                f"{name} holds no image (read are {', '.join(sorted(_endings()))}); put some "
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
    endings = _endings()
    images = [p for p in entries if p.suffix.lower() in endings and p not in set(folders)]
    links = [p for p in entries if p.is_symlink() and not p.exists()]
    if links:
        raise DataError(f"{links[0]} is a link that leads nowhere; remove it")
    return folders, images


def _formats() -> list[str]:
    """Those of `FORMATS` that this Pillow was built with."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _endings() -> set[str]:
    from PIL import Image

    return {end for end, name in Image.registered_extensions().items() if name in _formats()}


def _take_turns(classes: Sequence[Sequence[Path]]) -> list[tuple[Path, int]]:
    """Every path with its class's number: the first of each class, then the second of each."""
    turns = zip_longest(*classes)
    return [(path, label) for turn in turns for label, path in enumerate(turn) if path]


def _common_shape(paths: Sequence[Path], size: int) -> tuple[int, int, int]:
    bar = tqdm(paths, "looking at", unit=" images", disable=not sys.stderr.isatty(), leave=False)
    shapes = {look(path) for path in bar}
    channels, sizes = max(shape[0] for shape in shapes), {shape[1:] for shape in shapes}
    height, width = sizes.pop()
    if sizes or max(height, width) > size:
        height = width = size
    return channels, height, width


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """The image in a file; DataError, naming it, for whatever goes wrong while it is in use."""
    from PIL import Image, UnidentifiedImageError

    try:
        if path.exists() and not path.is_file():  # to open a pipe would wait for ever
            raise ValueError("it is no file")
        with Image.open(path, formats=_formats()) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit and image.width * image.height > limit:
                raise ValueError(f"it claims {image.width} x {image.height} pixels, above {limit}")
            yield image
    except MemoryError:
        raise
    except Exception as error:  # of damaged files Pillow raises many kinds
        reason = getattr(error, "strerror", None) or one_line(error)[:120] or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = f"it is none of {', '.join(FORMATS)}"
        raise DataError(
            f"{path} cannot be read as an image ({reason}); replace it, or leave it out"
        ) from error


def _is_grey(image: Image) -> bool:
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose white is unknown")
    return image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")


def _eight_bits(image: Image) -> Image:
    from PIL import Image as images

    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65_535:
        raise ValueError("its pixels have more than 16 bits")
    return images.fromarray(((values * 255 + 32_767) // 65_535).astype(np.uint8))
