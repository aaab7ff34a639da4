"""Find a data set: the sample, a given folder, the cache, Debian's folder or a download."""

from __future__ import annotations

import time
from pathlib import Path

from common.data.csv_images import is_csv_folder
from common.data.csv_images import load as load_csv
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
from common.errors import DataError

#: where torchvision keeps the files below the folder that it is given
NESTED = (Path("FashionMNIST/raw"), Path("MNIST/raw"), Path("raw"))


def load(source: str | None = None, size: int = 96, split: float | None = None) -> Dataset:
    """Return a data set. `source` is a folder, "sample" for the shipped subset, or None.

    A folder may hold the four files of Fashion-MNIST or of a set like it, Kaggle's two CSV files,
    or class folders; or it is the one that torchvision was given. `split` is the share of the test
    images of class folders that are not divided.

    None selects full Fashion-MNIST: the user's cache, Debian's folder, or a download into the
    cache, in this order. A folder that holds folders and no file of Fashion-MNIST is read as class
    folders; only then `size` is used. Raises DataError for files that are missing or damaged or
    cannot be downloaded.
    """
    if split is not None and source in (None, "sample"):
        raise DataError(
            "--split divides the class folders of `--data DIR`; give `--data DIR`, or leave out "
            "`--split`"
        )
    if source == "sample":
        return Folder(
            SAMPLE_FOLDER, SAMPLE, "it is part of this project: restore it with git"
        ).dataset("sample")
    if source is not None:
        return given_folder(source, size, split)
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


def given_folder(source: str, size: int, split: float | None) -> Dataset:
    """Return the data set in a folder that the user gave."""
    way_out = (
        "give the folder of Fashion-MNIST's four files, or one of train/CLASS/ and"
        " test/CLASS/, with `--data DIR`, or use `--data sample`"
    )
    tries = [Folder(Path(source) / each, FULL, way_out) for each in ("", *NESTED)]
    given = next((each for each in tries if each.present()), None)
    path = Path(source)
    classes = given is None and is_class_folder(path)
    if split is not None and not classes:
        raise DataError(f"--split divides class folders, and {source} is none; leave it out")
    if classes:
        return load_class_folder(path, size, split)
    if given is None and is_csv_folder(path):
        return load_csv(path)
    given = given or tries[0]
    return given.dataset(source) if given.is_fashion_mnist() else given.other_dataset(source)


def whereabouts() -> dict[str, tuple[Path, int]]:
    """Return each folder where Fashion-MNIST may be, and how many of its four files are there."""
    folders = {"cache": cache_folder(), "Debian": DEBIAN_FOLDER, "sample": SAMPLE_FOLDER}
    return {name: (path, len(Folder(path, FULL, "").present())) for name, path in folders.items()}
