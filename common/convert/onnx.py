"""The network as an ONNX graph, written from a spec and canonical weights without any framework.

Nodes and tensors have the canonical names, so a viewer shows the spec's terms. The graph is in
evaluation mode: norms use their running statistics, and there is no dropout. The input `images` is
(N, C, H, W). Its height and width are free, unless the network has auxiliary heads. The outputs
`logits` and `auxiliary.0`, ... are (N, classes). Source: the list of ONNX operators, opset 17.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from common.errors import BackendError
from common.files import install_command
from common.spec import (
    AdaptiveAvgPool,
    Affine,
    Auxiliary,
    AvgPool,
    Branches,
    Conv,
    GlobalAvgPool,
    Inception,
    LocalNorm,
    MaxPool,
    Residual,
    Row,
    Spec,
    inner_rows,
    pair,
)
from common.spec.arithmetic import stage_shapes, walk
from common.weights import Weights, check

OPSET, IR_VERSION = 17, 8  #: from 2022; every runtime since then reads it
ONNX = "onnx"  #: the format's name
INSTALL = install_command("onnx", "cross")  # NumPy 2 breaks MXNet


def package(name: str) -> Any:
    """Import `onnx` or `onnxruntime`; BackendError with the install command if it is missing."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BackendError(f"{name} is not installed; install it with `{INSTALL}`.") from error


def encode(spec: Spec, weights: Weights) -> bytes:
    """The bytes of the ONNX file, checked by `onnx.checker`; equal weights give equal bytes."""
    onnx = package("onnx")
    check(spec, weights)
    kind = onnx.helper.np_dtype_to_tensor_dtype(weights["head.weight"].dtype)
    graph = Graph(onnx, spec, weights)
    channels, height, width = spec.input
    size = (height, width) if spec.auxiliary else ("height", "width")
    x = "images"
    for stage, rows in spec.stages():
        x = graph.rows(x, rows, stage)
    graph.linear(x, "head", "logits")
    sides = [graph.auxiliary(row, f"auxiliary.{i}") for i, row in enumerate(spec.auxiliary)]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            spec.name,
            [onnx.helper.make_tensor_value_info("images", kind, ["N", channels, *size])],
            [
                onnx.helper.make_tensor_value_info(name, kind, ["N", spec.head.width])
                for name in ("logits", *sides)
            ],
            [
                onnx.numpy_helper.from_array(array, name)
                for name, array in (weights | graph.constants).items()
            ],
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="googlenet",
    )
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


