"""Shapes, parameters and multiply-adds of a spec, computed without a framework.

Multiply-adds do not count the additions of biases. `blog-224` has 1.424 G without them and 1.43 G
with them, as in its published listing. Shapes are NCHW for a batch of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import SpecError
from common.spec.rows import (
    AdaptiveAvgPool,
    Affine,
    AvgPool,
    Block,
    Branches,
    Conv,
    GlobalAvgPool,
    Inception,
    Linear,
    LocalNorm,
    MaxPool,
    Norm,
    Residual,
    Row,
    Spec,
    inner_rows,
    pair,
)

FLOAT32_BYTES = 4
ACTIVATION_BYTES = {"float32": 4, "bfloat16": 2}  #: by precision; weights are float32 in both
#: layers whose outputs lie in memory; all others can work on these as they are written or read
STORED = {"Conv", "Linear", "MaxPool", "AvgPool", "AdaptiveAvgPool", "GlobalAvgPool"}
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One line of the layer table; `parameters` is None for a kind of layer that has none."""

    name: str
    kind: str
    shape: Shape
    parameters: int | None = None
    multiply_adds: int = 0


def layers(spec: Spec) -> list[Layer]:
    """The layer table; its first line is the network. SpecError if the input does not fit."""
    table: list[Layer] = []
    shape: Shape = (1, *spec.input)
    for name, rows in spec.stages():
        entering = shape
        stage, shape = walk(rows, shape, spec.norm, f"{name}.")
        table += stage
        if name == "stage4":
            table += _auxiliary(spec, entering)
    head, shape = _layer(spec.head, shape, spec.norm, "head")
    return [Layer(spec.name, "GoogLeNet", shape), *table, *head]


def _auxiliary(spec: Spec, entering: Shape) -> list[Layer]:
    """The layers of the auxiliary heads; `entering` is the input shape of stage4."""
    table: list[Layer] = []
    for index, row in enumerate(spec.auxiliary):
        name = f"auxiliary.{index}"
        _, shape = walk(spec.stage4[: row.after + 1], entering, spec.norm, "stage4.")
        for field, layer in row.rows(spec.head).items():
            if field == "hidden" and isinstance(layer, Linear):
                if math.prod(shape) != row.features:
                    raise SpecError(
                        f"{name}: its convolution leaves {'x'.join(map(str, shape[1:]))}, its "
                        f"hidden layer takes {row.features} features; use another image size than "
                        f"{spec.input[1]}."
                    )
                table.append(Layer(f"{name}.flatten", "Flatten", (1, row.features)))
            found, shape = _layer(layer, shape, spec.norm, f"{name}.{field}")
            table += found
    return table


def stage_shapes(spec: Spec) -> dict[str, Shape]:
    """The output shapes of the stages, the head and the auxiliary heads, for a batch of one."""
    shapes: dict[str, Shape] = {}
    shape: Shape = (1, *spec.input)
    for name, rows in spec.stages():
        _, shape = walk(rows, shape, spec.norm, f"{name}.")
        shapes[name] = shape
    heads = ("head", *(f"auxiliary.{index}" for index in range(len(spec.auxiliary))))
    return shapes | dict.fromkeys(heads, (1, spec.head.width))


def walk(
    rows: Sequence[Row], shape: Shape, norm: Norm | None, prefix: str = ""
) -> tuple[list[Layer], Shape]:
    """The layers of `rows`, named by `prefix` and index, and the output shape of the last one."""
    table: list[Layer] = []
    for index, row in enumerate(rows):
        found, shape = _layer(row, shape, norm, f"{prefix}{index}")
        table += found
    return table, shape


def _layer(row: Row, shape: Shape, norm: Norm | None, name: str) -> tuple[list[Layer], Shape]:
    match row:
        case Conv():
            out = (1, row.width, *_slide(row, shape, name))
            kernel = shape[1] * math.prod(pair(row.kernel))
            table = [
                Layer(
                    f"{name}.conv",
                    "Conv",
                    out,
                    row.width * (kernel + row.bias),
                    kernel * math.prod(out),
                )
            ]
            if norm and row.norm:
                table.append(Layer(f"{name}.norm", "Norm", out, 2 * row.width))
            if row.activation:
                table.append(Layer(f"{name}.relu", "ReLU", out))
            return table, out
        case MaxPool() | AvgPool():
            out = (*shape[:2], *_slide(row, shape, name))
            return [Layer(name, type(row).__name__, out)], out
        case AdaptiveAvgPool():
            out = (*shape[:2], *pair(row.size))
            return [Layer(name, "AdaptiveAvgPool", out)], out
        case Affine() | LocalNorm():
            row.channels(shape[1])
            return [Layer(name, type(row).__name__, shape)], shape
        case Inception() | Branches() | Residual():
            return _block(row, shape, norm, name)
        case GlobalAvgPool():
            pooled = Layer(f"{name}.pool", "GlobalAvgPool", (*shape[:2], 1, 1))
            return [pooled, Layer(f"{name}.flatten", "Flatten", shape[:2])], shape[:2]
        case Linear():
            features, out = math.prod(shape), (1, row.width)
            weights = features * row.width
            table = [Layer(name, "Linear", out, weights + row.width, weights)]
            return table + [Layer(f"{name}.relu", "ReLU", out)] * row.activation, out


