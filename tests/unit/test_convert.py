"""`googlenet convert`, its refusals and its proofs; the frameworks are in tests/cross_framework.

Long because everything that the command says of a file is here.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hostile import archive, tensor, unicode  # in tests/support

from backends import FRAMEWORKS
from backends.numpy import GoogLeNet
from common import files
from common.cli.app import main
from common.convert import conversion, expect, onnx, process, work
from common.convert.process import Work
from common.convert.report import compared
from common.errors import BackendError, ParityError, WeightsError
from common.formats import sandbox
from common.formats.assumptions import assumptions
from common.formats.family_names import PADDLE_V3
from common.formats.identify import identify
from common.formats.naming import FORMATS, NAMINGS, SUFFIXES, WRITTEN
from common.formats.readers import detect
from common.formats.readers.base import File
from common.spec import D2L, MINI, SPECS, find
from common.weights import draw, load, save, sha256, shapes


def state_dict(weights):
    """A file as `torch.save` writes it, of these weights."""
    out, more = b"\x80\x02}(", []
    for index, (name, array) in enumerate(weights.items()):
        strides = tuple(step // array.itemsize for step in array.strides)
        kind = {"float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage"}
        out += unicode(name) + tensor(
            array.shape, strides, 0, array.size, kind[array.dtype.name], f"w{index}"
        )
        more.append((f"archive/data/w{index}", array.tobytes()))
    return archive(out + b"u.", more=more)


@pytest.fixture
def source(tmp_path):
    """A PyTorch file of the small network."""
    path = tmp_path / "source.pt"
    path.write_bytes(state_dict(draw(MINI, 0)))
    return path


def run(*words):
    """The exit status of the command line."""
    status = main(["convert", *map(str, words)], standalone_mode=False)
    return status or 0


def refused(capsys, *words):
    before = sorted(Path(words[0]).parent.iterdir())
    assert run(*words) == 2
    said = capsys.readouterr().err
    assert said.startswith("googlenet: ")
    assert said.endswith(".\n")
    assert said.count("\n") == 1
    assert sorted(Path(words[0]).parent.iterdir()) == before, "nothing may be left"
    return said


def test_a_file_becomes_canonical(source, tmp_path, capsys):
    assert run(source, tmp_path / "a.safetensors") == 0
    assert sha256(load(tmp_path / "a.safetensors", MINI)) == sha256(draw(MINI, 0))
    said = capsys.readouterr().out
    assert "a PyTorch state_dict with our names, network mini, 1 channel(s), 10 classes" in said
    assert f"{len(shapes(MINI))} tensors, the same bits, SHA-256 {sha256(draw(MINI, 0))}" in said


def test_of_a_run_the_best_checkpoint_is_converted(tmp_path):
    best = tmp_path / "run" / "checkpoints" / "best.safetensors"
    best.parent.mkdir(parents=True)
    save(best, draw(MINI, 3), MINI)
    assert run(tmp_path / "run", tmp_path / "a.npz") == 0
    with np.load(tmp_path / "a.npz") as arrays:
        assert sha256(dict(arrays)) == sha256(draw(MINI, 3))


def test_a_checkpoint_that_is_a_link_out_of_its_run_is_refused(tmp_path, capsys):
    save(tmp_path / "other.safetensors", draw(MINI, 3), MINI)
    best = tmp_path / "run" / "checkpoints" / "best.safetensors"
    best.parent.mkdir(parents=True)
    best.symlink_to(tmp_path / "other.safetensors")
    assert run(tmp_path / "run", tmp_path / "a.npz") == 2
    assert "leads out of" in capsys.readouterr().err
    assert not (tmp_path / "a.npz").exists()


def test_json_has_these_keys(source, tmp_path, capsys):
    assert run(source, tmp_path / "b.safetensors", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found.pop("sha256") == sha256(draw(MINI, 0))
    assert [line.split(":")[0] for line in found.pop("assumed")] == [
        "norm",
        "pools between the blocks",
        "padding",
        "input",
    ]
    assert found == {
        "source": str(source),
        "destination": str(tmp_path / "b.safetensors"),
        "format": "a PyTorch state_dict",
        "stored": "float32",
        "names": "our names",
        "spec": "mini",
        "also": [],
        "channels": 1,
        "classes": 10,
        "tensors": len(shapes(MINI)),
        "dtype": "float32",
        "not_finite": [],
        "eps": float(np.float32(1e-3)),
        "notes": [],
        "expected": None,
        "check": None,
    }


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_converted_with_a_warning(tmp_path, capsys, value):
    weights = draw(MINI, 0)
    for name in ("stage1.0.conv.weight", "head.bias"):
        weights[name].flat[3] = value
    (tmp_path / "nan.pt").write_bytes(state_dict(weights))
    assert run(tmp_path / "nan.pt", tmp_path / "a.safetensors") == 0
    said = capsys.readouterr().out
    assert "warning: 2 tensors" in said
    assert sha256(load(tmp_path / "a.safetensors", MINI)) == sha256(weights)
    assert run(tmp_path / "nan.pt", tmp_path / "b.safetensors", "--json") == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["not_finite"] == ["stage1.0.conv.weight", "head.bias"]
    said = refused(capsys, tmp_path / "nan.pt", tmp_path / "c.safetensors", "--check")
    assert "stage1.0.conv.weight" in said
    assert "leave out `--check`" in said


def test_half_precision_is_said_to_have_been_widened(tmp_path, capsys):
    half = {name: array.astype(np.float16) for name, array in draw(MINI, 0).items()}
    (tmp_path / "half.pt").write_bytes(state_dict(half))
    assert run(tmp_path / "half.pt", tmp_path / "a.safetensors") == 0
    assert "float32 (held as float16)" in capsys.readouterr().out
    found = load(tmp_path / "a.safetensors", MINI)
    assert all((found[name] == array).all() for name, array in half.items())


def test_float64_stays_float64(tmp_path):
    double = {name: array.astype(np.float64) / 3 for name, array in draw(MINI, 0).items()}
    (tmp_path / "double.pt").write_bytes(state_dict(double))
    assert run(tmp_path / "double.pt", tmp_path / "a.safetensors") == 0
    assert sha256(load(tmp_path / "a.safetensors", MINI)) == sha256(double)


def test_check_runs_both_ends_on_the_same_images(tmp_path, capsys):
    """Between two canonical files both ends are the reference, and nothing differs."""
    save(tmp_path / "a.safetensors", draw(MINI, 0), MINI)
    assert run(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--check") == 0
    said = capsys.readouterr().out
    assert "check: NumPy and NumPy on 8 images: logits differ by at most 0.0e+00" in said
    assert "largest is 0.0" not in said


def test_the_images_of_the_check_are_real_and_fit(monkeypatch):
    x = process.images(MINI.at(channels=3))
    assert x.shape == (process.IMAGES, 3, 33, 33)
    assert 0 <= x.min() < 0.1 < 0.5 < x.max() <= 1
    np.testing.assert_array_equal(x[:, 0], x[:, 2])


# --- places that will not do


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.bin", r"names no format: its name must end in \.pt, \.weights\.h5, \.params, "),
        ("a.h5", r"names no format: Keras writes weights to .*/a\.weights\.h5\."),
        (".pt", "names no format"),
        ("missing/a.pt", "is not a folder"),
        (".", "is a folder"),
    ],
)
def test_a_destination_that_will_not_do_is_refused(source, tmp_path, capsys, name, said):
    assert re.search(said, refused(capsys, source, tmp_path / name))


def test_a_missing_source_is_named_before_the_destination(tmp_path, capsys):
    assert "none.pt is not there" in refused(capsys, tmp_path / "none.pt", tmp_path / "a.h5")


def test_the_source_is_never_its_own_destination(source, capsys):
    before = source.read_bytes()
    assert "is the source itself" in refused(capsys, source, source)
    assert "is the source itself" in refused(capsys, source, source.parent / "." / source.name)
    assert source.read_bytes() == before


def test_a_file_that_is_there_is_never_overwritten(source, tmp_path, capsys):
    (tmp_path / "a.safetensors").write_bytes(b"mine")
    assert "is there already" in refused(capsys, source, tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == b"mine"
    (tmp_path / "b.safetensors").symlink_to(tmp_path / "nowhere")
    assert "is there already" in refused(capsys, source, tmp_path / "b.safetensors")


def test_a_missing_source_a_folder_and_an_unknown_spec_are_refused(source, tmp_path, capsys):
    there = tmp_path / "a.safetensors"
    assert "is not there" in refused(capsys, tmp_path / "none.pt", there)
    assert "is a folder" in refused(capsys, tmp_path, there)
    assert "There is no spec named 'none'" in refused(capsys, source, there, "--spec", "none")


def test_another_network_is_refused_with_the_spec_that_fits(source, tmp_path, capsys):
    said = refused(capsys, source, tmp_path / "a.safetensors", "--spec", "d2l")
    assert "use `--spec mini`" in said
    assert "(8, 1, 7, 7)" in said


def test_a_cut_file_is_refused(source, tmp_path, capsys):
    (tmp_path / "cut.pt").write_bytes(source.read_bytes()[:-100])
    assert "cut or damaged" in refused(capsys, tmp_path / "cut.pt", tmp_path / "a.safetensors")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_not_installed_is_named_with_its_install_line(
    source, tmp_path, capsys, monkeypatch, suffix
):
    """Before anything is read."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr(sandbox, "read_file", lambda path: pytest.fail("it was read"))
    if suffix in (
        ".safetensors",
        ".npz",
    ):  # needs nothing, but --check needs the source's framework
        monkeypatch.undo()
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert run(source, tmp_path / f"a{suffix}", "--check") == 4
    else:
        assert run(source, tmp_path / f"a{suffix}") == 4
    assert "pip install -" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [source]


