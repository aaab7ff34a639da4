"""Files of weights that others wrote, as named arrays, without any framework and without trust.

A file's format is told by its content. Nothing of it is executed: pickles run on a small machine
that knows arrays, numbers, strings, dicts and lists, and has nothing else to call; archives are
never unpacked; what a header claims is held against the bytes that are there. All of it happens in
a process of its own (`python -m common.foreign FILE`) with little memory and time, since HDF5 is
parsed natively; what comes back is a safetensors file of float32 or float64.

Half-precision values are widened to float32, which is exact; integers are no weights.
"""

from __future__ import annotations

import io
import json
import math
import os
import pickletools
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from common.errors import WeightsError, one_line
from common.weights import KEY, Weights, metadata, sha256

LARGEST = 2**30  #: bytes of a file; GoogLeNet's largest in float64 are a tenth of it
MEMORY = 2**31  #: bytes of address space that the reading process has, and four times the file
SECONDS = 120  #: that it has
LONGEST_NAME = 200  #: characters; they are printable ASCII, so that a sentence can hold them

#: the formats by name, as sentences call them
TITLES = {
    "torch": "a PyTorch state_dict",
    "tf": "Keras weights",
    "mxnet": "MXNet parameters",
    "paddle": "a Paddle state_dict",
    "safetensors": "a safetensors file",
}


class Unreadable(Exception):
    """What is wrong with a file, as the end of a sentence that begins with its name."""


@dataclass(frozen=True)
class File:
    """What a file of weights holds."""

    format: str  #: a key of TITLES
    arrays: Weights  #: float32 or float64, all of one kind, by the file's own names and layouts
    stored: str  #: the kinds of numbers in the file, such as `float16`


def read(path: Path) -> File:
    """The arrays in a file, read in a process of its own; WeightsError if it holds none."""
    require_file(path)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "common.foreign", str(path.absolute())],
            cwd=Path(__file__).parents[1],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise WeightsError(
            f"{path} could not be read in {SECONDS} seconds: it is damaged, or made to last."
        ) from None
    said = done.stderr.decode(errors="replace").splitlines()
    if done.returncode == WeightsError.exit_code and said:
        raise WeightsError(f"{path} {said[-1]}")
    if done.returncode:
        raise WeightsError(
            f"{path} ended the process that read it (status {done.returncode}): it is damaged, or "
            "asks for more memory than its size allows."
        )
    return decode(done.stdout)


def require_file(path: Path) -> None:
    """WeightsError unless there is an ordinary file of a size that weights have."""
    if path.is_dir():
        raise WeightsError(f"{path} is a folder: name the file of weights in it.")
    if not path.is_file():
        raise WeightsError(f"{path} is not there, or is no ordinary file: name a file of weights.")
    if path.stat().st_size > LARGEST:
        raise WeightsError(
            f"{path} holds {path.stat().st_size:,} bytes: the weights of a GoogLeNet have at most "
            f"{LARGEST:,}."
        )


def encode(file: File) -> bytes:
    """A file's content as the bytes of a safetensors file, which is what leaves the process."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array) for name, array in file.arrays.items()}
    return save(arrays, {KEY: json.dumps([file.format, file.stored, list(arrays)])})


def decode(data: bytes) -> File:
    """The inverse of `encode`, with the arrays in the order that they had."""
    from safetensors.numpy import load

    arrays = load(data)
    form, stored, names = json.loads(metadata(data)[KEY])
    return File(form, {name: arrays[name] for name in names}, stored)


# --- in the process that reads


def main() -> None:
    """Read the file that the command line names; its content goes to stdout."""
    import h5py  # noqa: F401  # before the limits: a library that is loaded later counts as well

    path = Path(sys.argv[1])
    limit(path.stat().st_size)
    try:
        data = encode(parse(path))
    except (Unreadable, MemoryError) as error:
        greedy = "asks for more memory than its size allows: it is damaged, or made to do so."
        print(error if isinstance(error, Unreadable) else greedy, file=sys.stderr)
        sys.exit(WeightsError.exit_code)
    sys.stdout.buffer.write(data)


def limit(size: int) -> None:
    """Little memory and time, and no file to be written, where the system has such limits."""
    try:
        import resource
    except ImportError:  # Windows has none
        return
    for what, most in (
        (resource.RLIMIT_AS, MEMORY + 4 * size),
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        try:
            resource.setrlimit(what, (most, most))
        except (OSError, ValueError):  # macOS does not bound the address space
            continue


def parse(path: Path) -> File:
    """The arrays in a file; Unreadable for anything that is not whole and plain."""
    with path.open("rb") as file:
        return parse_open(file, path.suffix)


def parse_open(file: BinaryIO, suffix: str = "") -> File:
    """The same of an open file; its suffix serves for a better sentence alone."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            form, read_as = told(file, suffix)
            file.seek(0)
            return numbers(form, read_as(file), size)
    except (Unreadable, MemoryError):
        raise
    except Exception as error:  # the parsers below us raise of every kind
        reason = ascii(one_line(error) or type(error).__name__)[1:-1]
        raise Unreadable(f"is cut or damaged: {reason[:LONGEST_NAME]}.") from error


