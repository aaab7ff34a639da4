"""Names and layouts of others lead to the canonical ones, and what fits nothing is named."""

import io
from dataclasses import replace

import numpy as np
import pytest
from hostile import WEIGHT_FILES  # in tests/support
from named_files import layers_of, noise, refusal, written  # in tests/support
from small_specs import EVERY, NARROW  # in tests/support

from common import spec
from common.formats.downscale import redo_downscale_in_infer, undo_downscale_in_infer
from common.formats.identify import identify
from common.formats.naming import FORMATS, NAMINGS, PADDLE_VISION, belongs
from common.formats.readers.base import File
from common.formats.readers.detect import parse_open
from common.spec import (
    BLOG_224,
    D2L,
    D2L_BN,
    D2L_FACTORIZED,
    D2L_V2,
    MINI,
    SPECS,
    Conv,
    Norm,
    Spec,
    find,
)
from common.weights import shapes

#: onnx-folded.onnx has a norm that its exporter folded: test_readers.py
FILES = sorted(path for path in WEIGHT_FILES.iterdir() if path.name != "onnx-folded.onnx")


OTHERS = [find(name) for name in SPECS if name.startswith(("torchvision", "paddle-vision"))]
BOOK = [D2L, D2L_BN, BLOG_224, MINI, D2L_V2, D2L_FACTORIZED]
#: the others are in test_upstream.py, and have our names as these do
NETWORKS = [spec for name, spec in SPECS.items() if spec == EVERY[name]]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
@pytest.mark.parametrize("form", FORMATS)
def test_every_naming_of_every_spec_leads_back(form, network):
    """In any order, and to that spec and no other."""
    weights = noise(network)
    count = 0
    for naming, namings in NAMINGS[form].items():
        asked = network.name if network in OTHERS else None  # torchvision's has an equivalent
        for layers in namings(network) if belongs(naming, network) else ():
            if not {name.rpartition(".")[0] for name in weights} <= layers.keys():
                continue  # the naming has no word for some layer
            file = written(form, network, layers, weights)
            assert len(file.arrays) == len(weights), "two tensors have one name"
            file = File(form, dict(sorted(file.arrays.items())), "float32")
            known = identify(file, asked, "it")
            assert (known.spec, known.naming) == (network, naming)
            assert list(known.weights) == list(weights)
            scaled = naming == PADDLE_VISION
            expected = undo_downscale_in_infer(network, weights) if scaled else weights
            for name, array in expected.items():
                np.testing.assert_array_equal(known.weights[name], array)
            count += 1
            if network not in (MINI, D2L):
                break  # one of each naming will do
    assert count > (network in BOOK and form not in ("npz", "onnx"))


def test_the_heads_of_paddle_vision_are_scaled_by_what_their_dropout_keeps():
    network = find("paddle-vision")
    ones = {name: np.ones(shape, np.float32) for name, shape in shapes(network).items()}
    scaled = undo_downscale_in_infer(network, ones)
    found = {name: array.flat[0] for name, array in scaled.items() if array.flat[0] != 1}
    assert found == pytest.approx(
        {"head.weight": 0.6, "auxiliary.0.head.weight": 0.3, "auxiliary.1.head.weight": 0.3}
    )
    for name, array in redo_downscale_in_infer(network, scaled).items():
        np.testing.assert_allclose(array, ones[name], rtol=1e-7)


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("torch", {"0.0.weight", "1.0.weight", "1.2.bias", "2.0.p1_1.weight", "5.bias"}),
        ("torch", {"3.4.b4_2.weight", "4.1.b2_2.bias", "5.weight"}),
        ("mxnet", {"0.0.weight", "1.0.weight", "1.1.bias", "2.0.p1_1.weight", "5.bias"}),
        ("tf", {"layers/sequential_1/layers/conv2d_1/vars/0", "layers/dense/vars/1"}),
        ("tf", {"layers/sequential_3/layers/inception_4/layers/conv2d_5/vars/0"}),
        ("tf", {"layers/sequential_4/layers/inception_1/b3_2/vars/1"}),
    ],
)
def test_the_book_s_names_are_those_that_its_page_makes(form, names):
    """As read off the page: the ReLU is a layer in PyTorch, an argument in MXNet and Keras."""
    found = [
        {FORMATS[form].name(layers, name) for name in shapes(D2L)}
        for layers in NAMINGS[form]["the book's names"](D2L)
    ]
    assert any(names <= each for each in found)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_axes_are_those_that_the_framework_wrote(path):
    """By the files that the frameworks made of known values."""
    file = parse_open(io.BytesIO(path.read_bytes()))
    form = FORMATS[file.format]
    found = [form.canonical(array) for array in file.arrays.values()]
    for shape in ((3, 2, 1, 2), (2, 3)):  # the convolution's and the linear layer's
        (array,) = (each for each in found if each.shape == shape)
        first = {(3, 2, 1, 2): 0, (2, 3): 6}[shape]
        np.testing.assert_array_equal(array, np.arange(array.size).reshape(shape) + first)


