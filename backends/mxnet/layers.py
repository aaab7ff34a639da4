"""Layers that Gluon lacks, or has with another meaning; and the initial weights."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import mxnet as mx
from mxnet import np
from mxnet.gluon import nn

from common.spec import Size

Tensor = Any  #: an array of mxnet.np, or a symbol while Gluon makes a graph


class BatchNorm(nn.BatchNorm):
    """Batch norm that keeps the biased running variance; cuDNN's keeps the unbiased one."""

    def __init__(self, momentum: float, epsilon: float, **names: Any):
        super().__init__(momentum=momentum, epsilon=epsilon, **names)
        self._kwargs["cudnn_off"] = True  # of the operation; Gluon's block does not pass it on


class AdaptiveAvgPool(nn.HybridBlock):
    """The means of (height, width) windows over the image: (N, C, H, W) to (N, C, h, w).

    Gluon has the operation and no block for it, and not among its NumPy operations.
    """

    def __init__(self, size: Size, **names: Any):
        super().__init__(**names)
        self.size = size

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        x = F.contrib.AdaptiveAvgPooling2D(x.as_nd_ndarray(), output_size=self.size)
        return x.as_np_ndarray()


class LocalNorm(nn.HybridBlock):
    """x / (k + alpha * the mean of `size` squares along the channels) ** beta.

    MXNet's own `LRN` has no float64. The mean is that of a pool over the channels as a third side
    of the image, in which the padding counts.
    """

    def __init__(self, size: int, alpha: float, beta: float, k: float, **names: Any):
        super().__init__(**names)
        self.alpha, self.beta, self.k = alpha, beta, k
        self.mean = nn.AvgPool3D((size, 1, 1), 1, (size // 2, 0, 0))

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        squares = F.np.expand_dims(x * x, 1)
        mean = F.np.squeeze(self.mean(squares), 1)
        return x / (self.k + self.alpha * mean) ** self.beta


class Affine(nn.HybridBlock):
    """x * scale + shift with constants, one pair for each channel: (N, C, H, W) to the same."""

    def __init__(self, scale: Sequence[float], shift: Sequence[float], **names: Any):
        super().__init__(**names)
        self.scale, self.shift = scale, shift

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        split = list(F.np.split(x, len(self.scale), axis=1))
        channels = zip(split, self.scale, self.shift, strict=True)
        return F.np.concatenate([channel * a + b for channel, a, b in channels], axis=1)


class Xavier(mx.init.Xavier):
    """Xavier uniform weights, as d2l starts, in any dtype; MXNet draws random float32 only.

    An exported graph names it `xavier`, as it does MXNet's own.
    """

    def _init_weight(self, name: str, arr: np.ndarray) -> None:
        drawn = np.zeros(arr.shape, "float32", ctx=arr.ctx)
        super()._init_weight(name, drawn)
        arr[:] = drawn
