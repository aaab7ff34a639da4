"""Pitfalls that show in all four frameworks, or whichever of them is used."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from small_specs import FILE, NARROW  # in tests/support
from steps import channels_first, step_on_images

from backends.numpy import GoogLeNet, resize
from common import weights
from common.data.sources import load
from common.parity.checks import ZERO_GRADIENT
from common.parity.fixtures import draw_fixture
from common.parity.report import tensor_error
from common.recipe import Recipe
from common.spec import MINI, MINI_FAMILY, AvgPool, Norm

IMAGES = load("sample").train_images[:4]


def test_zero_gradient(backend, built, shows):
    """Of a bias in front of a norm: relative to itself its error is that of rounding noise."""
    fixture = draw_fixture(MINI)
    model = built(MINI, "float64")
    backend.write_weights(model, fixture.weights)
    _, got = backend.gradients(model, fixture.inputs, fixture.labels)
    _, want = GoogLeNet(MINI, fixture.weights).gradients(fixture.inputs, fixture.labels)
    biases = [name for name in want if name.endswith("conv.bias")]
    naive = max(tensor_error(got[name], want[name]) for name in biases)
    share = max(
        np.abs(both[name]).max() / np.abs(want[name.replace("bias", "weight")]).max()
        for name in biases
        for both in (got, want)
    )
    shows(without=naive, fixed=share, least=0.1, most=ZERO_GRADIENT)


def test_norm_rounding(backend, built, shows):
    """A batch norm in training magnifies float32's rounding; float64 tells right from wrong."""
    fixture, errors = draw_fixture(MINI), []
    want = GoogLeNet(MINI, fixture.weights).forward(fixture.inputs.astype(float), training=True)
    for dtype in ("float32", "float64"):
        model = built(MINI, dtype)
        backend.write_weights(model, fixture.weights)
        got = backend.forward(model, fixture.inputs, training=True)
        errors.append(tensor_error(got["head"], want["head"]))
    shows(*errors, least=3e-7, most=1e-11)


def test_shapes_alone(backend, built, shows):
    """Weights of a network that leaves padding out of its averages fit one that counts it."""
    counted = replace(MINI_FAMILY, stage3=(AvgPool(3, 1, 1), *MINI_FAMILY.stage3))
    theirs = replace(counted, stage3=(AvgPool(3, 1, 1, counted=False), *MINI_FAMILY.stage3))
    fixture, errors = draw_fixture(theirs), []
    want = GoogLeNet(theirs, fixture.weights).forward(fixture.inputs.astype(float))["head"]
    for spec in (counted, theirs):
        model = built(spec, "float64")
        backend.write_weights(model, fixture.weights)
        errors.append(tensor_error(backend.forward(model, fixture.inputs, False)["head"], want))
    shows(*errors, least=0.01)


def test_another_eps(backend, built, shows):
    """Weights of a network with an eps of 1e-5 fit one with 1e-3, which most packages have."""
    theirs = replace(MINI_FAMILY, norm=Norm(1e-5, 0.9))
    fixture, errors = draw_fixture(theirs), []
    weights = {n: w * 0.01 if n.endswith("running_var") else w for n, w in fixture.weights.items()}
    want = GoogLeNet(theirs, weights).forward(fixture.inputs.astype(float))["head"]
    for spec in (MINI_FAMILY, theirs):
        model = built(spec, "float64")
        backend.write_weights(model, weights)
        errors.append(tensor_error(backend.forward(model, fixture.inputs, False)["head"], want))
    shows(*errors, least=0.01)


def test_relu_tie(backend, built, shows):
    """One input moves by float32's last bit: what does that do to the gradient of a weight?

    At a tie the first filter sees one pixel of 1 through one weight of 1 and a bias of -1: exactly
    0, where the slope is 0, and with the last bit of the pixel more than 0, where it is 1.
    """
    fixture, name = draw_fixture(NARROW), "stage1.0.conv.bias"
    tied = {n: array.copy() for n, array in fixture.weights.items()}
    tied["stage1.0.conv.weight"][0] = 0
    tied["stage1.0.conv.weight"][0, 0, 3, 3] = 1
    tied[name][0] = -1
    pixel = (slice(None), 0, 16, 16)
    model, moved = built(NARROW, "float32"), []
    for given in (tied, fixture.weights):
        backend.write_weights(model, given)
        found = []
        for value in (np.float32(1), np.nextafter(np.float32(1), np.float32(2))):
            inputs = fixture.inputs * np.float32(0.5)  # no other pixel reaches 1
            inputs[pixel] = value
            found.append(backend.gradients(model, inputs, fixture.labels)[1][name])
        moved.append(tensor_error(found[1], found[0]))
    shows(*moved, least=1e-2, most=1e-4)


