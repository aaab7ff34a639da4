"""The epoch loop that all backends share, with a trainer that only takes notes and a clock."""

# ruff: noqa: D102 - common/contract.py says what a backend's methods do

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from common.data import Dataset, batches
from common.fit import EVALUATION_BATCH, REFRESH, Epoch, Run, fit
from common.recipe import Recipe
from common.spec import D2L
from common.weights import draw

STEP, LOOK, EVALUATE, REPORT, BUILD = 2.0, 0.25, 100.0, 1000.0, 10_000.0  # seconds on the clock


def numbered(count):
    """Images that hold their own number, as a label cannot: the first pixels are its digits."""
    images = np.zeros((count, 1, 28, 28), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(count), 256)
    return images


def numbers(images):
    assert (images.shape[1:], images.dtype) == ((1, 28, 28), np.uint8)
    return (images[:, 0, 0, 0].astype(int) * 256 + images[:, 0, 0, 1]).tolist()


def labels_of(indices):
    return [index * 7 % 10 for index in indices]


def dataset(train, test):
    labels = [np.array(labels_of(range(count)), np.int64) for count in (train, test)]
    return Dataset(numbered(train), labels[0], numbered(test), labels[1], ("a",) * 10, "fake")


class Scalar:
    """A number on a device: arithmetic is free, to look at it takes time."""

    def __init__(self, world, value):
        self.world, self.value = world, value

    def __mul__(self, factor):
        return Scalar(self.world, self.value * factor)

    def __add__(self, other):
        return Scalar(self.world, self.value + getattr(other, "value", other))

    __rmul__, __radd__ = __mul__, __add__

    def __float__(self):
        self.world.now += LOOK
        self.world.looks += 1
        return float(self.value)


class World:
    """A backend, its trainer and the clock that they move."""

    def __init__(self):
        self.now, self.looks = 0.0, 0
        self.log, self.steps, self.tests, self.epochs = [], [], [], []

    def perf_counter(self):
        return self.now

    def build(self, spec, dtype, device):
        self.now += BUILD
        self.log.append(("build", spec, dtype, device))
        return "the model"

    def write_weights(self, model, weights):
        self.log.append(("write", model))
        self.weights = weights

    def Trainer(self, model, recipe):
        self.log.append(("trainer", model, recipe))
        return self

    def step(self, images, labels):
        self.now += STEP
        found = numbers(images)
        assert (labels.tolist(), labels.dtype) == (labels_of(found), np.int64)
        self.steps.append(found)
        # As if the loss of every example were its number, and every third were right.
        return Scalar(self, np.mean(found)), Scalar(self, sum(n % 3 == 0 for n in found))

    def evaluate(self, some):
        self.now += EVALUATE
        self.tests.append([])
        for images, labels in some:
            assert 0 < len(labels) <= EVALUATION_BATCH
            assert labels.tolist() == labels_of(numbers(images))
            self.tests[-1] += numbers(images)
        return 0.5 + len(self.tests), 0.125

    def places(self):
        self.log.append(("places", len(self.steps)))
        return {"batch": {"gpu:3"}}

    def report(self, epoch):
        self.now += REPORT
        self.epochs.append((epoch, len(self.steps), len(self.tests)))


@pytest.fixture
def world(monkeypatch):
    """A world whose clock `fit` looks at."""
    found = World()
    monkeypatch.setattr("common.fit.time", SimpleNamespace(perf_counter=found.perf_counter))
    return found


RECIPE = Recipe(batch_size=32, epochs=3, seed=5)  # of 300 examples: 9 batches and one of 12


def run(world, recipe=RECIPE, train=300, test=600):
    return fit(world, D2L, recipe, dataset(train, test), "gpu:3", world.report)


def test_every_epoch_takes_every_example_once_in_the_order_of_batches(world):
    run(world)
    want = [b.tolist() for epoch in range(3) for b in batches(300, 32, 5, epoch)]
    assert world.steps == want
    for epoch in range(3):
        seen = np.concatenate(world.steps[10 * epoch : 10 * epoch + 10])
        assert sorted(seen) == list(range(300))
    assert world.steps[:10] != world.steps[10:20], "each epoch has its own order"


def test_a_run_starts_from_the_canonical_weights_of_its_seed(world):
    run(world)
    assert world.log == [
        ("build", D2L, "float32", "gpu:3"),
        ("write", "the model"),
        ("trainer", "the model", RECIPE),
        ("places", 30),
    ]
    want = draw(D2L, 5)
    assert list(world.weights) == list(want)
    assert all((world.weights[name] == weight).all() for name, weight in want.items())


def test_means_weigh_every_example_the_same(world):
    for epoch in run(world).epochs:
        assert epoch.loss == pytest.approx(299 / 2)
        assert epoch.train_accuracy == pytest.approx(1 / 3)


def test_a_batch_may_be_larger_than_the_data(world):
    found = run(world, Recipe(batch_size=64, epochs=1), train=7)
    assert [len(step) for step in world.steps] == [7]
    assert (found.epochs[0].loss, found.epochs[0].train_accuracy) == (3, 3 / 7)


@pytest.mark.parametrize("test", [1, EVALUATION_BATCH, EVALUATION_BATCH + 1, 600])
def test_the_whole_test_set_is_evaluated_after_every_epoch(world, test):
    found = run(world, train=32, test=test)
    assert world.tests == [list(range(test))] * 3
    assert [epoch.test_loss for epoch in found.epochs] == [1.5, 2.5, 3.5]
    assert [epoch.test_accuracy for epoch in found.epochs] == [0.125] * 3


def test_only_training_counts_as_time_and_it_waits_for_the_device(world):
    found = run(world)
    seconds = 10 * STEP + 2 * LOOK  # the loss and the number right, at the end
    assert [epoch.seconds for epoch in found.epochs] == [seconds] * 3
    assert found.examples_per_second == pytest.approx(300 / seconds)
    assert world.looks == 2 * 3, "without a terminal nothing else waits for the device"


def test_every_epoch_is_reported_when_it_is_over(world):
    found = run(world)
    assert world.epochs == [(e, 10 * e.number, e.number) for e in found.epochs]
    assert [epoch.number for epoch in found.epochs] == [1, 2, 3]
    assert all(isinstance(epoch, Epoch) for epoch in found.epochs)


def test_a_run_says_where_it_was(world):
    found = run(world)
    assert isinstance(found, Run)
    assert (found.device, found.places) == ("gpu:3", {"batch": {"gpu:3"}})
    assert fit(world, D2L, RECIPE, dataset(32, 1), "gpu:3").device == "gpu:3", "report is optional"


def test_no_bar_is_drawn_where_there_is_no_terminal(world, capsys):
    run(world)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_with_means_so_far(world, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := io.StringIO())
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    found = run(world, Recipe(batch_size=10, epochs=2, seed=5))
    assert "epoch 1/2" in terminal.getvalue()
    first = np.mean(world.steps[0])
    assert f"loss={first:.3f}" in terminal.getvalue()
    right = sum(n % 3 == 0 for n in world.steps[0]) / 10
    assert f"acc={right:.3f}" in terminal.getvalue()
    assert world.looks == 2 * (2 * 30 // REFRESH + 2), "a look every few steps, and at the end"
    assert found.epochs[0].loss == pytest.approx(299 / 2)
