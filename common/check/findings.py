"""Turns the edits that explain a run into findings: the mistakes by name, with all their places."""

from __future__ import annotations

import math
from dataclasses import dataclass

from common.check.diagnose import Diagnosis, Search, Unexplained
from common.check.edits import names
from common.check.graph import Array, Graph, Params
from common.check.report import Difference, Finding
from common.check.trace import Trace

#: mistakes that stand between two steps of the reference
EXTRA = {"extra-relu", "extra-activation", "extra-pool", "scaled", "input-scaled"}
EXTRA |= {"dropout-active", "dropout-downscale", "channel-order", "turned-image"}


@dataclass
class World:
    """One comparison at one image size."""

    size: int
    trace: Trace
    search: Search
    found: Diagnosis
    inputs: Array


def blind(graph: Graph, worlds: list[World]) -> str:
    """A sentence if some windows see one pixel only at every size, so that their mistakes hide."""
    hidden = [
        node.name
        for node in graph.nodes.values()
        if (node.kind == "gap" or max(node.p.get("kernel", (1,))) > 1)
        and all(pixels(world.search.values[node.inputs[0]]) == 1 for world in worlds)
    ]
    return unseen(hidden, worlds) if hidden else ""


def unseen(hidden: list[str], worlds: list[World]) -> str:
    """The sentence about steps whose windows see one pixel only."""
    sizes = " and ".join(f"{world.size}x{world.size}" for world in worlds)
    more = f" and {len(hidden) - 1} more steps" if len(hidden) > 1 else ""
    return (
        f"At {sizes} the images have become 1x1 before {hidden[0]}{more}: mistakes in their "
        "windows or in the mean cannot be seen. Compare at a larger size."
    )


def pixels(image: Array | None) -> int:
    """How many pixels an image has."""
    return 0 if image is None else math.prod(image.shape[2:])


def difference(world: World, each: Unexplained) -> Difference:
    """An unexplained step as data for the report."""
    where = "" if each.event is None or each.event < 0 else world.trace.events[each.event].where()

    def facts(array: Array | None) -> tuple[list[int], list[float]] | None:
        if array is None:
            return None
        return list(array.shape), [float(v) for v in array.reshape(-1)[:4]]

    return Difference(each.name, where, facts(each.ours), facts(each.theirs), world.size)


def findings_of(graph: Graph, edits: dict[str, list[Params]], world: World) -> list[Finding]:
    """The mistakes by name and words, with all their places."""
    groups: dict[tuple[str, str], Finding] = {}
    moved = set()
    for name, options in edits.items():  # a ReLU in front of the norm instead of behind it
        before = options[0].get("before", [])
        node = graph.nodes[name]
        relu = name.removesuffix("norm") + "relu"
        earlier = node.kind == "norm" and before == [("act", {"fn": "relu"})]
        if earlier and relu in edits and edits[relu][0].get("fn") == "none":
            moved |= {name, relu}
    for name, options in edits.items():
        node = graph.nodes[name]
        if name in moved:
            if node.kind != "norm":
                continue
            rest = {k: v for k, v in options[0].items() if k != "before"}
            found = [("norm-order", {}), *names(node, rest)]
            others: list[str] = []
        else:
            found = names(node, options[0])
            others = sorted(
                {" and ".join(kind for kind, _ in names(node, p)) for p in options[1:]}
                - {" and ".join(kind for kind, _ in found)}
            )
        for kind, words in found:
            key = kind, str(sorted(words.items(), key=str))
            place = places(graph, name, kind)
            finding = groups.setdefault(key, Finding(kind, words, [], "", others))
            if place not in finding.places:
                finding.places.append(place)
            if not finding.where:
                finding.where = where_of(graph, name, world)
    return list(groups.values())


def places(graph: Graph, name: str, kind: str) -> str:
    """The place of a mistake: the step itself, or the one that an extra step stands behind."""
    node = graph.nodes[name]
    if kind in EXTRA:
        if node.kind in ("concat",) or name == "input":
            return name
        return node.inputs[0] if node.inputs else name
    return name


def where_of(graph: Graph, name: str, world: World) -> str:
    """The user's line for a step: of its tensor, or of the nearest one before it."""
    todo = [name]
    while todo:
        at = todo.pop(0)
        event = (
            world.search.layers[at].event
            if at in world.search.layers
            else world.found.events.get(at)
        )
        if event is not None and event >= 0:
            return world.trace.events[event].where()
        todo += graph.nodes[at].inputs if at in graph.nodes else []
    return ""
