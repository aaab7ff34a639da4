"""A package's network that was fine-tuned: its names, with a head of the user's own."""

import re
from dataclasses import replace

import numpy as np
import pytest
from named_files import layers_of, noise, refusal, written  # in tests/support
from small_specs import thin  # in tests/support

from common.formats.downscale import undo_downscale_in_infer
from common.formats.family_names import (
    BN_INCEPTION,
    GLUON_V3,
    PADDLE_V3,
    TIMM_RESNET,
    TIMM_V4,
    TORCH_V3,
)
from common.formats.identify import BY_SHAPE, identify
from common.formats.naming import GLUONCV
from common.spec import MINI, SPECS
from common.weights import shapes

FAMILY = ("d2l", "torchvision", "inception", "bn-inception")
THIN = {
    name: replace(thin(spec), name=f"{name}-thin")
    for name, spec in SPECS.items()
    if name.startswith(FAMILY) and name not in ("d2l-v2", "d2l-factorized", "d2l-residual")
}
KERAS_V3 = "Keras Applications' names of Inception-v3"
V3, V3_AUX, TORCHVISION = THIN["inception-v3"], THIN["inception-v3-aux"], THIN["torchvision"]
PADDLE = THIN["inception-v3-paddle"]


@pytest.fixture(autouse=True)
def thin_specs():
    """Only these specs are known. Afterwards all are again, in their order, which can matter."""
    before = dict(SPECS)
    SPECS.clear()
    SPECS.update({network.name: network for network in (*THIN.values(), MINI)})
    yield
    SPECS.clear()
    SPECS.update(before)


def made(network, form, naming):
    """A file with these names, and the weights in it."""
    weights = noise(network)
    return written(form, network, layers_of(form, network, naming), weights), weights


def renamed(file, old, new):
    """The file with the names that begin with `old` beginning with `new`."""
    names = {name: re.sub(f"^{re.escape(old)}", new, name) for name in file.arrays}
    return replace(file, arrays={names[name]: file.arrays[name] for name in names})


def wrapped(file, head, backbone="backbone.", own="classifier.1"):
    """The network under a name, its head beside it under another."""
    arrays = {
        name.replace(head, own) if name.startswith(head) else backbone + name: file.arrays[name]
        for name in file.arrays
    }
    return replace(file, arrays=arrays)


def leads_to(file, network, weights, naming, **how):
    """The file is read by its names as exactly these weights of this network."""
    known = identify(file, None, "it", **how)
    assert (known.spec, known.naming) == (network, naming)
    assert list(known.weights) == list(shapes(network))
    for name in known.weights:
        np.testing.assert_array_equal(known.weights[name], weights[name], name)
    return known


BACKBONES = [
    ("torchvision", "torch", "torchvision's names", "fc"),
    ("torchvision", "mxnet", GLUONCV, "output"),
    ("inception-v3", "torch", TORCH_V3, "fc"),
    ("inception-v3", "mxnet", GLUON_V3, "output"),
    ("inception-v3-paddle", "paddle", PADDLE_V3, "fc"),
    ("inception-v4", "safetensors", TIMM_V4, "last_linear"),
    ("inception-resnet-v2", "npz", TIMM_RESNET, "classif"),
    ("bn-inception", "torch", BN_INCEPTION, "last_linear"),
]


@pytest.mark.parametrize(("name", "form", "naming", "head"), BACKBONES)
def test_a_head_beside_the_network_is_known_by_its_shape(name, form, naming, head):
    """paddle.vision's own dropout is not before it, so it is not scaled."""
    network = THIN[name].at(classes=3)
    file, weights = made(network, form, naming)
    known = leads_to(wrapped(file, head), network, weights, naming)
    assert known.notes == ("Its head is `classifier.1`.",)
    assert known.key == ""


def test_a_head_in_the_place_of_paddle_vision_s_own_is_scaled_as_that_is():
    network = PADDLE.at(classes=3)
    file, weights = made(network, "paddle", PADDLE_V3)
    scaled = undo_downscale_in_infer(network, weights)
    known = leads_to(renamed(file, "fc.", "fc.1."), network, scaled, PADDLE_V3)
    assert "Its head is `fc.1`." in known.notes


