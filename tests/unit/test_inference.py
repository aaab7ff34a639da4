"""`evaluate`, `predict` and `plot`: a run that was trained by no framework, read by a fake one.

Long because the three commands share one run.
"""

# ruff: noqa: D102 - common/contract.py says what a backend's methods do

import json
import os
import re
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import backends
from common import inference
from common.cli import app
from common.data.fashion_mnist import CLASSES
from common.data.sources import load
from common.recipe import Recipe
from common.spec import MINI
from common.training.checkpoint import Checkpoint, Config, Progress
from common.training.history import Epoch, signed
from common.training.run import Run
from common.weights import draw, save, with_eps

EPOCH = Epoch(1, 2.0, 0.3, 1.5, 0.4, 8, 1.0, 0.0, "torch", "1", "cpu", {}, (2.5, 2.0, 1.5))
RECIPE = Recipe(spec="mini", size=33, batch_size=32, epochs=2, precision="bfloat16")


class Trainer:
    """Knows the sample by heart, but takes every fifth image for the class after its own."""

    def __init__(self, model, recipe):
        model["recipe"] = recipe
        sample = load("sample")
        self.known = {
            image.tobytes(): (label + (index % 5 == 0)) % 10
            for index, (image, label) in enumerate(
                zip(sample.test_images, sample.test_labels, strict=True)
            )
        }

    def predict(self, images):
        assert images.dtype == np.uint8
        assert 0 < len(images) <= 32
        found = np.full((len(images), 10), 0.02, np.float32)
        for row, image in zip(found, images, strict=True):
            row[self.known.get(image.tobytes(), 3)] = 0.82
        return found


