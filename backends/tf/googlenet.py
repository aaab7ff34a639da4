"""GoogLeNet in TensorFlow: the network of a spec as Keras layers.

Source: d2l, section GoogLeNet. Keras's conventions: NHWC; `build` makes a layer's weights for the
shape of its input; a call's argument `training` is the mode, and reaches the layers inside.
"""

from typing import Any

import keras
from keras import layers
from tensorflow import Tensor

from backends.tf.layers import (
    BATCH,
    CHANNELS,
    HEIGHT,
    WIDTH,
    AdaptiveAvgPool,
    Affine,
    AvgPool,
    LocalNorm,
    MaxPool,
    centred,
)
from backends.tf.saving import FromSpec, Shape, serialisable, shape_after
from common import spec as rows


@serialisable
class Conv(FromSpec, layers.Layer):
    """Convolution, norm if the network has one, ReLU unless the row has none."""

    def __init__(self, row: rows.Conv, norm: rows.Norm | None, **kwargs: Any):
        super().__init__(**kwargs)
        self.parts, own = {"row": row, "norm": norm}, {"dtype": self.dtype_policy.name}
        same = centred(row.kernel, row.stride, row.padding)  # with a stride it pads off centre
        self.pad = layers.Identity(**own) if same else layers.ZeroPadding2D(row.padding, **own)
        mode, window = "same" if same else "valid", (row.width, row.kernel, row.stride)
        self.conv = layers.Conv2D(*window, mode, use_bias=row.bias, name="conv", **own)
        self.norm = layers.Identity(**own)
        if norm and row.norm:
            numbers = CHANNELS, norm.momentum, norm.eps
            self.norm = layers.BatchNormalization(*numbers, name="norm", **own)
        self.relu = layers.Activation("relu" if row.activation else "linear", **own)

    def build(self, input_shape: Shape) -> None:
        self.conv.build(self.pad.compute_output_shape(input_shape))
        self.norm.build(self.compute_output_shape(input_shape))

    def call(self, x: Tensor) -> Tensor:
        return self.relu(self.norm(self.conv(self.pad(x))))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return shape_after((self.pad, self.conv), input_shape)


