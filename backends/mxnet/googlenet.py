"""GoogLeNet in MXNet Gluon: the network of a spec as `HybridBlock`s.

Source: d2l, section GoogLeNet. Gluon's conventions: NCHW; a layer learns its incoming channels from
its first input; the mode is that of `autograd`, not of the model; `prefix` and `name_scope` name
the parameters, `params` shares another block's.
"""

from types import ModuleType
from typing import Any

from mxnet.gluon import nn
from mxnet.gluon.contrib.nn import Identity

from backends.mxnet.layers import AdaptiveAvgPool, Affine, BatchNorm, LocalNorm, Tensor, Xavier
from common import spec as rows


class Conv(nn.HybridBlock):
    """Convolution, norm if the network has one, ReLU unless the row has none."""

    def __init__(self, row: rows.Conv, norm: rows.Norm | None, **names: Any):
        super().__init__(**names)
        with self.name_scope():
            self.conv = nn.Conv2D(
                row.width,
                row.kernel,
                row.stride,
                row.padding,
                use_bias=row.bias,
                weight_initializer=Xavier(),
            )
            self.norm = BatchNorm(norm.momentum, norm.eps) if norm and row.norm else Identity()
            self.relu = nn.Activation("relu") if row.activation else Identity()

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        return self.relu(self.norm(self.conv(x)))


class Inception(nn.HybridBlock):
    """Four branches over the same input, joined along the channels."""

    def __init__(self, row: rows.Inception, norm: rows.Norm | None, **names: Any):
        super().__init__(**names)
        with self.name_scope():
            self.branch1x1 = sequential(row.branch1x1, norm, prefix="branch1x1_")
            self.branch3x3 = sequential(row.branch3x3, norm, prefix="branch3x3_")
            self.branch5x5 = sequential(row.branch5x5, norm, prefix="branch5x5_")
            self.branch_pool = sequential(row.branch_pool, norm, prefix="branch_pool_")

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        return F.np.concatenate(
            (self.branch1x1(x), self.branch3x3(x), self.branch5x5(x), self.branch_pool(x)),
            axis=1,
        )


class Branches(nn.HybridBlock):
    """Any number of branches over the same input, joined along the channels."""

    def __init__(self, row: rows.Branches, norm: rows.Norm | None, **names: Any):
        super().__init__(**names)
        with self.name_scope():
            self.branches = nn.HybridSequential(prefix="")  # never run as a sequence
            branches = enumerate(row.branches)
            self.branches.add(
                *(sequential(each, norm, prefix=f"branch{i}_") for i, each in branches)
            )

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        return F.np.concatenate([branch(x) for branch in self.branches], axis=1)


class Residual(nn.HybridBlock):
    """x + scale * rows(x), ReLU unless the row has none."""

    def __init__(self, row: rows.Residual, norm: rows.Norm | None, **names: Any):
        super().__init__(**names)
        self.scale = row.scale
        with self.name_scope():
            self.rows = sequential(row.rows, norm, prefix="rows_")
            self.relu = nn.Activation("relu") if row.activation else Identity()

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        return self.relu(x + self.scale * self.rows(x))


class Auxiliary(nn.HybridBlock):
    """A side classifier: (N, C, H, W) in, logits (N, classes) out."""

    def __init__(self, row: rows.Auxiliary, spec: rows.Spec, **names: Any):
        super().__init__(**names)
        self.after = row.after
        with self.name_scope():
            self.pool = layer(row.pool, spec.norm)
            self.conv = Conv(row.conv, spec.norm)
            if isinstance(row.hidden, rows.Linear):  # Dense flattens by itself
                start = {"weight_initializer": Xavier(), "prefix": "hidden_"}
                self.hidden = nn.Dense(row.hidden.width, **start)
                self.relu = nn.Activation("relu") if row.hidden.activation else Identity()
                self.mean = Identity()
            else:  # a convolution has its own ReLU; its mean enters the head
                self.hidden = Conv(row.hidden, spec.norm, prefix="hidden_")
                self.relu, self.mean = Identity(), layer(rows.GlobalAvgPool(), spec.norm)
            self.dropout = nn.Dropout(row.dropout)
            self.head = nn.Dense(spec.head.width, weight_initializer=Xavier(), prefix="head_")

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        x = self.hidden(self.conv(self.pool(x)))
        return self.head(self.dropout(self.mean(self.relu(x))))


class GoogLeNet(nn.HybridBlock):
    """The network of `spec`: (N, C, H, W) in, logits (N, classes) out; shapes are d2l's at 96.

    With auxiliary heads a list: the logits, then those of each head.
    """

    mixed = False  # `build` may choose mixed precision

    def __init__(self, spec: rows.Spec, **names: Any):
        super().__init__(**names)
        self.spec = spec
        with self.name_scope():
            self.stage1 = sequential(spec.stage1, spec.norm, prefix="stage1_")  # (N, 64, 24, 24)
            self.stage2 = sequential(spec.stage2, spec.norm, prefix="stage2_")  # (N, 192, 12, 12)
            self.stage3 = sequential(spec.stage3, spec.norm, prefix="stage3_")  # (N, 480, 6, 6)
            self.stage4 = sequential(spec.stage4, spec.norm, prefix="stage4_")  # (N, 832, 3, 3)
            self.stage5 = sequential(spec.stage5, spec.norm, prefix="stage5_")  # (N, 1024)
            self.dropout = nn.Dropout(spec.dropout)
            # (N, 10)
            self.head = nn.Dense(spec.head.width, weight_initializer=Xavier(), prefix="head_")
            self.auxiliary = nn.HybridSequential(prefix="")  # never run as a sequence
            self.auxiliary.add(*(Auxiliary(row, spec) for row in spec.auxiliary))

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor | list[Tensor]:
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


def sequential(
    table: tuple[rows.Row, ...], norm: rows.Norm | None, **names: Any
) -> nn.HybridSequential:
    """The rows of a stage or branch, one native layer after the other."""
    layers = nn.HybridSequential(**names)
    with layers.name_scope():
        layers.add(*(layer(row, norm) for row in table))
    return layers


def layer(row: rows.Row, norm: rows.Norm | None) -> nn.HybridBlock:
    """The native layer of one row of the spec."""
    match row:
        case rows.Conv():
            return Conv(row, norm)
        case rows.MaxPool():
            return nn.MaxPool2D(row.kernel, row.stride, row.padding, ceil_mode=row.ceil)
        case rows.Inception():
            return Inception(row, norm)
        case rows.Branches():
            return Branches(row, norm)
        case rows.Residual():
            return Residual(row, norm)
        case rows.LocalNorm():
            return LocalNorm(row.size, row.alpha, row.beta, row.k)
        case rows.GlobalAvgPool():
            layers = nn.HybridSequential()
            layers.add(nn.GlobalAvgPool2D(), nn.Flatten())  # Dense would flatten by itself
            return layers
        case rows.AvgPool():
            return nn.AvgPool2D(row.kernel, row.stride, row.padding, count_include_pad=row.counted)
        case rows.AdaptiveAvgPool():
            return AdaptiveAvgPool(row.size)
        case rows.Affine():
            return Affine(row.scale, row.shift)
    raise TypeError(f"Gluon has no layer for {row!r}")
