"""Weights go from any framework to any other, and the book's own files are read, bit for bit."""

import json
import subprocess
import sys
from contextlib import nullcontext
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from small_specs import NARROW  # in tests/support

from backends import FRAMEWORKS
from backends.numpy import GoogLeNet
from common import spec
from common.convert import conversion, process
from common.errors import ParityError
from common.formats import sandbox
from common.formats.identify import identify
from common.formats.naming import FORMATS
from common.formats.readers import detect
from common.parity.report import tensor_error
from common.spec import MINI, SPECS
from common.weights import save, sha256, shapes

ROOT = Path(__file__).parents[2]
SUPPORT = ROOT / "tests" / "support"
PAIRS = list(permutations(FRAMEWORKS, 2))


def lively(network, seed, dtype):
    """Weights that differ for every tensor; variances are positive."""
    random = np.random.RandomState(seed)
    found = {}
    for name, shape in shapes(network).items():
        values = random.standard_normal(shape) * np.sqrt(1 / max(np.prod(shape[1:]), 1))
        found[name] = (np.abs(values) + 0.5 if "running_var" in name else values).astype(dtype)
    return found


@pytest.fixture(scope="module")
def processes():
    """A process of each end's own, as `convert` starts them, that lives through all of them."""
    alive = {}

    def do(job, begun=None):
        if job["form"] not in alive:
            command = [sys.executable, "-m", "common.convert.work"]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            alive[job["form"]] = subprocess.Popen(command, cwd=ROOT, **pipes)
        own = alive[job["form"]]
        print(json.dumps(job), file=own.stdin, flush=True)
        assert any(line == "done\n" for line in own.stdout)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "do", do)
        patch.setattr(conversion, "started", lambda form: nullcontext())
        yield alive
    for own in alive.values():
        own.stdin.close()
        assert own.wait() == 0
        own.stdout.close()


@pytest.fixture(scope="module")
def native(processes, tmp_path_factory):
    """The small network's weights, and a file of them by each framework."""
    folder = tmp_path_factory.mktemp("native")
    weights = lively(MINI, 0, np.float32)
    save(folder / "start.safetensors", weights, MINI)
    files = {}
    for name in FRAMEWORKS:
        files[name] = folder / f"{name}{FORMATS[name].suffix}"
        conversion.convert(folder / "start.safetensors", files[name])
    return weights, files


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_there_and_back_changes_no_bit(native, tmp_path, one, other):
    """Both ends run in their own frameworks meanwhile, and agree."""
    weights, files = native
    there = tmp_path / f"there{FORMATS[other].suffix}"
    back = tmp_path / f"back{FORMATS[one].suffix}"
    found = conversion.convert(files[one], there, compare=True)
    again = conversion.convert(there, back)
    assert found.sha256 == again.sha256 == sha256(weights)
    assert (found.spec, found.names) == ("mini", "our names")
    assert (found.format, again.format) == (detect.TITLES[one], detect.TITLES[other])
    assert found.check["source"] == one
    assert found.check["destination"] == other
    assert 0 < found.check["difference"] < 1e-5 * found.check["largest"]


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_format_is_recognised_by_its_content(native, tmp_path, name):
    weights, files = native
    wrong = {"torch": ".pdparams", "tf": ".pt", "mxnet": ".weights.h5", "paddle": ".params"}[name]
    path = tmp_path / f"misnamed{wrong}"
    path.write_bytes(files[name].read_bytes())
    found = conversion.convert(path, tmp_path / "found.safetensors")
    assert found.format == detect.TITLES[name]
    assert found.sha256 == sha256(weights)


def test_two_ends_that_differ_are_reported_and_nothing_is_written(native, tmp_path, monkeypatch):
    """Were a framework to compute something else with the same bits, `--check` would say so."""
    _, files = native
    far = 2 * conversion.TOLERANCE["float32"]
    run = process.Work.run

    def other(self, form, path=None, begun=None):
        logits = run(self, form, path)
        return logits * np.float32(1 + far) if path else logits

    monkeypatch.setattr(process.Work, "run", other)
    with pytest.raises(ParityError, match="logits that differ by"):
        conversion.convert(files["torch"], tmp_path / "there.params", compare=True)
    assert not list(tmp_path.iterdir())


def test_the_command_line_does_the_same_in_processes_of_its_own(tmp_path):
    save(tmp_path / "a.safetensors", lively(MINI, 0, np.float32), MINI)
    for source, destination in (("a.safetensors", "b.pdparams"), ("b.pdparams", "c.params")):
        command = [sys.executable, "-m", "common.cli", "convert", "--check"]
        words = [str(tmp_path / source), str(tmp_path / destination)]
        done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "the same bits" in done.stdout
        assert "logits differ by at most" in done.stdout
    assert "check: paddle and mxnet on 8 images" in done.stdout


