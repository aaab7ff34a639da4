"""What a network is compared with, and at which size: the closest spec, layers by branches."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from random_mistakes import FakeNetwork  # in tests/support
from small_specs import thin  # in tests/support

from common.check import api
from common.check.checker import Checker
from common.check.graph import Graph, build
from common.check.process import UserError
from common.spec import D2L, MINI, SPECS, Branches, Conv, MaxPool

V3 = thin(SPECS["inception-v3"])
PAPER = thin(SPECS["googlenet-paper"])


def check(network, spec=None, size=None, opened=33):
    """The report; without a spec the closest of SPECS is found."""
    channels = network.spec.input[0]
    return Checker(network, spec, size, lambda words: None).run(channels, size or opened)


def own(spec, graph=None):
    """A spec, or another order of its steps, as a user's network."""
    network = FakeNetwork(graph or build(spec), spec)
    network.spec = spec
    return network


@pytest.fixture
def known():
    """Makes these the only specs. Afterwards all are again, in their order, which can matter."""
    before = dict(SPECS)

    def only(*specs):
        SPECS.clear()
        SPECS.update({spec.name: spec for spec in specs})

    yield only
    SPECS.clear()
    SPECS.update(before)


# ---- sizes


def test_the_size_is_that_of_the_spec_that_was_found(known):
    """Not the size at which the network was opened; a network may refuse it, though."""
    known(MINI)
    assert check(own(MINI), opened=96).sizes == [33, 34]
    rigid = own(MINI)
    trace = rigid.trace

    def only_40(x):
        if x.shape[2] != 40:
            raise UserError("It takes 40 pixels.")
        return trace(x)

    rigid.trace = only_40
    assert check(rigid, opened=40).sizes == [40]


def test_a_size_at_which_mistakes_hide_is_warned_of():
    """At 16x16 the last images are 1x1: there the largest value is the mean."""
    (mean,) = [node for node in build(MINI).nodes.values() if node.kind == "gap"]
    wrong = build(MINI).edited({mean.name: {"fn": "max"}})
    report = check(own(MINI, wrong), MINI, 16)
    assert report.same
    assert f"WARNING: {report.warnings[0]}" in report.text()
    assert "At 16x16 the images have become 1x1" in report.as_json()["warnings"][0]
    report = check(own(MINI, wrong), MINI, 33)
    assert [finding.name for finding in report.findings] == ["global-pool"]
    assert report.warnings == []


@pytest.mark.parametrize(
    ("most", "size", "compared"), [(299, None, 224), (96, None, 96), (299, 96, 96)]
)
def test_two_networks_are_compared_at_a_larger_size_if_mistakes_hide(
    monkeypatch, most, size, compared
):
    """At 96x96 the last images are 1x1. A network may refuse the larger ones."""
    *rest, mean = MINI.stage5
    pool = MaxPool(3, 2, 1)
    deep = replace(MINI, stage5=(*rest, pool, pool, mean))
    graph = build(deep)
    last = graph.nodes["stage5.3"]
    graphs = {"one.py:net": graph.edited({last.name: {**last.p, "fn": "max"}}), "two.py:net": graph}

    class Opened(contextlib.nullcontext, FakeNetwork):
        version = "1.0"

        def __init__(self, target, *_, **__):
            FakeNetwork.__init__(self, graphs[target], deep)
            self.enter_result = self

        def open(self, x):
            if x.shape[2] > most:
                raise UserError("It is too large.")

        def trace(self, x):
            self.open(x)
            return super().trace(x)

    monkeypatch.setattr(api, "Process", Opened)
    report = api.check_against("one.py:net", "torch", "two.py:net", "torch", size)
    assert report.sizes == [compared]
    assert [each.name for each in report.findings] == ["global-pool"] * (compared == 224)
    assert bool(report.warnings) == (compared == 96)


def test_images_that_are_1x1_at_the_specs_own_size_are_no_reason_to_warn(known):
    """As in Inception-v3's auxiliary head."""
    spec = MINI.at(size=16)
    known(spec)
    assert check(own(spec), spec).warnings == []


# ---- the closest spec


def test_specs_that_differ_in_their_steps_alone_are_told_apart(known):
    """Four have the same layers; the last one is the network's."""
    epses = (1e-3, 2e-3, 3e-3, 1e-5)
    variants = [replace(MINI, name=f"eps {e}", norm=replace(MINI.norm, eps=e)) for e in epses]
    known(*variants)
    report = check(own(variants[-1]))
    assert (report.spec, report.same) == ("eps 1e-05", True)
    graph = build(variants[-1])
    norms = [node for node in graph.nodes.values() if node.kind == "norm"]
    unscaled = graph.edited({node.name: {**node.p, "affine": "no scale"} for node in norms})
    report = check(own(variants[-1], unscaled))
    assert report.spec == "eps 1e-05"
    assert [finding.name for finding in report.findings] == ["norm-affine"]