@pytest.fixture
def backend(monkeypatch):
    """A backend that notes what it was asked for."""
    model = {}
    found = SimpleNamespace(
        VERSION="0.0",
        Trainer=Trainer,
        devices=lambda: ["cpu", "gpu:0"],
        out_of_memory=lambda error: "no room" in str(error),
        build=lambda spec, dtype, device: model.update(asked=(dtype, device)) or model,
        write_weights=lambda _, weights: model.update(weights=weights),
    )
    found.model = model
    monkeypatch.setattr(inference, "load", lambda name: model.update(name=name) or found)
    return found


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A run on the sample: the best checkpoint after one epoch, the last after two."""
    monkeypatch.chdir(tmp_path)
    config = Config.of(RECIPE, "mxnet", load("sample"), "sample")
    run, first = Run(tmp_path / "run"), Checkpoint.first(config)
    epochs = [replace(EPOCH, backend="mxnet"), replace(EPOCH, number=2)]
    best = {name: weight + 1 for name, weight in first.weights.items()}
    run.save(replace(first, progress=Progress(2, epochs)), "last")
    run.save(replace(first, progress=Progress(1, epochs[:1]), weights=best), "best")
    run.record(epochs)
    return tmp_path


@pytest.fixture
def call(capsys):
    """Run the command line: the exit status, stdout, stderr."""

    def run(*words):
        with pytest.raises(SystemExit) as left:
            app.main([str(word) for word in words], "googlenet")
        return (left.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def refused(call, home):
    """Check the exit status and the one sentence, and that nothing was written."""

    def run(command, status, *words):
        before = sorted(home.rglob("*"))
        code, out, err = call(*command)
        assert (code, out) == (status, ""), err
        assert re.fullmatch(r"googlenet: [^\n]+\n", err)
        assert [word for word in words if word not in err] == [], err
        assert sorted(home.rglob("*")) == before

    return run


def image(path, size=(60, 40), colour="red"):
    Image.new("RGB", size, colour).save(path)
    return path


def test_evaluate_counts_what_is_right_class_by_class(call, backend, home):
    code, out, err = call("evaluate", "run", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    labels = load("sample").test_labels
    taken = (labels + (np.arange(200) % 5 == 0)) % 10
    want = [[int(((labels == i) & (taken == j)).sum()) for j in range(10)] for i in range(10)]
    assert found["confusion"] == want
    assert [row["right"] for row in found["classes"]] == [want[i][i] for i in range(10)]
    assert [row["name"] for row in found["classes"]] == list(CLASSES)
    assert (found["images"], found["accuracy"]) == (200, 0.8)
    assert found["loss"] == pytest.approx(-0.8 * np.log(0.82) - 0.2 * np.log(0.02), rel=1e-6)
    assert found["picture"] == "run/confusion.png"
    assert (home / "run" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = call("evaluate", "run")
    assert f"test loss {found['loss']:.3f}, test acc 0.800" in out
    assert re.search(rf"Trouser +20 +{want[1][1]} +{want[1][1] / 20:.3f}", out)


def test_a_run_is_opened_as_it_was_unless_something_else_is_asked_for(call, backend, home):
    first = Checkpoint.first(Run(home / "run").load().config).weights["head.weight"]
    asked = backend.model
    assert json.loads(call("evaluate", "run", "--json")[1])["epochs"] == 1
    assert (asked["name"], asked["asked"]) == ("mxnet", ("bfloat16", "gpu:0"))
    assert asked["recipe"] == RECIPE
    assert (asked["weights"]["head.weight"] == first + 1).all()
    words = ("--checkpoint", "last", "--backend", "tf", "--device", "cpu", "--precision", "float32")
    found = json.loads(call("evaluate", "run", *words, "--out", "deep/x.png", "--json")[1])
    assert (found["epochs"], found["backend"], found["device"]) == (2, "tf", "cpu")
    assert (asked["name"], asked["asked"]) == ("tf", ("float32", "cpu"))
    assert asked["recipe"] == replace(RECIPE, precision="float32")
    assert (asked["weights"]["head.weight"] == first).all()
    assert (home / "deep" / "x.png").exists()
    assert found["picture"] == "deep/x.png"


def test_the_test_images_are_the_run_s_own(home, backend):
    config = Config.of(RECIPE, "mxnet", load("sample").limit(10, 7), "sample", (10, 7))
    assert len(inference.test_set(config, None).test_labels) == 7
    assert len(inference.test_set(config, "sample").test_labels) == 200


def class_folder(home, names, size=(60, 40)):
    for part in ("train", "test"):
        for name in names:
            (home / "data" / part / name).mkdir(parents=True)
            image(home / "data" / part / name / "x.png", size)
    return home / "data"


def test_other_test_images_take_the_run_s_size_and_channels(home):
    folder = class_folder(home, ("a", "b"))
    config = Config.of(RECIPE, "mxnet", load("sample"))
    config = replace(config, classes=("a", "b"), pixels=(20, 30))
    found = inference.test_set(config, str(folder)).test_images
    assert found.shape == (2, 1, 20, 30)
    assert found[:].shape == (2, 1, 20, 30)


def test_images_of_other_classes_are_refused(refused, backend, home):
    class_folder(home, ("a", "b"))
    refused(("evaluate", "run", "--data", "data"), 7, "other classes", "--data")


def test_predict_reads_images_as_the_run_s_own(call, backend, home):
    sample = load("sample")
    for index in (0, 1, 2):
        Image.fromarray(sample.test_images[index, 0]).save(home / f"{index}.png")
    image(home / "photo.jpg")
    words = ("predict", "run", "0.png", "1.png", "2.png", "photo.jpg", "--top", "2")
    code, out, err = call(*words)
    assert (code, err) == (0, "")
    labels = sample.test_labels
    names = [CLASSES[(labels[0] + 1) % 10], CLASSES[labels[1]], CLASSES[labels[2]], "Dress"]
    lines = out.splitlines()
    for line, file, name in zip(lines, words[2:6], names, strict=False):
        assert re.fullmatch(rf"{file}: {name} 0\.820, [^,]+ 0\.020", line), line
    assert (home / "predictions.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads(call(*words, "--json", "--out", "p.png", "--device", "cpu")[1])
    assert [row["file"] for row in found["images"]] == list(words[2:6])
    assert found["images"][3]["classes"][0] == {
        "class": "Dress",
        "probability": pytest.approx(0.82),
    }
    assert (found["device"], found["picture"]) == ("cpu", "p.png")


def test_more_classes_than_there_are_may_be_asked_for(call, backend, home):
    image(home / "x.png")
    found = json.loads(call("predict", "run", "x.png", "--top", "99", "--json")[1])
    (row,) = found["images"]
    assert len(row["classes"]) == 10
    assert sum(each["probability"] for each in row["classes"]) == pytest.approx(1)


def test_images_are_turned_into_the_run_s_kind(home):
    config = Config.of(RECIPE, "mxnet", load("sample"))
    image(home / "x.png", (60, 40), (255, 255, 255))
    assert inference.read_images(config, [home / "x.png"], False).shape == (1, 1, 28, 28)
    assert (inference.read_images(config, [home / "x.png"], True) == 0).all()
    colour = replace(config, channels=3, pixels=(20, 30))
    image(home / "y.png", (5, 5), (255, 0, 9))
    found = inference.read_images(colour, [home / "x.png", home / "y.png"], False)
    assert found.shape == (2, 3, 20, 30)
    assert found[1, :, 7, 7].tolist() == [255, 0, 9]


def test_a_damaged_image_is_refused_before_anything_is_written(refused, backend, home):
    image(home / "good.png")
    cut = image(home / "cut.jpg").read_bytes()
    (home / "cut.jpg").write_bytes(cut[: len(cut) // 2])
    (home / "text.png").write_text("no image")
    Image.new("F", (2, 2)).save(home / "floats.tif")
    (home / "empty").mkdir()
    for name in ("cut.jpg", "text.png", "floats.tif", "missing.png", "empty"):
        refused(("predict", "run", "good.png", name), 5, name, "leave it out")
    assert backend.model == {}, "no framework was waited for"


def test_runs_that_cannot_be_opened(refused, backend, home):
    for command in ("evaluate", "predict"):
        image(home / "good.png")
        rest = ["good.png"] if command == "predict" else []
        refused((command, "nowhere", *rest), 7, "nowhere")
        refused((command, "run", *rest, "--device", "gpu:5"), 6, "gpu:5")
    file = home / "run" / "checkpoints" / "best.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    refused(("evaluate", "run"), 7, "best.safetensors")
    file.unlink()
    refused(("evaluate", "run"), 7, "--checkpoint last")


@pytest.mark.parametrize("as_json", [(), ("--json",)])
@pytest.mark.parametrize("command", [("evaluate", "run"), ("predict", "run", "good.png")])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(refused, backend, home, command, value, as_json):
    image(home / "good.png")
    run = Run(home / "run")
    checkpoint = run.load("best")
    checkpoint.weights["head.bias"][3] = value
    run.save(checkpoint, "best")
    refused((*command, *as_json), 7, "best.safetensors", "head.bias", "NaN", "--checkpoint")
    assert backend.model == {}, "no framework was waited for"


@pytest.mark.parametrize("as_json", [(), ("--json",)])
@pytest.mark.parametrize("command", [("evaluate", "run"), ("predict", "run", "good.png")])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_probabilities_that_are_not_finite_are_refused(
    refused, backend, home, monkeypatch, command, value, as_json
):
    """Finite weights can overflow, for example in half precision."""
    image(home / "good.png")
    known = Trainer.predict

    def overflow(self, images):
        found = known(self, images)
        found[-1, 0] = value
        return found

    monkeypatch.setattr(Trainer, "predict", overflow)
    refused((*command, *as_json), 8, "run", "not finite", "bfloat16", "--precision float32")


@pytest.mark.parametrize("out", ["file/x.png", "x" * 300, "folder"])
def test_a_picture_that_cannot_be_written(call, refused, backend, home, out):
    """The result is printed all the same."""
    image(home / "good.png")
    (home / "file").write_text("")
    (home / "folder").mkdir()
    for words, result in (
        (("evaluate", "run"), "test acc 0.8"),
        (("evaluate", "run", "--json"), '"accuracy": 0.8'),
        (("predict", "run", "good.png"), "good.png: "),
        (("predict", "run", "good.png", "--csv"), "good.png,1,"),
        (("predict", "run", "good.png", "--json"), '"file": "good.png"'),
    ):
        code, said, err = call(*words, "--out", out)
        assert code == 7
        assert result in said
        assert f"in {out}" not in said
        assert re.fullmatch(rf"googlenet: {out} cannot be written [^\n]+`--out`\.\n", err)
    refused(("plot", "run", "--out", out), 7, out, "--out")


def test_too_little_memory_is_one_sentence(refused, backend, home, monkeypatch):
    def fail(self, images):
        raise RuntimeError("no room\nat all")

    monkeypatch.setattr(Trainer, "predict", fail)
    refused(("evaluate", "run"), 9, "gpu:0", "--device")


def test_plot_lays_runs_over_each_other(call, home, monkeypatch):
    other = Run(home / "deep" / "run")
    other.record([replace(EPOCH, backend="tf")])
    third = Run(home / "third")
    third.record([replace(EPOCH, backend="tf")])
    files = [home / "run", other.folder, third.history_file]
    found = inference.histories(files)
    assert list(found) == [
        f"{home / 'run'} (mxnet then torch)",
        f"{other.folder} (tf)",
        "third (tf)",
    ]
    assert [len(epochs) for epochs in found.values()] == [2, 1, 1]
    code, out, _ = call("plot", *files)
    assert (code, out) == (0, "the curves of 3 runs in curves.png\n")
    assert (home / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_plot_without_a_history(refused, home):
    refused(("plot", "nowhere"), 7, "nowhere")
    (home / "empty").mkdir()
    refused(("plot", "run", "empty"), 7, "empty")
    (home / "empty" / "history.jsonl").write_text("")
    refused(("plot", "empty"), 7, "empty")
    (home / "empty" / "history.jsonl").write_text("{}\n")
    refused(("plot", "empty"), 7, "line 1", "--resume")
    (home / "notes.md").write_text("# Notes\n")
    refused(("plot", "notes.md"), 7, "notes.md is not the history of a run: its line 1 is not an")


def test_a_folder_that_is_no_run_is_named(refused, backend, home):
    image(home / "good.png")
    for words in (("evaluate", "run/checkpoints"), ("predict", "run/checkpoints", "good.png")):
        refused(words, 7, "run/checkpoints is not a run: it holds no folder `checkpoints`.")


# A folder from a stranger


def stranger(home, **changes):
    """A run whose checkpoint and history hold these fields."""
    run = Run(home / "run")
    checkpoint = run.load("best")
    epochs = [replace(EPOCH, **{k: v for k, v in changes.items() if hasattr(EPOCH, k)})]
    config = {k: v for k, v in changes.items() if hasattr(checkpoint.config, k)}
    checkpoint = replace(
        checkpoint, config=replace(checkpoint.config, **config), progress=Progress(1, epochs)
    )
    run.save(checkpoint, "best")
    run.save(checkpoint, "last")
    return run


ESCAPES = "\x1b[2J\x1b]0;owned\x07\r\nroot# \u202e\udcff$x^"


def test_class_names_reach_a_terminal_without_control_characters(call, backend, home, monkeypatch):
    classes = tuple(f"{number}{ESCAPES}" for number in range(10))
    stranger(home, classes=classes)
    monkeypatch.setattr(inference, "load_data", lambda *_: replace(load("sample"), classes=classes))
    image(home / f"photo\x1b[2J{os.fsdecode(b'%c' % 255)}.png")
    (photo,) = home.glob("photo*")
    for words in (("evaluate", "run"), ("predict", "run", photo)):
        code, out, err = call(*words)
        assert (code, err) == (0, "")
        assert r"\x1b[2J\x1b]0;owned\x07\r\nroot# \u202e\udcff$x^" in out
        assert out.replace("\n", "").isprintable()
        assert "\n" + "root" not in out


def test_a_class_that_is_named_like_a_number_keeps_its_name(backend):
    found = {"name": "1e5", "images": 2, "right": 1}
    facts = dict.fromkeys(
        ("backend", "version", "device", "precision", "checkpoint", "run", "epochs", "data"), "x"
    )
    text = inference.render(facts | {"images": 2, "classes": [found], "loss": 1.0, "accuracy": 0.5})
    assert re.search(r"^ *1e5 +2 +1 +0\.500$", text, re.MULTILINE)


@pytest.mark.parametrize(
    "change",
    [
        *({"device": ESCAPES}, {"version": ESCAPES}, {"places": {"batch": [ESCAPES]}}),
        *({"pixels": (40_000, 40_000)}, {"pixels": (1, 2, 3)}, {"classes": tuple(range(10))}),
    ],
)
def test_a_run_with_impossible_fields_is_refused_by_each_command(refused, backend, home, change):
    run = stranger(home, **change)
    image(home / "x.png")
    for command in (("evaluate", "run"), ("predict", "run", "x.png"), ("train", "--resume", "run")):
        refused(command, 7, "is not a checkpoint of this program", next(iter(change)).rstrip("s"))
    if hasattr(EPOCH, next(iter(change))):
        run.write(run.history_file, json.dumps(signed(asdict(replace(EPOCH, **change)))).encode())
        refused(("plot", "run"), 7, "line 1")
    assert backend.model == {}, "no framework was waited for"


def test_a_run_of_a_backend_that_only_a_newer_version_has_is_read_in_another(
    refused, call, backend, home, monkeypatch
):
    stranger(home, backend="jax")
    assert call("evaluate", "run", "--backend", "tf")[0] == 0
    monkeypatch.setattr(inference, "load", backends.load)
    for command in (("evaluate", "run"), ("predict", "run", image(home / "x.png"))):
        refused(command, 4, "There is no backend 'jax'; choose one of torch, tf, ")


@pytest.mark.parametrize("kind", ["pipe", "zero", "out"])
def test_pipes_devices_and_links_that_lead_out_are_refused_by_each_command(
    refused, backend, home, kind
):
    image(home / "x.png")
    (home / "victim").write_text("mine")
    run = Run(home / "run")
    for path in (run.checkpoint("best"), run.checkpoint("last"), run.history_file):
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero" if kind == "zero" else home / "victim")
    said = "not an ordinary file" if kind == "pipe" else "leads out of"
    for command in (
        *(("evaluate", "run"), ("predict", "run", "x.png"), ("train", "--resume", "run")),
        *(("plot", "run"), ("train", "--resume", "run/checkpoints/best.safetensors")),
    ):
        refused(command, 7, said)
    if kind == "pipe":
        refused(("plot", "run/history.jsonl"), 7, said)


def test_the_pictures_of_a_stranger_s_run_overwrite_no_other_file(call, backend, home):
    (home / "victim").write_text("mine")
    for name in ("confusion.png", ".confusion.png.part"):
        (home / "run" / name).symlink_to(home / "victim")
    assert call("evaluate", "run")[0] == 0
    assert (home / "victim").read_text() == "mine"
    assert not (home / "run" / "confusion.png").is_symlink()


# --- a file of weights instead of a run


@pytest.fixture
def file(home):
    """A canonical file of the small network, whose norms were trained with another eps."""
    weights = draw(MINI, 5)
    save(home / "m.safetensors", weights, MINI.at(eps=1e-5))
    return "m.safetensors", weights


def test_predict_takes_a_file_of_weights(call, backend, home, file):
    """The classes have numbers; gamma makes up for the eps of our class."""
    path, weights = file
    image(home / "a.png")
    code, out, err = call("predict", "--weights", path, "a.png", "--json", "--size", "33")
    assert code == 0, err
    assert "our names, network mini" in err
    assert "eps 1e-05 (the file)" in err
    found = json.loads(out)
    assert (found["weights"], found["spec"]) == (path, "mini")
    assert "run" not in found
    (row,) = found["images"]
    assert (row["file"], row["classes"][0]["class"]) == ("a.png", "3")
    want = with_eps(weights, MINI.at(eps=1e-5).norm.eps, MINI.norm.eps)
    for name, array in want.items():
        np.testing.assert_array_equal(backend.model["weights"][name], array)


def test_evaluate_takes_a_file_of_weights(call, backend, home, file):
    code, out, _ = call("evaluate", "--weights", file[0], "--data", "sample", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["weights"], found["accuracy"], found["picture"]) == (
        file[0],
        0.8,
        "confusion.png",
    )
    assert [row["name"] for row in found["classes"]] == list(CLASSES)
    assert "m.safetensors as mini" in call("evaluate", "--weights", file[0], "--data", "sample")[1]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("evaluate", "run", "--weights", "m.safetensors"), 7, "not both"),
        (("evaluate",), 7, "Name the folder of a run, or give a file of weights"),
        (("evaluate", "m.safetensors"), 7, "give a file of weights with `--weights`"),
        (("predict", "m.safetensors", "a.png"), 7, "give a file of weights with `--weights`"),
        (("predict", "run", "a.png", "--eps", "1e-5"), 7, "are for `--weights`"),
        (("evaluate", "--weights", "run"), 7, "run is the folder of a run: leave out `--weights`"),
        (("predict", "--weights", "run", "a.png"), 7, "leave out `--weights`"),
        (("predict", "--weights", "m.safetensors"), 5, "there is nothing to classify"),
        (("predict", "--weights", "none.pt", "a.png"), 2, "is not there"),
    ],
)
def test_a_run_and_a_file_are_told_apart(call, backend, home, file, words, status, said):
    image(home / "a.png")
    code, out, err = call(*words)
    assert (code, out) == (status, "")
    assert said in err


def test_weights_of_other_classes_than_the_images_are_refused(call, backend, home):
    network = MINI.at(classes=7)
    save(home / "seven.safetensors", draw(network, 0), network)
    code, _, err = call("evaluate", "--weights", "seven.safetensors", "--data", "sample")
    assert code == 7
    assert "7 classes" in err
    network = MINI.at(channels=3)
    save(home / "colour.safetensors", draw(network, 0), network)
    code, _, err = call("evaluate", "--weights", "colour.safetensors", "--data", "sample")
    assert code == 7
    assert "have 1 channel(s), and the network takes 3" in err


def test_predict_takes_folders_and_patterns(call, backend, home):
    (home / "more" / "deep").mkdir(parents=True)
    for name in ("more/b.png", "more/a.JPG", "more/deep/c.png", "x1.png", "x2.png"):
        image(home / name)
    (home / "more" / "notes.txt").write_text("no image")
    (home / "more" / ".hidden.png").write_text("no image")
    code, out, _ = call("predict", "run", "more", "x*.png", "--json")
    assert code == 0
    names = [row["file"] for row in json.loads(out)["images"]]
    assert names == ["more/a.JPG", "more/b.png", "more/deep/c.png", "x1.png", "x2.png"]
    for nothing in ("y*.png", "runs"):
        (home / "runs").mkdir(exist_ok=True)
        code, _, err = call("predict", "run", nothing)
        assert (code, "names no image of a known format" in err) == (5, True)


def test_predictions_are_written_as_csv(call, backend, home):
    image(home / "a, b.png")
    code, out, _ = call("predict", "run", "a, b.png", "--csv", "--top", "2")
    assert code == 0
    first, *rows = out.splitlines()
    assert first == "file,rank,class,probability"
    assert rows[0] == f'"a, b.png",1,{CLASSES[3]},0.820000'
    assert len(rows) == 2