Reader = Callable[[BinaryIO], dict[Any, Any]]


def told(file: BinaryIO, suffix: str) -> tuple[str, Reader]:
    """The format of a file by its first bytes, and what reads it."""
    start = file.read(16)
    if start.startswith(b"PK\x03\x04"):
        return "torch", read_torch
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return "tf", read_keras
    if start.startswith(struct.pack("<QQ", MXNET_LIST, 0)):
        return "mxnet", read_mxnet
    if start.startswith(LEGACY_TORCH):
        return "torch", read_old_torch
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04"):
        return "paddle", read_paddle
    if len(start) > 8 and start[8:9] == b"{":
        return "safetensors", read_safetensors
    if not start:
        raise Unreadable("is empty.")
    if suffix == ".onnx":
        raise Unreadable("is no source: ONNX is written here and not read; give what it came from.")
    raise Unreadable(
        "is in none of the formats that are read: PyTorch .pt, Keras .weights.h5, MXNet .params, "
        "Paddle .pdparams, .safetensors."
    )


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


def read_safetensors(file: BinaryIO) -> dict[str, np.ndarray]:
    """The safetensors library checks its own format; bfloat16 it gives to PyTorch alone.

    Of a run's checkpoint these are the weights. A digest that the file names must hold.
    """
    from safetensors import deserialize

    data = file.read()
    named = json.loads(metadata(data).get(KEY, "{}"))
    if "content" in named:
        from common.run import Checkpoint

        return Checkpoint.decode(data).weights
    kinds = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    found = {}
    for name, tensor in deserialize(data):  # type: ignore[no-untyped-call]
        if tensor["dtype"] not in kinds:
            raise Unreadable(
                f"holds {tensor['dtype']!s:.8} under {name!r:.200}: weights are floating-point "
                "numbers."
            )
        found[name] = array_of(bytes(tensor["data"]), kinds[tensor["dtype"]], tensor["shape"])
    if named.get("sha256") not in (None, sha256(found)):
        raise Unreadable("is damaged: its tensors have not the SHA-256 that it names.")
    return found


def read_keras(file: BinaryIO) -> dict[str, np.ndarray]:
    """Every dataset of an HDF5 file by its path; links that lead elsewhere are refused."""
    import h5py

    with h5py.File(file, "r") as root:
        return dict(datasets(root, "", 0))


def datasets(group: Any, prefix: str, depth: int) -> Iterator[tuple[str, np.ndarray]]:
    """The datasets in an HDF5 group and below, stored plainly inside the file."""
    import h5py

    if depth > 16:  # a group may hold itself
        raise Unreadable("is no file of Keras weights: its groups are nested without an end.")
    for name in group:
        require_name(prefix + name)
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise Unreadable(
                f"links {prefix + name!r} to another place or file: weights lie inside."
            )
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from datasets(item, f"{prefix}{name}/", depth + 1)
        elif not isinstance(item, h5py.Dataset):
            raise Unreadable(f"holds something that is no array under {prefix + name!r}.")
        elif item.external or item.is_virtual or item.chunks or item.dtype.kind not in "fiub":
            raise Unreadable(
                f"stores {prefix + name!r} compressed, elsewhere or not as numbers: Keras's "
                "save_weights stores plain arrays."
            )
        elif item.shape is None or item.nbytes > max(item.id.get_storage_size(), 0):
            raise Unreadable(f"is damaged: {prefix + name!r} is not all there.")
        else:
            yield prefix + name, np.asarray(item[()])


