"""Where a data set comes from: the sample, a folder, the cache, Debian, a download."""

from __future__ import annotations

from pathlib import Path

from common.data.dataset import Dataset
from common.data.fashion_mnist import (
    DEBIAN_FOLDER,
    FULL,
    SAMPLE,
    SAMPLE_FOLDER,
    _dataset,
    _download,
    _Place,
    cache_folder,
)
from common.data.image_folder import is_class_folder
from common.data.image_folder import load as load_class_folder


def load(source: str | None = None, size: int = 96) -> Dataset:
    """Return Fashion-MNIST from a folder, or the shipped subset if `source` is "sample".

    None takes the first of: the user's cache, Debian's folder, a download into the cache. A folder
    that holds folders, and none of Fashion-MNIST's files, is one of class folders; `size` is for
    its images alone. Raises DataError for files that are missing, damaged or cannot be downloaded.
    """
    if source == "sample":
        return _Place(
            SAMPLE_FOLDER, SAMPLE, "it is part of this project: check it out anew with git"
        ).dataset("sample")
    if source is not None:
        given = _Place(
            Path(source),
            FULL,
            "give the folder of Fashion-MNIST's four files, or one of train/CLASS/ and"
            " test/CLASS/, with `--data DIR`, or use `--data sample`",
        )
        if is_class_folder(given.folder) and not given.present():
            return load_class_folder(given.folder, size)
        return given.dataset(source)
    cache = _Place(
        cache_folder(),
        FULL,
        "delete it and it will be downloaded anew, set GOOGLENET_CACHE to another folder,"
        " or use `--data sample`",
    )
    # What is in the cache is read first, so that damage is told whatever source is taken then.
    raw = {name: cache.read(path, name) for name, path in cache.present().items()}
    debian = _Place(
        DEBIAN_FOLDER,
        FULL,
        "repair it with `apt-get install --reinstall dataset-fashion-mnist`,"
        " or use `--data sample`",
    )
    if len(raw) < len(FULL) and len(debian.present()) == len(FULL):
        return debian.dataset(str(DEBIAN_FOLDER))
    for name in FULL:
        if name not in raw:
            raw[name] = _download(name, cache.folder)
    return _dataset(raw, str(cache.folder))


def whereabouts() -> dict[str, tuple[Path, int]]:
    """Where Fashion-MNIST may lie: the folder, and how many of its four files are there."""
    places = {"cache": cache_folder(), "Debian": DEBIAN_FOLDER, "sample": SAMPLE_FOLDER}
    return {name: (path, len(_Place(path, FULL, "").present())) for name, path in places.items()}