@serialisable
class Inception(FromSpec, layers.Layer):
    """Four branches over the same input, joined along the channels."""

    def __init__(self, row: rows.Inception, norm: rows.Norm | None, **kwargs: Any):
        super().__init__(**kwargs)
        self.parts, own = {"row": row, "norm": norm}, {"dtype": self.dtype_policy.name}
        self.branch1x1 = sequential(row.branch1x1, norm, "branch1x1", **own)
        self.branch3x3 = sequential(row.branch3x3, norm, "branch3x3", **own)
        self.branch5x5 = sequential(row.branch5x5, norm, "branch5x5", **own)
        self.branch_pool = sequential(row.branch_pool, norm, "branch_pool", **own)
        self.concatenate = layers.Concatenate(axis=CHANNELS, **own)

    def build(self, input_shape: Shape) -> None:
        for branch in (self.branch1x1, self.branch3x3, self.branch5x5, self.branch_pool):
            branch.build(input_shape)

    def call(self, x: Tensor) -> Tensor:
        return self.concatenate(
            (self.branch1x1(x), self.branch3x3(x), self.branch5x5(x), self.branch_pool(x))
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        *batch_and_size, _ = shape_after(self.branch1x1.layers, input_shape)
        return *batch_and_size, self.parts["row"].channels(input_shape[CHANNELS] or 0)


@serialisable
class Branches(FromSpec, layers.Layer):
    """Any number of branches over the same input, joined along the channels."""

    def __init__(self, row: rows.Branches, norm: rows.Norm | None, **kwargs: Any):
        super().__init__(**kwargs)
        self.parts, own = {"row": row, "norm": norm}, {"dtype": self.dtype_policy.name}
        branches = enumerate(row.branches)
        self.branches = [sequential(each, norm, f"branch{i}", **own) for i, each in branches]
        self.concatenate = layers.Concatenate(axis=CHANNELS, **own)

    def build(self, input_shape: Shape) -> None:
        for branch in self.branches:
            branch.build(input_shape)

    def call(self, x: Tensor) -> Tensor:
        return self.concatenate([branch(x) for branch in self.branches])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        *batch_and_size, _ = shape_after(self.branches[0].layers, input_shape)
        return *batch_and_size, self.parts["row"].channels(input_shape[CHANNELS] or 0)


@serialisable
class Residual(FromSpec, layers.Layer):
    """x + scale * rows(x), ReLU unless the row has none."""

    def __init__(self, row: rows.Residual, norm: rows.Norm | None, **kwargs: Any):
        super().__init__(**kwargs)
        self.parts, own = {"row": row, "norm": norm}, {"dtype": self.dtype_policy.name}
        self.rows = sequential(row.rows, norm, "rows", **own)
        self.scale = row.scale
        self.relu = layers.Activation("relu" if row.activation else "linear", **own)

    def build(self, input_shape: Shape) -> None:
        self.rows.build(input_shape)

    def call(self, x: Tensor) -> Tensor:
        return self.relu(x + self.scale * self.rows(x))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


@serialisable
class Auxiliary(FromSpec, layers.Layer):
    """A side classifier: (N, H, W, C) in, logits (N, classes) out."""

    def __init__(self, row: rows.Auxiliary, spec: rows.Spec, **kwargs: Any):
        super().__init__(**kwargs)
        self.parts, own = {"row": row, "spec": spec}, {"dtype": self.dtype_policy.name}
        self.after = row.after
        self.pool = layer(row.pool, spec.norm, **own)
        self.conv = Conv(row.conv, spec.norm, name="conv", **own)
        if isinstance(row.hidden, rows.Linear):
            self.permute = layers.Permute((CHANNELS, HEIGHT, WIDTH), **own)  # the features' order
            self.flatten = layers.Reshape((row.features,), **own)
            self.hidden = layers.Dense(row.hidden.width, name="hidden", **own)
            self.relu = layers.Activation("relu" if row.hidden.activation else "linear", **own)
            self.mean = layers.Identity(**own)
        else:  # a convolution has its own ReLU; its mean enters the head
            self.permute = self.flatten = self.relu = layers.Identity(**own)
            self.hidden = Conv(row.hidden, spec.norm, name="hidden", **own)
            self.mean = layer(rows.GlobalAvgPool(), spec.norm, **own)
        self.dropout = layers.Dropout(row.dropout, **own)
        self.head = layers.Dense(spec.head.width, name="head", **own)

    def build(self, input_shape: Shape) -> None:
        self.conv.build(self.pool.compute_output_shape(input_shape))
        features = self.pool, self.conv, self.permute, self.flatten
        self.hidden.build(shape_after(features, input_shape))
        self.head.build((input_shape[BATCH], self.parts["row"].hidden.width))

    def call(self, x: Tensor) -> Tensor:
        x = self.hidden(self.flatten(self.permute(self.conv(self.pool(x)))))
        return self.head(self.dropout(self.mean(self.relu(x))))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape[BATCH], self.head.units


@serialisable
class GoogLeNet(FromSpec, keras.Model):
    """The network of `spec`: (N, H, W, C) in, logits (N, classes) out; shapes are d2l's at 96.

    With auxiliary heads a list: the logits, then those of each head.
    """

    def __init__(self, spec: rows.Spec, **kwargs: Any):
        super().__init__(**kwargs)
        self.spec, self.parts, own = spec, {"spec": spec}, {"dtype": self.dtype_policy.name}
        self.stage1 = sequential(spec.stage1, spec.norm, "stage1", **own)  # (N, 24, 24, 64)
        self.stage2 = sequential(spec.stage2, spec.norm, "stage2", **own)  # (N, 12, 12, 192)
        self.stage3 = sequential(spec.stage3, spec.norm, "stage3", **own)  # (N, 6, 6, 480)
        self.stage4 = sequential(spec.stage4, spec.norm, "stage4", **own)  # (N, 3, 3, 832)
        self.stage5 = sequential(spec.stage5, spec.norm, "stage5", **own)  # (N, 1024)
        self.dropout = layers.Dropout(spec.dropout, name="dropout", **own)
        self.head = layers.Dense(spec.head.width, name="head", **own)  # (N, 10)
        heads = enumerate(spec.auxiliary)
        self.auxiliary = [Auxiliary(row, spec, name=f"auxiliary{i}", **own) for i, row in heads]

    def build(self, input_shape: Shape) -> None:
        shape = input_shape
        for stage in (self.stage1, self.stage2, self.stage3, self.stage4, self.stage5):
            stage.build(shape)
            shape = stage.output_shape
        for head in self.auxiliary:
            head.build(self.stage4.layers[head.after].output.shape)
        self.head.build(shape)

    def call(self, x: Tensor, training: bool | None = None) -> Tensor | list[Tensor]:
        x = self.stage3(self.stage2(self.stage1(x)))
        x, aux_logits = self.run_stage4(x, training)
        logits = self.head(self.dropout(self.stage5(x)))
        return [logits, *aux_logits] if aux_logits else logits

    def run_stage4(self, x: Tensor, training: bool | None = None) -> tuple[Tensor, list[Tensor]]:
        """The output of stage4, and the logits of the auxiliary heads on its rows."""
        aux_logits = []
        for index, block in enumerate(self.stage4.layers):
            x = block(x, training=training)
            heads = [head for head in self.auxiliary if head.after == index]
            aux_logits += [head(x, training=training) for head in heads]
        return x, aux_logits

    def compute_output_shape(self, input_shape: Shape) -> Shape | list[Shape]:
        shape = input_shape[BATCH], self.head.units  # of every head
        return [shape, *(shape for _ in self.auxiliary)] if self.auxiliary else shape


def sequential(
    table: tuple[rows.Row, ...], norm: rows.Norm | None, name: str, **own: Any
) -> keras.Sequential:
    """The rows of a stage or branch, one native layer after the other, named by their index."""
    found = [layer(row, norm, name=str(index), **own) for index, row in enumerate(table)]
    return keras.Sequential(found, name=name)


def layer(row: rows.Row, norm: rows.Norm | None, **own: Any) -> layers.Layer:
    """The native layer of one row of the spec; `own` are Keras's arguments, `name` and `dtype`."""
    match row:
        case rows.Conv():
            return Conv(row, norm, **own)
        case rows.MaxPool():
            return MaxPool(row.kernel, row.stride, row.padding, row.ceil, **own)
        case rows.Inception():
            return Inception(row, norm, **own)
        case rows.Branches():
            return Branches(row, norm, **own)
        case rows.Residual():
            return Residual(row, norm, **own)
        case rows.LocalNorm():
            return LocalNorm(row.size, row.alpha, row.beta, row.k, **own)
        case rows.GlobalAvgPool():
            return layers.GlobalAveragePooling2D(**own)
        case rows.AvgPool():
            return AvgPool(row.kernel, row.stride, row.padding, row.counted, **own)
        case rows.AdaptiveAvgPool():
            return AdaptiveAvgPool(row.size, **own)
        case rows.Affine():
            return Affine(row.scale, row.shift, **own)
    raise TypeError(f"Keras has no layer for {row!r}")
