"""`googlenet check` names every injected bug that shows in a network, and passes what is right."""

import ast
import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from small_specs import thin  # in tests/support

from backends.mutations import inject
from common.check import assert_same, check_live
from common.check.api import open_with
from common.check.checker import Checker
from common.check.process import Process, UserError
from common.check.training import TrainingCheck
from common.cli import main
from common.errors import BackendError
from common.parity.fixtures import draw_fixture
from common.parity.mutations import INJECTED_BUGS
from common.recipe import recipe_of
from common.spec import D2L, D2L_BN, MINI
from common.weights import save

PORTS = Path(__file__).parents[1] / "support" / "ports"
SIZE = 36  #: at which a pool that rounds up shows

#: the injected bugs that change the network's function; the others are in weights, losses or steps
SHOWN = (
    "ceil-pool",
    "same-padding",
    "zero-padded-pool",
    "missing-relu",
    "swapped-branches",
    "flatten-order",
    "norm-eps",
    "counted-padding",
    "swapped-forks",
    "unscaled-residual",
    "local-norm-alpha",
)
SAME_MISTAKE = {"swapped-forks": "swapped-branches"}  #: one mistake, in two kinds of blocks


def make(backend, spec):
    """The backend's own network; Paddle's `build` would replace layers to make them faster."""
    if backend.__name__.endswith("paddle"):
        return backend.GoogLeNet(spec)
    return backend.build(spec, "float64", "cpu")


@pytest.mark.parametrize("bug", [INJECTED_BUGS[bug] for bug in SHOWN], ids=SHOWN)
def test_every_injected_bug_is_named(backend, name, bug):
    spec = bug.spec.at(size=bug.size, dropout=0.0)
    with inject(name, bug.name):
        report = check_live(make(backend, spec), name, spec, bug.size)
    assert report.outcome == "differs", report.text()
    named = {finding.name for finding in report.findings}
    assert named == {SAME_MISTAKE.get(bug.name, bug.name)}, report.text()
    assert report.residual < 1e-8


@pytest.mark.parametrize("bug", ["missing-bias", "transposed-head"])
def test_a_converters_mistake_is_named_by_the_weights(backend, name, bug):
    spec = MINI
    weights = draw_fixture(spec).weights
    net = make(backend, spec)
    backend.write_weights(net, weights)
    report = check_live(net, name, spec, 33, weights)
    assert report.weights == []
    assert report.status == 0, report.text()
    with inject(name, bug):
        backend.write_weights(net, weights)
    report = check_live(net, name, spec, 33, weights)
    assert {finding.name for finding in report.weights} == {bug}, report.text()
    assert report.status == 3
    assert bug in report.text()


# ---- ports as people write them


class Ports:
    """The ports of the backend, and a check of each."""

    def __init__(self, name):
        if name == "tf":
            import keras

            self.before = keras.config.dtype_policy()  # another test may have set it
            keras.config.set_dtype_policy("float64")
        sys.path.insert(0, str(PORTS))
        self.name, self.module = name, importlib.import_module(f"{name}_ports")

    def close(self):
        """Undo what the ports needed."""
        sys.path.remove(str(PORTS))
        if self.name == "tf":
            import keras

            keras.config.set_dtype_policy(self.before)

    def check(self, make_net, norm):
        """Check a port against the thin d2l, with or without its norm."""
        return check_live(make_net(), self.name, thin(D2L_BN if norm else D2L), SIZE)


@pytest.fixture(scope="module")
def ports(pytestconfig):
    found = Ports(pytestconfig.getoption("--backend"))
    yield found
    found.close()


def test_right_ports_raise_no_alarm(ports):
    wrong = {}
    for norm, nets in ((False, ports.module.RIGHT), (True, ports.module.RIGHT_NORM)):
        for port, make_net in nets.items():
            report = ports.check(make_net, norm)
            limit = 1e-8 if report.dtype == "float64" else 1e-5
            if report.outcome != "same" or report.plain > limit:
                wrong[port] = report.text()
    assert not wrong, "\n\n".join(f"{port}: {text}" for port, text in wrong.items())


def test_a_last_pool_with_a_window_is_right_at_its_size(ports):
    make_net, parts = ports.module.FIXED
    report = check_live(make_net(**parts), ports.name, thin(D2L).at(size=96))
    assert report.same, report.text()
    assert report.sizes == [96]
    assert any("the first 3x3" in note for note in report.notes)


