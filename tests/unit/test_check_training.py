"""A training step's rule, loss and statistics are found, and its mistakes are named.

Long because the mistakes of a step are injected in one place.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from random_mistakes import FakeNetwork  # in tests/support

from backends.numpy.googlenet import GoogLeNet, cross_entropy
from common.check import api
from common.check.graph import build
from common.check.match import Match
from common.check.process import UserError
from common.check.report import Finding, Report, Training
from common.check.training import TrainingCheck
from common.parity.fixtures import draw_fixture
from common.recipe import D2L as BOOK
from common.recipe import find_recipe
from common.spec import MINI, AdaptiveAvgPool, Auxiliary, Conv, Linear, arithmetic
from common.weights import is_running

SIZE = 33
SIDE = Auxiliary(0, AdaptiveAvgPool((1, 1)), Conv(8, 1), 8, Linear(8, activation=True))
AIDED = replace(MINI, name="aided", auxiliary=(SIDE,))


class Steps:
    """A network whose training step is written here, with the mistakes that it is given."""

    dtype, backend = "float64", "tf"

    def __init__(self, takes_rate=False, spec=MINI, **wrong):
        self.wrong, self.takes_rate, self.spec = wrong, takes_rate, spec
        self.weights = {n: a.astype(np.float64) for n, a in draw_fixture(spec).weights.items()}
        self.names = list(self.weights)

    def start(self, make_step):
        """Begin with an empty optimizer."""
        self.state, self.sum, self.time = {}, {}, 0
        return self.takes_rate

    def read(self):
        """The weights by number."""
        return [self.weights[name].copy() for name in self.names]

    def write(self, arrays):
        """Replace weights by number."""
        for number, array in arrays.items():
            self.weights[self.names[number]] = array.copy()

    def train(self, x, labels, rate=None):
        """One step, with its mistakes."""
        wrong, self.time = self.wrong, self.time + 1
        rate = rate or wrong.get("lr", 0.1)
        norm = replace(MINI.norm, momentum=wrong.get("momentum", MINI.norm.momentum))
        net = GoogLeNet(replace(self.spec.at(size=SIZE), norm=norm), self.weights)
        old = {n: a.copy() for n, a in net.weights.items()}
        outputs = net.forward(x, training=not wrong.get("evaluation"))
        gradients = {"head": self.loss_gradient(outputs["head"], labels)}
        if self.spec.auxiliary:
            side = self.loss_gradient(outputs["auxiliary.0"], labels)
            gradients["auxiliary.0"] = wrong.get("share", 0.3) * side
        gradients = net.backward(gradients)
        for name, array in net.weights.items():
            if not is_running(name):
                array -= self.change(name, array, gradients[name], rate)
            elif wrong.get("kept"):
                array[:] = old[name]
            elif wrong.get("statistics") == name:
                array += np.random.RandomState(0).uniform(0, 1, array.shape)
            elif wrong.get("unbiased") and name.endswith("var"):
                n = x.shape[0] * wrong["unbiased"][name.rpartition(".")[0]]
                share = norm.momentum
                array[:] = share * old[name] + (array - share * old[name]) * n / (n - 1)
        self.weights = net.weights

    def loss_gradient(self, out, labels):
        """The gradient of the logits."""
        wrong = self.wrong
        if wrong.get("loss") == "noise":
            return np.random.RandomState(self.time).standard_normal(out.shape)
        if wrong.get("loss") == "softmax":
            p = np.exp(out) / np.exp(out).sum(1, keepdims=True)
            dp = cross_entropy(p, labels, wrong.get("smoothing", 0.0))[1]
            return p * (dp - (dp * p).sum(1, keepdims=True))
        dy = cross_entropy(out, labels, wrong.get("smoothing", 0.0))[1]
        return dy * {"sum": len(labels), "divided": 1 / len(labels)}.get(wrong.get("loss"), 1)

    def change(self, name, weight, g, rate):
        """What the update rule subtracts."""
        wrong, state = self.wrong, self.state
        if name.startswith(wrong.get("bent", "none")):
            g = np.cbrt(g)
        if name in wrong.get("frozen", ()):
            return 0
        if wrong.get("clear") is False:
            g = self.sum[name] = self.sum.get(name, 0) + g
        decay, on = wrong.get("decay", (0, ""))
        amount = decay if on == "all" or (on == "kernels" and weight.ndim > 1) else 0
        if not wrong.get("decoupled"):
            g = g + amount * weight
        rule, more = wrong.get("rule", "sgd"), rate * amount * weight * bool(wrong.get("decoupled"))
        if rule == "inside":
            v = state[name] = 0.9 * state.get(name, 0) + rate * g
            return v + more
        if rule == "adam":
            m, s = state.get(name, (0, 0))
            m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * g * g
            state[name] = m, s
            c = 1 - 0.9**self.time, 1 - 0.999**self.time
            eps = wrong.get("eps", 1e-8)
            if wrong.get("place") == "uncorrected":
                return rate * m / c[0] * np.sqrt(c[1]) / (np.sqrt(s) + eps) + more
            return rate * m / c[0] / (np.sqrt(s / c[1]) + eps) + more
        mu = {"momentum": 0.9, "nesterov": 0.9, "odd": 0.37}.get(rule, 0)
        v = state[name] = mu * state.get(name, 0) + g
        return rate * (g + mu * v if rule == "nesterov" else v) + more


def check(recipe=None, takes_rate=False, **wrong):
    return run(Steps(takes_rate, **wrong), recipe)


def run(network, recipe=None, own=()):
    leaves = {}
    for number, name in enumerate(network.names):
        layer, _, leaf = name.rpartition(".")
        leaves.setdefault(layer, {})[leaf] = number
    layers = {n: SimpleNamespace(leaves=each, own=n in own) for n, each in leaves.items()}
    match = Match(network.spec, network.spec, layers)
    weights = {n: a.copy() for n, a in network.weights.items()}
    return TrainingCheck(network, match, SIZE, weights, recipe).run("make_step")


def named(found):
    return {finding.name for finding in found.findings}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({}, "SGD without momentum, rate 0.1, no weight decay"),
        ({"rule": "momentum"}, "SGD with momentum 0.9, rate 0.1, no weight decay"),
        ({"rule": "odd"}, "SGD with momentum 0.37, rate 0.1, no weight decay"),
        ({"rule": "nesterov"}, "SGD with Nesterov momentum 0.9, rate 0.1, no weight decay"),
        ({"decay": (7e-4, "all")}, "weight decay 0.0007 on every weight, added to the gradient"),
        (
            {"rule": "nesterov", "decay": (5e-4, "kernels"), "decoupled": True},
            "Nesterov momentum 0.9, rate 0.1, weight decay 0.0005 on kernels, beside the",
        ),
        ({"rule": "adam"}, "Adam, eps 1e-08 outside the corrected root, rate 0.1"),
        (
            {"rule": "adam", "eps": 1e-7, "place": "uncorrected"},
            "Adam, eps 1e-07 beside the root before its correction, rate 0.1",
        ),
        (
            {"rule": "adam", "decay": (0.02, "kernels"), "decoupled": True},
            "weight decay 0.02 on kernels, beside the gradient's step",
        ),
        (
            {"rule": "adam", "decay": (1e-3, "kernels")},
            "weight decay 0.001 on kernels, added to the gradient",
        ),
        ({"smoothing": 0.1}, "label smoothing 0.1"),
        ({"smoothing": 0.23, "rule": "momentum"}, "label smoothing 0.23"),
    ],
)
def test_a_right_step_is_described_and_no_mistake_is_named(wrong, words):
    found = check(**wrong)
    assert words in found.rule
    assert found.error < 1e-6
    assert not found.findings
    assert found.same


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"clear": False}, {"gradient-twice"}),
        ({"clear": False, "rule": "momentum"}, {"gradient-twice"}),
        ({"clear": False, "rule": "adam"}, {"gradient-twice"}),
        ({"loss": "softmax"}, {"double-softmax"}),
        ({"loss": "softmax", "rule": "adam"}, {"double-softmax"}),
        ({"loss": "sum", "rule": "adam"}, {"summed-loss"}),
        ({"loss": "softmax", "smoothing": 0.1}, {"double-softmax"}),
        ({"frozen": ("head.weight", "head.bias")}, {"frozen-weights"}),
        ({"momentum": 0.1}, {"norm-momentum"}),
        ({"kept": True}, {"norm-not-updated"}),
        ({"evaluation": True}, {"norm-evaluation-mode", "norm-not-updated"}),
        ({"rule": "inside", "takes_rate": True}, {"rate-in-velocity"}),
        ({"rule": "momentum", "takes_rate": True}, set()),
        ({"clear": False, "momentum": 0.99}, {"gradient-twice", "norm-momentum"}),
    ],
)
def test_a_mistake_is_named_and_nothing_else(wrong, names):
    found = check(**wrong)
    assert found.rule
    assert named(found) == names


@pytest.mark.parametrize(
    ("share", "rule", "name", "words"),
    [
        (0.3, "sgd", None, ""),
        (0, "adam", "auxiliary-left-out", ""),
        (0.4, "adam", "auxiliary-share", "0.4, not 0.3"),
        (1, "momentum", "auxiliary-share", "1, not 0.3"),
        (0.17, "sgd", "auxiliary-share", "0.17, not 0.3"),
    ],
)
def test_another_share_of_the_auxiliary_heads_is_named(share, rule, name, words):
    found = check(spec=AIDED, share=share, rule=rule)
    assert found.rule
    assert named(found) == ({name} if name else set())
    assert all(words in each.sentence() for each in found.findings)


@pytest.mark.parametrize(
    ("rule", "words"), [("sgd", "SGD without momentum"), ("momentum", "SGD with momentum 0.9")]
)
def test_the_rule_is_found_beside_gradients_that_are_never_cleared(rule, words):
    assert check(clear=False, rule=rule).rule.startswith(words)


def test_the_unbiased_variance_is_named():
    areas = {
        layer.name: layer.shape[2] * layer.shape[3]
        for layer in arithmetic.layers(MINI.at(size=SIZE))
        if len(layer.shape) == 4
    }
    assert named(check(unbiased=areas)) == {"norm-variance"}
    with pytest.MonkeyPatch.context() as patch:  # PyTorch's own norm is no mistake of the user's
        patch.setattr(Steps, "backend", "torch")
        found = check(unbiased=areas)
    assert found.same
    assert [("n - 1" in note, "#norm-variance" in note) for note in found.notes] == [(True, True)]


def test_statistics_of_an_own_norm_that_are_replaced_are_noted_and_others_named():
    norms = {n.rpartition(".")[0] for n in Steps().names if is_running(n)}
    assert named(run(Steps(kept=True))) == {"norm-not-updated"}
    found = run(Steps(kept=True), own=norms)
    assert found.same
    assert ["may replace them" in note for note in found.notes] == [True]


def test_the_exchanged_shares_of_a_norm_are_said():
    (finding,) = check(momentum=0.1).findings
    assert "exchanged" in finding.sentence()
    assert len(finding.places) == sum(name.endswith("running_mean") for name in Steps().names)


@pytest.mark.parametrize(
    ("recipe", "wrong", "names"),
    [
        (BOOK, {}, set()),
        (BOOK, {"loss": "sum"}, {"summed-loss"}),
        (BOOK, {"loss": "divided"}, {"step-divides"}),
        (BOOK, {"rule": "momentum"}, {"update-rule"}),
        (BOOK, {"smoothing": 0.1}, {"label-smoothing"}),
        (replace(BOOK, lr=0.2), {}, {"learning-rate"}),
        (replace(BOOK, weight_decay=5e-4), {"decay": (5e-4, "kernels")}, set()),
        (replace(BOOK, weight_decay=5e-4), {"decay": (5e-4, "all")}, {"weight-decay"}),
        (replace(BOOK, weight_decay=5e-4), {}, {"weight-decay"}),
        (
            find_recipe("best"),
            {"rule": "nesterov", "decay": (5e-4, "kernels"), "smoothing": 0.1},
            set(),
        ),
        (
            find_recipe("best"),
            {"rule": "momentum", "decay": (5e-4, "kernels"), "decoupled": True, "smoothing": 0.1},
            {"update-rule", "weight-decay"},
        ),
        (find_recipe("blog-224"), {"rule": "adam", "lr": 1e-3}, set()),
        (
            find_recipe("blog-224"),
            {"rule": "adam", "lr": 1e-3, "place": "uncorrected"},
            {"update-rule"},
        ),
    ],
)
def test_a_step_is_compared_with_a_recipe(recipe, wrong, names):
    found = check(recipe, **wrong)
    assert named(found) == names, found


def test_a_step_that_changes_nothing_is_said_to():
    found = check(frozen=Steps().names)
    assert named(found) == {"frozen-weights"}
    assert "make_step" in found.findings[0].sentence()
    assert not found.same


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_step_that_leaves_no_numbers_is_said_to(value):
    class Broken(Steps):
        def train(self, x, labels, rate=None):
            """The second step breaks one tensor."""
            super().train(x, labels, rate)
            if self.time == 2:
                self.weights["head.bias"][0] = value

    found = run(Broken())
    assert named(found) == {"not-finite"}
    assert found.findings[0].sentence() == "NaN or infinity in head.bias after step 2"
    assert not found.same


def test_biases_that_the_spec_has_not_are_left_out():
    """A convolution in front of a norm has a bias by default; torchvision's have none."""
    network = Steps()
    extra = "stage1.0.conv.other"
    network.weights[extra] = np.zeros(3)
    network.names.append(extra)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Steps, "train", lambda self, x, labels, rate=None: None)
        assert named(run(network)) == {"frozen-weights"}


