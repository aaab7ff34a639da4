"""GoogLeNet in PaddlePaddle: the network of a spec as `nn.Layer`s.

Source: d2l, section GoogLeNet. Paddle's conventions: NCHW; a layer gets the number of its incoming
channels; `model.train()` and `model.eval()` switch the mode.
"""

import paddle
from paddle import Tensor, nn
from paddle.nn.initializer import XavierUniform

from backends.paddle.layers import (
    CHANNELS,
    AdaptiveAvgPool,
    Affine,
    AvgPool,
    BatchNorm,
    GlobalAvgPool,
    LocalNorm,
)
from common import spec as rows


class Conv(nn.Layer):
    """Convolution, norm if the network has one, ReLU unless the row has none."""

    def __init__(self, row: rows.Conv, channels: int, norm: rows.Norm | None):
        super().__init__()
        self.conv = nn.Conv2D(
            channels,
            row.width,
            row.kernel,
            row.stride,
            row.padding,
            weight_attr=XavierUniform(),  # as d2l starts, and as Paddle's own `nn.Linear` does
            bias_attr=row.bias,
        )
        self.norm: nn.Layer = nn.Identity()
        if norm and row.norm:
            self.norm = BatchNorm(row.width, norm.momentum, norm.eps)
        self.relu = nn.ReLU() if row.activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.norm(self.conv(x)))


class Inception(nn.Layer):
    """Four branches over the same input, joined along the channels."""

    def __init__(self, row: rows.Inception, channels: int, norm: rows.Norm | None):
        super().__init__()
        self.branch1x1 = sequential(row.branch1x1, channels, norm)
        self.branch3x3 = sequential(row.branch3x3, channels, norm)
        self.branch5x5 = sequential(row.branch5x5, channels, norm)
        self.branch_pool = sequential(row.branch_pool, channels, norm)

    def forward(self, x: Tensor) -> Tensor:
        return paddle.concat(
            (self.branch1x1(x), self.branch3x3(x), self.branch5x5(x), self.branch_pool(x)),
            axis=CHANNELS,
        )


class Branches(nn.Layer):
    """Any number of branches over the same input, joined along the channels."""

    def __init__(self, row: rows.Branches, channels: int, norm: rows.Norm | None):
        super().__init__()
        self.branches = nn.LayerList(sequential(each, channels, norm) for each in row.branches)

    def forward(self, x: Tensor) -> Tensor:
        return paddle.concat([branch(x) for branch in self.branches], axis=CHANNELS)


class Residual(nn.Layer):
    """x + scale * rows(x), ReLU unless the row has none."""

    def __init__(self, row: rows.Residual, channels: int, norm: rows.Norm | None):
        super().__init__()
        self.rows = sequential(row.rows, channels, norm)
        self.scale = row.scale
        self.relu = nn.ReLU() if row.activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.scale * self.rows(x))


class Auxiliary(nn.Layer):
    """A side classifier: (N, C, H, W) in, logits (N, classes) out."""

    def __init__(self, row: rows.Auxiliary, channels: int, spec: rows.Spec):
        super().__init__()
        self.after = row.after
        self.pool = layer(row.pool, channels, spec.norm)
        self.conv = Conv(row.conv, channels, spec.norm)
        if isinstance(row.hidden, rows.Linear):
            self.flatten, self.mean = nn.Flatten(), nn.Identity()
            self.hidden = nn.Linear(row.features, row.hidden.width)
            self.relu = nn.ReLU() if row.hidden.activation else nn.Identity()
        else:  # a convolution has its own ReLU; its mean enters the head
            self.flatten, self.relu = nn.Identity(), nn.Identity()
            self.hidden = Conv(row.hidden, row.conv.width, spec.norm)
            self.mean = layer(rows.GlobalAvgPool(), row.hidden.width, spec.norm)
        self.dropout = nn.Dropout(row.dropout)
        self.head = nn.Linear(row.hidden.width, spec.head.width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.hidden(self.flatten(self.conv(self.pool(x))))
        return self.head(self.dropout(self.mean(self.relu(x))))


class GoogLeNet(nn.Layer):
    """The network of `spec`: (N, C, H, W) in, logits (N, classes) out; shapes are d2l's at 96.

    With auxiliary heads a list: the logits, then those of each head.
    """

    mixed = False  # `build` may choose mixed precision

    def __init__(self, spec: rows.Spec):
        super().__init__()
        self.spec = spec
        c0, c1, c2, c3, c4, c5 = spec.channels()
        self.stage1 = sequential(spec.stage1, c0, spec.norm)  # (N, 64, 24, 24)
        self.stage2 = sequential(spec.stage2, c1, spec.norm)  # (N, 192, 12, 12)
        self.stage3 = sequential(spec.stage3, c2, spec.norm)  # (N, 480, 6, 6)
        self.stage4 = sequential(spec.stage4, c3, spec.norm)  # (N, 832, 3, 3)
        self.stage5 = sequential(spec.stage5, c4, spec.norm)  # (N, 1024)
        self.dropout = nn.Dropout(spec.dropout)
        self.head = nn.Linear(c5, spec.head.width)  # (N, 10)
        self.auxiliary = nn.LayerList(Auxiliary(row, c, spec) for row, c in spec.aux_inputs())

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        x = self.stage3(self.stage2(self.stage1(x)))
        x, aux_logits = self.run_stage4(x)
        logits = self.head(self.dropout(self.stage5(x)))
        return [logits, *aux_logits] if aux_logits else logits

    def run_stage4(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The output of stage4, and the logits of the auxiliary heads on its rows."""
        aux_logits = []
        for index, block in enumerate(self.stage4):
            x = block(x)
            aux_logits += [head(x) for head in self.auxiliary if head.after == index]
        return x, aux_logits


def sequential(table: tuple[rows.Row, ...], channels: int, norm: rows.Norm | None) -> nn.Sequential:
    """The rows of a stage or branch, one native layer after the other."""
    layers = nn.Sequential()
    for row in table:
        layers.append(layer(row, channels, norm))
        channels = row.channels(channels)
    return layers


def layer(row: rows.Row, channels: int, norm: rows.Norm | None) -> nn.Layer:
    """The native layer of one row of the spec."""
    match row:
        case rows.Conv():
            return Conv(row, channels, norm)
        case rows.MaxPool():
            return nn.MaxPool2D(row.kernel, row.stride, row.padding, ceil_mode=row.ceil)
        case rows.Inception():
            return Inception(row, channels, norm)
        case rows.Branches():
            return Branches(row, channels, norm)
        case rows.Residual():
            return Residual(row, channels, norm)
        case rows.LocalNorm():
            return LocalNorm(row.size, row.alpha, row.beta, row.k)
        case rows.GlobalAvgPool():
            return GlobalAvgPool()
        case rows.AvgPool():
            return AvgPool(row.kernel, row.stride, row.padding, row.counted)
        case rows.AdaptiveAvgPool():
            return AdaptiveAvgPool(row.size)
        case rows.Affine():
            return Affine(row.scale, row.shift)
    raise TypeError(f"Paddle has no layer for {row!r}")
