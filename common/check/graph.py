"""The reference as a graph of single steps, each of which an edit can change.

`build` makes the graph of a spec. A step has a kind and plain parameters, so a mistake is the same
step with other parameters. `compute` runs one step in NumPy float64. Images are (N, C, H, W).
`tests/unit/test_check_graph.py` compares the graph with the reference network.

Long because every kind of step is computed here, with the parameters that mistakes have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import erf
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from common import spec as rows
from common.spec import Spec, inner_rows, pair
from common.weights import Weights

Array = np.ndarray
Params = dict[str, Any]
INPUT = "input"  #: the name of the network's input

_erf = np.vectorize(erf, otypes=[float])

#: activation functions that ports have where the reference has a ReLU
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "none": lambda x: x,
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky relu 0.01": lambda x: np.where(x > 0, x, 0.01 * x),
    "leaky relu 0.1": lambda x: np.where(x > 0, x, 0.1 * x),
    "leaky relu 0.2": lambda x: np.where(x > 0, x, 0.2 * x),
    "leaky relu 0.25": lambda x: np.where(x > 0, x, 0.25 * x),
    "leaky relu 0.3": lambda x: np.where(x > 0, x, 0.3 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "selu": lambda x: (
        1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0)))
    ),
    "gelu": lambda x: x * 0.5 * (1 + _erf(x / np.sqrt(2))),
    "gelu (tanh)": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x * _sigmoid(x),
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "mish": lambda x: x * np.tanh(np.logaddexp(x, 0)),
    "softplus": lambda x: np.logaddexp(x, 0),
    "sigmoid": lambda x: _sigmoid(x),
    "tanh": np.tanh,
    "abs": np.abs,
}


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))


@dataclass(frozen=True, eq=False)
class Node:
    """One step: its canonical name, its kind, the names of its inputs, its parameters.

    Kinds: conv, norm, act, pool, concat, gap (global average pool), adaptive (average pool to a
    fixed size), affine, local norm, flatten, linear, add, out (what the network returns). `before`
    and `insert` in the parameters are lists of further steps (kind, parameters) before and behind
    this one.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    p: Params = field(default_factory=dict)

    def edited(self, **change: Any) -> Node:
        """The same step with some parameters changed."""
        return replace(self, p={**self.p, **change})


class Graph:
    """Steps by name, in an order in which each comes behind its inputs."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.users: dict[str, list[str]] = {INPUT: []}
        for node in self.nodes.values():
            self.users.setdefault(node.name, [])
            for name in node.inputs:
                self.users[name].append(node.name)

    def edited(self, edits: Mapping[str, Params]) -> Graph:
        """The graph with the parameters of some steps replaced."""
        return Graph(
            replace(node, p=p, inputs=(p["reads"],) if "reads" in p else node.inputs)
            if (p := edits.get(node.name))
            else node
            for node in self.nodes.values()
        )

    def outputs(self) -> list[str]:
        """What the network returns, in order: the logits, then those of auxiliary heads."""
        return [node.name for node in self.nodes.values() if node.kind == "out"]

    def run(self, x: Array, weights: Weights) -> dict[str, Array]:
        """Every step's value by name."""
        values = {INPUT: np.asarray(x, np.float64)}
        if INPUT in self.nodes:
            values[INPUT] = compute(self.nodes[INPUT], [values[INPUT]], weights)
        for node in self.nodes.values():
            if node.name != INPUT:
                values[node.name] = compute(node, [values[i] for i in node.inputs], weights)
        return values


def build(spec: Spec) -> Graph:
    """The graph of a spec; its first step is the input, which changes nothing."""
    return Graph(_Builder(spec).nodes)


