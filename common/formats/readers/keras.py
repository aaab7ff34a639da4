"""Reads the files that Keras writes: `.weights.h5` and `.h5` (HDF5), and `.keras` (an archive).

An `.h5` file of a whole model, and one of Keras 2, have the weights under the names of the layers.
A compiled model also has the optimizer's state, which is left out.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, BinaryIO

import numpy as np

from common.formats.readers.base import DEEPEST, Content, Unreadable, require_few, require_name
from common.formats.readers.base import bfloat16 as widened

#: groups at the top that hold no weights of the network
OTHER_GROUPS = ("optimizer", "optimizer_weights", "metrics")
WEIGHTS, CONFIG = "model.weights.h5", "config.json"  #: the entries of a .keras archive
MODEL_CONFIG = "model_config"  #: the attribute of a whole model in an `.h5`
LONGEST_CONFIG = 10**7  #: bytes
LONG = f"has a config of more than {LONGEST_CONFIG:,} bytes."
SCALING = ("Rescaling", "Normalization")  #: the classes of layers that scale the images
NORM = re.compile(r"(.*batch_normalization[^/]*/)vars/([012])")
#: the names of a norm's three vectors, by (center, scale) of its config
NORM_VECTORS = {
    (False, True): ("gamma", "moving_mean", "moving_variance"),
    (True, False): ("vars/1", "vars/2", "vars/3"),  # their numbers in a norm that has a gamma
}
#: the layer Normalization; it counts what it has seen
STATISTICS = re.compile(r"(^|/)normalization(_\d+)?/")


def read_keras(file: BinaryIO) -> Content:
    """All datasets of an HDF5 file by path; Unreadable if a link leads to another place.

    A file of a whole model also has its config.
    """
    import h5py

    with h5py.File(file, "r") as root:
        found = dict(datasets(root, "", 0, count(1)))
        config = root.attrs.get(MODEL_CONFIG, "")
    counted = any(STATISTICS.search(name) and found[name].ndim == 0 for name in found)
    return content(
        {name.removeprefix("model_weights/"): found[name] for name in found},
        config if isinstance(config, (str, bytes)) else "",
        "Normalization" if counted else "",
    )


def read_keras_archive(archive: zipfile.ZipFile) -> Content:
    """The weights and the config in a .keras archive."""
    config = archive.getinfo(CONFIG) if CONFIG in archive.namelist() else None
    if config and config.file_size > LONGEST_CONFIG:
        raise Unreadable(LONG)
    found = read_keras(io.BytesIO(archive.read(WEIGHTS)))
    return content(found.tensors, archive.read(CONFIG) if config else "", found.scales)


def content(tensors: Mapping[str, np.ndarray], config: str | bytes, scales: str) -> Content:
    """What is found, with what the config says: the eps of the norms, layers that scale images."""
    eps, norms = set[float](), set[tuple[bool, bool]]()
    if len(config) > LONGEST_CONFIG:
        raise Unreadable(LONG)
    todo = [json.loads(config)] if config else []
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            todo += one.values()
            own = None
            if one.get("class_name") == "BatchNormalization" and isinstance(one["config"], dict):
                own = one["config"].get("epsilon")
                center, scale = (one["config"].get(key) is not False for key in ("center", "scale"))
                norms.add((center, scale))
            elif one.get("type") == "Norm":  # our own spec
                own = one.get("eps")
            if isinstance(own, float) and 0 < own < 1:
                eps.add(own)
            if one.get("class_name") in SCALING:
                scales = one["class_name"]
        elif isinstance(one, list):
            todo += one
    if len(eps) > 1:
        raise Unreadable(
            f"has norms of several eps ({', '.join(f'{each:g}' for each in sorted(eps)[:9])}), and "
            "a network of ours has one: choose one, and multiply each gamma by "
            "sqrt((variance + new eps) / (variance + old eps))."
        )
    if len(norms) == 1 and (words := NORM_VECTORS.get(norms.pop())):
        found = {name: NORM.fullmatch(name) for name in tensors}
        tensors = {
            f"{at[1]}{words[int(at[2])]}" if (at := found[name]) else name: tensors[name]
            for name in tensors
        }
    return Content(tensors, eps.pop() if eps else None, scales=scales)


def datasets(
    group: Any, prefix: str, depth: int, numbers: Iterator[int]
) -> Iterator[tuple[str, np.ndarray]]:
    """The datasets in an HDF5 group and its subgroups; all must be plain arrays in the file.

    `numbers` counts the names on all paths, because a group may have several names.
    """
    import h5py

    if depth > DEEPEST:  # a group may contain itself
        raise Unreadable("is not a file of Keras weights: its groups are nested too deep.")
    for name in group:
        require_few(next(numbers))
        require_name(prefix + name)
        if not depth and name in OTHER_GROUPS:
            continue
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise Unreadable(
                f"links {prefix + name!r} to another place or file: Keras stores no links."
            )
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from datasets(item, f"{prefix}{name}/", depth + 1, numbers)
            continue
        if not isinstance(item, h5py.Dataset):
            raise Unreadable(f"holds something that is not an array under {prefix + name!r}.")
        bfloat16 = item.dtype.kind == "V" and item.dtype.itemsize == 2 and not item.dtype.names
        if (
            item.external
            or item.is_virtual
            or item.chunks
            or not (bfloat16 or item.dtype.kind in "fiub")
        ):
            raise Unreadable(
                f"stores {prefix + name!r} compressed, elsewhere or not as numbers: Keras's "
                "save_weights stores plain arrays."
            )
        if item.shape is None or item.nbytes > max(item.id.get_storage_size(), 0):
            raise Unreadable(f"is damaged: {prefix + name!r} is incomplete.")
        array = np.asarray(item[()])
        yield prefix + name, widened(array.view("<u2")) if bfloat16 else array
