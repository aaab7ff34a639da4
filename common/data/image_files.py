"""Image files, decoded when they are indexed."""

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

#: Pillow's names of the accepted formats; EPS needs an external program, others are rarely photos
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

TRANSPOSED = (5, 6, 7, 8)  # the EXIF orientations that swap height and width


class Files:
    """Images in files, uint8 (N, C, H, W), decoded when they are indexed."""

    def __init__(self, paths: Sequence[Path], channels: int, height: int, width: int) -> None:
        self.paths = list(paths)
        self.shape = (len(self.paths), channels, height, width)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, which: slice | npt.NDArray[Any]) -> UInt8:
        """Return the images of a slice or an index array; DataError if a file is damaged."""
        chosen = np.arange(len(self))[which]
        images = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        for image, index in zip(images, chosen, strict=True):
            image[:] = decode(self.paths[index], *self.shape[1:])
        return images

    def first(self, count: int | None) -> Files:
        """Return the first `count` images without decoding them; None returns all."""
        return Files(self.paths[:count], *self.shape[1:])


def decode(path: Path, channels: int, height: int, width: int) -> UInt8:
    """Return the image in a file, uint8 (C, H, W); DataError if it cannot be decoded."""
    from PIL import Image, ImageOps

    with _open(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):
            upright = _to_8_bits(upright)
        if upright.has_transparency_data:
            upright = upright.convert("RGBA")
            white = Image.new("RGBA", upright.size, "white")
            upright = Image.alpha_composite(white, upright)
        upright = upright.convert("L" if channels == 1 else "RGB")
        if upright.size != (width, height):
            upright = upright.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(upright).reshape(height, width, channels).transpose(2, 0, 1)


def inspect_image(path: Path) -> tuple[int, int, int]:
    """Return channels (1 for grey, else 3), height and width from the header of an image file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of images that are rejected here anyway
        with _open(path) as image:
            height, width = image.height, image.width
            # Pillow reports a TIFF's size after rotation. In a PNG, EXIF data may follow the
            # pixels, and a request for it would read all of them.
            if image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info):
                rotated = image.getexif().get(0x0112) in TRANSPOSED
                height, width = (width, height) if rotated else (height, width)
            return 1 if _is_grey(image) else 3, height, width


def _formats() -> list[str]:
    """Return the formats of `FORMATS` that this build of Pillow supports."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def endings() -> set[str]:
    """Return the file endings of the supported formats."""
    from PIL import Image

    return {end for end, name in Image.registered_extensions().items() if name in _formats()}


@contextmanager
def _open(path: Path) -> Iterator[Image]:
    """Open an image file. Any error while it is in use becomes a DataError that names the file."""
    from PIL import Image, UnidentifiedImageError

    try:
        if path.exists() and not path.is_file():  # opening a pipe would block for ever
            raise ValueError("it is not a file")
        with Image.open(path, formats=_formats()) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit and image.width * image.height > limit:
                raise ValueError(f"it has {image.width} x {image.height} pixels, more than {limit}")
            yield image
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises many types for damaged files
        reason = getattr(error, "strerror", None) or one_line(error)[:120] or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = f"its format is not one of {', '.join(FORMATS)}"
        raise DataError(
            f"{path} cannot be read as an image ({reason}); replace it, or leave it out"
        ) from error


def _is_grey(image: Image) -> bool:
    """Return whether all pixels are grey, from the mode and the palette."""
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers without a known value for white")
    return image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")


def _to_8_bits(image: Image) -> Image:
    """Scale 16-bit pixels to 8 bits."""
    from PIL import Image as images

    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65_535:
        raise ValueError("its pixels have more than 16 bits")
    return images.fromarray(((values * 255 + 32_767) // 65_535).astype(np.uint8))
