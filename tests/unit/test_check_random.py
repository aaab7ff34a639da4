"""A fixed sample of random mistakes: each is reproduced, and none is named wrongly."""

import json
from dataclasses import replace

import numpy as np
import pytest
import random_mistakes  # in tests/support

from common.check import values
from common.check.against import Against, draw
from common.check.checker import Checker
from common.check.edits import names
from common.check.graph import ACTIVATIONS, Graph, Node, build
from common.check.process import UserError
from common.check.report import Difference
from common.check.trace import of
from common.parity.fixtures import draw_fixture
from common.spec import INCEPTION_V3, MINI, SPECS, LocalNorm

BIAS = "stage1.0.conv.bias"


def test_no_random_mistake_is_named_wrongly():
    found = random_mistakes.run(seed=5, count=30, say=lambda words: None)
    assert not [each.wrong for each in found if each.wrong]
    assert sum(each.reproduced for each in found) >= 29
    assert len({kind for each in found for _, kinds in each.made for kind in kinds}) > 8


def network(edit=None):
    """The reference `mini` as a user's network, with one step edited."""
    graph = build(MINI)
    name, change = edit or ("head", {})
    return random_mistakes.FakeNetwork(graph.edited({name: {**graph.nodes[name].p, **change}}))


@pytest.mark.parametrize(
    ("edit", "names"),
    [
        (None, []),
        (("stage1.0.conv", {"pad": (2, 3, 2, 3)}), ["same-padding"]),
        (("stage4.0.branch3x3.0.norm", {"eps": 1e-5}), ["norm-eps"]),
        (("stage3.0.branch3x3.0.relu", {"fn": "none"}), ["missing-relu"]),
        (("stage4.0", {"order": (0, 1, 3, 2)}), ["swapped-branches"]),
    ],
)
def test_two_networks_are_compared_without_a_spec(edit, names):
    checker = Against(network(), network(edit), lambda words: None)
    report = checker.compare_networks(1, 34)
    assert [finding.name for finding in report.findings] == names, report.text()
    assert report.outcome == ("differs" if names else "same")
    assert report.residual < 1e-9  # the eps of a norm, in float32 or not


PLAIN = replace(MINI, name="plain", norm=None)


@pytest.mark.parametrize(
    ("spec", "place", "lacks", "second", "named"),
    [
        (PLAIN, "stage1.0.conv", {"bias": False}, True, "missing-bias"),
        (PLAIN, "stage1.0.conv", {"bias": False}, False, "extra-bias"),
        (PLAIN, "head", {"bias": False}, False, "extra-bias"),
        (MINI, "stage1.0.conv", {"bias": False}, True, ""),
        (MINI, "stage1.0.conv", {"bias": False}, False, ""),
        (MINI, "stage1.0.norm", {"affine": "no scale"}, True, "norm-affine"),
        (MINI, "stage1.0.norm", {"affine": "no scale"}, False, "norm-affine"),
        (MINI, "stage1.0.norm", {"affine": "no shift"}, False, "norm-affine"),
    ],
)
def test_what_only_one_of_two_networks_has_is_named(spec, place, lacks, second, named):
    """It begins as if it were not there: a bias or shift at 0, a scale at 1."""
    graph = build(spec)
    less = graph.edited({place: {**graph.nodes[place].p, **lacks}})
    networks = [random_mistakes.FakeNetwork(each, spec) for each in (graph, less)]
    for each in networks:
        for name in each.weights:
            each.weights[name] = np.full_like(each.weights[name], not name.endswith("bias"))
    one, two = networks if second else networks[::-1]
    report = Against(one, two, lambda words: None).compare_networks(1, 34)
    assert [finding.name for finding in report.findings] == [named] * bool(named), report.text()
    assert report.outcome == ("differs" if named else "same")
    assert ["a bias in one network only" in note for note in report.notes] == [True] * (not named)
    if named == "norm-affine" and not second:
        assert report.findings[0].sentence() == "the norm has a scale and a shift"


@pytest.mark.parametrize("mode", ["batch", "outside"])
def test_a_norm_that_only_the_other_network_has_wrong_accuses_nobody(mode):
    first, second = network(("stage1.0.norm", {"mode": mode})), network()
    report = Against(first, second, lambda words: None).compare_networks(1, 34)
    assert (report.outcome, report.findings) == ("unexplained", [])


