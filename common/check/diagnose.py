"""Compares a recorded run with the reference, step by step, and finds the edits that explain it.

Each step of the reference gets the user's own tensors as its input, so a mistake upstream does not
hide or imitate one downstream. A step agrees if one of the user's tensors equals its output. Where
a layer with weights, a concatenation or an output does not agree, the steps since the last
agreement are edited until they give the user's tensor. What no edit explains is unexplained, and
the comparison goes on with the user's tensor.

Long because it is one class: the sweep, the layers, the segments and the concatenations share the
tensors that agree so far.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from common.check.edits import variants
from common.check.graph import INPUT, Array, Graph, Node, Params, compute
from common.check.steps import SAMPLE, affine, aligned, error, identify
from common.check.trace import TRANSPARENT, Layer, Trace
from common.weights import Weights

TOLERANCE = {"float64": 1e-8, "float32": 3e-5}
NORMS = {0: "a norm over the channels of each pixel", 1: "a layer norm"}  #: by groups
MOST_EDITS = 3  #: in one segment, between two layers with weights


@dataclass
class Unexplained:
    """A step that no edit explains: the reference's tensor, and the user's."""

    name: str
    event: int | None
    ours: Array | None
    theirs: Array | None


@dataclass
class Diagnosis:
    """What a comparison found."""

    edits: dict[str, list[Params]] = field(default_factory=dict)  # all that fit, the likely first
    unexplained: list[Unexplained] = field(default_factory=list)
    events: dict[str, int | None] = field(default_factory=dict)  # of each step that agrees
    inputs: dict[str, list[Array]] = field(default_factory=dict)  # of each edited step
    results: dict[str, Array] = field(default_factory=dict)  # of each edited step


class Search:
    """One comparison of a graph with a recorded run."""

    def __init__(
        self,
        graph: Graph,
        weights: Weights,
        x: Array,
        trace: Trace,
        layers: dict[str, Layer],
        joins: dict[str, int],
        dtype: str = "float64",
    ) -> None:
        self.graph, self.trace, self.layers, self.joins = graph, trace, layers, joins
        self.weights = {name: array.astype(np.float64) for name, array in weights.items()}
        self.tolerance = TOLERANCE[dtype]
        self.values: dict[str, Array | None] = {INPUT: np.asarray(x, np.float64)}
        self.at: dict[str, int | None] = {INPUT: -1}
        self.found = Diagnosis()
        self.index: dict[tuple[int, ...], list[int]] = {}
        for event in trace.events:
            shape = event.out.shape
            self.index.setdefault((shape[0], event.out.size), []).append(event.index)

    # ---- equality

    def same(self, a: Array | None, b: Array) -> bool:
        """Whether two tensors agree."""
        return a is not None and error(a, b) <= self.tolerance

    def event(self, index: int | None) -> Array:
        """The tensor of an event; -1 is the network's input."""
        assert index is not None
        value = self.values[INPUT] if index < 0 else self.trace.events[index].out
        assert value is not None
        return value

    def find(self, value: Array, taken: Sequence[int | None] = ()) -> int | None:
        """The first event that equals the value, but its inputs; a constant proves nothing."""
        if value.size > 1 and np.ptp(value) == 0:
            return None
        flat = value.reshape(-1)
        probe = flat[:: max(1, len(flat) // 16)]
        scale = float(np.max(np.abs(flat))) or 1.0
        for index in self.index.get((value.shape[0], value.size), ()):
            if index in taken:
                continue
            other = self.trace.events[index].out.reshape(-1)
            near = np.abs(other[:: max(1, len(flat) // 16)] - probe) <= self.tolerance * scale
            if near.all() and self.same(value, self.trace.events[index].out):
                return index
        return None

    def compute(self, node: Node, inputs: Sequence[Array | None]) -> Array | None:
        """The step's output; None if it cannot take these inputs."""
        if any(value is None for value in inputs):
            return None
        try:
            return compute(node, [v for v in inputs if v is not None], self.weights)
        except (ValueError, KeyError, IndexError):
            return None

    # ---- the sweep

    def run(self) -> Diagnosis:
        """Compare every step, in order."""
        for node in self.graph.nodes.values():
            if node.kind == "input":
                continue
            inputs = [self.values[name] for name in node.inputs]
            if node.name in self.layers:
                self.layer(node, self.layers[node.name])
            elif node.kind == "norm":
                self.norm(node, inputs[0], self.at[node.inputs[0]])
            elif node.kind == "out":
                self.output(node)
            else:
                self.step(node)
        self.found.events = dict(self.at)
        return self.found

    def norm(self, node: Node, x: Array | None, at: int | None) -> None:
        """A batch norm that the user has not: another norm, or none."""
        self.values[node.name], self.at[node.name] = x, at
        missing = {**node.p, "mode": "identity"}
        if x is None or at is None or x.ndim != 4:
            return self.edit(node, [missing], [x])
        channels = x.shape[1]
        start: Params = {"scale": [1.0] * channels, "shift": [0.0] * channels}
        after = [e for e in self.trace.events[at + 1 : at + 12] if e.out.shape == x.shape]
        groups = (channels, 1, 0, *(g for g in (2, 4, 8, 16, 32) if channels % g == 0))
        for group in dict.fromkeys(groups):
            for eps in dict.fromkeys((node.p["eps"], 1e-5, 1e-3, 1e-6)):
                p = {**node.p, "mode": "groups", "groups": group, "eps": eps, **start}
                p["words"] = NORMS.get(group, f"a group norm of {group} groups")
                if group == channels:
                    p["words"] = "an instance norm"
                value = self.compute(replace(node, p=p), [x])
                assert value is not None
                for event in after:
                    if affine(value[:, :SAMPLE], event.out[:, :SAMPLE], self.tolerance) is None:
                        continue
                    found = affine(value, event.out, self.tolerance)
                    if found:
                        p |= found
                        self.edit(node, [p], [x], event.out)
                        self.values[node.name], self.at[node.name] = event.out, event.index
                        return None
        return self.edit(node, [missing], [x])

    def step(self, node: Node) -> None:
        """A step without weights: it agrees, or waits for the next layer."""
        inputs = [self.values[name] for name in node.inputs]
        value = self.compute(node, inputs)
        taken = [self.at[name] for name in node.inputs]
        index = None if value is None else self.find(value, taken)
        self.values[node.name], self.at[node.name] = value, index
        if index is None and node.name in self.joins and not self.ahead(node, value):
            self.join(node, self.joins[node.name])

    def ahead(self, node: Node, value: Array | None) -> bool:
        """Whether a step behind a concatenation agrees, so that its own order is harmless."""
        for user in self.graph.users[node.name]:
            after = self.graph.nodes[user]
            if after.kind in ("act", "pool", "gap") and value is not None:
                out = self.compute(after, [value])
                if out is not None and self.find(out) is not None:
                    return True
        return False

    def layer(self, node: Node, layer: Layer) -> None:
        """A layer with weights: its input and its output must agree."""
        out = self.trace.events[layer.event].out
        before = node.inputs[0]
        whole = self.compute(node, [self.values[before]])
        if not self.same(whole, out):
            sources = self.sources(layer)
            value = self.values[before]
            index = next(
                (i for i in sources if value is not None and self.same(value, self.event(i))), None
            )
            steps: list[tuple[str, Params]] = []
            if index is None:
                solved = self.segment(before, sources)
                if solved is None:
                    index = self.inserted_early(before, sources)
                if solved is None and index is None:
                    steps, index = self.inserted(before, sources)
                    if index is None:
                        index = self.elsewhere(node, before, sources)
                    if index is None:
                        index = self.give_up(before, sources, layer)
                index = solved if solved is not None else index
            self.solve_layer(node, self.event(index), out, layer, steps, before)
        self.values[node.name], self.at[node.name] = out, layer.event

    def sources(self, layer: Layer) -> list[int]:
        """The events that may be the layer's input: what it takes, and that before a padding."""
        found, index = [layer.source], layer.source
        if layer.kind == "linear":
            return found  # a flattening before it may have changed the order
        while index >= 0 and self.trace.events[index].op in ("pad", *TRANSPARENT):
            if not self.trace.events[index].inputs:
                break
            index = self.trace.events[index].inputs[0]
            found.append(index)
        return found[::-1] if layer.kind == "conv" else found

    def solve_layer(
        self,
        node: Node,
        value: Array,
        out: Array,
        layer: Layer,
        steps: list[tuple[str, Params]],
        before: str,
    ) -> None:
        """Find the edit of a layer that turns its input into its output."""
        base = {**node.p, "before": steps} if steps else node.p
        source = self.values[before] if steps else value
        if self.same(self.compute(node, [value]), out):
            if steps:
                self.edit(node, [base], [source], out)
            return
        for index in self.sources(layer):  # only values that were moved lie between them
            moved = identify(value, self.event(index), self.tolerance) if not steps else None
            if moved and self.same(self.compute(node, [self.event(index)]), out):
                self.edit(node, [{**node.p, "before": [moved]}], [value], out)
                return
        options = self.options(node, value, out)
        if not options:
            for index in self.sources(layer):  # a padding that the segment did not cross
                options = self.options(node, self.event(index), out)
                if options:
                    break
        if options:
            options = [{**p, "before": steps} if steps else p for p in options]
            self.edit(node, options, [source], out)
        else:
            ours = self.compute(node, [value])
            self.found.unexplained.append(Unexplained(node.name, layer.event, ours, out))

    def options(self, node: Node, value: Array, out: Array) -> list[Params]:
        """The edits that turn a step's input into its output; a sample decides first."""
        found: list[Params] = []
        if node.kind == "conv" and (value.ndim != 4 or out.ndim != 4):
            return []
        fitted = self.fitted_norm(node, value, out) if node.kind == "norm" else []
        for p in (*variants(node, value.shape, out.shape), *fitted):
            if self.trial(replace(node, p=p), value, out) and p not in found:
                found.append(p)
                if len(found) > 8 or node.kind == "norm":
                    break
        return found

    def trial(self, node: Node, value: Array, out: Array) -> bool:
        """Whether a step gives an output, first on a few channels."""
        if out.ndim == 4 and out.shape[1] > SAMPLE and node.kind in ("conv", "norm", "pool", "act"):
            part = slice(0, SAMPLE)
            weights = {
                key: array[part]
                for key, array in self.weights.items()
                if key.startswith(f"{node.name}.")
            }
            x = value if node.kind == "conv" else value[:, part]
            try:
                small = compute(node, [x], weights)
            except (ValueError, KeyError, IndexError):
                return False
            if small.shape[2:] != out.shape[2:]:
                return False
            scale = float(np.max(np.abs(out))) or 1.0
            if float(np.max(np.abs(small - out[:, part]))) > self.tolerance * scale:
                return False
        return self.same(self.compute(node, [value]), out)

    def fitted_norm(self, node: Node, value: Array, out: Array) -> list[Params]:
        """The norm's eps, if the output is that of another one."""
        its = [self.weights.get(f"{node.name}.{leaf}") for leaf in ("weight", "running_var")]
        if value.shape != out.shape or its[0] is None or its[1] is None:
            return []
        axes = (0, *range(2, value.ndim))
        spread, got = value.std(axes), out.std(axes)
        if not (np.all(spread > 0) and np.all(got > 0)):
            return []
        gamma = np.abs(its[0])
        if gamma.shape != spread.shape:
            return []
        eps = (gamma * spread / got) ** 2 - its[1]
        middle = float(np.median(eps))
        rounded = float(f"{middle:.3g}")
        return [{**node.p, "eps": rounded}] if 0 <= rounded < 1 else []

    # ---- a segment: the steps without weights between two layers

    def waiting(self, name: str) -> list[Node]:
        """The steps before `name`, itself included, that no tensor of the user's confirms yet."""
        found: list[str] = []
        todo = [name]
        while todo:
            at = todo.pop()
            if at == INPUT or self.at.get(at) is not None or at in found or at in self.layers:
                continue
            found.append(at)
            todo += self.graph.nodes[at].inputs
        return [node for key, node in self.graph.nodes.items() if key in found]

    def segment(self, name: str, targets: Sequence[int]) -> int | None:
        """Edit the waiting steps so that `name` gives one of the events; that event, or None."""
        nodes = self.waiting(name)
        if not nodes:
            return None
        wanted = [self.event(i) for i in targets]
        if (hit := self.exchanged(nodes, name, targets)) is not None:
            return hit
        solutions: list[tuple[tuple[int, int], dict[str, list[Params]], dict[str, Array], int]] = []
        for edits, values, evidence in self.assignments(nodes, name, wanted):
            value = values.get(name)
            hit = next(
                (i for i, w in zip(targets, wanted, strict=True) if self.same(value, w)), None
            )
            if hit is not None:
                solutions.append(((len(edits), -evidence), edits, values, hit))
        if not solutions:
            return None
        solutions.sort(key=lambda each: each[0])
        _, edits, values, hit = solutions[0]
        for node in nodes:
            inputs = [values.get(i, self.values[i]) for i in node.inputs]
            if node.name in edits:
                self.edit(node, edits[node.name], inputs, values[node.name])
            self.values[node.name] = values[node.name]
            index = self.find(values[node.name], [self.at[i] for i in node.inputs])
            self.at[node.name] = index
        self.at[name] = hit
        self.values[name] = aligned(self.event(hit), values[name])
        return hit

    def exchanged(self, nodes: list[Node], name: str, targets: Sequence[int]) -> int | None:
        """A pool and a local norm in each other's place; the event that `name` then is."""
        for one, other in pairwise(nodes):
            x = self.values[one.inputs[0]]
            if {one.kind, other.kind} != {"pool", "local norm"} or x is None:
                continue
            side = "in front of" if one.kind == "pool" else "behind"
            p = {**one.p, "before": [(other.kind, other.p)], "exchanged": side}
            values: dict[str, Array | None] = {}
            edits = {one.name: p, other.name: {**other.p, "fn": "none", "exchanged": ""}}
            for node in nodes:
                inputs = [values.get(i, self.values[i]) for i in node.inputs]
                edited = replace(node, p=edits.get(node.name, node.p))
                values[node.name] = self.compute(edited, inputs)
            hit = next((i for i in targets if self.same(values[name], self.event(i))), None)
            if hit is not None:
                for node in nodes:
                    value = self.values[node.name] = values[node.name]
                    self.at[node.name] = hit if value is None else self.find(value)
                    if node.name in edits:
                        self.edit(node, [edits[node.name]], [self.values[node.inputs[0]]], value)
                self.at[name] = hit
                return hit
        return None

    def assignments(
        self, nodes: list[Node], last: str, wanted: list[Array]
    ) -> Iterator[tuple[dict[str, list[Params]], dict[str, Array], int]]:
        """Edits of the waiting steps, few first: with the values, and the number of tensors met."""

        def go(
            rest: list[Node],
            edits: dict[str, list[Params]],
            values: dict[str, Array],
            evidence: int,
            left: int,
        ) -> Iterator[tuple[dict[str, list[Params]], dict[str, Array], int]]:
            if not rest:
                yield edits, values, evidence
                return
            node, *rest = rest
            inputs = [values.get(i, self.values[i]) for i in node.inputs]
            if any(v is None for v in inputs):
                return
            plain = self.compute(node, inputs)
            met = plain is not None and self.meets(plain, inputs, node.name == last, wanted)
            if plain is not None:
                yield from go(rest, edits, {**values, node.name: plain}, evidence + met, left)
            if met or not left:
                return
            for options, value, seen in self.choices(node, inputs, node.name == last, wanted):
                yield from go(
                    rest,
                    {**edits, node.name: options},
                    {**values, node.name: value},
                    evidence + seen,
                    left - 1,
                )

        for most in range(1, MOST_EDITS + 1):
            done = False
            for found in go(nodes, {}, {}, 0, most):
                if len(found[0]) == most:
                    value = found[1].get(last)
                    done |= any(self.same(value, w) for w in wanted)
                    yield found
            if done:
                return

    def meets(
        self, value: Array, inputs: Sequence[Array | None], last: bool, wanted: list[Array]
    ) -> bool:
        """Whether a value is one of the user's tensors, and not just the step's own input."""
        if last:
            return any(self.same(value, w) for w in wanted)
        if any(self.same(value, v) for v in inputs if v is not None):
            return False
        return self.find(value) is not None

    def choices(
        self, node: Node, inputs: Sequence[Array | None], last: bool, wanted: list[Array]
    ) -> list[tuple[list[Params], Array, int]]:
        """The edits of a waiting step that some tensor supports, and that of leaving it out."""
        events = [w.shape for w in wanted] if last else [e.out.shape for e in self.trace.events]
        shapes = {tuple(shape) for shape in events}
        values = [v for v in inputs if v is not None]
        by_value: list[tuple[list[Params], Array, int]] = []
        windowed = node.kind == "pool"  # the variants depend on the wanted shape
        for shape in sorted(shapes) if windowed else [values[0].shape]:
            if windowed and (len(shape) != 4 or shape[:2] != values[0].shape[:2]):
                continue
            for p in variants(node, values[0].shape, shape):
                if windowed and not self.near(replace(node, p=p), values[0], last, wanted):
                    continue
                value = self.compute(replace(node, p=p), values)
                if value is None:
                    continue
                same = next((each for each in by_value if self.same(value, each[1])), None)
                if same:
                    if p not in same[0]:
                        same[0].append(p)
                    continue
                left_out = p.get("fn") == "none" or p.get("mode") == "identity"
                left_out |= node.kind in ("affine", "add")
                met = self.meets(value, values, last, wanted)
                if met or left_out:
                    by_value.append(([p], value, int(met)))
        return by_value

    def near(self, node: Node, x: Array, last: bool, wanted: list[Array]) -> bool:
        """Whether some tensor of the user's agrees with a pool's on a few channels."""
        if node.p["fn"] == "none":
            return True
        small = self.compute(node, [x[:, :SAMPLE]])
        if small is None:
            return False
        outs = wanted if last else [e.out for e in self.trace.events]
        scale = float(np.max(np.abs(small))) or 1.0
        return any(
            out.ndim == 4
            and out.shape[0] == len(x)
            and out.shape[2:] == small.shape[2:]
            and out.shape[1] == x.shape[1]
            and float(np.max(np.abs(out[:, :SAMPLE] - small))) <= 10 * self.tolerance * scale
            for out in outs
        )

    # ---- inserted steps

    def inserted(
        self, name: str, targets: Sequence[int]
    ) -> tuple[list[tuple[str, Params]], int | None]:
        """Steps of the user's own between a step that agrees and a layer's input."""
        start = self.at.get(name)
        value = self.values[name]
        if value is None:
            return [], None
        for target in targets:
            path = [target]
            while path[-1] >= 0 and path[-1] != start and len(path) < 5:
                inputs = self.trace.events[path[-1]].inputs
                if not inputs:
                    break
                path.append(inputs[0])
            steps: list[tuple[str, Params]] = []
            at = value
            usable = path[-1] == start or start is None
            for index in reversed(path[:-1] if path[-1] == start else path[:1]):
                out = aligned(self.event(index), at)
                if self.same(at, out):
                    continue
                step = identify(at, out, self.tolerance)
                if step is None:
                    usable = False
                    break
                if step[0] == "affine" and index >= 0 and self.trace.events[index].op == "dropout":
                    step[1]["dropout"] = True  # Paddle's `downscale_in_infer`
                steps = [*steps[:-1], *joined(steps[-1], step)] if steps else [step]
                at = out
            single = None
            if len(steps) != 1 or not usable:  # dropout is a product and a mask in TensorFlow
                single = identify(value, self.event(target), self.tolerance)
            if single:
                return [single], target
            if usable and steps:
                return steps, target
        return [], None

    def inserted_early(self, name: str, targets: Sequence[int]) -> int | None:
        """A step of the user's own before the first waiting step; the event that `name` then is."""
        nodes = self.waiting(name)
        if not nodes or len(nodes[0].inputs) != 1:
            return None
        first, source = nodes[0], nodes[0].inputs[0]
        value, start = self.values[source], self.at.get(source)
        if value is None or start is None:
            return None
        for user in self.trace.users.get(start, ()):
            step = identify(value, self.event(user), self.tolerance)
            if step is None:
                continue
            p = {**first.p, "before": [step]}
            values: dict[str, Array] = {}
            for node in nodes:
                inputs = [values.get(i, self.values[i]) for i in node.inputs]
                out = self.compute(replace(node, p=p) if node is first else node, inputs)
                if out is None:
                    break
                values[node.name] = out
            hit = next(
                (i for i in targets if name in values and self.same(values[name], self.event(i))),
                None,
            )
            if hit is not None:
                self.edit(first, [p], [value], values[first.name])
                for node in nodes:
                    self.values[node.name] = values[node.name]
                    taken = [self.at[i] for i in node.inputs]
                    self.at[node.name] = self.find(values[node.name], taken)
                self.at[name] = hit
                return hit
        return None

    def elsewhere(self, layer: Node, name: str, targets: Sequence[int]) -> int | None:
        """An input that is an earlier step's output; the event that the layer then takes."""
        nodes = [*self.waiting(name), layer]
        first = nodes[0]
        if any(len(node.inputs) != 1 for node in nodes):
            return None
        for other, value in self.values.items():
            if other == first.inputs[0] or self.at.get(other) is None:
                continue
            values = {}
            for node in nodes[:-1]:
                value = values[node.name] = self.compute(node, [value])
            hit = next((i for i in targets if self.same(value, self.event(i))), None)
            if hit is not None:
                source = self.values[other]
                out = values.get(first.name, self.trace.events[self.layers[layer.name].event].out)
                self.edit(first, [{**first.p, "reads": other}], [source], out)
                for node_name, value in values.items():
                    self.values[node_name], self.at[node_name] = value, hit
                return hit
        return None

    def give_up(self, name: str, sources: Sequence[int], layer: Layer) -> int:
        """Note that a layer's input is unexplained; go on with the user's."""
        waiting = self.waiting(name)
        first = waiting[0].name if waiting else name
        ours = self.values[name]
        shape = None if ours is None else ours.shape
        index = next((i for i in sources if self.event(i).shape == shape), sources[-1])
        self.found.unexplained.append(
            Unexplained(name if name != INPUT else first, index, ours, self.event(index))
        )
        for node in waiting:
            self.values[node.name], self.at[node.name] = self.event(index), index
        return index

    # ---- concatenations and outputs

    def join(self, node: Node, index: int) -> None:
        """A concatenation of the user's: find the branch of each part, and what changed in it."""
        ends = [self.trace.through(i) for i in self.trace.events[index].inputs]
        if len(ends) != len(node.inputs):
            return
        places: dict[int, int] = {}
        later: list[int] = []
        for number, name in enumerate(node.inputs):
            value = self.values[name]
            free = [j for j in range(len(ends)) if j not in places.values()]
            hit = next(
                (j for j in free if value is not None and self.same(value, self.event(ends[j]))),
                None,
            )
            if hit is None:
                later.append(number)
            else:
                places[number] = hit
                self.at[name] = self.at[name] if self.at[name] is not None else ends[hit]
        for number in later:
            name = node.inputs[number]
            free = [j for j in range(len(ends)) if j not in places.values()]
            solved = self.segment(name, [ends[j] for j in free]) if free else None
            if solved is not None:
                places[number] = next(j for j in free if ends[j] == solved)
        for number in later:
            if number in places:
                continue
            name = node.inputs[number]
            free = [j for j in range(len(ends)) if j not in places.values()]
            value = self.values[name]
            free = [
                j for j in free if value is None or self.event(ends[j]).shape == value.shape
            ] or free
            for j in free:
                steps, _ = self.inserted(name, [ends[j]])
                if steps and name in self.graph.nodes:
                    branch = self.graph.nodes[name]
                    own = [self.values[i] for i in branch.inputs]
                    old = self.found.edits.get(name, [branch.p])[0]
                    p = {**old, "insert": [*old.get("insert", ()), *steps]}
                    self.edit(branch, [p], own, self.event(ends[j]))
                    break
            else:
                j = free[0] if free else 0
                theirs = self.event(ends[j])
                self.found.unexplained.append(Unexplained(name, ends[j], value, theirs))
            places[number] = j
            self.values[name], self.at[name] = self.event(ends[j]), ends[j]
        if sorted(places.values()) != list(range(len(ends))):
            return
        back = {place: number for number, place in places.items()}
        order = tuple(back[j] for j in range(len(ends)))
        inputs = [self.values[name] for name in node.inputs]
        p = {**node.p, "order": order}
        value = self.compute(replace(node, p=p), inputs)
        out = self.trace.events[index].out
        if not self.same(value, out):
            return
        if order != node.p["order"]:
            self.edit(node, [p], inputs, out)
        self.values[node.name], self.at[node.name] = out, index

    def output(self, node: Node) -> None:
        """What the network returns."""
        number = self.graph.outputs().index(node.name)
        if number >= len(self.trace.outputs):
            return
        _, event, out = self.trace.outputs[number]
        value = self.values[node.inputs[0]]
        self.at[node.name] = event
        self.values[node.name] = out
        if value is None:
            return
        if self.same(value, out):
            return
        options = [
            p
            for p in variants(node, value.shape, out.shape)
            if self.same(self.compute(replace(node, p=p), [value]), out)
        ]
        if not options:
            steps = identify(value, aligned(out, value), self.tolerance)
            options = [{**node.p, "before": [steps]}] if steps else []
        if options:
            self.edit(node, options, [value], out)
        else:
            self.found.unexplained.append(Unexplained(node.name, event, value, out))

    def edit(
        self,
        node: Node,
        options: list[Params],
        inputs: Sequence[Array | None],
        out: Array | None = None,
    ) -> None:
        """Note the edits that explain a step."""
        self.found.edits[node.name] = options
        self.found.inputs[node.name] = [v for v in inputs if v is not None]
        if out is not None:
            self.found.results[node.name] = out


def joined(first: tuple[str, Params], second: tuple[str, Params]) -> list[tuple[str, Params]]:
    """Two steps as one, if both scale and shift: (x - mean) / deviation is one change."""
    (kind, p), (other, q) = first, second
    if not kind == other == "affine" or "dropout" in {*p, *q}:
        return [first, second]
    scale, shift, more = (np.array(each) for each in (p["scale"], p["shift"], q["scale"]))
    both = {"scale": (scale * more).tolist(), "shift": (shift * more + q["shift"]).tolist()}
    return [("affine", both)]
