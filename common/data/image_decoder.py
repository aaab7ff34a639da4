"""Decodes image files, in a process with limited memory and time.

`python -m common.data.image_decoder` answers one line of JSON for each line of JSON on stdin:
`[path, [channels, height, width]]` with the length of the pixels, the largest 16-bit value (0 if it
has 8 bits) and the pixels behind them, and `[path, null]` with channels, height and width. A file
that cannot be read is answered with the reason, as a string. `common.data.image_files`
asks it.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from common.errors import one_line
from common.limits import TOO_LARGE, limit_memory, limit_seconds

if TYPE_CHECKING:
    from PIL.Image import Image

UInt8 = npt.NDArray[np.uint8]

#: Pillow's names of the accepted formats; EPS needs an external program, others are rarely photos
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

ORIENTATION = 0x0112  # the EXIF tag of the camera's rotation
TRANSPOSED = (5, 6, 7, 8)  # its values that swap height and width
STRIP = 2**20  # pixels that are converted at a time, so that an image is in memory only once


class Undecodable(Exception):
    """An image file cannot be read; the message is the reason."""


def decode(path: Path, channels: int, height: int, width: int) -> tuple[UInt8, int]:
    """Return the image in a file, uint8 (C, H, W), and the largest value of 16-bit pixels, else 0.

    Undecodable if that is not possible.
    """
    from PIL import Image, ImageOps

    mode = "L" if channels == 1 else "RGB"
    with _open(path) as image:
        image.load()
        largest = int(np.asarray(image).max()) if image.mode.startswith("I") else 0
        orientation = image.getexif().get(ORIENTATION, 1)
        flat = image
        if image.mode != mode or image.has_transparency_data:
            flat = _flatten(image, mode)
            flat.getexif()[ORIENTATION] = orientation
        if orientation != 1:
            flat = ImageOps.exif_transpose(flat)
        if flat.size != (width, height):
            flat = flat.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(flat).reshape(height, width, channels).transpose(2, 0, 1)
        return pixels, largest


def _flatten(image: Image, mode: str) -> Image:
    """Reduce 16 bits to 8, put transparent parts on white, and convert to grey or RGB."""
    from PIL import Image as images

    flat = images.new(mode, image.size)
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        if strip.mode.startswith("I"):
            strip = _to_8_bits(strip)
        if strip.has_transparency_data:
            strip = strip.convert("RGBA")
            white = images.new("RGBA", strip.size, "white")
            strip = images.alpha_composite(white, strip)
        flat.paste(strip.convert(mode), (0, top))
    return flat


def inspect_image(path: Path) -> tuple[int, int, int]:
    """Return channels (1 for grey, else 3), height and width from the header of an image file.

    Undecodable for a file that `decode` rejects because of its header.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of images that are rejected here anyway
        with _open(path) as image:
            height, width = image.height, image.width
            # Pillow reports a TIFF's size after rotation. In a PNG, EXIF data may follow the
            # pixels, and a request for it would read all of them.
            if image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info):
                rotated = image.getexif().get(ORIENTATION) in TRANSPOSED
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
    """Open an image file. Any error while it is in use becomes Undecodable."""
    from PIL import Image, UnidentifiedImageError

    try:
        if path.exists() and not path.is_file():  # opening a pipe would block for ever
            raise ValueError("it is not a file")
        with Image.open(path, formats=_formats()) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit and image.width * image.height > limit:
                raise ValueError(f"it has {image.width} x {image.height} pixels, more than {limit}")
            yield image
    except MemoryError as error:
        raise Undecodable(f"it {TOO_LARGE}") from error
    except Exception as error:  # Pillow raises many types for damaged files
        reason = getattr(error, "strerror", None) or one_line(error)[:120] or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = f"its format is not one of {', '.join(FORMATS)}"
        raise Undecodable(reason) from error


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

    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65_535:
        raise ValueError("its pixels have more than 16 bits")
    scaled = (values.astype(np.uint32) * 255 + 32_767) // 65_535
    return images.fromarray(scaled.astype(np.uint8))


# --- in the process that decodes
def main() -> None:
    """Answer requests until stdin ends."""
    _formats()  # loads Pillow before the limits
    limit_memory()
    for line in sys.stdin:
        limit_seconds()
        name, shape = json.loads(line)
        pixels = b""
        try:
            if shape:
                image, largest = decode(Path(name), *shape)
                pixels = image.tobytes()
                answer: object = len(pixels), largest
            else:
                answer = inspect_image(Path(name))
        except (Undecodable, MemoryError) as error:
            answer = str(error) or f"it {TOO_LARGE}"
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + pixels)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
