"""Files of others are read for what they are, and hostile ones are refused whole.

Long because each format has its own kinds of damage.
"""

import importlib.util
import io
import json
import math
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import hostile  # in tests/support
import make_weight_files  # in tests/support
import numpy as np
import pytest
from hostile import WEIGHT_FILES, Watch, archive, entry, field, mxnet, onnx, tensor

from common.errors import WeightsError
from common.formats import sandbox
from common.formats.readers import base, detect
from common.formats.readers.base import Unreadable
from common.formats.readers.detect import parse_open
from common.formats.readers.pickles import rebuild_tensor
from common.spec import MINI
from common.weights import draw, save

ROOT = Path(__file__).parents[2]
CORPUS = tuple(hostile.corpus(Path("canary")))


def load_file(path):
    found = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


fuzz = load_file(ROOT / "tests" / "fuzz" / "fuzz.py")


def parse(data):
    return parse_open(io.BytesIO(data))


def refusal(data):
    with pytest.raises(Unreadable) as caught:
        parse(data)
    said = str(caught.value)
    assert said.isprintable()
    assert said.endswith(".")
    assert len(said) < 400
    return said


# --- what the frameworks wrote

WORDS = {
    "mxnet.params": {"1.weight": "1.gamma", "1.bias": "1.beta"},
    "paddle.pdparams": {"1.running_mean": "1._mean", "1.running_var": "1._variance"},
    "keras.weights.h5": {
        "0.weight": "layers/conv2d/vars/0",
        "0.bias": "layers/conv2d/vars/1",
        "1.weight": "layers/batch_normalization/vars/0",
        "1.bias": "layers/batch_normalization/vars/1",
        "1.running_mean": "layers/batch_normalization/vars/2",
        "1.running_var": "layers/batch_normalization/vars/3",
        "2.weight": "layers/dense/vars/0",
        "2.bias": "layers/dense/vars/1",
    },
}
WORDS["paddle-old.pdparams"] = WORDS["paddle.pdparams"]
for file in ("keras-bfloat16.weights.h5", "keras-trained.weights.h5", "keras-model.keras"):
    WORDS[file] = WORDS["keras.weights.h5"]
NUMBERS = {"0": "conv", "1": "batchnorm", "2": "dense"}
WHOLE = {"weight": "kernel", "bias": "bias", "running_mean": "moving_mean"}
WHOLE |= {"running_var": "moving_variance"}
KERAS = {"0": "conv2d", "1": "batch_normalization", "2": "dense"}
SHAPES = make_weight_files.SHAPES
MXNET = WORDS["mxnet.params"]
WORDS |= {
    "mxnet-two.params": MXNET,
    "mxnet-export-0000.params": {
        name: f"{NUMBERS[name[0]]}0_{MXNET.get(name, name)[2:]}" for name in SHAPES
    },
    "keras-model.h5": {
        name: "/".join((KERAS[name[0]], "sequential", KERAS[name[0]], WHOLE[name[2:]]))
        for name in SHAPES
    }
    | {
        f"1.{leaf}": f"batch_normalization/sequential/batch_normalization/{word}"
        for leaf, word in (("weight", "gamma"), ("bias", "beta"))
    },
    "torch-checkpoint.pth.tar": {name: f"state_dict.{name}" for name in SHAPES},
    "torch-old.ckpt": {name: f"state_dict.{name}" for name in SHAPES},
    "onnx-torch.onnx": {name: name.replace("2.", "3.") for name in ("2.weight", "2.bias")},
}
FILES = {
    "torch.pt": ("torch", "float32"),
    "torch-old.pt": ("torch", "float32"),
    "torch-bfloat16.pt": ("torch", "bfloat16"),
    "torch-last.pt": ("torch", "float64"),
    "keras.weights.h5": ("tf", "float32"),
    "mxnet.params": ("mxnet", "float32"),
    "keras-bfloat16.weights.h5": ("tf", "bfloat16"),
    "keras-trained.weights.h5": ("tf", "float32"),
    "keras-model.keras": ("tf", "float32"),
    "keras-model.h5": ("tf", "float32"),
    "mxnet-old.params": ("mxnet", "float16"),
    "mxnet-export-0000.params": ("mxnet", "float32"),
    "mxnet-two.params": ("npz", "float32"),
    "torch-checkpoint.pth.tar": ("torch", "float32"),
    "torch-old.ckpt": ("torch", "float32"),
    "onnx-torch.onnx": ("onnx", "float32"),
    "paddle.pdparams": ("paddle", "float32"),
    "paddle-old.pdparams": ("paddle", "float32"),
}


@pytest.mark.parametrize("file", FILES)
def test_what_a_framework_wrote_is_read_bit_for_bit(file):
    """In a process of its own, and with the values that the file was made with."""
    found = sandbox.read_file(WEIGHT_FILES / file)
    dtype = "float64" if FILES[file][1] == "float64" else "float32"
    assert (found.format, found.stored) == FILES[file]
    names = {name: WORDS.get(file, {}).get(name, name) for name in make_weight_files.SHAPES}
    assert set(found.arrays) == set(names.values())
    for name, array in make_weight_files.values().items():
        if file.startswith("keras"):
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        elif file.startswith("paddle") and name == "2.weight":
            array = array.T
        assert found.arrays[names[name]].dtype == dtype
        np.testing.assert_array_equal(found.arrays[names[name]], array)


def test_a_tensor_of_too_many_axes_is_not_taken_for_an_empty_one():
    with pytest.raises(Unreadable, match="no storage"):
        rebuild_tensor(None, 0, (1,) * 9 + (0,), (1,) * 10, False, {})


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_npz_has_its_values_in_either_order(order):
    arrays = {
        "kernel": np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5),
        "bias": np.arange(3, dtype=np.float64),
    }
    file = io.BytesIO()
    np.savez(file, **{name: np.asarray(array, order=order) for name, array in arrays.items()})
    found = parse_open(file, "x.npz").arrays
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_every_file_of_the_folder_is_among_them():
    assert {path.name for path in WEIGHT_FILES.iterdir()} == {*FILES, "onnx-folded.onnx"}


EPS = {"keras-model.keras": 1e-5, "keras-model.h5": 1e-5}
EPS["onnx-torch.onnx"] = float(np.float32(1e-5))


@pytest.mark.parametrize("file", FILES)
def test_the_eps_of_the_norms_is_read_where_a_file_has_it(file):
    assert parse((WEIGHT_FILES / file).read_bytes()).eps == EPS.get(file)


