"""A recorded run of a user's network, and the layers with weights that it has.

A tracer gives flat data (see `backends/*/trace.py`); here it becomes events and layers. A layer
is an event with weights: a convolution, a norm or a linear layer. A bias that is added by a
function of its own belongs to the layer before it. A norm that the user wrote in single operations
is found by a run with random numbers in its weights: they show which is the mean, and which the
variance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import permutations, product
from typing import Any

import numpy as np

from common.check.process import UserError

#: steps that only move values: the shape or the layout changes
TRANSPARENT = ("reshape", "identity", "transpose")
#: steps that no norm has inside
WHOLE = ("conv", "linear", "norm", "act", "pool", "concat", "pad", "dropout", "matmul", "addmm")
STATISTICS = ("running_mean", "running_var")
#: the numbers that a norm may have, by how many they are
ROLES: dict[int, list[tuple[str, ...]]] = {
    2: [STATISTICS],
    3: [(*STATISTICS, "weight"), (*STATISTICS, "bias")],
    4: [(*STATISTICS, "weight", "bias")],
}
EPS = (1e-3, 1e-5, 0.0)  #: that tell the numbers apart; the comparison finds the norm's own
READ = 0.02  #: the error of a norm of another eps
PIXELS = 32  #: of a channel, to read the numbers by


@dataclass
class Event:
    """One tensor that the user's network made, (N, C, H, W) or (N, C), float64."""

    index: int
    op: str
    name: str
    inputs: list[int]
    leaves: dict[str, int]
    path: str
    layer: str
    line: str
    out: np.ndarray

    def where(self) -> str:
        """The user's line and the path of the layer, as far as they are known."""
        path = self.path + (f" ({self.layer})" if self.layer and self.path else "")
        return "  ".join(part for part in (self.line, path) if part) or self.name


@dataclass(eq=False)
class Layer:
    """One use of a layer with weights: its output, its input, its weights by leaf and number."""

    kind: str
    event: int
    source: int
    leaves: dict[str, int]
    shape: tuple[int, ...]  # of its weight, canonical; of a norm, (channels,)
    ups: set[int] = field(default_factory=set)  # the layers right before it, by number; -1: input
    own: bool = False  # written by the user in single operations


class Trace:
    """The events, layers and outputs of one run."""

    def __init__(self, found: dict[str, Any], shapes: list[tuple[int, ...]]) -> None:
        self.events = [
            Event(
                index,
                each["op"],
                each["name"],
                list(each["inputs"]),
                dict(each["leaves"]),
                each["path"],
                each["layer"],
                each["line"],
                np.asarray(each["out"], np.float64),
            )
            for index, each in enumerate(found["events"])
        ]
        self.outputs = [
            (each["name"], self._made(each["event"], out), out)
            for each in found["outputs"]
            for out in [np.asarray(each["out"], np.float64)]
        ]
        self.users: dict[int, list[int]] = {}
        for event in self.events:
            for source in event.inputs:
                self.users.setdefault(source, []).append(event.index)
        self.shapes = shapes
        self.layers: list[Layer] = []
        self.layer_at: dict[int, int] = {}  # event: number of the layer whose output it is
        for event in self.events:
            self._add(event)
        self._end()
        for layer in self.layers:
            layer.ups = self.upstream(layer.source)

    def _made(self, event: int | None, out: np.ndarray) -> int | None:
        """The event that an output is; an array of NumPy is the last one with its values."""
        if event is None and out.ndim > 1:
            same = (e.index for e in self.events[::-1] if np.array_equal(e.out, out))
            event = next(same, None)
        return event

    def _add(self, event: Event) -> None:
        """Note the layer that an event is, or the bias that it adds to one."""
        if event.op == "bias" and len(event.inputs) == 1:
            number = self.layer_at.get(self.through(event.inputs[0]))
            layer = None if number is None else self.layers[number]
            its = layer.leaves.get("bias", event.leaves["bias"]) if layer else None
            if layer and layer.kind != "norm" and its == event.leaves["bias"]:  # once, or again
                self.layer_at.pop(layer.event, None)
                layer.leaves["bias"], layer.event = event.leaves["bias"], event.index
                self.layer_at[event.index] = self.layers.index(layer)
            return
        if event.op not in ("conv", "norm", "linear") or not event.inputs:
            return
        number = event.leaves.get("weight", event.leaves.get("running_mean"))
        if number is None and event.op != "norm":
            return
        shape = self.shapes[number] if number is not None else (event.out.shape[1],)
        layer = Layer(event.op, event.index, event.inputs[0], dict(event.leaves), shape)
        self.layer_at[event.index] = len(self.layers)
        self.layers.append(layer)

    def _end(self) -> None:
        """A last 1x1 convolution without a norm is the linear layer, if there is none.

        The mean of its images is what a linear layer makes of the mean.
        """
        last = self.layers[-1] if self.layers else None
        linear = any(layer.kind == "linear" for layer in self.layers)
        if not last or linear or last.kind != "conv" or set(last.shape[2:]) != {1}:
            return
        index, after = last.event, self.users.get(last.event, [])
        while len(after) == 1 and (
            math.prod(self.events[index].out.shape[2:]) > 1
            or self.events[after[0]].op in TRANSPARENT
        ):
            index, after = after[0], self.users.get(after[0], [])
        if math.prod(self.events[index].out.shape[2:]) > 1:
            return
        self.layer_at[index] = self.layer_at.pop(last.event)
        last.kind, last.event, last.shape = "linear", index, last.shape[:2]

    def own_norms(self) -> Iterator[OwnNorm]:
        """What may be a norm in single operations behind a convolution: where, and its weights."""
        root: dict[int, int] = {}
        taken: dict[int, frozenset[int]] = {}
        for index in self.layer_at:
            root[index], taken[index] = index, frozenset()
        ends: dict[int, int] = {}
        for event in self.events:
            at = event.index
            roots = {root.get(i) for i in event.inputs}
            if at in root or event.op in WHOLE or len(roots) != 1 or None in roots:
                continue
            start = root[event.inputs[0]]
            shape = self.events[start].out.shape
            if event.out.shape != shape:
                continue
            mine = {n for n in event.leaves.values() if self.shapes[n] == (shape[1],)}
            root[at] = start
            taken[at] = frozenset(mine.union(*(taken[i] for i in event.inputs)))
            if start not in ends or len(taken[at]) > len(taken[ends[start]]):
                ends[start] = at
        for start, end in ends.items():
            conv = self.layers[self.layer_at[start]].kind == "conv"
            if conv and len(taken[end]) in ROLES:
                yield OwnNorm(start, end, sorted(taken[end]))

    def add_norms(self, found: list[tuple[OwnNorm, dict[str, int]]]) -> None:
        """Note norms in single operations as layers."""
        for norm, leaves in found:
            self.events[norm.end].op = "norm"
            shape = self.shapes[norm.numbers[0]]
            self.layers.append(Layer("norm", norm.end, norm.start, leaves, shape, own=True))
        self.layers.sort(key=lambda layer: layer.event)
        self.layer_at = {layer.event: n for n, layer in enumerate(self.layers)}
        for layer in self.layers:
            layer.ups = self.upstream(layer.source)

    def through(self, index: int) -> int:
        """The event before steps that only move values."""
        while index >= 0 and self.events[index].op in TRANSPARENT and self.events[index].inputs:
            index = self.events[index].inputs[0]
        return index

    def pooled(self, index: int) -> bool:
        """Whether an event is a pool, or one that is only padded or activated since."""
        while index >= 0 and index not in self.layer_at and self.events[index].op != "pool":
            inputs = self.events[index].inputs
            index = inputs[0] if len(inputs) == 1 else -1
        return index >= 0 and self.events[index].op == "pool"

    def upstream(self, index: int, over: tuple[str, ...] = ("norm",)) -> set[int]:
        """The nearest layers that an event depends on, by number; norms are passed over."""
        found, todo, seen = set[int](), [index], set[int]()
        while todo:
            at = todo.pop()
            if at in seen:
                continue
            seen.add(at)
            number = self.layer_at.get(at)
            if at < 0:
                found.add(-1)
            elif number is not None and self.layers[number].kind not in over:
                found.add(number)
            else:
                todo += self.events[at].inputs
        return found

    def chain(self, index: int) -> list[int]:
        """The events from this one back along the first inputs, to a concatenation or the input."""
        found = []
        while index >= 0:
            found.append(index)
            event = self.events[index]
            if (event.op == "concat" and len(found) > 1) or not event.inputs:
                break
            index = event.inputs[0]
        return found