# --- MXNet's binary format. Source: NDArray::Load in src/ndarray/ndarray.cc of MXNet 1.9.

MXNET_LIST = 0x112
MXNET_MAGICS = (0xF993FAC9, 0xF993FACA)  #: the second since NumPy's shapes; a shape () is a scalar
MXNET_TYPES = {
    **{0: "float32", 1: "float64", 2: "float16", 3: "uint8", 4: "int32", 5: "int8", 6: "int64"},
    **{7: "bool", 12: "bfloat16"},
}


class Bytes:
    """Bytes that are taken from the front; Unreadable where there are not enough."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if not 0 <= count <= len(self.data) - self.at:
            raise Unreadable("is cut or damaged: it ends before what it announces.")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: str) -> int:
        """The next whole number, in `struct`'s words, little-endian."""
        (value,) = struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))
        return int(value)


def read_mxnet(file: BinaryIO) -> dict[str, np.ndarray]:
    """What `save_parameters`, `mx.nd.save` and `mx.npx.save` write: arrays, then their names."""
    data = Bytes(file.read())
    data.take(16)  # the magic number and a reserved one
    arrays = [mxnet_array(data) for _ in range(data.number("Q"))]
    names = [data.take(data.number("Q")).decode() for _ in range(data.number("Q"))]
    if len(names) != len(arrays):
        raise Unreadable("is a list of MXNet arrays without names: save a dict, or parameters.")
    if len(set(names)) != len(names) or data.at != len(data.data):
        raise Unreadable("is damaged: a name stands twice, or bytes are left over.")
    return dict(zip(names, arrays, strict=True))


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
    data.take(8)  # the device that it was on
    kind = data.number("i")
    if kind not in MXNET_TYPES:
        raise Unreadable(f"is damaged: MXNet has no type {kind}.")
    dtype = MXNET_TYPES[kind]
    size = np.dtype(width(dtype)).itemsize
    return array_of(data.take(math.prod(shape) * size), dtype, shape)


# --- pickles


class Name(NamedTuple):
    """Something that a pickle names, as `pickle` would import it; here it is only a name."""

    module: str
    name: str


class Storage(NamedTuple):
    """A PyTorch storage: where its bytes are found, and what they are."""

    key: str
    dtype: str
    length: int


class Tensor(NamedTuple):
    """A PyTorch tensor in a storage; sizes and strides count values."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Dtype:
    """A NumPy dtype, whose byte order comes after it."""

    def __init__(self, code: object) -> None:
        if not isinstance(code, str) or code not in NUMPY_TYPES:
            raise Unreadable("holds arrays of something that is no plain number.")
        self.name = NUMPY_TYPES[code]

    def build(self, state: Any) -> None:
        """Refuse what is not the state of a plain little-endian number."""
        if tuple(state)[1:5] not in (("<", None, None, None), ("|", None, None, None)):
            raise Unreadable("holds arrays that are not little-endian numbers.")


class Empty:
    """A NumPy array whose content comes after it."""

    array: np.ndarray | None = None

    def build(self, state: Any) -> None:
        """Take over shape, dtype, order and bytes."""
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, Dtype) or type(data) is not bytes or type(shape) is not tuple:
            raise Unreadable("holds arrays of objects.")
        array = array_of(data, dtype.name, shape[::-1] if fortran else shape)
        if array.nbytes != len(data):
            raise Unreadable("is damaged: an array has more bytes than values.")
        self.array = array.T if fortran else array


NUMPY_TYPES = {
    **{"f2": "float16", "f4": "float32", "f8": "float64", "u2": "uint16"},
    **{"i4": "int32", "i8": "int64", "u1": "uint8", "i1": "int8", "b1": "bool"},
}
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
) -> Tensor:
    """`torch._utils._rebuild_tensor_v2`."""
    if not isinstance(storage, Storage) or type(shape) is not tuple or type(strides) is not tuple:
        raise Unreadable("is damaged: a tensor lies in no storage.")
    require_shape(shape)
    require_whole(offset, len(strides), *strides[:9])
    return Tensor(storage, offset, shape, strides)


def rebuild_parameter(tensor: Any, gradient: Any, hooks: Any) -> Any:
    """`torch._utils._rebuild_parameter`."""
    return tensor


def reconstruct(kind: Any, shape: Any, code: Any) -> Empty:
    """NumPy's `_reconstruct`."""
    if kind != ARRAY:
        raise Unreadable("holds arrays of an unknown kind.")
    return Empty()


