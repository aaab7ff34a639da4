"""Weights in a network of a user's own, whose framework is played by the reference."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from random_mistakes import FakeNetwork, event  # in tests/support

from backends.numpy import GoogLeNet
from common.check import checker as checking
from common.check.checker import Checker
from common.check.graph import build
from common.check.match import Match
from common.convert import conversion
from common.convert.own import Own, known_from, save_into
from common.errors import ParityError, WeightsError
from common.formats.identify import Known
from common.formats.readers.base import File
from common.parity.fixtures import draw_fixture
from common.parity.mutations import SMALL_AUX
from common.parity.report import tensor_error
from common.spec import MINI, SPECS, each_conv, find

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


class Behind(Network):
    """The same, with a step behind the last layer, which returns (N, classes, 1, 1)."""

    def trace(self, x):
        """Add the step to what is seen."""
        found = super().trace(x)
        (head,) = found["outputs"]
        out = head["out"][..., None, None]
        found["events"].append(event("reshape", "", [head["event"]], {}, out))
        return found | {"outputs": [{**head, "event": len(found["events"]) - 1, "out": out}]}


def own(network, spec=MINI):
    """The network, as far as the check of it has come when weights are put in."""
    checker = Checker(network, spec, None, lambda words: None)
    assert checker.run(1, 33).same
    return Own(network, checker.fitted[spec.name][0], "net.py:net", 33)


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


def test_biases_that_the_spec_has_not_go_into_the_means_of_the_norms(monkeypatch):
    """So what is read is the network's function."""
    stages = {
        stage: each_conv(rows, lambda conv: replace(conv, bias=False))
        for stage, rows in MINI.stages()
    }
    spec = replace(MINI, name="unbiased", **stages)
    monkeypatch.setitem(SPECS, "unbiased", spec)
    network = FakeNetwork(build(MINI))
    one = own(network, spec)
    for name, array in draw_fixture(MINI).weights.items():
        network.weights[name] = array.astype(np.float64)
    weights, notes = one.read()
    assert BIAS not in weights
    assert {array.dtype.name for array in weights.values()} == {"float32"}
    assert notes == ["The biases before the norms are subtracted from their running means."]
    check = one.compare(weights, draw_fixture(MINI).inputs)
    assert check["difference"] < 1e-5 * check["largest"]


def test_norms_without_a_scale_take_and_give_those_of_1(monkeypatch):
    """As Keras's Inception-v3."""
    monkeypatch.setattr(checking, "UNSCALED", ("mini",))
    graph = build(MINI)
    norms = {n: {**e.p, "affine": "no scale"} for n, e in graph.nodes.items() if e.kind == "norm"}
    network = Network()
    network.graph = network.graph.edited(norms)
    given, scales = known(), [f"{name}.weight" for name in norms]
    one = own(network)
    with pytest.raises(WeightsError, match=r"has no tensor for stage1\.0\.norm\.weight"):
        one.write(given.weights)
    given.weights.update({name: np.ones_like(given.weights[name]) for name in scales})
    one.write(given.weights)
    weights, _ = one.read()
    assert all((weights[name] == 1).all() for name in scales)
    check = one.compare(weights, draw_fixture(MINI).inputs)
    assert check["difference"] < 1e-5 * check["largest"]


def test_steps_may_stand_behind_the_last_layer(tmp_path):
    network = Behind()
    _, check = put(network, known(), tmp_path)
    assert check["difference"] < 1e-5 * check["largest"]


@pytest.mark.parametrize(("eps", "theirs"), [(1e-5, 1e-3), (1e-5, 1e-5), (1e-3, 1e-5)])
def test_the_network_may_have_the_eps_of_the_weights_or_of_the_spec(
    eps, theirs, tmp_path, monkeypatch
):
    """Any other is refused."""
    graph = build(MINI)
    norms = {n: {**e.p, "eps": theirs} for n, e in graph.nodes.items() if e.kind == "norm"}
    network = Network()
    network.graph = network.graph.edited(norms)

    @contextmanager
    def opened(target, backend, spec, python):
        checker = Checker(network, spec, None, lambda words: None)
        if not checker.run(1, 33).same:
            raise ParityError(f"{target} is another function than {spec.name}")
        yield Own(network, checker.fitted["mini"][0], target, 33)

    monkeypatch.setattr(conversion, "opened", opened)
    given = known(norm=replace(MINI.norm, eps=eps))
    file = File("torch", given.weights, "float32")
    wanted = conversion.OwnNetwork("net.py:net", "torch", True)
    ends = tmp_path / "a.npz", tmp_path / "b.npz"
    if eps == 1e-3:
        with pytest.raises(ParityError, match="is another function than mini"):
            conversion.into(ends[0], file, given, wanted, ends[1], ".npz")
        assert not ends[1].exists()
        return
    found = conversion.into(ends[0], file, given, wanted, ends[1], ".npz")
    assert ends[1].exists()
    assert found.eps == pytest.approx(theirs)
    assert any("own eps is 0.001" in note for note in found.notes) == (eps != theirs)
    x = draw_fixture(MINI).inputs
    want = GoogLeNet(given.spec, given.weights).forward(x)["head"]
    got = network.graph.run(x, network.weights)["head"]
    assert tensor_error(got, want) < 1e-5


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