# --- what is written is proven


def test_a_destination_that_comes_back_otherwise_is_not_kept(source, tmp_path, monkeypatch, capsys):
    """A writer that changes one bit of one tensor."""
    write = Work.write

    def wrong(self, target, path, begun=None):
        logits = write(self, target, path)
        weights = load(path, MINI)
        weights["stage2.1.conv.bias"].view(np.uint8)[0] ^= 1
        save(path, weights, MINI)
        return logits

    monkeypatch.setattr(Work, "write", wrong)
    said = refused(capsys, source, tmp_path / "a.safetensors")
    assert "was not written: stage2.1.conv.bias changed" in said


def test_a_tensor_that_comes_back_more_is_seen():
    known = conversion.Known(MINI, "our names", draw(MINI, 0))
    process.verify(draw(MINI, 0), known, Path("a"))
    with pytest.raises(WeightsError, match="other tensors"):
        process.verify(draw(MINI, 0) | {"more": np.zeros(1)}, known, Path("a"))
    with pytest.raises(WeightsError, match=r"head\.bias changed"):
        process.verify({**draw(MINI, 0), "head.bias": np.zeros(10)}, known, Path("a"))
    negative = {**draw(MINI, 0), "head.bias": -np.zeros(10, np.float32)}  # equal, not the same bits
    with pytest.raises(WeightsError, match=r"head\.bias changed"):
        process.verify(negative, known, Path("a"))