def test_every_mistake_of_a_wrong_port_is_named_and_nothing_else(ports):
    wrong = {}
    for norm, nets in ((False, ports.module.WRONG), (True, ports.module.WRONG_NORM)):
        for port, (make_net, names) in nets.items():
            report = ports.check(make_net, norm)
            said = {finding.name for finding in (*report.structure, *report.findings)}
            proved = report.outcome == "differs" and report.residual < 1e-8
            if said != names or not proved or report.status != 3:
                wrong[port] = report.text()
    assert not wrong, "\n\n".join(f"{port}: {text}" for port, text in wrong.items())


def test_what_no_mistake_explains_is_said_and_nothing_is_named_wrongly(ports):
    for port, (make_net, outcome, names) in ports.module.OPEN.items():
        report = ports.check(make_net, False)
        assert report.outcome == outcome, f"{port}: {report.text()}"
        assert {finding.name for finding in (*report.structure, *report.findings)} <= names, port
        if outcome == "unexplained":
            assert "UNEXPLAINED" in report.text()


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of what TorchScript compiled
def test_what_cannot_be_recognised_is_refused_and_not_accused(ports):
    for port, (make_net, words) in ports.module.REFUSED.items():
        with pytest.raises(UserError) as raised:
            ports.check(make_net, False)
        assert words in str(raised.value), port


def test_assert_same_says_the_diagnosis_and_leaves_the_weights(backend, name):
    net = make(backend, MINI)
    before = backend.read_weights(net)
    assert_same(net, MINI)
    for key, array in backend.read_weights(net).items():
        np.testing.assert_array_equal(array, before[key], err_msg=key)
    with inject(name, "norm-eps"), pytest.raises(AssertionError, match="norm-eps: eps 1e-05"):
        assert_same(make(backend, MINI), MINI)


def test_what_a_network_returns_is_looked_into_or_refused(backend, name):
    """A result that cannot be read is no agreement."""
    net = make(backend, MINI)
    if hasattr(net, "eval"):
        net.eval()

    def returns(pack):
        def run(x):
            return pack(net(x))

        return run

    def softmax(logits):
        raised = np.exp(array(logits) - array(logits).max(1, keepdims=True))
        return raised / raised.sum(1, keepdims=True)

    def array(logits):
        return logits.asnumpy() if name == "mxnet" else logits.numpy()

    for right in (
        lambda logits: SimpleNamespace(features=1, logits=logits),
        lambda logits: {"logits": (array(logits),)},
    ):
        report = check_live(returns(right), name, MINI, 33)
        assert report.same, report.text()
        assert report.plain < 1e-4
    for wrong in (softmax, lambda logits: SimpleNamespace(logits=softmax(logits))):
        report = check_live(returns(wrong), name, MINI, 33)
        assert [each.name for each in report.findings] == ["softmax-at-end"], report.text()
    for unknown in (lambda logits: array(logits).tolist(), lambda logits: None):
        with pytest.raises(UserError, match="return a tensor, a tuple or a dict"):
            check_live(returns(unknown), name, MINI, 33)


# ---- a network in a file, in its own process

FILES = {
    "torch": """
import torch
from torch import nn
from common import WIDTH  # the user's own module
print("said by the user's code")
net = nn.Sequential(nn.Conv2d(1, WIDTH, 3), nn.ReLU())
class needs_arguments(nn.Module):
    def __init__(self, width): super().__init__()
def broken(x):
    raise KeyError("p4_3")
""",
    "tf": """
import keras
from common import WIDTH
print("said by the user's code")
net = keras.Sequential([keras.layers.Conv2D(WIDTH, 3), keras.layers.ReLU()])
class needs_arguments(keras.Model):
    def __init__(self, width): super().__init__()
def broken(x):
    raise KeyError("p4_3")
""",
    "mxnet": """
import numpy
vars(numpy).update(bool=bool, int=int)
from mxnet.gluon import nn
from common import WIDTH
print("said by the user's code")
net = nn.Sequential()
net.add(nn.Conv2D(WIDTH, 3), nn.Activation("relu"))
class needs_arguments(nn.Block):
    def __init__(self, width): super().__init__()
def broken(x):
    raise KeyError("p4_3")
""",
    "paddle": """
from paddle import nn
from common import WIDTH
print("said by the user's code")
net = nn.Sequential(nn.Conv2D(1, WIDTH, 3), nn.ReLU())
class needs_arguments(nn.Layer):
    def __init__(self, width): super().__init__()
def broken(x):
    raise KeyError("p4_3")
""",
}


