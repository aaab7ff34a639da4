"""The training loop runs on the device that was chosen, wholly, and never waits for the host.

On a machine without a GPU it runs on a simulated second device (see `backends.simulated`).
"""

import math
import re
import warnings
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import pytest
from steps import step_on_images

from backends import simulated
from backends.mutations import inject
from common.data.sources import load
from common.device import choose
from common.errors import DeviceError
from common.parity.mutations import INJECTED_BUGS
from common.parity.report import tensor_error
from common.recipe import Recipe
from common.training.checkpoint import Checkpoint, Config
from common.training.loop import TrainingLoop

STEPS, PARTS = 2, 2
RECIPE = Recipe(
    spec="mini",
    size=33,
    batch_size=8,
    epochs=1,
    lr=0.02,
    momentum=0.9,
    clip=1.0,  # the norm must not be read
    accumulate=PARTS,
)
PLACES = ["parameters", "gradients", "state", "batch", "outputs", "evaluation"]
DEVICE_BUGS = [bug.name for bug in INJECTED_BUGS.values() if bug.simulated]

#: where a run in mixed precision can be on the simulated device; why the others cannot
MIXED = ("torch", "tf")
REFUSED = {
    "mxnet": "MXNet 1.9.1 has bfloat16 on a CPU only",
    "paddle": "Paddle cannot compute in bfloat16 on simulated:0",
}


def start(backend, name, device, precision="float32"):
    """A run of two steps and an evaluation."""
    data = load("sample").limit(train=STEPS * RECIPE.batch_size, test=8)
    config = Config.of(replace(RECIPE, precision=precision), name, data)
    return TrainingLoop(backend, name, Checkpoint.first(config), data, device)


def assert_a_run_is_wholly_on(device, backend, name, precision, tolerance):
    """Every tensor of it, and it comes to the weights that it comes to on the CPU."""
    weights = {}
    for where in ("cpu", device):
        run = start(backend, name, where, precision)
        (epoch,) = run().epochs
        assert epoch.places == {what: [where] for what in PLACES}
        weights[where] = backend.read_weights(run.model)
    for tensor, array in weights["cpu"].items():
        # a bias in front of a norm has a gradient of rounding errors only
        assert tensor_error(weights[device][tensor], array, floor=0.1) < tolerance, tensor


def test_a_run_is_wholly_on_the_simulated_device(backend, name, simulated_device):
    assert_a_run_is_wholly_on(simulated_device, backend, name, "float32", 1e-4)


def test_a_run_in_mixed_precision_is_too_or_is_refused(backend, name, simulated_device):
    if name in MIXED:
        assert_a_run_is_wholly_on(simulated_device, backend, name, "bfloat16", 1e-3)
    else:
        with pytest.raises(DeviceError, match=f"{REFUSED[name]}.*--precision float32"):
            start(backend, name, simulated_device, "bfloat16")


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.5)])
def test_a_run_is_wholly_on_the_gpu(backend, name, gpu, precision, tolerance):
    if precision == "bfloat16" and name not in MIXED:
        with pytest.raises(DeviceError, match="--precision float32"):
            start(backend, name, "cpu" if name == "paddle" else gpu, precision)
    else:
        assert_a_run_is_wholly_on(gpu, backend, name, precision, tolerance)


@pytest.mark.parametrize("bug", DEVICE_BUGS)
def test_a_run_with_a_device_bug_fails(backend, name, second, bug):
    """In its first step, by the loop's check of devices or by the framework."""
    with inject(name, bug):
        run = start(backend, name, second)
        with pytest.raises((DeviceError, RuntimeError)) as caught:
            run()
    # the last is how PyTorch's convolution calls a tensor that is not on its GPU
    assert re.search(r"cpu|\(torch\.FloatTensor\)", str(caught.value))
    assert run.progress.steps <= 1


def test_a_step_never_waits_for_the_host(backend, name, simulated_device):
    assert copies_of_five_steps(backend, name, simulated_device) == 0


def test_a_step_that_waits_for_the_host_is_seen(backend, name, simulated_device):
    train_step = backend.Trainer.train_step

    def waiting(self, inputs, labels, weight=1.0, last=True):
        loss, correct = train_step(self, inputs, labels, weight, last)
        return float(loss), correct

    with mock.patch.object(backend.Trainer, "train_step", waiting):
        assert copies_of_five_steps(backend, name, simulated_device) == 5