@pytest.mark.parametrize("at", ["write", "fsync", "replace"])
def test_a_disk_that_fails_leaves_nothing(source, tmp_path, monkeypatch, capsys, at):
    def fails(*arguments):
        raise OSError(28, "No space left on device")

    if at == "write":
        monkeypatch.setattr(files, "write_whole", fails)
        monkeypatch.setattr(conversion, "write_whole", fails)
    else:
        saved = getattr(os, at)

        def later(*arguments):
            if convert_has_begun(arguments):
                fails()
            return saved(*arguments)

        def convert_has_begun(arguments):
            return at == "fsync" or str(arguments[1]).startswith(str(tmp_path))

        if at == "fsync":
            put = conversion.put

            def put_on_a_full_disk(destination, data):
                monkeypatch.setattr(os, "fsync", fails)
                put(destination, data)

            monkeypatch.setattr(conversion, "put", put_on_a_full_disk)
        else:
            monkeypatch.setattr(os, "replace", later)
    said = refused(capsys, source, tmp_path / "a.safetensors")
    assert "cannot be written: No space left on device" in said


def test_no_room_for_temporary_files_is_one_sentence(source, tmp_path, monkeypatch, capsys):
    def fails(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Work, "write", fails)
        said = refused(capsys, source, tmp_path / "a.safetensors")
        assert "temporary folder cannot be used (No space left on device): name" in said
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc"])
    monkeypatch.setattr(tempfile, "tempdir", None)
    said = refused(capsys, source, tmp_path / "a.safetensors")
    assert "No usable temporary directory" in said
    assert "TMPDIR" in said


