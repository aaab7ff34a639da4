"""Reads the `.weights.h5` files (HDF5) that Keras writes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any, BinaryIO

import numpy as np

from common.formats.readers.base import Unreadable, require_few, require_name


def read_keras(file: BinaryIO) -> dict[str, np.ndarray]:
    """All datasets of an HDF5 file by path; Unreadable if a link leads to another place."""
    import h5py

    with h5py.File(file, "r") as root:
        return dict(datasets(root, "", 0, count(1)))


def datasets(
    group: Any, prefix: str, depth: int, numbers: Iterator[int]
) -> Iterator[tuple[str, np.ndarray]]:
    """The datasets in an HDF5 group and its subgroups; all must be plain arrays in the file.

    `numbers` counts the names on all paths, because a group may have several names.
    """
    import h5py

    if depth > 16:  # a group may contain itself
        raise Unreadable("is not a file of Keras weights: its groups are nested too deep.")
    for name in group:
        require_few(next(numbers))
        require_name(prefix + name)
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise Unreadable(
                f"links {prefix + name!r} to another place or file: Keras stores no links."
            )
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from datasets(item, f"{prefix}{name}/", depth + 1, numbers)
        elif not isinstance(item, h5py.Dataset):
            raise Unreadable(f"holds something that is not an array under {prefix + name!r}.")
        elif item.external or item.is_virtual or item.chunks or item.dtype.kind not in "fiub":
            raise Unreadable(
                f"stores {prefix + name!r} compressed, elsewhere or not as numbers: Keras's "
                "save_weights stores plain arrays."
            )
        elif item.shape is None or item.nbytes > max(item.id.get_storage_size(), 0):
            raise Unreadable(f"is damaged: {prefix + name!r} is incomplete.")
        else:
            yield prefix + name, np.asarray(item[()])
