"""Reads Paddle's exported networks: `.pdiparams`, whose names are in the program beside it.

`paddle.jit.save` writes the parameters without names, in the order of their sorted names. The names
are in `.pdmodel` (a protocol buffer) or, since Paddle 3, in `.json`. Sources: framework.proto and
SerializeToStream in paddle/fluid/framework/lod_tensor.cc of PaddlePaddle/Paddle.
"""

from __future__ import annotations

import io
import json
import math
import re
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from common.formats.readers.base import (
    Content,
    Unreadable,
    array_of,
    require_few,
    require_shape,
    width,
)
from common.formats.readers.protobuf import Message

LONGEST_PROGRAM = 10**8  #: bytes
TYPES = {0: "bool", 2: "int32", 3: "int64", 4: "float16", 5: "float32", 6: "float64"}
TYPES |= {20: "uint8", 21: "int8", 22: "bfloat16"}
#: the first bytes: version 0, no level of detail, version 0 of the tensor
START = bytes(4) + bytes(8) + bytes(4)
PARAMETER = re.compile(r"[\w.]+_\d+\.[wb]_\d+")


def read_parameters(path: Path) -> Content:
    """The parameters of a `.pdiparams` file by the names of the program beside it."""
    names = names_of(path)
    arrays = list[np.ndarray]()
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        while file.tell() < size:
            require_few(len(arrays) + 1)
            arrays.append(tensor(file, size))
    if len(arrays) != len(names):
        raise Unreadable(
            f"holds {len(arrays)} parameters, and the program beside it names {len(names)}: they "
            "are not of one network."
        )
    return Content(dict(zip(names, arrays, strict=True)))


def names_of(path: Path) -> list[str]:
    """The sorted names of the parameters in the program beside a `.pdiparams` file."""
    for suffix, read in ((".pdmodel", names_in_protobuf), (".json", names_in_json)):
        program = path.with_suffix(suffix)
        if program.is_file():
            if program.stat().st_size > LONGEST_PROGRAM:
                raise Unreadable("has a program beside it that is too large.")
            return sorted(read(program.read_bytes()))
    raise Unreadable(
        "holds the parameters of an exported Paddle network without their names: put its .pdmodel "
        "or .json file beside it."
    )


def names_in_protobuf(data: bytes) -> set[str]:
    """The names of the parameters in a `.pdmodel` file: its persistable tensors."""
    found = set()
    for block in Message(data).messages(1):
        for variable in block.messages(3):
            if variable.whole(3)[:1] == [1] and variable.text(1) not in ("feed", "fetch"):
                found.add(variable.text(1))
    return found


def names_in_json(data: bytes) -> set[str]:
    """The names of the parameters in a program of Paddle 3."""
    found, todo = set(), [json.loads(data)]
    while todo:
        one = todo.pop()
        if isinstance(one, str) and PARAMETER.fullmatch(one):
            found.add(one)
        elif isinstance(one, dict):
            todo += one.values()
        elif isinstance(one, list):
            todo += one
    return found


def tensor(file: BinaryIO, size: int) -> np.ndarray:
    """The next tensor: the versions, a description and the values."""
    if file.read(len(START)) != START:
        raise Unreadable("is damaged, or of an older Paddle.")
    (length,) = struct.unpack("<i", file.read(4))
    if not 0 <= length <= 1000:
        raise Unreadable("is damaged: the description of a parameter is too long.")
    described = Message(file.read(length))
    kind, shape = (described.whole(1) or [-1])[0], described.whole(2)
    require_shape(shape)
    if kind not in TYPES:
        raise Unreadable(f"is damaged: Paddle has no type {kind}.")
    count = math.prod(shape) * np.dtype(width(TYPES[kind])).itemsize
    if count > size - file.tell():
        raise Unreadable("is cut or damaged: a parameter is incomplete.")
    array: Any = array_of(file.read(count), TYPES[kind], shape)
    return array  # type: ignore[no-any-return]
