"""Weights in a network of a user's own, whose framework is played by the reference."""

from dataclasses import replace

import numpy as np
import pytest
from random_mistakes import FakeNetwork  # in tests/support

from common.check.checker import Checker
from common.check.graph import build
from common.check.match import Match
from common.convert import conversion
from common.convert.own import Own, known_from, save_into
from common.errors import WeightsError
from common.formats.identify import Known
from common.formats.readers.base import File
from common.parity.fixtures import draw_fixture
from common.parity.mutations import SMALL_AUX
from common.spec import MINI, find

BIAS = "stage1.0.conv.bias"


class Network(FakeNetwork):
    """`mini` without a bias in its first convolution; its files hold `more` tensors too."""

    backend = "torch"

    def __init__(self, more=0):
        graph = build(MINI)
        unbiased = {**graph.nodes["stage1.0.conv"].p, "bias": False}
        super().__init__(graph.edited({"stage1.0.conv": unbiased}))
        self.weights[BIAS] *= 0
        self.more, self.spoilt = more, 0.0

    def save(self, path):
        """Write the weights, as a framework would."""
        more = {f"counter{number}": np.zeros(1, np.float32) for number in range(self.more)}
        np.savez(path, **{n: a.astype(np.float32) for n, a in self.weights.items()}, **more)

    def put(self, arrays):
        """Take over what a file holds."""
        for name in self.numbers:
            self.weights[name] = arrays[name] + self.spoilt


def own(network):
    """The network, as far as the check of it has come when weights are put in."""
    checker = Checker(network, MINI, None, lambda words: None)
    assert checker.run(1, 33).same
    return Own(network, checker.fitted["mini"][0], "net.py:net", 33)


def known(dtype=np.float32, **change):
    weights = {name: array.astype(dtype) for name, array in draw_fixture(MINI).weights.items()}
    assert weights[BIAS].all()
    return Known(replace(MINI, **change), "our names", weights)


def put(network, given, tmp_path):
    return save_into(own(network), given, tmp_path / "net.npz", draw_fixture(MINI).inputs)


@pytest.mark.parametrize(
    ("given", "more", "words"),
    [
        (known(), 0, ["1 biases"]),
        (known(np.float64), 0, ["rounded to float32", "1 biases"]),
        (known(auxiliary=SMALL_AUX.auxiliary), 0, ["heads are left out", "1 biases"]),
        (known(), 1, ["1 biases", "1 tensors"]),
    ],
)
def test_what_happened_to_weights_on_their_way_in_is_said(given, more, words, tmp_path):
    found, check = put(Network(more), given, tmp_path)
    assert check["difference"] < 1e-5 * check["largest"]
    for said, note in zip(words, found.notes, strict=True):
        assert said in note


@pytest.mark.parametrize(("dtype", "count"), [(np.float32, 0), (np.float64, 1)])
def test_what_happened_to_weights_on_their_way_out_is_said(dtype, count, tmp_path):
    np.savez(tmp_path / "net.npz", **known(dtype).weights)
    _, found = known_from(own(Network()), tmp_path / "net.npz", None)
    assert len(found.notes) == count
    assert all(array.dtype == np.float32 for array in found.weights.values())


def test_weights_that_a_file_does_not_bring_back_are_refused(tmp_path):
    network = Network()
    network.spoilt = 1e-3
    with pytest.raises(WeightsError, match="changed when the file was read back"):
        put(network, known(), tmp_path)


def test_biases_that_the_spec_has_not_become_0():
    network, weights, extra = Network(), known().weights, "stage2.0.conv.bias"
    one = own(network)
    del weights[extra]
    network.weights[extra] += 1
    one.write(weights)
    assert not network.weights[extra].any()
    assert np.array_equal(network.weights["stage2.1.conv.bias"], weights["stage2.1.conv.bias"])


@pytest.mark.parametrize("name", ["torchvision-aux", "googlenet-paper"])
def test_heads_that_the_network_does_not_run_are_not_read(name, tmp_path):
    """Its weights are those of the spec without them, if there is one."""
    spec = find(name)
    match = Match(spec, replace(spec.at(channels=1, classes=7), auxiliary=()), {})
    one = Own(Network(), match, "net.py:net", 33)
    if name == "torchvision-aux":
        assert one.spec == find("torchvision").at(channels=1, classes=7)
        return
    assert one.spec == replace(spec.at(channels=1, classes=7), auxiliary=())
    with pytest.raises(WeightsError, match="and googlenet-paper has them: let it return them"):
        known_from(one, tmp_path / "net.npz", None)


@pytest.mark.parametrize("name", ["d2l", "d2l-bn"])
def test_a_network_without_heads_has_the_spec_that_its_norms_need(name):
    """So the eps of its norms is one that the spec of this name can have."""
    spec = find(name).at(channels=1, classes=7)
    assert Own(Network(), Match(spec, spec, {}), "net.py:net", 33).spec == spec


def test_the_report_counts_the_tensors_that_were_written(tmp_path):
    given = known(auxiliary=SMALL_AUX.auxiliary)
    given.weights["auxiliary.0.head.bias"] = np.zeros(10, np.float32)
    made, _ = put(Network(), given, tmp_path)
    file = File("torch", given.weights, "float32")
    found = conversion.converted(tmp_path / "a", file, given, made, tmp_path / "b")
    assert found.tensors == len(draw_fixture(MINI).weights)
