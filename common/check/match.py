"""Finds the spec that a user's network follows, and the canonical name of each of its layers.

Layers are matched by shape and data flow, not by name. A concatenation of branches that fork from
one tensor is an Inception block. Blocks are aligned with the spec's; a block or layer that is
missing, extra, exchanged or of another shape is a structural difference, and the fitted spec
follows the user there, so that the rest can still be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any

from common import spec as rows
from common.check.trace import Layer, Trace
from common.errors import SpecError
from common.spec import SPECS, Conv, Inception, Spec, channels_after, pair
from common.weights import shapes

BLOCK_GAP = 7  #: the cost of a block that one side lacks; a wrong width costs 1


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


@dataclass
class Branch:
    convs: list[int]
    pooled: bool  # a pool comes first


@dataclass
class Block:
    event: int
    branches: list[Branch]
    source: int

    def convs(self) -> list[int]:
        return [conv for branch in self.branches for conv in branch.convs]


class Anatomy:
    """The parts of a user's network: stem, blocks, auxiliary heads, head."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.layers = trace.layers
        self.blocks = [b for e in trace.events if e.op == "concat" and (b := self.block(e.index))]
        inside = {conv for block in self.blocks for conv in block.convs()}
        convs = [n for n, layer in enumerate(self.layers) if layer.kind == "conv" and n not in inside]
        first = min((min(b.convs()) for b in self.blocks), default=len(self.layers))
        self.stem = [n for n in convs if n < first]
        self.side = [n for n in convs if n > first]  # of auxiliary heads, or extra
        self.linears = [n for n, layer in enumerate(self.layers) if layer.kind == "linear"]
        self.norms = {}
        for n, layer in enumerate(self.layers):
            if layer.kind == "norm":
                for up in sorted(layer.ups):
                    self.norms.setdefault(up, n)

    def block(self, event: int) -> Block | None:
        """The Inception block that ends in this concatenation, if it is one."""
        trace = self.trace
        ends = trace.events[event].inputs
        if len(ends) < 2 or trace.events[event].out.ndim != 4:
            return None
        chains = [trace.chain(end) for end in ends]
        common = set(chains[0]).intersection(*chains[1:])
        fork = max(common, default=-1)
        branches = []
        for chain in chains:
            inner = chain[: chain.index(fork)] if fork in chain else chain
            convs = [
                trace.layer_at[e]
                for e in reversed(inner)
                if e in trace.layer_at and trace.layers[trace.layer_at[e]].kind == "conv"
            ]
            pools = [e for e in inner if trace.events[e].op == "pool"]
            first = trace.layers[convs[0]].event if convs else event
            branches.append(Branch(convs, any(e < first for e in pools)))
        if not any(branch.convs for branch in branches):
            return None
        return Block(event, branches, fork)


def branch_cost(trace: Trace, mine: Branch, want: Sequence[Any]) -> float:
    """How much a user's branch differs from a spec's."""
    convs = [row for row in want if isinstance(row, Conv)]
    pooled = not isinstance(want[0], Conv)
    cost = 4.0 * abs(len(convs) - len(mine.convs)) + 2.0 * (pooled != mine.pooled)
    for number, row in zip(mine.convs, convs, strict=False):
        shape = trace.layers[number].shape
        cost += (shape[0] != row.width) + 1.5 * (tuple(shape[2:]) != pair(row.kernel))
    return cost


def block_cost(trace: Trace, mine: Block, want: Inception) -> tuple[float, tuple[int, ...]]:
    """The lowest cost of giving the user's branches the spec's roles, and the branch of each."""
    tables = [table for _, table in want.branches()]
    if len(mine.branches) != len(tables):
        return 3.0 + 4.0 * abs(len(mine.branches) - len(tables)), ()
    costs = [[branch_cost(trace, branch, table) for branch in mine.branches] for table in tables]
    best = min(
        permutations(range(len(tables))),
        key=lambda order: (sum(costs[i][j] for i, j in enumerate(order)), order),
    )
    return sum(costs[i][j] for i, j in enumerate(best)), best