def test_plateau(backend, built, shows):
    """A wrong network goes unseen on the plateau: a tolerance of 0.01 over what the loss shows."""
    model, unseen = built(NARROW, "float64"), []
    for start in (weights.draw(NARROW, 0), weights.load(FILE, NARROW)):
        losses = []
        for wrong in (False, True):
            given = dict(start)
            if wrong:  # the branches of the last block joined in another order
                given["head.weight"] = np.roll(given["head.weight"], 32, axis=1)
            backend.write_weights(model, given)
            trainer = backend.Trainer(model, Recipe(lr=0.1))
            trainer.set_step(0.001, 0)
            images, labels = load("sample").train_images[:64], load("sample").train_labels[:64]
            for _ in range(3):
                loss, _ = step_on_images(backend, trainer, images, labels)
            losses.append(float(loss))
        unseen.append(0.01 / abs(losses[1] - losses[0]))
    shows(*unseen, least=1, most=0.1)


def test_resize_smaller(backend, shows):
    """Pillow smooths where it makes an image smaller; the frameworks' resize does not."""
    want = resize(IMAGES, 20, 20)
    size, bilinear = (20, 20), Image.Resampling.BILINEAR
    pillow = [np.array(Image.fromarray(image[0]).resize(size, bilinear)) for image in IMAGES]
    without = np.abs(np.stack(pillow)[:, None] / 255 - want).max()
    model = backend.build(NARROW.at(size=20), "float32", "cpu")
    prepared = channels_first(backend.Trainer(model, Recipe()).prepare(IMAGES))
    shows(without, np.abs(prepared - want).max(), least=0.1, most=5e-6)


def test_safetensors_metadata(shows):
    """Two keys come out in any order, so the same weights make different files."""
    from safetensors.numpy import save

    arrays = {"head.bias": np.zeros(3, "float32")}
    pairs = {save(arrays, {"spec": "d2l", "sha256": "0"}) for _ in range(64)}
    ours = {save(arrays, {weights.KEY: json.dumps({"spec": "d2l"})}) for _ in range(64)}
    shows(len(pairs) - 1, len(ours) - 1, least=1, most=0)


TENSORBOARD = """
import resource, sys, threading, time
from pathlib import Path
from types import SimpleNamespace

folder, writer = Path(sys.argv[1]), sys.argv[2]
# what a write on a full disk is: it fails, and not before some kilobytes
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
if writer == "theirs":
    from tensorboardX import SummaryWriter

    dead = threading.Event()
    threading.excepthook = lambda args: (print("died", args.exc_type.__name__), dead.set())
    theirs = SummaryWriter(folder, max_queue=0, flush_secs=0)
    for step in range(90):
        theirs.add_scalar("x" * 200, 0.0, step)
        time.sleep(0.005)
    dead.wait(200)
    print("went on", flush=True)
    import os

    os._exit(0)  # its `close` would wait for ever
from common.errors import RunError
from common.training.loggers import tensorboard
from common.training.run import Run

epoch = SimpleNamespace(
    number=1, losses=[0.0] * 900, loss=0.0, train_accuracy=0.0, test_loss=0.0, test_accuracy=0.0
)
try:
    with tensorboard(SimpleNamespace(run=Run(folder))) as write:
        write(epoch)
    print("went on")
except RunError as error:
    print("warned", error)
"""


@pytest.mark.skipif(os.name != "posix", reason="there is no RLIMIT_FSIZE")
def test_full_disk(python, tmp_path, shows):
    """tensorboardX's thread dies of it, and the program goes on as if the curves were written."""
    theirs, ours = (python(TENSORBOARD, tmp_path, writer) for writer in ("theirs", "ours"))
    assert "died OSError" in theirs.stdout, theirs.stdout + theirs.stderr
    assert "warned" in ours.stdout, ours.stdout + ours.stderr
    shows("went on" in theirs.stdout, "went on" in ours.stdout, least=1, most=0)


def test_same_seed(backend, shows):
    """A framework's own initial weights, against the canonical ones that every framework takes."""
    want = weights.draw(NARROW, 0)
    first = "stage1.0.conv.weight"
    model = backend.build(NARROW, "float32", "cpu")
    if hasattr(model, "initialize"):  # Gluon's own: the backend leaves zeros
        model.initialize(force_reinit=True)
    own = backend.read_weights(model)[first]
    backend.write_weights(model, weights.draw(NARROW, 0))  # once more, from the same seed
    fixed = backend.read_weights(model)
    shows(
        tensor_error(own, want[first]),
        max(tensor_error(fixed[tensor], want[tensor]) for tensor in want if want[tensor].any()),
        least=0.5,
        most=0,
    )