def test_a_file_runs_beside_the_users_own_modules_and_its_errors_are_reported(
    name, tmp_path, capfd
):
    (tmp_path / "common.py").write_text("WIDTH = 4\n")
    (tmp_path / "train.py").write_text("raise RuntimeError('not this one')\n")
    file = tmp_path / "mynet.py"
    file.write_text(FILES[name])
    x = np.zeros((2, 1, 12, 12), np.float32)
    with Process(f"{file}:net", name) as process:
        process.open(x)
        found = process.trace(x)
        assert next(event["op"] for event in found["events"]) == "conv"
        assert found["events"][0]["line"].startswith("mynet.py:")
        assert found["outputs"][0]["out"].shape == (2, 4, 10, 10)
    assert "said by the user's code" in capfd.readouterr().out
    for bad, words in (
        ("needs_arguments", "needs the arguments width"),
        ("broken", r"mynet.py:\d+ raises KeyError: 'p4_3'"),
    ):
        with Process(f"{file}:{bad}", name) as process, pytest.raises(UserError, match=words):
            process.open(x)
    with pytest.raises(UserError, match="has no absent"):
        Process(f"{file}:absent", name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["common.py", "mynet.py", "train.py"]


def test_a_python_without_the_framework_is_reported(name, tmp_path):
    (tmp_path / "net.py").write_text("net = None\n")
    empty = tmp_path / "python"
    empty.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    empty.chmod(0o755)
    with pytest.raises(
        BackendError, match=r"cannot be imported in the .* name another .* `--python`"
    ):
        Process(f"{tmp_path / 'net.py'}:net", name, str(empty))


def test_training_steps_are_described_and_their_mistakes_named(name):
    """Steps as people write them, all of one network in one process."""
    file = PORTS / f"{name}_steps.py"
    wrong = {}
    with Process(f"{file}:net", name) as process:
        channels, side = open_with(process.open, MINI, 33)
        checker = Checker(process, MINI, 33, lambda words: None)
        report = checker.run(channels, side)
        assert report.same, report.text()
        match, weights = checker.fitted["mini"]
        for step, (recipe, words, mistakes) in steps_of(file).items():
            asked = recipe_of(recipe) if recipe else None
            found = TrainingCheck(process, match, 33, weights, asked).run(step)
            if words not in found.rule or {each.name for each in found.findings} != mistakes:
                wrong[step] = f"{found.rule} {[each.sentence() for each in found.findings]}"
    assert not wrong


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("raises", "steps.py:2 raises ValueError: my own bug. A function"),
        ("nothing", "steps.py raises TypeError: the step's function returned None"),
        ("one_parameter", "steps.py raises TypeError: "),
    ],
)
def test_a_step_that_cannot_run_is_bad_input(name, tmp_path, step, words):
    (tmp_path / "steps.py").write_text(STEPS + (PORTS / f"{name}_steps.py").read_text())
    command = ["check", f"{tmp_path / 'steps.py'}:net", "--backend", name, "--size", "33"]
    found = CliRunner().invoke(main, [*command, "--spec", "mini", "--step", step])
    assert found.exit_code == 2, found.output
    last = found.output.splitlines()[-1]
    assert "Your network is mini's function. The training step in steps.py cannot" in last
    assert words in last
    assert "`def step(images, labels)`" in last


STEPS = """
def failing(images, labels): raise ValueError("my own bug")
def raises(net): return failing
def nothing(net): return None
def one_parameter(net): return lambda images: None
"""


def steps_of(file):
    """`STEPS` of a file, which is not imported: another process does that."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "STEPS":
            return eval(compile(ast.Expression(node.value), str(file), "eval"))
    raise AssertionError(file)


def test_the_command_compares_a_step_and_the_networks_own_weights(name, tmp_path):
    """The network has other weights than the file, and another step than the recipe's."""
    save(tmp_path / "mini.safetensors", draw_fixture(MINI).weights, MINI)
    words = ["check", f"{PORTS / f'{name}_steps.py'}:net", "--backend", name, "--size", "33"]
    words += ["--weights", str(tmp_path / "mini.safetensors"), "--step", "book"]
    found = CliRunner().invoke(main, [*words, "--recipe", "best", "--json"])
    assert found.exit_code == 3, found.output
    report = json.loads(found.stdout)
    assert report["spec"] == "mini"
    assert not report["findings"]
    assert report["weights"]
    named = {each["name"] for each in report["training"]["findings"]}
    assert named == {"update-rule", "weight-decay", "label-smoothing"}
