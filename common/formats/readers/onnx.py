"""Reads the weights in an ONNX file, in the order of its nodes, without the package `onnx`.

A convolution, a norm and a linear layer become tensors named as in PyTorch. Constants that a graph
adds to a layer, or multiplies it by, are taken into the layer. Source: onnx.proto of
https://github.com/onnx/onnx for the fields, and its list of operators.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from common.formats.readers.base import LARGEST, Content, Unreadable, array_of, require_few
from common.formats.readers.onnx_flow import (
    ATTRIBUTE,
    DOMAIN,
    INPUT,
    OPERATOR,
    OUTPUT,
    Flow,
    attributes,
    operator,
    signed,
)
from common.formats.readers.protobuf import Message

#: fields: of a model, a graph, a node, an attribute, a tensor
GRAPH, NODE, INITIALIZER = 7, 1, 5
IMAGES, RESULTS = 11, 12  # of a graph
TENSOR = 5
DIMS, KIND, FLOATS, INTEGERS, LABEL, RAW, DOUBLES = 1, 2, 4, 7, 8, 9, 10
EXTERNAL, OUTSIDE = 13, 14

TYPES = {
    **{1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool"},
    **{10: "float16", 11: "float64", 16: "bfloat16"},
}
NORM = ("weight", "bias", "running_mean", "running_var")
#: the tensors of a node, after its first input
LEAVES = {"Conv": NORM[:2], "BatchNormalization": NORM, "Gemm": NORM[:2], "MatMul": NORM[:1]}
#: what may stand between a layer and its constants
ARITHMETIC = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}
PASSED = ("Identity", "Cast", "Transpose", "Reshape")
QUANTISED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger")
SMALLEST_EPS = 1e-12


def read_onnx(file: BinaryIO, path: Path | None = None) -> Content:
    """The tensors of all layers, and the eps of the norms.

    PyTorch's newer exporter writes the values into a second file, which is looked for beside
    `path`.
    """
    model, data = Message(file.read()), DataFile(path)
    graphs = model.messages(GRAPH)
    if len(graphs) != 1:
        raise Unreadable("is an ONNX file without a graph, or damaged.")
    values = dict[str, np.ndarray]()
    for each in graphs[0].messages(INITIALIZER):
        require_few(len(values) + 1)
        values[each.text(LABEL)] = array(each, data)
    images, results = (
        [each.text(1) for each in graphs[0].messages(end)] for end in (IMAGES, RESULTS)
    )
    nodes = in_flow(graphs[0].messages(NODE), results)
    layers = Layers(values, {*images} - {*values})
    layers.uses.update(name for node in nodes for name in node.texts(INPUT))
    flow = Flow({*images} - {*values}, values)
    for index, node in enumerate(nodes):
        kind, inputs, outputs = operator(node), node.texts(INPUT), node.texts(OUTPUT)
        if kind in QUANTISED:
            raise Unreadable("is quantised: export the network before it is quantised.")
        if node.text(DOMAIN).startswith("com.microsoft"):
            raise Unreadable(
                f"was optimised by ONNX Runtime ({node.text(OPERATOR):.40}): give the file as it "
                "was exported."
            )
        if kind == "Constant" and outputs:
            for attribute in node.messages(ATTRIBUTE):
                for each in attribute.messages(TENSOR):
                    values[outputs[0]] = array(each, data)
            for number in (number for number in attributes(node).values() if number != ""):
                values[outputs[0]] = np.array(number)
        elif kind in PASSED and inputs and outputs:
            layers.passed(kind, inputs[0], outputs[0])
        elif kind in ARITHMETIC and len(inputs) == 2 and outputs and {*inputs} & {*values}:
            layers.arithmetic(kind, inputs, outputs[0])
        elif kind in LEAVES and inputs and outputs:
            layers.layer(node, f"{kind}_{index}", inputs, outputs[0])
        output = outputs[0] if outputs else ""
        layer = layers.made.get(output, "")
        weight = layers.found[f"{layer}.weight"].shape if layer else ()
        flow.node(node, layer, weight, output in layers.folded)
    layers.zero_biases()
    eps = layers.eps[0] if layers.eps else None
    steps = flow.of(results)
    return Content(layers.found, eps, beside=data.size, scales=steps.scales(), steps=steps)


class Layers:
    """The layers of a graph, whose nodes come one after the other.

    `values` are the graph's constants, `images` the names of its inputs.
    """

    def __init__(self, values: dict[str, np.ndarray], images: set[str]) -> None:
        self.values, self.images = values, images
        self.found = dict[str, Any]()  #: the tensors by name
        self.eps = list[float]()  #: of each norm
        self.kinds = dict[str, str]()  # the operator of each convolution and linear layer
        self.last = dict[str, str]()  # a value in the graph: the layer that it is the result of
        self.pooled = set[str]()  # images multiplied from the left: half of an adaptive pool
        self.made = dict[str, str]()  #: a value in the graph: the layer of the node that makes it
        self.folded = set[str]()  #: values that only take a constant into the layer before
        self.uses = Counter[str]()  #: how many nodes take a value

    def passed(self, kind: str, one: str, output: str) -> None:
        """A node that changes no numbers."""
        if one in self.values:
            value = self.values[one]
            if value.ndim == 1 or kind != "Reshape":
                turned = kind == "Transpose" and value.ndim == 2
                self.values[output] = value.T if turned else value
        elif one in self.images:
            self.images.add(output)
        elif one in self.last and kind != "Reshape":
            self.last[output] = self.last[one]

    def arithmetic(self, kind: str, inputs: list[str], output: str) -> None:
        """A node that adds a constant, or multiplies by one; Unreadable if it belongs nowhere."""
        one, other = inputs if inputs[1] in self.values else inputs[::-1]
        value, swapped = self.values[other], one != inputs[0] and kind in ("Sub", "Div")
        if one in self.images:
            self.images.add(output)
        elif (
            not swapped
            and one in self.last
            and self.uses[one] < 2
            and fold(self.found, self.last[one], kind, value)
        ):
            self.last[output] = self.last[one]
            self.folded.add(output)
        elif one not in self.values and value.dtype.kind == "f" and value.size > 1:
            raise Unreadable(
                f"has constants ({kind}: {other:.60}) that no layer can take: export the network "
                "without them."
            )

    def layer(self, node: Message, other_name: str, inputs: list[str], output: str) -> None:
        """A node with weights: its tensors."""
        kind, values = node.text(OPERATOR), self.values
        given = inputs[1 : 1 + len(LEAVES[kind])]
        if kind == "MatMul" and inputs[0] in values:
            self.pooled.add(output)
        if not given or any(name not in values for name in given) or inputs[0] in self.pooled:
            return
        p = attributes(node)
        if p.get("transA"):
            return
        layer = self.made[output] = layer_name(given[0], other_name, self.found)
        for leaf, name in zip(LEAVES[kind], given, strict=False):
            value = values[name]
            turned = kind == "MatMul" or (kind == "Gemm" and p.get("transB") != 1)
            value = value.T if leaf == "weight" and turned else value
            by = p.get("alpha" if leaf == "weight" else "beta", 1.0) if kind == "Gemm" else 1.0
            self.found[f"{layer}.{leaf}"] = value if by == 1 else value * value.dtype.type(by)
        if kind != "BatchNormalization":
            self.kinds[layer], self.last[output] = kind, layer
            return
        self.eps.append(p.get("epsilon", 1e-5))
        if not SMALLEST_EPS < self.eps[-1] < 1:
            raise Unreadable("is damaged: a norm has no eps between 0 and 1.")
        if self.eps[-1] != self.eps[0]:  # a network of ours has one: exact in evaluation
            gamma, variance = (values[name].astype(np.float64) for name in given[::3])
            gamma *= np.sqrt((variance + self.eps[0]) / (variance + self.eps[-1]))
            self.found[f"{layer}.weight"] = gamma.astype(values[given[0]].dtype)

    def zero_biases(self) -> None:
        """Exporters leave out a bias that is zero; but convolutions may all have none by design."""
        biased = {kind for layer, kind in self.kinds.items() if f"{layer}.bias" in self.found}
        missing = not self.eps and ("Conv" in biased or "Gemm" not in biased)
        for layer, kind in self.kinds.items():
            if (
                f"{layer}.bias" not in self.found
                and kind != "MatMul"
                and (missing or kind != "Conv")
            ):
                weight = self.found[f"{layer}.weight"]
                self.found[f"{layer}.bias"] = np.zeros(len(weight), weight.dtype)


def in_flow(nodes: list[Message], results: list[str]) -> list[Message]:
    """The nodes, each after those that make its inputs, in the order of the inputs.

    So the layers of a block come in the order in which it concatenates its branches: exporters
    write nodes in other orders. Nodes that no result needs come last.
    """
    makers = {name: index for index, node in enumerate(nodes) for name in node.texts(OUTPUT)}
    found = dict[int, Message]()
    begun = set[int]()
    todo = [*range(len(nodes) - 1, -1, -1)]
    todo += [makers[name] for name in reversed(results) if name in makers]
    while todo:
        index = todo[-1]
        inputs = nodes[index].texts(INPUT) if index not in begun else []
        begun.add(index)
        makes = [makers[name] for name in reversed(inputs) if name in makers]
        if new := [each for each in makes if each not in begun]:
            todo += new
            continue
        found.setdefault(todo.pop(), nodes[index])
    return [*found.values()]


def fold(found: dict[str, Any], layer: str, kind: str, value: np.ndarray) -> bool:
    """Take one constant for each channel into a layer; False if these are none."""
    weight = found[f"{layer}.weight"]
    if not 1 < value.size == max(value.shape) == len(weight):
        return False
    value, change = value.reshape(-1), ARITHMETIC[kind]
    bias = found.get(f"{layer}.bias")
    if kind in ("Mul", "Div"):
        found[f"{layer}.weight"] = change(weight, value.reshape(-1, *[1] * (weight.ndim - 1)))
    elif bias is None:
        bias = np.zeros_like(value)
    if bias is not None:
        found[f"{layer}.bias"] = change(bias, value)
    return True


class DataFile:
    """The file of a graph's values, beside the graph.

    Its name must be plain and begin as the graph's own, so that a graph cannot name another file
    of the reader's; each byte is read once.
    """

    def __init__(self, graph: Path | None) -> None:
        self.graph, self.name = graph, ""
        self.size = self.left = 0  # bytes

    def read(self, tensor: Message) -> bytes:
        """The bytes of one tensor; Unreadable if there is no such file, or they are not in it."""
        told = {each.text(1): each.text(2) for each in tensor.messages(EXTERNAL)}
        name = told.get("location", "")
        plain = self.graph and re.fullmatch(r"[\w.-]{1,150}", name, re.ASCII)
        if not (self.graph and plain and name.startswith(self.graph.stem)):
            raise Unreadable(
                "keeps its weights in another file, whose name does not begin as its own: export "
                "it with them inside."
            )
        path = self.graph.with_name(name)
        if path.is_symlink() or not path.is_file():
            raise Unreadable(
                f"keeps its weights in {name}: put that file beside it (a link is not followed)."
            )
        if not self.name:
            self.name, self.size = name, path.stat().st_size
            self.left = self.size
        offset = int(told.get("offset", "0"))
        length = int(told.get("length", str(self.size - offset)))
        self.left -= length
        if self.size > LARGEST or self.name != name:
            raise Unreadable("keeps its weights in several files, or in one that is too large.")
        if min(offset, length, self.left, self.size - offset - length) < 0:
            raise Unreadable(f"is damaged, or {name} is not its own: values lie outside of it.")
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)


def layer_name(weight: str, other: str, found: dict[str, Any]) -> str:
    """The name of a layer: that of its weight without `.weight`, or another one that is free."""
    layer = weight.removesuffix(".weight").lstrip("/")
    plain = re.fullmatch(r"[\w./-]{1,150}", layer) and layer != weight
    return layer if plain and f"{layer}.weight" not in found else other


def array(tensor: Message, outside: DataFile) -> np.ndarray:
    """The values of a tensor; zero for an empty one, which belongs to no layer."""
    shape, kind = tensor.whole(DIMS), (tensor.whole(KIND) or [0])[0]
    if 0 in shape or (not shape and kind not in TYPES):
        return np.zeros(())
    if kind not in TYPES:
        raise Unreadable(f"is damaged, or holds ONNX tensors of an unknown type ({kind}).")
    if tensor.whole(OUTSIDE)[-1:] == [1] or tensor.fields.get(EXTERNAL):
        return array_of(outside.read(tensor), TYPES[kind], shape)
    data = b"".join(tensor.bytes(RAW))
    if not data and kind == 1:
        data = b"".join(tensor.bytes(FLOATS))
    elif not data and kind == 11:
        data = b"".join(tensor.bytes(DOUBLES))
    elif not data:  # whole numbers in a field of their own: a shape, not weights
        whole = [signed(each) for each in tensor.whole(INTEGERS)]
        return np.reshape(whole, shape) if len(whole) == math.prod(shape) else np.zeros(())
    return array_of(data, TYPES[kind], shape)