def copies_of_five_steps(backend, name, device):
    """How often five steps after the first read a tensor on the host."""
    run = start(backend, name, device)
    (images, labels, *_), _ = next(run.train_batches(0, 0))
    step_on_images(backend, run.trainer, images, labels)
    before = simulated.copies(name)
    for step in range(5):
        run.trainer.set_step(0.01, step)
        step_on_images(backend, run.trainer, images, labels)
    return simulated.copies(name) - before


def test_an_epoch_reads_its_metrics_once_at_the_end_of_it(backend, name, simulated_device):
    run = start(backend, name, simulated_device)
    before, syncs = simulated.copies(name), []

    def noted(signum, sync_metrics=run.sync_metrics):
        came = simulated.copies(name)
        sync_metrics(signum)
        syncs.append((came - before, simulated.copies(name) - came))

    with mock.patch.object(run, "sync_metrics", noted):
        run()
    assert syncs == [(0, 2 * PARTS * STEPS)]  # of each part the loss and the number correct
    evaluation = 2  # its sums of the same
    assert simulated.copies(name) - before == 2 * PARTS * STEPS + evaluation


@pytest.mark.gpu
def test_a_step_never_waits_for_the_gpu(backend, name, gpu):
    if name != "torch":
        pytest.skip("PyTorch alone can refuse to wait for a GPU")
    import torch

    run = start(backend, name, gpu)
    (images, labels, *_), _ = next(run.train_batches(0, 0))
    for step in range(6):  # the first ones choose their kernels, the fourth replays a graph
        run.trainer.set_step(0.01, step)
        with refusing_to_wait(torch, step > 3):
            loss, _ = step_on_images(backend, run.trainer, images, labels)
    with pytest.raises(RuntimeError, match="synchronizing"), refusing_to_wait(torch, True):
        float(loss)


@contextmanager
def refusing_to_wait(torch, refusing):
    """PyTorch raises RuntimeError for what would make the host wait for the GPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this is a prototype
        torch.cuda.set_sync_debug_mode("error" if refusing else "default")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("spec", ["mini", "narrow", "mini-family"])
def test_replayed_steps_are_the_steps(backend, name, gpu, spec, parts):
    """A framework that captures its steps on a GPU does what it does without, batch by batch."""
    if name != "torch":
        pytest.skip("PyTorch alone captures its steps")
    # batches of 32, and 16 at the end: norms over few values turn an error of 1e-7 into 0.1
    recipe = replace(RECIPE, spec=spec, flip=True, label_smoothing=0.1, weight_decay=1e-3)
    recipe = replace(recipe, batch_size=32, accumulate=parts)
    data = load("sample").limit(train=112, test=8)
    weights = []
    for captured in (True, False):
        with mock.patch("backends.torch.graph.WARM", 2 if captured else math.inf):
            config = Config.of(replace(recipe, epochs=2), name, data)
            run = TrainingLoop(backend, name, Checkpoint.first(config), data, gpu)
            run()
            assert bool(run.trainer.passes.graphs) is captured
            weights.append(backend.read_weights(run.model))
    for tensor, array in weights[1].items():
        assert tensor_error(weights[0][tensor], array, floor=0.1) < 5e-3, tensor


@pytest.mark.gpu
def test_auto_takes_the_gpu(backend, gpu):
    assert choose("auto", backend.devices()) == gpu


def test_there_is_a_cpu_and_gpus_are_numbered(backend):
    """The simulated device is there too, and is never among them."""
    first, *gpus = backend.devices()
    assert first == "cpu"
    assert gpus == [f"gpu:{index}" for index in range(len(gpus))]


#: how each framework tells its GPUs, and what it answers where there are two
COUNTS = {
    "torch": ("torch.cuda.device_count", 2),
    "tf": ("tensorflow.config.list_physical_devices", ["one", "two"]),
    "mxnet": ("mxnet.context.num_gpus", 2),
    "paddle": ("paddle.device.cuda.device_count", 2),
}


def test_two_gpus_are_numbered_behind_the_cpu(backend, name):
    counter, answer = COUNTS[name]
    with mock.patch(counter, return_value=answer):
        assert backend.devices() == ["cpu", "gpu:0", "gpu:1"]


def test_a_gpu_that_is_not_there_is_an_error(backend):
    with pytest.raises(DeviceError, match=r"gpu:99 is not there: found cpu"):
        choose("gpu:99", backend.devices())


def test_the_simulated_device_starts_once(name, simulated_device):
    assert simulated.start(name) == simulated_device
