"""Other packages' networks: with weights found by their names, the reference answers as they do.

The data have names, shapes and logits of each package (tests/support/upstream_states.py).
"""

import numpy as np
import pytest
from upstream_states import ORIGINALS, draw_images, identified, read, state_of

from backends.numpy import GoogLeNet
from common.formats.identify import identify
from common.formats.readers.base import File
from common.parity.checks import FORWARD
from common.parity.report import tensor_error
from common.spec import find

V3 = {"inception-v3", "inception-v3-imagenet", "inception-v3-keras", "inception-v3-paddle"}


@pytest.mark.parametrize("case", ORIGINALS)
def test_the_reference_answers_as_the_package_does(case):
    known, written = identified(case), read(case)
    assert known.spec.name == ORIGINALS[case].spec
    assert written["package"] == ORIGINALS[case].package
    network = known.spec.at(size=written["size"], dropout=0.0)
    outputs = GoogLeNet(network, known.weights).forward(draw_images(written["size"]))
    assert written["evaluation"]
    for head, logits in written["evaluation"].items():
        assert tensor_error(outputs[head], np.array(logits)) <= FORWARD["float64"], head


def test_another_function_of_the_same_shapes_answers_otherwise():
    """Keras's weights in torchvision's network: no error, and other logits."""
    case = "inception-v3-keras"
    known, size = identified(case), read(case)["size"]
    want = np.array(read(case)["evaluation"]["head"])
    network = find("inception-v3").at(size=size, classes=10, dropout=0.0)
    found = GoogLeNet(network, known.weights).forward(draw_images(size))["head"]
    assert tensor_error(found, want) > 0.2


def test_two_layers_exchanged_are_seen():
    """The forks of Inception-v3 have two convolutions of one shape turned."""
    case = "inception-v3-timm"
    known, size = identified(case), read(case)["size"]
    one, other = (f"stage4.1.branches.2.{step}.conv.weight" for step in (1, 3))
    weights = known.weights | {one: known.weights[other], other: known.weights[one]}
    network = known.spec.at(size=size, dropout=0.0)
    found = GoogLeNet(network, weights).forward(draw_images(size))["head"]
    assert tensor_error(found, np.array(read(case)["evaluation"]["head"])) > 1e-3


def test_a_conversion_names_the_other_functions_of_these_names():
    """torchvision's names are timm's too, and some of timm's weights are Keras's function."""
    file = File("torch", state_of("inception-v3-timm"), "float64")
    found = identify(file, None, "it")
    assert (found.spec.name, set(found.also)) == ("inception-v3", V3 - {"inception-v3"})
    for name in V3:
        assert identify(file, name, "it").spec.name == name


@pytest.mark.parametrize("case", ["inception-v3-paddle", "inception-v3-keras"])
def test_names_that_one_package_has_say_the_function(case):
    known = identified(case)
    assert (known.spec.name, known.also) == (ORIGINALS[case].spec, ())


def test_a_weight_of_ones_stands_for_the_one_that_keras_leaves_out():
    for case in ("inception-v3-keras", "inception-v3-keras-h5"):
        assert len(read(case)["tensors"]) == 378
        weights = identified(case).weights
        gammas = [name for name in weights if name.endswith("norm.weight")]
        assert len(gammas) == 94
        assert all((weights[name] == 1).all() for name in gammas)
        assert not any((weights[name] == 1).all() for name in weights if name not in gammas)


def test_the_second_model_of_a_process_is_counted_on():
    """Keras numbers layers by process in the older format; only their order counts."""
    names = read("inception-v3-keras-h5")["tensors"]
    numbers = sorted(
        int(name.split("/")[0].rpartition("_")[2]) for name in names if name.startswith("conv2d_")
    )
    assert numbers == list(range(numbers[0], numbers[0] + 94))
    assert numbers[0] > 0


def test_gluoncv_stores_its_output_twice():
    state = state_of("googlenet-gluoncv")
    assert (state["head.2.weight"] == state["output.weight"]).all()
    assert "head.2.weight" not in identified("googlenet-gluoncv").weights
