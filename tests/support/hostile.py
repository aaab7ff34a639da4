"""Files that were made to do harm: what they would do if they were believed, and by which format.

`corpus(canary)` builds them; each would make the file `canary`, or fill the memory, or read what is
not its own. `Watch` sees whatever Python is asked to do meanwhile. Long because every format has
its files here.
"""

import codecs
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np

WEIGHT_FILES = Path(__file__).parents[1] / "data" / "weight_files"
KERAS, DENSE = str(WEIGHT_FILES / "keras.weights.h5"), "/layers/dense/vars/1"  #: where links lead


class Watch:
    """Python's audit events while it is open: imports, files, processes, compiled code."""

    seen = None

    def __enter__(self):
        if not hasattr(Watch, "hooked"):  # a hook cannot be taken away again
            Watch.hooked = True
            sys.addaudithook(Watch.note)
            wide = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-8-sig")
            for code in ("cp437", "raw-unicode-escape", "unicode-escape", "latin-1", *wide):
                codecs.lookup(code)  # which archives, pickletools and JSON import late
        Watch.seen = self.events = []
        return self

    def __exit__(self, *error):
        Watch.seen = None

    @staticmethod
    def note(event, arguments):
        """Remember an event, but for h5py's names of open files."""
        if Watch.seen is not None and event != "builtins.id":
            Watch.seen.append(f"{event} {arguments[0]!r:.60}" if arguments else event)


class Call:
    """Pickles as a call of `function` with these arguments, and what is set on its result."""

    def __init__(self, function, *arguments, state=None):
        self.what = function, arguments, state

    def __reduce__(self):
        return self.what if self.what[2] is not None else self.what[:2]


def unicode(text):
    """The operation that pushes a string."""
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def name(module, attribute):
    """The operation that asks for a module's attribute."""
    return f"c{module}\n{attribute}\n".encode()


def entry(value, key="a"):
    """A pickle of {key: value}, whose value is given as operations."""
    return b"\x80\x02}" + unicode(key) + value + b"s."


def number(value):
    """The operation that pushes a whole number."""
    if 0 <= value < 256:
        return b"K" + bytes([value])
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def numbers(values):
    """The operations that push a tuple of whole numbers."""
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(shape=(2,), strides=(1,), offset=0, count=2, kind="FloatStorage", key="0"):
    """The operations that push a PyTorch tensor."""
    storage = b"(" + unicode("storage") + name("torch", kind) + unicode(key) + unicode("cpu")
    storage += number(count) + b"tQ"
    arguments = storage + number(offset) + numbers(shape) + numbers(strides) + b"\x89)"
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + arguments + b"tR"


def archive(pickled, data=b"\0" * 8, more=(), folder="archive", how=zipfile.ZIP_STORED):
    """An archive as `torch.save` writes it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as out:
        out.writestr(f"{folder}/data.pkl", pickled)
        out.writestr(f"{folder}/data/0", data)
        for where, content in more:
            out.writestr(where, content)
    return file.getvalue()


def overlapping():
    """An archive whose directory names one entry of a megabyte a hundred times."""
    data = archive(entry(tensor()), bytes(2**20))
    at = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    heads = data[at:end]
    second = heads[heads.index(b"PK\x01\x02", 4) :]
    names = [second.replace(b"data/0", b"data/%c" % (65 + n % 26)) for n in range(26)]
    directory = heads + b"".join(names)
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 28, 28, len(directory), at, 0)
    return data[:at] + directory + tail


def twice():
    """An archive that names an entry twice, the second time with other bytes."""
    data = archive(entry(tensor()), more=[("archive/data/1", b"\1" * 8)])
    return data.replace(b"archive/data/1", b"archive/data/0")


def mxnet(
    magic=0xF993FACA, storage=0, shape=(2,), axes=None, kind=0, data=b"\0" * 8, words=(b"a",)
):
    """One MXNet array and its names."""
    out = struct.pack("<QQQIi", 0x112, 0, 1, magic, storage)
    out += struct.pack("<i", len(shape) if axes is None else axes)
    out += struct.pack(f"<{len(shape)}q", *shape) + struct.pack("<iii", 1, 0, kind) + data
    out += struct.pack("<Q", len(words))
    return out + b"".join(struct.pack("<Q", len(word)) + word for word in words)


def safetensors(header, data=b"\0" * 8, length=None):
    """A safetensors file with this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def hdf5(build):
    """An HDF5 file that `build` fills."""
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        build(root)
    return file.getvalue()


def linked(link):
    """An HDF5 file with a link."""
    return hdf5(lambda root: root.__setitem__("a", link))