def test_a_norm_that_an_exporter_folded_is_in_the_convolution():
    found = parse((WEIGHT_FILES / "onnx-folded.onnx").read_bytes()).arrays
    values = make_weight_files.values(np.float64)
    scale = values["1.weight"] / np.sqrt(values["1.running_var"] + 1e-5)
    bias = (values["0.bias"] - values["1.running_mean"]) * scale + values["1.bias"]
    weight = values["0.weight"] * scale[:, None, None, None]
    np.testing.assert_allclose(found["Conv_0.weight"], weight, 1e-6)
    np.testing.assert_allclose(found["Conv_0.bias"], bias, 1e-6)
    np.testing.assert_array_equal(found["3.weight"], values["2.weight"])


def outside(location, offset=0, length=8):
    """An ONNX tensor's entries about a second file that holds its values."""
    told = {"location": location, "offset": str(offset), "length": str(length)}
    entries = (field(1, key.encode()) + field(2, value.encode()) for key, value in told.items())
    return b"".join(field(13, entry) for entry in entries) + field(14, 1)


@pytest.mark.parametrize("without", [b"", field(14, 1)])
def test_onnx_values_in_a_second_file_are_read(tmp_path, without):
    """PyTorch's newer exporter writes NAME.onnx and NAME.onnx.data; the mark may be missing."""
    made = onnx(data=b"", more=outside("net.onnx.data", 4).removesuffix(without))
    (tmp_path / "net.onnx").write_bytes(made)
    (tmp_path / "net.onnx.data").write_bytes(struct.pack("<4f", 1, 2, 3, 4))
    found = sandbox.read_file(tmp_path / "net.onnx")
    assert found.arrays["c.weight"].tolist() == [[[[2.0]]], [[[3.0]]]]


@pytest.mark.parametrize(
    ("location", "offset", "length", "said"),
    [
        ("../net.onnx.data", 0, 8, "does not begin as its own"),
        ("/etc/passwd", 0, 8, "does not begin as its own"),
        ("other.data", 0, 8, "does not begin as its own"),
        ("net.onnx.link", 0, 8, "put that file beside it"),
        ("net.onnx.missing", 0, 8, "put that file beside it"),
        ("net.onnx.folder", 0, 8, "put that file beside it"),
        ("net.onnx.data", 12, 8, "values lie outside"),
        ("net.onnx.data", -4, 8, "values lie outside"),
        ("net.onnx.data", 0, -8, "values lie outside"),
        ("net.onnx.data", "one", 8, "cut or damaged"),
        ("net.onnx.data", 0, 4, "holds too few|damaged"),
    ],
)
def test_an_onnx_graph_names_no_other_file(tmp_path, location, offset, length, said):
    (tmp_path / "net.onnx").write_bytes(onnx(data=b"", more=outside(location, offset, length)))
    (tmp_path / "net.onnx.data").write_bytes(bytes(16))
    (tmp_path / "other.data").write_bytes(bytes(16))
    (tmp_path / "net.onnx.link").symlink_to(tmp_path / "other.data")
    (tmp_path / "net.onnx.folder").mkdir()
    with pytest.raises(WeightsError, match=said):
        sandbox.read_file(tmp_path / "net.onnx")


def test_the_bytes_of_onnx_values_count_once(tmp_path):
    """Else a small file would fill the memory: here two tensors share one's bytes."""
    other = field(1, 2) + field(2, 1) + field(8, b"other") + outside("net.onnx.data")
    made = onnx(data=b"", more=outside("net.onnx.data"), tensors=[other])
    (tmp_path / "net.onnx").write_bytes(made)
    (tmp_path / "net.onnx.data").write_bytes(bytes(8))
    with pytest.raises(WeightsError, match="values lie outside"):
        sandbox.read_file(tmp_path / "net.onnx")


def layer(kind, name, shape, bias=None):
    """An ONNX node and its tensors."""
    inputs = [b"x", name, *([name + b"b"] if bias is not None else [])]
    node = b"".join(field(1, each) for each in inputs) + field(2, b"y") + field(4, kind)
    weight = b"".join(field(1, length) for length in shape) + field(2, 1) + field(8, name)
    graph = field(1, node) + field(5, weight + field(9, bytes(4 * math.prod(shape))))
    if bias is not None:
        ones = field(1, shape[0]) + field(2, 1) + field(8, name + b"b")
        graph += field(5, ones + field(9, struct.pack(f"<{shape[0]}f", *[bias] * shape[0])))
    return graph


@pytest.mark.parametrize(
    ("first", "second", "head", "filled"),
    [
        (None, None, None, {"c", "d", "h"}),  # a fresh network, whose biases are all zero
        (1.0, None, 1.0, {"d"}),  # one that happens to be zero
        (None, None, 1.0, set()),  # convolutions without biases by design
    ],
)
def test_a_bias_that_an_exporter_left_out_is_zero(first, second, head, filled):
    graph = layer(b"Conv", b"c.weight", (2, 1, 1, 1), first)
    graph += layer(b"Conv", b"d.weight", (2, 2, 1, 1), second)
    graph += layer(b"Gemm", b"h.weight", (2, 2), head)
    arrays = parse(field(1, 8) + field(7, graph)).arrays
    zero = {name[0] for name, array in arrays.items() if name.endswith("bias") and not array.any()}
    assert zero == filled


def test_before_a_norm_no_bias_is_added():
    assert "c.bias" not in parse(onnx()).arrays


def values(name, numbers, shape=None):
    """An initializer of an ONNX graph."""
    dims = b"".join(field(1, length) for length in shape or (len(numbers),))
    data = struct.pack(f"<{len(numbers)}f", *numbers)
    return field(5, dims + field(2, 1) + field(8, name.encode()) + field(9, data))


def node(kind, inputs, output, more=b""):
    """A node of an ONNX graph."""
    made = b"".join(field(1, name.encode()) for name in inputs.split())
    return field(1, made + field(2, output.encode()) + field(4, kind.encode()) + more)


def graph(*parts, images="x", results="y"):
    """The content of an ONNX file: its nodes and initializers, what goes in and what comes out."""
    ends = b"".join(field(11, field(1, name.encode())) for name in images.split())
    ends += b"".join(field(12, field(1, name.encode())) for name in results.split())
    return parse(field(1, 8) + field(7, b"".join(parts) + ends))


CONV = values("c.weight", [2, 3], (2, 1, 1, 1)) + values("c.bias", [1, 1])


