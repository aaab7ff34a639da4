"""The graph of single steps is the reference network; a step's edits change what they should."""

import numpy as np
import pytest
from small_specs import thin

from backends.numpy import GoogLeNet
from common.check.edits import names, variants
from common.check.graph import Node, build, compute, output_size, same_padding
from common.check.mistakes import MISTAKES
from common.check.steps import error, identify
from common.errors import SpecError
from common.parity.fixtures import draw_fixture
from common.parity.mutations import INJECTED_BUGS
from common.spec import SPECS
from common.spec.arithmetic import layers


@pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))
def test_the_graph_is_the_reference(spec):
    size = {"paddle-vision": 189, "mini": 33}.get(spec.name, 97)
    try:
        layers(spec.at(size=size))
    except SpecError:  # its smallest image is larger
        size = spec.input[1]
    spec = (spec if spec.name.startswith("mini") else thin(spec)).at(size=size, dropout=0.0)
    fixture = draw_fixture(spec)
    x = fixture.inputs[:2].astype(np.float64)
    want = GoogLeNet(spec, fixture.weights).forward(x)
    weights = {name: array.astype(np.float64) for name, array in fixture.weights.items()}
    values = build(spec).run(x, weights)
    assert error(values["output"], want["head"]) < 1e-13
    for number in range(len(spec.auxiliary)):
        assert error(values[f"output.auxiliary.{number}"], want[f"auxiliary.{number}"]) < 1e-13


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [
        (96, 7, 2, (2, 3)),
        (97, 7, 2, (3, 3)),
        (48, 3, 2, (0, 1)),
        (49, 3, 2, (1, 1)),
        (9, 3, 1, (1, 1)),
    ],
)
def test_same_padding_is_that_of_tensorflow(size, kernel, stride, padding):
    assert same_padding(size, kernel, stride) == padding


POOL = {
    "kernel": (3, 3),
    "stride": (2, 2),
    "pad": (1, 1, 1, 1),
    "fill": "-inf",
    "ceil": False,
    "fn": "max",
}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"pad": "same"}, "same-padding"),
        ({"fill": "0"}, "zero-padded-pool"),
        ({"ceil": True}, "ceil-pool"),
        ({"fn": "avg"}, "avg-pool"),
        ({"pad": (0, 0, 0, 0)}, "pool-window"),
        ({"stride": (3, 3), "pad": (0, 0, 0, 0)}, "pool-window"),
    ],
)
def test_an_edited_pool_is_found_among_its_variants_and_named(change, name):
    node = Node("pool", "pool", ("x",), POOL)
    x = np.random.RandomState(0).standard_normal((2, 3, 12, 12))
    y = compute(node.edited(**change), [x], {})
    fits = [
        p
        for p in variants(node, x.shape, y.shape)
        if error(compute(Node("p", "pool", (), p), [x], {}), y) < 1e-12
    ]
    assert fits
    assert [kind for kind, _ in names(node, fits[0])] == [name]


@pytest.mark.parametrize(
    ("kernel", "pad", "odd"),
    [((1, 7), (0, 0, 1, 1), False), ((7, 1), (2, 2, 0, 0), False), ((3, 3), (0, 0, 1, 1), True)],
)
def test_a_long_kernel_s_sides_may_be_padded_each_by_itself(kernel, pad, odd):
    p = {"kernel": kernel, "stride": (1, 1), "pad": (3, 3, 3, 3), "dilation": 1, "bias": False}
    node = Node("conv", "conv", ("x",), {**p, "layout": ""})
    random = np.random.RandomState(0)
    x, weight = random.standard_normal((2, 3, 12, 12)), random.standard_normal((4, 3, *kernel))
    y = compute(node.edited(pad=pad), [x], {"conv.weight": weight})
    found = [p["pad"] for p in variants(node, x.shape, y.shape)]
    assert (pad in found) != odd


def test_a_pool_of_which_no_window_fits_has_no_size():
    assert output_size({**POOL, "kernel": (5, 5), "pad": (0, 0, 0, 0)}, (1, 1, 3, 3)) is None


def test_identify_finds_scales_activations_and_dropout():
    x = np.random.RandomState(0).standard_normal((2, 4, 5, 5))
    assert identify(x, np.maximum(x, 0), 1e-9)[1] == {"fn": "relu"}
    kind, p = identify(x, x / 255 - 0.5, 1e-9)
    assert kind == "affine"
    assert p["scale"] == pytest.approx([1 / 255] * 4)
    mask = np.random.RandomState(1).uniform(size=x.shape) > 0.3
    assert identify(x, np.where(mask, x / 0.7, 0), 1e-9)[0] == "mask"
    assert identify(x, np.sin(x), 1e-9) is None


def test_a_scale_that_is_fitted_to_few_values_proves_nothing():
    x, y = np.random.RandomState(0).standard_normal((2, 2, 30))
    assert identify(x, y, 1e-9) is None


def test_the_vocabulary_is_one():
    """Names that the parity suite has too are those of its injected bugs."""
    shared = set(MISTAKES) & set(INJECTED_BUGS)
    assert shared >= {"ceil-pool", "same-padding", "zero-padded-pool", "missing-relu", "norm-eps"}
    for mistake in MISTAKES.values():
        assert mistake.en
        assert (
            any("\u4e00" <= letter <= "\u9fff" for letter in mistake.zh) or mistake.zh == "{theirs}"
        )