def test_a_bias_in_front_of_a_norm_counts_if_something_else_takes_it_too():
    """The second convolution adds the first one's output to the norm's."""
    graph = build(MINI)
    nodes = list(graph.nodes.values())
    place = [node.name for node in nodes].index("stage2.1.relu")
    nodes.insert(place, Node("sum", "add", ("stage2.1.norm", "stage2.1.conv")))
    nodes[place + 1] = replace(nodes[place + 1], inputs=("sum",))
    graph = Graph(nodes)
    conv = graph.nodes["stage2.1.conv"]
    less = graph.edited({conv.name: {**conv.p, "bias": False}})
    first, second = (random_mistakes.FakeNetwork(each) for each in (less, graph))
    second.weights[f"{conv.name}.bias"][:] = 0
    report = Against(first, second, lambda words: None).compare_networks(1, 34)
    assert [finding.name for finding in report.findings] == ["extra-bias"]


class PadsBefore(random_mistakes.FakeNetwork):
    """Its pools of stride 2 are padded with 0 in a step of their own, as in Keras."""

    def trace(self, x):
        """Each such pool has the padding in front of it."""
        found, at = super().trace(x), {-1: -1}
        old, found["events"] = found["events"], []
        for number, each in enumerate(old):
            each["inputs"] = [at[i] for i in each["inputs"]]
            node = self.graph.nodes.get(each["path"])
            if node and node.kind == "pool" and node.p["stride"] == (2, 2):
                (source,) = each["inputs"]
                wide = np.pad(found["events"][source]["out"], ((0, 0), (0, 0), (1, 1), (1, 1)))
                found["events"].append(random_mistakes.event("pad", "", [source], {}, wide))
                each["inputs"] = [len(found["events"]) - 1]
            at[number] = len(found["events"])
            found["events"].append(each)
        for each in found["outputs"]:
            each["event"] = at[each["event"]]
        return found


def test_a_padding_in_front_of_a_pool_hides_no_mistake_in_another_network():
    first = PadsBefore(build(MINI))
    second = network(("stage1.0.norm", {"eps": 1e-5}))
    report = Against(first, second, lambda words: None).compare_networks(1, 34)
    assert [finding.name for finding in report.findings] == ["norm-eps"]
    assert (report.outcome, report.notes) == ("differs", []), report.text()


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("stage1.0.conv.bias", lambda a: 0 * a, "left at zero"),
        ("stage1.0.conv.weight", lambda a: a[:, :, ::-1, ::-1], "180 degrees"),
        ("stage2.1.conv.weight", lambda a: a.astype(np.float16).astype(float), "rounded"),
        ("head.weight", lambda a: a.T.reshape(a.shape), "reshaped where it should be transposed"),
        ("stage2.1.conv.weight", lambda a: a + 0.01, "0.01 is added to it"),
        ("stage2.1.conv.weight", lambda a: a + 1e-3 * (a > 0), "other values"),
        ("head.bias", lambda a: 255 * a, "multiplied by 255"),
        (
            "stage3.0.branch5x5.1.conv.weight",
            lambda a: a.transpose(2, 3, 1, 0).reshape(a.shape),
            "lies as (height, width, in, out)",
        ),
        ("stage2.0.norm.running_mean", lambda a: a[::-1], "another order"),
    ],
)
def test_what_became_of_a_weight_is_said(name, change, words):
    want = {n: a.astype(np.float64) for n, a in draw_fixture(MINI).weights.items()}
    (finding,) = values.compare({**want, name: change(want[name])}, want, {})
    assert finding.places == [name]
    assert words in finding.sentence()


def test_a_tensor_of_zeros_is_not_taken_for_a_bias_of_zeros():
    name = "stage1.0.norm.running_mean"
    want = {n: a.astype(np.float64) for n, a in draw_fixture(MINI).weights.items()}
    want[BIAS] *= 0
    (finding,) = values.compare({name: 0 * want[name]}, want, {})
    assert "left at zero" in finding.sentence()


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("lost", [True, False])
def test_a_bias_that_one_side_lacks_counts_as_0(lost, value):
    """The network, whose converter dropped it, or the file, whose spec has none there."""
    stem, *rest = MINI.stage1
    spec = MINI if lost else replace(MINI, stage1=(replace(stem, bias=False), *rest))
    source = {n: a.astype(np.float64) for n, a in draw_fixture(MINI).weights.items()}
    own = network(("stage1.0.conv", {"bias": not lost}))
    own.weights[BIAS][:] = source[BIAS][:] = value
    if not lost:
        del source[BIAS]
    report = Checker(own, spec, 33, lambda words: None, source).run(1, 33)
    assert report.function_same
    assert [place for each in report.weights for place in each.places] == [BIAS] * value