@pytest.mark.parametrize(
    ("constants", "weight", "bias"),
    [
        ([("Add", "z k")], [2, 3], [5, 7]),
        ([("Add", "k z")], [2, 3], [5, 7]),
        ([("Sub", "z k")], [2, 3], [-3, -5]),
        ([("Mul", "z k")], [8, 18], [4, 6]),
        ([("Div", "z k")], [0.5, 0.5], [0.25, 1 / 6]),
        ([("Mul", "k z"), ("Add", "z k")], [8, 18], [8, 12]),
        ([("Identity", "z"), ("Transpose", "z"), ("Add", "z k")], [2, 3], [5, 7]),
        ([("Mul", "z one")], [2, 3], [1, 1]),  # the scale of a residual, which the spec has
        ([("Relu", "z"), ("MaxPool", "z")], [2, 3], [1, 1]),
    ],
)
@pytest.mark.parametrize("shape", [(2,), (2, 1, 1), (1, 2, 1, 1)])
def test_onnx_constants_go_into_the_layer_before_them(constants, weight, bias, shape):
    nodes, last = [node("Conv", "x c.weight c.bias", "z0")], "z0"
    for at, (kind, inputs) in enumerate(constants, 1):
        nodes.append(node(kind, inputs.replace("z", last), f"z{at}"))
        last = f"z{at}"
    found = graph(CONV, values("k", [4, 6], shape), values("one", [0.2]), *nodes, results=last)
    np.testing.assert_allclose(found.arrays["c.weight"].reshape(-1), weight, 1e-6)
    np.testing.assert_allclose(found.arrays["c.bias"], bias, 1e-6)
    assert not found.scales


def test_an_onnx_constant_is_the_bias_of_a_layer_without_one():
    """Paddle's and TensorFlow's exporters add the bias, which may be reshaped first."""
    parts = [CONV, values("k", [4, 6]), values("h.weight", [1, 2, 3, 4], (2, 2))]
    parts += [node("Conv", "x c.weight", "z"), node("Reshape", "k shape", "wide")]
    parts += [node("Add", "z wide", "a"), node("MatMul", "a h.weight", "m")]
    found = graph(*parts, node("Add", "m k", "y")).arrays
    assert found["c.bias"].tolist() == found["h.bias"].tolist() == [4, 6]
    assert found["h.weight"].tolist() == [[1, 3], [2, 4]]


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        (("Sub", "x k"), "times 0.2 plus -0.8, -1.2"),
        (("Mul", "x one"), "times 0.04 plus 0"),
        (("Add", "k x"), "times 0.2 plus 0.8, 1.2"),
    ],
)
def test_an_onnx_graph_that_scales_its_images_says_so(nodes, said):
    made = [CONV, values("k", [4, 6]), values("one", [0.2]), node(*nodes, "s")]
    found = graph(*made, node("Mul", "s one", "t"), node("Conv", "t c.weight c.bias", "y"))
    assert found.scales == said
    assert found.arrays["c.weight"].reshape(-1).tolist() == [2, 3]


@pytest.mark.parametrize(("kind", "inputs"), [("Add", "r k"), ("Sub", "k z"), ("Mul", "z three")])
def test_onnx_constants_that_no_layer_can_take_are_refused(kind, inputs):
    made = [CONV, values("k", [4, 6]), values("three", [1, 2, 3])]
    made += [node("Conv", "x c.weight c.bias", "z"), node("Relu", "z", "r")]
    with pytest.raises(Unreadable, match=rf"has constants \({kind}: (k|three)\) that no layer"):
        graph(*made, node(kind, inputs, "y"))


def test_an_onnx_graph_that_onnxruntime_optimised_is_refused():
    domain = field(7, b"com.microsoft.nchwc")
    with pytest.raises(Unreadable, match=r"was optimised by ONNX Runtime \(Conv\)"):
        graph(CONV, node("Conv", "x c.weight c.bias", "y", domain))


def test_onnx_layers_come_in_the_order_of_the_branches():
    """Whatever the order of the nodes in the file."""
    names = ["pool", "one", "reduce", "three", "first"]
    made = [values(f"{name}.weight", [1], (1, 1, 1, 1)) for name in names]
    joined = node("Concat", "a c d", "y")
    nodes = [
        node("Conv", "x first.weight", "f"),
        node("Conv", "p pool.weight", "d"),
        node("Conv", "b three.weight", "c"),
        node("MaxPool", "f", "p"),
        node("Conv", "f reduce.weight", "b"),
        node("Conv", "f one.weight", "a"),
    ]
    wanted = ["first", "one", "reduce", "three", "pool"]
    for order in ([joined, *nodes], [*reversed(nodes), joined]):
        found = graph(*made, *order).arrays
        assert [name[:-7] for name in found if name.endswith(".weight")] == wanted
    nodes.append(node("Conv", "y loose.weight", "nothing"))
    found = graph(*made, values("loose.weight", [1], (1, 1, 1, 1)), *nodes, joined).arrays
    assert [name[:-7] for name in found if name.endswith(".weight")] == [*wanted, "loose"]


def test_an_onnx_graph_that_goes_in_a_circle_ends():
    parts = [CONV, node("Conv", "b c.weight c.bias", "a"), node("Relu", "a", "b")]
    assert graph(*parts, results="a").arrays["c.weight"].shape == (2, 1, 1, 1)


def test_onnx_norms_of_several_eps_get_the_first():
    """One that is exact in evaluation: gamma / sqrt(var + eps) stays."""
    made, at = [CONV], "z"
    for name, eps in (("n", 0.1), ("m", 0.5)):
        for leaf, numbers in zip(NORM_LEAVES, ([1, 2], [3, 4], [5, 6], [7, 8]), strict=True):
            made.append(values(f"{name}.{leaf}", numbers))
        own = field(5, field(1, b"epsilon") + b"\x15" + struct.pack("<f", eps))
        inputs = " ".join(f"{name}.{leaf}" for leaf in NORM_LEAVES)
        made.append(node("BatchNormalization", f"{at} {inputs}", name, own))
        at = name
    found = graph(node("Conv", "x c.weight c.bias", "z"), *made, results="m")
    assert found.eps == float(np.float32(0.1))
    assert found.arrays["n.weight"].tolist() == [1, 2]
    kept = found.arrays["m.weight"] / np.sqrt(np.array([7, 8]) + found.eps)
    np.testing.assert_allclose(kept, np.array([1, 2]) / np.sqrt([7.5, 8.5]), 1e-6)


NORM_LEAVES = ("weight", "bias", "running_mean", "running_var")


def norm_config(*eps, **more):
    """The config of a Keras model with norms, as its files have it."""
    layers = [{"class_name": "BatchNormalization", "config": {"epsilon": each}} for each in eps]
    layers += [{"class_name": word, "config": {}} for word in more.get("words", ())]
    return json.dumps({"class_name": "Functional", "config": {"layers": layers}})


def keras_file(tmp_path, config, whole, **arrays):
    """A file of a Keras model: a .keras archive, or an .h5 with the config as an attribute."""
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        if whole == ".h5":
            file.attrs["model_config"] = config
        for name, array in {"conv2d/kernel": np.ones((1, 1, 1, 2), "f4"), **arrays}.items():
            file[name] = array
    if whole == ".h5":
        return path
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.write(path, "model.weights.h5")
        archive.writestr("config.json", config)
    return tmp_path / "model.keras"


