"""What several unit tests need: the reference in a backend's clothes, a spec that runs in no time."""

# ruff: noqa: D102 - common/contract.py says what a backend's methods do

from types import SimpleNamespace

import numpy as np
import pytest

from backends.numpy import GoogLeNet, cross_entropy
from backends.numpy import Trainer as Textbook
from common import spec
from common.data.dataset import Dataset
from common.spec import Conv, GlobalAvgPool, Linear, MaxPool, Norm, Spec, inception
from common.weights import check, draw

POCKET = Spec(
    name="pocket",
    input=(1, 9, 9),
    stage1=(Conv(3, 3, 2, 1),),
    stage2=(MaxPool(3, 2, 1),),
    stage3=(inception(1, (1, 2), (1, 1), 1),),
    stage4=(Conv(4),),
    stage5=(GlobalAvgPool(),),
    head=Linear(10),
    norm=Norm(eps=1e-3, momentum=0.9),
)


def to_float32(arrays):
    """Round in place, as if the arithmetic's results were kept in float32."""
    for array in arrays.values():
        array[...] = array.astype(np.float32)


class Trainer(Textbook):
    """The reference's, with what only the training loop needs."""

    def __init__(self, model, recipe):
        super().__init__(model, recipe)
        self.stepped = self.evaluated = False

    def step(self, images, labels, flip_mask=None, share=1.0):
        inputs = self.prepare(images, flip_mask)
        right = (self.logits(images).argmax(1) == labels).sum()
        loss = self.update(inputs, labels)
        for arrays in (self.model.weights, *self.state.values()):
            to_float32(arrays)
        self.stepped = True
        return loss, right

    def logits(self, images):
        return self.model.forward(self.prepare(images))["head"]

    def evaluate(self, batches):
        loss = right = count = 0
        for images, labels in batches:
            logits = self.logits(images)
            loss += cross_entropy(logits, labels)[0] * len(labels)
            right += int((logits.argmax(1) == labels).sum())
            count += len(labels)
        self.evaluated = True
        return loss / count, right / count

    def places(self):
        cpu, none = {"cpu"}, set()
        found = {"parameters": cpu, "gradients": cpu if self.stepped else none}
        found["state"] = cpu if self.state else none
        if self.stepped:
            found |= {"batch": cpu, "outputs": cpu}
        return found | ({"evaluation": cpu} if self.evaluated else {})

    def read_state(self):
        return {
            slot: {name: array.astype(np.float32) for name, array in arrays.items()}
            for slot, arrays in self.state.items()
        }


def write_weights(model, weights):
    check(model.spec, weights)
    for name, array in weights.items():
        model.weights[name][...] = array


@pytest.fixture
def reference():
    """The reference as a backend on the CPU, whose weights and states are kept in float32."""
    return SimpleNamespace(
        VERSION="0.0",
        GoogLeNet=GoogLeNet,
        Trainer=Trainer,
        devices=lambda: ["cpu"],
        build=lambda spec, dtype, device: GoogLeNet(spec, draw(spec, 99)),
        fastest=lambda device: "float32" if device == "cpu" else "bfloat16",
        join=lambda device: (0, 1),
        leave=lambda: None,
        total=lambda numbers: numbers,
        out_of_memory=lambda error: str(error) == "no room on this GPU",
        read_weights=lambda m: {n: a.astype(np.float32) for n, a in m.weights.items()},
        write_weights=write_weights,
    )


@pytest.fixture
def pocket(monkeypatch):
    """The name of a spec of eight convolutions and 9 pixels, known while the test runs."""
    monkeypatch.setitem(spec.SPECS, POCKET.name, POCKET)
    return POCKET.name


@pytest.fixture
def pictures():
    """A data set of random images and labels, of so many for training and for testing."""

    def make(train, test, seed=0):
        random = np.random.RandomState(seed)
        images = random.randint(0, 256, (train + test, 1, 28, 28)).astype(np.uint8)
        labels = random.randint(0, 10, train + test).astype(np.int64)
        classes = tuple("abcdefghij")
        parts = images[:train], labels[:train], images[train:], labels[train:]
        return Dataset(*parts, classes, "noise")

    return make
