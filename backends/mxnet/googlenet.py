"""GoogLeNet in MXNet Gluon: the network of a spec as `HybridBlock`s.

Source: d2l, section GoogLeNet. Gluon's conventions: NCHW; a layer learns its incoming channels from
its first input; the mode is that of `autograd`, not of the model.
"""

from mxnet.gluon import nn
from mxnet.gluon.contrib.nn import Identity

from common import spec as rows

CHANNELS = 1  # the axis of NCHW


class Conv(nn.HybridBlock):
    """Convolution, norm if the network has one, ReLU unless the row has none."""

    def __init__(self, row, norm):
        super().__init__()
        self.conv = nn.Conv2D(row.width, row.kernel, row.stride, row.padding)
        self.norm = nn.BatchNorm(CHANNELS, norm.momentum, norm.eps) if norm else Identity()
        if norm:
            self.norm._kwargs["cudnn_off"] = True  # cuDNN keeps the unbiased running variance
        self.relu = nn.Activation("relu") if row.activation else Identity()

    def hybrid_forward(self, F, x):
        return self.relu(self.norm(self.conv(x)))


class Inception(nn.HybridBlock):
    """Four branches over the same input, joined along the channels."""

    def __init__(self, row, norm):
        super().__init__()
        self.branch1x1 = sequential(row.branch1x1, norm)
        self.branch3x3 = sequential(row.branch3x3, norm)
        self.branch5x5 = sequential(row.branch5x5, norm)
        self.branch_pool = sequential(row.branch_pool, norm)

    def hybrid_forward(self, F, x):
        return F.np.concatenate(
            (self.branch1x1(x), self.branch3x3(x), self.branch5x5(x), self.branch_pool(x)),
            axis=CHANNELS,
        )


class GoogLeNet(nn.HybridBlock):
    """The network of `spec`: (N, C, H, W) in, logits (N, classes) out; shapes are d2l's at 96."""

    def __init__(self, spec):
        super().__init__()
        self.spec = spec
        self.stage1 = sequential(spec.stage1, spec.norm)  # (N, 64, 24, 24)
        self.stage2 = sequential(spec.stage2, spec.norm)  # (N, 192, 12, 12)
        self.stage3 = sequential(spec.stage3, spec.norm)  # (N, 480, 6, 6)
        self.stage4 = sequential(spec.stage4, spec.norm)  # (N, 832, 3, 3)
        self.stage5 = sequential(spec.stage5, spec.norm)  # (N, 1024)
        self.dropout = nn.Dropout(spec.dropout)
        self.head = nn.Dense(spec.head.width)  # (N, 10)

    def hybrid_forward(self, F, x):
        x = self.stage2(self.stage1(x))
        x = self.stage5(self.stage4(self.stage3(x)))
        return self.head(self.dropout(x))


def sequential(table, norm):
    """The rows of a stage or branch, one native layer after the other."""
    layers = nn.HybridSequential()
    layers.add(*(layer(row, norm) for row in table))
    return layers


def layer(row, norm):
    """The native layer of one row of the spec."""
    match row:
        case rows.Conv():
            return Conv(row, norm)
        case rows.MaxPool():
            return nn.MaxPool2D(row.kernel, row.stride, row.padding)
        case rows.Inception():
            return Inception(row, norm)
        case rows.GlobalAvgPool():
            layers = nn.HybridSequential()
            layers.add(nn.GlobalAvgPool2D(), nn.Flatten())  # Dense would flatten by itself
            return layers