@pytest.mark.parametrize("whole", [".h5", ".keras"])
def test_a_whole_keras_model_has_its_eps_and_says_what_scales_the_images(tmp_path, whole):
    found = sandbox.read_file(keras_file(tmp_path, norm_config(1e-5, 1e-5), whole))
    assert (found.eps, found.scales) == (1e-5, "")
    for word in ("Rescaling", "Normalization"):
        found = sandbox.read_file(keras_file(tmp_path, norm_config(0.1, words=[word]), whole))
        assert (found.eps, found.scales) == (0.1, word)
    with pytest.raises(WeightsError, match=r"several eps \(1e-05, 0.001\).* multiply each gamma"):
        sandbox.read_file(keras_file(tmp_path, norm_config(1e-3, 1e-5), whole))
    with pytest.raises(WeightsError, match="config of more than 10,000,000 bytes"):
        sandbox.read_file(keras_file(tmp_path, " " * 10**7 + "{}", whole))


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"center": False, "scale": True}, ["gamma", "moving_mean", "moving_variance"]),
        ({"center": True, "scale": False}, ["vars/1", "vars/2", "vars/3"]),
        ({"center": True}, ["vars/0", "vars/1", "vars/2"]),
    ],
)
def test_a_keras_config_says_which_vectors_a_norm_has(tmp_path, config, wanted):
    """Also where a gamma is not positive."""
    layer = {"class_name": "BatchNormalization", "config": config}
    vectors = {f"layers/batch_normalization/vars/{at}": np.zeros(2) - at for at in range(3)}
    path = keras_file(tmp_path, json.dumps({"layers": [layer]}), ".keras", **vectors)
    found = sandbox.read_file(path).arrays
    names = [f"layers/batch_normalization/{word}" for word in wanted]
    assert {*found} == {*names, "conv2d/kernel"}
    assert [found[name][0] for name in names] == [0, -1, -2]


def test_keras_weights_alone_tell_of_a_normalization_layer_too(tmp_path):
    for name, seen in (("normalization_1/vars/2", "Normalization"), ("batch_normalization/m", "")):
        path = keras_file(tmp_path, "", ".h5", **{f"layers/{name}": np.float32(1)})
        assert sandbox.read_file(path).scales == seen


@pytest.mark.parametrize("file", ["export", "old"])
def test_paddle_s_exported_parameters_have_the_names_of_the_program(tmp_path, file):
    """`.json` since Paddle 3, `.pdmodel` before."""
    words = {"0": "conv2d_0", "1": "batch_norm2d_0", "2": "linear_0"}
    leaves = {"weight": "w_0", "bias": "b_0", "running_mean": "w_1", "running_var": "w_2"}
    found = sandbox.read_file(make_weight_files.PROGRAMS / f"{file}.pdiparams")
    for name, array in make_weight_files.values().items():
        own = found.arrays.pop(f"{words[name[0]]}.{leaves[name[2:]]}")
        np.testing.assert_array_equal(own.T if name == "2.weight" else own, array)
    assert not found.arrays
    alone = tmp_path / "alone.pdiparams"
    alone.write_bytes((make_weight_files.PROGRAMS / f"{file}.pdiparams").read_bytes())
    with pytest.raises(WeightsError, match=r"put its \.pdmodel or \.json file beside it"):
        sandbox.read_file(alone)


@pytest.mark.parametrize(
    ("kind", "values", "refused"),
    [
        (4, np.array([1, 2, 3], "f2"), ""),
        (5, np.array([1, 2, 3], "f4"), ""),
        (6, np.array([1, 2, 3], "f8"), ""),
        (22, np.array([0x3F80, 0x4000, 0x4040], "u2"), ""),  # the upper half of a float32
        (0, np.array([1, 1, 0], "?"), "bool"),
        (2, np.array([1, 2, 3], "i4"), "int32"),
        (3, np.array([1, 2, 3], "i8"), "int64"),
        (20, np.array([1, 2, 3], "u1"), "uint8"),
        (21, np.array([1, 2, 3], "i1"), "int8"),
    ],
)
def test_every_type_of_a_paddle_parameter_is_known(tmp_path, kind, values, refused):
    """The numbers are those of framework.proto."""
    described = field(1, kind) + field(2, 3)
    start = bytes(16) + struct.pack("<i", len(described))
    path = tmp_path / "a.pdiparams"
    path.write_bytes(start + described + values.tobytes())
    path.with_suffix(".json").write_bytes(b'["linear_0.w_0"]')
    if refused:
        with pytest.raises(Unreadable, match=f"holds {refused} under 'linear_0.w_0'"):
            detect.parse(path)
    else:
        assert detect.parse(path).arrays["linear_0.w_0"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (b'["conv2d_0.w_0"]', "holds 8 parameters, and the program beside it names 1"),
        (b"{" * 10**5, "is cut or damaged"),
        (b"[" * 10**6, "is cut or damaged|more than 1 GB|crashed"),
    ],
)
def test_a_program_that_lies_is_refused(tmp_path, program, said):
    path = tmp_path / "a.pdiparams"
    path.write_bytes((make_weight_files.PROGRAMS / "export.pdiparams").read_bytes())
    (tmp_path / "a.json").write_bytes(program)
    with pytest.raises(WeightsError, match=said):
        sandbox.read_file(path)


def test_cut_parameters_of_paddle_are_refused_wherever_they_were_cut(tmp_path):
    from common.formats.readers.program import read_parameters

    data = (make_weight_files.PROGRAMS / "export.pdiparams").read_bytes()
    (tmp_path / "a.json").write_bytes((make_weight_files.PROGRAMS / "export.json").read_bytes())
    path = tmp_path / "a.pdiparams"
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises((Unreadable, ValueError, struct.error)):
            read_parameters(path)


