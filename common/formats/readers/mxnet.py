"""Reads MXNet's binary format. Source: NDArray::Load in src/ndarray/ndarray.cc of MXNet 1.9."""

from __future__ import annotations

import math
import struct
from typing import BinaryIO

import numpy as np

from common.formats.readers.base import (
    Content,
    Unreadable,
    array_of,
    require_few,
    require_shape,
    width,
)

MXNET_LIST = 0x112  #: the magic number of a list of arrays
MXNET_MAGICS = (
    0xF993FAC9,
    0xF993FACA,
)  #: the second is used with NumPy shapes, where a shape () is a scalar
MXNET_TYPES = {
    **{0: "float32", 1: "float64", 2: "float16", 3: "uint8", 4: "int32", 5: "int8", 6: "int64"},
    **{7: "bool", 12: "bfloat16"},
}


class Bytes:
    """Bytes that are read from the front; Unreadable if there are not enough."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if not 0 <= count <= len(self.data) - self.at:
            raise Unreadable("is cut or damaged: it ends too early.")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: str) -> int:
        """The next little-endian whole number; `form` is a format character of `struct`."""
        (value,) = struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))
        return int(value)


def read_mxnet(file: BinaryIO) -> Content:
    """Files of `save_parameters`, `mx.nd.save` and `mx.npx.save`: all arrays, then all names.

    `net.export` marks each name as an argument or an auxiliary state (`arg:`, `aux:`).
    """
    data = Bytes(file.read())
    data.take(16)  # the magic number and a reserved number
    count = data.number("Q")
    arrays: list[np.ndarray] = []
    for _ in range(count):
        require_few(len(arrays) + 1)
        arrays.append(mxnet_array(data))
    if data.number("Q") != count:
        raise Unreadable("is a list of MXNet arrays without names: save a dict, or parameters.")
    names = [data.take(data.number("Q")).decode() for _ in range(count)]
    if len(set(names)) != len(names) or data.at != len(data.data):
        raise Unreadable("is damaged: a name occurs twice, or there are extra bytes.")
    names = [name.removeprefix("arg:").removeprefix("aux:") for name in names]
    return Content(dict(zip(names, arrays, strict=True)))


def mxnet_array(data: Bytes) -> np.ndarray:
    """One array: magic, storage, shape, device, type, values."""
    magic, storage = data.number("I"), data.number("i")
    if magic not in MXNET_MAGICS or storage != 0:
        raise Unreadable("holds an MXNet array that is sparse, or older than MXNet 1.0.")
    axes = data.number("i")
    if not 0 <= axes <= 8 or (axes == 0 and magic == MXNET_MAGICS[0]):
        raise Unreadable("is damaged, or holds an MXNet array without a shape.")
    shape = [data.number("q") for _ in range(axes)]
    require_shape(shape)
    data.take(8)  # the device of the array
    kind = data.number("i")
    if kind not in MXNET_TYPES:
        raise Unreadable(f"is damaged: MXNet has no type {kind}.")
    dtype = MXNET_TYPES[kind]
    size = np.dtype(width(dtype)).itemsize
    return array_of(data.take(math.prod(shape) * size), dtype, shape)
