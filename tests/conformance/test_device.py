"""The training loop runs on the device that was chosen."""

import numpy as np
import pytest

from common.device import choose
from common.errors import DeviceError
from common.plants import SMALL_BN
from common.recipe import Recipe
from common.weights import draw


def places_after_two_steps(backend, device):
    """Where everything lies after two steps of the training loop with momentum."""
    model = backend.build(SMALL_BN.at(size=33), "float32", device)
    backend.write_weights(model, draw(SMALL_BN, 0))
    trainer = backend.Trainer(model, Recipe(momentum=0.9))
    images = np.random.RandomState(0).randint(0, 256, (4, 1, 28, 28)).astype(np.uint8)
    for _ in range(2):
        trainer.step(images, np.arange(4))
    return trainer.places()


def assert_all_on(device, places):
    assert list(places) == ["parameters", "gradients", "state", "batch", "outputs"]
    for what, devices in places.items():
        assert devices == {device}, what  # an empty set would mean that nothing was looked at


def test_two_steps_leave_everything_on_the_cpu(backend):
    assert_all_on("cpu", places_after_two_steps(backend, "cpu"))


@pytest.mark.gpu
def test_two_steps_leave_everything_on_the_gpu(backend, gpu):
    assert_all_on(gpu, places_after_two_steps(backend, gpu))


@pytest.mark.gpu
def test_auto_takes_the_gpu(backend, gpu):
    assert choose("auto", backend.devices()) == gpu


def test_there_is_a_cpu_and_gpus_are_numbered(backend):
    first, *gpus = backend.devices()
    assert first == "cpu"
    assert gpus == [f"gpu:{index}" for index in range(len(gpus))]


def test_a_gpu_that_is_not_there_is_an_error(backend):
    with pytest.raises(DeviceError, match=r"gpu:99 is not there: found cpu"):
        choose("gpu:99", backend.devices())