def to_bytes(text: Any, code: Any) -> bytes:
    """`_codecs.encode`, as the oldest pickles spell bytes."""
    if type(text) is not str or code != "latin1":
        raise Unreadable("spells bytes in an unknown way.")
    return text.encode("latin1")


#: all that a pickle may call, and what is done instead
CALLS: dict[Name, Callable[..., Any]] = {
    Name("collections", "OrderedDict"): lambda: {},
    Name("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    Name("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    Name("numpy.core.multiarray", "_reconstruct"): reconstruct,
    Name("numpy._core.multiarray", "_reconstruct"): reconstruct,
    Name("numpy", "dtype"): lambda code, align=False, copy=True: Dtype(code),
    Name("_codecs", "encode"): to_bytes,
}
#: all that it may name and not call
VALUES = {ARRAY, *TORCH_TYPES}

MARK = object()
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}


def unpickle(file: BinaryIO) -> Any:
    """The value of a pickle of arrays, on a machine that can do nothing but build it.

    `pickletools` splits the bytes into operations. One that is not below, or a name that is not
    in CALLS or VALUES, is Unreadable.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def above_mark() -> list[Any]:
        at = next(at for at in range(len(stack) - 1, -1, -1) if stack[at] is MARK)
        items = stack[at + 1 :]
        del stack[at:]
        return items

    argument: Any
    for operation, argument, _ in pickletools.genops(file):
        code = operation.name
        if code in ("PROTO", "FRAME"):
            pass
        elif code == "STOP":
            break
        elif code in LITERALS:
            stack.append(argument)
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
            stack.append(admit(*argument.split(" ", 1)))
        elif code == "STACK_GLOBAL":
            stack.append(admit(*pop(stack, 2)))
        elif code == "REDUCE":
            called, arguments = pop(stack, 2)
            if not isinstance(called, Name) or called not in CALLS or type(arguments) is not tuple:
                raise Unreadable("calls something that builds no array.")
            stack.append(CALLS[called](*arguments))
        elif code == "BUILD":
            (state,) = pop(stack, 1)
            if isinstance(stack[-1], (Empty, Dtype)):
                stack[-1].build(state)
            elif type(stack[-1]) is not dict:  # PyTorch's version numbers, of a state_dict
                raise Unreadable("builds something that is no array.")
        elif code == "BINPERSID":
            stack.append(stored(*pop(stack, 1)))
        else:
            raise Unreadable(f"is no pickle of arrays alone: it has the operation {code}.")
    (value,) = stack
    return value


def pop(stack: list[Any], count: int) -> list[Any]:
    """The last `count` items, none of them a mark."""
    items = stack[len(stack) - count :]
    if len(items) != count or any(item is MARK for item in items):
        raise Unreadable("is damaged: its pickle takes what is not there.")
    del stack[len(stack) - count :]
    return items


def extend(target: Any, items: list[Any]) -> None:
    """Lengthen a list."""
    if type(target) is not list:
        raise Unreadable("is damaged: its pickle lengthens what is no list.")
    target.extend(items)


def update(target: Any, items: list[Any]) -> None:
    """Set items of a dict, key after value, each once."""
    if type(target) is not dict or len(items) % 2:
        raise Unreadable("is damaged: its pickle sets items of what is no dict.")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) is not str or key in target:
            raise Unreadable("is damaged: its pickle names something twice, or not by text.")
        target[key] = value


def admit(module: Any, name: Any) -> Name:
    """The name that a pickle asks for, if arrays need it."""
    found = Name(module, name)
    if type(module) is not str or type(name) is not str or found not in {*CALLS, *VALUES}:
        raise Unreadable(
            f"asks for {f'{module}.{name}'[:60]!a}, which no array needs, so it was not read: "
            "save the network's state_dict alone."
        )
    return found


def stored(identity: Any) -> Storage:
    """A storage by what PyTorch's pickles call it: ('storage', type, key, device, count)."""
    word, kind, key, _, count, *more = identity
    plain = type(word) is type(key) is str and word == "storage" and more in ([], [None])
    if not plain or not isinstance(kind, Name) or kind not in TORCH_TYPES:
        raise Unreadable("is damaged, or holds views of storages: save it with torch.save anew.")
    require_whole(count)
    return Storage(key, TORCH_TYPES[kind], count)


