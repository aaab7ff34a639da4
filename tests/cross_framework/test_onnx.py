"""ONNX files: onnxruntime computes the reference's function of every spec."""

import numpy as np
import pytest
from small_specs import EVERY  # in tests/support

from backends.numpy import GoogLeNet
from common.cli.app import main
from common.convert import onnx
from common.formats import sandbox
from common.formats.identify import identify
from common.parity.fixtures import draw_fixture
from common.parity.mutations import SMALL_AUX
from common.parity.report import tensor_error
from common.spec import MINI, SPECS
from common.weights import draw, save, sha256

#: the sizes of images, by the beginning of a name; the last for all others
SIZES = {
    "paddle-vision": 189,
    "googlenet-paper": 224,
    "inception-v3-aux": 299,
    "inception-v3-imagenet-aux": 299,
    "inception": 107,
    "bn-inception": 96,
    "": 49,
}


@pytest.mark.parametrize(
    ("name", "wide"),
    [*EVERY.items(), ("inception-v3", SPECS["inception-v3"])],
    ids=[*EVERY, "inception-v3 with all its widths"],
)
def test_onnxruntime_agrees_with_the_reference(tmp_path, monkeypatch, name, wide):
    monkeypatch.setitem(SPECS, name, wide)  # where its own names are looked up
    size = next(size for beginning, size in SIZES.items() if name.startswith(beginning))
    network = wide.at(size=size, channels=3, classes=7)
    weights = draw_fixture(network).weights
    path = tmp_path / "network.onnx"
    path.write_bytes(onnx.encode(network, weights))
    x = np.random.RandomState(1).standard_normal((3, *network.input)).astype(np.float32)
    expected = GoogLeNet(network, weights).forward(x)
    assert tensor_error(onnx.run(path, x), expected["head"]) < 1e-5
    for index, _ in enumerate(network.auxiliary):
        head = f"auxiliary.{index}"
        assert tensor_error(onnx.run(path, x, head), expected[head]) < 1e-5
    assert sha256(identify(sandbox.read_file(path), name, "it").weights) == sha256(weights)
    assert onnx.encode(network, weights) == path.read_bytes()
    if not network.auxiliary:  # then the graph takes other sizes too
        larger = network.at(size=size + 32)
        x = np.random.RandomState(2).standard_normal((1, *larger.input)).astype(np.float32)
        expected = GoogLeNet(larger, weights).forward(x)["head"]
        assert tensor_error(onnx.run(path, x), expected) < 1e-5


@pytest.mark.parametrize(
    ("spec", "dims"),
    [(MINI, ["N", 1, "height", "width"]), (SMALL_AUX.at(size=33), ["N", 1, 33, 33])],
    ids=["mini", "aux"],
)
def test_the_graph_names_the_sizes_of_images_that_may_change(spec, dims):
    model = onnx.package("onnx").load_from_string(onnx.encode(spec, draw(spec, 0)))
    found = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in found] == dims


def test_a_graph_whose_shapes_do_not_fit_is_not_written(monkeypatch):
    node = onnx.Graph.node

    def wrong(graph, kind, name, inputs, **attributes):
        attributes |= {"transB": 0} if kind == "Gemm" else {}
        return node(graph, kind, name, inputs, **attributes)

    monkeypatch.setattr(onnx.Graph, "node", wrong)
    with pytest.raises(Exception, match="ShapeInferenceError"):
        onnx.encode(MINI, draw(MINI, 0))


def test_float64_is_written_and_not_compared_where_nothing_runs_it(tmp_path, capsys):
    """onnxruntime has no float64 convolution."""
    weights = {n: array.astype(float) for n, array in draw_fixture(MINI).weights.items()}
    save(tmp_path / "a.safetensors", weights, MINI)
    words = ["convert", str(tmp_path / "a.safetensors"), str(tmp_path / "a.onnx")]
    assert main([*words, "--check"], standalone_mode=False) == 2
    assert "onnxruntime does not run" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    assert main(words, standalone_mode=False) is None
    known = identify(sandbox.read_file(tmp_path / "a.onnx"), None, "it")
    assert sha256(known.weights) == sha256(weights)
