"""The parts of a user's network, by its data flow: stem, blocks, auxiliary heads, head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from common.check.graph import Array
from common.check.trace import Layer, Trace
from common.spec import Conv, Inception, pair

Pairs = list[tuple[int | None, int | None]]  #: of the spec's parts and the user's, by number


@dataclass
class Branch:
    """A branch of a user's block: its convolutions, and whether a pool comes first."""

    convs: list[int]
    pooled: bool  # a pool comes first


@dataclass
class Block:
    """An Inception block of the user's: its concatenation, its branches, and where they fork."""

    event: int
    branches: list[Branch]
    source: int

    def convs(self) -> list[int]:
        """The convolutions of all branches."""
        return [conv for branch in self.branches for conv in branch.convs]


class Anatomy:
    """The parts of a user's network: stem, blocks, auxiliary heads, head."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.layers = trace.layers
        self.blocks = [b for e in trace.events if e.op == "concat" and (b := self.block(e.index))]
        inside = {conv for block in self.blocks for conv in block.convs()}
        convs = [
            n for n, layer in enumerate(self.layers) if layer.kind == "conv" and n not in inside
        ]
        first = min((min(b.convs()) for b in self.blocks), default=len(self.layers))
        self.stem = [n for n in convs if n < first]
        self.side = [n for n in convs if n > first]  # of auxiliary heads, or extra
        self.linears = [n for n, layer in enumerate(self.layers) if layer.kind == "linear"]
        self.norms: dict[int, int] = {}
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


def align(costs: list[list[float]], gap: float) -> Pairs:
    """The pairs of the cheapest alignment of two sequences; None where one side has a gap."""
    rows_, columns = len(costs), len(costs[0]) if costs else 0
    best: list[list[float]] = [[0.0] * (columns + 1) for _ in range(rows_ + 1)]
    for i in range(rows_ + 1):
        for j in range(columns + 1):
            ways = [best[i - 1][j] + gap] if i else []
            ways += [best[i][j - 1] + gap] if j else []
            ways += [best[i - 1][j - 1] + costs[i - 1][j - 1]] if i and j else []
            best[i][j] = min(ways, default=0.0)
    pairs: Pairs = []
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


def widths(row: Inception) -> str:
    """The widths of a block, as the book writes them."""
    parts = []
    for _, table in row.branches():
        found = [each.width for each in table if isinstance(each, Conv)]
        parts.append(str(found[0]) if len(found) == 1 else f"({', '.join(map(str, found))})")
    return ", ".join(parts)


def describe(trace: Trace, block: Block) -> str:
    """The widths of a user's block."""
    parts = []
    for branch in block.branches:
        found = [trace.layers[n].shape[0] for n in branch.convs]
        parts.append(str(found[0]) if len(found) == 1 else f"({', '.join(map(str, found))})")
    return ", ".join(parts)


def order_outputs(trace: Trace, layers: dict[str, Layer]) -> list[tuple[str, int | None, Array]]:
    """The outputs in the reference's order: the logits, then those of the auxiliary heads."""
    heads = [
        "head",
        *sorted(n for n in layers if n.startswith("auxiliary.") and n.endswith(".head")),
    ]
    found = []
    for name in heads:
        number = trace.layers.index(layers[name])
        for output in trace.outputs:
            if output[1] is not None and number in trace.upstream(output[1]):
                found.append(output)
                break
    unknown = [output for output in trace.outputs if output[1] is None]
    return found or unknown or trace.outputs
