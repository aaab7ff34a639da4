"""The page's drawings: the network of a spec, training curves, errors by stage. No framework."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from common.spec import (
    SPECS,
    AdaptiveAvgPool,
    Affine,
    AvgPool,
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
from common.spec.arithmetic import Shape, totals, walk

#: the specs that the page draws: of the later networks two, or the page would grow by half
DRAWN = {
    name: spec
    for name, spec in SPECS.items()
    if name.startswith(("d2l", "blog", "mini", "torchvision", "paddle", "inception-v3"))
    and name not in ("d2l-v2", "d2l-factorized", "d2l-residual")
    and not name.startswith("inception-v3-")
}
POINTS = 240  # at most in a curve; a longer series is averaged in blocks


@dataclass(frozen=True)
class Node:
    """A row of the spec in the drawing: its kind, its output shape (N, C, H, W), its cost."""

    at: str  #: `stage3.0.branch5x5.1`
    kind: str  #: the address of its code: Conv, MaxPool, branch5x5, ...
    label: str
    shape: Shape
    parameters: int
    multiply_adds: int
    branches: tuple[tuple[str, tuple[Node, ...]], ...] = ()


@dataclass(frozen=True)
class Stage:
    """A stage, the head or an auxiliary head: its rows and their sums."""

    name: str
    nodes: tuple[Node, ...]
    shape: Shape
    parameters: int
    multiply_adds: int


def stages(spec: Spec) -> list[Stage]:
    """The drawing of a spec at its own input size: stages, head, auxiliary heads."""
    shape: Shape = (1, *spec.input)
    found: list[Stage] = []
    entering: dict[str, Shape] = {}
    for name, rows in spec.stages():
        places = [f"{name}.{index}" for index in range(len(rows))]
        found.append(_stage(name, rows, places, shape, spec.norm))
        entering |= {node.at: node.shape for node in found[-1].nodes}
        shape = found[-1].shape
    found.append(_stage("head", (spec.head,), ["head"], shape, spec.norm))
    for index, row in enumerate(spec.auxiliary):
        name, shape = f"auxiliary.{index}", entering[f"stage4.{row.after}"]
        parts = row.rows(spec.head)
        places = [f"{name}.{field}" for field in parts]
        found.append(_stage(name, tuple(parts.values()), places, shape, spec.norm))
    return found


def _stage(
    name: str, rows: Sequence[Row], places: Sequence[str], shape: Shape, norm: Norm | None
) -> Stage:
    nodes, entering = [], shape
    for row, at in zip(rows, places, strict=True):
        nodes.append(_node(row, entering, norm, at))
        entering = nodes[-1].shape
    return Stage(name, tuple(nodes), entering, *totals(walk(rows, shape, norm)[0]))


def _node(row: Row, shape: Shape, norm: Norm | None, at: str) -> Node:
    table, out = walk((row,), shape, norm)
    branches = []
    for name, rows in inner_rows(row):
        inner, entering = [], shape
        for index, each in enumerate(rows):
            inner.append(_node(each, entering, norm, f"{at}.{name}.{index}"))
            entering = inner[-1].shape
        branches.append((name, tuple(inner)))
    kind = at.rpartition(".")[2] if isinstance(row, Linear) else type(row).__name__
    label = _label(row) or ("{}[{}]".format(*at.split(".")) if at.count(".") == 1 else kind)
    return Node(at, kind, label, out, *totals(table), tuple(branches))


def _label(row: Row) -> str:
    match row:
        case Conv() | MaxPool() | AvgPool():
            height, width = pair(row.kernel)
            stride = "" if pair(row.stride) == (1, 1) else f"/{pair(row.stride)[0]}"
            return f"{height}×{width}{stride}"
        case Inception() | Branches() | Residual():
            return ""  # the caller labels it with its place in the stage
        case LocalNorm():
            return "local norm"
        case GlobalAvgPool():
            return "mean"
        case AdaptiveAvgPool():
            return "mean {}×{}".format(*pair(row.size))
        case Affine():
            return "x·a+b"
        case Linear():
            return "linear"


def data(spec: Spec) -> dict[str, Any]:
    """A spec as plain data for the page's script."""

    def plain(row: Row) -> dict[str, Any]:
        match row:
            case Conv():
                return window(row) | {"width": row.width, "bias": row.bias, "norm": row.norm}
            case MaxPool():
                return window(row) | {"ceil": row.ceil}
            case AvgPool():
                return window(row)
            case Inception() | Branches() | Residual():
                return {"branches": {n: list(map(plain, rows)) for n, rows in inner_rows(row)}}
            case GlobalAvgPool():
                return {"mean": True}
            case AdaptiveAvgPool():
                return {"sides": pair(row.size)}
            case Affine() | LocalNorm():
                return {}
            case Linear():
                return {"linear": row.width}

    def window(row: Conv | MaxPool | AvgPool) -> dict[str, Any]:
        sides = {"kernel": row.kernel, "stride": row.stride, "padding": row.padding}
        return {name: pair(size) for name, size in sides.items()}

    return {
        "input": spec.input,
        "norm": spec.norm is not None,
        "stages": {name: list(map(plain, rows)) for name, rows in spec.stages()},
        "head": plain(spec.head),
        "auxiliary": [
            {
                "after": f"stage4.{row.after}",
                "features": row.features if isinstance(row.hidden, Linear) else None,
                "rows": {name: plain(each) for name, each in row.rows(spec.head).items()},
            }
            for row in spec.auxiliary
        ],
    }


def curve(losses: Sequence[float], epochs: int) -> list[tuple[float, float]]:
    """Pairs (epoch, loss) of every step; for long runs the means of blocks of steps."""
    block = -(-len(losses) // POINTS)
    starts = np.arange(0, len(losses), block)
    counts = np.diff([*starts, len(losses)])
    means = np.add.reduceat(np.array(losses), starts) / counts
    at = (starts + counts / 2) / len(losses) * epochs
    return [(float(x), float(y)) for x, y in zip(at, means, strict=True)]


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic scale from values to pixels."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value; a value outside the range is put at the edge."""
        low, high = (math.log10(each) if self.log else each for each in (self.low, self.high))
        floor = min(max(value, self.low), self.high)
        at = (math.log10(floor) if self.log else floor) - low
        return round(self.begin + (self.end - self.begin) * at / (high - low), 1)


def polyline(points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    """The points in the form of an SVG polyline."""
    return " ".join(f"{x(at):g},{y(value):g}" for at, value in points)


def chart_of(
    series: Iterable[tuple[str, Sequence[tuple[float, float]]]], axes: tuple[Axis, Axis]
) -> Markup:
    """One line for each run, in the colour and dashes of its framework."""
    lines = [
        Markup('<polyline class="line {}" points="{}"/>').format(name, polyline(points, *axes))
        for name, points in series
    ]
    return Markup("").join(lines)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values from low to high, with at most `most` steps between them."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step *= next(factor for factor in (1, 2, 5, 10, 20) if (high - low) / (step * factor) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(step * at, 10) for at in range(first, math.floor(high / step + 1e-9) + 1)]
