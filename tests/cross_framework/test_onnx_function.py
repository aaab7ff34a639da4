"""ONNX files of others: the graph must compute the spec's function, in whatever form."""

from dataclasses import replace

import numpy as np
import pytest

from backends.numpy import GoogLeNet
from common.convert import onnx
from common.errors import WeightsError
from common.formats import sandbox
from common.formats.assumptions import assumptions
from common.formats.flow import SpecSteps, compare
from common.formats.identify import identify
from common.formats.readers.base import File
from common.parity.fixtures import draw_fixture
from common.parity.report import tensor_error
from common.spec import MINI, SPECS, TORCHVISION, divide_widths
from common.spec.networks import each_conv

PLAIN = replace(MINI, name="mini-plain", norm=None)
SIZE = 33


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.setitem(SPECS, PLAIN.name, PLAIN)


def made(spec=PLAIN):
    """A graph of ours whose names say nothing, as a protocol buffer, and its weights."""
    weights = draw_fixture(spec).weights
    model = onnx.package("onnx").load_from_string(onnx.encode(spec, weights))
    return model, weights


def nodes(model, kind):
    return [node for node in model.graph.node if node.op_type == kind]


def change(model, kind, which, to="", **attributes):
    """Give a node another operator, or other attributes."""
    package = onnx.package("onnx")
    node = nodes(model, kind)[which]
    node.op_type = to or kind
    kept = [each for each in node.attribute if each.name not in attributes and not to]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(
        package.helper.make_attribute(name, value)
        for name, value in attributes.items()
        if value is not None
    )


def behind(model, kind, which, operator, *constants, first=True, **attributes):
    """Put a node behind another one."""
    package = onnx.package("onnx")
    node = nodes(model, kind)[which]
    names = []
    for value in constants:
        names.append(f"constant{len(model.graph.initializer)}")
        array = np.asarray(value, np.int64 if operator == "Pad" and not names[1:] else np.float32)
        model.graph.initializer.append(package.numpy_helper.from_array(array, names[-1]))
    (output,) = node.output
    node.output[0] = f"{output} before"
    inputs = [node.output[0], *names] if first else [*names, node.output[0]]
    new = package.helper.make_node(operator, inputs, [output], "the new node", **attributes)
    index = list(model.graph.node).index(node)
    model.graph.node.insert(index + 1, new)
    return model.graph.node[index + 1]


def computed(node):
    """Let a node's last input come from a node, not from a constant of the file."""
    node.input[-1] = "computed"


def known_of(model, tmp_path, name=None, key=None):
    path = tmp_path / "it.onnx"
    path.write_bytes(model.SerializeToString())
    return identify(sandbox.read_file(path), name, "it.onnx", key)


def padded(model, pads, axes=None):
    """Put a Pad before the first convolution, which has no padding then."""
    change(model, "Conv", 0, pads=[0] * 4)
    package = onnx.package("onnx")
    constants = {"pads": pads} | ({"axes": axes} if axes else {})
    for name, value in constants.items():
        model.graph.initializer.append(package.numpy_helper.from_array(np.array(value), name))
    inputs = ["images", "pads", *(["", "axes"] if axes else [])]
    model.graph.node.insert(0, package.helper.make_node("Pad", inputs, ["padded"], "the new node"))
    nodes(model, "Conv")[0].input[0] = "padded"


