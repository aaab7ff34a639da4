"""Finds the spec that a user's network follows, and the canonical name of each of its layers.

Layers are matched by shape and data flow, not by name. A concatenation of branches that fork from
one tensor is an Inception block. Blocks are aligned with the spec's; a block or layer that is
missing, extra, exchanged or of another shape is a structural difference, and the fitted spec
follows the user there, so that the rest can still be compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from common.check import topology
from common.check.anatomy import (
    Anatomy,
    Block,
    Pairs,
    align,
    block_cost,
    describe,
    heads,
    widths,
)
from common.check.graph import build
from common.check.trace import Layer, Trace
from common.errors import SpecError
from common.spec import (
    SPECS,
    Affine,
    Branches,
    Conv,
    Inception,
    MaxPool,
    Residual,
    Row,
    Spec,
    pair,
)
from common.weights import norm_name, shapes

Place = tuple[str, int]  #: a stage and the number of a row

BLOCK_GAP = 7.0  #: the cost of a block that one side lacks; a wrong width costs 1
LAYER_GAP = topology.GAP  #: of a layer that one side lacks


@dataclass
class Structure:
    """One structural difference: its kind, the canonical name, the user's event, what is there."""

    kind: str
    name: str
    event: int | None
    ours: Any = None
    theirs: Any = None


@dataclass
class Match:
    """The spec, fitted to the user's network, and the layers by canonical name."""

    base: Spec  # the known spec
    spec: Spec  # the same, with the user's widths and blocks
    layers: dict[str, Layer]
    structure: list[Structure] = field(default_factory=list)
    cost: float = 0.0
    flatten: bool = False  # the head takes the flattened image
    unclear: str = ""  # why the network's structure cannot be recognised


