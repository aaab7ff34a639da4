"""The bugs of `common.plants` in Paddle's words."""

import atexit
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F

from backends.paddle import googlenet, train, weights
from common.errors import DeviceError
from common.plants import after, unbiased

DEVICE = "simulated"  #: the second device's name; never reported as a GPU


def missing_bias():
    to_native = weights.to_native

    def forgetful(name, array):
        return to_native(name, np.zeros_like(array) if name.endswith("conv.bias") else array)

    return mock.patch.object(weights, "to_native", forgetful)


def ceil_pool():
    return mock.patch.object(nn, "MaxPool2D", partial(nn.MaxPool2D, ceil_mode=True))


def same_padding():
    """Paddle's `'same'` with a stride pads as TensorFlow's does."""

    def change(self):
        if self.conv._stride == [2, 2]:
            self.conv._padding_algorithm = "SAME"

    return after(googlenet.Conv, "__init__", change)


def zero_padded_pool():
    def forward(self, x):
        (top, left) = self.padding
        return F.max_pool2d(F.pad(x, [left, left, top, top]), self.ksize, self.stride)

    return mock.patch.object(nn.MaxPool2D, "forward", forward)


def missing_relu():
    def change(self):
        self.branch3x3[0].relu = nn.Identity()

    return after(googlenet.Inception, "__init__", change)


def swapped_branches():
    def forward(self, x):
        branches = (self.branch1x1(x), self.branch3x3(x), self.branch_pool(x), self.branch5x5(x))
        return paddle.concat(branches, axis=1)

    return mock.patch.object(googlenet.Inception, "forward", forward)


def transposed_head():
    to_native, to_canonical = weights.to_native, weights.to_canonical

    def reshaped(name, array):
        return array.reshape(array.T.shape) if name == "head.weight" else to_native(name, array)

    def and_back(name, tensor):
        array = tensor.numpy()
        is_head = name == "head.weight"
        return array.reshape(array.T.shape) if is_head else to_canonical(name, tensor)

    return mock.patch.multiple(weights, to_native=reshaped, to_canonical=and_back)


def norm_eps():
    def change(self):
        self.norm._epsilon = 1e-5

    return after(googlenet.Conv, "__init__", change)


def double_softmax():
    cross_entropy = F.cross_entropy

    def wrong(logits, labels, **kwargs):
        return cross_entropy(F.softmax(logits), labels, **kwargs)

    return mock.patch.object(F, "cross_entropy", wrong)


def detached_branch():
    def forward(self, x):
        pooled = self.branch_pool(x.detach())
        branches = (self.branch1x1(x), self.branch3x3(x), self.branch5x5(x), pooled)
        return paddle.concat(branches, axis=1)

    return mock.patch.object(googlenet.Inception, "forward", forward)


def frozen_head():
    def change(self):
        head = {id(parameter) for parameter in self.model.head.parameters()}
        parameters = self.optimizer._parameter_list
        self.optimizer._parameter_list = [p for p in parameters if id(p) not in head]

    return after(train.Trainer, "__init__", change)


def gradient_twice():
    return mock.patch.object(paddle.optimizer.Momentum, "clear_grad", return_value=None)


def norm_momentum():
    def change(self):
        self.norm._momentum = 1 - self.norm._momentum

    return after(googlenet.Conv, "__init__", change)


def norm_variance():
    update = train.Trainer.update

    def wrong(self, inputs, labels):
        before = weights.read_weights(self.model)
        result = update(self, inputs, labels)
        now = weights.read_weights(self.model)
        spec = self.model.spec
        weights.write_weights(self.model, unbiased(spec, len(labels), before, now))
        return result

    return mock.patch.object(train.Trainer, "update", wrong)


def wrong_device():
    """A simulated device is the wrong one; see `environment`."""
    update = train.Trainer.update

    def wrong(self, inputs, labels):
        return update(self, paddle.to_tensor(inputs, place=paddle.CustomPlace(DEVICE, 0)), labels)

    return mock.patch.object(train.Trainer, "update", wrong)


def environment():
    """What the process that plants `wrong_device` must be started with: Paddle loads devices once.

    Compiles `simulated_device.cc` into a folder that lasts as long as this process.
    """
    folder = Path(tempfile.mkdtemp(prefix="googlenet-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    source = Path(__file__).with_name("simulated_device.cc")
    command = ["g++", "-shared", "-fPIC", "-std=c++17", "-I", paddle.sysconfig.get_include()]
    try:
        library = folder / f"libpaddle-{DEVICE}.so"
        subprocess.run([*command, source, "-o", library], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise DeviceError(
            "Paddle's simulated device needs a C++17 compiler named g++: install one."
        ) from error
    return {"CUSTOM_DEVICE_ROOT": str(folder)}
