"""Preparation, steps, evaluation and the training command, on real images."""

import re

import numpy as np
import pytest
from click.testing import CliRunner

from backends.numpy import GoogLeNet, cross_entropy, resize
from common.cli import main
from common.data import load
from common.fit import fit
from common.plants import SMALL, SMALL_BN
from common.recipe import Recipe
from common.verify import draw_fixture


@pytest.mark.parametrize("size", [96, 97, 33, 28, 20, 2])  # MXNet's takes the corner for size 1
def test_images_are_scaled_and_resized_as_the_oracle_does(backend, built, size):
    spec = SMALL.at(size=size)
    model = built(spec)
    images = load("sample").train_images[:4]
    native = backend.Trainer(model, Recipe()).prepare(images)
    got = native.asnumpy() if hasattr(native, "asnumpy") else np.asarray(native)
    if got.shape[-1] == 1 and got.shape[1] != 1:  # NHWC
        got = np.moveaxis(got, -1, 1)
    want = resize(images, size, size)
    assert got.dtype == np.float32
    assert got.shape == want.shape
    assert np.abs(got.reshape(want.shape) - want).max() < 5e-6


def test_a_step_returns_the_loss_and_the_number_right_before_it(backend, built):
    fixture = draw_fixture(SMALL.at(size=33))
    model = built(fixture.spec, "float64")
    backend.write_weights(model, fixture.weights)
    logits = GoogLeNet(fixture.spec, fixture.weights).forward(fixture.inputs.astype(float))["head"]
    labels = logits.argmax(1).astype(np.int64)
    labels[0] = (labels[0] + 1) % 10
    loss, right = backend.Trainer(model, Recipe(lr=0.0)).update(
        backend.place(model, fixture.inputs), labels
    )
    assert float(loss) == pytest.approx(cross_entropy(logits, labels)[0], rel=1e-12)
    assert float(right) == len(labels) - 1


def test_evaluation_is_the_mean_over_all_images_whatever_the_batches(backend, built):
    fixture = draw_fixture(SMALL_BN.at(size=33))
    model = built(fixture.spec, "float64")
    backend.write_weights(model, fixture.weights)
    data = load("sample")
    images, labels = data.test_images[:10], data.test_labels[:10]
    trainer = backend.Trainer(model, Recipe())
    parts = [slice(0, 4), slice(4, 8), slice(8, 10)]
    loss, accuracy = trainer.evaluate((images[part], labels[part]) for part in parts)
    prepared = resize(images, 33, 33)
    logits = GoogLeNet(fixture.spec, fixture.weights).forward(prepared)["head"]
    assert loss == pytest.approx(cross_entropy(logits, labels)[0], rel=1e-5)
    assert accuracy == (logits.argmax(1) == labels).mean()


def test_evaluation_leaves_the_weights_and_statistics_alone(backend, built):
    fixture = draw_fixture(SMALL_BN.at(size=33))
    model = built(fixture.spec)
    backend.write_weights(model, fixture.weights)
    data = load("sample")
    backend.Trainer(model, Recipe()).evaluate([(data.test_images[:4], data.test_labels[:4])])
    after = backend.read_weights(model)
    assert all(np.array_equal(after[n], array) for n, array in fixture.weights.items())


def test_training_learns_the_sample(backend):
    """With batch norm, 52 steps at 33 pixels are enough to tell many classes apart."""
    data = load("sample").limit(train=400, test=100)
    run = fit(backend, SMALL_BN.at(size=33), Recipe(lr=0.02, batch_size=32, epochs=4), data, "cpu")
    assert run.epochs[-1].loss < run.epochs[0].loss
    assert run.epochs[-1].train_accuracy > 0.4
    assert run.epochs[-1].test_accuracy > 0.25
    assert all(run.places[what] == {"cpu"} for what in run.places if what != "state")
    assert len(run.places) == 5


def test_the_command_ends_with_the_books_two_lines(name):
    options = ["--data", "sample", "--limit-train", "16", "--limit-test", "8", "--epochs", "1"]
    result = CliRunner().invoke(main, ["train", "--backend", name, "--batch-size", "8", *options])
    assert result.exit_code == 0, result.output
    *_, metrics, speed = result.stdout.strip().splitlines()
    number = r"\d+\.\d{3}"
    assert re.fullmatch(rf"loss {number}, train acc {number}, test acc {number}", metrics)
    assert speed.endswith(" examples/sec on cpu") or " examples/sec on gpu:" in speed