@dataclass
class OwnNorm:
    """What may be a norm in single operations: its first and last event, and its weights."""

    start: int
    end: int
    numbers: list[int]

    def leaves(self, x: np.ndarray, y: np.ndarray, values: list[np.ndarray]) -> dict[str, int]:
        """The number of each weight, if a norm of `x` with these values gives `y`."""
        x, y = (a[:1].reshape(1, a.shape[1], -1)[:, :, :PIXELS] for a in (x, y))
        found: dict[str, int] = {}
        least = READ * float(np.max(np.abs(y)))
        for roles, eps in product(ROLES[len(self.numbers)], EPS):
            for order in permutations(range(len(roles))):
                given = {r: values[n][:, None] for r, n in zip(roles, order, strict=True)}
                z = (x - given["running_mean"]) / np.sqrt(given["running_var"] + eps)
                z = z * given.get("weight", 1) + given.get("bias", 0)
                error = float(np.max(np.abs(z - y)))
                if error < least:
                    least = error
                    found = {r: self.numbers[n] for r, n in zip(roles, order, strict=True)}
        return found


def of(network: Any, x: np.ndarray) -> Trace:
    """Run a user's network on x and read what it recorded."""
    found = network.trace(x)
    if not found["outputs"]:
        raise UserError(
            "No tensor is found in what your network returns: return a tensor, a tuple or a dict."
        )
    trace = Trace(found, network.shapes())
    if norms := list(trace.own_norms()):
        trace.add_norms(list(roles(network, x, trace, norms)))
    return trace


def roles(
    network: Any, x: np.ndarray, trace: Trace, norms: list[OwnNorm]
) -> Iterator[tuple[OwnNorm, dict[str, int]]]:
    """The norms in single operations, each with the numbers of its weights.

    The kernels are drawn too: where a norm's input is nearly 0, its mean and scale look alike.
    """
    random, before, shapes = np.random.RandomState(0), network.read(), network.shapes()
    values = {n: random.uniform(0.5, 1.5, shapes[n]) for norm in norms for n in norm.numbers}
    for layer in trace.layers:
        if layer.kind == "conv":
            kernel = random.standard_normal(layer.shape) * np.sqrt(2 / np.prod(layer.shape[1:]))
            values.setdefault(layer.leaves["weight"], kernel)
    network.write(values)
    probe = Trace(network.trace(x), network.shapes())
    network.write({n: before[n] for n in values})
    for norm in norms:
        x, y = probe.events[norm.start].out, probe.events[norm.end].out
        leaves = norm.leaves(x, y, [values[n] for n in norm.numbers])
        if leaves:
            yield norm, leaves
