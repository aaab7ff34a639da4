"""GoogLeNet in TensorFlow: the network of a spec as Keras layers.

Source: d2l, section GoogLeNet. Keras's conventions: NHWC; a layer learns its incoming channels from
its first input; the mode is the argument `training` of a call.
"""

import keras
import tensorflow as tf
from keras import layers

from common import spec as rows

CHANNELS = -1  # the axis of NHWC


class MaxPool(layers.Layer):
    """Keras pools pad only as `'same'`, which is off centre on even sizes; here padding is told."""

    def __init__(self, row):
        super().__init__()
        (top, left) = row.padding
        self.kernel, self.stride = row.kernel, row.stride
        self.padding = [[0, 0], [top, top], [left, left], [0, 0]]  # counts as minus infinity

    def call(self, x):
        return tf.nn.max_pool2d(x, self.kernel, self.stride, self.padding)


class Conv(layers.Layer):
    """Convolution, norm if the network has one, ReLU unless the row has none."""

    def __init__(self, row, norm):
        super().__init__()
        self.pad = layers.ZeroPadding2D(row.padding)  # 'same' with a stride would pad off centre
        self.conv = layers.Conv2D(row.width, row.kernel, row.stride)
        self.norm = layers.BatchNormalization(CHANNELS, norm.momentum, norm.eps) if norm else None
        self.relu = layers.ReLU() if row.activation else None

    def call(self, x, training=False):
        x = self.conv(self.pad(x))
        x = self.norm(x, training=training) if self.norm else x
        return self.relu(x) if self.relu else x


class Inception(layers.Layer):
    """Four branches over the same input, joined along the channels."""

    def __init__(self, row, norm):
        super().__init__()
        self.branch1x1 = sequential(row.branch1x1, norm)
        self.branch3x3 = sequential(row.branch3x3, norm)
        self.branch5x5 = sequential(row.branch5x5, norm)
        self.branch_pool = sequential(row.branch_pool, norm)
        self.concatenate = layers.Concatenate(axis=CHANNELS)

    def call(self, x):
        return self.concatenate(
            (self.branch1x1(x), self.branch3x3(x), self.branch5x5(x), self.branch_pool(x))
        )


class GoogLeNet(keras.Model):
    """The network of `spec`: (N, H, W, C) in, logits (N, classes) out; shapes are d2l's at 96."""

    def __init__(self, spec):
        super().__init__()
        self.spec = spec
        self.stage1 = sequential(spec.stage1, spec.norm)  # (N, 24, 24, 64)
        self.stage2 = sequential(spec.stage2, spec.norm)  # (N, 12, 12, 192)
        self.stage3 = sequential(spec.stage3, spec.norm)  # (N, 6, 6, 480)
        self.stage4 = sequential(spec.stage4, spec.norm)  # (N, 3, 3, 832)
        self.stage5 = sequential(spec.stage5, spec.norm)  # (N, 1024)
        self.dropout = layers.Dropout(spec.dropout)
        self.head = layers.Dense(spec.head.width)  # (N, 10)

    def call(self, x):
        x = self.stage2(self.stage1(x))
        x = self.stage5(self.stage4(self.stage3(x)))
        return self.head(self.dropout(x))


def sequential(table, norm):
    """The rows of a stage or branch, one native layer after the other."""
    return keras.Sequential([layer(row, norm) for row in table])


def layer(row, norm):
    """The native layer of one row of the spec."""
    match row:
        case rows.Conv():
            return Conv(row, norm)
        case rows.MaxPool():
            return MaxPool(row)
        case rows.Inception():
            return Inception(row, norm)
        case rows.GlobalAvgPool():
            return layers.GlobalAveragePooling2D()
