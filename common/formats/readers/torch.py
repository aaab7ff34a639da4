"""Reads the files of torch.save, from PyTorch 1.6 on (archives) and before (pickles)."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from common.formats.readers.base import (
    Content,
    Unreadable,
    array_of,
    asks,
    flat,
    width,
)
from common.formats.readers.pickles import Seen, Storage, Tensor, unpickle


def tensors(state: Any, seen: Seen, storages: Callable[[Storage], bytes]) -> Content:
    """The tensors of a checkpoint as arrays; `storages` returns the bytes of a storage.

    Many tensors may be views of one storage, which is read once. A storage that belongs only to an
    optimizer is not read.
    """
    if type(state) is not dict:
        if seen.classes:
            raise asks(seen.classes[0])
        raise Unreadable("does not hold a dict of tensors: save the network's state_dict.")
    found, read = dict[str, Any](), dict[str, np.ndarray]()
    for name, value in flat(state):
        if isinstance(value, Tensor):
            storage = value.storage
            if storage.key not in read:
                values = array_of(storages(storage), storage.dtype, (storage.length,))
                read[storage.key] = values
            value = strided(value, read[storage.key])
        found.setdefault(name, value)
    return Content(found, classes=seen.classes)


def strided(tensor: Tensor, flat: np.ndarray) -> np.ndarray:
    """A tensor as a contiguous array, from the values of its storage."""
    storage, offset, shape, strides = tensor
    if len(shape) != len(strides) or math.prod(shape) > storage.length - offset:
        raise Unreadable("is damaged: a tensor is larger than its storage.")
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if last >= storage.length:
        raise Unreadable("is damaged: a tensor reaches beyond its storage.")
    bytes_apart = [step * flat.itemsize for step in strides]
    view = np.lib.stride_tricks.as_strided(flat[offset:], shape, bytes_apart, subok=True)
    return np.ascontiguousarray(view).view(type(flat)).reshape(shape)


def read_torch(file: BinaryIO) -> Content:
    """An archive of `torch.save`: one pickle and one entry for each storage."""
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        size = file.seek(0, io.SEEK_END)
        pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Unreadable("is an archive that torch.save did not write.")
        if any(name.endswith("/constants.pkl") for name in entries):
            raise Unreadable(
                "is a TorchScript file: save the weights in it with "
                "`torch.save(torch.jit.load(FILE).state_dict(), ...)`."
            )
        if sum(entry.file_size for entry in entries.values()) > size:
            raise Unreadable("is an archive with compressed or overlapping entries.")
        (folder, _) = pickles[0].split("/")
        order = f"{folder}/byteorder"  # since PyTorch 2.1
        if order in entries and archive.read(order) != b"little":
            raise Unreadable("holds big-endian numbers.")

        def storages(storage: Storage) -> bytes:
            name = f"{folder}/data/{storage.key}"
            if name not in entries:
                raise Unreadable("is damaged: a storage is missing.")
            return archive.read(name)

        seen = Seen()
        state = unpickle(io.BytesIO(archive.read(pickles[0])), seen)
        return tensors(state, seen, storages)


#: the pickle of a number; files of PyTorch before 1.6 begin with it
LEGACY_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."


def read_old_torch(file: BinaryIO) -> Content:
    """A file from before PyTorch 1.6: five pickles, then the storages.

    Each storage is its number of values, then the values.
    """
    seen = Seen()
    _, version, system, state, keys = (unpickle(file, seen) for _ in range(5))
    if version != 1001 or system.get("little_endian") is not True or type(keys) is not list:
        raise Unreadable("is damaged, or holds big-endian numbers.")
    found = {}
    for key in keys:
        if type(key) is not str or key not in seen.storages:
            raise Unreadable("is damaged: a storage belongs to no tensor.")
        count = seen.storages[key].length
        size = np.dtype(width(seen.storages[key].dtype)).itemsize
        if struct.unpack("<q", file.read(8)) != (count,):
            raise Unreadable("is damaged: a storage has another size than its tensor declares.")
        found[key] = file.read(count * size)
        if len(found[key]) != count * size:
            raise Unreadable("is cut or damaged: a storage is incomplete.")
    return tensors(state, seen, lambda storage: found[storage.key])