OTHER = {
    "a Sigmoid": (lambda m: change(m, "Relu", 3, "Sigmoid"), "`Sigmoid` where .* has a ReLU"),
    "a LeakyRelu": (lambda m: change(m, "Relu", 3, "LeakyRelu"), "`LeakyRelu` where"),
    "a limit": (lambda m: change(m, "Relu", 3, "Clip", min=0.0, max=6.0), "most 6 where"),
    "no ReLU": (lambda m: change(m, "Relu", 3, "Identity"), "a convolution where .* has a ReLU"),
    "a negation": (lambda m: behind(m, "Conv", 3, "Neg"), "the new node` is `Neg`"),
    "a power": (lambda m: behind(m, "Relu", 3, "Pow", 2.0), "`Pow` by 2 where"),
    "a factor": (lambda m: behind(m, "Relu", 3, "Mul", 2.0), "a multiplication by 2 where"),
    "a divisor": (lambda m: behind(m, "Conv", 3, "Div", 2.0), "a multiplication by 0.5 where"),
    "a number added": (lambda m: behind(m, "Concat", 0, "Add", 0.5), "`Add` by 0.5"),
    "turned maps": (
        lambda m: behind(m, "Conv", 3, "Transpose", perm=[0, 1, 3, 2]),
        "`Transpose` with perm",
    ),
    "a computed limit": (
        lambda m: (
            change(m, "Relu", 3, "Identity"),
            computed(behind(m, "Identity", 0, "Clip", 0.0, 6.0)),
        ),
        "`Clip` with most a computed number where",
    ),
    "an operator of one's own": (
        lambda m: nodes(m, "Relu")[3].__setattr__("domain", "my.ops"),
        "ops::Relu` where",
    ),
    "a cut image": (
        lambda m: (
            change(m, "Conv", 2, pads=[2] * 4),
            behind(m, "Relu", 1, "Pad", [0, 0, -1, -1] * 2),
        ),
        "a padding with 0.0 where",
    ),
    "a padding of some axes": (
        lambda m: padded(m, [1, 2, 3, 4], [-1, 2]),
        "has padding 2 x 1 x 4 x 3 where stage1.0.conv has 3",
    ),
    "a padding of channels": (lambda m: padded(m, [1, 1], [1]), "`Pad` with pads"),
    "a mean of some pixels": (
        lambda m: (
            change(m, "GlobalAveragePool", 0, "Identity"),
            behind(m, "Identity", 0, "ReduceMean", axes=[-1]),
        ),
        "`ReduceMean` where",
    ),
    "a stride": (lambda m: change(m, "Conv", 0, strides=[1, 1]), "has stride 1 where .* has 2"),
    "a padding": (lambda m: change(m, "Conv", 2, pads=[0] * 4), "has padding 0 where .* has 1"),
    "TensorFlow's padding": (
        lambda m: change(m, "Conv", 0, pads=[2, 2, 3, 3]),
        "has padding 2 x 2 x 3 x 3 where stage1.0.conv has 3",
    ),
    "TensorFlow's padding, by its name": (
        lambda m: change(m, "Conv", 0, pads=None, auto_pad="SAME_UPPER"),
        "has padding SAME_UPPER, which depends on the size of the images where",
    ),
    "a dilation": (
        lambda m: change(m, "Conv", 2, dilations=[2, 2]),
        "has dilation 2 where .* has 1",
    ),
    "a pool rounded up": (lambda m: change(m, "MaxPool", 0, ceil_mode=1), "does round its size up"),
    "an average": (
        lambda m: change(
            *(m, "MaxPool", 0, "AveragePool"), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
        ),
        "an average pool where .* has a max pool",
    ),
    "a maximum over the map": (
        lambda m: change(m, "GlobalAveragePool", 0, "GlobalMaxPool"),
        "`GlobalMaxPool` where",
    ),
    "branches in another order": (
        lambda m: nodes(m, "Concat")[0].input.insert(0, nodes(m, "Concat")[0].input.pop()),
        "where .* has",
    ),
    "a branch on another input": (
        lambda m: nodes(m, "MaxPool")[2].input.__setitem__(0, nodes(m, "Relu")[2].output[0]),
        "where .* has",
    ),
}


@pytest.mark.parametrize(("edit", "said"), OTHER.values(), ids=OTHER)
@pytest.mark.parametrize("name", [None, PLAIN.name])
def test_a_graph_that_computes_something_else_is_refused(edit, said, name, tmp_path):
    """With the node and both values, also where the layers have our names."""
    model, _ = made()
    edit(model)
    with pytest.raises(WeightsError, match=f"another function than mini-plain: its node .*{said}"):
        known_of(model, tmp_path, name)


def test_a_name_in_the_file_is_only_a_text(tmp_path):
    model, _ = made()
    change(model, "Relu", 3, "Tanh")
    nodes(model, "Tanh")[0].name = "{spec}\n\x1b[31m" + "x" * 200
    with pytest.raises(
        WeightsError, match=r"its node `\{spec\}\[31mx{70}` is `Tanh` where"
    ) as raised:
        known_of(model, tmp_path)
    assert str(raised.value).isprintable()


def mean_of_a_row(model):
    """As PyTorch exports `x.flatten(2).mean(-1)`."""
    change(model, "GlobalAveragePool", 0, "Reshape")
    shape = onnx.package("onnx").numpy_helper.from_array(np.array([0, 0, -1]), "row")
    model.graph.initializer.append(shape)
    nodes(model, "Reshape")[0].input.append("row")
    behind(model, "Reshape", 0, "ReduceMean", axes=[-1], keepdims=0)


def relu_behind_the_concatenation(model):
    for name in nodes(model, "Concat")[0].input:
        (node,) = [node for node in model.graph.node if name in node.output]
        node.op_type = "Identity"
    behind(model, "Concat", 0, "Relu")


