"""What the benchmark calls published trains the same function as ours, and all of it runs."""

import importlib
import math
import os
import signal
from functools import partial

import numpy as np
import pytest
from inline_process import Here
from small_specs import NARROW

from backends.numpy import GoogLeNet, Trainer
from common.bench import benchmark, process
from common.bench.benchmark import Plan
from common.errors import OutOfMemoryError
from common.parity.fixtures import draw_fixture
from common.parity.report import tensor_error
from common.recipe import Recipe


def pytest_generate_tests(metafunc):
    """Test the book's loop, and that with what a user would write today."""
    if "kind" in metafunc.fixturenames:
        today = process.TODAY[metafunc.config.getoption("--backend")]
        metafunc.parametrize("kind", [process.BOOK, *today])


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
@pytest.mark.filterwarnings("ignore:Tensor do not have 'place' interface")
def test_a_published_step_is_plain_sgd_on_the_same_network(backend, name, kind):
    fixture = draw_fixture(NARROW)
    inputs, labels = fixture.inputs, fixture.labels
    baseline = importlib.import_module(f"benchmarks.baselines.{name}")
    assert tuple(baseline.TODAY) == process.TODAY[name]
    published = baseline.Published(NARROW)
    step = published.step
    if kind != process.BOOK:
        baseline.TODAY[kind](published)
        if name == "tf":
            step = partial(published.fit, steps=1, begin=lambda: None)
    step(inputs, labels)  # some frameworks make their weights now
    backend.write_weights(published.net, fixture.weights)
    reference = GoogLeNet(NARROW, fixture.weights)
    logits = reference.forward(inputs.astype(float))["head"]
    want, _ = Trainer(reference, Recipe(lr=0.1)).train_step(inputs.astype(float), labels)
    loss, accuracy = step(inputs, labels)
    if (name, kind) != (
        "tf",
        process.BOOK,
    ):  # Keras's `train_on_batch` gives the mean of all batches so far
        assert loss == pytest.approx(want, rel=1e-5)
        assert accuracy == pytest.approx(np.mean(logits.argmax(1) == labels))
    got = backend.read_weights(published.net)
    for tensor, array in reference.weights.items():
        assert tensor_error(got[tensor], array) < 1e-4, tensor


@pytest.fixture(autouse=True)
def as_before(name):
    """The book's loop undoes what our backend sets for the whole process."""
    yield
    if name == "tf":
        import tensorflow

        tensorflow.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
        tensorflow.config.set_soft_device_placement(False)


@pytest.fixture
def here(monkeypatch):
    """No processes, and quick products of matrices."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the benchmark sets it; this puts it back
    monkeypatch.setattr(benchmark, "Process", Here)
    monkeypatch.setattr(benchmark, "PAUSE", 0)
    monkeypatch.setattr(process, "SIDES", {"cpu": 512})
    monkeypatch.setattr(process, "COPIED", 2**20)


SMALLEST = Recipe(spec="mini", size=33, batch_size=16)


def test_the_whole_benchmark_in_processes_of_its_own(name, monkeypatch):
    monkeypatch.setattr(process, "SIDES", {"cpu": 512})
    monkeypatch.setattr(process, "COPIED", 2**24)
    monkeypatch.setitem(process.TODAY, "tf", ("fit",))  # XLA would compile for half a minute
    peer = name not in benchmark.PEERS  # tests/upstream has those with a network of their own
    rows = benchmark.bench(Plan(name, SMALLEST, "cpu", rounds=1, steps=2, peer=peer))["rows"]
    assert "".join(row["role"] for row in rows) == "abc"
    today = process.TODAY[name] if peer else ()
    assert tuple(row["loop"] for row in rows if not row["role"]) in (today, (*today, "ours"))
    for row in rows:
        assert 0 < row["lowest"] <= row["median"] <= row["highest"] < math.inf
        assert 0 <= row["share"] < math.inf
        assert 0 < row["peak"] < math.inf
        assert 0 <= row["bandwidth"] < math.inf
        assert 0 <= row["roofline"] < math.inf
        assert 50 < row["memory"] < 10_000
        assert row["device_memory"] is None
        assert 0 <= row["compile"] < math.inf
        assert 0 < row["start"] < math.inf
    for row in (row for row in rows if row["loop"] == process.OURS):
        assert 0 <= row["real_share"] < math.inf
        assert 0 <= row["wait"] <= 1


def test_a_process_that_was_killed_is_reported_as_too_little_memory(name):
    plan = Plan(name, SMALLEST, "cpu")
    data = benchmark.cut(benchmark.images(), 16, plan.spec())
    child = process.Process(plan.own()[0], data)
    try:
        os.kill(child.process.pid, signal.SIGKILL)
        with pytest.raises(OutOfMemoryError, match="--batch-size"):
            child("turn", 1)
    finally:
        child.close()


def test_a_copy_of_the_framework_moves_the_numbers(name):
    """On a CPU NumPy copies instead, so only here does this run on one."""
    probes = importlib.import_module(f"benchmarks.probes.{name}")
    copied = probes.copy(100, "cpu")()
    assert copied.shape == (100,)
    assert len({float(each) for each in copied}) > 90


def test_every_loop_has_a_profile(name, here):
    found = benchmark.profile(Plan(name, SMALLEST, "cpu"), steps=2)
    for each in found["profiles"]:
        rows = each["operators"]
        assert any("conv" in row["name"].lower() for row in rows)
        assert 0 < sum(row["seconds"] for row in rows) < math.inf
        assert not {"Process", "Run"} & {row["name"] for row in rows}, "TensorFlow's bookkeeping"
        assert 0 < sum(row["share"] for row in rows) < 1.001
        assert 0 < each["floor"] < math.inf
        assert 0 < each["step"] < math.inf
