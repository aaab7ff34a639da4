"""What a graph computes, as steps in one form, and the first step that differs from a spec's.

The steps of a file's graph and those of a spec are made by the same class, `Steps`, which writes
equal functions in one way: a ReLU behind a concatenation is one in each branch, a ReLU of what is
not negative is nothing, zeros around an image are the padding of what comes next. Then the two are
compared, from their results on. Steps of one place correspond, and so do their layers.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

from common.formats.downscale import kept
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
    float32,
    inner_rows,
    pair,
)

#: kinds whose result is not negative if no input is
KEEP_SIGN = ("max", "average", "mean", "concat", "add", "flatten", "pad", "adaptive")
WINDOWS = ("convolution", "max", "average")
#: kinds of one input that a ReLU may stand in place of: the activations
ACTIVATIONS: tuple[str, ...] = (
    "relu",
    "Sigmoid",
    "Tanh",
    "LeakyRelu",
    "Clip",
    "Elu",
    "Selu",
    "Softplus",
    "Gelu",
)
ACTIVATIONS += ("HardSwish", "HardSigmoid", "PRelu", "Mish", "Celu", "Softsign", "Abs", "Neg")

#: the kinds in words
WORDS = {
    **{"convolution": "a convolution", "norm": "a batch norm", "relu": "a ReLU"},
    **{"max": "a max pool", "average": "an average pool", "mean": "the mean of the whole map"},
    **{"concat": "a concatenation", "add": "a sum", "linear": "a linear layer"},
    **{"local norm": "a local norm", "scale": "a multiplication by {by:.6g}"},
    **{"flatten": "a reshaping", "pad": "a padding with {value}", "images": "the images"},
    **{"adaptive": "an adaptive pool", "a constant": "a constant"},
}
#: the numbers of a step in words
KEYS = {"by": "factor"}
#: what a step does if such a flag is on
FLAGS = {"up": "round its size up", "counted": "count its padding"}


@dataclass(frozen=True)
class Step:
    """One step: its kind, its inputs by number, its name in the file or the spec, its numbers."""

    kind: str
    inputs: tuple[int, ...]
    name: str
    p: dict[str, Any] = field(default_factory=dict)


class Steps:
    """Steps in an order in which each comes behind its inputs; equal ones are one."""

    def __init__(self) -> None:
        self.steps = list[Step]()
        self.positive = list[bool]()  # not negative
        self.numbers = dict[str, int]()
        self.results = list[int]()  #: the numbers of what the network returns
        self.notes = list[str]()  #: what was taken as something else, as sentences

    def make(self, kind: str, inputs: list[int], name: str, **p: Any) -> int:
        """The number of a step, in the one form that its function has."""
        first = self.steps[inputs[0]] if inputs else None
        if first and kind == "relu":
            if self.positive[inputs[0]]:
                return inputs[0]
            if first.kind in ("concat", "max"):
                inner = [self.make("relu", [each], name) for each in first.inputs]
                return self.make(first.kind, inner, first.name, **first.p)
        if first and kind == "flatten" and first.kind == "flatten":
            return inputs[0]
        if first and kind == "linear" and first.kind == "flatten":
            inputs = [*first.inputs]
            first = self.steps[inputs[0]]
        if first and kind == "linear" and first.kind == "average" and not any(first.p["padding"]):
            size = text(first.p["kernel"])
            self.notes.append(
                f"Its last pool, of {size} x {size} pixels, is taken as the mean of the whole map: "
                "give the weights images of the size that they were trained with."
            )
            inputs = [self.make("mean", [*first.inputs], first.name)]
        if first and kind == "scale" and p["by"] == 1:
            return inputs[0]
        if first and kind == "scale" and first.kind == "flatten":
            return self.make("flatten", [self.make(kind, [*first.inputs], name, **p)], first.name)
        if kind in ("max", "average") and p["stride"] == [1, 1]:
            p["up"] = False  # every window counts
        if first and first.kind == "pad" and kind in WINDOWS and isinstance(p["padding"], list):
            zeros = first.p["value"] == 0
            if kind == "max":
                zeros = first.p["value"] == -math.inf or (zeros and self.positive[inputs[0]])
            zeros = zeros and min(first.p["padding"]) >= 0
            if zeros and (kind != "average" or not any(p["padding"])):
                both = zip(p["padding"], first.p["padding"], strict=True)
                p["padding"] = [one + other for one, other in both]
                p |= {"counted": True} if kind == "average" else {}
                inputs = [*first.inputs]
        if kind == "concat":
            flat = [self.steps[each] for each in inputs]
            inputs = [
                each
                for number, step in zip(inputs, flat, strict=True)
                for each in (step.inputs if step.kind == "concat" else [number])
            ]
        key = json.dumps([kind, inputs, p])
        if key not in self.numbers:
            self.numbers[key] = len(self.steps)
            self.steps.append(Step(kind, tuple(inputs), name, p))
            keeps = kind in KEEP_SIGN or (kind == "scale" and p["by"] > 0)
            self.positive.append(
                kind == "relu"
                or (keeps and bool(inputs) and all(self.positive[each] for each in inputs))
            )
        return self.numbers[key]

    def has(self, kind: str) -> bool:
        """Whether there is a step of this kind."""
        return any(step.kind == kind for step in self.steps)

    def scales(self) -> str:
        """What is done with the images first, in words; nothing if they are taken as they are."""
        for step in self.steps:
            if step.kind == "images" and step.p:
                return f"times {listed(step.p['scale'])} plus {listed(step.p['shift'])}"
        return ""

    def plain(self) -> list[Any]:
        """The steps as lists, for JSON."""
        steps = [[each.kind, each.inputs, each.name, each.p] for each in self.steps]
        return [self.results, self.notes, steps]

    @classmethod
    def of(cls, plain: list[Any] | None) -> Steps | None:
        """The inverse of `plain`."""
        if not plain:
            return None
        made = cls()
        made.results, made.notes, steps = plain
        made.steps = [Step(kind, tuple(inputs), name, p) for kind, inputs, name, p in steps]
        return made


class SpecSteps(Steps):
    """The steps of a spec.

    `norms` False is for a graph whose norms are folded into its convolutions. `downscaled` is for
    heads that multiply their features by the share that dropout keeps, as paddle.vision's do.
    """

    def __init__(self, spec: Spec, norms: bool, downscaled: bool) -> None:
        super().__init__()
        self.norms = norms and spec.norm is not None
        self.shares = kept(spec) if downscaled else {}
        x, ends = self.make("images", [], "images"), list[int]()
        for stage, table in spec.stages():
            for index, row in enumerate(table):
                x = self.row(x, row, f"{stage}.{index}")
                for number, head in enumerate(spec.auxiliary):
                    if (stage, index) == ("stage4", head.after):
                        ends.append(self.auxiliary(x, head, f"auxiliary.{number}"))
        self.results = [self.head(x, "head"), *ends]

    def rows(self, x: int, table: tuple[Row, ...], name: str) -> int:
        """Rows in sequence."""
        for index, row in enumerate(table):
            x = self.row(x, row, f"{name}.{index}")
        return x

    def head(self, x: int, name: str) -> int:
        """A linear layer behind a dropout."""
        if share := self.shares.get(f"{name}.weight"):
            x = self.make("scale", [x], f"{name} (dropout)", by=share)
        return self.make("linear", [x], name, layer=name)

    def row(self, x: int, row: Row, name: str) -> int:
        """One row."""
        match row:
            case Conv():
                return self.conv(x, row, name)
            case MaxPool():
                return self.make("max", [x], name, **window(row), up=row.ceil)
            case AvgPool():
                counted = row.counted and pair(row.padding) != (0, 0)
                return self.make("average", [x], name, **window(row), up=False, counted=counted)
            case Affine():
                return self.make("images", [], name, scale=[*row.scale], shift=[*row.shift])
            case Inception() | Branches():
                ends = [self.rows(x, each, f"{name}.{part}") for part, each in inner_rows(row)]
                return self.make("concat", ends, name)
            case Residual():
                y = self.rows(x, row.rows, f"{name}.rows")
                y = self.make("scale", [y], f"{name}.scale", by=float32(row.scale))
                y = self.make("add", sorted((x, y)), name)
                return self.make("relu", [y], f"{name}.relu") if row.activation else y
            case LocalNorm():
                numbers = {"alpha": row.alpha, "beta": row.beta, "bias": row.k}
                rounded = {each: float32(numbers[each]) for each in numbers}
                return self.make("local norm", [x], name, size=row.size, **rounded)
            case GlobalAvgPool():
                return self.make("mean", [x], name)
            case AdaptiveAvgPool():
                return self.make("adaptive", [x], name, size=[*pair(row.size)])
        raise TypeError(f"there are no steps for {type(row).__name__}")

    def conv(self, x: int, row: Conv, name: str) -> int:
        """A convolution with its norm and ReLU."""
        more = {"layer": f"{name}.conv", "dilation": [1, 1], "groups": 1}
        x = self.make("convolution", [x], f"{name}.conv", **window(row), **more)
        if self.norms and row.norm:
            x = self.make("norm", [x], f"{name}.norm", layer=f"{name}.norm")
        return self.make("relu", [x], f"{name}.relu") if row.activation else x

    def auxiliary(self, x: int, row: Auxiliary, name: str) -> int:
        """An auxiliary head."""
        x = self.row(x, row.pool, f"{name}.pool")
        x = self.conv(x, row.conv, f"{name}.conv")
        if isinstance(row.hidden, Conv):
            x = self.conv(x, row.hidden, f"{name}.hidden")
            x = self.make("mean", [x], f"{name}.mean")
        else:
            x = self.make("linear", [x], f"{name}.hidden", layer=f"{name}.hidden")
            x = self.make("relu", [x], f"{name}.relu") if row.hidden.activation else x
        return self.head(x, f"{name}.head")


def window(row: Conv | MaxPool | AvgPool) -> dict[str, Any]:
    """Kernel, stride and padding; the padding is that above, left, below and right."""
    padding = [*pair(row.padding)]
    return {
        "kernel": [*pair(row.kernel)],
        "stride": [*pair(row.stride)],
        "padding": padding + padding,
    }


# --- comparing
@dataclass(frozen=True)
class Comparison:
    """The layers of a file by the spec's names, and the first difference, as a part of a sentence.

    `alike` counts the steps that are the same.
    """

    layers: dict[str, str]
    difference: str
    alike: int


def compare(graph: Steps, spec: Spec, downscaled: bool, exact: bool) -> Comparison:
    """Compare a file's graph with a spec's.

    `exact` False leaves out what the graph does with its images first, and its results behind
    those of the spec.
    """
    ours = SpecSteps(spec, graph.has("norm"), downscaled)
    counts = len(graph.results), len(ours.results)
    if counts[0] < counts[1] or (exact and counts[0] > counts[1]):
        said = f"its number of results is {counts[0]}, that of {spec.name} is {counts[1]}"
        return Comparison({}, said, 0)
    # networks return their auxiliary heads in any order
    orders = permutations(graph.results) if counts[0] == counts[1] else [tuple(graph.results)]
    found = [paired(graph, ours, spec.name, results, exact) for results in orders]
    return max(found, key=lambda each: (not each.difference, each.alike))


def paired(
    graph: Steps, ours: Steps, spec: str, results: tuple[int, ...], exact: bool
) -> Comparison:
    """Compare the steps of a graph with a spec's, from these results on."""
    pairs = dict[int, int]()
    found = dict[int, str]()  # a difference by the number of the file's step
    todo = [*zip(ours.results, results, strict=False)]
    while todo:
        mine, theirs = todo.pop()
        one, other = ours.steps[mine], graph.steps[theirs]
        if mine in pairs:
            if pairs[mine] != theirs:
                found[theirs] = f"{said(other)} stands beside another one for {one.name}"
            continue
        pairs[mine] = theirs
        if apart := differs(one, other, exact, spec):
            found[theirs] = apart
        follow = one.kind == other.kind or (
            {one.kind, other.kind} <= {*ACTIVATIONS}  # one in the place of another, not behind it
            and ours.steps[one.inputs[0]].kind == graph.steps[other.inputs[0]].kind
        )
        if follow and len(one.inputs) == len(other.inputs):
            todo += zip(one.inputs, other.inputs, strict=True)
    layers = {
        ours.steps[mine].p["layer"]: graph.steps[theirs].p["layer"]
        for mine, theirs in pairs.items()
        if "layer" in ours.steps[mine].p and "layer" in graph.steps[theirs].p
    }
    return Comparison(layers, found[min(found)] if found else "", len(pairs) - len(found))


