"""Compares two networks of users, without a spec: the first becomes the graph of single steps.

Each step of the first network's run is identified by its own tensors: the stride and padding of a
convolution, the eps of a norm, the window of a pool. The second network is then compared with that
graph as with a reference. A step that cannot be identified is compared by its values alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.check.checker import BRIGHT, Checker, Progress, require_precise
from common.check.diagnose import Search
from common.check.findings import World, unseen
from common.check.graph import INPUT, Array, Graph, Node, Params, compute
from common.check.process import Network, UserError
from common.check.report import Report
from common.check.steps import aligned, error, identify
from common.check.trace import Layer, Trace, of
from common.weights import Weights

ROUNDS = 8  #: of refining the classes of layers by their neighbours
IMAGES = 4
WINDOW = {"stride": (1, 1), "pad": (0, 0, 0, 0), "dilation": 1, "layout": ""}


class Against(Checker):
    """A check of a second network against a first."""

    def __init__(self, first: Network, second: Network, say: Progress) -> None:
        super().__init__(second, None, None, say)
        require_precise(first)
        self.first = first
        self.notes += first.notes

    def compare_networks(self, channels: int, size: int) -> Report:
        """The report; both networks take images of these channels and this size."""
        x = np.random.RandomState(size).uniform(0, 1, (IMAGES, channels, size, size))
        x[1] *= BRIGHT
        x = x.astype(np.float32)
        one, two = of(self.first, x), of(self.network, x)
        pairs = match(one, two)
        values, own = draw(one), draw(two)
        absorbed = 0
        for i, j in pairs.items():
            mine, theirs = one.layers[i].leaves, two.layers[j].leaves
            if ("bias" in mine) != ("bias" in theirs):
                n, trace, drawn = (i, one, values) if "bias" in mine else (j, two, own)
                if n in normed(trace):
                    absorbed += 1
                    drawn[trace.layers[n].leaves["bias"]] *= 0
            own |= {theirs[leaf]: values[mine[leaf]] for leaf in mine if leaf in theirs}
        if absorbed:
            self.notes.append(
                f"{absorbed} convolutions in front of a norm have a bias in one network only. That "
                "is the same function: the bias is read as 0."
            )
        self.first.write(values)
        self.network.write(own)
        self.say(f"comparing at {size}x{size}")
        one, two = of(self.first, x), of(self.network, x)
        lifted = Lifted(one, x.astype(np.float64), values)
        graph, weights, names = lifted.graph(), lifted.weights, lifted.names
        for i, j in pairs.items():  # what only the second network's layers have
            mine, theirs = one.layers[i].leaves, two.layers[j].leaves
            for leaf in {"weight", "bias"} & theirs.keys() - mine.keys():
                weights[f"{names[one.layers[i].event]}.{leaf}"] = own[theirs[leaf]]
        layers = {names[one.layers[i].event]: two.layers[j] for i, j in pairs.items()}
        joins = dict(joined(one, two, pairs, names))
        search = Search(graph, weights, x, two, layers, joins, self.network.dtype)
        world = World(size, two, search, search.run(), x.astype(np.float64))
        if any(node.kind == "opaque" for node in graph.nodes.values()):
            self.notes.append("Some steps of the other network are compared by values alone.")
        report = self.conclude(None, weights, [world], [], graph)
        if lifted.hidden and not report.warnings:
            report.warnings.append(unseen(lifted.hidden, [world]))
        return report


@dataclass
class Lifted:
    """A recorded run as a graph; `values` are the weights by number."""

    trace: Trace
    x: Array
    values: dict[int, Array]

    def __post_init__(self) -> None:
        self.nodes: list[Node] = [Node(INPUT, "input", ())]
        self.names: dict[int, str] = {-1: INPUT}
        self.weights: Weights = {}
        self.hidden: list[str] = []  # windows and means that see one pixel, so do nothing
        biased = {layer.event: layer for layer in self.trace.layers}
        for event in self.trace.events:
            if event.index in biased:
                self.layer(event.index, biased[event.index])
            else:
                self.step(event.index)

    def graph(self) -> Graph:
        """The graph, with what the network returns."""
        for number, (_, event, out) in enumerate(self.trace.outputs):
            name = "output" if not number else f"output.{number}"
            source = f"{name}, as returned" if event is None else self.names[event]
            if event is None:
                self.nodes.append(Node(source, "opaque", (), {"value": out}))
            self.nodes.append(Node(name, "out", (source,), {"fn": "none"}))
        used = {name for node in self.nodes for name in node.inputs}
        return Graph(n for n in self.nodes if n.kind != "opaque" or n.name in used)

    def value(self, index: int) -> Array:
        """An event's tensor."""
        return self.x if index < 0 else self.trace.events[index].out

    def name(self, index: int) -> str:
        """The name of an event's step: the user's line and path, and its number."""
        event = self.trace.events[index]
        return f"{event.where()} [{index}]"

    def add(self, index: int, kind: str, inputs: list[int], p: Params) -> None:
        """A step for an event."""
        self.names[index] = self.name(index)
        self.nodes.append(Node(self.name(index), kind, tuple(self.names[i] for i in inputs), p))

    def layer(self, index: int, layer: Layer) -> None:
        """A layer with weights, with the parameters that its own tensors show."""
        name, out = self.name(index), self.value(index)
        for leaf, number in layer.leaves.items():
            self.weights[f"{name}.{leaf}"] = self.values[number]
        sources = [layer.source]
        while sources[-1] >= 0 and self.trace.events[sources[-1]].op == "pad":
            sources.append(self.trace.events[sources[-1]].inputs[0])
        p: Params = {"bias": "bias" in layer.leaves}
        if layer.kind == "conv":
            p |= {**WINDOW, "kernel": layer.shape[2:]}
        elif layer.kind == "norm":
            p = {"eps": 1e-3, "mode": "running", "affine": True}
        for source in reversed(sources):
            search = Search(Graph([]), self.weights, self.x, self.trace, {}, {})
            node = Node(name, layer.kind, (), p)
            value = self.value(source)
            right = search.same(search.compute(node, [value]), out)
            options = [p] if right else search.options(node, value, out)
            options.sort(key=lambda option: option.get("pad") == "same")  # even padding, if both
            if options:
                self.add(index, layer.kind, [source], options[0])
                return
        self.add(index, "opaque", sources[:1], {"value": out})

    def step(self, index: int) -> None:
        """A step without weights."""
        event, out = self.trace.events[index], self.value(index)
        inputs = [i for i in event.inputs if i in self.names]
        if not inputs:
            self.add(index, "opaque", [], {"value": out})
            return
        first = self.value(inputs[0])
        same = aligned(first, out)
        if same.shape == out.shape and error(same, out) < 1e-12:
            self.names[index] = self.names[inputs[0]]
            windowed = event.op == "pool" or "mean" in event.name.lower()
            if windowed and first.shape[2:] == (1, 1):
                self.hidden.append(self.name(index))
            return
        if event.op == "pool":  # a padding in front of it is its own
            source = inputs[0]
            while source >= 0 and self.trace.events[source].op == "pad":
                source = self.trace.events[source].inputs[0]
            pool = identify(self.value(source), out, 1e-9) if source != inputs[0] else None
            if pool:
                self.add(index, pool[0], [source], pool[1])
                return
        for kind, p in self.guesses(event.op, first, inputs):
            node = Node("guess", kind, (), p)
            try:
                value = compute(node, [self.value(i) for i in inputs], {})
            except (ValueError, KeyError, IndexError):
                continue
            if error(value, out) < 1e-9:
                self.add(index, kind, inputs, p)
                return
        found = identify(first, aligned(out, first), 1e-9)
        if found and len(inputs) == 1:
            self.add(index, found[0], inputs, found[1])
        else:
            self.add(index, "opaque", inputs, {"value": out})

    def guesses(self, op: str, x: Array, inputs: list[int]) -> Iterator[tuple[str, Params]]:
        """What a step may be, by its operation and its inputs."""
        if len(inputs) > 1:
            yield "concat", {"order": tuple(range(len(inputs)))}
            yield "add", {}
            return
        yield "act", {"fn": "relu"}
        if x.ndim == 4:
            for fn in ("mean", "max"):
                yield "gap", {"fn": fn}
            yield "flatten", {"order": "CHW"}
            yield "flatten", {"order": "HWC"}
        if x.ndim == 2:
            yield "out", {"fn": "softmax"}
            yield "out", {"fn": "log softmax"}


