"""Reads the weights in an ONNX file, in the order of its nodes, without the package `onnx`.

A convolution, a norm and a linear layer become tensors named as in PyTorch. Source: onnx.proto of
https://github.com/onnx/onnx for the fields, and its list of operators.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from common.formats.readers.base import LARGEST, Content, Unreadable, array_of, require_few
from common.formats.readers.protobuf import Message, float32

#: fields: of a model, a graph, a node, an attribute, a tensor
GRAPH, NODE, INITIALIZER = 7, 1, 5
INPUT, OUTPUT, NAME, OPERATOR, ATTRIBUTE = 1, 2, 3, 4, 5
FLOAT, WHOLE, TENSOR = 2, 3, 5
DIMS, KIND, FLOATS, LABEL, RAW, DOUBLES, EXTERNAL, OUTSIDE = 1, 2, 4, 8, 9, 10, 13, 14

TYPES = {
    **{1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool"},
    **{10: "float16", 11: "float64", 16: "bfloat16"},
}
NORM = ("weight", "bias", "running_mean", "running_var")
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
    found, eps = dict[str, Any](), set[float]()
    adds: dict[str, str] = {}  # the output of a product of matrices: its layer
    biased, unbiased = dict[str, str](), dict[str, str]()  # the operator of each layer
    pooled = set[str]()  # images multiplied from the left: half of an adaptive pool, no layer
    for index, node in enumerate(graphs[0].messages(NODE)):
        kind, inputs, outputs = node.text(OPERATOR), node.texts(INPUT), node.texts(OUTPUT)
        if kind in QUANTISED:
            raise Unreadable("is quantised: export the network before it is quantised.")
        if kind == "Constant" and outputs:
            for attribute in node.messages(ATTRIBUTE):
                for each in attribute.messages(TENSOR):
                    values[outputs[0]] = array(each, data)
        elif kind == "Identity" and inputs and inputs[0] in values:
            values[outputs[0]] = values[inputs[0]]
        elif kind == "Transpose" and inputs[:1] and values.get(inputs[0], np.zeros(1)).ndim == 2:
            values[outputs[0]] = values[inputs[0]].T
        leaves = {"Conv": NORM[:2], "BatchNormalization": NORM, "Gemm": NORM[:2]}
        leaves |= {"MatMul": NORM[:1]}
        given = inputs[1 : 1 + len(leaves.get(kind, ()))]
        if kind == "Add" and len(inputs) == 2:
            for one, other in (inputs, inputs[::-1]):
                if one in adds and other in values:
                    found.setdefault(f"{adds[one]}.bias", values[other].reshape(-1))
        if kind == "MatMul" and inputs[0] in values:
            pooled.update(outputs)
        if not given or any(name not in values for name in given) or inputs[0] in pooled:
            continue
        layer = layer_name(given[0], f"{kind}_{index}", found)
        if kind == "MatMul" and outputs:
            adds[outputs[0]] = layer
        for leaf, name in zip(leaves[kind], given, strict=False):
            value = values[name]
            if leaf == "weight" and (kind == "MatMul" or (kind == "Gemm" and not transposed(node))):
                value = value.T
            found[f"{layer}.{leaf}"] = value
        if kind == "BatchNormalization":
            eps.add(epsilon(node))
        elif kind in ("Conv", "Gemm"):
            (biased if len(given) > 1 else unbiased)[layer] = kind
    # exporters leave out a bias that is zero; but convolutions may all have none by design
    missing = not eps and ("Conv" in biased.values() or "Gemm" not in biased.values())
    for layer, kind in unbiased.items():
        if missing or kind == "Gemm":
            weight = found[f"{layer}.weight"]
            found[f"{layer}.bias"] = np.zeros(len(weight), weight.dtype)
    return Content(found, eps.pop() if len(eps) == 1 else None, beside=data.size)


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


def transposed(node: Message) -> bool:
    """Whether a Gemm has its weights as (out, in)."""
    for attribute in node.messages(ATTRIBUTE):
        if attribute.text(1) == "transB":
            return attribute.whole(WHOLE) == [1]
    return False


def epsilon(node: Message) -> float:
    """The eps of a norm: its attribute, or the operator's default."""
    for attribute in node.messages(ATTRIBUTE):
        if attribute.text(1) == "epsilon":
            for data in attribute.bytes(FLOAT):
                if (eps := float32(data)) > SMALLEST_EPS and eps < 1:
                    return eps
            raise Unreadable("is damaged: a norm has no eps between 0 and 1.")
    return 1e-5


def array(tensor: Message, outside: DataFile) -> np.ndarray:
    """The values of a tensor; a scalar and an empty tensor belong to no layer."""
    shape, kind = tensor.whole(DIMS), (tensor.whole(KIND) or [0])[0]
    if not shape or 0 in shape:
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
    elif not data:
        return np.zeros(())  # whole numbers in a field of their own: a shape, not weights
    return array_of(data, TYPES[kind], shape)
