"""GoogLeNet in MXNet Gluon: the network of a spec as `HybridBlock`s.

Source: d2l, section GoogLeNet. Gluon's conventions: NCHW; a layer learns its incoming channels from
its first input; the mode is that of `autograd`, not of the model.
"""

from mxnet.gluon import nn
from mxnet.gluon.contrib.nn import Identity

from common import spec as rows

CHANNELS = 1  # the axis of NCHW


class AdaptiveAvgPool(nn.HybridBlock):
    """Gluon has the operation and no block for it, and not among its NumPy operations."""

    def __init__(self, row):
        super().__init__()
        self.size = row.size

    def hybrid_forward(self, F, x):
        x = F.contrib.AdaptiveAvgPooling2D(x.as_nd_ndarray(), output_size=self.size)
        return x.as_np_ndarray()


class Affine(nn.HybridBlock):
    """x * scale + shift with the row's constants, a channel at a time."""

    def __init__(self, row):
        super().__init__()
        self.scale, self.shift = row.scale, row.shift

    def hybrid_forward(self, F, x):
        split = list(F.np.split(x, len(self.scale), CHANNELS))
        channels = zip(split, self.scale, self.shift, strict=True)
        return F.np.concatenate([channel * a + b for channel, a, b in channels], CHANNELS)


class Conv(nn.HybridBlock):
    """Convolution, norm if the network has one, ReLU unless the row has none."""

    def __init__(self, row, norm):
        super().__init__()
        self.conv = nn.Conv2D(row.width, row.kernel, row.stride, row.padding, use_bias=row.bias)
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


class Auxiliary(nn.HybridBlock):
    """A side classifier: (N, C, H, W) in, logits (N, classes) out."""

    def __init__(self, row, spec):
        super().__init__()
        self.after = row.after
        self.pool = layer(row.pool, spec.norm)
        self.conv = Conv(row.conv, spec.norm)
        self.hidden = nn.Dense(row.hidden.width)  # flattens by itself
        self.relu = nn.Activation("relu") if row.hidden.activation else Identity()
        self.dropout = nn.Dropout(row.dropout)
        self.head = nn.Dense(spec.head.width)

    def hybrid_forward(self, F, x):
        x = self.conv(self.pool(x))
        return self.head(self.dropout(self.relu(self.hidden(x))))


class GoogLeNet(nn.HybridBlock):
    """The network of `spec`: (N, C, H, W) in, logits (N, classes) out; shapes are d2l's at 96.

    With auxiliary heads, a tuple: the logits, then those of each of them.
    """

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
        self.auxiliary = nn.HybridSequential()  # never run as a sequence
        self.auxiliary.add(*(Auxiliary(row, spec) for row in spec.auxiliary))

    def hybrid_forward(self, F, x):
        x = self.stage3(self.stage2(self.stage1(x)))
        x, aux_logits = run_stage(self.stage4, self.auxiliary, x)
        logits = self.head(self.dropout(self.stage5(x)))
        return (logits, *aux_logits) if aux_logits else logits


def run_stage(stage, heads, x):
    """The stage's output, and those of the auxiliary heads on its rows."""
    aux_logits = []
    for index, block in enumerate(stage):
        x = block(x)
        aux_logits += [head(x) for head in heads if head.after == index]
    return x, aux_logits


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
            return nn.MaxPool2D(row.kernel, row.stride, row.padding, ceil_mode=row.ceil)
        case rows.Inception():
            return Inception(row, norm)
        case rows.GlobalAvgPool():
            layers = nn.HybridSequential()
            layers.add(nn.GlobalAvgPool2D(), nn.Flatten())  # Dense would flatten by itself
            return layers
        case rows.AvgPool():
            return nn.AvgPool2D(row.kernel, row.stride)
        case rows.AdaptiveAvgPool():
            return AdaptiveAvgPool(row)
        case rows.Affine():
            return Affine(row)