def draw(trace: Trace) -> dict[int, Array]:
    """Weights for every layer of a run, by number: no bias is 0, no norm is the identity."""
    random, found = np.random.RandomState(3), dict[int, Array]()
    ranges = {"running_mean": (-0.5, 0.5), "running_var": (0.5, 1.5)}
    for layer in trace.layers:
        for leaf, number in layer.leaves.items():
            shape = trace.shapes[number]
            if len(shape) > 1:
                values = random.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
            elif layer.kind == "norm" and leaf == "weight":
                values = random.uniform(0.5, 1.5, shape)
            else:
                values = random.uniform(*ranges.get(leaf, (-0.2, 0.2)), shape)
            found.setdefault(number, values.astype(np.float32).astype(np.float64))
    return found


def normed(trace: Trace) -> set[int]:
    """The layers, by number, whose output nothing takes but a norm: it takes their bias away."""
    norms = [layer for layer in trace.layers if layer.kind == "norm"]
    starts = [(trace.through(norm.source), norm.own) for norm in norms]
    alone = [start for start, own in starts if own or len(trace.users[start]) == 1]
    return {trace.layer_at[start] for start in alone if start in trace.layer_at}


def match(one: Trace, two: Trace) -> dict[int, int]:
    """The second network's layer for each of the first's, by shape, data flow and order."""
    colours = [classes(trace) for trace in (one, two)]
    found: dict[int, int] = {}
    for at in range(ROUNDS, -1, -1):
        groups: list[dict[Any, list[int]]] = [defaultdict(list), defaultdict(list)]
        for side, taken in ((0, set(found)), (1, set(found.values()))):
            for number, colour in enumerate(colours[side][at]):
                if number not in taken:
                    groups[side][colour].append(number)
        for colour, mine in groups[0].items():
            theirs = groups[1].get(colour, [])
            if len(mine) == len(theirs):
                found |= dict(zip(mine, theirs, strict=True))
    for number, layer in enumerate(one.layers):
        if number not in found:
            where = one.events[layer.event].where()
            raise UserError(
                f"The networks have different layers: the other network's {layer.kind} "
                f"{layer.shape} at {where} has no counterpart in yours."
            )
    rest = set(range(len(two.layers))) - set(found.values())
    if rest:
        layer = two.layers[min(rest)]
        where = two.events[layer.event].where()
        raise UserError(
            f"The networks have different layers: your {layer.kind} {layer.shape} at {where} has "
            "no counterpart in the other network."
        )
    return found


