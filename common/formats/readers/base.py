"""The parts that all readers share: checks of names, shapes and numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from common.weights import Weights

LARGEST = 2**30  #: bytes of a file, ten times the largest GoogLeNet in float64

MOST_TENSORS = 10_000  #: in a file; a GoogLeNet has a few hundred

DEEPEST = 16  #: dicts or groups inside each other

NUMPY_TYPES = {
    **{"f2": "float16", "f4": "float32", "f8": "float64", "u2": "uint16"},
    **{"i4": "int32", "i8": "int64", "u1": "uint8", "i1": "int8", "b1": "bool"},
}  #: the plain numbers, as NumPy's files name them

LONGEST_NAME = (
    200  #: characters, all of them printable ASCII, so that a message can contain the name
)


class Unreadable(Exception):
    """A file cannot be read. The message is the end of a sentence that begins with its name."""


@dataclass(frozen=True)
class File:
    """The content of a weight file.

    A name begins with the keys of the dicts around the tensor, joined by dots.
    """

    format: str  #: a key of TITLES
    arrays: Weights  #: each float32 or float64, with the file's own names and layouts
    stored: str  #: the dtypes in the file, such as `float16`
    eps: float | None = None  #: of the norms, if the file records it
    scales: str = ""  #: what the network does with its images before the first layer


@dataclass(frozen=True)
class Content:
    """What a reader found: arrays in dicts, and what it could not build."""

    tensors: Mapping[Any, Any]
    eps: float | None = None
    classes: list[str] = field(default_factory=list)  #: the file asks for them; none was imported
    beside: int = 0  #: bytes of a second file that belongs to this one
    scales: str = ""  #: what the network does with its images before the first layer


Reader = Callable[[BinaryIO], Content]


def numbers(form: str, content: Content, size: int) -> File:
    """Check a reader's result; half precision becomes float32, which is exact.

    `size` is the size of the file in bytes. Whatever is not a floating-point array with an axis
    belongs to no layer and is left out: counters, losses, texts. Unreadable if no array is left, if
    weights are quantised, or if the arrays have more values than the file has room for.
    """
    arrays: dict[str, np.ndarray] = {}
    kinds, odd = [], ""
    for name, value in flat(content.tensors):
        value = getattr(value, "array", value)  # what a pickle builds
        if not isinstance(value, np.ndarray):
            odd = odd or f"holds something that is not an array under {name!r:.100}"
            continue
        require_name(name)
        if value.dtype == np.uint16 and form == "paddle":
            value = bfloat16(value)  # Paddle stores bfloat16 as uint16
        kind = "bfloat16" if isinstance(value, Bfloat16) else value.dtype.name
        if kind in ("int8", "uint8") and value.ndim > 1:
            raise Unreadable(
                f"holds {kind} under {name!r}: it is quantised; save the network's weights in "
                "floating point, before it is quantised."
            )
        if kind not in ("float16", "bfloat16", "float32", "float64"):
            odd = f"holds {kind} under {name!r:.100}: weights are floating-point numbers"
        elif value.ndim and name not in arrays:
            kinds.append(kind)
            wide = kind if kind == "float64" else "float32"
            arrays[name] = value.view(np.ndarray).astype(wide, copy=False)
    if not arrays:
        if content.classes:
            raise asks(content.classes[0])
        end = "." if ":" in odd else ": save only the network's state_dict."
        raise Unreadable(f"{odd or 'holds no arrays'}{end}")
    room = 2 * (size + content.beside)  # twice, because float16 became float32
    if sum(array.nbytes for array in arrays.values()) > room:
        raise Unreadable("declares more values than it has room for: its tensors overlap.")
    return File(form, arrays, ", ".join(dict.fromkeys(kinds)), content.eps, content.scales)


def asks(name: str) -> Unreadable:
    """The refusal of a pickle that asks for a class or function."""
    return Unreadable(
        f"asks for {name[:60]!a}, which no array needs, so it was not read: save only the "
        "network's state_dict."
    )


def flat(tree: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """The values in nested dicts by name; the keys are joined by dots.

    A dict under a key that is not text is left out: the state of an optimizer is one. A dict that
    occurs twice is read once, so a dict may contain itself.
    """
    seen, count, values = {id(tree)}, 0, 0
    todo: list[tuple[str, int, Iterator[tuple[Any, Any]]]] = [("", 0, iter(tree.items()))]
    while todo:
        prefix, depth, items = todo[-1]
        for key, value in items:
            count += 1
            require_few(count, 10)
            if type(key) is not str:
                continue
            if not isinstance(value, dict):
                values += 1
                require_few(values)
                yield prefix + key, value
            elif id(value) not in seen and depth < DEEPEST:
                require_name(key)
                seen.add(id(value))
                todo.append((f"{prefix}{key}.", depth + 1, iter(value.items())))
                break
        else:
            todo.pop()


def require_few(count: int, times: int = 1) -> None:
    """Unreadable if a file has more than MOST_TENSORS tensors."""
    if count > times * MOST_TENSORS:
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
