"""Reads the `.pdparams` files that paddle.save writes."""

from __future__ import annotations

from typing import Any, BinaryIO

from common.formats.readers.base import Unreadable
from common.formats.readers.pickles import Empty, unpickle


def read_paddle(file: BinaryIO) -> dict[Any, Any]:
    """The state_dict that `paddle.save` writes: a pickle of NumPy arrays."""
    state = unpickle(file)
    if file.read(1):
        raise Unreadable("is damaged: there are extra bytes after its pickle.")
    if type(state) is not dict:
        raise Unreadable("holds no dict of arrays: save the layer's state_dict.")
    state.pop("StructuredToParameterName@@", None)  # Paddle's own names for the same tensors
    return {
        name: value.array if isinstance(value, Empty) else value for name, value in state.items()
    }
