"""A restricted interpreter for pickles that can only build arrays.

It never imports or calls anything that a pickle names: the functions in CALLS run instead. An
object of any other class becomes `Opaque`, whatever is done to it. So a checkpoint with an
optimizer, a configuration or a scheduler is read for its arrays. A file that asks for a function of
MALICIOUS is refused whole. Source of the operations: `pickletools` and `pickle` of Python's
standard library.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from common.formats.readers.base import (
    NUMPY_TYPES,
    Opaque,
    Unreadable,
    array_of,
    asks,
    require_shape,
    require_whole,
)


class Name(NamedTuple):
    """The name of a global in a pickle; it is never imported."""

    module: str
    name: str


class Storage(NamedTuple):
    """A PyTorch storage: the key of its bytes, their dtype and the number of values."""

    key: str
    dtype: str
    length: int


class Tensor(NamedTuple):
    """A PyTorch tensor in a storage; shape and strides count values."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


OPAQUE = Opaque()  #: an object that is not built; its class was not imported


@dataclass
class Seen:
    """What a pickle mentions: its storages by key, and the classes that were not imported."""

    storages: dict[str, Storage] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)


class Dtype:
    """A NumPy dtype; a later BUILD operation gives its byte order."""

    def __init__(self, code: str) -> None:
        self.name, self.order = NUMPY_TYPES[code], "<"

    def build(self, state: Any) -> None:
        """Set the byte order; Unreadable unless this is the state of a plain number."""
        order, *more = tuple(state)[1:5]
        if order not in ("<", ">", "|") or more != [None] * 3:
            raise Unreadable("is damaged: a type of numbers is none.")
        self.order = order


class Empty:
    """A NumPy array; a later BUILD operation gives its content."""

    array: np.ndarray | Opaque = OPAQUE

    def build(self, state: Any) -> None:
        """Set shape, dtype, order and bytes."""
        _, shape, dtype, fortran, data = state
        self.array = from_buffer(data, dtype, shape, "F" if fortran else "C")
        if isinstance(self.array, np.ndarray) and self.array.nbytes != len(data):
            raise Unreadable("is damaged: an array has more bytes than values.")


TORCH_TYPES = {
    Name("torch", f"{kind}Storage"): dtype
    for kind, dtype in {
        **{"Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16"},
        **{"Long": "int64", "Int": "int32", "Byte": "uint8", "Char": "int8", "Bool": "bool"},
    }.items()
}
ARRAY = Name("numpy", "ndarray")


def rebuild_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, gradient: Any, hooks: Any, *more: Any
) -> Tensor | Opaque:
    """`torch._utils._rebuild_tensor_v2`; a tensor without a value belongs to no layer."""
    if isinstance(storage, Opaque):
        return storage
    if type(shape) is tuple and 0 in shape[:9]:
        return OPAQUE
    if not isinstance(storage, Storage) or type(shape) is not tuple or type(strides) is not tuple:
        raise Unreadable("is damaged: a tensor has no storage.")
    require_shape(shape)
    require_whole(offset, len(strides), *strides[:9])
    return Tensor(storage, offset, shape, strides)


def rebuild_other_tensor(*arguments: Any) -> Opaque:
    """`torch._utils._rebuild_tensor_v3`, for types without a storage of their own, as float8."""
    return next((each for each in arguments[6:] if isinstance(each, Opaque)), OPAQUE)


def rebuild_parameter(tensor: Any, gradient: Any, hooks: Any) -> Any:
    """`torch._utils._rebuild_parameter`."""
    return tensor


def rebuild_from_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """`torch._tensor._rebuild_from_type_v2`, for a tensor with attributes of its own."""
    if not isinstance(function, Name) or function not in CALLS or type(arguments) is not tuple:
        return OPAQUE
    return CALLS[function](*arguments)


def ordered(items: Any = ()) -> dict[Any, Any]:
    """`OrderedDict`, empty or of a list of pairs."""
    found: dict[Any, Any] = {}
    if type(items) in (list, tuple):
        update(found, [each for pair in items if type(pair) in (list, tuple) for each in pair[:2]])
    return found


def dtype_of(code: Any, align: Any = False, copy: Any = True) -> Dtype | Opaque:
    """NumPy's `dtype`; texts, dates, objects, records and so on are left out."""
    if type(code) is not str:
        return OPAQUE
    return Dtype(code) if code in NUMPY_TYPES else Opaque(f"NumPy's type {code[:9]!a}")


def from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray | Opaque:
    """NumPy's `_frombuffer`, which protocol 5 uses; an array without a value is left out."""
    if isinstance(dtype, Opaque):
        return dtype
    if not isinstance(dtype, Dtype) or type(shape) is not tuple or order not in ("C", "F"):
        raise Unreadable("is damaged: an array has no type or no shape.")
    if 0 in shape[:9] or type(data) is not bytes:
        return OPAQUE
    array = array_of(data, dtype.name, shape[::-1] if order == "F" else shape, dtype.order)
    return array.T if order == "F" else array


