"""Reads the pickles of NumPy arrays that paddle.save and Python's own `pickle` write."""

from __future__ import annotations

from typing import BinaryIO

from common.formats.readers.base import Content, Unreadable, asks
from common.formats.readers.pickles import Seen, unpickle


def read_paddle(file: BinaryIO) -> Content:
    """The dict that `paddle.save` writes, of arrays and of dicts of arrays."""
    seen = Seen()
    state = unpickle(file, seen)
    if file.read(1):
        raise Unreadable("is damaged: there are extra bytes after its pickle.")
    if type(state) is not dict:
        if seen.classes:
            raise asks(seen.classes[0])
        raise Unreadable("holds no dict of arrays: save the layer's state_dict.")
    return Content(state, classes=seen.classes)
