"""Fashion-MNIST as NumPy arrays: its files are downloaded, checked by SHA-256 and parsed.

Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
Learning Algorithms", arXiv:1708.07747, https://github.com/zalandoresearch/fashion-mnist. The IDX
format is described at the end of LeCun's MNIST page, http://yann.lecun.com/exdb/mnist/.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import tempfile
import textwrap
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.data.dataset import Dataset, Int64
from common.data.downloads import fetch
from common.data.image_decoder import UInt8
from common.errors import DataError

Contents = dict[str, tuple[int, str]]
"""The expected contents: file name -> (number of unpacked bytes, their SHA-256)."""

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

FULL: Contents = {
    "train-images-idx3-ubyte": (
        16 + 60_000 * 28 * 28,
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    "train-labels-idx1-ubyte": (
        8 + 60_000,
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    "t10k-images-idx3-ubyte": (
        16 + 10_000 * 28 * 28,
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    "t10k-labels-idx1-ubyte": (
        8 + 10_000,
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}

SAMPLE: Contents = {
    "train-images-idx3-ubyte": (
        16 + 800 * 28 * 28,
        "028fe5199a551cfefb03adb0c90e23711cb64f36c42552a19361b6da46993fd3",
    ),
    "train-labels-idx1-ubyte": (
        8 + 800,
        "eb4214c489056667c2ba417567865e89dbd080646c3e6a71027e71423577604f",
    ),
    "t10k-images-idx3-ubyte": (
        16 + 200 * 28 * 28,
        "c5778dde4e96eeb34657888930a98f527ac6b0cb35e9e969ba53f01dfce868bd",
    ),
    "t10k-labels-idx1-ubyte": (
        8 + 200,
        "3bf96d4b7566f51d8726eb6088e70eb796c98349a6135181dddfcc5bc590cf72",
    ),
}

SAMPLE_FOLDER = Path(__file__).parent / "sample"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # from the package dataset-fashion-mnist
MIRRORS = (  # those with https first
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",  # the authors' server
)
MOST_BYTES = 2**30  #: of a file of another data set, unpacked
MOST_CLASSES = 1000  #: of such a set
DOWNLOAD_SECONDS = 1800  # for all files together: 30 MB


@dataclass(frozen=True)
class Folder:
    """A folder, the expected contents of its four files, and the advice if they differ."""

    path: Path
    contents: Contents
    way_out: str

    def present(self) -> dict[str, Path]:
        """Return the paths of the files that exist, packed or not; empty without the folder.

        Raises DataError if the folder cannot be read.
        """
        try:
            entries = set(os.listdir(self.path))
        except FileNotFoundError:
            return {}
        except NotADirectoryError:
            raise DataError(f"{self.path} is a file, not a folder; {self.way_out}") from None
        except (OSError, ValueError) as reason:
            raise DataError(
                f"the folder {self.path} cannot be read ({_short(reason)}); {self.way_out}"
            ) from None
        # The unpacked file comes last, so it wins if both exist.
        both = ((name, file) for name in self.contents for file in (f"{name}.gz", name))
        return {name: self.path / file for name, file in both if file in entries}

    def read(self, path: Path, name: str) -> bytes:
        """Return the checked bytes of a file; raises DataError with the advice."""
        try:
            return unpack(path, *self.contents[name])
        except DataError as reason:
            raise DataError(f"{path} {reason}; {self.way_out}") from None

    def dataset(self, source: str) -> Dataset:
        """Read the four files; raises DataError if one is missing or damaged."""
        paths = self.present()
        missing = [name for name in self.contents if name not in paths]
        if missing:
            lack = f"lacks {', '.join(missing)} (or .gz)" if self.path.exists() else "is missing"
            raise DataError(f"the folder {self.path} {lack}; {self.way_out}")
        return parse_dataset({name: self.read(path, name) for name, path in paths.items()}, source)

    def is_fashion_mnist(self) -> bool:
        """Whether the files are not complete, or any of them is the expected one.

        If not, they may be of another set with the same file names: MNIST, KMNIST.
        """
        paths = self.present()
        if len(paths) < len(self.contents):
            return True
        return any(self._is_expected(path, name) for name, path in paths.items())

    def _is_expected(self, path: Path, name: str) -> bool:
        size, sha256 = self.contents[name]
        try:
            raw = _read_unpacked(path, size + 1)
        except (DataError, OSError, EOFError, zlib.error):
            return True  # it cannot be read: `read` says why
        return hashlib.sha256(raw).hexdigest() == sha256

    def other_dataset(self, source: str) -> Dataset:
        """Read four files of another set in the same format; its classes have numbers.

        Raises DataError if they are not images and labels.
        """
        raw = {}
        for name, path in self.present().items():
            try:
                raw[name] = unpack_any(path)
            except DataError as reason:
                raise DataError(f"{path} {reason}; {self.way_out}") from None
        train_images, train_labels = _pair(raw, "train", source, False)
        test_images, test_labels = _pair(raw, "t10k", source, False)
        if train_images.shape[1:] != test_images.shape[1:]:
            raise DataError(f"the images of {source} have two sizes; {self.way_out}")
        count = int(max(train_labels.max(), test_labels.max())) + 1
        names = tuple(map(str, range(count)))
        return Dataset(train_images, train_labels, test_images, test_labels, names, source)


def cache_folder() -> Path:
    """Return the folder of downloads: $GOOGLENET_CACHE, or the user's cache folder."""
    if folder := os.environ.get("GOOGLENET_CACHE"):
        return Path(folder)
    import pooch  # type: ignore[import-untyped]  # imported only when needed

    return Path(pooch.os_cache("googlenet"))


