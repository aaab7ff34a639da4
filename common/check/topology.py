"""Matches layers by the way that they are connected: for specs whose blocks fork and add.

A layer's colour begins as its kind and shape, and takes in the colours before and behind it again
and again (Weisfeiler and Leman, 1968). Layers of equal colours correspond. Where some are alike in
everything, those that run first correspond, and the colours spread from there.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from common.check.anatomy import Pairs, align
from common.check.graph import INPUT, Graph
from common.check.trace import Layer, Trace

LAYERS = ("conv", "linear")
GAP = 3.0  #: the cost of a layer that one side lacks; another shape costs 1
Shape = tuple[int, ...]


@dataclass
class Net:
    """Layers in the order in which they run: their shapes, and the layers right before each."""

    shapes: list[tuple[str, Shape]]
    before: list[set[int]]  # -1: the input
    pooled: list[bool]  # whether a pool is right before a convolution

    @cached_property
    def behind(self) -> list[set[int]]:
        """The layers right behind each."""
        found: list[set[int]] = [set() for _ in self.shapes]
        for number, sources in enumerate(self.before):
            for source in sources - {-1}:
                found[source].add(number)
        return found


def of_spec(graph: Graph, shapes: dict[str, Shape]) -> tuple[Net, list[str]]:
    """The layers of the reference, and their names."""
    names = [node.name for node in graph.nodes.values() if node.kind in LAYERS]
    number = {name: n for n, name in enumerate(names)}
    before = [nearest(graph, graph.nodes[name].inputs, number) for name in names]
    pooled = [graph.nodes[graph.nodes[name].inputs[0]].kind == "pool" for name in names]
    return Net([(graph.nodes[n].kind, shapes[f"{n}.weight"]) for n in names], before, pooled), names


def nearest(graph: Graph, inputs: tuple[str, ...], number: dict[str, int]) -> set[int]:
    """The numbers of the nearest layers before some steps; -1 is the input."""
    found, todo = set[int](), list(inputs)
    while todo:
        name = todo.pop()
        if name == INPUT:
            found.add(-1)
        elif name in number:
            found.add(number[name])
        else:
            todo += graph.nodes[name].inputs
    return found


def of_trace(trace: Trace) -> tuple[Net, list[Layer]]:
    """The layers of the user's network."""
    layers = [layer for layer in trace.layers if layer.kind in LAYERS]
    number = {trace.layers.index(layer): n for n, layer in enumerate(layers)}
    before = [{number.get(up, -1) for up in layer.ups} for layer in layers]
    pooled = [layer.kind == "conv" and trace.pooled(layer.source) for layer in layers]
    return Net([(layer.kind, layer.shape) for layer in layers], before, pooled), layers


def colours(nets: list[Net], begun: list[list[object]]) -> list[list[int]]:
    """The colours of the layers of several networks, when they no longer divide."""
    now = begun
    kinds = 0
    while True:
        found: list[list[object]] = []
        for net, each in zip(nets, now, strict=True):
            found.append(
                [
                    (
                        each[n],
                        tuple(sorted(str(each[b]) if b >= 0 else "" for b in net.before[n])),
                        tuple(sorted(str(each[b]) for b in net.behind[n])),
                    )
                    for n in range(len(net.shapes))
                ]
            )
        names: dict[object, int] = {}
        numbered = [[names.setdefault(c, len(names)) for c in each] for each in found]
        if len(names) == kinds:
            return numbered
        kinds, now = len(names), [list(each) for each in numbered]


def same(ours: Net, theirs: Net) -> list[int] | None:
    """The user's layer for each of the reference's, by number; None if they do not correspond."""
    if Counter(ours.shapes) != Counter(theirs.shapes):
        return None
    # a pool tells branches of one shape apart; a network may lack it by mistake
    pools: list[list[object]] = [
        list(zip(net.shapes, net.pooled, strict=True)) for net in (ours, theirs)
    ]
    found = paired(ours, theirs, pools)
    return found or paired(ours, theirs, [list(ours.shapes), list(theirs.shapes)])


def paired(ours: Net, theirs: Net, begun: list[list[object]]) -> list[int] | None:
    """The same, beginning with these colours."""
    while True:
        first, second = colours([ours, theirs], begun)
        if Counter(first) != Counter(second):
            return None
        alike = [c for c, n in Counter(first).items() if n > 1]
        if not alike:
            return [second.index(c) for c in first]
        begun = [list(first), list(second)]
        for each in begun:  # the first of each that are alike in everything
            each[each.index(min(alike))] = "first"


def nearly(ours: Net, theirs: Net) -> Pairs:
    """The cheapest pairs in the order in which layers run; None where one side has a gap."""
    costs = [[float(want != got) for got in theirs.shapes] for want in ours.shapes]
    return align(costs, GAP)