def classes(trace: Trace) -> list[list[int]]:
    """The class of each layer after each round: its shape, then the classes of its neighbours."""
    ups = [trace.upstream(layer.source, ()) for layer in trace.layers]
    downs: list[set[int]] = [set() for _ in trace.layers]
    for number, before in enumerate(ups):
        for up in before - {-1}:
            downs[up].add(number)
    found = [[hash((layer.kind, layer.shape)) for layer in trace.layers]]
    for _ in range(ROUNDS):
        last = found[-1]
        found.append(
            [
                hash(
                    (
                        last[n],
                        tuple(sorted(last[u] if u >= 0 else 0 for u in ups[n])),
                        tuple(sorted(last[d] for d in downs[n])),
                    )
                )
                for n in range(len(last))
            ]
        )
    return found


def joined(
    one: Trace, two: Trace, pairs: dict[int, int], names: dict[int, str]
) -> Iterator[tuple[str, int]]:
    """The second network's concatenation for each of the first's: it joins the same layers."""

    def joins(trace: Trace) -> Iterator[tuple[int, frozenset[int]]]:
        for event in trace.events:
            if event.op == "concat":
                yield event.index, frozenset(trace.upstream(event.index, ()))

    theirs = {layers: index for index, layers in joins(two)}
    for index, layers in joins(one):
        same = frozenset(pairs.get(n, n) for n in layers)
        if same in theirs and index in names:
            yield names[index], theirs[same]