def reconstruct(kind: Any, shape: Any, code: Any) -> Empty | Opaque:
    """NumPy's `_reconstruct`."""
    return Empty() if kind == ARRAY else OPAQUE


def to_bytes(text: Any, code: Any) -> bytes:
    """`_codecs.encode`, which protocol 2 uses for bytes."""
    if type(text) is not str or code != "latin1":
        raise Unreadable("encodes bytes in an unknown way.")
    return text.encode("latin1")


def named_tensor(pair: Any = ()) -> Any:
    """`tuple` of a name and an array: a tensor in a dict of Paddle that holds other dicts."""
    named = type(pair) is tuple and len(pair) == 2 and type(pair[0]) is str
    return pair[1] if named else OPAQUE


#: what a pickle may call, and the function that runs instead
CALLS: dict[Name, Callable[..., Any]] = {
    Name("collections", "OrderedDict"): ordered,
    Name("collections", "defaultdict"): lambda *factory: {},
    Name("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    Name("torch._utils", "_rebuild_tensor_v3"): rebuild_other_tensor,
    Name("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    Name("torch._tensor", "_rebuild_from_type_v2"): rebuild_from_type,
    Name("numpy.core.numeric", "_frombuffer"): from_buffer,
    Name("numpy._core.numeric", "_frombuffer"): from_buffer,
    Name("numpy.core.multiarray", "_reconstruct"): reconstruct,
    Name("numpy._core.multiarray", "_reconstruct"): reconstruct,
    Name("numpy", "dtype"): dtype_of,
    Name("_codecs", "encode"): to_bytes,
    Name("builtins", "tuple"): named_tensor,
    Name("__builtin__", "tuple"): named_tensor,  # the same in protocol 2
}
#: what a pickle may name
NAMES = {*CALLS, ARRAY, *TORCH_TYPES}
#: modules of functions that a file of weights asks for only to do harm, and such built-in functions
MALICIOUS = {
    *("os", "posix", "nt", "subprocess", "sys", "shutil", "socket", "runpy", "importlib", "pty"),
    *("ctypes", "_ctypes", "commands", "platform", "webbrowser", "pickle", "code", "io", "_io"),
    *(
        f"{module}.{name}"
        for module in ("builtins", "__builtin__")
        for name in (
            "eval",
            "exec",
            "execfile",
            "compile",
            "open",
            "__import__",
            "breakpoint",
            "input",
        )
    ),
}
#: what else is refused, and the reason
REFUSED = {
    "_rebuild_qtensor": "is quantised: save the network's weights before it is quantised.",
    "UninitializedParameter": "holds lazy layers without weights: save the network after its first "
    "forward pass.",
}

#: a GoogLeNet's state_dict has about 10,000, and a history one for each number: 1 to 5 seconds
MOST_OPERATIONS = 1_000_000

MARK = object()
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}


def unpickle(file: BinaryIO, seen: Seen | None = None) -> Any:
    """The value of a pickle; `seen` collects what it mentions.

    `pickletools` splits the bytes into operations. Unreadable for an operation that is not listed
    below, for a name of MALICIOUS or REFUSED, and for more than MOST_OPERATIONS.
    """
    seen = seen or Seen()
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def above_mark() -> list[Any]:
        at = next(at for at in range(len(stack) - 1, -1, -1) if stack[at] is MARK)
        items = stack[at + 1 :]
        del stack[at:]
        return items

    argument: Any
    for number, (operation, argument, _) in enumerate(pickletools.genops(file)):
        code = operation.name
        if number == MOST_OPERATIONS:
            raise Unreadable(f"has more than {MOST_OPERATIONS:,} operations in its pickle.")
        if code in ("PROTO", "FRAME"):
            pass
        elif code == "STOP":
            break
        elif code in LITERALS:
            stack.append(argument)
        elif code == "BYTEARRAY8":
            stack.append(bytes(argument))
        elif code == "EMPTY_SET":
            stack.append(OPAQUE)
        elif code in ("FROZENSET", "ADDITEMS"):
            above_mark()
            stack[len(stack) - (code == "ADDITEMS") :] = [OPAQUE]
        elif code in CONSTANTS:
            stack.append(CONSTANTS[code])
        elif code == "MARK":
            stack.append(MARK)
        elif code in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif code == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif code in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif code == "EMPTY_TUPLE":
            stack.append(())
        elif code == "TUPLE":
            stack.append(tuple(above_mark()))
        elif code in ("TUPLE1", "TUPLE2", "TUPLE3"):
            items = pop(stack, int(code[-1]))
            stack.append(tuple(items))
        elif code == "EMPTY_LIST":
            stack.append([])
        elif code == "APPEND":
            (item,) = pop(stack, 1)
            extend(stack[-1], [item])
        elif code == "APPENDS":
            items = above_mark()
            extend(stack[-1], items)
        elif code == "EMPTY_DICT":
            stack.append({})
        elif code == "SETITEM":
            items = pop(stack, 2)
            update(stack[-1], items)
        elif code == "SETITEMS":
            items = above_mark()
            update(stack[-1], items)
        elif code == "GLOBAL":
            module, _, name = argument.partition(" ")
            stack.append(resolve_global(module, name, seen))
        elif code == "STACK_GLOBAL":
            module, name = pop(stack, 2)
            stack.append(resolve_global(module, name, seen))
        elif code in ("REDUCE", "NEWOBJ", "NEWOBJ_EX"):
            called, arguments, *_ = pop(stack, 3 if code == "NEWOBJ_EX" else 2)
            stack.append(call(called, arguments))
        elif code == "BUILD":
            (state,) = pop(stack, 1)
            if isinstance(stack[-1], (Empty, Dtype)):
                stack[-1].build(state)
            elif not isinstance(stack[-1], (Opaque, dict)):
                # a dict is PyTorch's state_dict, which has version numbers
                raise Unreadable("builds something that is not an array.")
        elif code == "BINPERSID":
            (identity,) = pop(stack, 1)
            stack.append(stored(identity, seen))
        else:
            raise Unreadable(f"is not a pickle of plain arrays: it has the operation {code}.")
    (value,) = stack
    return value


def call(called: Any, arguments: Any) -> Any:
    """The result of a call: an array or a dict, or an opaque object."""
    if isinstance(called, Opaque):
        return called
    if not isinstance(called, Name) or called not in CALLS or type(arguments) is not tuple:
        raise Unreadable("calls a function that does not build arrays.")
    return CALLS[called](*arguments)


def pop(stack: list[Any], count: int) -> list[Any]:
    """Remove the last `count` items; Unreadable if there are fewer or one is a mark."""
    items = stack[len(stack) - count :]
    if len(items) != count or any(item is MARK for item in items):
        raise Unreadable("is damaged: its pickle takes more values than there are.")
    del stack[len(stack) - count :]
    return items


def extend(target: Any, items: list[Any]) -> None:
    """Append items to a list; an opaque object stays one."""
    if isinstance(target, Opaque):
        return
    if type(target) is not list:
        raise Unreadable("is damaged: its pickle appends to something that is not a list.")
    target.extend(items)


def update(target: Any, items: list[Any]) -> None:
    """Set items of a dict from alternating keys and values; each key only once.

    Only plain keys are kept: the hash of a nested one may take for ever.
    """
    if isinstance(target, Opaque):
        return
    if type(target) is not dict or len(items) % 2:
        raise Unreadable("is damaged: its pickle sets items of something that is not a dict.")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) not in (str, int, float, bool, bytes, type(None)):
            continue
        if key in target and type(key) is str:
            raise Unreadable("is damaged: a key in its pickle occurs twice.")
        target[key] = value


