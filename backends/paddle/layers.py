"""Layers that Paddle lacks, or has with another meaning.

Paddle's average pools divide in float32 even in float64: the gradient of the mean of 3x3 pixels is
off by 7e-9 of its value. `mean` divides in the tensor's dtype.
"""

from collections.abc import Sequence

import paddle
from paddle import Tensor, nn

from common.spec import Size, pair

CHANNELS, HEIGHT, WIDTH = 1, 2, 3  # the axes of NCHW


class BatchNorm(nn.BatchNorm2D):
    """Batch norm; in training Paddle's own passes a channel of one value through unchanged."""

    def forward(self, x: Tensor) -> Tensor:
        single = self.training and x.shape[0] * x.shape[HEIGHT] * x.shape[WIDTH] == 1
        y = super().forward(paddle.concat((x, x)) if single else x)  # of two equal ones the same
        return y[:1] if single else y


class AvgPool(nn.Layer):
    """The mean of each window, (N, C, H, W) in and out; nothing is padded, no window is cut."""

    def __init__(self, kernel: Size, stride: Size):
        super().__init__()
        self.axes = list(zip((HEIGHT, WIDTH), pair(kernel), pair(stride), strict=True))

    def forward(self, x: Tensor) -> Tensor:
        for axis, kernel, stride in self.axes:
            places = x.shape[axis] - kernel + 1  # where a window may begin
            pixels = [
                paddle.strided_slice(x, [axis], [i], [i + places], [stride]) for i in range(kernel)
            ]
            x = paddle.stack(pixels).mean(0)
        return x


class AdaptiveAvgPool(nn.Layer):
    """The means of `size` windows over the whole image: (N, C, H, W) to (N, C, *size)."""

    def __init__(self, size: Size):
        super().__init__()
        self.axes = list(zip((HEIGHT, WIDTH), pair(size), strict=True))

    def forward(self, x: Tensor) -> Tensor:
        for axis, count in self.axes:
            length = x.shape[axis]
            ends = [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]
            windows = [paddle.slice(x, [axis], [first], [end]) for first, end in ends]
            x = paddle.concat([window.mean(axis, keepdim=True) for window in windows], axis)
        return x


class GlobalAvgPool(nn.Layer):
    """The mean over height and width: (N, C, H, W) to (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((HEIGHT, WIDTH))


class Affine(nn.Layer):
    """x * scale + shift with constants, one pair for each channel: (N, C, H, W) to the same."""

    def __init__(self, scale: Sequence[float], shift: Sequence[float]):
        super().__init__()
        self.scale, self.shift = list(scale), list(shift)

    def forward(self, x: Tensor) -> Tensor:
        channels = [x[:, i] * scale + self.shift[i] for i, scale in enumerate(self.scale)]
        return paddle.stack(channels, CHANNELS)