def test_other_specs_are_tried_until_one_mistake_explains_all(known):
    """The first layer is wrong, so no spec gives a tensor of the network's."""
    epses = (1e-3, 1e-5)
    variants = [replace(MINI, name=f"eps {e}", norm=replace(MINI.norm, eps=e)) for e in epses]
    known(*variants)
    first = next(node for node in build(MINI).nodes.values() if node.kind == "conv")
    for spec, tried in zip(variants, (1, 2), strict=True):
        wrong = build(spec).edited({first.name: {**first.p, "pad": (4, 2, 4, 2)}})
        said = []
        report = Checker(own(spec, wrong), None, None, said.append).run(1, 33)
        assert report.spec == spec.name
        assert [finding.name for finding in report.findings] == ["same-padding"]
        assert sum("at 33x33" in words for words in said) == tried


def test_norms_without_a_scale_are_no_mistake_where_the_published_network_has_none():
    spec = replace(MINI, name="inception-v3-keras")
    graph = build(spec)
    norms = [node for node in graph.nodes.values() if node.kind == "norm"]
    unscaled = graph.edited({node.name: {**node.p, "affine": "no scale"} for node in norms})
    report = check(own(spec, unscaled), spec)
    assert report.same
    assert f"{len(norms)} norms have no scale, as in the published network" in report.text()
    assert not check(own(MINI, unscaled), MINI).same


def test_the_paper_s_network_is_found_without_its_auxiliary_heads(known):
    known(thin(replace(D2L, input=(3, 96, 96))), PAPER)
    report = check(own(replace(PAPER, auxiliary=())), opened=96)
    assert (report.spec, report.same) == (PAPER.name, True)


def turned(row):
    """The row with height and width of its kernels exchanged."""
    if isinstance(row, Conv) and isinstance(row.kernel, tuple):
        return replace(row, kernel=row.kernel[::-1], padding=row.padding[::-1])
    if isinstance(row, Branches):
        return Branches(tuple(tuple(map(turned, each)) for each in row.branches))
    return row


def test_a_spec_with_wrong_kernels_is_closer_than_one_without_most_layers(known):
    known(replace(MINI, input=(3, 33, 33)), V3)
    wrong = replace(V3, stage4=tuple(map(turned, V3.stage4)))
    report = check(own(wrong), opened=75)
    assert report.spec == V3.name
    assert {finding.name for finding in report.structure} == {"layer-shape"}


def test_why_the_spec_that_was_asked_for_does_not_fit_is_said():
    """Channels are the reason only where the spec scales each of its own."""
    colour = own(replace(MINI, input=(3, 33, 33)))
    trace = colour.trace

    def headless(x):
        found = trace(x)
        found["events"] = [event for event in found["events"] if event["op"] != "linear"]
        last = len(found["events"]) - 1
        return {**found, "outputs": [{**each, "event": last} for each in found["outputs"]]}

    colour.trace = headless
    with pytest.raises(UserError, match=r"^No linear layer is seen at the end of your network"):
        check(colour, D2L, 33)
    with pytest.raises(UserError, match=r"^torchvision-.* takes 3 input channels, your n.* 1"):
        check(own(MINI), SPECS["torchvision-imagenet"], 33)


# ---- layers by their branches


def test_a_block_whose_concatenation_is_not_seen_is_not_called_missing():
    hidden = own(MINI)
    trace = hidden.trace

    def renamed(x):
        found = trace(x)
        for event in found["events"]:
            event["op"] = event["op"].replace("concat", "mystery")
        return found

    hidden.trace = renamed
    with pytest.raises(UserError, match="no block is found around the convolution at stage"):
        check(hidden, MINI, 33)


def test_an_end_that_is_not_seen_is_named():
    """The tensor that is returned was made by none of the steps."""
    cut = own(MINI)
    trace = cut.trace

    def unseen(x):
        found = trace(x)
        found["events"] = found["events"][:-1]
        return {**found, "outputs": [{"name": "", "event": None, "out": np.ones((2, 10))}]}

    cut.trace, cut.notes = unseen, ["It is compiled."]
    with pytest.raises(UserError, match=r"behind stage5.1 cannot be seen. It is compiled.$"):
        check(cut, MINI, 33)


def test_the_branch_of_a_pool_may_run_first():
    """Its convolution has the shape of another branch's."""
    first, rest = [], []
    for node in build(V3).nodes.values():
        _, _, part, number, *_ = f"{node.name}...".split(".")
        if node.kind == "concat" and not part:
            first, rest = [*first, *rest, node], []
        elif (part, number) == ("branches", "3"):
            first.append(node)
        elif part == "branches":
            rest.append(node)
        else:
            first, rest = [*first, *rest, node], []
    report = check(own(V3, Graph([*first, *rest])), V3, 75)
    assert report.same, report.text()