def differs(one: Step, other: Step, exact: bool, spec: str) -> str:
    """How a file's step differs from the spec's; nothing if it does not."""
    if one.kind != other.kind:
        return f"{said(other)} is {words(other)} where {spec} has {words(one)} ({one.name})"
    if one.kind == "images" and not (exact or one.p):
        return ""
    if len(one.inputs) != len(other.inputs):
        return (
            f"{said(other)} has {len(other.inputs)} inputs where {one.name} has {len(one.inputs)}"
        )
    for key in {**one.p, **other.p}:
        ours, theirs = one.p.get(key), other.p.get(key)
        if key in FLAGS and bool(ours) != bool(theirs):
            does = "does" if theirs else "does not"
            return f"{said(other)} {does} {FLAGS[key]}, unlike {one.name}"
        if key != "layer" and not close(ours, theirs):
            what = KEYS.get(key, key)
            return f"{said(other)} has {what} {text(theirs)} where {one.name} has {text(ours)}"
    return ""


def close(one: Any, other: Any) -> bool:
    """Whether numbers are equal up to rounding."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(close, one, other))
    if isinstance(one, float) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-7)
    return bool(one == other)


def said(step: Step) -> str:
    """A step of the file."""
    return f"its node `{shown(step.name)}`"


def words(step: Step) -> str:
    """What a step is."""
    if step.kind in WORDS:
        return WORDS[step.kind].format(**step.p)
    if "by" in step.p:
        return f"`{shown(step.kind)}` by {text(step.p['by'])}"
    numbers = [f"{shown(key)} {text(step.p[key])}" for key in step.p]
    return f"`{shown(step.kind)}`" + (f" with {', '.join(numbers)}" if numbers else "")


def shown(name: str) -> str:
    """A text of a file for a message: short and printable."""
    return "".join(filter(str.isprintable, name))[:80]


def listed(numbers: list[float]) -> str:
    """The numbers of the channels, or the one that all have."""
    return ", ".join(f"{each:.6g}" for each in (numbers if len({*numbers}) > 1 else numbers[:1]))


def text(value: Any) -> str:
    """A value of a step."""
    if isinstance(value, list):
        return " x ".join(map(text, value[:4] if len({*value}) > 1 else value[:1]))
    if isinstance(value, bool) or value is None:
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else shown(str(value))