def test_a_network_with_auxiliary_heads_goes_through_all_four(processes, tmp_path):
    """Pools that round up, and features whose order Keras would change, on the way."""
    network = SPECS["torchvision-aux"].at(classes=10)
    weights = lively(network, 0, np.float32)
    path = tmp_path / "start.safetensors"
    save(path, weights, network)
    for name in (*FRAMEWORKS, "torch"):
        there = tmp_path / f"{name}-after-{path.name.partition('-')[0]}{FORMATS[name].suffix}"
        found = conversion.convert(path, there, compare=True)
        assert (found.spec, found.sha256) == ("torchvision-aux", sha256(weights))
        path = there


# --- the book's own files

BOOKS = {
    "torch": ("book", "newer", "norm", "norms"),
    "tf": ("book", "newer", "norm", "norms", "newer-layer", "norm-layer", "norms-layer"),
    "mxnet": ("book", "newer", "norm", "norms"),
    "paddle": ("book", "newer", "norm", "norms"),
}
SPEC_OF = {"book": "d2l", "newer": "narrow", "norm": "mini", "norms": "mini"}
FILES = [(name, kind) for name, kinds in BOOKS.items() for kind in kinds]


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    """The book's network by each framework, and what it gives for the same images."""
    folder = tmp_path_factory.mktemp("books")
    np.save(folder / "images.npy", np.random.RandomState(1).standard_normal((2, 1, 33, 33)))
    for name in FRAMEWORKS:
        command = [sys.executable, SUPPORT / "d2l_reference.py", name, folder]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(("name", "kind"), FILES, ids=["-".join(each) for each in FILES])
def test_a_reader_s_file_gives_the_reader_s_logits(books, monkeypatch, name, kind):
    """The reference computes what the reader's own network computes: 1e-12 in float64."""
    monkeypatch.setitem(spec.SPECS, "narrow", NARROW)
    file = sandbox.read_file(books / f"{name}-{kind}{FORMATS[name].suffix}")
    known = identify(file, None, "it")
    assert (known.spec.name, known.naming) == (SPEC_OF[kind.partition("-")[0]], "the book's names")
    logits = GoogLeNet(known.spec, known.weights).forward(np.load(books / "images.npy"))["head"]
    assert tensor_error(logits, np.load(books / f"{name}-{kind}.npy")) < 1e-12


@pytest.mark.parametrize(
    ("one", "other"), [("torch", "paddle"), ("paddle", "mxnet"), ("mxnet", "tf"), ("tf", "torch")]
)
def test_a_reader_s_file_goes_on_in_another_framework(books, processes, tmp_path, one, other):
    """With batch norm, in float64: the framework reads its own file and gives the same logits."""
    there = tmp_path / f"there{FORMATS[other].suffix}"
    converted = conversion.convert(books / f"{one}-norm{FORMATS[one].suffix}", there)
    known = identify(sandbox.read_file(there), None, "it")
    assert sha256(known.weights) == converted.sha256
    work = process.Work(tmp_path, known, True)
    np.save(tmp_path / "images.npy", np.load(books / "images.npy"))  # instead of the sample's
    logits = work.write(other, tmp_path / f"again{FORMATS[other].suffix}")
    assert tensor_error(logits, np.load(books / f"{one}-norm.npy")) < 1e-12


@pytest.mark.parametrize(
    ("one", "other"), [("torch", "paddle"), ("paddle", "mxnet"), ("mxnet", "tf"), ("tf", "torch")]
)
def test_the_book_s_names_load_into_the_reader_s_own_network(
    books, processes, tmp_path, one, other
):
    """By the framework's own loader, strictly; the network gives the logits of the other one."""
    kind = "norm"
    there = tmp_path / f"given-{kind}{FORMATS[other].suffix}"
    conversion.convert(books / f"{one}-{kind}{FORMATS[one].suffix}", there, names="book")
    np.save(tmp_path / "images.npy", np.load(books / "images.npy"))
    command = [sys.executable, SUPPORT / "d2l_reference.py", other, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    logits = np.load(tmp_path / f"{other}-{kind}.npy")
    assert tensor_error(logits, np.load(books / f"{one}-{kind}.npy")) < 1e-12


@pytest.mark.parametrize("suffix", [".pth", ".keras", ".npz"])
def test_other_suffixes_are_written_and_read(native, tmp_path, suffix):
    """A `.keras` file is the whole model, with the eps of its norms."""
    weights, files = native
    there = tmp_path / f"there{suffix}"
    found = conversion.convert(files["torch"], there, compare=True, eps=1e-5)
    assert found.eps == pytest.approx(1e-5 if suffix == ".keras" else 1e-3)
    assert (found.sha256 == sha256(weights)) == (suffix == ".keras")
    back = conversion.convert(there, tmp_path / "back.safetensors", compare=True)
    assert (back.sha256, back.eps) == (found.sha256, found.eps)


def test_a_file_of_each_framework_becomes_onnx(native, tmp_path):
    weights, files = native
    for name, file in files.items():
        found = conversion.convert(file, tmp_path / f"{name}.onnx", compare=name == "torch")
        assert found.sha256 == sha256(weights)
    assert len({(tmp_path / f"{name}.onnx").read_bytes() for name in files}) == 1