@pytest.mark.parametrize("names", ["layers/functional/", "layers/a/layers/b/"])
def test_a_nested_keras_model_has_its_head_outside(names):
    network = THIN["inception-v3-keras"].at(classes=3)
    file, weights = made(network, "tf", KERAS_V3)
    nested = wrapped(file, "layers/dense/", names, "layers/dense/")
    known = leads_to(nested, network, weights, KERAS_V3)
    assert known.notes == ("Its head is `dense`.",)


def legacy(file, above="", first=94, head="my_head/my_head"):
    """The names of an `.h5`, in its order: layers are counted on from an earlier model."""
    leaves = {"conv2d": ["kernel", "bias"], "dense": ["kernel", "bias"]}
    leaves["batch_normalization"] = ["gamma", "beta", "moving_mean", "moving_variance"]
    arrays = {}
    for name, array in file.arrays.items():
        kind, number, leaf = re.fullmatch(r"\w+/(\D+?2?d?)(?:_(\d+))?/vars/(\d)", name).groups()
        own = f"{above}{kind}_{int(number or 0) + first}"
        path = head if kind == "dense" else own if above else f"{own}/{own}"
        arrays[f"{path}/{leaves[kind][int(leaf)]}"] = array
    return replace(file, arrays=dict(sorted(arrays.items())))


@pytest.mark.parametrize("above", ["", "inception_v3/"])
def test_an_h5_of_keras_with_a_head_of_another_name(above):
    network = THIN["inception-v3-keras"].at(classes=3)
    weights = noise(network)
    by_name = layers_of("tf", network, KERAS_V3, 1)
    file = legacy(written("tf", network, by_name, weights), above)
    known = leads_to(file, network, weights, KERAS_V3)
    assert known.notes == ("Its head is `my_head/my_head`.",)


def test_an_h5_of_another_network_keeps_its_names():
    """The numbers would not say which three tensors a norm without beta has."""
    weights = noise(MINI)
    layers = {}
    for kind, word in (("conv", "conv2d"), ("norm", "batch_normalization")):
        names = [name[:-7] for name in weights if name.endswith(f"{kind}.weight")]
        layers |= {name: f"layers/{word}_{number}" for number, name in enumerate(names)}
    file = legacy(written("tf", MINI, layers | {"head": "layers/dense"}, weights))
    arrays = {name: array for name, array in file.arrays.items() if name[-4:] != "beta"}
    weights |= {name: a * 0 for name, a in weights.items() if name.endswith("norm.bias")}
    leads_to(replace(file, arrays=arrays), MINI, weights, BY_SHAPE)


# --- auxiliary heads

AUXILIARY = [
    ("torchvision", "torch", "torchvision's names", "fc"),
    ("torchvision", "mxnet", GLUONCV, "output"),
    ("inception-v3", "torch", TORCH_V3, "fc"),
]


@pytest.mark.parametrize("place", ["own", "beside"])
@pytest.mark.parametrize(("name", "form", "naming", "head"), AUXILIARY)
def test_auxiliary_heads_that_kept_their_classes_are_left_out(name, form, naming, head, place):
    whole, network = THIN[f"{name}-aux"], THIN[name].at(classes=3)
    file, weights = made(whole, form, naming)
    for leaf in ("weight", "bias"):
        file.arrays[f"{head}.{leaf}"] = file.arrays[f"{head}.{leaf}"][:3]
        weights[f"head.{leaf}"] = weights[f"head.{leaf}"][:3]
    file = file if place == "own" else wrapped(file, head)
    known = leads_to(file, network, weights, naming)
    assert "heads have 10 classes and its head has 3. Evaluation does not" in known.notes[0]
    assert known.notes[1:] == (() if place == "own" else ("Its head is `classifier.1`.",))


