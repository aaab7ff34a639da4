"""Find a data set: the sample, a given folder, the cache, Debian's folder or a download."""

from __future__ import annotations

import time
from pathlib import Path

from common.data.dataset import Dataset
from common.data.fashion_mnist import (
    DEBIAN_FOLDER,
    DOWNLOAD_SECONDS,
    FULL,
    SAMPLE,
    SAMPLE_FOLDER,
    Folder,
    cache_folder,
    download,
    parse_dataset,
)
from common.data.image_folder import is_class_folder
from common.data.image_folder import load as load_class_folder


def load(source: str | None = None, size: int = 96) -> Dataset:
    """Return a data set. `source` is a folder, "sample" for the shipped subset, or None.

    None selects full Fashion-MNIST: the user's cache, Debian's folder, or a download into the
    cache, in this order. A folder that holds folders and no file of Fashion-MNIST is read as class
    folders; only then `size` is used. Raises DataError for files that are missing or damaged or
    cannot be downloaded.
    """
    if source == "sample":
        return Folder(
            SAMPLE_FOLDER, SAMPLE, "it is part of this project: restore it with git"
        ).dataset("sample")
    if source is not None:
        given = Folder(
            Path(source),
            FULL,
            "give the folder of Fashion-MNIST's four files, or one of train/CLASS/ and"
            " test/CLASS/, with `--data DIR`, or use `--data sample`",
        )
        if is_class_folder(given.path) and not given.present():
            return load_class_folder(given.path, size)
        return given.dataset(source)
    cache = Folder(
        cache_folder(),
        FULL,
        "delete it and it will be downloaded again, set GOOGLENET_CACHE to another folder,"
        " or use `--data sample`",
    )
    # The cache is read first, so that a damaged file in it is always reported.
    raw = {name: cache.read(path, name) for name, path in cache.present().items()}
    debian = Folder(
        DEBIAN_FOLDER,
        FULL,
        "repair it with `apt-get install --reinstall dataset-fashion-mnist`,"
        " or use `--data sample`",
    )
    if len(raw) < len(FULL) and len(debian.present()) == len(FULL):
        return debian.dataset(str(DEBIAN_FOLDER))
    until = time.monotonic() + DOWNLOAD_SECONDS
    for name in FULL:
        if name not in raw:
            there = cache.present().get(name)  # another process may have downloaded it meanwhile
            raw[name] = cache.read(there, name) if there else download(name, cache.path, until)
    return parse_dataset(raw, str(cache.path))


def whereabouts() -> dict[str, tuple[Path, int]]:
    """Return each folder where Fashion-MNIST may be, and how many of its four files are there."""
    folders = {"cache": cache_folder(), "Debian": DEBIAN_FOLDER, "sample": SAMPLE_FOLDER}
    return {name: (path, len(Folder(path, FULL, "").present())) for name, path in folders.items()}
