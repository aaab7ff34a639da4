"""The parts that all readers share: checks of names, shapes and numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from common.weights import Weights

LARGEST = 2**30  #: bytes of a file, ten times the largest GoogLeNet in float64

MOST_TENSORS = 10_000  #: in a file; a GoogLeNet has a few hundred

LONGEST_NAME = (
    200  #: characters, all of them printable ASCII, so that a message can contain the name
)


class Unreadable(Exception):
    """A file cannot be read. The message is the end of a sentence that begins with its name."""


@dataclass(frozen=True)
class File:
    """The content of a weight file."""

    format: str  #: a key of TITLES
    arrays: Weights  #: all float32 or all float64, with the file's own names and layouts
    stored: str  #: the dtypes in the file, such as `float16`


Reader = Callable[[BinaryIO], dict[Any, Any]]


def numbers(form: str, found: dict[Any, Any], size: int) -> File:
    """Check a reader's result and make all arrays float32 or float64.

    `size` is the size of the file in bytes. Unreadable if something is not an array of
    floating-point numbers, or if the arrays have more values than the file has room for.
    """
    require_few(len(found))
    arrays: dict[str, np.ndarray] = {}
    kinds = []
    for name, value in found.items():
        require_name(name)
        if not isinstance(value, np.ndarray):
            raise Unreadable(
                f"holds something that is not an array under {name!r}: save only the network's "
                "state_dict or weights."
            )
        if form in ("torch", "safetensors") and name.endswith("num_batches_tracked"):
            continue  # PyTorch stores this count with the running statistics
        if value.dtype == np.uint16 and form == "paddle":
            value = bfloat16(value)  # Paddle stores bfloat16 as uint16
        kind = "bfloat16" if isinstance(value, Bfloat16) else value.dtype.name
        if kind not in ("float16", "bfloat16", "float32", "float64"):
            raise Unreadable(f"holds {kind} under {name!r}: weights are floating-point numbers.")
        kinds.append(kind)
        arrays[name] = value.view(np.ndarray)
    if not arrays:
        raise Unreadable("holds no arrays.")
    if (
        sum(array.nbytes for array in arrays.values()) > 2 * size
    ):  # twice, because float16 became float32
        raise Unreadable("declares more values than it has room for: its tensors overlap.")
    wide = "float64" if "float64" in kinds else "float32"
    arrays = {name: array.astype(wide, copy=False) for name, array in arrays.items()}
    return File(form, arrays, ", ".join(dict.fromkeys(kinds)))


def require_few(count: int) -> None:
    """Unreadable if a file has more than MOST_TENSORS tensors."""
    if count > MOST_TENSORS:
        raise Unreadable(f"has more than {MOST_TENSORS:,} tensors: no GoogLeNet has so many.")


def require_name(name: object) -> None:
    """Unreadable unless the name is short printable ASCII text, valid in a safetensors file."""
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or name == "__metadata__":
        raise Unreadable(f"has a tensor whose name cannot be used ({type(name).__name__}).")
    if not (name.isascii() and name.isprintable()):
        raise Unreadable(f"names a tensor {name[:20]!a}...: names are printable ASCII.")


class Bfloat16(np.ndarray):
    """float32 values that a file stores as bfloat16."""


def bfloat16(bits: np.ndarray) -> np.ndarray:
    """bfloat16 bits as float32 values: a bfloat16 is the upper half of a float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32).view(Bfloat16)


def width(dtype: str) -> str:
    """A NumPy dtype with the width of this one."""
    return "uint16" if dtype == "bfloat16" else dtype


def array_of(data: bytes, dtype: str, shape: Any, offset: int = 0) -> np.ndarray:
    """An array of `shape` from `data`, starting at value `offset`; dtype may be bfloat16.

    Unreadable if the shape is invalid or `data` is too short.
    """
    require_shape(shape)
    require_whole(offset)
    plain = np.dtype(width(dtype)).newbyteorder("<")
    count = math.prod(shape)
    if (offset + count) * plain.itemsize > len(data):
        raise Unreadable(f"is cut or damaged: a tensor of shape {list(shape)} is incomplete.")
    flat = np.frombuffer(data, plain, count, offset * plain.itemsize)
    flat = flat.astype(plain.newbyteorder("="), copy=False).reshape(shape)
    return bfloat16(flat) if dtype == "bfloat16" else flat


def require_whole(*values: object) -> None:
    """Unreadable unless all are whole numbers of at least 0."""
    if not all(type(value) is int and value >= 0 for value in values):
        raise Unreadable("is damaged: a shape is not made of whole numbers.")


def require_shape(shape: Any) -> None:
    """Unreadable unless it is a list or tuple of at most 8 whole numbers from 1 to LARGEST."""
    require_whole(len(shape), *shape[:9])
    if len(shape) > 8 or any(not 0 < length <= LARGEST for length in shape):
        raise Unreadable("is damaged, or holds a tensor that is empty or has too many axes.")
