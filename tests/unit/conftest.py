"""What several unit tests need: the reference as a backend, a spec that runs in no time."""

from types import SimpleNamespace

import numpy as np
import pytest

from backends import numpy
from backends.numpy import GoogLeNet
from common import spec
from common.data.dataset import Dataset
from common.spec import Conv, GlobalAvgPool, Linear, MaxPool, Norm, Spec, inception
from common.weights import draw

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


@pytest.fixture
def reference():
    """The reference as a backend whose weights and states are kept in float32."""
    exported = {name: value for name, value in vars(numpy).items() if not name.startswith("__")}
    return SimpleNamespace(
        **exported
        | {
            "VERSION": "0.0",
            "build": lambda spec, dtype, device: GoogLeNet(spec, draw(spec, 99), "float32"),
            "fastest_precision": lambda device: "float32" if device == "cpu" else "bfloat16",
            "out_of_memory": lambda error: str(error) == "no room on this GPU",
        }
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