SAME = {
    "nothing": lambda m: None,
    "an Identity": lambda m: behind(m, "Conv", 1, "Identity"),
    "a Cast": lambda m: behind(m, "Relu", 1, "Cast", to=1),
    "a Dropout": lambda m: behind(m, "Flatten", 0, "Dropout"),
    "a ReLU twice": lambda m: behind(m, "Relu", 1, "Relu"),
    "a ReLU behind a pool": lambda m: behind(m, "MaxPool", 1, "Relu"),
    "a ReLU as a Clip": lambda m: (
        change(m, "Relu", 1, "Identity"),
        behind(m, "Identity", 0, "Clip", 0.0),
    ),
    "a ReLU behind the concatenation": relu_behind_the_concatenation,
    "a Pad before a convolution": lambda m: padded(m, [0, 0, 3, 3, 0, 0, 3, 3]),
    "a Pad of some axes": lambda m: padded(m, [3] * 4, [-1, 2]),
    "a pool of stride 1 rounded up": lambda m: change(m, "MaxPool", 2, ceil_mode=1),
    "a padding by its name": lambda m: change(m, "Conv", 2, pads=None, auto_pad="SAME_UPPER"),
    "a mean by its axes": lambda m: change(
        m, "GlobalAveragePool", 0, "ReduceMean", axes=[-1, 2], keepdims=1
    ),
    "a mean of a row": mean_of_a_row,
    "a reshaping": lambda m: (
        change(m, "Flatten", 0, "Squeeze"),
        behind(m, "Squeeze", 0, "Flatten"),
    ),
    "a factor of a Gemm": lambda m: change(m, "Gemm", 0, transB=1, alpha=2.0, beta=0.5),
    "constants for each channel": lambda m: behind(
        m, "Conv", 1, "Mul", np.linspace(0.5, 2, 8).reshape(1, 8, 1, 1)
    ),
}


@pytest.mark.parametrize("edit", SAME.values(), ids=SAME)
def test_the_same_function_in_another_form_is_read(edit, tmp_path):
    """onnxruntime computes with the graph what the reference computes with the weights."""
    model, _ = made()
    edit(model)
    if nodes(model, "ReduceMean"):
        model.opset_import[0].version = 13  # where axes are an attribute
        model.ir_version = 7
    if any(len(node.input) == 4 for node in nodes(model, "Pad")):
        model.opset_import[0].version = 18  # where a Pad may name its axes
    known = known_of(model, tmp_path, PLAIN.name)
    x = np.random.RandomState(1).standard_normal((2, 1, SIZE, SIZE)).astype(np.float32)
    want = onnx.run(tmp_path / "it.onnx", x)
    assert tensor_error(GoogLeNet(known.spec, known.weights).forward(x)["head"], want) < 1e-5


def test_a_key_is_no_obstacle(tmp_path):
    model, weights = made()
    for tensor in model.graph.initializer:
        for node in model.graph.node:
            node.input[:] = [f"model.{n}" if n == tensor.name else n for n in node.input]
        tensor.name = f"model.{tensor.name}"
    known = known_of(model, tmp_path, key="model")
    np.testing.assert_array_equal(known.weights["head.weight"], weights["head.weight"])
    with pytest.raises(WeightsError, match="holds nothing under 'other'"):
        known_of(model, tmp_path, key="other")


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ({}, "times 0.5, 1.5, 2.5 plus 0"),
        ({"Sub": [0.1, 0.2, 0.3], "Div": [0.5, 0.25, 0.125]}, "times 1, 6, 20 plus -0.1, -1.2, -6"),
    ],
)
def test_images_that_are_scaled_channel_by_channel_are_reported(before, said, tmp_path):
    """As PyTorch exports torchvision's `transform_input`, also behind a normalisation."""
    model, _ = made(PLAIN.at(channels=3))
    package = onnx.package("onnx")
    constants = {"axis": np.array([1])}
    nodes_, parts, images = [], [], "images"
    for kind, values in before.items():
        constants[kind] = np.float32(values).reshape(3, 1, 1)
        nodes_.append(package.helper.make_node(kind, [images, kind], [f"{kind}ed"]))
        images = f"{kind}ed"
    for channel, by in enumerate((0.5, 1.5, 2.5)):
        constants |= {f"i{channel}": np.array(channel), f"by{channel}": np.float32(by)}
        for kind, inputs, output, p in (
            ("Gather", [images, f"i{channel}"], f"a{channel}", {"axis": 1}),
            ("Unsqueeze", [f"a{channel}", "axis"], f"b{channel}", {}),
            ("Mul", [f"b{channel}", f"by{channel}"], f"c{channel}", {}),
        ):
            nodes_.append(package.helper.make_node(kind, inputs, [output], **p))
        parts.append(f"c{channel}")
    nodes_.append(package.helper.make_node("Concat", parts, ["scaled"], axis=1))
    nodes(model, "Conv")[0].input[0] = "scaled"
    for number, node in enumerate(nodes_):
        model.graph.node.insert(number, node)
    for name, value in constants.items():
        model.graph.initializer.append(package.numpy_helper.from_array(value, name))
    notes = known_of(model, tmp_path, PLAIN.name).notes
    assert any(f"scales its images first ({said})" in note for note in notes)