def _block(row: Block, shape: Shape, norm: Norm | None, name: str) -> tuple[list[Layer], Shape]:
    table, widths, sizes = [], 0, {}
    for part, rows in inner_rows(row):
        found, out = walk(rows, shape, norm, f"{name}.{part}.")
        table += found
        widths += out[1]
        sizes[part] = out[2:]
    out = (1, widths, *out[2:])
    if len(set(sizes.values())) > 1:
        raise SpecError(f"{name}: its branches end in different sizes, {sizes}.")
    if isinstance(row, Residual):
        if out != shape:
            raise SpecError(
                f"{name}: its rows leave {'x'.join(map(str, out[1:]))}, but they are added to "
                f"{'x'.join(map(str, shape[1:]))}."
            )
        table.append(Layer(f"{name}.sum", "Sum", out))
        if row.activation:
            table.append(Layer(f"{name}.relu", "ReLU", out))
    return [Layer(name, type(row).__name__, out), *table], out


def _slide(row: Conv | MaxPool | AvgPool, shape: Shape, name: str) -> tuple[int, ...]:
    """The output height and width of a window that slides over an input of `shape`."""
    kernel, stride = pair(row.kernel), pair(row.stride)
    padded = tuple(size + 2 * pad for size, pad in zip(shape[2:], pair(row.padding), strict=True))
    if any(window > size for window, size in zip(kernel, padded, strict=True)):
        raise SpecError(
            f"{name}: the kernel {kernel[0]}x{kernel[1]} is larger than its padded input "
            f"{padded[0]}x{padded[1]}; use a larger image."
        )
    up = isinstance(row, MaxPool) and row.ceil
    sides = zip(padded, kernel, stride, strict=True)
    return tuple((p - k + (s - 1) * up) // s + 1 for p, k, s in sides)


def smallest_input(spec: Spec) -> int | None:
    """The side of the smallest square image that the spec accepts, up to its own size, or None."""
    for size in range(1, max(spec.input[1:]) + 1):
        try:
            layers(spec.at(size=size))
        except SpecError:
            continue
        return size
    return None


def totals(table: Sequence[Layer]) -> tuple[int, int]:
    """Parameters and multiply-adds of a layer table."""
    parameters = sum(layer.parameters or 0 for layer in table)
    return parameters, sum(layer.multiply_adds for layer in table)


def fewest_bytes(spec: Spec, batch_size: int, precision: str) -> int:
    """The fewest bytes that a training step with plain SGD moves between the chip and its memory.

    It supposes that a value stays on the chip only while its layer works on it:

    - an activation (an output of a layer of STORED) is written and read in the forward pass and
      read once more in the backward pass; its gradient is written and read
    - an input is read in both passes
    - a weight is read in both passes and in the update, and written there; its gradient is written
      and read
    """
    table = layers(spec)
    activations = sum(math.prod(layer.shape) for layer in table if layer.kind in STORED)
    moved = batch_size * (5 * activations + 2 * math.prod(spec.input))
    return moved * ACTIVATION_BYTES[precision] + 6 * totals(table)[0] * FLOAT32_BYTES


def memory(spec: Spec) -> dict[str, float]:
    """Float32 megabytes (10^6 bytes) for a batch of one, estimated as torchinfo does.

    The forward and backward pass counts the outputs of all layers with parameters, twice.
    """
    table = layers(spec)
    outputs = sum(math.prod(layer.shape) for layer in table if layer.parameters)
    megabytes = {
        "input": math.prod(spec.input) * FLOAT32_BYTES / 1e6,
        "forward_backward": 2 * outputs * FLOAT32_BYTES / 1e6,
        "parameters": totals(table)[0] * FLOAT32_BYTES / 1e6,
    }
    return {**megabytes, "total": sum(megabytes.values())}
