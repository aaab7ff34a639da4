"""The loop that the benchmark calls published trains the same function as ours."""

import importlib

import numpy as np
import pytest
from narrow import NARROW

from backends.numpy import GoogLeNet, Trainer
from common.recipe import Recipe
from common.verify import draw_fixture, tensor_error


def test_a_published_step_is_plain_sgd_on_the_same_network(backend, name):
    fixture = draw_fixture(NARROW)
    inputs, labels = fixture.inputs, fixture.labels
    published = importlib.import_module(f"benchmarks.published.{name}").Published(NARROW)
    published.step(inputs, labels)  # some frameworks make their weights now
    backend.write_weights(published.net, fixture.weights)
    arbiter = GoogLeNet(NARROW, fixture.weights)
    logits = arbiter.forward(inputs.astype(float))["head"]
    want = Trainer(arbiter, Recipe(lr=0.1)).update(inputs.astype(float), labels)
    loss, accuracy = published.step(inputs, labels)
    if name != "tf":  # Keras's `train_on_batch` gives the mean of all batches so far
        assert loss == pytest.approx(want, rel=1e-5)
        assert accuracy == pytest.approx(np.mean(logits.argmax(1) == labels))
    got = backend.read_weights(published.net)
    for tensor, array in arbiter.weights.items():
        assert tensor_error(got[tensor], array) < 1e-4, tensor