NOT_READ = [
    ("ckpt.index", b"\0" * 40, "TensorFlow checkpoint"),
    ("ckpt.data-00000-of-00001", b"\1" * 40, "TensorFlow checkpoint"),
    ("saved_model.pb", b"\x08\x01" * 20, "TensorFlow graph"),
    ("bvlc_googlenet.caffemodel", b"\x0a\x09GoogleNet" + bytes(64), "Caffe"),
    ("m.pdopt", b"x" * 40, "Paddle optimizer"),
    ("m.tar", b"x" * 40, "unpack it"),
    ("m.npy", b"\x93NUMPY\x01\x00v\x00" + b" " * 40, r"\.npy"),
    ("m.onnx", b"\x08\x08\x12\x07pytorch\x1a\x052.1.0", "ONNX file without a graph"),
    ("m.safetensors.index.json", b'{"metadata": {}, "weight_map": {}}', "several files: join"),
    ("m.weights.json", b'{"metadata": {}, "weight_map": {}}', "write `model.save_weights"),
    ("__0_0.distcp", archive(entry(tensor())), "dcp_to_torch FOLDER all.pt"),
    (".metadata", pickle.dumps({}, 2), "dcp_to_torch FOLDER all.pt"),
    ("m.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ("m.pt", b"<!DOCTYPE html>\n<html></html>", "a web page, not weights"),
    ("n.pt", b"\n<html><head>", "a web page, not weights"),
    ("p.pt", b"\x1f\x8b" + bytes(40), "is compressed: unpack it"),
]


@pytest.mark.parametrize(("name", "data", "said"), NOT_READ, ids=[each[0] for each in NOT_READ])
def test_what_is_not_read_is_named_with_the_way_out(tmp_path, name, data, said):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(WeightsError, match=said):
        sandbox.read_file(tmp_path / name)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("torch._utils", "_rebuild_qtensor"), "is quantised"),
        (("torch.nn.parameter", "UninitializedParameter"), "lazy layers without weights"),
        (("torchvision.models.googlenet", "GoogLeNet"), "save only the network's state_dict"),
        (("builtins", "eval"), "asks for 'builtins.eval'"),
    ],
)
def test_what_a_pickle_asks_for_decides_the_sentence(asked, said):
    assert said in refusal(archive(hostile.name(*asked) + b")R."))
    beside = b"\x80\x02}(" + hostile.unicode("w") + tensor() + hostile.unicode("x")
    beside += hostile.name(*asked) + b")Ru."
    if asked[1] == "GoogLeNet":  # an object beside the weights
        assert list(parse(archive(beside)).arrays) == ["w"]
    else:
        assert said in refusal(archive(beside))


def test_whole_numbers_and_scalars_beside_the_weights_are_left_out():
    """In every format; int8 weights are quantised."""
    header = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    header["n"] = {"dtype": "I64", "shape": [], "data_offsets": [8, 16]}
    found = parse(hostile.safetensors(header, bytes(16)))
    assert list(found.arrays) == ["a"]
    one = {"a": np.ones(2, np.float32), "n_averaged": np.int64(3), "loss": np.float32(1)}
    one |= {"names": ["a"], "epoch": 3, "optimizer": {7: {"b": np.ones(2, np.float32)}}}
    one |= {"inner": {"c": np.ones((2, 2), np.float32), "n": np.arange(3)}}
    one |= {"image": np.ones((2, 2), np.uint8)}
    for protocol in (2, 4, 5):
        found = parse(pickle.dumps(one, protocol))
        assert list(found.arrays) == ["a", "inner.c"]
        assert not found.unread
    for kind in (np.int8, np.uint8):
        assert "is quantised" in refusal(pickle.dumps({"a": np.ones((2, 2), kind)}, 4))


ONE = np.ones(2, np.float32)
ODD = {
    "text": np.array(["a", "b"]),
    "objects": np.array([{}, None], object),
    "random state": np.zeros(2, np.uint32),
    "dates": np.zeros(2, "M8[s]"),
    "records": np.zeros(2, [("名", "f4")]),
    "nothing": np.zeros(0, np.float32),
    "complex": np.zeros(2, np.complex64),
}
ODD_HEADERS = {
    kind: {"dtype": kind, "shape": [1], "data_offsets": [8, 8 + size]}
    for kind, size in {"BOOL": 1, "I16": 2, "U16": 2, "C64": 8, "F8_E4M3": 1, "F8_E5M2": 1}.items()
}


@pytest.mark.filterwarnings("ignore:Stored array in format 3.0")
@pytest.mark.parametrize("what", ODD)
def test_an_array_of_anything_else_beside_the_weights_is_left_out(what):
    for protocol in (2, 4, 5):
        found = parse(pickle.dumps({"a": ONE, "b.weight": ODD[what]}, protocol))
        assert list(found.arrays) == ["a"]
        assert "under 'b.weight'" in found.unread
        if what != "nothing":
            assert "under 'b'" in refusal(pickle.dumps({"b": ODD[what]}, protocol))
    file = io.BytesIO()
    np.savez(file, **{"a": ONE, "b.weight": ODD[what], "n": 3})
    found = parse(file.getvalue())
    assert list(found.arrays) == ["a"]
    assert ("under 'b.weight'" in found.unread) == (what != "nothing")


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_a_matrix_beside_the_weights_is_left_out():
    assert list(parse(pickle.dumps({"a": ONE, "b": np.matrix(ONE)}, 4)).arrays) == ["a"]


@pytest.mark.parametrize("kind", ODD_HEADERS)
def test_a_safetensors_tensor_of_another_type_is_left_out(kind):
    header = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    header["b.weight"] = ODD_HEADERS[kind]
    found = parse(hostile.safetensors(header, bytes(ODD_HEADERS[kind]["data_offsets"][1])))
    assert list(found.arrays) == ["a"]
    assert f"holds {kind} under 'b.weight'" in found.unread


def test_big_endian_numbers_are_read():
    values = np.array([1, 2], ">f4")
    for data in (hostile.npz(values), pickle.dumps({"a": values}, 2), pickle.dumps({"a": values})):
        found = parse(data.replace(b"\x80\x05", b"\x80\x04", 1)).arrays["a"]
        assert found.tolist() == [1, 2]
        assert found.dtype == np.float32


def test_float8_of_pytorch_is_named_with_the_reason():
    """PyTorch stores it by `_rebuild_tensor_v3`, which gets the type as an argument."""
    storage = b"(" + hostile.unicode("storage") + hostile.name("torch.storage", "UntypedStorage")
    storage += hostile.unicode("0") + hostile.unicode("cpu") + hostile.number(2) + b"tQ"
    eight = hostile.name("torch._utils", "_rebuild_tensor_v3") + b"(" + storage
    eight += b"K\0K\x02\x85K\x01\x85\x89)" + hostile.name("torch", "float8_e4m3fn") + b"tR"
    state = hostile.unicode("bias") + tensor() + hostile.unicode("c.weight") + eight
    found = parse(archive(b"\x80\x02}(" + state + b"u."))
    assert list(found.arrays) == ["bias"]
    assert found.unread.startswith("holds 'torch.float8_e4m3fn' under 'c.weight': save only")
    assert "float8_e4m3fn" in refusal(archive(entry(eight, "c.weight")))