def resolve_global(module: Any, name: Any, seen: Seen) -> Name | Opaque:
    """A global that a pickle names: one that arrays need, or an opaque object."""
    if type(module) is not str or type(name) is not str:  # a nested value takes long to print
        raise Unreadable("is damaged: a name in its pickle is not text.")
    found = Name(module, name)
    if found in NAMES:
        return found
    if (
        MALICIOUS & {module, module.partition(".")[0], f"{module}.{name}"}
        or not name.isidentifier()
    ):
        raise asks(f"{module}.{name}")
    if name in REFUSED:
        raise Unreadable(REFUSED[name])
    if len(seen.classes) < 100:
        seen.classes.append(f"{module}.{name}")
    return Opaque(ascii(f"{module}.{name}"[:60])[:100])


def stored(identity: Any, seen: Seen) -> Storage | Opaque:
    """A storage from its identity in PyTorch's pickles: ('storage', type, key, device, count)."""
    word, kind, key, _, count, *more = identity
    plain = type(word) is type(key) is str and word == "storage" and more in ([], [None])
    if plain and isinstance(kind, Opaque):
        return kind
    if not plain or not isinstance(kind, Name) or kind not in TORCH_TYPES:
        raise Unreadable("is damaged, or holds views of storages: save it again with torch.save.")
    require_whole(count)
    declared = Storage(key, TORCH_TYPES[kind], count)
    if seen.storages.setdefault(declared.key, declared) != declared:
        raise Unreadable("is damaged: a storage has two types or sizes.")
    return declared