def test_statistics_that_no_momentum_gives_are_a_mistake_of_an_explained_step():
    """Another one may have changed its images first, as mixup does."""
    name = "stage2.0.norm.running_mean"
    found = check(statistics=name)
    (finding,) = found.findings
    assert (finding.name, finding.places, found.notes) == ("norm-statistics", ["stage2.0.norm"], [])
    assert not found.same
    found = check(statistics=name, loss="noise")
    assert (found.unexplained, found.findings) == (True, [])
    assert f"No momentum gives your {name}." in found.notes


def test_an_unknown_step_is_unexplained():
    found = check(loss="noise")
    assert found.unexplained
    assert not found.same
    assert any("dropout" in note for note in found.notes)


def test_where_the_gradient_stops_being_right_is_said():
    found = check(bent=("stage1", "stage2", "stage3"))
    assert found.unexplained
    assert "weights behind stage3.0 follow a rule: SGD without momentum" in found.notes[0]


@pytest.mark.parametrize(
    ("network", "step", "left", "noted"),
    [
        ([], [], [], []),
        (["missing-relu"], None, ["missing-relu"], ["mend the network"]),
        (["softmax-at-end"], [], [], ["takes probabilities"]),
        (["softmax-at-end"], ["double-softmax"], ["softmax-at-end"], []),
        (["softmax-at-end"], ["from-logits"], ["softmax-at-end"], []),
    ],
)
def test_a_step_belongs_to_a_right_network_or_one_whose_softmax_its_loss_wants(
    monkeypatch, network, step, left, noted
):
    """`step` is what is found in the step; None if it must not run."""

    class Check:
        def __init__(self, process, match, size, weights, recipe):
            assert (match, size, weights, recipe) == ("match", SIZE, "weights", BOOK)

        def run(self, name):
            assert name == "make_step"
            return Training("SGD", 0.0, [Finding(each, words, [], "") for each in step], [])

    monkeypatch.setattr(api, "TrainingCheck", Check)
    words = {"what": "probabilities", "theirs": "softmax"}
    findings = [Finding(name, words, [], "") for name in network]
    report = Report("mini", [299], "float64", [], findings, [], 1e-9, 0.7, [], True)
    checker = SimpleNamespace(fitted={"mini": ("match", "weights")}, opened=SIZE)
    api.check_training(None, checker, report, "make_step", BOOK)
    assert [each.name for each in report.findings] == left
    assert (report.training is None) == (step is None)
    assert report.training is None or report.training.recipe == BOOK.name
    assert report.same == (step == [] and not left)
    if network == ["softmax-at-end"] and not left:
        assert "Your outputs are those of the reference to 1e-09." in report.text()
    notes = [line for line in report.text().splitlines() if line.startswith("Note: ")]
    assert [words in note for words, note in zip(noted, notes, strict=True)] == [True] * len(noted)