def test_why_a_weight_is_not_read_leaves_the_process_that_reads(tmp_path):
    state = {"bias": ONE, "c.weight": np.ones((2, 2), np.int8)}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(state, 4))
    assert "it is quantised" in sandbox.read_file(tmp_path / "a.pkl").unread


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("conv.weight_mask", "torch.nn.utils.prune.remove(layer, 'weight')"),
        ("conv.weight_g", "torch.nn.utils.remove_weight_norm(layer)"),
        ("head.weight_u", "torch.nn.utils.remove_spectral_norm(layer)"),
        (
            "conv.parametrizations.weight.original0",
            "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')",
        ),
    ],
)
def test_a_parametrized_weight_is_named_with_what_removes_it(name, function):
    found = parse(pickle.dumps({"conv.bias": ONE, name: ONE}, 4))
    assert found.unread.startswith(f"has {name!r}: call `{function}`")


def test_a_pickle_of_pytorch_s_own_tensors_says_how_to_write_it():
    loaded = hostile.name("torch.storage", "_load_from_bytes") + b"C\1x\x85R"
    made = hostile.name("torch._utils", "_rebuild_tensor_v2") + b"(" + loaded
    made += b"K\0K\x02\x85K\x01\x85\x89)tR"
    assert "`torch.save(net.state_dict(), FILE)`" in refusal(entry(made, "c.weight"))


def test_several_networks_at_the_top_are_read_under_numbers():
    """Of several folds, or of an ensemble; not an optimizer's state, nor a list far below."""
    state, other = {"a": ONE}, {"a": 2 * ONE}
    step = {"exp_avg": ONE}
    one = {0: state, 1: other, "models": [other, state, 3], "param_groups": [{"lr": ONE}]}
    one |= {"optimizer": {"state": {0: step}, "list": [step]}, 7: ONE, "losses": [0.5] * 3}
    found = parse(pickle.dumps(one, 4)).arrays
    assert list(found) == ["0.a", "1.a"]  # each dict once
    del one[0], one[1]
    found = parse(pickle.dumps(one, 4)).arrays
    assert list(found) == ["models.0.a", "models.1.a"]
    assert found["models.0.a"].tolist() == [2, 2]
    inside = b"\x80\x02}(" + hostile.unicode("a") + tensor() + b"u"
    assert list(parse(archive(entry(b"](" + inside[2:] + b"e", "models"))).arrays) == ["models.0.a"]


def test_a_long_history_beside_the_weights_is_left_out():
    """250,000 losses, a list of 30,000 dicts, and names of 20,000 classes."""
    one = {"losses": [0.5] * 250_000, "history": [{"loss": 1.0} for _ in range(30_000)]}
    one |= {"classes": {f"class {n}": n for n in range(20_000)}, "a": ONE}
    assert list(parse(pickle.dumps(one, 2)).arrays) == ["a"]


def test_a_list_under_many_keys_is_looked_into_once():
    """Else 60,000 keys of one list of 60,000 values would take minutes."""
    shared = [0.5] * 60_000
    one = {f"k{n}": shared for n in range(60_000)}
    assert list(parse(pickle.dumps({**one, "a": ONE}, 4)).arrays) == ["a"]


def test_names_may_be_in_any_language(tmp_path, monkeypatch):
    """Also where the system's own characters are not UTF-8."""
    one = {"模型": {"卷积.weight": ONE}, "超参数": {"学习率": 0.1}, "café": ONE}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(one, 4))
    assert list(sandbox.read_file(tmp_path / "a.pkl").arrays) == ["模型.卷积.weight", "café"]
    (tmp_path / "b.pkl").write_bytes(pickle.dumps({"模型": 3}, 4))
    for code in ("utf-8", "gbk", "latin-1"):
        monkeypatch.setenv("PYTHONIOENCODING", code)
        with pytest.raises(WeightsError, match="under '模型'"):
            sandbox.read_file(tmp_path / "b.pkl")


def test_an_npz_that_packs_well_is_read_and_a_bomb_is_not(monkeypatch):
    """A pruned network is mostly zeros."""
    file = io.BytesIO()
    np.savez_compressed(file, a=np.zeros(100_000, np.float32))
    assert len(file.getvalue()) < 4_000
    assert parse(file.getvalue()).arrays["a"].shape == (100_000,)
    monkeypatch.setattr(detect, "LARGEST", 400_000)
    assert "unpacks to 400,128 bytes" in refusal(file.getvalue())


def test_the_order_of_the_file_is_kept():
    assert list(sandbox.read_file(WEIGHT_FILES / "torch.pt").arrays) == list(
        make_weight_files.SHAPES
    )


def test_half_precision_is_widened_without_a_change():
    """All 65,536 bit patterns of a float16 and of a bfloat16; a NaN stays one."""
    bits = np.arange(2**16, dtype=np.uint16)
    half = parse(mxnet(shape=(2**16,), kind=2, data=bits.tobytes())).arrays["a"]
    np.testing.assert_array_equal(half, bits.view(np.float16).astype(np.float32))
    assert half.dtype == np.float32
    wide = parse(mxnet(shape=(2**16,), kind=12, data=bits.tobytes())).arrays["a"]
    assert wide.view(np.uint32).tolist() == [int(value) << 16 for value in bits]


def test_each_array_keeps_its_kind_but_half_precision():
    one, two = mxnet(words=(b"a", b"b")), mxnet(kind=1, data=np.array([1 / 3, 2]).tobytes())
    arrays, names = one[24:-26] + two[24:-17], one[-26:]  # a count, then names behind their lengths
    found = parse(one[:16] + (2).to_bytes(8, "little") + arrays + names)
    assert found.stored == "float32, float64"
    assert [array.dtype.name for array in found.arrays.values()] == ["float32", "float64"]
    assert found.arrays["b"].tolist() == [1 / 3, 2]


def test_a_run_s_checkpoint_gives_its_weights(tmp_path, monkeypatch):
    from common.data.sources import load
    from common.recipe import Recipe
    from common.training.checkpoint import Checkpoint, Config

    start = Checkpoint.first(Config.of(Recipe(spec="mini", size=33), "torch", load("sample")))
    path = tmp_path / "best.safetensors"
    path.write_bytes(start.encode())
    found = sandbox.read_file(path).arrays
    assert set(found) == set(start.weights)
    assert all((found[name] == array).all() for name, array in start.weights.items())