class _Builder:
    def __init__(self, spec: Spec) -> None:
        self.nodes = [Node(INPUT, "input", ())]
        self.norm = spec.norm
        x, ends = INPUT, []
        for stage, table in spec.stages():
            for index, row in enumerate(table):
                x = self.row(x, row, f"{stage}.{index}")
                for number, head in enumerate(spec.auxiliary):
                    if (stage, index) == ("stage4", head.after):
                        ends.append(self.auxiliary(x, head, f"auxiliary.{number}"))
        x = self.add("head", "linear", [x], bias=True)
        self.add("output", "out", [x], fn="none")
        for number, end in enumerate(ends):
            self.add(f"output.auxiliary.{number}", "out", [end], fn="none")

    def add(self, name: str, kind: str, inputs: Sequence[str], **p: Any) -> str:
        self.nodes.append(Node(name, kind, tuple(inputs), p))
        return name

    def chain(self, x: str, table: Sequence[Any], name: str) -> str:
        for index, row in enumerate(table):
            x = self.row(x, row, f"{name}.{index}")
        return x

    def conv(self, x: str, row: rows.Conv, name: str) -> str:
        (top, left), kernel, stride = pair(row.padding), pair(row.kernel), pair(row.stride)
        x = self.add(
            f"{name}.conv",
            "conv",
            [x],
            kernel=kernel,
            stride=stride,
            pad=(top, top, left, left),
            bias=row.bias,
            dilation=1,
            layout="",
        )
        if self.norm and row.norm:
            x = self.add(
                f"{name}.norm", "norm", [x], eps=self.norm.eps, mode="running", affine=True
            )
        return self.add(f"{name}.relu", "act", [x], fn="relu") if row.activation else x

    def row(self, x: str, row: Any, name: str) -> str:
        match row:
            case rows.Conv():
                return self.conv(x, row, name)
            case rows.MaxPool() | rows.AvgPool():
                top, left = pair(row.padding)
                counted = isinstance(row, rows.AvgPool) and row.counted and (top or left)
                mean = "avg with padding" if counted else "avg"
                return self.add(
                    name,
                    "pool",
                    [x],
                    kernel=pair(row.kernel),
                    stride=pair(row.stride),
                    pad=(top, top, left, left),
                    fill="-inf",
                    ceil=isinstance(row, rows.MaxPool) and row.ceil,
                    fn="max" if isinstance(row, rows.MaxPool) else mean,
                )
            case rows.Inception() | rows.Branches():
                ends = [self.chain(x, each, f"{name}.{part}") for part, each in inner_rows(row)]
                return self.add(name, "concat", ends, order=tuple(range(len(ends))))
            case rows.Residual():
                y = self.chain(x, row.rows, f"{name}.rows")
                y = self.add(f"{name}.scale", "affine", [y], scale=(row.scale,), shift=(0.0,))
                y = self.add(f"{name}.sum", "add", [x, y])
                return self.add(f"{name}.relu", "act", [y], fn="relu") if row.activation else y
            case rows.LocalNorm():
                p = {"size": row.size, "alpha": row.alpha, "beta": row.beta, "k": row.k}
                return self.add(name, "local norm", [x], **p)
            case rows.GlobalAvgPool():
                return self.add(name, "gap", [x], fn="mean")
            case rows.AdaptiveAvgPool():
                return self.add(name, "adaptive", [x], size=pair(row.size))
            case rows.Affine():
                return self.add(name, "affine", [x], scale=row.scale, shift=row.shift)
        raise TypeError(f"the graph has no {type(row).__name__}")

    def auxiliary(self, x: str, row: rows.Auxiliary, name: str) -> str:
        x = self.row(x, row.pool, f"{name}.pool")
        x = self.conv(x, row.conv, f"{name}.conv")
        if isinstance(row.hidden, rows.Conv):
            x = self.conv(x, row.hidden, f"{name}.hidden")
            x = self.add(f"{name}.mean", "gap", [x], fn="mean")
            return self.add(f"{name}.head", "linear", [x], bias=True)
        x = self.add(f"{name}.flatten", "flatten", [x], order="CHW")
        x = self.add(f"{name}.hidden", "linear", [x], bias=True)
        if row.hidden.activation:
            x = self.add(f"{name}.relu", "act", [x], fn="relu")
        return self.add(f"{name}.head", "linear", [x], bias=True)


# ---- one step


