"""Weights into a user's own network and out of its file, whose names only that network knows."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from backends.numpy import GoogLeNet
from common.cli import main
from common.formats.naming import FORMATS
from common.parity.fixtures import draw_fixture
from common.spec import MINI
from common.weights import load, save

PORTS = Path(__file__).parents[1] / "support" / "ports"


def convert(*words):
    return CliRunner().invoke(main, ["convert", *map(str, words)])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of weights of `mini`; nothing in it is 0."""
    path = tmp_path_factory.mktemp("own") / "mini.safetensors"
    save(path, draw_fixture(MINI).weights, MINI)
    return path


@pytest.fixture(scope="module")
def theirs(pytestconfig, weights):
    """A file of the user's own network that holds those weights, and what the command printed."""
    name = pytestconfig.getoption("--backend")
    path = weights.with_name(f"theirs{FORMATS[name].suffix}")
    network = f"{PORTS / f'{name}_own.py'}:net"
    done = convert(weights, path, "--into", network, "--backend", name, "--json")
    assert done.exit_code == 0, done.output
    return path, done.stdout


def test_weights_go_into_a_network_of_ones_own_and_come_back(name, weights, theirs, tmp_path):
    network = f"{PORTS / f'{name}_own.py'}:net"
    file, printed = theirs
    back = tmp_path / "back.safetensors"
    found = json.loads(printed)
    check = found["check"]
    assert not any("do not run" in note for note in found["notes"])
    assert check["largest"] > 0
    assert check["difference"] < 1e-5 * check["largest"]
    done = convert(file, back, "--from", network, "--backend", name)
    assert done.exit_code == 0, done.output
    x = draw_fixture(MINI).inputs
    first, again = (
        GoogLeNet(MINI, load(path, MINI)).forward(x)["head"] for path in (weights, back)
    )
    np.testing.assert_allclose(again, first, rtol=0, atol=1e-6 * np.abs(first).max())


#: a head without a step behind it, and two with one, by backend
BEHIND = {
    "torch": (
        "return self.classify(x.mean((2, 3)))",
        "return self.classify(x.mean((2, 3))).flatten(1)",
        "return self.classify(x.mean((2, 3)))[..., None, None]",
    ),
    "tf": (
        'keras.Model(inputs, layers.Dense(10, name="classify")(x))',
        "keras.Model(inputs, layers.Flatten()(layers.Dense(10)(x)))",
        "keras.Model(inputs, layers.Reshape((1, 1, 10))(layers.Dense(10)(x)))",
    ),
    "mxnet": (
        "nn.Dense(10))",
        "nn.Dense(10), nn.Flatten())",
        "nn.Dense(10), nn.Lambda(lambda x: x.reshape((-1, 10, 1, 1))))",
    ),
    "paddle": (
        "return self.classify(x.mean([2, 3]))",
        "return self.classify(x.mean([2, 3])).flatten(1)",
        "return self.classify(x.mean([2, 3])).unsqueeze([2, 3])",
    ),
}


@pytest.mark.parametrize("which", [1, 2])
def test_steps_may_stand_behind_the_last_layer(name, which, weights, tmp_path):
    text = (PORTS / f"{name}_own.py").read_text()
    changed = text.replace(BEHIND[name][0], BEHIND[name][which])
    assert changed != text
    (tmp_path / "net.py").write_text(changed)
    words = [f"{tmp_path / 'net.py'}:net", "--backend", name]
    theirs = tmp_path / f"theirs{FORMATS[name].suffix}"
    for done in (
        convert(weights, theirs, "--into", *words),
        convert(theirs, tmp_path / "back.safetensors", "--from", *words),
    ):
        assert done.exit_code == 0, done.output


def test_one_of_several_dicts_is_chosen_by_its_key(name, theirs, tmp_path):
    if name not in ("torch", "paddle"):
        pytest.skip("only PyTorch's and Paddle's files hold dicts")
    network = f"{PORTS / f'{name}_own.py'}:net"
    both = tmp_path / f"both{FORMATS[name].suffix}"
    framework = importlib.import_module(name)
    one = framework.load(str(theirs[0]))
    framework.save({"model": one, "ema": {n: 0 * a for n, a in one.items()}}, str(both))
    words = ["--from", network, "--backend", name]
    done = convert(both, tmp_path / "back.safetensors", *words)
    assert done.exit_code == 2
    assert "model, ema" in done.output
    assert "`--key`" in done.output
    done = convert(both, tmp_path / "back.safetensors", *words, "--key", "model")
    assert done.exit_code == 0, done.output
    assert load(tmp_path / "back.safetensors", MINI)["head.weight"].any()


def test_a_file_of_another_shape_is_refused(name, weights, theirs, tmp_path):
    text = (PORTS / f"{name}_own.py").read_text()
    other = text.replace("(128, 10)", "(128, 7)").replace("Dense(10", "Dense(7")
    assert other != text
    (tmp_path / "net.py").write_text(other)
    words = ["--from", f"{tmp_path / 'net.py'}:net", "--backend", name]
    done = convert(theirs[0], tmp_path / "back.npz", *words)
    assert done.exit_code == 2, done.output
    assert not (tmp_path / "back.npz").exists()
    words[0] = "--into"
    done = convert(weights, tmp_path / f"seven{FORMATS[name].suffix}", *words)
    assert done.exit_code == 2, done.output
    assert "7 classes" in done.output


def test_a_damaged_file_is_refused_by_our_own_reader(name, tmp_path):
    theirs = tmp_path / f"theirs{FORMATS[name].suffix}"
    theirs.write_bytes(b"no weights")
    words = ["--from", f"{PORTS / f'{name}_own.py'}:net", "--backend", name]
    done = convert(theirs, tmp_path / "back.npz", *words)
    assert done.exit_code == 2, done.output
    assert str(theirs) in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "back.npz").exists()


def test_a_network_that_is_another_function_gets_nothing(name, weights, tmp_path):
    text = (PORTS / f"{name}_own.py").read_text()
    wrong = text.replace("MaxPool2d(3, 1, 1)", "AvgPool2d(3, 1, 1)")
    wrong = wrong.replace("MaxPool2D(3, 1, 1)", "AvgPool2D(3, 1, 1)")
    wrong = wrong.replace("layers.MaxPooling2D(3, 1,", "layers.AveragePooling2D(3, 1,")
    assert wrong != text
    (tmp_path / "net.py").write_text(wrong)
    destination = tmp_path / f"theirs{FORMATS[name].suffix}"
    words = ["--into", f"{tmp_path / 'net.py'}:net", "--backend", name]
    done = convert(weights, destination, *words, "--python", sys.executable)
    assert done.exit_code == 3, done.output
    assert "avg-pool" in done.output
    assert f"--spec mini --python {sys.executable}` says more" in done.output
    assert not destination.exists()


def test_a_function_has_no_weights_for_a_file(name, weights, tmp_path):
    """The network runs, and still the error is of its weights."""
    text = (PORTS / f"{name}_own.py").read_text() + "\n\nmade = net()\n"
    text += "made.initialize()\n" * (name == "mxnet")
    (tmp_path / "net.py").write_text(text + "\n\ndef function(x):\n    return made(x)\n")
    words = ["--into", f"{tmp_path / 'net.py'}:function", "--backend", name]
    done = convert(weights, tmp_path / f"theirs{FORMATS[name].suffix}", *words)
    assert done.exit_code == 2, done.output
    assert "net.py:function has no weights that a file can hold: " in done.stderr
    assert "not a function" in done.stderr