def test_bfloat16_of_a_safetensors_file_is_read():
    header = {"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    found = parse(hostile.safetensors(header, b"\x80\x3f\x00\xc0"))
    assert found.arrays["a"].tolist() == [1, -2]
    assert found.stored == "bfloat16"


@pytest.mark.parametrize("kind", ["FloatStorage", "BFloat16Storage"])
def test_views_of_one_flat_buffer_are_read_and_the_buffer_once(tmp_path, kind):
    """300 views of one storage, 24 MB in float32: what a flattened optimizer leaves."""
    count, length = 300, 20_000
    values = np.arange(count * length, dtype=np.float32)
    if kind == "BFloat16Storage":
        values = (values.view(np.uint32) >> 16).astype(np.uint16)
    state = b"".join(
        hostile.unicode(f"t{n}") + tensor((100, 200), (200, 1), n * length, values.size, kind)
        for n in range(count)
    )
    path = tmp_path / "flat.pt"
    path.write_bytes(archive(b"\x80\x02}(" + state + b"u.", values.tobytes()))
    found = sandbox.read_file(path).arrays
    assert len(found) == count
    for n in (0, 1, count - 1):
        want = values[n * length : (n + 1) * length].reshape(100, 200)
        if kind == "BFloat16Storage":
            want = (want.astype(np.uint32) << 16).view(np.float32)
        np.testing.assert_array_equal(found[f"t{n}"], want)


# --- what is wrong with a file


@pytest.mark.parametrize("file", FILES)
def test_a_cut_file_is_refused_wherever_it_was_cut(file):
    data = (WEIGHT_FILES / file).read_bytes()
    for length in {*range(0, len(data) - 1, max(len(data) // 60, 1)), len(data) - 1}:
        refusal(data[:length])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty."),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "in none of the formats"),
        (b"hello, world, this is text", "in none of the formats"),
        (archive(b"").replace(b"data.pkl", b"config.j"), "torch.save did not write"),
        (pickle.dumps([1, 2]), "no dict of arrays"),
        (pickle.dumps({"a": 1}), "under 'a'"),
        (archive(entry(b"K\x01")), "under 'a'"),
        (b"PK\x03\x04 and then text", "is cut or damaged"),
    ],
)
def test_another_kind_of_file_is_refused(content, said):
    if content.startswith(b"\x80\x05"):
        content = content.replace(b"\x80\x05", b"\x80\x04", 1)
    assert said in refusal(content)


def test_a_folder_a_missing_and_a_special_file_are_refused(tmp_path):
    shards, distributed = tmp_path / "shards", tmp_path / "distributed"
    for folder, file in ((shards, "model.safetensors.index.json"), (distributed, ".metadata")):
        folder.mkdir()
        (folder / file).touch()
    for path, said in (
        (tmp_path, "is a folder"),
        (shards, "has its weights in several files: join them first, as `save_file"),
        (distributed, "dcp_to_torch FOLDER all.pt"),
        (tmp_path / "none", "is not there"),
        (Path("/dev/zero"), "not a regular file"),
    ):
        with pytest.raises(WeightsError, match=said):
            sandbox.read_file(path)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "huge.pt"
    with path.open("wb") as file:
        file.truncate(base.LARGEST + 1)
    with pytest.raises(WeightsError, match=r"holds 1,073,741,825 bytes"):
        sandbox.read_file(path)


# --- the process that reads


def alone(code, *words):
    """Run `code` in a process in which the limits of a small file hold."""
    code = f"from common import limits\nlimits.limit_memory(99)\nlimits.limit_seconds()\n{code}"
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
def test_the_budget_is_1_gb_and_10_seconds():
    code = "import resource as r\nfor what in ('AS', 'CPU', 'FSIZE', 'CORE'):"
    code += "\n print(*r.getrlimit(getattr(r, 'RLIMIT_' + what)))"
    memory, seconds, *others = (line.split() for line in alone(code).stdout.splitlines())
    if sys.platform == "linux":
        assert memory == [str(2**30)] * 2
    assert 10 < int(seconds[0]) <= 12
    assert others == [["0", "0"]] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not bound the address space")
def test_a_large_file_has_eight_times_its_size():
    code = "import resource as r; limits.limit_memory(2**28); print(*r.getrlimit(r.RLIMIT_AS))"
    code = f"from common import limits; {code}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == [str(2**31)] * 2


@pytest.fixture
def limited(monkeypatch):
    """Change the code of the process that reads."""
    run = subprocess.run

    def change(code):
        def start(command, **options):
            whole = f"from common import limits\nfrom common.formats import sandbox\n{code}\n"
            return run([sys.executable, "-c", f"{whole}sandbox.main()", command[-1]], **options)

        monkeypatch.setattr(sandbox.subprocess, "run", start)

    return change


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not bound the address space")
@pytest.mark.parametrize("what", ["safetensors", "archive"])
def test_a_memory_bomb_ends_with_a_sentence(tmp_path, limited, what):
    bombs = {
        "safetensors": hostile.safetensors(b'{"a":[' + b"[]," * 10**6 + b"1]}"),
        "archive": archive(  # tensors that overlap and are transposed, so each is a copy
            b"\x80\x02}("
            + b"".join(
                hostile.unicode(f"t{n}") + tensor((500, 500), (1, 500), count=250_000)
                for n in range(100)
            )
            + b"u.",
            bytes(10**6),
        ),
    }
    path = tmp_path / "bomb"
    path.write_bytes(bombs[what])
    limited("limits.MEMORY, limits.FACTOR = 180 * 2**20, 1")
    with pytest.raises(WeightsError, match=r"bomb needs more than 1 GB of memory, .*malicious\.$"):
        sandbox.read_file(path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_file_that_takes_too_long_ends_with_a_sentence(tmp_path, limited):
    path = tmp_path / "slow.pt"
    path.write_bytes(b"x")
    limited("def spin(path):\n while True: pass\nsandbox.parse, limits.SECONDS = spin, 0")
    with pytest.raises(WeightsError, match=r"slow\.pt takes more than 10 seconds to read: "):
        sandbox.read_file(path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not bound the address space")
def test_the_process_that_reads_has_little_memory(tmp_path):
    done = alone("bytearray(limits.MEMORY)")
    assert "MemoryError" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_the_process_that_reads_can_write_no_file(tmp_path):
    done = alone(
        "import sys\nwith open(sys.argv[1], 'w') as file: file.write('x')", str(tmp_path / "a")
    )
    assert "File too large" in done.stderr


def test_a_reader_that_hangs_or_dies_is_a_refusal(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    path.write_bytes((WEIGHT_FILES / "torch.pt").read_bytes())
    run = subprocess.run

    def instead(code):
        def start(command, **options):
            return run([sys.executable, "-c", code], **options)

        monkeypatch.setattr(sandbox.subprocess, "run", start)

    instead("import os; os.kill(os.getpid(), 11)")
    with pytest.raises(WeightsError, match=r"\(status -11\)"):
        sandbox.read_file(path)
    monkeypatch.setattr(sandbox, "WAIT", 0.2)
    instead("import time; time.sleep(600)")
    with pytest.raises(WeightsError, match=r"could not be read in 0\.2 seconds"):
        sandbox.read_file(path)


# --- the hostile corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    canary = tmp_path_factory.mktemp("canary") / "canary"
    return canary, hostile.corpus(canary)


@pytest.mark.parametrize("what", CORPUS)
def test_a_hostile_file_is_refused_and_nothing_of_it_runs(corpus, what):
    canary, files = corpus
    parse((WEIGHT_FILES / "keras.weights.h5").read_bytes())  # what is imported late is imported now
    with Watch() as watch:
        refusal(files[what])
    assert not watch.events
    assert not canary.exists()


@pytest.mark.parametrize(
    "what",
    [
        *("pickle: os.system, 4", "archive: os.system", "old torch: exec", "archive: a zip bomb"),
        *("mxnet: a huge shape", "safetensors: a deep header", "hdf5: bytes of another file"),
    ],
)
def test_a_hostile_file_is_refused_by_the_process_that_reads(corpus, tmp_path, what):
    canary, files = corpus
    path = tmp_path / "hostile.pt"
    path.write_bytes(files[what])
    with pytest.raises(WeightsError, match=f"^{re.escape(str(path))} .*[.]$"):
        sandbox.read_file(path)
    assert not canary.exists()
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("pickle: os.system, 4", "asks for 'posix.system', which no array needs"),
        ("archive: another class", "asks for '__torch__.googlenet.GoogLeNet', which no array"),
        ("pickle: a laugh as a name", "a name in its pickle is not text"),
        ("pickle: a laugh as a module", "a name in its pickle is not text"),
        ("pickle: many empty dicts", "has more than 1,000,000 operations"),
        ("pickle: many tensors", "has more than 10,000 tensors"),
        ("old torch: a laugh as a key", "a storage belongs to no tensor"),
        ("archive: a storage of two types", "a storage has two types or sizes"),
        ("mxnet: many small arrays", "has more than 10,000 tensors"),
        ("safetensors: a header longer than any", "has a header of more than 100,000,000 bytes"),
        ("safetensors: many tensors", "has more than 10,000 tensors"),
        ("hdf5: groups of many names", "has more than 10,000 tensors"),
        ("pickle: INST", "has the operation INST"),
        ("archive: a zip bomb", "compressed or overlapping entries"),
        ("archive: tensors that overlap", "its tensors overlap"),
        ("hdf5: a link to another file", "links 'a' to another place"),
        ("hdf5: bytes of another file", "compressed, elsewhere or not as numbers"),
        ("mxnet: many arrays", "it ends too early"),
        ("safetensors: a lie about its digest", "the SHA-256 that it names"),
        ("pickle: terminal codes in a name", "names are printable characters"),
        ("pickle: text from right to left in a name", "names are printable characters"),
    ],
)
def test_a_refusal_says_what_was_seen(corpus, what, said):
    if sys.platform == "win32":
        said = said.replace("posix", "nt")
    assert said in refusal(corpus[1][what])


@pytest.mark.parametrize("what", ["os.system", "eval", "exec", "subprocess", "open"])
def test_the_payloads_are_live(tmp_path, what):
    """Python's own unpickler runs them, so that the canary proves something."""
    canary = tmp_path / "canary"
    with Watch() as watch:
        found = pickle.loads(hostile.corpus(canary)[f"pickle: {what}, 4"])["a"]
    if what == "subprocess":
        found.wait()
    elif what == "open":
        found.close()
    assert canary.exists()
    assert watch.events


def test_what_the_hostile_tensors_are_made_of_is_right():
    """The builders of the corpus make files that are read, when nothing is wrong with them."""
    values = np.arange(2, dtype=np.float32)
    for data in (
        archive(entry(tensor()), values.tobytes()),
        mxnet(data=values.tobytes()),
        pickle.dumps({"a": values}, 4),
        pickle.dumps({"a": values}, 2),
        hostile.hdf5(lambda root: root.create_dataset("a", data=values)),
        hostile.safetensors(
            {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, values.tobytes()
        ),
        hostile.old_torch(
            entry(tensor()),
            b"\x80\x02]"
            + hostile.unicode("0")
            + b"a."
            + (2).to_bytes(8, "little")
            + values.tobytes(),
        ),
    ):
        assert parse(data).arrays["a"].tolist() == [0, 1]


def test_nothing_of_ours_reads_a_file_of_others_by_a_framework():
    """`torch.load` and its like stand in `load` of a backend alone, which gets our own files.

    Keras reads the file of a user's own network, when our reader has read it before.
    """
    readers = r"torch\.load|paddle\.load|load_model|\bnd\.load|npx\.load|pickle\.load|load_weights"
    readers += r"|load_parameters|allow_pickle|import pickle$"
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for folder in ("common", "backends")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line in path.read_text().splitlines()
        if re.search(readers, line)
    ]
    assert found == [
        "backends/mxnet/weights.py: model.load_parameters(str(path), "
        "ctx=model.head.weight.list_ctx())",
        "backends/paddle/weights.py: missing, unexpected = "
        "model.set_state_dict(paddle.load(str(path)))",
        "backends/tf/trace.py: self.parts().load_weights(path)",
        "backends/tf/weights.py: model.load_weights(path)",
        "backends/torch/weights.py: "
        'model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))',
    ]


# --- fuzzing


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_whatever_the_bytes_a_file_is_read_or_refused(kind):
    found = fuzz.run(kind, 150)
    assert sum(found.values()) >= 150
    assert {outcome.partition(":")[0] for outcome in found} <= {"read", "refused"}


def test_the_fuzzer_sees_what_must_not_happen(monkeypatch):
    """A reader that lets another exception through, or imports something, is seen."""
    data = mxnet()

    def fails(file):
        raise KeyError

    monkeypatch.setattr(detect, "parse_open", fails)
    with pytest.raises(KeyError):
        fuzz.attempt(data)
    found = base.File("torch", {}, "float32")
    monkeypatch.setattr(detect, "parse_open", lambda file: (os.system("true"), found)[1])
    with pytest.raises(fuzz.Lost, match=r"os\.system"):
        fuzz.attempt(data)


def test_a_file_of_our_own_is_known_by_its_content(tmp_path):
    save(tmp_path / "a", draw(MINI, 0), MINI)
    assert sandbox.read_file(tmp_path / "a").format == "safetensors"


class PaddleTensor:
    """Pickled as Paddle pickles a tensor in a dict of dicts: a `tuple` of its name and array."""

    def __init__(self, *pair):
        self.pair = pair

    def __reduce__(self):
        return tuple, (self.pair,)


@pytest.mark.parametrize("protocol", [2, 4])
def test_paddles_dicts_of_dicts_are_read(protocol, tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    checkpoint = {"model": {"head.weight": PaddleTensor("linear_0.w_0", array)}, "epoch": 3}
    checkpoint["odd"] = {"three": PaddleTensor("a", array, array), "none": PaddleTensor()}
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(checkpoint, protocol))
    found = sandbox.read_file(tmp_path / "a.pdparams").arrays
    assert list(found) == ["model.head.weight"]
    np.testing.assert_array_equal(found["model.head.weight"], array)
