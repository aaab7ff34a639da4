"""What the benchmark calls published trains the same function as ours, and all of it runs."""

import importlib

import numpy as np
import pytest
from narrow import NARROW

from backends.numpy import GoogLeNet, Trainer
from common import bench
from common.bench import Plan
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


SMALL = Recipe(spec="mini", size=33, batch_size=16)


def test_the_whole_benchmark_in_processes_of_its_own(name):
    rows = bench.bench(Plan(name, SMALL, "cpu", rounds=1, steps=2))["rows"]
    assert "".join(row["role"] for row in rows) == "abc"
    for row in rows:
        assert row["lowest"] <= row["median"] <= row["highest"]
        assert 0 < row["share"] < 1
        assert 1 < row["peak"] < 1e5
        assert 50 < row["memory"] < 10_000
        assert row["device_memory"] is None
        assert row["compile"] < row["start"] < 300
    for row in rows[1:]:
        assert 0.1 < row["real_share"] < 10
        assert 0 <= row["wait"] < 1
