"""The parts that all readers share: checks of names, shapes and numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from common.formats.flow import Steps
from common.weights import Weights

LARGEST = 2**30  #: bytes of a file, ten times the largest GoogLeNet in float64

MOST_TENSORS = 10_000  #: in a file; a GoogLeNet has a few hundred

DEEPEST = 16  #: dicts or groups inside each other

NUMPY_TYPES = {
    **{"f2": "float16", "f4": "float32", "f8": "float64", "u2": "uint16"},
    **{"i4": "int32", "i8": "int64", "u1": "uint8", "i1": "int8", "b1": "bool"},
}  #: the plain numbers, as NumPy's files name them

LONGEST_NAME = 200  #: characters, all of them printable, so that a message can contain the name

FLOATS = ("float16", "bfloat16", "float32", "float64")

#: how the name of a layer's tensor ends
WEIGHT = re.compile(r"(?:^|[./])(?:weight|kernel|bias|gamma|beta|[wb]_\d+|vars/\d+)$")

#: how PyTorch names the parts of a weight that it computes from others, and what ends that
PARAMETRIZED = re.compile(r"\b(?:weight|bias)_(mask|g|u)$|\.(parametrizations)\.")
REMOVED_BY = {
    "mask": "torch.nn.utils.prune.remove(layer, 'weight')",
    "g": "torch.nn.utils.remove_weight_norm(layer)",
    "u": "torch.nn.utils.remove_spectral_norm(layer)",
    "parametrizations": "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')",
}

#: what to do about a tensor that is not read, by its kind
WAYS = {
    **dict.fromkeys(
        ("int8", "uint8"),
        "it is quantised; save the network's weights in floating point, before it is quantised.",
    ),
    "'torch.storage._load_from_bytes'": "write the file with `torch.save(net.state_dict(), FILE)`.",
}
OTHERWISE = "save only the network's state_dict, its weights as floating-point numbers."

#: types of values that are no tensors, as counters, losses and texts
PLAIN = {str, bytes, bool, int, float, list, tuple, type(None)}


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
    unread: str = ""  #: why a layer's tensor could not be used, if one could not, as in Unreadable
    steps: Steps | None = None  #: what the graph computes, if the file has one


class Opaque:
    """A value that is not read: `kind` says what it is."""

    def __init__(self, kind: str = "something that is not an array") -> None:
        self.kind = kind


@dataclass(frozen=True)
class Content:
    """What a reader found: arrays in dicts, and what it could not build."""

    tensors: Mapping[Any, Any]
    eps: float | None = None
    classes: list[str] = field(default_factory=list)  #: the file asks for them; none was imported
    beside: int = 0  #: bytes of a second file that belongs to this one, or of what was unpacked
    scales: str = ""  #: what the network does with its images before the first layer
    steps: Steps | None = None  #: what the graph computes, if the file has one


Reader = Callable[[BinaryIO], Content]


def numbers(form: str, content: Content, size: int) -> File:
    """Check a reader's result; half precision becomes float32, which is exact.

    `size` is the size of the file in bytes. Whatever is not a floating-point array with an axis
    belongs to no layer and is left out: counters, losses, texts. Unreadable if no array is left, or
    if the arrays have more values than the file has room for.
    """
    arrays: dict[str, np.ndarray] = {}
    kinds, odd, unread = [], "", ""
    for name, value in flat(content.tensors):
        value = getattr(value, "array", value)  # what a pickle builds
        if isinstance(value, np.ndarray):
            require_name(name)
            if value.dtype == np.uint16 and form == "paddle":
                value = bfloat16(value)  # Paddle stores bfloat16 as uint16
            kind = "bfloat16" if isinstance(value, Bfloat16) else value.dtype.name
            large = value.ndim > 1
        else:
            large = isinstance(value, Opaque)
            kind = value.kind if isinstance(value, Opaque) else Opaque().kind
        if kind not in FLOATS:
            left_out = f"holds {kind} under {name!r:.100}: {WAYS.get(kind, OTHERWISE)}"
            odd = odd or left_out
            if large and WEIGHT.search(name):
                unread = unread or left_out
        elif value.ndim and name not in arrays:
            kinds.append(kind)
            wide = kind if kind == "float64" else "float32"
            arrays[name] = value.view(np.ndarray).astype(wide, copy=False)
            if found := PARAMETRIZED.search(name):
                unread = unread or (
                    f"has {name!r:.100}: call `{REMOVED_BY[found[1] or found[2]]}` for each such "
                    "layer, then save the state_dict again."
                )
    if not arrays:
        if content.classes and not unread:
            raise asks(content.classes[0])
        raise Unreadable(unread or odd or "holds no arrays: save only the network's state_dict.")
    room = 2 * (size + content.beside)  # twice, because float16 became float32
    if sum(array.nbytes for array in arrays.values()) > room:
        raise Unreadable("declares more values than it has room for: its tensors overlap.")
    stored = ", ".join(dict.fromkeys(kinds))
    return File(form, arrays, stored, content.eps, content.scales, unread, content.steps)


def asks(name: str) -> Unreadable:
    """The refusal of a pickle that asks for a class or function."""
    return Unreadable(
        f"asks for {name[:60]!a}, which no array needs, so it was not read: save only the "
        "network's state_dict."
    )


def flat(tree: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """The values in nested dicts by name; the keys are joined by dots.

    Several networks may be in a list, or under whole numbers, at the top. Elsewhere a dict in a
    list or under a key that is not text is left out: the state of an optimizer is one. A dict that
    occurs twice is read once, so a dict may contain itself.
    """
    lists = {id(each): each for each in tree.values() if type(each) is list}
    networks = {  # each list once, because many keys may share one
        number: {str(at): one for at, one in enumerate(each) if isinstance(one, dict)}
        for number, each in lists.items()
    }
    seen, tensors = {id(tree)}, 0
    todo: list[tuple[str, Iterator[tuple[Any, Any]]]] = [("", iter(tree.items()))]
    while todo:
        prefix, items = todo[-1]
        for key, value in items:
            if len(todo) == 1:
                if type(key) is int and isinstance(value, dict):
                    key = str(key)
                if key != "param_groups":  # an optimizer's
                    value = networks.get(id(value)) or value
            if type(key) is not str:
                continue
            if not isinstance(value, dict):
                tensors += type(value) not in PLAIN
                require_few(tensors)
                yield prefix + key, value
            elif id(value) not in seen and len(todo) <= DEEPEST:
                require_name(key)
                seen.add(id(value))
                todo.append((f"{prefix}{key}.", iter(value.items())))
                break
        else:
            todo.pop()


def require_few(count: int) -> None:
    """Unreadable if a file has more than MOST_TENSORS tensors."""
    if count > MOST_TENSORS:
        raise Unreadable(f"has more than {MOST_TENSORS:,} tensors: no GoogLeNet has so many.")


def require_name(name: object) -> None:
    """Unreadable unless the name is short printable text, valid in a safetensors file.

    No control character, and none that changes the direction of text, is printable.
    """
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or name == "__metadata__":
        raise Unreadable(f"has a tensor whose name cannot be used ({type(name).__name__}).")
    if not name.isprintable():
        raise Unreadable(f"names a tensor {name[:20]!a}...: names are printable characters.")


class Bfloat16(np.ndarray):
    """float32 values that a file stores as bfloat16."""


def bfloat16(bits: np.ndarray) -> np.ndarray:
    """bfloat16 bits as float32 values: a bfloat16 is the upper half of a float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32).view(Bfloat16)


def width(dtype: str) -> str:
    """A NumPy dtype with the width of this one."""
    return "uint16" if dtype == "bfloat16" else dtype


def array_of(data: bytes, dtype: str, shape: Any, order: Any = "<") -> np.ndarray:
    """An array of `shape` from `data`; dtype may be bfloat16, `order` is NumPy's byte order.

    Unreadable if the shape is invalid or `data` is too short.
    """
    require_shape(shape)
    plain = np.dtype(width(dtype)).newbyteorder(order)
    count = math.prod(shape)
    if count * plain.itemsize > len(data):
        raise Unreadable(f"is cut or damaged: a tensor of shape {list(shape)} is incomplete.")
    flat = np.frombuffer(data, plain, count)
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