def cycle(root):
    """A group that holds itself."""
    group = root.create_group("a")
    group["a"] = group


def many_names(root):
    """Fifteen groups in each other, each with ten names: a million billion paths."""
    for _ in range(15):
        group = root.create_group("0")
        for number in range(1, 10):
            root[str(number)] = group
        root = group


def soft(root):
    """A dataset, and a second name of it."""
    root["b"] = np.zeros(1, np.float32)
    root["a"] = h5py.SoftLink("/b")


def virtual(root):
    """A dataset made of another file's."""
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource(KERAS, DENSE, (2,))
    root.create_virtual_dataset("a", layout)


def laughs(depth=60):
    """Operations that push a tuple of two, each of two, ...: 2 to the 60th at the bottom."""
    return b"K\x01" + b"".join(b"q\x00h\x00\x86" for _ in range(depth))


def old_torch(second, rest=b""):
    """A file as PyTorch wrote it before 1.6, from its fourth pickle on."""
    data = (WEIGHT_FILES / "torch-old.pt").read_bytes()
    at = data.index(b".", 15) + 1  # behind the magic number and the version
    system = data[at : data.index(b"u.", at) + 2]
    return data[:at] + system + second + rest


HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"


def npy(header, data=bytes(8)):
    """A `.npy` entry with this header."""
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header.encode() + data


def npz(array):
    """An archive of one array, as NumPy writes it."""
    file = io.BytesIO()
    np.savez(file, a=array)
    return file.getvalue()


def packed(entries, how=zipfile.ZIP_STORED):
    """An archive of these entries."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as out:
        for where, content in entries.items():
            out.writestr(where, content)
    return file.getvalue()


def varint(value):
    """A whole number in a protocol buffer."""
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number, value):
    """A field of a protocol buffer: a number or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def onnx(shape=(2, 1, 1, 1), kind=1, data=bytes(8), more=b"", eps=1e-5, tensors=()):
    """An ONNX file of a convolution and a norm, and of more tensors that nothing uses."""
    dims = b"".join(field(1, length) for length in shape)
    weight = dims + field(2, kind) + field(8, b"c.weight") + field(9, data) + more
    ones = field(1, 2) + field(2, 1) + field(9, struct.pack("<2f", 1, 1))
    words = [b"n.weight", b"n.bias", b"n.running_mean", b"n.running_var"]
    conv = field(1, b"x") + field(1, b"c.weight") + field(2, b"y") + field(4, b"Conv")
    attribute = field(1, b"epsilon") + varint(2 << 3 | 5) + struct.pack("<f", eps)
    norm = field(1, b"y") + b"".join(field(1, word) for word in words) + field(2, b"z")
    norm += field(4, b"BatchNormalization") + field(5, attribute)
    graph = field(1, conv) + field(1, norm) + field(5, weight)
    graph += b"".join(field(5, ones + field(8, word)) for word in words)
    graph += b"".join(field(5, each) for each in tensors)
    return field(1, 8) + field(7, graph)


def deep(levels):
    """A dict in a dict, and so on, each twice."""
    found = {}
    for _ in range(levels):
        found = {"a": found, "b": found}
    return found


