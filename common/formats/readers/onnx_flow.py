"""What an ONNX graph computes, as steps. Source: the list of operators of ONNX.

Operators without a meaning here keep their names, so no spec has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from common.formats.flow import Steps
from common.formats.readers.base import require_few
from common.formats.readers.protobuf import Message, float32
from common.spec import AdaptiveAvgPool

INPUT, OUTPUT, OPERATOR, ATTRIBUTE, DOMAIN = 1, 2, 4, 5, 7  # of a node
FLOAT, INTEGER, TEXT, FLOATS, INTEGERS = 2, 3, 4, 7, 8  # of an attribute
REALS = (1, 10, 11, 16)  #: the types that hold images
PROBABILITIES = ("Softmax", "LogSoftmax")
IDENTITIES = ("Identity", "Dropout")
FLATTENS = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
CHANNELS_FIRST = [0, 3, 1, 2]
MOST_CHANNELS = 16  #: of constants for images


@dataclass(frozen=True)
class Images:
    """The images, or one channel of them, after what the graph does with them first."""

    channel: int | None = None
    scale: Any = 1.0
    shift: Any = 0.0

    def one(self, channel: int) -> Images:
        """One channel of them."""
        scale, shift = (
            np.ravel(each)[channel if np.size(each) > 1 else 0] for each in (self.scale, self.shift)
        )
        return Images(channel, scale, shift)


class Flow:
    """The steps of a graph, whose nodes come one after the other.

    `values` are its constants.
    """

    def __init__(self, images: set[str], values: Mapping[str, np.ndarray]) -> None:
        self.steps = Steps()
        self.values = values
        self.images: dict[str, Images] = dict.fromkeys(images, Images())
        self.numbers = dict[str, int]()

    def at(self, name: str) -> int:
        """The number of the step that makes a value."""
        if name in self.images:
            each = self.images[name]
            scale, shift = np.broadcast_arrays(np.float64(each.scale), np.float64(each.shift))
            if each.channel is not None:
                return self.steps.make("a channel", [], name, number=each.channel)
            if (scale == 1).all() and (shift == 0).all():
                return self.steps.make("images", [], name)
            numbers = {"scale": scale.ravel().tolist(), "shift": shift.ravel().tolist()}
            return self.steps.make("images", [], name, **numbers)
        if name not in self.numbers:
            self.numbers[name] = self.steps.make("a constant", [], name)
        return self.numbers[name]

    def node(self, node: Message, layer: str, shape: tuple[int, ...], folded: bool) -> None:
        """One node; `layer` is its own, whose weight has `shape`.

        `folded`: it only takes a constant into the layer before.
        """
        kind, inputs, outputs = operator(node), node.texts(INPUT), node.texts(OUTPUT)
        data = [name for name in inputs if name in self.numbers or name in self.images]
        require_few(len(self.steps.steps))
        if not outputs or outputs[0] in self.values or not data:
            return
        name = node.text(3) or outputs[0]
        p = attributes(node)
        if self.on_images(kind, inputs, outputs[0], p):
            return
        if folded:
            self.numbers[outputs[0]] = self.at(data[0])
        elif layer:
            p |= {"training_mode": 1} if any(outputs[1:]) else {}  # before opset 14
            self.numbers[outputs[0]] = self.layer(kind, data[0], name, p, layer, shape)
        else:
            self.numbers[outputs[0]] = self.other(kind, inputs, data, name, p)
        for number, output in enumerate(outputs[1:], 1):
            self.numbers[output] = self.steps.make(
                "another output", [self.at(each) for each in data], name, output=number
            )

    def of(self, results: list[str]) -> Steps:
        """The steps up to the results; a head that is a 1x1 convolution is a linear layer."""
        for name in results:
            number = self.at(name)
            while (last := self.steps.steps[number]).kind in ("flatten", *PROBABILITIES):
                (number,) = last.inputs
                if last.kind in PROBABILITIES:
                    self.steps.notes.append(f"It ends in a {last.kind}, which is left out.")
            self.steps.results.append(self.as_linear(number))
        return self.steps

    def as_linear(self, number: int) -> int:
        """A 1x1 convolution of a mean, or the mean of a 1x1 convolution, as a linear layer."""
        last = self.steps.steps[number]
        ways = ("mean", "convolution"), ("convolution", "mean"), ("convolution", "average")
        for kind, before in ways:
            if last.kind == kind and self.steps.steps[last.inputs[0]].kind == before:
                inner = self.steps.steps[last.inputs[0]]
                conv = last if kind == "convolution" else inner
                plain = {"kernel": [1, 1], "stride": [1, 1], "padding": [0] * 4, "groups": 1}
                if {**conv.p, **plain} == conv.p:
                    mean = last.inputs[0]
                    if kind == "mean":
                        mean = self.steps.make("mean", [*inner.inputs], "")
                    return self.steps.make("linear", [mean], conv.name, layer=conv.p["layer"])
        return number

    # --- images
    def on_images(self, kind: str, inputs: list[str], output: str, p: dict[str, Any]) -> bool:
        """Whether a node scales the images, exchanges their axes or takes them apart."""
        names = [name for name in inputs if name in self.images]
        if not names:
            return False
        each, made = self.images[names[0]], None
        first = kind == "Transpose" and p.get("perm") == CHANNELS_FIRST
        if first or kind in IDENTITIES or (kind == "Cast" and p.get("to") in REALS):
            made = each
        elif kind == "Reshape":
            target = self.values.get(inputs[1]) if len(inputs) > 1 else None
            made = each if target is not None and target.shape == (4,) and target[1] == 1 else None
        elif kind == "Gather" and p.get("axis", 0) == 1 and each.channel is None:
            index = self.values.get(inputs[1])
            if index is not None and index.size == 1:
                made = each.one(int(index.ravel()[0]))
        elif kind == "Unsqueeze" and each.channel is not None:
            made = each
        elif kind == "Concat" and p.get("axis") == 1 and len(names) == len(inputs):
            parts = [self.images[name] for name in inputs]
            if [part.channel for part in parts] == [*range(len(parts))]:
                scale, shift = (
                    [getattr(part, key) for part in parts] for key in ("scale", "shift")
                )
                made = Images(None, np.array(scale), np.array(shift))
        elif kind in ("Add", "Sub", "Mul", "Div") and len(inputs) == 2:
            other = inputs[1] if inputs[0] == names[0] else inputs[0]
            if other in self.values:
                made = scaled(each, kind, self.values[other], other == inputs[0])
        if made:
            self.images[output] = made
        return made is not None

    # --- layers
    def layer(
        self,
        kind: str,
        name_in: str,
        name: str,
        p: dict[str, Any],
        layer: str,
        shape: tuple[int, ...],
    ) -> int:
        """A convolution, a norm or a linear layer."""
        x, make = self.at(name_in), self.steps.make
        if kind == "BatchNormalization":
            trained = {"training": True} if p.get("training_mode") else {}
            return make("norm", [x], name, layer=layer, **trained)
        if kind != "Conv":
            return make("linear", [x], name, layer=layer)
        more = {"dilation": p.get("dilations", [1, 1]), "groups": p.get("group", 1)}
        return make("convolution", [x], name, **sides(p, list(shape[2:])), layer=layer, **more)

    # --- the rest
    def other(
        self, kind: str, inputs: list[str], data: list[str], name: str, p: dict[str, Any]
    ) -> int:
        """A node without weights."""
        x, make = self.at(data[0]), self.steps.make
        steps = [self.at(each) for each in data]
        before = self.steps.steps[x]
        constants = [self.values[each] for each in inputs if each in self.values]
        whole = len(data) == len(inputs)
        if kind in IDENTITIES or (kind == "Cast" and p.get("to") in REALS):
            return x
        if kind == "Relu":
            return make("relu", [x], name)
        if kind == "Clip" or (kind in ("Max", "Min") and len(data) == 1):
            return self.clip(kind, x, inputs, name, p)
        if kind == "MaxPool" and p.get("dilations", [1, 1]) == [1, 1]:
            up = bool(p.get("ceil_mode"))
            return make("max", [x], name, **sides(p, p.get("kernel_shape", [])), up=up)
        if kind == "AveragePool" and p.get("dilations", [1, 1]) == [1, 1]:
            numbers = sides(p, p.get("kernel_shape", []))
            counted = bool(p.get("count_include_pad")) and numbers["padding"] != [0] * 4
            return make(
                "average", [x], name, **numbers, up=bool(p.get("ceil_mode")), counted=counted
            )
        axes = self.axes(inputs, p) if kind == "ReduceMean" else []
        if kind == "GlobalAveragePool" or sorted(each % 4 for each in axes) == [2, 3]:
            return make("mean", [x], name)
        if before.kind == "flatten" and axes in ([2], [-1]):  # the pixels of a channel in a row
            return make("mean", [*before.inputs], name)
        if kind in FLATTENS:
            return make("flatten", [x], name)
        if kind == "Concat" and p.get("axis") in (1, -3) and whole:
            return make("concat", steps, name)
        if kind in ("Add", "Sum") and whole and len(data) == 2:
            return make("add", sorted(steps), name)
        if kind == "LRN":
            numbers = {
                each: float(p.get(each, usual))
                for each, usual in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
            }
            return make("local norm", [x], name, size=p.get("size"), **numbers)
        if kind == "Div" and whole and len(data) == 2 and (numbers := self.local_norm(*steps)):
            return make("local norm", [x], name, **numbers)
        if kind in ("Mul", "Div") and len(constants) == 1 and constants[0].size == 1:
            by = float(constants[0].ravel()[0])
            if kind == "Mul" or (inputs[0] == data[0] and by):
                return make("scale", [x], name, by=by if kind == "Mul" else 1 / by)
        nothing = kind == "Add" or (kind == "Sub" and inputs[0] == data[0])
        if nothing and len(constants) == 1 and not constants[0].any():
            return x
        if kind == "Transpose":
            perm = p.get("perm", [])
            if before.kind == kind and [before.p["perm"][each] for each in perm] == [*range(4)]:
                return before.inputs[0]
            return make(kind, [x], name, perm=perm)
        if kind == "Pad" and p.get("mode", "constant") == "constant":
            return self.pad(x, inputs, name, p)
        if kind == "MatMul" and whole is False and len(constants) == 1:
            return self.matrix(x, constants[0], inputs[0] == data[0], name)
        numbers = {key: p[key] for key in p if isinstance(p[key], (int, float, str))}
        for each in constants:
            if each.size == 1 and each.dtype.kind == "f":
                numbers["by" if inputs[0] == data[0] or kind == "Add" else "of"] = float(
                    each.ravel()[0]
                )
        return make(kind[:1].upper() + kind[1:], steps, name, **numbers)  # no kind of a spec

    def local_norm(self, x: int, divisor: int) -> dict[str, Any]:
        """The numbers of a local norm that PyTorch exports as a mean of squares; else nothing."""
        found, step = {"alpha": 1.0}, self.steps.steps[divisor]
        for kind, key in (("Pow", "beta"), ("Add", "bias")):
            if step.kind != kind or "by" not in step.p:
                return {}
            found[key], step = step.p["by"], self.steps.steps[step.inputs[0]]
        while step.inputs and step.kind != "Mul":
            if step.kind == "scale":
                found["alpha"] *= step.p["by"]
            elif step.kind == "average" and step.p["kernel"][1:] == [1, 1] and "size" not in found:
                found["size"] = step.p["kernel"][0]
            elif step.kind not in ("flatten", "pad", "Pad"):
                return {}
            step = self.steps.steps[step.inputs[0]]
        return found if step.kind == "Mul" and step.inputs == (x, x) and len(found) == 4 else {}

    def clip(self, kind: str, x: int, inputs: list[str], name: str, p: dict[str, Any]) -> int:
        """A Clip: a ReLU if it has no upper limit."""
        if any(each and each not in self.values for each in inputs[1:] if kind == "Clip"):
            return self.steps.make("Clip", [x], name, most="a computed number")
        limits = [self.values.get(each) for each in inputs[1:]] if kind == "Clip" else []
        if kind != "Clip":
            limits = [self.values.get(each) for each in inputs if each in self.values]
            limits = limits if kind == "Max" else [None, *limits]
        ends = [p.get("min"), p.get("max")]
        for index, limit in enumerate(limits[:2]):
            ends[index] = float(limit.ravel()[0]) if limit is not None and limit.size == 1 else None
        if ends[0] == 0 and (ends[1] is None or ends[1] > 1e30):
            return self.steps.make("relu", [x], name)
        return self.steps.make("Clip", [x], name, least=ends[0], most=ends[1])

    def axes(self, inputs: list[str], p: dict[str, Any], at: int = 1) -> list[int]:
        """The axes of a node, an attribute or its input `at`; none if they are not told."""
        axes: list[int] = p.get("axes", [])
        if not axes and len(inputs) > at and inputs[at] in self.values:
            axes = self.values[inputs[at]].ravel().tolist()
        return axes

    def pad(self, x: int, inputs: list[str], name: str, p: dict[str, Any]) -> int:
        """Constant values around the map."""
        if any(each and each not in self.values for each in inputs[1:]):
            return self.steps.make("Pad", [x], name, pads="computed numbers")
        pads, value = p.get("pads"), p.get("value", 0.0)
        if pads is None and len(inputs) > 1 and inputs[1] in self.values:
            pads = self.values[inputs[1]].ravel().tolist()
        if len(inputs) > 2 and inputs[2] in self.values:
            value = float(self.values[inputs[2]].ravel()[0])
        if pads and (axes := self.axes(inputs, p, 3)):
            places = [each % 4 + more for more in (0, 4) for each in axes]
            told = dict(zip(places, pads, strict=True))
            pads = [told.get(place, 0) for place in range(8)]
        if not pads or len(pads) != 8 or any(pads[at] for at in (0, 1, 4, 5)):
            return self.steps.make("Pad", [x], name, pads=pads)
        value = -np.inf if value < -1e30 else float(value)
        padding = [*pads[2:4], *pads[6:8]]
        return self.steps.make("pad", [x], name, padding=padding, value=value) if any(pads) else x

    def matrix(self, x: int, matrix: np.ndarray, right: bool, name: str) -> int:
        """A product with a constant: half of an adaptive pool, if these are means of windows."""
        means = matrix.T if right else matrix
        before = self.steps.steps[x]
        if means.ndim != 2 or not np.allclose(means, windows(*means.shape)):
            return self.steps.make("MatMul", [x], name)
        if right and before.kind == "means of rows":
            size = [before.p["count"], len(means)]
            return self.steps.make("adaptive", [*before.inputs], name, size=size)
        kind = "means of columns" if right else "means of rows"
        return self.steps.make(kind, [x], name, count=len(means))


def windows(count: int, length: int) -> np.ndarray:
    """The matrix of the means that an adaptive pool takes along one axis."""
    found = np.zeros((count, length))
    for row, (first, behind) in zip(
        found, AdaptiveAvgPool(count).windows(length, length)[0], strict=True
    ):
        row[first:behind] = 1 / (behind - first)
    return found


def scaled(images: Images, kind: str, value: np.ndarray, swapped: bool) -> Images | None:
    """Images after a constant; None if that is no scale and no shift for each channel."""
    number = value.ravel().astype(np.float64)
    number = number[0] if len(number) == 1 else number
    if value.size > MOST_CHANNELS or value.size != max(value.shape, default=1):
        return None
    with np.errstate(all="ignore"):
        if kind in ("Mul", "Div") and not (swapped and kind == "Div"):
            by = number if kind == "Mul" else 1 / number
            return replace(images, scale=images.scale * by, shift=images.shift * by)
        if kind == "Add":
            return replace(images, shift=images.shift + number)
        if kind == "Sub" and not swapped:
            return replace(images, shift=images.shift - number)
        if kind == "Sub":
            return replace(images, scale=-1 * images.scale, shift=number - images.shift)
    return None


def sides(p: dict[str, Any], kernel: list[int]) -> dict[str, Any]:
    """Kernel, stride and padding of a window; the padding may be a word for one of TensorFlow's."""
    stride = p.get("strides", [1] * len(kernel))
    padding: Any = p.get("pads", [0] * 2 * len(kernel))
    auto = p.get("auto_pad", "NOTSET")
    if auto == "VALID":
        padding = [0] * 4
    elif auto.startswith("SAME"):
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, p.get("dilations", [1, 1]), strict=False)]
        less, more = [(k - 1) // 2 for k in spans], [k // 2 for k in spans]
        padding = [*less, *more] if auto == "SAME_UPPER" else [*more, *less]
        if stride != [1, 1]:
            padding = f"{auto}, which depends on the size of the images"
    return {"kernel": kernel, "stride": stride, "padding": padding}


def operator(node: Message) -> str:
    """The operator of a node; with its domain, if that is not ONNX's own."""
    domain, kind = node.text(DOMAIN), node.text(OPERATOR)
    return kind if domain in ("", "ai.onnx") else f"{domain}::{kind}"


def attributes(node: Message) -> dict[str, Any]:
    """The numbers and texts among a node's attributes."""
    found = dict[str, Any]()
    for each in node.messages(ATTRIBUTE):
        name = each.text(1)
        if INTEGERS in each.fields:
            found[name] = [signed(value) for value in each.whole(INTEGERS)]
        elif TEXT in each.fields:
            found[name] = each.text(TEXT)
        elif numbers := [float32(data) for data in each.bytes(FLOAT)]:
            found[name] = numbers[0]
        elif not {5, 6, FLOATS} & {*each.fields}:
            found[name] = signed((each.whole(INTEGER) or [0])[0])
    return found


def signed(value: int) -> int:
    """A whole number that a varint holds as 64 bits."""
    return value - 2**64 if value >= 2**63 else value