def test_the_book_s_names_are_found_for_each_path():
    layers = layers_of("torch", D2L, "the book's names")
    assert layers["stage3.1.branch1x1.0.conv"] == "2.1.p1_1"
    assert layers["stage3.1.branch3x3.0.conv"] == "2.1.p2_1"
    assert layers["stage3.1.branch3x3.1.conv"] == "2.1.p2_2"
    assert layers["stage3.1.branch5x5.0.conv"] == "2.1.p3_1"
    assert layers["stage3.1.branch5x5.1.conv"] == "2.1.p3_2"
    assert layers["stage3.1.branch_pool.1.conv"] == "2.1.p4_2"


@pytest.mark.parametrize("form", FORMATS)
def test_other_channels_and_classes_are_the_file_s_own(form):
    network = MINI.at(channels=3, classes=7)
    known = identify(written(form, network, layers_of(form, network), noise(network)), None, "it")
    assert known.spec == network


def test_a_row_without_activation_has_no_relu_to_count():
    """Where a ReLU would be a layer of its own, and the row has none."""
    stage2 = (Conv(64, 1, activation=False), *D2L.stage2[1:])
    network = Spec(**{**vars(D2L), "name": "without", "stage2": stage2})
    layers = layers_of("torch", network, "the book's names")
    assert layers["stage2.0.conv"] == "1.0"
    assert layers["stage2.1.conv"] == "1.1"


def test_a_missing_tensor_is_named():
    file = written("torch", D2L, layers_of("torch", D2L, "the book's names"), noise(D2L))
    del file.arrays["2.0.p2_2.bias"]
    said = refusal(file)
    assert "2.0.p2_2.bias" in said
    assert "holds the weights of no spec" in said
    assert "(d2l comes closest)" in said


def test_a_tensor_too_many_is_named():
    file = written("torch", D2L, layers_of("torch", D2L), noise(D2L))
    file.arrays["aux.weight"] = np.zeros(3, np.float32)
    assert "aux.weight is one tensor too many" in refusal(file)
    assert "aux.weight is one tensor too many" in refusal(file, "d2l")


def test_a_misshapen_tensor_is_named_as_it_lies_in_the_file():
    layers = layers_of("tf", D2L)
    file = written("tf", D2L, layers, noise(D2L))
    name = "layers/sequential_1/layers/conv_1/conv/vars/0"
    file.arrays[name] = file.arrays[name].transpose(3, 2, 0, 1)
    said = refusal(file, "d2l")
    assert f"{name} (stage2.1.conv.weight)" in said


@pytest.mark.parametrize(("held", "asked"), [(BLOG_224, D2L), (D2L_BN, D2L), (D2L, D2L_BN)])
def test_the_spec_that_would_fit_is_named(held, asked):
    said = refusal(written("torch", held, layers_of("torch", held), noise(held)), asked.name)
    assert f"does not hold the weights of {asked.name}" in said
    assert f"use `--spec {held.name}`" in said
    assert "is missing" in said or "one tensor too many" in said or "has shape" in said


def test_another_network_is_not_taken_for_a_near_one():
    arrays = {"features.0.weight": np.zeros((64, 3, 3, 3)), "features.0.bias": np.zeros(64)}
    said = refusal(File("torch", arrays, "float32"))
    assert "a PyTorch state_dict of an unknown network" in said
    assert "features.0.weight" in said


def test_a_weight_that_was_not_read_is_named_where_no_network_is_found():
    file = written("torch", D2L, layers_of("torch", D2L), noise(D2L))
    said = "holds int8 under 'head.weight': it is quantised."
    file = replace(file, unread=said)
    assert identify(file, None, "x").spec.name == "d2l"
    del file.arrays["head.weight"]
    assert refusal(file).endswith(said)
    assert "use `--spec d2l`" in refusal(
        replace(written("torch", D2L, layers_of("torch", D2L), noise(D2L)), unread=said), "d2l-bn"
    )


def test_the_file_s_own_sizes_may_be_no_network_s(monkeypatch):
    """A class that no spec can have must not end in another error."""
    file = written("torch", D2L, layers_of("torch", D2L), noise(D2L))
    file.arrays["head.weight"] = np.zeros((0, 1024), np.float32)
    assert "head.weight" in refusal(file)


def test_a_spec_that_comes_later_brings_its_names(monkeypatch):
    """No table is kept by hand: names are made from the spec."""
    network = Spec(**{**vars(NARROW), "name": "later", "norm": Norm(1e-5, 0.9)})
    monkeypatch.setitem(spec.SPECS, "later", network)
    for form in FORMATS:
        for naming in set(NAMINGS[form]) & {"our names", "the book's names"}:
            layers = layers_of(form, network, naming)
            known = identify(written(form, network, layers, noise(network)), "later", "it")
            assert known.spec == network


def test_a_network_that_differs_in_what_is_no_weight_is_named_too():
    network = find("torchvision-imagenet-aux")
    layers = layers_of("torch", network, "torchvision's names")
    file = written("torch", network, layers, noise(network))
    known = identify(file, None, "it")
    assert (known.spec.name, known.also) == ("torchvision-aux", (network.name,))
    own = written("torch", network, layers_of("torch", network, "our names"), noise(network))
    known = identify(own, None, "it")
    assert known.spec.name == network.name
    assert known.also == (), "our names tell them apart"
    assert identify(file, network.name, "it").spec == network