def tensors(state: Any, storages: Callable[[Storage], bytes]) -> dict[Any, Any]:
    """The tensors of a state_dict as arrays; the bytes of a storage come from `storages`."""
    if type(state) is not dict:
        raise Unreadable("holds no dict of tensors: save the network's state_dict.")
    return {
        name: strided(value, storages) if isinstance(value, Tensor) else value
        for name, value in state.items()
    }


def strided(tensor: Tensor, storages: Callable[[Storage], bytes]) -> np.ndarray:
    """A tensor as a contiguous array."""
    storage, offset, shape, strides = tensor
    if len(shape) != len(strides) or math.prod(shape) > storage.length - offset:
        raise Unreadable("is damaged: a tensor is larger than its storage.")
    flat = array_of(storages(storage), storage.dtype, (storage.length,))
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if last >= storage.length:
        raise Unreadable("is damaged: a tensor reaches out of its storage.")
    bytes_apart = [step * flat.itemsize for step in strides]
    view = np.lib.stride_tricks.as_strided(flat[offset:], shape, bytes_apart, subok=True)
    return np.ascontiguousarray(view).view(type(flat)).reshape(shape)


def read_torch(file: BinaryIO) -> dict[Any, Any]:
    """The state_dict in what `torch.save` writes: an archive of a pickle and its storages."""
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        size = file.seek(0, io.SEEK_END)
        if len(entries) != len(archive.infolist()):
            raise Unreadable("is an archive that names an entry twice.")
        pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Unreadable(
                "is an archive, and none that torch.save wrote; of a model in .keras, give what "
                "save_weights writes."
            )
        if sum(entry.file_size for entry in entries.values()) > size:
            raise Unreadable("is an archive with compressed or overlapping entries.")
        (folder, _) = pickles[0].split("/")
        order = f"{folder}/byteorder"  # not there before PyTorch 2.1
        if order in entries and archive.read(order) != b"little":
            raise Unreadable("holds big-endian numbers.")

        def storages(storage: Storage) -> bytes:
            name = f"{folder}/data/{storage.key}"
            if name not in entries:
                raise Unreadable("is damaged: a storage is missing.")
            return archive.read(name)

        return tensors(unpickle(io.BytesIO(archive.read(pickles[0]))), storages)


#: the pickle of a number, with which files begin that PyTorch wrote before 1.6
LEGACY_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."


def read_old_torch(file: BinaryIO) -> dict[Any, Any]:
    """The same from before PyTorch 1.6: five pickles, then each storage behind its count."""
    _, version, system, state, keys = (unpickle(file) for _ in range(5))
    if version != 1001 or system.get("little_endian") is not True or type(keys) is not list:
        raise Unreadable("is damaged, or holds big-endian numbers.")
    kinds: dict[str, Storage] = {}
    for value in state.values() if type(state) is dict else ():
        if isinstance(value, Tensor):
            kinds[value.storage.key] = value.storage
    found = {}
    for key in keys:
        if key not in kinds:
            raise Unreadable("is damaged: a storage belongs to no tensor.")
        count, size = kinds[key].length, np.dtype(width(kinds[key].dtype)).itemsize
        if struct.unpack("<q", file.read(8)) != (count,):
            raise Unreadable("is damaged: a storage is of another size than its tensor says.")
        found[key] = file.read(count * size)
    return tensors(state, lambda storage: found[storage.key])


def read_paddle(file: BinaryIO) -> dict[Any, Any]:
    """The state_dict that `paddle.save` writes: a pickle of NumPy arrays."""
    state = unpickle(file)
    if file.read(1):
        raise Unreadable("is damaged: bytes are left over behind its pickle.")
    if type(state) is not dict:
        raise Unreadable("holds no dict of arrays: save the layer's state_dict.")
    state.pop("StructuredToParameterName@@", None)  # Paddle's own names for the same tensors
    return {
        name: value.array if isinstance(value, Empty) else value for name, value in state.items()
    }


if __name__ == "__main__":
    main()