def align(costs: list[list[float]], gap: float) -> list[tuple[int | None, int | None]]:
    """The pairs of the cheapest alignment of two sequences; None where one side has a gap."""
    rows_, columns = len(costs), len(costs[0]) if costs else 0
    best: list[list[float]] = [[0.0] * (columns + 1) for _ in range(rows_ + 1)]
    for i in range(rows_ + 1):
        for j in range(columns + 1):
            ways = [best[i - 1][j] + gap] if i else []
            ways += [best[i][j - 1] + gap] if j else []
            ways += [best[i - 1][j - 1] + costs[i - 1][j - 1]] if i and j else []
            best[i][j] = min(ways, default=0.0)
    pairs: list[tuple[int | None, int | None]] = []
    i, j = rows_, columns
    while i or j:
        if i and j and best[i][j] == best[i - 1][j - 1] + costs[i - 1][j - 1]:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif i and best[i][j] == best[i - 1][j] + gap:
            i -= 1
            pairs.append((i, None))
        else:
            j -= 1
            pairs.append((None, j))
    return pairs[::-1]


def fit(trace: Trace, spec: Spec, channels: int, size: int) -> Match | None:
    """The spec fitted to the user's network; None if it cannot be (the cost says how far)."""
    found = Anatomy(trace)
    if not found.linears:
        return None
    main, sides = heads(trace, found)
    head = trace.layers[main]
    try:
        base = spec.at(
            size=size,
            channels=channels if len(spec.stage1) and not affine(spec) else None,
            classes=head.shape[0],
            dropout=0.0,
        )
    except SpecError:
        return None
    if base.input[0] != channels:
        return None
    structure: list[Structure] = []
    layers: dict[str, Layer] = {}
    tables = {stage: list(table) for stage, table in base.stages()}
    places = [(s, i) for s, table in tables.items() for i, row in enumerate(table)]
    ours = [(s, i) for s, i in places if isinstance(tables[s][i], Inception)]
    stem_rows = [(s, i) for s, i in places if isinstance(tables[s][i], Conv)]
    # the blocks
    costs = [
        [block_cost(trace, block, tables[s][i])[0] for block in found.blocks] for s, i in ours
    ]
    pairs = align(costs, BLOCK_GAP) if ours and found.blocks else [(n, None) for n in range(len(ours))]
    pairs = exchange(pairs, costs)
    cost = sum(
        costs[i][j] if i is not None and j is not None else BLOCK_GAP for i, j in pairs
    )
    drop, fitted, given = set(), {}, {}
    order = [j for _, j in sorted((p for p in pairs if p[0] is not None and p[1] is not None))]
    for i, j in pairs:
        if i is None:
            assert j is not None
            block = found.blocks[j]
            structure.append(
                Structure("extra-block", "", block.event, None, describe(trace, block))
            )
            return Match(base, base, layers, structure, cost)
        s, index = ours[i]
        if j is None:
            drop.add((s, index))
            structure.append(Structure("missing-block", f"{s}.{index}", None, widths(tables[s][index])))
            continue
        roles = block_cost(trace, found.blocks[j], tables[s][index])[1]
        if not roles:
            structure.append(
                Structure(
                    "block-branches",
                    f"{s}.{index}",
                    found.blocks[j].event,
                    4,
                    len(found.blocks[j].branches),
                )
            )
            return Match(base, base, layers, structure, cost)
        given[s, index] = (found.blocks[j], roles)
        fitted[s, index] = j
    if order != sorted(order):  # two blocks exchanged: the fitted spec has the user's order
        at = [ours[i] for i, j in sorted(p for p in pairs if None not in p)]
        moved = [place for place, j, k in zip(at, order, sorted(order), strict=True) if j != k]
        names = " and ".join(".".join(map(str, place)) for place in moved)
        event = given[moved[0]][0].event
        structure.append(Structure("exchanged-blocks", names, event))
        inverse = {j: place for place, j in zip(at, order, strict=True)}
        old = dict(given), {place: tables[place[0]][place[1]] for place in at}
        for place, j in zip(at, sorted(order), strict=True):
            given[place] = old[0][inverse[j]]
            tables[place[0]][place[1]] = old[1][inverse[j]]
        cost += 1
    for place, (block, roles) in given.items():
        row = tables[place[0]][place[1]]
        branches = {}
        for (name, table), role in zip(row.branches(), roles, strict=True):
            branch = block.branches[role]
            convs = [k for k, each in enumerate(table) if isinstance(each, Conv)]
            if len(convs) != len(branch.convs):
                where = f"{place[0]}.{place[1]}.{name}"
                event = trace.layers[branch.convs[-1]].event if branch.convs else block.event
                structure.append(
                    Structure("branch-layers", where, event, len(convs), len(branch.convs))
                )
                return Match(base, base, layers, structure, cost)
            new = list(table)
            for k, number in zip(convs, branch.convs, strict=True):
                where = f"{place[0]}.{place[1]}.{name}.{k}.conv"
                new[k] = adapt(trace, table[k], number, where, structure)
                layers[where] = trace.layers[number]
            branches[name] = tuple(new)
        tables[place[0]][place[1]] = Inception(**branches)
    # the stem
    stem_costs = [
        [
            (trace.layers[n].shape[0] != tables[s][i].width)
            + 1.5 * (tuple(trace.layers[n].shape[2:]) != pair(tables[s][i].kernel))
            for n in found.stem
        ]
        for s, i in stem_rows
    ]
    for i, j in align(stem_costs, 3.0) if stem_rows and found.stem else []:
        if i is None or j is None:
            cost += 3
            kind = "extra-layer" if i is None else "missing-layer"
            name = "" if i is None else ".".join(map(str, stem_rows[i]))
            event = None if j is None else trace.layers[found.stem[j]].event
            shape = None if j is None else trace.layers[found.stem[j]].shape
            structure.append(Structure(kind, name, event, None, shape))
            return Match(base, base, layers, structure, cost)
        s, k = stem_rows[i]
        cost += stem_costs[i][j]
        tables[s][k] = adapt(trace, tables[s][k], found.stem[j], f"{s}.{k}.conv", structure)
        layers[f"{s}.{k}.conv"] = trace.layers[found.stem[j]]
    if stem_rows and not found.stem:
        return None
    kept = {
        s: tuple(row for k, row in enumerate(table) if (s, k) not in drop)
        for s, table in tables.items()
    }
    layers = renumber(layers, tables, drop)
    # the heads
    cost += sides_cost(base, sides)
    auxiliary = base.auxiliary if len(sides) == len(base.auxiliary) else ()
    new_aux = []
    for number, (side, row) in enumerate(zip(sides, auxiliary, strict=False)):
        conv, hidden, last = side
        name = f"auxiliary.{number}"
        layers[f"{name}.conv.conv"] = trace.layers[conv]
        layers[f"{name}.hidden"], layers[f"{name}.head"] = trace.layers[hidden], trace.layers[last]
        row = replace(
            row,
            conv=adapt(trace, row.conv, conv, f"{name}.conv.conv", structure),
            features=trace.layers[hidden].shape[1],
            hidden=replace(row.hidden, width=trace.layers[hidden].shape[0]),
        )
        new_aux.append(row)
    layers["head"] = head
    try:
        new = replace(base, **kept, auxiliary=tuple(new_aux))
    except SpecError:
        return Match(base, base, layers, structure, cost)
    norms = [n for n in found.norms.values()]
    if bool(norms) != (new.norm is not None):
        cost += 4
    biased = sum("bias" in each.leaves for each in layers.values() if each.kind == "conv")
    wanted = sum(row.bias for row in all_convs(new))
    cost += 0.5 * (biased > 0) * (wanted == 0) + 0.5 * (biased == 0) * (wanted > 0)
    for name, layer in list(layers.items()):
        if layer.kind == "conv" and (n := found.norms.get(trace.layers.index(layer))) is not None:
            layers[name.removesuffix("conv") + "norm"] = trace.layers[n]
    match = Match(base, new, layers, structure, cost)
    features = new.channels()[-1]
    if head.shape[1] != features:
        image = trace.events[trace.through(head.source)].out.shape
        source = trace.events[head.source]
        before = trace.events[source.inputs[0]].out.shape if source.inputs else image
        match.flatten = any(len(s) == 4 and s[1] == features for s in (image, before)) and (
            head.shape[1] % features == 0
        )
        event = head.event
        match.structure.append(
            Structure("layer-shape", "head", event, (head.shape[0], features), head.shape)
        ) if not match.flatten else None
        match.cost += 1
    used = {trace.layers.index(layer) for layer in layers.values()}
    for n, layer in enumerate(trace.layers):
        if n not in used and layer.kind != "norm":
            match.cost += 3
            match.structure.append(Structure("extra-layer", "", layer.event, None, layer.shape))
    return match


