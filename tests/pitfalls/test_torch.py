"""Pitfalls that show in PyTorch."""

import numpy as np
import pytest
import torch
from small_specs import FILE, NARROW  # in tests/support
from steps import evaluate, step_on_images
from torch import distributed, nn
from torch.nn import functional as F

from backends.numpy.googlenet import GoogLeNet, batch_norm
from backends.torch import googlenet
from common import weights
from common.data.sources import load
from common.errors import WeightsError
from common.parity.fixtures import draw_fixture
from common.parity.report import tensor_error
from common.recipe import Recipe
from common.spec import MINI, Conv

NORM = MINI.norm
X = np.random.RandomState(0).normal(0.5, 1, (4, 3, 5, 5))  # N, C, H, W
CHANNELS = X.shape[1]


def reference(norm=NORM, training=True):
    """The output of a batch norm that has learned nothing, and its running mean and variance."""
    mean, var = np.zeros(CHANNELS), np.ones(CHANNELS)
    y, _ = batch_norm(X, np.ones(CHANNELS), np.zeros(CHANNELS), mean, var, norm, training)
    return y, mean, var


def ours(training=True):
    """The norm of the backend's Conv after X, and its output."""
    norm = googlenet.Conv(Conv(CHANNELS), CHANNELS, NORM).norm.double().train(training)
    return norm, norm(torch.from_numpy(X)).detach().numpy()


def test_norm_defaults(shows):
    """PyTorch's eps is 1e-5 where the network's is 1e-3."""
    want, _, _ = reference()
    theirs = nn.BatchNorm2d(CHANNELS).double()(torch.from_numpy(X)).detach().numpy()
    shows(tensor_error(theirs, want), tensor_error(ours()[1], want), least=1e-4)


def test_norm_momentum(shows):
    """PyTorch's momentum is the weight of the new value."""
    _, mean, _ = reference()
    theirs = nn.BatchNorm2d(CHANNELS, NORM.eps, NORM.momentum).double()
    theirs(torch.from_numpy(X))
    found = [norm.running_mean.numpy() for norm in (theirs, ours()[0])]
    shows(*(tensor_error(each, mean) for each in found), least=1)


def test_norm_variance(shows):
    """PyTorch keeps the unbiased running variance."""
    _, _, var = reference()
    theirs = nn.BatchNorm2d(CHANNELS, NORM.eps, 1 - NORM.momentum).double()
    theirs(torch.from_numpy(X))
    found = [norm.running_var.numpy() for norm in (theirs, ours()[0])]
    shows(*(tensor_error(each, var) for each in found), least=1e-4)


def test_sync_norm(shows):
    """A synchronised batch norm refuses a CPU; in one process the ordinary one is the same."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match="expected input tensor to be on GPU"):
            nn.SyncBatchNorm(CHANNELS).double()(torch.from_numpy(X))
    finally:
        distributed.destroy_process_group()
    shows(1, tensor_error(ours()[1], reference()[0]), least=1)


def test_gradients_add(backend, built, shows):
    """`backward` adds to what is there: the second of two steps goes on with the first's too."""
    fixture = draw_fixture(NARROW)
    model = built(NARROW, "float64")
    backend.write_weights(model, fixture.weights)
    _, want = GoogLeNet(NARROW, fixture.weights).gradients(fixture.inputs, fixture.labels)
    x, labels = backend.place(model, fixture.inputs), torch.from_numpy(fixture.labels)
    for _ in range(2):
        F.cross_entropy(model(x), labels).backward()
    theirs = model.head.weight.grad.numpy().copy()
    trainer = backend.Trainer(model, Recipe(lr=0.0))
    trainer.train_step(x, labels)
    fixed = model.head.weight.grad.numpy()
    shows(*(tensor_error(each, want["head.weight"]) for each in (theirs, fixed)), least=0.5)


def test_initial_bias(backend, shows):
    """PyTorch draws biases too, where the other three begin with zeros."""
    theirs = nn.Linear(NARROW.channels()[-1], NARROW.head.width).bias.abs().max().item()
    model = backend.build(NARROW, "float32", "cpu")
    backend.write_weights(model, weights.draw(NARROW, 0))
    shows(theirs, np.abs(backend.read_weights(model)["head.bias"]).max(), least=0.01, most=0)


IMPORT = """
import importlib.abc, signal, sys

class Interrupting(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.startswith("numpy.lib."):  # PyTorch has begun to import NumPy
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)

def load():
    sys.meta_path.insert(0, Interrupting())
    import torch

if sys.argv[1] == "theirs":
    load()
    print("went on")
else:
    from common.cli.app import Commands

    @(lambda function: __import__("click").group(cls=Commands)(function))
    def main():
        pass

    @main.command()
    def import_it():
        for name in [name for name in sys.modules if name.partition(".")[0] == "numpy"]:
            del sys.modules[name]
        load()
        raise ValueError("PyTorch without NumPy")

    main(["import-it"])
"""


def test_swallowed_interrupt(python, shows):
    """Ctrl-C while PyTorch imports NumPy is lost, and NumPy with it; ours ends with status 130."""
    theirs, fixed = python(IMPORT, "theirs"), python(IMPORT, "ours")
    assert theirs.returncode == 0, theirs.stderr
    assert "stopped" in fixed.stderr, fixed.stderr
    shows("went on" in theirs.stdout, fixed.returncode != 130, least=1, most=0)


def test_unsafe_pickle(hostile, shows):
    """`torch.load` runs what a pickle says, unless `weights_only` is left at True."""
    path, harmed = hostile
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        weights.load(path, NARROW)
    after_ours = harmed()
    with pytest.raises(RuntimeError, match="Invalid magic number"):  # too late
        torch.load(path, weights_only=False)
    shows(harmed(), after_ours, least=1, most=0)


def test_published_optimizer(backend, shows):
    """A post that calls the book's SGD says Adam at 0.1: with that a network unlearns what it knew.

    The loss over that of chance, ln 10, after 25 steps from weights that have learned.
    """
    data, losses = load("sample"), []
    recipes = (Recipe(optimizer="adam", lr=0.1), Recipe(lr=0.1))
    for recipe in recipes:
        model = backend.build(NARROW, "float32", "cpu")
        backend.write_weights(model, weights.load(FILE, NARROW))
        trainer = backend.Trainer(model, recipe)
        for step in range(25):
            part = slice(32 * step, 32 * step + 32)
            step_on_images(backend, trainer, data.train_images[part], data.train_labels[part])
        loss, _ = evaluate(trainer, [(data.train_images, data.train_labels)])
        losses.append(loss / np.log(10))
    shows(*losses, least=0.99, most=0.9)
