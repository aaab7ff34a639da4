"""Image files, decoded when they are asked for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from common.errors import DataError, one_line

if TYPE_CHECKING:
    from PIL.Image import Image


UInt8 = npt.NDArray[np.uint8]

#: Pillow's names; what is left out needs a program outside it (EPS) or is seldom a photograph
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

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


def inspect_image(path: Path) -> tuple[int, int, int]:
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


def _formats() -> list[str]:
    """Those of `FORMATS` that this Pillow was built with."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def endings() -> set[str]:
    """The file endings of the formats that are read."""
    from PIL import Image

    return {end for end, name in Image.registered_extensions().items() if name in _formats()}


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