def test_a_report_with_an_infinite_error_is_json_too():
    """The reference's outputs have another shape; an unexplained tensor holds no numbers."""
    (mean,) = [node for node in build(MINI).nodes.values() if node.kind == "gap"]
    flat = network((mean.name, {"fn": "flatten"}))
    before = build(MINI).run(np.zeros((2, 1, 33, 33)), flat.weights)[mean.inputs[0]]
    flat.weights["head.weight"] = np.random.RandomState(0).uniform(size=(10, before[0].size))
    report, _ = noted(flat)
    assert [each.name for each in report.findings] == ["missing-global-pool"]
    assert report.plain == np.inf
    report.unexplained = [Difference("head", "", ([1], [np.nan]), ([1], [-np.inf]), 33)]
    found = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert found["plain"] is None
    assert found["unexplained"][0]["ours"] == [[1], [None]]


class Unknown(random_mistakes.FakeNetwork):
    """A network with an activation that the check does not know."""

    def trace(self, x):
        """A sine where the graph has a tanh."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(ACTIVATIONS, "tanh", np.sin)
            return super().trace(x)


class OneSize(random_mistakes.FakeNetwork):
    """A network that refuses images of every other size."""

    def trace(self, x):
        """The run, at 33 pixels."""
        if x.shape[2] != 33:
            raise UserError("It takes 33 pixels.")
        return super().trace(x)


def noted(network, size=33, source=None):
    """The notes at the end of a check's report."""
    report = Checker(network, MINI, size, lambda words: None, source).run(1, 33)
    lines = report.text().splitlines()
    return report, [line for line in lines if line.startswith("Note: ")]


def test_what_was_not_compared_or_counts_as_the_same_is_noted():
    assert noted(network())[1] == []
    report, (note,) = noted(network(("stage1.0.conv", {"bias": False})))
    assert report.same
    assert "1 convolution" in note
    report, (note,) = noted(OneSize(build(MINI)), size=None)
    assert (report.same, report.sizes) == (True, [33])
    assert "34x34" in note
    deeper = replace(MINI, stage4=(MINI.stage4[0], *MINI.stage4))
    other = random_mistakes.FakeNetwork(build(deeper), deeper)
    report, (note,) = noted(other, source=draw_fixture(MINI).weights)
    assert (report.outcome, report.weights) == ("structure", None)
    assert "weights were not compared" in note
    odd = build(MINI).edited({"stage3.0.branch3x3.0.relu": {"fn": "tanh"}})
    first, second = Unknown(odd), Unknown(odd)
    first.notes, second.notes = ["The first is compiled."], ["The second is compiled."]
    report = Against(first, second, lambda words: None).compare_networks(1, 34)
    assert (report.same, report.sizes) == (True, [34])
    for words in (*first.notes, *second.notes, "values alone"):
        assert words in report.text()


def test_a_local_norm_and_a_pool_in_each_others_place_are_named():
    spec = replace(MINI, name="local", norm=None, stage1=(*MINI.stage1, LocalNorm(5, 1.0, 0.75)))
    graph = build(spec)
    pool, norm = (graph.nodes[f"stage1.{number}"] for number in (1, 2))
    first = {**pool.p, "before": [("local norm", norm.p)]}
    edited = graph.edited({pool.name: first, norm.name: {**norm.p, "fn": "none"}})
    report = Checker(random_mistakes.FakeNetwork(edited, spec), spec, 33, print).run(1, 33)
    (finding,) = report.findings
    assert (finding.name, finding.places) == ("local-norm-order", ["stage1.1"])
    assert "in front of the pool" in finding.sentence()
    assert report.residual < 1e-9


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        ([("affine", 2.0), ("mask", 0)], "dropout-active"),
        ([("affine", 2.0), ("affine", 3.0)], "scaled"),
    ],
)
def test_two_steps_that_are_one_have_one_name(steps, name):
    """TensorFlow's dropout is a product and then a mask."""
    mask = np.random.RandomState(0).randint(0, 2, (2, 128)).astype(float)
    made = {"affine": lambda by: {"scale": [by] * 128, "shift": [0.0] * 128}}
    made["mask"] = lambda by: {"mask": mask}
    report, _ = noted(network(("head", {"before": [(kind, made[kind](by)) for kind, by in steps]})))
    assert [each.name for each in report.findings] == [name]