class Fit:
    """One spec, fitted to a user's network part by part."""

    def __init__(self, trace: Trace, found: Anatomy, base: Spec) -> None:
        self.trace, self.found = trace, found
        self.tables: dict[str, list[Row]] = {s: list(table) for s, table in base.stages()}
        self.blocks: dict[Place, Inception] = {}
        self.stem: dict[Place, Conv] = {}
        for stage, table in self.tables.items():
            for index, row in enumerate(table):
                if isinstance(row, Inception):
                    self.blocks[stage, index] = row
                elif isinstance(row, Conv):
                    self.stem[stage, index] = row
        self.match = Match(base, base, {})
        self.gone: set[Place] = set()
        self.complete = all(
            part() for part in (self.fit_blocks, self.fit_stem, self.fit_heads, self.fit_norms)
        )
        self.rest()

    def note(
        self, kind: str, name: str, event: int | None, ours: Any = None, theirs: Any = None
    ) -> None:
        """Note a structural difference."""
        self.match.structure.append(Structure(kind, name, event, ours, theirs))

    def fit_blocks(self) -> bool:
        """Align the Inception blocks; whether each of the user's has a place."""
        places, rows_ = list(self.blocks), list(self.blocks.values())
        mine = self.found.blocks
        costs = [[block_cost(self.trace, block, row)[0] for block in mine] for row in rows_]
        pairs: Pairs = [(n, None) for n in range(len(rows_))]
        if rows_ and mine:
            pairs = exchange(align(costs, BLOCK_GAP), costs)
        given: list[tuple[int, int]] = []
        for i, j in pairs:
            if i is None and j is not None:
                self.match.cost += BLOCK_GAP
                self.note("extra-block", "", mine[j].event, None, describe(self.trace, mine[j]))
                return False
            if i is not None and j is None:
                self.match.cost += BLOCK_GAP
                self.gone.add(places[i])
                self.note("missing-block", dotted(places[i]), None, widths(rows_[i]))
            elif i is not None and j is not None:
                self.match.cost += costs[i][j]
                given.append((i, j))
        given.sort()
        order = [j for _, j in given]
        if order != sorted(order):  # the fitted spec has the blocks in the user's order
            moved = [places[i] for (i, j), k in zip(given, sorted(order), strict=True) if j != k]
            event = next(mine[j].event for (i, j) in given if places[i] == moved[0])
            self.note("exchanged-blocks", " and ".join(map(dotted, moved)), event)
            self.match.cost += 1
        row_of = {j: rows_[i] for i, j in given}
        for (i, _), j in zip(given, sorted(order), strict=True):
            if not self.fit_block(places[i], row_of[j], mine[j]):
                return False
        return True

    def fit_block(self, place: Place, row: Inception, block: Block) -> bool:
        """Give the branches of one block their roles, and the row the user's widths."""
        cost, roles = block_cost(self.trace, block, row)
        if cost and len(block.convs()) > len(set(block.convs())):
            where = self.trace.events[block.event].where()
            self.match.unclear = f"one convolution makes several branches of the block at {where}"
        name = dotted(place)
        if not roles:
            self.note("block-branches", name, block.event, 4, len(block.branches))
            return False
        branches: dict[str, tuple[Conv | MaxPool, ...]] = {}
        for (label, table), role in zip(row.branches(), roles, strict=True):
            branch = block.branches[role]
            convs = [k for k, each in enumerate(table) if isinstance(each, Conv)]
            if len(convs) != len(branch.convs):
                layers = self.trace.layers
                event = layers[branch.convs[-1]].event if branch.convs else block.event
                self.note("branch-layers", f"{name}.{label}", event, len(convs), len(branch.convs))
                return False
            new = list(table)
            for k, number in zip(convs, branch.convs, strict=True):
                old = table[k]
                assert isinstance(old, Conv)
                new[k] = self.adapt(old, number, f"{name}.{label}.{k}.conv")
            branches[label] = tuple(new)
        self.tables[place[0]][place[1]] = Inception(**branches)
        return True

    def fit_stem(self) -> bool:
        """Align the convolutions before the first block; whether none is extra or missing."""
        places, table, mine = list(self.stem), list(self.stem.values()), self.found.stem
        layers = self.trace.layers
        costs = [
            [
                (layers[n].shape[0] != row.width)
                + 1.5 * (tuple(layers[n].shape[2:]) != pair(row.kernel))
                for n in mine
            ]
            for row in table
        ]
        pairs: Pairs = [(None, j) for j in range(len(mine))]
        if table:
            pairs = align(costs, LAYER_GAP) if mine else [(i, None) for i in range(len(table))]
        for i, j in pairs:
            if i is None and j is not None:
                self.match.cost += LAYER_GAP
                self.note("extra-layer", "", layers[mine[j]].event, None, layers[mine[j]].shape)
                return False
            if i is not None and j is None:
                self.match.cost += LAYER_GAP
                self.note("missing-layer", f"{dotted(places[i])}.conv", None)
                return False
            if i is not None and j is not None:
                self.match.cost += costs[i][j]
                stage, index = places[i]
                new = self.adapt(table[i], mine[j], f"{dotted(places[i])}.conv")
                self.tables[stage][index] = new
        return True

    def adapt(self, row: Conv, number: int, name: str) -> Conv:
        """The row with the user's width and kernel; a difference is noted."""
        layer = self.trace.layers[number]
        self.match.layers[name] = layer
        want = (row.width, layer.shape[1], *pair(row.kernel))
        if layer.shape == want:
            return row
        self.note("layer-shape", name, layer.event, want, layer.shape)
        high, wide = layer.shape[2:]
        if (high, wide) == pair(row.kernel):
            return replace(row, width=layer.shape[0])
        half = ((high - 1) // 2, (wide - 1) // 2) if any(pair(row.padding)) else 0
        return replace(row, width=layer.shape[0], kernel=(high, wide), padding=half)

    def fit_heads(self) -> bool:
        """The head and the auxiliary heads, and the spec that follows."""
        match, layers = self.match, self.trace.layers
        match.layers = renumber(match.layers, self.gone)
        main, sides = heads(self.trace, self.found)
        more, fewer = len(sides) - len(match.base.auxiliary), len(match.base.auxiliary) - len(sides)
        match.cost += 2.0 * max(more, 0) + 0.1 * max(fewer, 0)
        auxiliary = []
        if not more:
            for number, ((conv, hidden, last), row) in enumerate(
                zip(sides, match.base.auxiliary, strict=True)
            ):
                name = f"auxiliary.{number}"
                match.layers[f"{name}.hidden"] = layers[hidden]
                match.layers[f"{name}.head"] = layers[last]
                width, features = layers[hidden].shape
                row = replace(
                    row,
                    conv=self.adapt(row.conv, conv, f"{name}.conv.conv"),
                    features=features,
                    hidden=replace(row.hidden, width=width),
                )
                auxiliary.append(row)
        match.layers["head"] = layers[main]
        kept = {
            stage: tuple(row for k, row in enumerate(table) if (stage, k) not in self.gone)
            for stage, table in self.tables.items()
        }
        try:
            match.spec = replace(match.base, **kept, auxiliary=tuple(auxiliary))  # type: ignore[arg-type]
        except SpecError:
            return False
        self.fit_features(layers[main])
        return True

    def fit_features(self, head: Layer) -> None:
        """The head may take the whole image, flattened."""
        features, trace = self.match.spec.channels()[-1], self.trace
        if head.shape[1] == features:
            return
        self.match.cost += 1
        source = trace.events[head.source]
        images = [trace.events[trace.through(head.source)].out.shape]
        images += [trace.events[i].out.shape for i in source.inputs if i >= 0]
        image = any(len(s) == 4 and s[1] == features for s in images)
        if image and head.shape[1] % features == 0:
            self.match.flatten = True
        else:
            self.note("layer-shape", "head", head.event, (head.shape[0], features), head.shape)

    def fit_norms(self) -> bool:
        """The norm behind each convolution."""
        add_norms(self.match, self.found)
        return True

    def rest(self) -> None:
        """Layers of the user's that have no name are extra."""
        used = {id(layer) for layer in self.match.layers.values()}
        notes = list(self.match.structure)
        for layer in self.trace.layers:
            if id(layer) not in used and layer.kind != "norm":
                self.match.cost += LAYER_GAP
                lost = any(s.kind == "missing-block" for s in notes) and not self.match.unclear
                if layer.kind == "conv" and lost:
                    where = self.trace.events[layer.event].where()
                    self.match.unclear = f"no block is found around the convolution at {where}"
                if self.complete:
                    self.note("extra-layer", "", layer.event, None, layer.shape)


def fit(trace: Trace, spec: Spec, channels: int, size: int) -> Match | None:
    """The spec fitted to the user's network; None if its input or its end is another."""
    found = Anatomy(trace)
    if not found.linears or (found.blocks and not found.stem and not forks(spec)):
        return None
    main, _ = heads(trace, found)
    try:
        base = spec.at(
            size=size,
            channels=None if isinstance(spec.stage1[0], Affine) else channels,
            classes=trace.layers[main].shape[0],
            dropout=0.0,
        )
    except SpecError:
        return None
    if base.input[0] != channels:
        return None
    return by_topology(trace, found, base) if forks(spec) else Fit(trace, found, base).match


def add_norms(match: Match, found: Anatomy) -> None:
    """The norm behind each convolution; the cost of norms and biases that one side lacks."""
    match.cost += 4.0 * (bool(found.norms) != (match.spec.norm is not None))
    convs = {n: layer for n, layer in match.layers.items() if layer.kind == "conv"}
    biased = any("bias" in layer.leaves for layer in convs.values())
    match.cost += 0.5 * (biased != any(row.bias for row in all_convs(match.spec)))
    for name, layer in convs.items():
        norm = found.norms.get(found.layers.index(layer))
        if norm is not None:
            match.layers[norm_name(name)] = found.layers[norm]


def by_topology(trace: Trace, found: Anatomy, base: Spec) -> Match:
    """A spec with blocks that fork or add, fitted by the connections of its layers."""
    match = Match(base, base, {})
    ours, names = topology.of_spec(build(base), shapes(base))
    theirs, layers = topology.of_trace(trace)
    pairs: Pairs = list(enumerate(topology.same(ours, theirs) or ()))
    pairs = pairs or topology.nearly(ours, theirs)
    for i, j in pairs:
        if i is not None and j is not None:
            match.layers[names[i]] = layers[j]
            if ours.shapes[i] != theirs.shapes[j]:
                match.cost += 1
                wanted, got = ours.shapes[i][1], theirs.shapes[j][1]
                match.structure.append(
                    Structure("layer-shape", names[i], layers[j].event, wanted, got)
                )
        elif i is not None:
            match.cost += LAYER_GAP
            match.structure.append(Structure("missing-layer", names[i], None))
        elif j is not None:
            match.cost += LAYER_GAP
            extra = Structure("extra-layer", "", layers[j].event, None, layers[j].shape)
            match.structure.append(extra)
    add_norms(match, found)
    return match


def forks(spec: Spec) -> bool:
    """Whether the spec has blocks of branches that are no Inception blocks, or residual ones."""
    return any(isinstance(row, (Branches, Residual)) for _, rows in spec.stages() for row in rows)


def dotted(place: Place) -> str:
    """A place as the start of a canonical name."""
    return f"{place[0]}.{place[1]}"


def all_convs(spec: Spec) -> list[Conv]:
    """Every convolution of the stages."""
    found: list[Conv] = []
    for _, table in spec.stages():
        for row in table:
            if isinstance(row, Inception):
                found += [r for _, t in row.branches() for r in t if isinstance(r, Conv)]
            elif isinstance(row, Conv):
                found.append(row)
    return found


def exchange(pairs: Pairs, costs: list[list[float]]) -> Pairs:
    """Exchange the partners of two pairs where that makes both cheaper."""
    found = list(pairs)
    for a in range(len(found)):
        for b in range(a + 1, len(found)):
            (i, j), (k, m) = found[a], found[b]
            if i is None or j is None or k is None or m is None:
                continue
            if costs[i][m] + costs[k][j] + 1 < costs[i][j] + costs[k][m]:
                found[a], found[b] = (i, m), (k, j)
    missing = [n for n, p in enumerate(found) if p[1] is None]
    extra = [n for n, p in enumerate(found) if p[0] is None]
    for a in missing:  # a block moved past another: a gap on both sides
        for b in extra:
            i, j = found[a][0], found[b][1]
            if i is not None and j is not None and found[b][0] is None and costs[i][j] < 3:
                found[a], found[b] = (i, j), (None, None)
    return [p for p in found if p != (None, None)]


def renumber(layers: dict[str, Layer], gone: set[Place]) -> dict[str, Layer]:
    """The names after some rows are left out."""
    found = {}
    for name, layer in layers.items():
        stage, index, *rest = name.split(".")
        before = sum(s == stage and k < int(index) for s, k in gone)
        found[".".join((stage, str(int(index) - before), *rest))] = layer
    return found


def closest(trace: Trace, asked: Spec | None, channels: int, size: int) -> list[Match]:
    """The specs that fit a user's network, the best first: the one asked for, or all."""
    found = []
    for spec in [asked] if asked else SPECS.values():
        match = fit(trace, spec, channels, size)
        if match:
            found.append(match)
    found.sort(key=lambda match: match.cost)
    return found


def unmatched(
    match: Match, trace: Trace
) -> list[tuple[str, tuple[int, ...], tuple[int, ...] | None]]:
    """The tensors of the fitted spec whose layer has another shape than the user's."""
    wrong: list[tuple[str, tuple[int, ...], tuple[int, ...] | None]] = []
    for name, shape in shapes(match.spec).items():
        layer_name, _, leaf = name.rpartition(".")
        layer = match.layers.get(layer_name)
        if leaf != "weight" or layer is None:
            continue
        norm = layer.kind == "norm"  # its numbers may lie as (1, channels, 1, 1)
        if math.prod(layer.shape) != shape[0] if norm else layer.shape != shape:
            wrong.append((name, shape, layer.shape))
    return wrong