def affine(spec: Spec) -> bool:
    return isinstance(spec.stage1[0], rows.Affine)


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


def exchange(
    pairs: list[tuple[int | None, int | None]], costs: list[list[float]]
) -> list[tuple[int | None, int | None]]:
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


def adapt(trace: Trace, row: Conv, number: int, name: str, structure: list[Structure]) -> Conv:
    """The row with the user's width and kernel; a difference is noted."""
    shape = trace.layers[number].shape
    want = (row.width, shape[1], *pair(row.kernel))
    if shape == want:
        return row
    kernel = tuple(shape[2:])
    structure.append(Structure("layer-shape", name, trace.layers[number].event, want, shape))
    if kernel == pair(row.kernel):
        return replace(row, width=shape[0])
    half = tuple((k - 1) // 2 for k in kernel) if any(pair(row.padding)) else 0
    return replace(row, width=shape[0], kernel=kernel, padding=half)


def renumber(
    layers: dict[str, Layer], tables: dict[str, list[Any]], drop: set[tuple[str, int]]
) -> dict[str, Layer]:
    """The names after some rows are left out."""
    found = {}
    for name, layer in layers.items():
        stage, index, *rest = name.split(".")
        if stage in tables:
            before = sum(s == stage and k < int(index) for s, k in drop)
            name = ".".join((stage, str(int(index) - before), *rest))
        found[name] = layer
    return found


def heads(trace: Trace, found: Anatomy) -> tuple[int, list[tuple[int, int, int]]]:
    """The number of the main head, and (conv, hidden, head) of each auxiliary one."""
    sides, taken = [], set()
    for conv in found.side:
        hidden = next((n for n in found.linears if conv in trace.layers[n].ups), None)
        last = next((n for n in found.linears if hidden in trace.layers[n].ups), None)
        if hidden is not None and last is not None:
            sides.append((conv, hidden, last))
            taken |= {hidden, last}
    main = [n for n in found.linears if n not in taken]
    return (main or found.linears)[-1], sides


def sides_cost(spec: Spec, sides: list[Any]) -> float:
    """Auxiliary heads that one side lacks; a network may leave them out in evaluation."""
    return 2.0 * max(len(sides) - len(spec.auxiliary), 0) + 0.25 * max(
        len(spec.auxiliary) - len(sides), 0
    )


def widths(row: Inception) -> str:
    """The widths of a block, as the book writes them."""
    parts = []
    for _, table in row.branches():
        found = [each.width for each in table if isinstance(each, Conv)]
        parts.append(str(found[0]) if len(found) == 1 else f"({', '.join(map(str, found))})")
    return ", ".join(parts)


def describe(trace: Trace, block: Block) -> str:
    parts = []
    for branch in block.branches:
        found = [trace.layers[n].shape[0] for n in branch.convs]
        parts.append(str(found[0]) if len(found) == 1 else f"({', '.join(map(str, found))})")
    return ", ".join(parts)




def closest(trace: Trace, asked: Spec | None, channels: int, size: int) -> list[Match]:
    """The specs that fit a user's network, fitted to it, the best first: the one asked for, or all."""
    found = []
    for spec in [asked] if asked else SPECS.values():
        match = fit(trace, spec, channels, size)
        if match:
            found.append(match)
    found.sort(key=lambda match: match.cost)
    return found


def unmatched(match: Match, trace: Trace) -> list[tuple[str, tuple[int, ...], tuple[int, ...] | None]]:
    """The tensors of the fitted spec whose layer has another shape than the user's."""
    wrong = []
    for name, shape in shapes(match.spec).items():
        layer_name, _, leaf = name.rpartition(".")
        layer = match.layers.get(layer_name)
        if leaf == "weight" and layer is not None and layer.kind != "norm" and layer.shape != shape:
            wrong.append((name, shape, layer.shape))
    return wrong


__all__ = ["Match", "Structure", "channels_after", "closest", "fit", "unmatched"]