def compute(node: Node, inputs: Sequence[Array], weights: Weights) -> Array:
    """The step's output, with the further steps that are inserted before and behind it."""
    for kind, p in node.p.get("before", ()):
        first = KINDS[kind](Node(f"{node.name}-", kind, (), p), inputs[:1], weights)
        inputs = [first, *inputs[1:]]
    y = KINDS[node.kind](node, inputs, weights)
    for kind, p in node.p.get("insert", ()):
        y = KINDS[kind](Node(f"{node.name}+", kind, (), p), [y], weights)
    return y


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """What `'same'` pads in front and behind: the odd row goes behind."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def padding_of(p: Params, shape: Sequence[int]) -> tuple[int, int, int, int]:
    """The padding above, below, left and right of a conv or pool for an input of that shape."""
    if p["pad"] == "same":
        dilation = p.get("dilation", 1)
        kernel = [(k - 1) * dilation + 1 for k in p["kernel"]]
        high, wide = (
            same_padding(size, k, s)
            for size, k, s in zip(shape[2:], kernel, p["stride"], strict=True)
        )
        return (*high, *wide)
    top, bottom, left, right = p["pad"]
    return top, bottom, left, right


def output_size(p: Params, shape: Sequence[int]) -> tuple[int, int] | None:
    """The height and width behind a conv or pool; None if no window fits."""
    top, bottom, left, right = padding_of(p, shape)
    sides = []
    for size, k, s in zip(
        (shape[2] + top + bottom, shape[3] + left + right), p["kernel"], p["stride"], strict=True
    ):
        span = (k - 1) * p.get("dilation", 1) + 1
        if size < span:
            return None
        sides.append((size - span + (s - 1) * bool(p.get("ceil"))) // s + 1)
    return sides[0], sides[1]


def windows(x: Array, p: Params, fill: float) -> Array:
    """The windows of the padded image: (N, C, out height, out width, kernel height, width)."""
    top, bottom, left, right = padding_of(p, x.shape)
    down, across = p["stride"]
    if p.get("ceil"):
        bottom, right = bottom + down - 1, right + across - 1
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    d = p.get("dilation", 1)
    span = tuple((k - 1) * d + 1 for k in p["kernel"])
    view: Array = sliding_window_view(x, (1, 1, *span))[:, :, ::down, ::across, 0, 0]
    return view[..., ::d, ::d]


def _conv(node: Node, inputs: Sequence[Array], weights: Weights) -> Array:
    p, weight = node.p, weights[f"{node.name}.weight"]
    if p.get("border"):
        top, bottom, left, right = padding_of(p, inputs[0].shape)
        around = ((0, 0), (0, 0), (top, bottom), (left, right))
        inputs, p = [np.pad(inputs[0], around, p["border"])], {**p, "pad": (0, 0, 0, 0)}
    if p["layout"] == "height and width exchanged":
        weight = weight.transpose(0, 1, 3, 2)
    if p["layout"] == "turned by 180 degrees":
        weight = weight[:, :, ::-1, ::-1]
    if p["kernel"] == (1, 1):
        top, bottom, left, right = padding_of(p, inputs[0].shape)
        x = np.pad(inputs[0], ((0, 0), (0, 0), (top, bottom), (left, right)))
        x = x[:, :, :: p["stride"][0], :: p["stride"][1]]
        y = np.einsum("oc,nchw->nohw", weight[:, :, 0, 0], x, optimize=True)
    else:
        w = windows(inputs[0], p, 0.0)
        n, _, height, width = w.shape[:4]
        columns = w.transpose(0, 2, 3, 1, 4, 5).reshape(n * height * width, -1)
        y = columns @ weight.reshape(len(weight), -1).T
        y = y.reshape(n, height, width, -1).transpose(0, 3, 1, 2)
    bias = weights.get(f"{node.name}.bias") if p["bias"] else None
    return y if bias is None else y + int(p["bias"]) * bias[:, None, None]


def _norm(node: Node, inputs: Sequence[Array], weights: Weights) -> Array:
    def channels(array: Array) -> Array:
        return array.reshape(1, -1, *(1,) * (inputs[0].ndim - 2))

    p, x, name = node.p, inputs[0], node.name
    if p["mode"] == "identity":
        return x
    axes = (0, *range(2, x.ndim))
    if p["mode"] == "groups":
        y = x.reshape(len(x), p["groups"], -1) if p["groups"] else x
        one = 2 if p["groups"] else 1
        y = (y - y.mean(one, keepdims=True)) / np.sqrt(y.var(one, keepdims=True) + p["eps"])
        return y.reshape(x.shape) * channels(np.array(p["scale"])) + channels(np.array(p["shift"]))
    if p["mode"] == "batch":
        mean, var = x.mean(axes), x.var(axes)
    else:
        mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    if p["mode"] == "outside":
        y = (x - channels(mean)) / (channels(np.sqrt(var)) + p["eps"])
    else:
        y = (x - channels(mean)) / np.sqrt(channels(var) + p["eps"])
    if p["affine"] in (True, "no shift"):
        y = y * channels(weights[f"{name}.weight"])
    return y + channels(weights[f"{name}.bias"]) if p["affine"] in (True, "no scale") else y


def _pool(node: Node, inputs: Sequence[Array], weights: Weights) -> Array:
    p, x = node.p, inputs[0]
    if p["fn"] == "none":
        return x
    if p["fn"] == "max":
        found: Array = windows(x, p, 0.0 if p["fill"] == "0" else -np.inf).max((-1, -2))
        return found
    w = windows(x, p, 0.0)
    if p["fn"] == "avg with padding":
        return w.mean((-1, -2))
    counts = windows(np.ones((1, 1, *x.shape[2:])), p, 0.0).sum((-1, -2))
    return w.sum((-1, -2)) / np.maximum(counts, 1)


def _concat(node: Node, inputs: Sequence[Array], weights: Weights) -> Array:
    return np.concatenate([inputs[i] for i in node.p["order"]], 1)


def _gap(node: Node, inputs: Sequence[Array], weights: Weights) -> Array:
    x, fn = inputs[0], node.p["fn"]
    if fn == "flatten (H, W, C)":
        return x.transpose(0, 2, 3, 1).reshape(len(x), -1)
    if fn == "flatten":
        return x.reshape(len(x), -1)
    if fn.startswith("mean of the first"):
        side = int(fn.rpartition("x")[2])
        if min(x.shape[2:]) < side or max(x.shape[2:]) >= 2 * side:
            raise ValueError("another number of windows")
        return x[:, :, :side, :side].mean((2, 3))
    found: Array = getattr(x, fn)((2, 3))
    return found


def _adaptive(node: Node, inputs: Sequence[Array], weights: Weights) -> Array:
    x = inputs[0]
    high, wide = rows.AdaptiveAvgPool(node.p["size"]).windows(*x.shape[2:])
    return np.stack(
        [np.stack([x[:, :, a:b, c:d].mean((2, 3)) for c, d in wide], -1) for a, b in high], -2
    )


def _local_norm(node: Node, inputs: Sequence[Array], weights: Weights) -> Array:
    p, x = node.p, inputs[0]
    if p.get("fn") == "none":
        return x
    side = p["size"] // 2
    squares = np.pad(x**2, ((0, 0), (side, side), (0, 0), (0, 0)))
    total = sliding_window_view(squares, p["size"], axis=1).sum(-1)
    found: Array = x / (p["k"] + p["alpha"] / p["size"] * total) ** p["beta"]
    return found


def _affine(node: Node, inputs: Sequence[Array], weights: Weights) -> Array:
    def channels(values: Any) -> Array:
        return np.reshape(values, (1, -1, *(1,) * (inputs[0].ndim - 2)))

    return inputs[0] * channels(node.p["scale"]) + channels(node.p["shift"])


def _flatten(node: Node, inputs: Sequence[Array], weights: Weights) -> Array:
    x = inputs[0].transpose(0, 2, 3, 1) if node.p["order"] == "HWC" else inputs[0]
    return x.reshape(len(x), -1)


def _linear(node: Node, inputs: Sequence[Array], weights: Weights) -> Array:
    x = inputs[0].reshape(len(inputs[0]), -1)
    y = x @ weights[f"{node.name}.weight"].T
    bias = weights.get(f"{node.name}.bias") if node.p["bias"] else None
    return y if bias is None else y + int(node.p["bias"]) * bias


def _out(node: Node, inputs: Sequence[Array], weights: Weights) -> Array:
    x, fn = inputs[0], node.p["fn"]
    if "softmax" in fn:
        shifted = x - x.max(1, keepdims=True)
        if fn == "log softmax that ends at -64":  # Paddle's
            shifted, fn = np.maximum(shifted, -64), "log softmax"
        logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        return logs if fn == "log softmax" else np.exp(logs)
    return ACTIVATIONS[fn](x)


KINDS: dict[str, Callable[[Node, Sequence[Array], Weights], Array]] = {
    "input": lambda node, inputs, weights: inputs[0],
    "conv": _conv,
    "norm": _norm,
    "act": lambda node, inputs, weights: ACTIVATIONS[node.p["fn"]](inputs[0]),
    "pool": _pool,
    "concat": _concat,
    "gap": _gap,
    "adaptive": _adaptive,
    "affine": _affine,
    "local norm": _local_norm,
    "flatten": _flatten,
    "linear": _linear,
    "out": _out,
    "add": lambda node, inputs, weights: (
        inputs[-1] if node.p.get("left out") else sum(inputs[1:], inputs[0])
    ),
    "opaque": lambda node, inputs, weights: node.p["value"],  # as it was recorded
    "mask": lambda node, inputs, weights: inputs[0] * node.p["mask"],
    "clip": lambda node, inputs, weights: np.clip(inputs[0], node.p["low"], node.p["high"]),
    "channels": lambda node, inputs, weights: inputs[0][:, node.p["order"]],
    "turn": lambda node, inputs, weights: inputs[0].swapaxes(2, 3),
}
