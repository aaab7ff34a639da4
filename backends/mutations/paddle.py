"""The bugs of `common.parity.mutations` in Paddle's words."""

from unittest import mock

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F

from backends import paddle as paddle_backend
from backends.mutations.helpers import after, both, unbiased
from backends.paddle import googlenet, layers, train, weights


def missing_bias():
    to_native = weights.to_native

    def forgetful(name, array):
        return to_native(name, np.zeros_like(array) if name.endswith("conv.bias") else array)

    return mock.patch.object(weights, "to_native", forgetful)


def ceil_pool():
    pool = nn.MaxPool2D

    def rounded_up(*window, ceil_mode):
        return pool(*window, ceil_mode=True)

    return mock.patch.object(nn, "MaxPool2D", rounded_up)


def same_padding():
    """Paddle's `'same'` with a stride pads as TensorFlow's does."""

    def change(self):
        if self.conv._stride == [2, 2]:
            self.conv._padding = self.conv._padding_algorithm = "SAME"

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


def flatten_order():
    def forward(self, x):
        x = self.conv(self.pool(x)).transpose((0, 2, 3, 1)).flatten(1)
        return self.head(self.dropout(self.relu(self.hidden(x))))

    return mock.patch.object(googlenet.Auxiliary, "forward", forward)


def counted_padding():
    """Paddle's own average pools leave the padding out unless an option counts it."""

    def change(self):
        self.counted = False

    return after(layers.AvgPool, "__init__", change)


def swapped_forks():
    def forward(self, x):
        return paddle.concat([branch(x) for branch in reversed(list(self.branches))], axis=1)

    return mock.patch.object(googlenet.Branches, "forward", forward)


def unscaled_residual():
    def change(self):
        self.scale = 1.0

    return after(googlenet.Residual, "__init__", change)


def local_norm_alpha():
    def change(self):
        self.alpha *= self.size

    return after(layers.LocalNorm, "__init__", change)


def norm_eps():
    def change(self):
        self.norm._epsilon = 1e-5

    return after(googlenet.Conv, "__init__", change)


def double_softmax():
    cross_entropy = train.cross_entropy

    def wrong(logits, labels, smoothing=0.0):
        return cross_entropy(F.softmax(logits), labels, smoothing)

    return mock.patch.object(train, "cross_entropy", wrong)


def detached_branch():
    def forward(self, x):
        pooled = self.branch_pool(x.detach())
        branches = (self.branch1x1(x), self.branch3x3(x), self.branch5x5(x), pooled)
        return paddle.concat(branches, axis=1)

    return mock.patch.object(googlenet.Inception, "forward", forward)


def frozen_head():
    def change(self):
        head = {id(parameter) for parameter in self.model.head.parameters()}
        for group in self.optimizer._param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in head]

    return after(train.Trainer, "__init__", change)


def gradient_twice():
    return mock.patch.object(paddle.optimizer.Optimizer, "clear_grad", return_value=None)


def norm_momentum():
    def change(self):
        self.norm._momentum = 1 - self.norm._momentum

    return after(googlenet.Conv, "__init__", change)


def norm_variance():
    train_step = train.Trainer.train_step

    def wrong(self, inputs, labels, weight=1.0, last=True):
        before = weights.read_weights(self.model)
        result = train_step(self, inputs, labels, weight, last)
        now = weights.read_weights(self.model)
        spec = self.model.spec
        weights.write_weights(self.model, unbiased(spec, len(labels), before, now))
        return result

    return mock.patch.object(train.Trainer, "train_step", wrong)


def batch_not_moved():
    place, prepare = paddle_backend.place, train.Trainer.prepare

    def left(model, x):
        return place(model, x).cpu()

    def prepared(self, *args):
        return prepare(self, *args).cpu()

    return both(
        mock.patch.object(paddle_backend, "place", left),
        mock.patch.object(train.Trainer, "prepare", prepared),
    )


def labels_not_moved():
    def left(model, labels):
        return paddle.to_tensor(labels, place="cpu")

    return both(
        mock.patch.object(paddle_backend, "place_labels", left),
        mock.patch.object(train, "place_labels", left),
    )


def model_not_moved():
    """Before the first step: a step moves the parameters back in silence."""

    def change(self):
        self.model.to("cpu")

    return after(train.Trainer, "__init__", change)


def optimizer_before_move():
    init = train.Trainer.__init__

    def early(self, model, recipe):
        device = train.device_name(model.head.weight)
        init(self, model.to("cpu"), recipe)
        model.to(device)
        paddle.set_device(device)

    return mock.patch.object(train.Trainer, "__init__", early)


def silent_fallback():
    build = paddle_backend.build

    def wrong(spec, dtype, device):
        return build(spec, dtype, "cpu")

    return mock.patch.object(paddle_backend, "build", wrong)
