"""Layers that Paddle lacks, or has with another meaning.

Paddle's average pools divide in float32 even in float64: the gradient of the mean of 3x3 pixels is
off by 7e-9 of its value. `mean` divides in the tensor's dtype.
"""

import math
from collections.abc import Sequence

import paddle
from paddle import Tensor, nn

from common.spec import Size, pair

CHANNELS, HEIGHT, WIDTH = 1, 2, 3  # the axes of NCHW


class BatchNorm(nn.BatchNorm2D):
    """Batch norm; in training Paddle's own passes a channel of one value through unchanged."""

    def forward(self, x: Tensor) -> Tensor:
        single = self.training and x.shape[0] * x.shape[HEIGHT] * x.shape[WIDTH] == 1
        # two equal values have the mean and variance of the one
        y = super().forward(paddle.concat((x, x)) if single else x)
        return y[:1] if single else y


class AvgPool(nn.Layer):
    """The mean of each window, (N, C, H, W) in and out; no window is cut.

    `counted`: the zeros of the padding count in the mean.
    """

    def __init__(self, kernel: Size, stride: Size, padding: Size, counted: bool):
        super().__init__()
        sides = (HEIGHT, WIDTH), pair(kernel), pair(stride)
        self.axes, self.counted = list(zip(*sides, strict=True)), counted
        (top, left) = pair(padding)
        self.margins = [left, left, top, top]

    def forward(self, x: Tensor) -> Tensor:
        total = self.total(x)
        if self.counted:
            return total / math.prod(kernel for _, kernel, _ in self.axes)
        return total / self.total(paddle.ones_like(x))

    def total(self, x: Tensor) -> Tensor:
        """The sum of each window."""
        if any(self.margins):
            x = nn.functional.pad(x, self.margins)
        for axis, kernel, stride in self.axes:
            places = x.shape[axis] - kernel + 1  # where a window may begin
            pixels = [
                paddle.strided_slice(x, [axis], [i], [i + places], [stride]) for i in range(kernel)
            ]
            x = paddle.stack(pixels).sum(0)
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


class LocalNorm(nn.Layer):
    """x / (k + alpha / size * the sum of `size` squares along the channels) ** beta.

    Paddle's own uses its average pool, so its gradient is off in float64.
    """

    def __init__(self, size: int, alpha: float, beta: float, k: float):
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Tensor) -> Tensor:
        channels, side = x.shape[CHANNELS], self.size // 2
        squares = nn.functional.pad(x * x, [0, 0, side, side, 0, 0, 0, 0])  # axis by axis
        total = sum(squares[:, first : first + channels] for first in range(self.size))
        return x / (self.k + self.alpha / self.size * total) ** self.beta


class Affine(nn.Layer):
    """x * scale + shift with constants, one pair for each channel: (N, C, H, W) to the same."""

    def __init__(self, scale: Sequence[float], shift: Sequence[float]):
        super().__init__()
        self.scale, self.shift = list(scale), list(shift)

    def forward(self, x: Tensor) -> Tensor:
        channels = [x[:, i] * scale + self.shift[i] for i, scale in enumerate(self.scale)]
        return paddle.stack(channels, CHANNELS)