def parse_idx(data: bytes, where: str) -> UInt8:
    """Return the uint8 array of 1 to 32 dimensions in the bytes of an IDX file.

    The bytes are 0, 0, 8 (for uint8), the number of dimensions, each dimension as four big-endian
    bytes, and the elements in C order. Raises DataError, which names `where`, for anything else.
    """
    if len(data) < 4:
        raise DataError(f"{where} is not an IDX file: it ends after {len(data)} bytes")
    if data[:2] != b"\0\0":
        raise DataError(f"{where} is not an IDX file: it begins with 0x{data[:4].hex()}")
    kind, ndim = data[2], data[3]
    if kind != 8:
        raise DataError(f"{where} has elements of IDX type 0x{kind:02x}, not 0x08 (uint8)")
    if not 1 <= ndim <= 32:  # NumPy 1 supports at most 32
        raise DataError(f"{where} has {ndim} dimensions, not 1 to 32")
    start = 4 + 4 * ndim
    if len(data) < start:
        raise DataError(f"{where} is truncated: its header takes {start} bytes, not {len(data)}")
    shape = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(4, start, 4))
    if 0 in shape:
        raise DataError(f"{where} is empty: its shape is {shape}")
    if math.prod(shape) != len(data) - start:
        raise DataError(
            f"{where} has {len(data) - start} bytes of elements, its shape {shape} takes"
            f" {math.prod(shape)}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy()  # writable


def _short(reason: Exception) -> str:
    """Return the message of an exception in one line of at most 120 characters."""
    text = (reason.strerror if isinstance(reason, OSError) else None) or str(reason)
    return textwrap.shorten(text, 120, placeholder="...") or type(reason).__name__


def _read_unpacked(path: Path, most: int) -> bytes:
    """Return at most that many bytes of a file, unpacked: a small .gz can unpack to any size."""
    if not path.is_file():  # opening a pipe would block for ever
        raise DataError("is not a file")
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        raw: bytes = file.read(most)
    return raw


def unpack(path: Path, size: int, sha256: str) -> bytes:
    """Return the bytes of a file, unpacked if it is a .gz, after a check of size and SHA-256.

    Raises DataError with the second half of a sentence: "is damaged: ..."
    """
    try:
        raw = _read_unpacked(path, size + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as reason:
        raise DataError(f"is damaged: it cannot be unpacked ({_short(reason)})") from None
    except OSError as reason:
        raise DataError(f"cannot be read ({_short(reason)})") from None
    actual = hashlib.sha256(raw).hexdigest()
    if len(raw) > size:
        raise DataError(f"is damaged: it holds more than the expected {size} bytes")
    if actual != sha256:
        raise DataError(
            f"is damaged, or of another data set: its {len(raw)} bytes have the SHA-256 "
            f"{actual[:12]}..., not"
            f" {size} bytes with {sha256[:12]}..."
        )
    return raw


def unpack_any(path: Path) -> bytes:
    """Return the bytes of a file of another data set, unpacked if it is a .gz."""
    try:
        raw = _read_unpacked(path, MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as reason:
        raise DataError(f"cannot be read ({_short(reason)})") from None
    if len(raw) > MOST_BYTES:
        raise DataError(f"holds more than {MOST_BYTES:,} bytes")
    return raw


def download(name: str, cache: Path, until: float) -> bytes:
    """Download a file into the cache and return its unpacked bytes.

    A file gets its final name only after the check, and each process has a folder of its own until
    then. `until` is the deadline in the time of `time.monotonic`; each mirror gets an equal part of
    what is left. Raises DataError if no mirror delivers the file.
    """
    file = f"{name}.gz"
    last = ""
    size, _ = FULL[name]
    most = size + size // 1000 + 1024  # what gzip adds to bytes that it cannot compress
    for tried, mirror in enumerate(MIRRORS):
        url = f"{mirror}/{file}"
        try:
            seconds = (until - time.monotonic()) / (len(MIRRORS) - tried)
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache, prefix="download-") as folder:
                packed = Path(folder) / file
                packed.write_bytes(fetch(url, most, seconds))
                raw = unpack(packed, *FULL[name])
                os.replace(packed, cache / file)
            return raw
        except DataError as reason:
            last = f"{url} {reason}"
        except (OSError, ValueError) as reason:
            last = _short(reason)
    raise DataError(
        f"{name} could not be downloaded into {cache} ({last}); give the data's folder with"
        " `--data DIR`, use `--data sample`, or on Debian and Ubuntu"
        " `apt-get install dataset-fashion-mnist`"
    )


def parse_dataset(raw: dict[str, bytes], source: str) -> Dataset:
    """Parse the unpacked bytes of the four files; raises DataError if they do not match."""
    train_images, train_labels = _pair(raw, "train", source, True)
    test_images, test_labels = _pair(raw, "t10k", source, True)
    return Dataset(train_images, train_labels, test_images, test_labels, CLASSES, source)


def _pair(raw: dict[str, bytes], part: str, source: str, fashion: bool) -> tuple[UInt8, Int64]:
    """Return images (N, 1, H, W) and labels (N,) of "train" or "t10k"; DataError on mismatch.

    Those of Fashion-MNIST are 28 x 28, of ten classes.
    """
    where = f"{part}-images-idx3-ubyte of {source}", f"{part}-labels-idx1-ubyte of {source}"
    images = parse_idx(raw[f"{part}-images-idx3-ubyte"], where[0])
    labels = parse_idx(raw[f"{part}-labels-idx1-ubyte"], where[1])
    if images.ndim != 3 or (fashion and images.shape[1:] != (28, 28)):
        wanted = "(N, 28, 28)" if fashion else "(N, height, width)"
        raise DataError(f"{where[0]} has the shape {images.shape}, not {wanted}")
    if labels.shape != images.shape[:1]:
        raise DataError(f"{where[1]} has the shape {labels.shape}, not ({len(images)},)")
    last = (len(CLASSES) if fashion else MOST_CLASSES) - 1
    if labels.max() > last:
        raise DataError(f"{where[1]} has a label {labels.max()}, above the last class, {last}")
    return images[:, np.newaxis], labels.astype(np.int64)