def corpus(canary):
    """Hostile files by what they are; the payloads make the file `canary`."""
    touch = f"touch {canary}"
    opening = f"open({str(canary)!r}, 'w').close()"
    one = np.zeros(1, np.float32)
    calls = {
        "os.system": Call(os.system, touch),
        "eval": Call(eval, opening),
        "exec": Call(exec, opening),
        "subprocess": Call(subprocess.Popen, ["touch", str(canary)]),
        "open": Call(open, str(canary), "w"),
        "nested in an array": Call(np.array, [Call(os.system, touch)]),
        "nested in what arrays need": Call(
            one.__reduce__()[0],
            np.ndarray,
            (Call(os.system, touch),),
            b"b",
        ),
        "set on a dtype": Call(np.dtype, "f4", state=Call(os.system, touch)),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
    }
    found = {}
    for what, call in calls.items():
        for protocol in (2, 4):
            found[f"pickle: {what}, {protocol}"] = pickle.dumps({"a": call}, protocol)
        found[f"archive: {what}"] = archive(pickle.dumps({"a": call}, 2))
        found[f"old torch: {what}"] = old_torch(pickle.dumps({"a": call}, 2))
    found |= {
        "pickle: a key": pickle.dumps({Call(os.system, touch): one}, 4),
        "pickle: a list": pickle.dumps([one, Call(os.system, touch)], 4),
        "pickle: behind the end": pickle.dumps({"a": one}, 4) + pickle.dumps(calls["os.system"], 4),
        "pickle: INST": entry(b"(" + unicode(touch) + b"ios\nsystem\n"),
        "pickle: OBJ": entry(b"(" + name("os", "system") + unicode(touch) + b"o"),
        "pickle: NEWOBJ": entry(name("collections", "OrderedDict") + b")\x81"),
        "pickle: EXT1": entry(b"\x82\x01"),
        "pickle: PERSID": entry(b"Pstorage\n"),
        "pickle: a dotted name": entry(
            b"\x8c\x05torch\x8c\x12_utils.os.system.x\x93".replace(b"\x12", b"\x11")
        ),
        "pickle: a name of two lines": entry(name("collections", "OrderedDict ")),
        "pickle: an attribute set on a call": entry(
            name("numpy", "dtype") + b"}" + unicode("__call__") + unicode("x") + b"sb"
        ),
        "pickle: a called string": entry(unicode("os") + b")R"),
        "pickle: another codec": entry(
            name("_codecs", "encode") + unicode("x") + unicode("unicode_escape") + b"\x86R"
        ),
        "pickle: itself": b"\x80\x02}q\x00" + unicode("a") + b"h\x00s.",
        "pickle: a list of itself": entry(b"]q\x00h\x00a"),
        "pickle: many marks": entry(b"(" * 10**5 + b"t"),
        "pickle: nested deep": entry(b"K\x01" + b"\x85" * 10**5),
        "pickle: a laugh": entry(laughs()),
        "pickle: a laugh as a dtype": entry(name("numpy", "dtype") + laughs() + b"\x85R"),
        "pickle: a laugh as a key": b"\x80\x02}" + laughs() + b"K\x01s.",
        "pickle: a laugh as a call": entry(laughs() + b")R"),
        "pickle: a laugh as a name": entry(unicode("os") + laughs(22) + b"\x93"),
        "pickle: a laugh as a module": entry(laughs(22) + unicode("system") + b"\x93"),
        "pickle: many empty dicts": entry(b"}" * 1_000_001),
        "pickle: many tensors": b"\x80\x02}("
        + (unicode("t") + tensor() + b"q\0")
        + b"".join(unicode(f"t{n}") + b"h\0" for n in range(20_000))
        + b"u.",
        "pickle: a huge memo": entry(b"K\x01r\xff\xff\xff\x7f"),
        "pickle: a huge string": b"\x80\x04\x8d" + struct.pack("<Q", 2**62),
        "pickle: a huge number": entry(b"\x8b" + struct.pack("<i", 2**31 - 1)),
        "pickle: a name twice": b"\x80\x02}(" + 2 * (unicode("a") + b"K\x01") + b"u.",
        "pickle: objects": pickle.dumps({"a": np.array([{}], object)}, 4),
        "pickle: records": pickle.dumps({"a": np.zeros(1, [("x", "f4")])}, 4),
        "pickle: text": pickle.dumps({"a": np.array(["text"])}, 4),
        "pickle: whole numbers": pickle.dumps({"a": np.zeros(2, np.int64)}, 4),
        "pickle: terminal codes in a name": pickle.dumps({"\x1b[2J": one}, 4),
        "pickle: text from right to left in a name": pickle.dumps({"a\u202eb": one}, 4),
        "pickle: two lines in a name": pickle.dumps({"a\ngooglenet: all is well": one}, 4),
        "pickle: the name of metadata": pickle.dumps({"__metadata__": one}, 4),
        "pickle: half of a character": entry(tensor()).replace(
            unicode("a"), b"X\3\0\0\0\xed\xa0\x80"
        ),
        "pickle: nothing": pickle.dumps({}, 4),
        "pickle: an object that is called": entry(name("some.library", "Thing") + b")R"),
        "pickle: an object that is made": entry(name("some.library", "Thing") + b")\x81"),
        "pickle: an object that is built": entry(
            name("some.library", "Thing")
            + b")\x81"
            + name("os", "system")
            + unicode(touch)
            + b"\x85R"
            + b"b"
        ),
        "pickle: os.system beside weights": b"\x80\x02}("
        + (unicode("w") + tensor())
        + (unicode("x") + name("os", "system") + unicode(touch) + b"\x85R")
        + b"u.",
        "pickle: an object alone": name("some.library", "Thing") + b")\x81.",
        "pickle: dicts in dicts": pickle.dumps(deep(14), 4),
        "pickle: a dict of many dicts": b"\x80\x02}("
        + b"".join(unicode(f"t{n}") + b"}" for n in range(60_000))
        + b"u.",
        "archive: way out of the folder": archive(
            entry(tensor(key="../../../../etc/passwd")), more=[("../../canary", b"x")]
        ),
        "archive: an absolute path": archive(entry(tensor(key="/etc/passwd"))),
        "archive: two pickles": archive(entry(tensor()), more=[("b/data.pkl", entry(tensor()))]),
        "archive: no pickle": archive(b"").replace(b"data.pkl", b"data.pkk"),
        "archive: a zip bomb": archive(
            entry(tensor((2**24,), count=2**24)), bytes(2**26), how=zipfile.ZIP_DEFLATED
        ),
        "archive: overlapping entries": overlapping(),
        "archive: an entry twice": twice(),
        "archive: big-endian": archive(entry(tensor()), more=[("archive/byteorder", b"big")]),
        "archive: a storage that is missing": archive(entry(tensor(key="1"))),
        "archive: a storage that is short": archive(entry(tensor((4,), count=4))),
        "archive: a huge shape": archive(entry(tensor((2**40,), (1,)))),
        "archive: a huge shape of little ones": archive(entry(tensor((2**20,) * 3, (0,) * 3))),
        "archive: a shape of many axes": archive(entry(tensor((1,) * 10**5, (1,) * 10**5))),
        "archive: an overflow": archive(entry(tensor((2**32, 2**32), (0, 0), count=2**64))),
        "archive: values seen many times": archive(entry(tensor((2**20,), (0,), count=2))),
        "archive: tensors that overlap": archive(
            b"\x80\x02}("
            + b"".join(unicode(f"t{n}") + tensor((512,), count=512) for n in range(2000))
            + b"u.",
            bytes(2048),
        ).replace(b"\x89)", b"\x89)"),
        "archive: an offset behind the end": archive(entry(tensor(offset=2))),
        "archive: a negative offset": archive(entry(tensor(offset=-1))),
        "archive: a negative stride": archive(entry(tensor(strides=(-1,)))),
        "archive: a stride out of the storage": archive(entry(tensor(strides=(2,)))),
        "archive: a negative length": archive(entry(tensor((-2,)))),
        "archive: whole numbers": archive(entry(tensor((1,), count=1, kind="LongStorage"))),
        "archive: complex numbers": archive(entry(tensor((1,), kind="ComplexFloatStorage"))),
        "archive: another class": archive(
            entry(name("__torch__.googlenet", "GoogLeNet") + b")\x81")
        ),
        "old torch: a huge storage": old_torch(
            entry(tensor((2**40,), count=2**40)),
            b"\x80\x02]" + unicode("0") + b"a." + struct.pack("<q", 2**40),
        ),
        "old torch: a storage of another size": old_torch(
            entry(tensor()), b"\x80\x02]" + unicode("0") + b"a." + struct.pack("<q", 3) + bytes(12)
        ),
        "old torch: a laugh as a key": old_torch(
            entry(tensor()), b"\x80\x02]" + laughs(22) + b"a."
        ),
        "archive: a storage of two types": archive(
            b"\x80\x02}("
            + (unicode("a") + tensor())
            + (unicode("b") + tensor(count=1, shape=(1,), kind="DoubleStorage"))
            + b"u."
        ),
        "mxnet: many small arrays": struct.pack("<QQQ", 0x112, 0, 20_000)
        + mxnet(shape=(1,), data=b"\0" * 4)[24:-17] * 20_000,
        "mxnet: many arrays": struct.pack("<QQQ", 0x112, 0, 2**60),
        "mxnet: a huge shape": mxnet(shape=(2**40,)),
        "mxnet: an overflow": mxnet(shape=(2**32, 2**32)),
        "mxnet: a negative length": mxnet(shape=(-2, -1)),
        "mxnet: many axes": mxnet(axes=2**31 - 1),
        "mxnet: fewer axes than none": mxnet(axes=-1),
        "mxnet: an unknown type": mxnet(kind=99),
        "mxnet: whole numbers": mxnet(kind=6, data=bytes(16)),
        "mxnet: a sparse array": mxnet(storage=1),
        "mxnet: an unknown magic": mxnet(magic=1),
        "mxnet: no names": mxnet(words=()),
        "mxnet: a name too many": mxnet(words=(b"a", b"b")),
        "mxnet: terminal codes in a name": mxnet(words=(b"\x1b[2J",)),
        "mxnet: a name that is no text": mxnet(words=(b"\xff",)),
        "mxnet: more behind the end": mxnet() + b"x",
        "mxnet: a huge name": mxnet(words=(b"a" * 2**20,)),
        "safetensors: a huge header": safetensors(b"{}", length=2**62),
        "safetensors: a deep header": safetensors(b'{"a":' * 10**5),
        "safetensors: a header longer than any": safetensors(b"{}" + b" " * 8, length=10**8 + 1),
        "safetensors: many tensors": safetensors(
            {
                f"t{n}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * n, 4 * n + 4]}
                for n in range(20_000)
            },
            bytes(80_000),
        ),
        "safetensors: overlapping offsets": safetensors(
            {n: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for n in "ab"}
        ),
        "safetensors: offsets behind the end": safetensors(
            {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}
        ),
        "safetensors: a huge shape": safetensors(
            {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}
        ),
        "safetensors: whole numbers": safetensors(
            {"a": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}
        ),
        "safetensors: a lie about its digest": safetensors(
            {
                "__metadata__": {"googlenet": '{"spec": "d2l", "sha256": "0"}'},
                "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            }
        ),
        "npz: objects": npz(np.array([{}], object)),
        "npz: code in a header": packed(
            {"a.npy": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (exit(),), }")}
        ),
        "npz: a huge shape": packed({"a.npy": npy(HEADER.replace("(2,)", f"({2**40},)"))}),
        "npz: a shape of many axes": packed({"a.npy": npy(HEADER.replace("2,", "1, " * 3000))}),
        "npz: a long header": packed({"a.npy": npy(HEADER + " " * 60_000)}),
        "npz: more behind the end": packed({"a.npy": npy(HEADER, bytes(9))}),
        "npz: no array": packed({"a.npy": b"x" * 100}),
        "npz: a bomb": packed({"a.npy": npy(HEADER, bytes(2**26))}, zipfile.ZIP_DEFLATED),
        "keras: no HDF5": packed({"model.weights.h5": b"x" * 100}),
        "keras: a bomb": packed({"model.weights.h5": bytes(2**26)}, zipfile.ZIP_DEFLATED),
        "keras: a deep config": packed(
            {
                "model.weights.h5": hdf5(lambda root: root.create_dataset("a", data=one)),
                "config.json": b"[" * 10**5,
            }
        ),
        "keras: a link to another file": packed(
            {"model.weights.h5": linked(h5py.ExternalLink(KERAS, DENSE)), "config.json": b"{}"}
        ),
        "onnx: a huge shape": onnx(shape=(2**40,)),
        "onnx: a negative shape": onnx(shape=(2**64 - 1,)),
        "onnx: an overflow": onnx(shape=(2**62, 2**62)),
        "onnx: an unknown type": onnx(kind=99),
        "onnx: text": onnx(kind=8),
        "onnx: values in another file": onnx(more=field(14, 1)),
        "onnx: no graph": b"\x08\x08" + field(2, b"pytorch"),
        "onnx: a graph of itself": b"\x08\x08" + field(7, field(7, field(7, b"\x08"))),
        "onnx: a length behind the end": b"\x08\x08\x3a" + b"\xff" * 9 + b"\x01",
        "onnx: a number without an end": b"\x08" + b"\xff" * 30,
        "onnx: many fields": b"\x08\x08" * (2 * 10**6 + 1),
        "onnx: an eps that is no number": onnx(eps=float("nan")),
        "hdf5: a link to another file": linked(h5py.ExternalLink(KERAS, DENSE)),
        "hdf5: a link inside": hdf5(soft),
        "hdf5: a link to nowhere": linked(h5py.SoftLink("/b")),
        "hdf5: bytes of another file": hdf5(
            lambda root: root.create_dataset("a", (2,), "f4", external=[("/etc/passwd", 0, 8)])
        ),
        "hdf5: another file's dataset": hdf5(virtual),
        "hdf5: a bomb": hdf5(
            lambda root: root.create_dataset("a", (2**26,), "f4", chunks=(2**20,), compression=9)
        ),
        "hdf5: a huge shape": hdf5(lambda root: root.create_dataset("a", (2**50,), "f4")),
        "hdf5: text": hdf5(lambda root: root.create_dataset("a", data="text")),
        "hdf5: references": hdf5(
            lambda root: root.create_dataset("a", data=root.ref, dtype=h5py.ref_dtype)
        ),
        "hdf5: nothing": hdf5(lambda root: root.create_dataset("a", data=h5py.Empty("f4"))),
        "hdf5: a type": hdf5(lambda root: root.__setitem__("a", np.dtype("f4"))),
        "hdf5: a group of itself": hdf5(cycle),
        "hdf5: groups of many names": hdf5(many_names),
        "hdf5: terminal codes in a name": hdf5(lambda root: root.create_dataset("\x1b", data=one)),
        "hdf5: whole numbers": hdf5(lambda root: root.create_dataset("a", data=np.arange(2))),
    }
    return found
