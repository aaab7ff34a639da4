"""The injected bugs of `common.parity.mutations` in TensorFlow's words."""

from unittest import mock

import keras
import numpy as np
import tensorflow as tf

from backends import tf as tf_backend
from backends.mutations.helpers import after, both, unbiased
from backends.tf import googlenet, layers, optimizers, train, weights


def missing_bias():
    to_native = weights.to_native

    def forgetful(name, array):
        return to_native(name, np.zeros_like(array) if name.endswith("conv.bias") else array)

    return mock.patch.object(weights, "to_native", forgetful)


def ceil_pool():
    """TensorFlow has no such option: one more row and column of padding does it on even sizes."""

    def change(self):
        if self.stride == (2, 2):
            (top, bottom), (left, right) = self.margins
            self.margins = [(top, bottom + 1), (left, right + 1)]

    return after(layers.MaxPool, "__init__", change)


def same_padding():
    def change(self):
        if self.conv.strides == (2, 2):
            self.pad.padding = ((0, 0), (0, 0))
            self.conv.padding = "same"

    return after(googlenet.Conv, "__init__", change)


def zero_padded_pool():
    def call(self, x):
        x = tf.pad(x, [(0, 0), *self.margins, (0, 0)])
        return tf.nn.max_pool2d(x, self.kernel, self.stride, "VALID")

    return mock.patch.object(layers.MaxPool, "call", call)


def missing_relu():
    def change(self):
        self.branch3x3.layers[0].relu = keras.layers.Identity(dtype=self.dtype_policy)

    return after(googlenet.Inception, "__init__", change)


def swapped_branches():
    def call(self, x):
        branches = (self.branch1x1(x), self.branch3x3(x), self.branch_pool(x), self.branch5x5(x))
        return self.concatenate(branches)

    return mock.patch.object(googlenet.Inception, "call", call)


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
    def call(self, x):
        x = self.flatten(self.conv(self.pool(x)))
        return self.head(self.dropout(self.relu(self.hidden(x))))

    return mock.patch.object(googlenet.Auxiliary, "call", call)


def counted_padding():
    def change(self):
        if self.stride == (1, 1) and self.padding == (1, 1):
            self.pad.padding, self.pool.padding = ((0, 0), (0, 0)), "same"

    return after(layers.AvgPool, "__init__", change)


def swapped_forks():
    def call(self, x):
        return self.concatenate([branch(x) for branch in reversed(self.branches)])

    return mock.patch.object(googlenet.Branches, "call", call)


def unscaled_residual():
    def change(self):
        self.scale = 1.0

    return after(googlenet.Residual, "__init__", change)


def local_norm_alpha():
    """That of `tf.nn.local_response_normalization`."""

    def change(self):
        self.alpha *= self.size

    return after(layers.LocalNorm, "__init__", change)


def norm_eps():
    def change(self):
        self.norm.epsilon = 1e-5

    return after(googlenet.Conv, "__init__", change)


def double_softmax():
    cross_entropy = train.cross_entropy

    def wrong(logits, labels, smoothing=0.0):
        return cross_entropy(tf.nn.softmax(logits), labels, smoothing)

    return mock.patch.object(train, "cross_entropy", wrong)


def detached_branch():
    def call(self, x):
        pooled = self.branch_pool(tf.stop_gradient(x))
        branches = (self.branch1x1(x), self.branch3x3(x), self.branch5x5(x), pooled)
        return self.concatenate(branches)

    return mock.patch.object(googlenet.Inception, "call", call)


def frozen_head():
    init = train.Trainer.__init__

    def without_head(self, model, recipe):
        model.head.trainable = False
        init(self, model, recipe)

    return mock.patch.object(train.Trainer, "__init__", without_head)


def gradient_twice():
    """A tape never adds gradients up; whoever reduces them before `apply` does it twice."""
    apply = keras.optimizers.SGD.apply

    def twice(self, gradients):
        return apply(self, [gradient + gradient for gradient in gradients])

    return mock.patch.object(keras.optimizers.SGD, "apply", twice)


def norm_momentum():
    def change(self):
        self.norm.momentum = 1 - self.norm.momentum

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
    place, prepare = tf_backend.place, train.Trainer.prepare

    def left(model, x):
        with tf.device("/CPU:0"):
            return tf.identity(place(model, x))

    def prepared(self, *args):
        with tf.device("/CPU:0"):
            return tf.identity(prepare(self, *args))

    return both(
        mock.patch.object(tf_backend, "place", left),
        mock.patch.object(train.Trainer, "prepare", prepared),
    )


def labels_not_moved():
    def left(model, labels):
        with tf.device("/CPU:0"):
            return tf.constant(labels)

    return both(
        mock.patch.object(tf_backend, "place_labels", left),
        mock.patch.object(train, "place_labels", left),
    )


def model_not_moved():
    """Variables stay where they are made, so the model is made on the wrong device."""
    build = tf_backend.build

    def wrong(spec, dtype, device):
        return build(spec, dtype, "cpu")

    return mock.patch.object(tf_backend, "build", wrong)


def optimizer_before_move():
    make = optimizers.make

    def early(model, recipe):
        with tf.device("/CPU:0"):
            return make(model, recipe)

    return mock.patch.object(optimizers, "make", early)


def silent_fallback():
    def wrong(device):
        return tf.device("/CPU:0")

    return mock.patch.object(train, "native_device", wrong)