def test_a_local_norm_that_reads_another_step_is_named():
    """It takes the convolution's output, in front of the ReLU."""
    stem, *rest = MINI.stage1
    spec = replace(MINI, name="local", norm=None, stage1=(stem, LocalNorm(5, 1.0, 0.75), *rest))
    graph = build(spec)
    norm = graph.nodes["stage1.1"]
    wrong = graph.edited({norm.name: {**norm.p, "reads": "stage1.0.conv"}})
    report = Checker(random_mistakes.FakeNetwork(wrong, spec), spec, 33, print).run(1, 33)
    (finding,) = report.findings
    assert (finding.name, report.outcome) == ("other-input", "differs"), report.text()
    assert finding.sentence() == "it reads stage1.0.conv, not stage1.0.relu"


@pytest.mark.parametrize("spec", ["googlenet-paper", "inception-resnet-v2", "torchvision-imagenet"])
def test_a_step_that_reads_another_one_makes_one_mistake(spec):
    for node in build(SPECS[spec]).nodes.values():
        if node.inputs:
            (found,) = names(node, {**node.p, "reads": "another"})
            assert found == ("other-input", {"theirs": "another", "ours": node.inputs[0]})


def test_the_branches_of_a_block_have_the_names_of_the_spec():
    for spec, place, order, words in (
        (MINI, "stage4.0", (0, 1, 3, 2), "1x1, 3x3, pool, 5x5"),
        (INCEPTION_V3, "stage3.0", (0, 2, 1, 3), "branches.0, branches.2, branches.1, branches.3"),
    ):
        node = build(spec).nodes[place]
        assert names(node, {**node.p, "order": order}) == [("swapped-branches", {"theirs": words})]


def test_a_normalised_input_is_one_change():
    steps = [{"scale": [1.0], "shift": [-0.5]}, {"scale": [4.0], "shift": [0.0]}]
    report, _ = noted(network(("stage1.0.conv", {"before": [("affine", p) for p in steps]})))
    (finding,) = report.findings
    assert finding.sentence() == "the network changes its input x to x times 4 plus -2"


class Rows(random_mistakes.FakeNetwork):
    """A network whose norms have a number for each row of the image."""

    def shapes(self):
        """Those of the norms are another."""
        norms = [".norm." in name for name in self.numbers]
        return [(17,) if n else s for n, s in zip(norms, super().shapes(), strict=True)]


def test_a_norm_along_another_axis_is_named_once_with_all_its_places():
    report, _ = noted(Rows(build(MINI)))
    (finding,) = report.structure
    assert (finding.name, report.outcome) == ("norm-axis", "structure")
    assert len(finding.places) == sum(n.kind == "norm" for n in build(MINI).nodes.values())


@pytest.mark.parametrize("name", ["stage2.1.conv", "stage4.0.branch3x3.0.conv"])
def test_the_place_of_an_extra_step_is_the_step_that_it_stands_behind(name):
    report, _ = noted(network((name, {"before": [("act", {"fn": "tanh"})]})))
    (finding,) = report.findings
    before = build(MINI).nodes[name].inputs
    assert (finding.name, finding.places, finding.where) == ("extra-activation", [*before], name)


def test_the_drawn_kernels_keep_the_size_of_values_behind_a_relu():
    """Its half of them is gone: He's variance, 2 over the number of inputs."""
    drawn = draw(of(network(), np.zeros((2, 1, 33, 33)))).values()
    found = [each.var() * each[0].size for each in drawn if each.ndim > 1 and each.size > 2000]
    assert len(found) > 5
    assert found == pytest.approx([2.0] * len(found), rel=0.15)
