"""GoogLeNet in PaddlePaddle: the network of a spec as `nn.Layer`s.

Source: d2l, section GoogLeNet. Paddle's conventions: NCHW; every layer is told its incoming
channels; `model.train()` and `model.eval()` switch the mode.
"""

import paddle
from paddle import nn

from common import spec as rows

BATCH, CHANNELS, HEIGHT, WIDTH = range(4)


class GlobalAvgPool(nn.Layer):
    """A mean, because the gradient of `AdaptiveAvgPool2D` is divided in float32 even in float64."""

    def forward(self, x):
        return x.mean((HEIGHT, WIDTH))


class AvgPool(nn.Layer):
    """A mean for each window, because Paddle's own average pools divide their gradient likewise."""

    def __init__(self, row):
        super().__init__()
        self.row = row

    def forward(self, x):
        rows, columns = self.row.windows(*x.shape[HEIGHT:])
        means = [
            x[:, :, top:bottom, left:right].mean((HEIGHT, WIDTH))
            for top, bottom in rows
            for left, right in columns
        ]
        return paddle.stack(means, -1).reshape((*x.shape[:HEIGHT], len(rows), len(columns)))


class Affine(nn.Layer):
    """x * scale + shift with the row's constants, a channel at a time."""

    def __init__(self, row):
        super().__init__()
        self.scale, self.shift = row.scale, row.shift

    def forward(self, x):
        channels = zip(x.unbind(CHANNELS), self.scale, self.shift, strict=True)
        return paddle.stack([channel * a + b for channel, a, b in channels], CHANNELS)


class Conv(nn.Layer):
    """Convolution, norm if the network has one, ReLU unless the row has none."""

    def __init__(self, row, channels, norm):
        super().__init__()
        self.conv = nn.Conv2D(
            channels, row.width, row.kernel, row.stride, row.padding, bias_attr=row.bias
        )
        self.norm = nn.BatchNorm2D(row.width, norm.momentum, norm.eps) if norm else nn.Identity()
        self.relu = nn.ReLU() if row.activation else nn.Identity()

    def forward(self, x):
        return self.relu(self.norm(self.conv(x)))


class Inception(nn.Layer):
    """Four branches over the same input, joined along the channels."""

    def __init__(self, row, channels, norm):
        super().__init__()
        self.branch1x1 = sequential(row.branch1x1, channels, norm)
        self.branch3x3 = sequential(row.branch3x3, channels, norm)
        self.branch5x5 = sequential(row.branch5x5, channels, norm)
        self.branch_pool = sequential(row.branch_pool, channels, norm)

    def forward(self, x):
        return paddle.concat(
            (self.branch1x1(x), self.branch3x3(x), self.branch5x5(x), self.branch_pool(x)),
            axis=CHANNELS,
        )


class Auxiliary(nn.Layer):
    """A side classifier: (N, C, H, W) in, logits (N, classes) out."""

    def __init__(self, row, channels, spec):
        super().__init__()
        self.after = row.after
        self.pool = layer(row.pool, channels, spec.norm)
        self.conv = Conv(row.conv, channels, spec.norm)
        self.hidden = nn.Linear(row.features, row.hidden.width)
        self.relu = nn.ReLU() if row.hidden.activation else nn.Identity()
        self.dropout = nn.Dropout(row.dropout)
        self.head = nn.Linear(row.hidden.width, spec.head.width)

    def forward(self, x):
        x = self.conv(self.pool(x)).flatten(CHANNELS)
        return self.head(self.dropout(self.relu(self.hidden(x))))


class GoogLeNet(nn.Layer):
    """The network of `spec`: (N, C, H, W) in, logits (N, classes) out; shapes are d2l's at 96.

    With auxiliary heads, a tuple: the logits, then those of each of them.
    """

    def __init__(self, spec):
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

    def forward(self, x):
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


def sequential(table, channels, norm):
    """The rows of a stage or branch, one native layer after the other."""
    layers = nn.Sequential()
    for row in table:
        layers.append(layer(row, channels, norm))
        channels = row.channels(channels)
    return layers


def layer(row, channels, norm):
    """The native layer of one row of the spec."""
    match row:
        case rows.Conv():
            return Conv(row, channels, norm)
        case rows.MaxPool():
            return nn.MaxPool2D(row.kernel, row.stride, row.padding, ceil_mode=row.ceil)
        case rows.Inception():
            return Inception(row, channels, norm)
        case rows.GlobalAvgPool():
            return GlobalAvgPool()
        case rows.AvgPool() | rows.AdaptiveAvgPool():
            return AvgPool(row)
        case rows.Affine():
            return Affine(row)