@pytest.mark.parametrize("names", [[], ["softmax-at-end"]])
def test_a_step_that_cannot_run_is_bad_input_and_the_networks_answer_is_said(monkeypatch, names):
    class Check:
        def __init__(self, *_):
            """Nothing is needed."""

        def run(self, name):
            raise UserError("It cannot run.")

    monkeypatch.setattr(api, "TrainingCheck", Check)
    findings = [Finding(name, {"what": "", "theirs": ""}, [], "") for name in names]
    report = Report("mini", [SIZE], "float64", [], findings, [], 1e-9, 0.7, [], True)
    checker = SimpleNamespace(fitted={"mini": ("match", "weights")}, opened=SIZE)
    with pytest.raises(UserError) as raised:
        api.check_training(None, checker, report, "make_step", None)
    right = "" if names else "Your network is mini's function. "
    assert str(raised.value) == f"{right}It cannot run."


def test_a_check_says_what_it_is_doing(monkeypatch):
    class Opened(FakeNetwork):
        version = "1.0"

        def __init__(self, *_, option="--python", **__):
            super().__init__(build(MINI))
            options.append(option)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            """Nothing is left to do."""

        def open(self, x):
            """The network runs at every size."""

    said, options, done = [], [], Training("SGD", 0.0, [], [])
    monkeypatch.setattr(api, "Process", Opened)
    monkeypatch.setattr(
        api, "TrainingCheck", lambda *_: SimpleNamespace(run=lambda name: said.append(name) or done)
    )
    report = api.check_file("net.py:net", "torch", "mini", say=said.append, step="make_step")
    assert (report.same, report.training) == (True, done)
    assert (report.target, report.backend, report.version) == ("net.py:net", "torch", "1.0")
    stages = ("net.py:net", "33x33", "34x34", "training step", "make_step")
    for words, line in zip(stages, said, strict=True):
        assert words in line
    said.clear()
    report = api.check_against("one.py:net", "torch", "two.py:net", "tf", 33, say=said.append)
    assert report.same
    assert (report.target, report.spec) == ("one.py:net", "two.py:net (tf 1.0)")
    assert options == ["--python", "--python", "--against-python"]  # that name the Python
    for words, line in zip(("loaded", "33x33"), said, strict=True):
        assert words in line