@pytest.mark.parametrize("order", [(0, 2, 1), (1, 2, 0)])
def test_the_results_may_come_in_any_order(order):
    """torchvision returns its second auxiliary head before the first."""
    spec = SPECS["googlenet-paper"]
    steps = SpecSteps(spec, False, False)
    steps.results = [steps.results[number] for number in order]
    found = compare(steps, spec, False, True)
    assert found.difference == ""
    assert all(one == other for one, other in found.layers.items())


@pytest.mark.parametrize(("outputs", "refused"), [(1, False), (5, True)])
def test_a_norm_that_trains_is_refused_in_every_opset(outputs, refused, tmp_path):
    """Before opset 14 it has more outputs."""
    model, _ = made(MINI)
    for number, node in enumerate(nodes(model, "BatchNormalization")):
        node.output.extend(f"more {number} {each}" for each in range(1, outputs))
    if not refused:
        assert known_of(model, tmp_path, "mini").spec.name == "mini"
        return
    with pytest.raises(WeightsError, match="has training yes where"):
        known_of(model, tmp_path, "mini")


@pytest.mark.parametrize(("kind", "axis"), [("Softmax", 1), ("LogSoftmax", -1)])
def test_a_softmax_at_the_end_is_left_out_with_a_sentence(kind, axis, tmp_path):
    model, weights = made()
    behind(model, "Gemm", 0, kind, axis=axis)
    known = known_of(model, tmp_path)
    assert f"It ends in a {kind}, which is left out." in known.notes
    np.testing.assert_array_equal(known.weights["head.weight"], weights["head.weight"])


def test_what_the_graph_says_is_not_assumed(tmp_path):
    model, _ = made(MINI)
    known = known_of(model, tmp_path)
    lines = assumptions(known, sandbox.read_file(tmp_path / "it.onnx"))
    assert [line.split(":")[0] for line in lines] == ["norm", "input"]
    assert len(assumptions(known, File("torch", known.weights, "float32"))) > 2


def test_a_last_pool_of_a_fixed_size_is_the_mean_with_a_sentence(tmp_path):
    model, _ = made()
    change(model, "GlobalAveragePool", 0, "AveragePool", kernel_shape=[2, 2])
    assert any("of 2 x 2 pixels" in note for note in known_of(model, tmp_path).notes)


def test_another_spec_that_computes_the_function_is_named(tmp_path, monkeypatch):
    model, _ = made()
    pool = replace(PLAIN.stage1[1], stride=1)
    other = replace(PLAIN, name="other", stage1=(PLAIN.stage1[0], pool))
    monkeypatch.setitem(SPECS, "other", other)
    with pytest.raises(WeightsError, match=r"has stride 2 .*; it is mini's: leave out `--spec`"):
        known_of(model, tmp_path, "other")


def test_norms_that_an_exporter_folded_are_read_where_names_say_nothing(tmp_path, monkeypatch):
    """torchvision's convolutions have no bias: the exporter's become the betas of the norms."""
    stages = {name: divide_widths(rows, 8) for name, rows in TORCHVISION.stages()}
    spec = replace(TORCHVISION, name="thin", input=(3, 64, 64), norm=None, **stages)
    monkeypatch.setitem(SPECS, "thin", replace(spec, norm=TORCHVISION.norm))
    biased = {
        n: each_conv(rows, lambda conv: replace(conv, bias=True)) for n, rows in spec.stages()
    }
    model, _ = made(replace(spec, name="folded", **biased))
    for index, tensor in enumerate(model.graph.initializer):
        for node in model.graph.node:
            inputs = [f"t{index}" if name == tensor.name else name for name in node.input]
            node.input[:] = inputs
        tensor.name = f"t{index}"
    known = known_of(model, tmp_path)
    assert known.spec.name == "thin"
    x = np.random.RandomState(1).standard_normal((2, 3, 64, 64)).astype(np.float32)
    want = onnx.run(tmp_path / "it.onnx", x)
    assert tensor_error(GoogLeNet(known.spec, known.weights).forward(x)["head"], want) < 1e-5