class Graph:
    """The nodes of the graph; a node has the name of its output."""

    def __init__(self, onnx: Any, spec: Spec, weights: Weights) -> None:
        self.onnx, self.spec, self.nodes = onnx, spec, list[Any]()
        self.dtype = weights["head.weight"].dtype
        self.constants: Weights = {}  # numbers of rows that are not weights
        self.last: dict[str, str] = {}  # the output of every row of a stage
        self.entering = stage_shapes(spec)["stage3"]

    def node(self, operator: str, output: str, inputs: list[str], **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        made = self.onnx.helper.make_node(operator, inputs, [output], output, **attributes)
        self.nodes.append(made)
        return output

    def rows(self, x: str, rows: tuple[Row, ...], name: str) -> str:
        """Add the rows of a stage or branch in sequence."""
        for index, row in enumerate(rows):
            x = self.last[f"{name}.{index}"] = self.row(x, row, f"{name}.{index}")
        return x

    def constant(self, name: str, values: Any, shape: tuple[int, ...]) -> str:
        """Add numbers that are not weights, and return their name."""
        self.constants[name] = np.array(values, self.dtype).reshape(shape)
        return name

    def linear(self, x: str, name: str, output: str) -> str:
        """Add a linear layer."""
        return self.node("Gemm", output, [x, f"{name}.weight", f"{name}.bias"], transB=1)

    def auxiliary(self, row: Auxiliary, name: str) -> str:
        """Add an auxiliary head; its output has its name."""
        x = self.last[f"stage4.{row.after}"]
        if isinstance(row.pool, AvgPool):
            x = self.row(x, row.pool, name)
        else:
            _, shape = walk(self.spec.stage4[: row.after + 1], self.entering, self.spec.norm)
            x = self.adaptive(x, row.pool, f"{name}.pool", shape)
        x = self.conv(x, row.conv, f"{name}.conv")
        if isinstance(row.hidden, Conv):
            x = self.conv(x, row.hidden, f"{name}.hidden")
            x = self.row(x, GlobalAvgPool(), f"{name}.mean")
        else:
            x = self.node("Flatten", f"{name}.flat", [x])
            x = self.linear(x, f"{name}.hidden", f"{name}.hidden")
            if row.hidden.activation:
                x = self.node("Relu", f"{name}.relu", [x])
        return self.linear(x, f"{name}.head", name)

    def adaptive(self, x: str, row: AdaptiveAvgPool, name: str, shape: tuple[int, ...]) -> str:
        """Adaptive pooling as two matrix products, because ONNX has no such pool."""
        means = []
        for length, windows in zip(shape[2:], row.windows(*shape[2:]), strict=True):
            pixels = np.arange(length)
            inside = [(first <= pixels) & (pixels < behind) for first, behind in windows]
            means.append(np.array(inside) / np.sum(inside, 1, keepdims=True))
        left, right = means
        left_name = self.constant(f"{name}.rows", left, left.shape)
        right_name = self.constant(f"{name}.columns", right.T, right.T.shape)
        x = self.node("MatMul", f"{name}.means", [left_name, x])
        return self.node("MatMul", name, [x, right_name])

    def row(self, x: str, row: Row, name: str) -> str:
        """Add one row of the spec."""
        match row:
            case Conv():
                return self.conv(x, row, name)
            case MaxPool():
                ceil = int(row.ceil)
                return self.node("MaxPool", f"{name}.pool", [x], ceil_mode=ceil, **window(row))
            case AvgPool():
                counted = int(row.counted)
                return self.node(
                    "AveragePool", f"{name}.pool", [x], count_include_pad=counted, **window(row)
                )
            case Affine():
                shape = (1, len(row.scale), 1, 1)
                scale = self.constant(f"{name}.scale", row.scale, shape)
                shift = self.constant(f"{name}.shift", row.shift, shape)
                x = self.node("Mul", f"{name}.scaled", [x, scale])
                return self.node("Add", f"{name}.shifted", [x, shift])
            case Inception() | Branches():
                branches = [self.rows(x, rows, f"{name}.{one}") for one, rows in inner_rows(row)]
                return self.node("Concat", f"{name}.concat", branches, axis=1)
            case Residual():
                scale = self.constant(f"{name}.scale", row.scale, ())
                y = self.rows(x, row.rows, f"{name}.rows")
                y = self.node("Mul", f"{name}.scaled", [y, scale])
                x = self.node("Add", f"{name}.sum", [x, y])
                return self.node("Relu", f"{name}.relu", [x]) if row.activation else x
            case LocalNorm():  # alpha is divided by the size, as here
                numbers = {"alpha": row.alpha, "beta": row.beta, "bias": row.k, "size": row.size}
                return self.node("LRN", f"{name}.normed", [x], **numbers)
            case GlobalAvgPool():
                mean = self.node("GlobalAveragePool", f"{name}.mean", [x])
                return self.node("Flatten", f"{name}.flat", [mean])
        raise TypeError(f"there is no ONNX for {type(row).__name__}")

    def conv(self, x: str, row: Conv, name: str) -> str:
        """Add a convolution, the norm if the network has one, and the ReLU if the row has one."""
        parameters = [f"{name}.conv.{leaf}" for leaf in ("weight", "bias")[: 1 + row.bias]]
        x = self.node("Conv", f"{name}.conv", [x, *parameters], **window(row))
        if self.spec.norm and row.norm:
            leaves = ("weight", "bias", "running_mean", "running_var")
            parameters = [f"{name}.norm.{leaf}" for leaf in leaves]
            eps = self.spec.norm.eps
            x = self.node("BatchNormalization", f"{name}.norm", [x, *parameters], epsilon=eps)
        return self.node("Relu", f"{name}.relu", [x]) if row.activation else x


def window(row: Conv | MaxPool | AvgPool) -> dict[str, list[int]]:
    """Kernel, stride and padding as ONNX attributes; pads are (top, left, bottom, right)."""
    padding = list(pair(row.padding))
    return {
        "kernel_shape": list(pair(row.kernel)),
        "strides": list(pair(row.stride)),
        "pads": padding + padding,
    }


def run(path: Path, x: np.ndarray, output: str = "logits") -> np.ndarray:
    """The logits of images (N, C, H, W), or another output, computed by onnxruntime on the CPU."""
    runtime = package("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run([output], {"images": x})
    found: np.ndarray = logits
    return found