def test_auxiliary_heads_with_the_classes_of_an_own_head_are_kept():
    file, weights = made(V3_AUX, "torch", TORCH_V3)
    leads_to(wrapped(file, "fc"), V3_AUX, weights, TORCH_V3)
    known = identify(file, V3.name, "it")
    assert known.spec == V3
    assert known.notes == ("The auxiliary heads are left out, as the spec has none.",)


# --- what is no head


def test_a_network_without_a_head_is_said_to_have_none():
    file, _ = made(V3, "torch", TORCH_V3)
    bare = replace(file, arrays={n: a for n, a in file.arrays.items() if n[:3] != "fc."})
    said = f"its head is missing: no linear layer has {FEATURES} features"
    for prefix in ("", "model."):
        assert said in refusal(renamed(bare, "", prefix))


def with_more(**more):
    """Inception-v3 without a head, and these tensors."""
    file, _ = made(V3, "torch", TORCH_V3)
    arrays = {name: file.arrays[name] for name in file.arrays if not name.startswith("fc.")}
    more = {name.replace("__", "."): np.ones(shape, np.float32) for name, shape in more.items()}
    return replace(file, arrays=arrays | more)


FEATURES = 256
HEAD = {"fc__weight": (3, FEATURES), "fc__bias": 3}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"fc__0__weight": (8, FEATURES), "fc__0__bias": 8, "fc__3__weight": (3, 8)},
            "its head is not one layer: `fc.0` and `fc.3`; leave in the file the one that you need",
        ),
        ({**HEAD, "age__weight": (1, FEATURES), "age__bias": 1}, "one layer: `fc` and `age`"),
        ({**HEAD, "norm__weight": FEATURES, "norm__bias": FEATURES}, "norm.weight is one tensor"),
        ({"fc__weight": (3, 7), "fc__bias": 3}, f"no linear layer has {FEATURES} features"),
        ({"fc__weight": (3, FEATURES)}, "its head `fc` has no bias"),
    ],
)
def test_what_is_no_single_linear_layer_is_named(more, said):
    assert f"has the layers of {V3.name}, but " in refusal(with_more(**more))
    assert said in refusal(with_more(**more))


def test_tensors_beside_the_network_and_its_head_are_left_out():
    network = V3.at(classes=3)
    file, weights = made(network, "torch", TORCH_V3)
    file = renamed(wrapped(file, "fc"), "", "state_dict.")
    file.arrays["history.loss"] = np.ones(3, np.float32)
    known = leads_to(file, network, weights, TORCH_V3)
    assert "1 other tensor(s) are left out, the first is history.loss." in known.notes
    assert known.key == "state_dict"


def test_two_such_networks_are_named_and_a_key_chooses():
    network = V3.at(classes=3)
    file, weights = made(network, "torch", TORCH_V3)
    file = wrapped(file, "fc")
    both = {f"model.{name}": array for name, array in file.arrays.items()}
    both |= {f"ema.{name}": array + 1 for name, array in file.arrays.items()}
    both = replace(file, arrays=both)
    assert "`--key model`" in refusal(both)
    leads_to(both, network, weights, TORCH_V3, key="model")


# --- a convolution as the head


def test_a_head_that_is_a_1x1_convolution_becomes_a_linear_layer():
    said = "Its head is a 1x1 convolution: it becomes a linear layer."
    for network, naming in ((V3, TORCH_V3), (THIN["d2l"], "the book's names")):
        file, weights = made(network, "torch", naming)
        head = "fc" if network is V3 else "5"
        own = wrapped(file, head, "features.", "top")
        own.arrays["top.weight"] = own.arrays["top.weight"][:, :, None, None]
        assert said in leads_to(own, network, weights, naming).notes
    other = replace(own, arrays={f"x{name}": array for name, array in own.arrays.items()})
    other = renamed(other, "xfeatures.", "xfeatures.b")
    assert said in leads_to(other, network, weights, BY_SHAPE).notes
    twice = {"last.weight": own.arrays["top.weight"], "last.bias": own.arrays["top.bias"]}
    twice["last.weight"] = twice["last.weight"] + 1
    assert "last" in refusal(replace(other, arrays=other.arrays | twice))
