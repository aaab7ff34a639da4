"""GoogLeNet in PyTorch: the network of a spec as `nn.Module`s.

Source: d2l, section GoogLeNet. PyTorch's conventions: NCHW; a layer gets the number of its incoming
channels; `model.train()` and `model.eval()` switch the mode.
"""

from typing import Final

import torch
from torch import Tensor, nn

from backends.torch.layers import Affine, BatchNorm
from common import spec as rows


class Conv(nn.Module):
    """Convolution, norm if the network has one, ReLU unless the row has none."""

    def __init__(self, row: rows.Conv, channels: int, norm: rows.Norm | None):
        super().__init__()
        self.conv = nn.Conv2d(
            channels, row.width, row.kernel, row.stride, row.padding, bias=row.bias
        )
        # momentum is the weight of the new value here, of the old one in the spec
        self.norm: nn.Module = nn.Identity()
        if norm and row.norm:
            self.norm = BatchNorm(row.width, norm.eps, 1 - norm.momentum)
        self.relu = nn.ReLU() if row.activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.norm(self.conv(x)))


class Inception(nn.Module):
    """Four branches over the same input, joined along the channels."""

    def __init__(self, row: rows.Inception, channels: int, norm: rows.Norm | None):
        super().__init__()
        self.branch1x1 = sequential(row.branch1x1, channels, norm)
        self.branch3x3 = sequential(row.branch3x3, channels, norm)
        self.branch5x5 = sequential(row.branch5x5, channels, norm)
        self.branch_pool = sequential(row.branch_pool, channels, norm)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            (self.branch1x1(x), self.branch3x3(x), self.branch5x5(x), self.branch_pool(x)),
            dim=1,
        )


class Branches(nn.Module):
    """Any number of branches over the same input, joined along the channels."""

    def __init__(self, row: rows.Branches, channels: int, norm: rows.Norm | None):
        super().__init__()
        self.branches = nn.ModuleList(sequential(each, channels, norm) for each in row.branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Residual(nn.Module):
    """x + scale * rows(x), ReLU unless the row has none."""

    def __init__(self, row: rows.Residual, channels: int, norm: rows.Norm | None):
        super().__init__()
        self.rows = sequential(row.rows, channels, norm)
        self.scale = row.scale
        self.relu = nn.ReLU() if row.activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.scale * self.rows(x))


class Auxiliary(nn.Module):
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


class GoogLeNet(nn.Module):
    """The network of `spec`: (N, C, H, W) in, logits (N, classes) out; shapes are d2l's at 96.

    With auxiliary heads a list: the logits, then those of each head.
    """

    has_auxiliary: Final[bool]  # TorchScript compiles one of the two returns
    mixed, layout = False, torch.contiguous_format  # `build` may choose others

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
        self.auxiliary = nn.ModuleList(Auxiliary(row, c, spec) for row, c in spec.aux_inputs())
        self.has_auxiliary = bool(spec.auxiliary)
        self.apply(initialize)

    def forward(self, x: Tensor):
        x = self.stage3(self.stage2(self.stage1(x)))
        x, aux_logits = self.run_stage4(x)
        logits = self.head(self.dropout(self.stage5(x)))
        if self.has_auxiliary:
            return [logits] + aux_logits  # noqa: RUF005  # TorchScript knows no star
        return logits

    def run_stage4(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The output of stage4, and the logits of the auxiliary heads on its rows."""
        aux_logits: list[Tensor] = []
        for index, block in enumerate(self.stage4):
            x = block(x)
            for head in self.auxiliary:
                if head.after == index:
                    aux_logits.append(head(x))
        return x, aux_logits


def initialize(module: nn.Module) -> None:
    """Xavier uniform weights and zero biases, as d2l starts; PyTorch's own start is another."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def sequential(table: tuple[rows.Row, ...], channels: int, norm: rows.Norm | None) -> nn.Sequential:
    """The rows of a stage or branch, one native layer after the other."""
    layers = nn.Sequential()
    for row in table:
        layers.append(layer(row, channels, norm))
        channels = row.channels(channels)
    return layers


def layer(row: rows.Row, channels: int, norm: rows.Norm | None) -> nn.Module:
    """The native layer of one row of the spec."""
    match row:
        case rows.Conv():
            return Conv(row, channels, norm)
        case rows.MaxPool():
            return nn.MaxPool2d(row.kernel, row.stride, row.padding, ceil_mode=row.ceil)
        case rows.Inception():
            return Inception(row, channels, norm)
        case rows.Branches():
            return Branches(row, channels, norm)
        case rows.Residual():
            return Residual(row, channels, norm)
        case rows.LocalNorm():
            return nn.LocalResponseNorm(row.size, row.alpha, row.beta, row.k)
        case rows.GlobalAvgPool():
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case rows.AvgPool():
            return nn.AvgPool2d(row.kernel, row.stride, row.padding, count_include_pad=row.counted)
        case rows.AdaptiveAvgPool():
            return nn.AdaptiveAvgPool2d(row.size)
        case rows.Affine():
            return Affine(row.scale, row.shift)
    raise TypeError(f"PyTorch has no layer for {row!r}")
