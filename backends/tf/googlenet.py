"""GoogLeNet in TensorFlow: the network of a spec as Keras layers.

Source: d2l, section GoogLeNet. Keras's conventions: NHWC; a layer learns its incoming channels from
its first input; the mode is the argument `training` of a call.
"""

import keras
import tensorflow as tf
from keras import layers

from common import spec as rows

BATCH, HEIGHT, WIDTH, CHANNELS = range(4)


class MaxPool(layers.Layer):
    """Keras pools pad only as `'same'`; TensorFlow's, if told how, are not oneDNN's, and slow."""

    def __init__(self, row):
        super().__init__()
        self.kernel, self.stride = row.kernel, row.stride
        # a stride less 1 behind the image rounds the windows up
        aux_logits = [
            [p, p + (s - 1) * row.ceil] for p, s in zip(row.padding, row.stride, strict=True)
        ]
        self.padding, self.mode = [[0, 0], *aux_logits, [0, 0]], "SAME" if centred(row) else "VALID"

    def call(self, x):
        if self.mode == "VALID":
            x = tf.pad(x, self.padding, constant_values=x.dtype.min)
        return tf.nn.max_pool2d(x, self.kernel, self.stride, self.mode)


class AdaptiveAvgPool(layers.Layer):
    """Keras's own must know the image size when it is traced; here windows are rows of a matrix."""

    def __init__(self, row):
        super().__init__()
        self.size = row.size

    def call(self, x):
        x = tf.einsum("rh,nhwc->nrwc", self.windows(tf.shape(x)[HEIGHT], self.size[0]), x)
        return tf.einsum("sw,nrwc->nrsc", self.windows(tf.shape(x)[WIDTH], self.size[1]), x)

    def windows(self, length, count):
        """The share of every pixel in every window's mean: (count, length)."""
        first = tf.range(count) * length // count
        behind = -(-tf.range(1, count + 1) * length // count)
        pixel = tf.range(length)
        inside = (first[:, None] <= pixel) & (pixel < behind[:, None])
        share = tf.cast(inside, self.compute_dtype)
        return share / tf.cast(behind - first, self.compute_dtype)[:, None]


class Affine(layers.Layer):
    """x * scale + shift with the row's constants; Keras's `Rescaling` rounds them to float32."""

    def __init__(self, row):
        super().__init__()
        self.scale, self.shift = row.scale, row.shift

    def call(self, x):
        channels = zip(tf.unstack(x, axis=CHANNELS), self.scale, self.shift, strict=True)
        return tf.stack([channel * a + b for channel, a, b in channels], CHANNELS)


class Conv(layers.Layer):
    """Convolution, norm if the network has one, ReLU unless the row has none."""

    def __init__(self, row, norm):
        super().__init__()
        self.pad = None if centred(row) else layers.ZeroPadding2D(row.padding)
        mode = "valid" if self.pad else "same"  # with a stride 'same' would pad off centre
        self.conv = layers.Conv2D(row.width, row.kernel, row.stride, mode, use_bias=row.bias)
        self.norm = layers.BatchNormalization(CHANNELS, norm.momentum, norm.eps) if norm else None
        self.relu = layers.ReLU() if row.activation else None

    def call(self, x, training=False):
        x = self.conv(self.pad(x) if self.pad else x)
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


class Auxiliary(layers.Layer):
    """A side classifier: (N, H, W, C) in, logits (N, classes) out."""

    def __init__(self, row, spec):
        super().__init__()
        self.after = row.after
        self.pool = layer(row.pool, spec.norm)
        self.conv = Conv(row.conv, spec.norm)
        self.flatten = layers.Reshape((row.features,))
        self.hidden = layers.Dense(row.hidden.width)
        self.relu = layers.ReLU() if row.hidden.activation else layers.Identity()
        self.dropout = layers.Dropout(row.dropout)
        self.head = layers.Dense(spec.head.width)

    def call(self, x):
        x = keras.ops.moveaxis(self.conv(self.pool(x)), CHANNELS, 1)  # the order of the features
        x = self.flatten(x)
        return self.head(self.dropout(self.relu(self.hidden(x))))


class GoogLeNet(keras.Model):
    """The network of `spec`: (N, H, W, C) in, logits (N, classes) out; shapes are d2l's at 96.

    With auxiliary heads, a tuple: the logits, then those of each of them.
    """

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
        self.auxiliary = [Auxiliary(row, spec) for row in spec.auxiliary]

    def call(self, x):
        x = self.stage3(self.stage2(self.stage1(x)))
        x, aux_logits = run_stage(self.stage4, self.auxiliary, x)
        logits = self.head(self.dropout(self.stage5(x)))
        return (logits, *aux_logits) if aux_logits else logits


def run_stage(stage, heads, x, **mode):
    """The stage's output, and those of the auxiliary heads on its rows."""
    aux_logits = []
    for index, block in enumerate(stage.layers):
        x = block(x, **mode)
        aux_logits += [head(x, **mode) for head in heads if head.after == index]
    stage.built = True  # now its layers are, and it was never called itself
    return x, aux_logits


def centred(row):
    """Whether `'same'` pads as the row says: only with stride 1, and faster than zeros in front."""
    return row.stride == (1, 1) and row.kernel == tuple(p + 1 + p for p in row.padding)


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
        case rows.AvgPool():
            return layers.AveragePooling2D(row.kernel, row.stride)
        case rows.AdaptiveAvgPool():
            return AdaptiveAvgPool(row)
        case rows.Affine():
            return Affine(row)