def test_a_path_without_permission_is_one_sentence(source, tmp_path, monkeypatch, capsys):
    """The tests may run as root, who has every permission."""

    def fails(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", fails)
    said = refused(capsys, source, tmp_path / "a.safetensors")
    assert f"{source} may not be used by you: name another path" in said


def test_a_disk_that_keeps_other_bytes_is_seen(source, tmp_path, monkeypatch, capsys):
    write = conversion.write_whole
    monkeypatch.setattr(conversion, "write_whole", lambda path, data: write(path, data[:-1] + b"!"))
    assert run(source, tmp_path / "a.safetensors") == 2
    assert "holds other bytes than were written" in capsys.readouterr().err


def test_ends_that_differ_have_status_3_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    save(tmp_path / "a.safetensors", draw(MINI, 0), MINI)
    saved = Work.run

    def other(self, form, path=None, begun=None):
        return saved(self, form, path) + np.float32(1e-3 if path else 0)

    monkeypatch.setattr(Work, "run", other)
    assert run(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--check") == 3
    assert "1.0e-03" in capsys.readouterr().err
    assert not (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_may_differ_by_rounding_alone(dtype):
    """The tolerances are relative to the largest logit, here 4."""
    one, tolerance = np.zeros((8, 10), dtype), conversion.TOLERANCE[dtype]
    one[3, 2] = -4
    other = one.astype(np.float64)
    other[5, 5] = 4 * 0.9 * tolerance
    found = compared("torch", one, "tf", other, tolerance, "It failed")
    assert found["difference"] == pytest.approx(4 * 0.9 * tolerance)
    other[5, 5] = 4 * 1.1 * tolerance
    with pytest.raises(ParityError, match="It failed: torch and tf give"):
        compared("torch", one, "tf", other, tolerance, "It failed")


def test_the_tolerances_are_those_of_the_parity_checks():
    assert conversion.TOLERANCE == {"float32": 1e-5, "float64": 1e-12}


def test_an_onnx_source_is_run_by_the_reference(tmp_path, monkeypatch, capsys):
    """So the check needs no package for it, and says what ran."""
    read, weights = sandbox.read_file, draw(MINI, 0)
    (tmp_path / "a.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr(
        sandbox,
        "read_file",
        lambda path: File("onnx", weights, "float32") if path.suffix == ".onnx" else read(path),
    )
    words = [tmp_path / "a.onnx", tmp_path / "b.npz", "--spec", "mini", "--check"]
    assert run(*words) == 0, capsys.readouterr().err
    assert "check: NumPy and NumPy on 8 images" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["safetensors", "torch"])
def test_the_check_runs_the_weights_in_the_written_file(form, tmp_path, reference, monkeypatch):
    """Not those that it was given to write: here a framework writes others."""
    known, other = draw(MINI, 0), draw(MINI, 1)
    path = tmp_path / "written"
    if form == "safetensors":
        save(path, other, MINI)
    monkeypatch.setattr(reference, "save", lambda model, path: save(path, other, MINI))
    monkeypatch.setattr(work, "load", lambda name: reference)
    x = process.images(MINI).astype(np.float32)
    logits = work.end(form, MINI, known, path, x)
    of_file, of_known = (work.end(form, MINI, each, None, x) for each in (other, known))
    assert np.array_equal(logits, of_file)
    assert not np.array_equal(logits, of_known)


def test_a_difference_that_is_no_number_is_a_difference():
    one = np.full((8, 10), np.nan, np.float32)
    with pytest.raises(ParityError):
        compared("torch", np.ones((8, 10), np.float32), "tf", one, 1e-5, "It failed")


def with_pipes(*command):
    """A process that can be asked and read as one of `convert`'s."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, **pipes)


def test_a_process_that_fails_is_one_sentence(monkeypatch):
    failing = "import sys; sys.exit('Traceback\\nValueError: no room')"
    monkeypatch.setattr(process, "start", lambda form: with_pipes(sys.executable, "-c", failing))
    with pytest.raises(BackendError, match="torch could not write or run the weights: ValueError"):
        process.do({"form": "torch"})


def test_a_framework_that_is_missing_is_named_when_names_are_written(tmp_path):
    """Its own sentence, with the command that installs it."""
    known = conversion.Known(MINI, "our names", draw(MINI, 0))
    layers = next(NAMINGS["torch"]["the book's names"](MINI))
    with pytest.raises(BackendError, match="pip install") as raised:
        Work(tmp_path, known, False).write_named("torch", tmp_path / "a.pt", layers)
    assert "could not write" not in str(raised.value)


def test_a_process_that_waits_ends_when_the_source_is_refused(source, tmp_path, monkeypatch):
    waiting = []

    def start(form):
        waiting.append(with_pipes("sleep", "600"))
        return waiting[0]

    monkeypatch.setattr(process, "start", start)
    monkeypatch.setattr(conversion, "need", lambda form: None)  # the framework is not installed
    source.write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="in none of the formats"):
        conversion.convert(source, tmp_path / "a.weights.h5")
    assert [each.poll() for each in waiting] == [-signal.SIGKILL]


def test_every_framework_has_a_format_and_a_suffix_of_its_own():
    assert set(FORMATS) == set(detect.TITLES) == {*FRAMEWORKS, "safetensors", "npz", "onnx"}
    assert set(SUFFIXES.values()) == set(FORMATS)
    assert all(FORMATS[name].backend == name for name in FRAMEWORKS)


def test_onnx_needs_no_framework_to_be_asked_for():
    """Its module is imported without the package, which is asked for when it is used."""
    code = "import sys; import common.convert.onnx; sys.exit('onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=files.ROOT).returncode == 0
    assert callable(onnx.encode)


def test_the_book_s_own_network_is_converted(tmp_path):
    layers = next(NAMINGS["torch"]["the book's names"](D2L))
    names = {name: FORMATS["torch"].name(layers, name) for name in shapes(D2L)}
    weights = draw(D2L, 0)
    (tmp_path / "book.pt").write_bytes(state_dict({names[n]: a for n, a in weights.items()}))
    found = conversion.convert(tmp_path / "book.pt", tmp_path / "a.safetensors")
    assert (found.spec, found.names, found.sha256) == ("d2l", "the book's names", sha256(weights))


# --- what weights do not tell


@pytest.fixture
def trained(tmp_path):
    """A file of lively weights, and the network that they were trained as: eps is 1e-5."""
    random = np.random.RandomState(4)
    weights = {
        name: (
            random.uniform(0.001, 0.01, a.shape)  # small variances: eps matters
            if name.endswith("running_var")
            else random.standard_normal(a.shape) / 3
        ).astype(np.float32)
        for name, a in draw(MINI, 0).items()
    }
    path = tmp_path / "trained.pt"
    path.write_bytes(state_dict(weights))
    x = random.uniform(0, 1, (3, 1, 33, 33))
    return path, weights, x


def logits_of(path, x, **sizes):
    """The reference's logits with the eps that the file records."""
    file = sandbox.read_file(path)
    known = identify(file, None, "it")
    return GoogLeNet(known.spec, known.weights).forward(x)["head"]


def test_what_was_assumed_is_printed(source, tmp_path, capsys):
    assert run(source, tmp_path / "a.safetensors") == 0
    said = capsys.readouterr().out
    assert "assumed, because weights do not tell:" in said
    assert "eps 0.001 (the spec's)" in said
    assert "`--eps`" in said
    assert "3x3 with stride 2, padded by 1" in said
    assert "3 pixels on every side" in said
    assert "input: not scaled by the network" in said


@pytest.mark.parametrize(("name", "pools"), [("mini", 1), ("inception-v4", 0)])
def test_pools_are_assumed_only_where_there_are_some(name, pools):
    known = conversion.Known(SPECS[name], "our names", {})
    lines = assumptions(known, File("torch", {}, "float32"))
    assert sum(line.startswith("pools between the blocks: ") for line in lines) == pools


def test_the_eps_of_the_source_is_recorded_and_used(trained, tmp_path, capsys):
    path, weights, x = trained
    want = GoogLeNet(MINI.at(eps=1e-5), weights).forward(x)["head"]
    default = GoogLeNet(MINI, weights).forward(x)["head"]
    assert np.abs(want - default).max() > 1e-2 * np.abs(want).max(), "it matters"
    assert run(path, tmp_path / "a.safetensors", "--eps", 1e-5) == 0
    assert "norm: eps 1e-05 (--eps)" in capsys.readouterr().out
    np.testing.assert_array_equal(logits_of(tmp_path / "a.safetensors", x), want)
    assert run(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--check") == 0
    assert "norm: eps 1e-05 (the file)" in capsys.readouterr().out
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_destination_with_another_eps_gets_another_gamma(trained, tmp_path, capsys):
    """Exact in evaluation; `--check` runs the source with its own eps."""
    _, weights, x = trained
    save(tmp_path / "a.safetensors", weights, MINI.at(eps=1e-5))
    assert run(tmp_path / "a.safetensors", tmp_path / "b.npz", "--check") == 0
    said = capsys.readouterr().out
    assert "sqrt((var + 0.001) / (var + 1e-05))" in said
    want = GoogLeNet(MINI.at(eps=1e-5), weights).forward(x)["head"]
    np.testing.assert_allclose(logits_of(tmp_path / "b.npz", x), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("place", [0, 1])
def test_a_path_that_ends_as_a_folder_is_no_file(place, source, tmp_path, capsys):
    words = [str(source), str(tmp_path / "made.npz")]
    words[place] += "/"
    said = refused(capsys, *words)
    assert f"{words[place]} is no folder: leave out the slash" in said
    assert "is a folder: name the file" in refused(capsys, source, f"{tmp_path}/")


def test_an_eps_for_a_network_without_norm_is_refused(tmp_path, capsys):
    (tmp_path / "a.pt").write_bytes(state_dict(draw(D2L, 0)))
    said = refused(capsys, tmp_path / "a.pt", tmp_path / "a.safetensors", "--eps", "1e-5")
    assert "--eps" in said


def expectation(tmp_path, x, logits):
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", logits)
    return "--expect", tmp_path / "x.npy", tmp_path / "y.npy"


@pytest.mark.parametrize("last", [False, True])
def test_the_user_s_own_logits_are_compared(trained, tmp_path, capsys, last):
    """Images with the channels first or last."""
    path, weights, x = trained
    want = GoogLeNet(MINI.at(eps=1e-5), weights).forward(x)["head"].astype(np.float32)
    x = x.transpose(0, 2, 3, 1) if last else x
    words = expectation(tmp_path, x.astype(np.float64), want)
    assert run(path, tmp_path / "a.safetensors", "--eps", 1e-5, *words) == 0
    assert "on 3 images" in (capsys.readouterr().out)
    assert run(path, tmp_path / "b.safetensors", *words) == 3
    said = capsys.readouterr().err
    assert "gives other logits than" in said
    assert "with `--eps 1e-05` they differ by" in said
    assert not (tmp_path / "b.safetensors").exists()


def test_the_reference_runs_a_few_images_at_once(trained, monkeypatch):
    """It keeps every activation in float64."""
    _, weights, x = trained
    counts = []

    class Counted(GoogLeNet):
        def forward(self, x):
            counts.append(len(x))
            return super().forward(x)

    x = np.concatenate([x] * 4)[:10]
    expected = expect.Expected(x, GoogLeNet(MINI, weights).forward(x)["head"], ("x", "y"))
    monkeypatch.setattr(expect, "GoogLeNet", Counted)
    known = conversion.Known(MINI, "our names", weights)
    found = expected.compare(known, known, "a.pt")
    assert found["images"] == 10
    assert counts == [8, 2]


def test_probabilities_are_not_logits(trained, tmp_path, capsys, monkeypatch):
    """The tolerance is 0: what agrees to the last bit agrees."""
    monkeypatch.setattr(expect, "TOLERANCE", 0.0)
    path, weights, x = trained
    logits = GoogLeNet(MINI, weights).forward(x)["head"]
    powers = np.exp(logits - logits.max(1, keepdims=True))
    words = expectation(tmp_path, x, powers / powers.sum(1, keepdims=True))
    assert run(path, tmp_path / "a.safetensors", *words) == 3
    assert "before softmax" in capsys.readouterr().err
    words = expectation(tmp_path, x, logits * 1.5)
    assert run(path, tmp_path / "a.safetensors", *words) == 3
    assert "the usual reasons" in capsys.readouterr().err
    words = expectation(tmp_path, x, logits)
    assert run(path, tmp_path / "a.safetensors", *words) == 0
    assert run(path, tmp_path / "b.safetensors", "--eps", 1e-5, *words) == 3
    assert "with `--eps 0.001` they differ by" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (np.zeros((2, 1, 33, 33)), np.zeros((3, 10)), "2 images and"),
        (np.zeros((2, 2, 33, 33)), np.zeros((2, 10)), "takes images of 1 channel"),
        (np.zeros((2, 1, 33, 33)), np.zeros((2, 9)), "has 9 columns, and the network has 10"),
        (np.zeros((2, 33, 33)), np.zeros((2, 10)), "is not an array of numbers with 4 axes"),
        (np.zeros((2, 1, 33, 33)), np.full((2, 10), np.nan), "holds NaN or infinity"),
    ],
)
def test_expectations_that_do_not_fit_are_refused(source, tmp_path, capsys, x, y, said):
    words = expectation(tmp_path, x, y)
    assert said in refused(capsys, source, tmp_path / "a.safetensors", *words)


def test_a_file_of_expectations_is_an_ordinary_one_of_a_sane_size(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.zeros((2, 10)))
    monkeypatch.setattr(expect, "MOST", 100)
    with pytest.raises(WeightsError, match=r"x\.npy cannot be read \(it is larger than 100 bytes"):
        expect.array(tmp_path / "x.npy", 2)
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(WeightsError, match="it is not an ordinary file"):
        expect.array(tmp_path / "pipe.npy", 2)


def test_a_network_that_refuses_the_images_is_no_alternative(trained, monkeypatch):
    """What is said of the logits stays."""
    _, weights, x = trained
    stem, *rest = MINI.stage1
    large = replace(MINI, stage1=(replace(stem, padding=0), *rest))
    known = conversion.Known(MINI, "our names", weights)
    monkeypatch.setattr(expect, "alternatives", lambda known: [(large, "`--spec large`")])
    small = expect.Expected(x[:, :, :5, :5], np.ones((3, 10)), ("x.npy", "y.npy"))
    with pytest.raises(ParityError, match="the usual reasons"):
        small.compare(known, known, "a.pt")
    with pytest.raises(WeightsError, match=r"x\.npy does not fit the network"):
        small.compare(known, conversion.Known(large, "our names", weights), "a.pt")


def test_several_dicts_are_named_and_a_key_chooses_one(tmp_path, capsys):
    both = {f"model.{name}": a for name, a in draw(MINI, 0).items()}
    both |= {f"ema.{name}": a for name, a in draw(MINI, 1).items()}
    (tmp_path / "two.pt").write_bytes(state_dict(both))
    said = refused(capsys, tmp_path / "two.pt", tmp_path / "a.safetensors")
    assert "`--key model`" in said
    assert run(tmp_path / "two.pt", tmp_path / "a.safetensors", "--key", "ema") == 0
    assert sha256(load(tmp_path / "a.safetensors", MINI)) == sha256(draw(MINI, 1))
    inside = {f"nets/{name}": a for name, a in both.items()}
    (tmp_path / "in.pt").write_bytes(state_dict({**inside, "nets.count": np.zeros(1, np.float32)}))
    said = refused(capsys, tmp_path / "in.pt", tmp_path / "b.safetensors", "--key", "nets")
    assert "under `nets/model`, `nets/ema`: choose one with `--key nets/model`" in said
    words = [tmp_path / "in.pt", tmp_path / "b.safetensors", "--key"]
    assert "holds nothing under 'net': it has nets." in refused(capsys, *words, "net")
    assert run(*words, "nets/ema") == 0
    assert sha256(load(tmp_path / "b.safetensors", MINI)) == sha256(draw(MINI, 1))


# --- out again


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("names", ["ours", "book"])
def test_names_of_another_class_are_written(tmp_path, capsys, suffix, names):
    path = tmp_path / f"a{suffix}"
    save(tmp_path / "start.safetensors", draw(MINI, 0), MINI)
    assert run(tmp_path / "start.safetensors", path, "--names", names, "--check") == 0
    found = sandbox.read_file(path).arrays
    assert ("0.0.weight" in found) == (names == "book")
    assert run(path, tmp_path / "back.safetensors") == 0
    assert sha256(load(tmp_path / "back.safetensors", MINI)) == sha256(draw(MINI, 0))


def test_names_that_do_not_belong_to_the_network_are_refused(source, tmp_path, capsys):
    said = refused(capsys, source, tmp_path / "a.npz", "--names", "torchvision")
    assert "`--names torchvision`" in said
    assert "not mini as .npz" in said


def test_a_named_file_that_comes_back_otherwise_is_not_kept(source, tmp_path, monkeypatch, capsys):
    def wrong(job, begun=None):
        with np.load(job["named"]) as arrays:
            changed = dict(arrays)
        changed["0.0.bias"] = changed["0.0.bias"] + 1
        np.savez(job["file"], **changed)

    monkeypatch.setattr(process, "do", wrong)
    said = refused(capsys, source, tmp_path / "a.npz", "--names", "book")
    assert "was not written: 0.0.bias changed" in said


@pytest.mark.parametrize("names", ["ours", "book"])
def test_the_check_of_a_named_file_runs_the_source_s_own_weights(
    tmp_path, monkeypatch, capsys, names
):
    """Here the written file is read as other weights, as with a wrong order of axes."""
    save(tmp_path / "a.safetensors", draw(MINI, 0), MINI)
    other = conversion.Known(MINI, "our names", draw(MINI, 1))
    monkeypatch.setattr(process, "identify", lambda *_: other)
    words = [tmp_path / "a.safetensors", tmp_path / "b.npz", "--names", names, "--check"]
    assert run(*words) == 3
    assert "NumPy and NumPy give logits that differ" in capsys.readouterr().err
    assert not (tmp_path / "b.npz").exists()


def test_every_naming_that_is_offered_is_known():
    from common.cli.convert import convert

    (option,) = (each for each in convert.params if each.name == "names")
    assert list(option.type.choices) == list(WRITTEN)
    known = {naming for namings in NAMINGS.values() for naming in namings}
    written = {naming for namings in WRITTEN.values() for naming in namings}
    read = {PADDLE_V3, "Keras Applications' names of Inception-v3"}  # only
    assert written == known - read


@pytest.mark.parametrize(
    ("name", "names", "first"),
    [
        ("inception-v3", "torchvision", "Conv2d_1a_3x3.conv.weight"),
        ("inception-v3", "timm", "Conv2d_1a_3x3.conv.weight"),
        ("inception-v4", "timm", "features.0.conv.weight"),
        ("inception-resnet-v2", "timm", "conv2d_1a.conv.weight"),
        ("bn-inception", "pretrainedmodels", "conv1_7x7_s2.weight"),
    ],
)
def test_the_names_of_a_package_are_written_for_its_class(tmp_path, name, names, first):
    spec = find(name)
    zeros = {n: np.zeros(shape, np.float32) for n, shape in shapes(spec).items()}
    save(tmp_path / "a.safetensors", zeros, spec)
    assert (
        run(tmp_path / "a.safetensors", tmp_path / "b.npz", "--spec", name, "--names", names) == 0
    )
    found = sandbox.read_file(tmp_path / "b.npz").arrays
    assert first in found
    assert len(found) == len(zeros)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--into", "net.py:net"), "need `--backend`"),
        (("--from", "net.py:net"), "need `--backend`"),
        (("--into", "a.py:a", "--from", "b.py:b", "--backend", "tf"), "exclude each other"),
        (("--into", "net.py:net", "--backend", "tf", "--check"), "leave out --names"),
        (("--backend", "tf"), "are for --into and --from"),
        (("--into", "net.py:net", "--backend", "tf"), "must end in .weights.h5 or .keras"),
        (("--from", "net.py:net", "--backend", "tf"), "must end in .weights.h5 or .keras"),
        (("--into", "absent.py:net", "--backend", "torch"), "There is no file absent.py"),
    ],
)
def test_the_options_of_a_network_of_ones_own(tmp_path, words, said, capsys):
    save(tmp_path / "a.safetensors", draw(MINI, 0), MINI)
    made = tmp_path / ("b.npz" if words[0] == "--from" else "b.pt")
    assert said in refused(capsys, tmp_path / "a.safetensors", made, *words)
