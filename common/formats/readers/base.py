"""What all readers of weight files share: checked names, shapes and numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from common.weights import Weights

LARGEST = 2**30  #: bytes of a file; GoogLeNet's largest in float64 are a tenth of it

LONGEST_NAME = 200  #: characters; they are printable ASCII, so that a sentence can hold them


class Unreadable(Exception):
    """What is wrong with a file, as the end of a sentence that begins with its name."""


@dataclass(frozen=True)
class File:
    """What a file of weights holds."""

    format: str  #: a key of TITLES
    arrays: Weights  #: float32 or float64, all of one kind, by the file's own names and layouts
    stored: str  #: the kinds of numbers in the file, such as `float16`


Reader = Callable[[BinaryIO], dict[Any, Any]]


def numbers(form: str, found: dict[Any, Any], size: int) -> File:
    """Arrays of one floating kind by printable names; `size` is the file's, in bytes."""
    arrays: dict[str, np.ndarray] = {}
    kinds = []
    for name, value in found.items():
        require_name(name)
        if not isinstance(value, np.ndarray):
            raise Unreadable(
                f"holds something that is no array under {name!r}: save the network's state_dict, "
                "or its weights, alone."
            )
        if form in ("torch", "safetensors") and name.endswith("num_batches_tracked"):
            continue  # a count that PyTorch keeps beside the running statistics
        if value.dtype == np.uint16 and form == "paddle":
            value = bfloat16(value)  # which is how Paddle stores them
        kind = "bfloat16" if isinstance(value, Bfloat16) else value.dtype.name
        if kind not in ("float16", "bfloat16", "float32", "float64"):
            raise Unreadable(f"holds {kind} under {name!r}: weights are floating-point numbers.")
        kinds.append(kind)
        arrays[name] = value.view(np.ndarray)
    if not arrays:
        raise Unreadable("holds no arrays.")
    if sum(array.nbytes for array in arrays.values()) > 2 * size:  # twice: half precision, widened
        raise Unreadable("claims more values than it has room for: its tensors overlap.")
    wide = "float64" if "float64" in kinds else "float32"
    arrays = {name: array.astype(wide) for name, array in arrays.items()}
    return File(form, arrays, ", ".join(dict.fromkeys(kinds)))


def require_name(name: object) -> None:
    """Names are text that can stand in a sentence, and in a safetensors file."""
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or name == "__metadata__":
        raise Unreadable(f"names a tensor with something that is no name ({type(name).__name__}).")
    if not (name.isascii() and name.isprintable()):
        raise Unreadable(f"names a tensor {name[:20]!a}...: names are printable ASCII.")


class Bfloat16(np.ndarray):
    """float32 values that a file holds as bfloat16."""


def bfloat16(bits: np.ndarray) -> np.ndarray:
    """The values whose upper 16 bits these are: a bfloat16 is the first half of a float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32).view(Bfloat16)


def width(dtype: str) -> str:
    """A NumPy dtype as wide as this one."""
    return "uint16" if dtype == "bfloat16" else dtype


def array_of(data: bytes, dtype: str, shape: Any, offset: int = 0) -> np.ndarray:
    """`shape` values out of `data`, from the value `offset` on; dtype may be bfloat16.

    Unreadable where the shape makes no sense or the bytes are not there.
    """
    require_shape(shape)
    require_whole(offset)
    plain = np.dtype(width(dtype)).newbyteorder("<")
    count = math.prod(shape)
    if (offset + count) * plain.itemsize > len(data):
        raise Unreadable(f"is cut or damaged: a tensor of shape {list(shape)} is not all there.")
    flat = np.frombuffer(data, plain, count, offset * plain.itemsize)
    flat = flat.astype(plain.newbyteorder("="), copy=False).reshape(shape)
    return bfloat16(flat) if dtype == "bfloat16" else flat


def require_whole(*values: object) -> None:
    """Unreadable unless all are whole numbers from 0 on."""
    if not all(type(value) is int and value >= 0 for value in values):
        raise Unreadable("is damaged: a shape is not made of whole numbers.")


def require_shape(shape: Any) -> None:
    """Unreadable unless it is a list or tuple of a few whole numbers, each with room in memory."""
    require_whole(len(shape), *shape[:9])
    if len(shape) > 8 or any(not 0 < length <= LARGEST for length in shape):
        raise Unreadable("is damaged, or holds a tensor that is empty or has too many axes.")
