"""Layers that Keras lacks, or has with another meaning."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from keras import layers
from tensorflow import Tensor

from backends.tf.saving import Shape, serialisable
from common.spec import Size, pair

BATCH, HEIGHT, WIDTH, CHANNELS = range(4)  # the axes of NHWC


@serialisable
class MaxPool(layers.Layer):
    """Max pooling with a padding of minus infinity: (N, H, W, C) to (N, H', W', C).

    `ceil` rounds the number of windows up. Keras pools pad only as `'same'`; TensorFlow's with
    explicit padding are not oneDNN's, and slow.
    """

    def __init__(self, kernel: Size, stride: Size, padding: Size, ceil: bool, **kwargs: Any):
        super().__init__(**kwargs)
        self.kernel, self.stride = as_pair(kernel), as_pair(stride)
        self.padding, self.ceil = as_pair(padding), ceil
        # a stride less 1 behind the image rounds the windows up
        behind = [p + (s - 1) * ceil for p, s in zip(self.padding, self.stride, strict=True)]
        self.margins = list(zip(self.padding, behind, strict=True))
        self.mode = "SAME" if centred(self.kernel, self.stride, self.padding) else "VALID"

    def call(self, x: Tensor) -> Tensor:
        if self.mode == "VALID":
            x = tf.pad(x, [(0, 0), *self.margins, (0, 0)], constant_values=x.dtype.min)
        return tf.nn.max_pool2d(x, self.kernel, self.stride, self.mode)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, *sides, channels = input_shape
        windows = zip(sides, self.margins, self.kernel, self.stride, strict=True)
        sides = [side and (side + sum(m) - k) // s + 1 for side, m, k, s in windows]
        return batch, *sides, channels

    def get_config(self) -> dict[str, Any]:
        names = ("kernel", "stride", "padding", "ceil")
        return super().get_config() | {name: getattr(self, name) for name in names}


@serialisable
class AvgPool(layers.Layer):
    """Average pooling: (N, H, W, C) to (N, H', W', C); `counted`: the padding counts in the mean.

    Keras pools pad only as `'same'`, and leave that padding out of the mean.
    """

    def __init__(self, kernel: Size, stride: Size, padding: Size, counted: bool, **kwargs: Any):
        super().__init__(**kwargs)
        self.kernel, self.stride = as_pair(kernel), as_pair(stride)
        self.padding, self.counted = as_pair(padding), counted
        own = {"dtype": self.dtype_policy.name}
        self.pad = layers.ZeroPadding2D(self.padding if counted else (0, 0), **own)
        mode = "valid" if counted else "same"
        self.pool = layers.AveragePooling2D(self.kernel, self.stride, mode, **own)

    def call(self, x: Tensor) -> Tensor:
        return self.pool(self.pad(x))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return self.pool.compute_output_shape(self.pad.compute_output_shape(input_shape))

    def get_config(self) -> dict[str, Any]:
        names = ("kernel", "stride", "padding", "counted")
        return super().get_config() | {name: getattr(self, name) for name in names}


@serialisable
class AdaptiveAvgPool(layers.Layer):
    """The means of (height, width) windows over the whole image: (N, H, W, C) to (N, *size, C).

    Keras's own must know the image size when it is traced; here windows are rows of a matrix.
    """

    def __init__(self, size: Size, **kwargs: Any):
        super().__init__(**kwargs)
        self.size = as_pair(size)

    def call(self, x: Tensor) -> Tensor:
        x = tf.einsum("rh,nhwc->nrwc", self.windows(tf.shape(x)[HEIGHT], self.size[0]), x)
        return tf.einsum("sw,nrwc->nrsc", self.windows(tf.shape(x)[WIDTH], self.size[1]), x)

    def windows(self, length: Tensor, count: int) -> Tensor:
        """The share of every pixel in every window's mean: (count, length)."""
        first = tf.range(count) * length // count
        behind = -(-tf.range(1, count + 1) * length // count)
        pixel = tf.range(length)
        inside = (first[:, None] <= pixel) & (pixel < behind[:, None])
        share = tf.cast(inside, self.compute_dtype)
        return share / tf.cast(behind - first, self.compute_dtype)[:, None]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape[BATCH], *self.size, input_shape[CHANNELS]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"size": self.size}


@serialisable
class LocalNorm(layers.Layer):
    """x / (k + alpha / size * the sum of `size` squares along the channels) ** beta.

    `tf.nn.local_response_normalization` does not divide alpha, and has no float64.
    """

    def __init__(self, size: int, alpha: float, beta: float, k: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def call(self, x: Tensor) -> Tensor:
        channels, side = x.shape[CHANNELS], self.size // 2
        squares = tf.pad(x * x, [(0, 0), (0, 0), (0, 0), (side, side)])
        total = sum(squares[..., first : first + channels] for first in range(self.size))
        return x / (self.k + self.alpha / self.size * total) ** self.beta

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        names = ("size", "alpha", "beta", "k")
        return super().get_config() | {name: getattr(self, name) for name in names}


@serialisable
class Affine(layers.Layer):
    """x * scale + shift with constants, one pair for each channel: (N, H, W, C) to the same.

    Keras's `Rescaling` rounds its numbers to float32.
    """

    def __init__(self, scale: Sequence[float], shift: Sequence[float], **kwargs: Any):
        super().__init__(**kwargs)
        self.scale, self.shift = tuple(scale), tuple(shift)

    def call(self, x: Tensor) -> Tensor:
        channels = zip(tf.unstack(x, axis=CHANNELS), self.scale, self.shift, strict=True)
        return tf.stack([channel * a + b for channel, a, b in channels], CHANNELS)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"scale": self.scale, "shift": self.shift}


def as_pair(size: Size) -> tuple[int, int]:
    """`size` as (height, width); Keras's files hold a list."""
    return pair(tuple(size) if isinstance(size, list) else size)


def centred(kernel: Size, stride: Size, padding: Size) -> bool:
    """Whether `'same'` gives this padding: then no layer that pads is needed, which is slower."""
    return pair(stride) == (1, 1) and pair(kernel) == tuple(p + 1 + p for p in pair(padding))
