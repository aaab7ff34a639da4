"""A run is the same run in every backend, and the same when it was stopped and resumed.

From weights that have learned, in float32: on the first plateau wrong weights look right, and with
batch norm two right implementations drift apart by 1e-2 in twenty steps (a rounding error of 1e-6
in the first loss grows tenfold every few steps). Without norm 4e-6 was measured.
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from small_specs import (
    BEGUN,
    CLOSE,
    FILE,
    INJECTED,
    MORE,
    NARROW,
    RECIPE,
    go_on,
)  # in tests/support

from backends.numpy import GoogLeNet, Trainer
from common.data.sampling import batches, flip_mask
from common.data.sources import load
from common.parity.report import tensor_error
from common.spec import SPECS, AdaptiveAvgPool, Auxiliary, Conv, Linear
from common.training.checkpoint import Checkpoint, Config, Progress
from common.weights import load as load_weights


@lru_cache
def learned():
    """The reference's checkpoint after a few steps, and its next losses and weights."""
    data = load("sample")
    config = Config.of(RECIPE, "numpy", data, "sample")
    trainer = Trainer(GoogLeNet(NARROW, load_weights(FILE, NARROW)), RECIPE)
    losses, checkpoint, steps = [], None, RECIPE.epochs * 25
    mirrored = flip_mask(len(data.train_labels), RECIPE.seed, 0)
    order = batches(len(data.train_labels), RECIPE.batch_size, RECIPE.seed, 0)
    for step, indices in enumerate(order):
        if step == BEGUN:
            checkpoint = Checkpoint(
                config,
                float32(trainer.model.weights),
                {slot: float32(arrays) for slot, arrays in trainer.read_state().items()},
                Progress(BEGUN, losses=losses[:]),
            )
        trainer.set_step(RECIPE.rate(step, steps), 0)
        inputs = trainer.prepare(data.train_images[indices], mirrored[indices])
        losses.append(trainer.train_step(inputs, data.train_labels[indices])[0])
    assert step == BEGUN + MORE - 1
    return checkpoint, losses[BEGUN:], trainer.model.weights


def float32(arrays):
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def run(backend, name, checkpoint, steps):
    """The losses of that many more steps, and the checkpoint after them."""
    done = len(checkpoint.progress.losses)
    checkpoint = Checkpoint.decode(checkpoint.encode())  # as it comes from the disk
    after = go_on(backend, name, checkpoint, steps)
    return after.progress.losses[done:], after


def distances(losses, weights):
    """How far these are from the reference's: the largest difference of losses, of weights."""
    _, want_losses, want = learned()
    away = max(abs(a - b) for a, b in zip(losses, want_losses, strict=True))
    return away, max(tensor_error(weights[name], array) for name, array in want.items())


def test_the_next_losses_and_weights_are_the_references(backend, name):
    checkpoint, want, _ = learned()
    assert np.mean(want) < 1.5, "on the plateau this proves nothing"
    losses, after = run(backend, name, checkpoint, MORE)
    assert len(losses) == MORE
    loss, weight = distances(losses, after.weights)
    assert loss < CLOSE
    assert weight < CLOSE


@pytest.mark.parametrize("inject", INJECTED)
def test_a_wrong_checkpoint_is_another_run(backend, name, inject):
    losses, after = run(backend, name, INJECTED[inject](learned()[0]), MORE)
    loss, weight = distances(losses, after.weights)
    assert loss > 10 * CLOSE
    assert weight > 10 * CLOSE


def assert_same_bits(one, other):
    assert one.progress.losses == other.progress.losses
    assert one.progress.right == other.progress.right
    for name, array in one.weights.items():
        assert np.array_equal(array, other.weights[name]), name
    for slot, arrays in one.state.items():
        for name, array in arrays.items():
            assert np.array_equal(array, other.state[slot][name]), (slot, name)


SIDE = Auxiliary(0, AdaptiveAvgPool(2), Conv(8), 8 * 2 * 2, Linear(16, activation=True))
WITH_SIDE = replace(NARROW, name="narrow with a side", auxiliary=(SIDE,))


@pytest.mark.parametrize(
    ("optimizer", "spec"), [("sgd", NARROW), ("adam", NARROW), ("sgd", WITH_SIDE)]
)
def test_stopped_and_resumed_is_uninterrupted_bit_for_bit(
    backend, name, optimizer, spec, monkeypatch
):
    """With dropout and flips; the second stop is in the middle of an epoch too."""
    monkeypatch.setitem(SPECS, spec.name, spec)
    momentum = {"momentum": 0.0, "nesterov": False, "lr": 0.001} if optimizer == "adam" else {}
    parts = {"accumulate": 3, "clip": 1.0} if optimizer == "adam" else {}
    recipe = replace(RECIPE, spec=spec.name, optimizer=optimizer, dropout=0.3, **momentum, **parts)
    first = Checkpoint.first(Config.of(recipe, name, load("sample"), "sample"))
    _, whole = run(backend, name, first, 8)
    _, half = run(backend, name, first, 3)
    assert half.progress.steps == 3
    losses, resumed = run(backend, name, half, 5)
    assert len(losses) == 5
    assert_same_bits(resumed, whole)
    _, undropped = run(
        backend,
        name,
        replace(first, config=replace(first.config, recipe=replace(recipe, dropout=0.0))),
        2,
    )
    assert undropped.progress.losses != whole.progress.losses[:2], "dropout did nothing"
