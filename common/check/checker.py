"""Holds a user's network against the reference: the steps from its first run to the report.

Long because one check is one class, in the order of its steps.

A run finds the layers, the fixture's weights are written into them, and two runs at sizes of
different parity are compared with the reference. A mistake counts as proved if the reference with
all the mistakes found gives the user's outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from common.check import match as matching
from common.check import values
from common.check.anatomy import order_outputs
from common.check.diagnose import Diagnosis, Search, Unexplained
from common.check.edits import names
from common.check.findings import World, blind, difference, findings_of
from common.check.graph import Array, Graph, Params, build, compute
from common.check.match import Match, Structure
from common.check.process import Network, UserError
from common.check.report import Difference, Finding, Report
from common.check.steps import error
from common.check.topology import nearest
from common.check.trace import Layer, Trace, of
from common.errors import GoogLeNetError
from common.parity.fixtures import draw_fixture
from common.spec import SPECS, Affine, Spec, arithmetic
from common.weights import Weights, norm_name, shapes

IMAGES = 2  #: in a comparison
BRIGHT = 8  #: the second image's largest value: an activation that ends at 6 must show
CLOSE = 0.3  #: specs whose costs differ by less are both compared
FIXTURES = 6  #: that are drawn until every ReLU gets values of both signs
UNSCALED = ("inception-v3-keras",)  #: specs whose published network has no scales in its norms
PROOF = {"float64": 1e-8, "float32": 3e-4}  #: the residual of a proof

Progress = Callable[[str], None]


def require_precise(network: Network) -> None:
    """UserError if a part of the network computes in half precision."""
    if network.dtype not in PROOF:
        raise UserError(
            f"A part of your network computes in {network.dtype}, whose rounding hides mistakes: "
            "check it in float32, without autocast, and in Keras after "
            "`keras.config.set_dtype_policy('float32')`."
        )


class Checker:
    """One check of a network that is open."""

    def __init__(
        self,
        network: Network,
        spec: Spec | None,
        size: int | None,
        say: Progress,
        source: Weights | None = None,
    ) -> None:
        require_precise(network)
        self.network, self.asked, self.size, self.say = network, spec, size, say
        self.source = source  # weights that the network should have
        self.notes: list[str] = list(network.notes)
        self.own: list[Array] = []  # the network's own weights, if a source is given
        self.opened = 0  # the size of the first run
        self.fitted: dict[str, tuple[Match, Weights]] = {}  # by spec: what was written and where

    # ---- opening

    def first_run(self, channels: int, size: int) -> Trace:
        """The first run, with the user's own weights, on random images."""
        x = np.random.RandomState(1).uniform(0, 1, (IMAGES, channels, size, size))
        return of(self.network, x.astype(np.float32))

    def run(self, channels: int, size: int) -> Report:
        """The report; the network accepts images of these channels and this size."""
        trace = self.first_run(channels, size)
        if not trace.layers:
            raise UserError(
                "No layer of your network can be seen. "
                + (self.notes[-1] if self.notes else "Give a network that runs eagerly.")
            )
        for layer in trace.layers:
            event = trace.events[layer.event]
            if layer.kind == "conv" and (event.out.ndim == 3 or len(event.out) < IMAGES):
                raise UserError(
                    f"Your network takes one image at a time at {event.where()}: give the part "
                    "that takes the whole batch."
                )
        matches = matching.closest(trace, self.asked, channels, size)
        if not matches:
            raise UserError(self.no_spec(trace, channels))
        if self.source is not None:
            self.own = self.network.read()  # before the fixture is written
        self.opened = size
        reports = []
        for match in self.likeliest(matches, trace)[:3]:
            reports.append(self.against(match, trace, channels))
            if reports[-1].simple:  # no other spec says it with less
                break
        return min(reports, key=lambda report: report.weight())

    def likeliest(self, matches: list[Match], first: Trace) -> list[Match]:
        """Of the specs that fit about as well as the best, those that give most of the tensors.

        Of specs that become one when they are fitted, the best stays.
        """
        fitted: dict[Spec, Match] = {}
        for match in matches:
            if match.cost <= matches[0].cost + CLOSE:
                fitted.setdefault(replace(match.spec, name=""), match)
        if len(fitted) == 1:
            return matches[:1]
        drawn: dict[str, Weights] = {}  # specs of the same layers share theirs
        found = []
        for match in fitted.values():
            kinds = str(shapes(match.spec))
            drawn[kinds] = drawn.get(kinds) or self.fixture(match)
            found.append((self.agreement(match, dict(drawn[kinds]), first), match))
        most = max(count for count, _ in found)
        return [match for count, match in found if count == most]

    def agreement(self, match: Match, weights: Weights, first: Trace) -> int:
        """How many layers of a fitted spec give the network's own tensors, by the same weights."""
        graph = build(match.spec)
        self.write(match, weights, [])
        for name, layer in match.layers.items():
            if layer.kind == "norm":  # one without scale or shift
                for leaf, fill in (("weight", np.ones), ("bias", np.zeros)):
                    if leaf not in layer.leaves:
                        weights[f"{name}.{leaf}"] = fill(weights[f"{name}.{leaf}"].shape)
        try:
            world = self.world(match, weights, match.spec.input[1], first)
            values = graph.run(world.inputs, weights)
        except (GoogLeNetError, ValueError, KeyError, IndexError):
            return 0
        search = world.search
        return sum(
            search.same(values.get(name), search.event(layer.event))
            for name, layer in search.layers.items()
        )

    def side(self, match: Match, first: Trace, channels: int) -> int:
        """The size to compare at: the one asked for, or the spec's own if the network takes it."""
        if self.size is not None or self.asked is not None:
            return self.size or match.spec.input[1]
        own = SPECS[match.base.name].input[1]
        try:
            arithmetic.layers(match.spec.at(size=own))
            kinds = [layer.kind for layer in self.first_run(channels, own).layers]
        except GoogLeNetError:
            return match.spec.input[1]
        same = kinds == [layer.kind for layer in first.layers]
        return own if same else match.spec.input[1]

    def no_spec(self, trace: Trace, channels: int) -> str:
        """Why no spec could be fitted."""
        fixed = self.asked and isinstance(self.asked.stage1[0], Affine)  # to its own channels
        if self.asked and fixed and self.asked.input[0] != channels:
            wanted = self.asked.input[0]
            return (
                f"{self.asked.name} takes {wanted} input channels, your network takes {channels}."
            )
        if not any(layer.kind == "linear" for layer in trace.layers):
            why = f" {self.notes[-1]}" if self.notes else ""
            if trace.outputs[0][1] is None:
                last = trace.events[-1].where()
                return f"What your network computes behind {last} cannot be seen.{why}"
            return f"No linear layer is seen at the end of your network, so no spec fits it.{why}"
        return (
            f"No spec fits a network with {len(trace.layers)} layers and {channels} input channels."
        )

    def against(self, match: Match, first: Trace, channels: int) -> Report:
        """The report for one fitted spec."""
        self.notes = list(self.network.notes)
        structure = list(match.structure)
        if match.unclear:
            raise UserError(
                f"Your network's structure cannot be recognised: {match.unclear}. For the check, "
                "write it with a convolution for each branch, joined by a concatenation."
            )
        wrong = [
            w
            for w in matching.unmatched(match, first)
            if not (match.flatten and w[0] == "head.weight")
        ]
        if wrong or any(s.kind in FATAL for s in structure):
            for name, ours, theirs in wrong:
                layer_name = name.rpartition(".")[0]
                if not any(s.name == layer_name for s in structure):
                    layer = match.layers[layer_name]
                    kind = "norm-axis" if layer.kind == "norm" else "layer-shape"
                    structure.append(Structure(kind, layer_name, layer.event, ours, theirs))
            if self.source is not None:
                self.notes.append("The weights were not compared: the structure differs.")
            return self.report(match, first, structure, [], None, None)
        weights = self.fixture(match)
        changed = [] if self.source is None else self.compare_weights(match, first, self.source)
        self.write(match, weights, structure)
        self.fitted[match.base.name] = match, weights
        worlds: list[World] = []
        side = self.side(match, first, channels)
        worlds.append(self.compare(match, weights, side, first))
        if self.size is None:
            try:
                arithmetic.layers(match.spec.at(size=side + 1))
                worlds.append(self.compare(match, weights, side + 1, first))
            except GoogLeNetError:
                self.notes.append(
                    f"Your network does not run at {side + 1}x{side + 1}: one size was compared."
                )
        report = self.conclude(match, weights, worlds, structure, build(match.spec))
        report.weights = None if self.source is None else changed
        return report

    # ---- the fixture

    def fixture(self, match: Match) -> Weights:
        """The parity fixture's weights for the fitted spec, and for what the user has beside it."""
        weights: Weights = {}
        for seed in range(FIXTURES):
            fixture = draw_fixture(match.spec, seed)
            weights = {name: array.astype(np.float64) for name, array in fixture.weights.items()}
            if every_relu_acts(match.spec, weights):
                break
        random = np.random.RandomState(7)
        if match.flatten:
            shape = match.layers["head"].shape
            weights["head.weight"] = random.standard_normal(shape) * math.sqrt(2 / shape[1])
        for name, layer in match.layers.items():
            if layer.kind != "norm" and "bias" in layer.leaves and f"{name}.bias" not in weights:
                width = layer.shape[0]
                before_norm = norm_name(name) in match.layers
                values = random.uniform(-0.1, 0.1, width)
                weights[f"{name}.bias"] = 0 * values if before_norm else values
        return {n: a.astype(np.float32).astype(np.float64) for n, a in weights.items()}

    def write(self, match: Match, weights: Weights, structure: list[Structure]) -> None:
        """Write the weights into the user's network; note the layers that share theirs."""
        arrays: dict[int, Array] = {}
        owner: dict[int, str] = {}
        biases, unscaled = [], 0
        for name in list(weights):
            layer_name, _, leaf = name.rpartition(".")
            layer = match.layers.get(layer_name)
            if layer is None:
                continue
            number = layer.leaves.get(leaf)
            if number is None:
                if (
                    leaf == "bias"
                    and layer.kind == "conv"
                    and f"{norm_name(layer_name)}.weight" in weights
                ):
                    weights[name] = np.zeros_like(weights[name])
                    biases.append(layer_name)
                if layer.kind == "norm" and leaf == "weight" and match.base.name in UNSCALED:
                    weights[name] = np.ones_like(weights[name])
                    unscaled += 1
                continue
            if number in owner:
                weights[name] = weights[owner[number]]
                if leaf == "weight":
                    structure.append(
                        Structure("shared-layer", layer_name, layer.event, owner[number], None)
                    )
                continue
            owner[number] = name
            arrays[number] = weights[name]
        if biases:
            self.notes.append(
                f"{len(biases)} convolutions in front of a norm have no bias. That is the same "
                f"function: the bias is read as 0."
            )
        if unscaled:
            self.notes.append(
                f"{unscaled} norms have no scale, as in the published network: it is read as 1."
            )
        self.network.write(arrays)

    def compare_weights(self, match: Match, first: Trace, source: Weights) -> list[Finding]:
        """The tensors of the user's own weights that are not the source's; no bias is one of 0."""
        own: Weights = {}
        want, lines = dict(source), dict[str, str]()
        for name, layer in match.layers.items():
            bias, line = f"{name}.bias", first.events[layer.event].where()
            own |= {f"{name}.{leaf}": self.own[number] for leaf, number in layer.leaves.items()}
            lines |= {f"{name}.{leaf}": line for leaf in ("bias", *layer.leaves)}
            for one, other in ((own, want), (want, own)):
                if bias in other:
                    one.setdefault(bias, np.zeros_like(other[bias]))
        return values.compare(own, want, lines)

    # ---- comparing

    def compare(self, match: Match, weights: Weights, size: int, first: Trace) -> World:
        """Run the network at one size and compare it with the reference."""
        self.say(f"comparing with {match.base.name} at {size}x{size}")
        world = self.world(match, weights, size, first)
        world.found = world.search.run()
        return world

    def world(self, match: Match, weights: Weights, size: int, first: Trace) -> World:
        """A run of the network at one size, ready to be compared."""
        spec = match.spec.at(size=size)
        images = np.random.RandomState(size).uniform(0, 1, (IMAGES, *spec.input))
        images[1] *= BRIGHT
        images = images.astype(np.float32)
        trace = of(self.network, images)
        if [layer.kind for layer in trace.layers] != [layer.kind for layer in first.layers]:
            raise UserError(
                f"Your network runs other layers at {size}x{size} than at the size of its first "
                "run: choose one size with `--size`."
            )
        layers = {
            name: trace.layers[first.layers.index(layer)] for name, layer in match.layers.items()
        }
        self.require_written(match, layers, trace)
        joins = self.joins(build(match.spec), layers, trace)
        trace.outputs = order_outputs(trace, layers)
        search = Search(
            build(match.spec), weights, images, trace, layers, joins, self.network.dtype
        )
        return World(size, trace, search, Diagnosis(), images.astype(np.float64))

    def require_written(self, match: Match, layers: dict[str, Layer], trace: Trace) -> None:
        """UserError if a run does not use the weights that were written."""
        new = {
            (match.layers[name].leaves[leaf], number): layer
            for name, layer in layers.items()
            for leaf, number in layer.leaves.items()
            if leaf in match.layers[name].leaves and match.layers[name].leaves[leaf] != number
        }
        held = self.network.read() if new else []
        for (before, now), layer in new.items():
            if not np.array_equal(held[before], held[now]):
                raise UserError(
                    f"A weight is computed in each run, at {trace.events[layer.event].where()}, so "
                    "no weights can be written into your network: remove weight norm and similar "
                    "layers for the check, for example with `remove_parametrizations`."
                )

    def joins(self, graph: Graph, layers: dict[str, Layer], trace: Trace) -> dict[str, int]:
        """The user's concatenation for each of the reference's: it joins the same layers."""
        names = {n: trace.layers.index(each) for n, each in layers.items() if each.kind != "norm"}
        theirs: dict[frozenset[int], int] = {}
        for event in trace.events:
            if event.op == "concat" and event.out.ndim == 4:
                theirs.setdefault(frozenset(trace.upstream(event.index)), event.index)
        found = {}
        for node in graph.nodes.values():
            if node.kind == "concat":
                ours = frozenset(nearest(graph, node.inputs, names))
                if ours in theirs:
                    found[node.name] = theirs[ours]
        return found

    # ---- concluding

    def conclude(
        self,
        match: Match | None,
        weights: Weights,
        worlds: list[World],
        structure: list[Structure],
        graph: Graph,
    ) -> Report:
        """Choose among the edits that fit, prove them, and report."""
        fitted = [self.edits_at(graph, world, worlds) for world in worlds]
        limit = PROOF[self.network.dtype]
        proofs = []
        for number, world in enumerate(worlds):
            self.complete_order(graph, fitted[number], world, weights)
            chosen = {name: options[0] for name, options in fitted[number].items()}
            kept = self.without_harmless(graph, chosen, world, weights)
            fitted[number] = {name: fitted[number][name] for name in kept}
            proofs.append(self.residual(graph.edited(kept), weights, world))
            unexplained = world.found.unexplained
            if not unexplained and proofs[-1] > limit:
                world.found.unexplained = self.open_outputs(graph, kept, weights, world)
        first, *rest = worlds
        open_ = [difference(first, each) for each in first.found.unexplained]
        plain = self.residual(graph, weights, first)
        report = self.report(
            match,
            first.trace,
            structure,
            findings_of(graph, fitted[0], first),
            None if open_ else proofs[0],
            plain,
            open_,
            [world.size for world in worlds],
        )
        usual = SPECS.get(match.base.name, match.base).input[1] if match else math.inf
        if max(report.sizes) < usual and (unseen := blind(graph, worlds)):
            report.warnings.append(unseen)
        for world, edits in zip(rest, fitted[1:], strict=True):
            new = {n: options for n, options in edits.items() if n not in fitted[0]}
            elsewhere = findings_of(graph, new, world)
            report.elsewhere = [each for each in elsewhere if not fixed_pool(each)]
            for each in filter(fixed_pool, elsewhere):
                report.sizes = [first.size]
                self.notes.append(
                    f"At {world.size}x{world.size} your last pool takes the {each.words['theirs']}"
                    f": it is right only at {first.size}x{first.size}."
                )
            report.unexplained_elsewhere = [difference(world, u) for u in world.found.unexplained]
        if (
            len(report.sizes) > 1
            and not report.elsewhere
            and not report.unexplained_elsewhere
            and report.residual is not None
        ):
            report.residual = max(proofs)
            report.plain = max(plain, *(self.residual(graph, weights, w) for w in rest))
        return report

    def complete_order(
        self, graph: Graph, edits: dict[str, list[Params]], world: World, weights: Weights
    ) -> None:
        """Where a ReLU is before a norm, leave out the one behind it, if the user has none there.

        A pool whose windows all hold padding of 0 is such a ReLU itself, so its padding is tried
        too. The outputs prove either.
        """
        search, at = world.search, world.found.events
        relu = [("act", {"fn": "relu"})]
        pairs = {
            name.removesuffix("norm") + "relu": name
            for name, options in edits.items()
            if graph.nodes[name].kind == "norm" and options[0].get("before") == relu
        }
        rest = {
            after: norm
            for after, norm in pairs.items()
            if after in graph.nodes and after not in edits and at.get(after) in (None, at[norm])
        }
        if not rest or not any(after in edits for after in pairs):
            return
        new = {after: [{**graph.nodes[after].p, "fn": "none"}] for after in rest}
        acting = []
        for after, norm in rest.items():
            x, y = search.values[norm], search.values[after]
            if x is None or y is None or not search.same(x, y):
                acting.append(after)
        pools: dict[str, list[Params]] = {}
        while acting:
            for user in graph.users[acting.pop()]:
                node = graph.nodes[user]
                if node.kind == "concat" and at.get(user) is None:
                    acting.append(user)
                elif node.kind == "pool" and node.p["fn"] == "max" and user not in edits:
                    pools[user] = [{**node.p, "fill": "0"}]
        for more in ({}, pools):
            chosen = {name: p[0] for name, p in {**edits, **new, **more}.items()}
            if self.residual(graph.edited(chosen), weights, world) <= PROOF[self.network.dtype]:
                edits.update(new | more)
                return

    def edits_at(self, graph: Graph, world: World, worlds: list[World]) -> dict[str, list[Params]]:
        """The edits of each step at one size; those that hold at the other size too, if some do."""
        found = {}
        for name, options in world.found.edits.items():
            kept = [p for p in options if all(self.holds(graph, name, p, w) for w in worlds)]
            fewest = min(len(names(graph.nodes[name], p)) for p in (kept or options))
            kept = [p for p in (kept or options) if len(names(graph.nodes[name], p)) == fewest]
            found[name] = kept
        return found

    def holds(self, graph: Graph, name: str, p: Params, world: World) -> bool:
        """Whether an edited step gives the user's tensor at this size."""
        node = graph.nodes[name]
        values = [world.search.values[i] for i in node.inputs]
        inputs = world.found.inputs.get(name) or [v for v in values if v is not None]
        out = world.found.results.get(name)
        out = world.search.values[name] if out is None else out
        if out is None or len(inputs) < len(node.inputs):
            return True
        try:
            value = compute(graph.edited({name: p}).nodes[name], inputs, world.search.weights)
        except (ValueError, KeyError, IndexError):
            return False
        return error(value, out) <= world.search.tolerance

    def residual(self, graph: Graph, weights: Weights, world: World) -> float:
        """The worst error of the outputs, against a graph."""
        found = self.outputs(graph, weights, world)
        return max(
            (math.inf if ours is None else error(out, ours) for _, _, ours, out in found),
            default=math.inf,
        )

    def outputs(
        self, graph: Graph, weights: Weights, world: World
    ) -> list[tuple[str, int | None, Array | None, Array]]:
        """Each output's name, the user's event, the graph's value and the user's.

        The graph's is None if its edits do not fit together.
        """
        try:
            results = graph.run(world.inputs, weights)
        except (ValueError, KeyError, IndexError):
            results = {}
        return [
            (name, event, results.get(name), out)
            for name, (_, event, out) in zip(graph.outputs(), world.trace.outputs, strict=False)
        ]

    def open_outputs(
        self, graph: Graph, chosen: dict[str, Params], weights: Weights, world: World
    ) -> list[Unexplained]:
        """The outputs that the edited graph does not give."""
        limit = PROOF[self.network.dtype]
        return [
            Unexplained(name, event, ours, out)
            for name, event, ours, out in self.outputs(graph.edited(chosen), weights, world)
            if ours is None or error(out, ours) > limit
        ]

    def without_harmless(
        self, graph: Graph, chosen: dict[str, Params], world: World, weights: Weights
    ) -> dict[str, Params]:
        """Leave out edits that undo each other: a ReLU that is only moved is no mistake."""
        groups: dict[str, set[str]] = {}
        for name, p in chosen.items():
            for kind, _ in names(graph.nodes[name], p):
                groups.setdefault(kind, set()).add(name)
        for missing, extra in (("missing-relu", "extra-relu"), ("missing-pool", "extra-pool")):
            if missing in groups and extra in groups:
                rest = {n: p for n, p in chosen.items() if n not in groups[missing] | groups[extra]}
                if self.residual(graph.edited(rest), weights, world) <= PROOF[self.network.dtype]:
                    chosen = rest
        return chosen

    # ---- reporting

    def report(
        self,
        match: Match | None,
        trace: Trace,
        structure: list[Structure],
        findings: list[Finding],
        residual: float | None,
        plain: float | None,
        unexplained: list[Difference] | None = None,
        sizes: list[int] | None = None,
    ) -> Report:
        """The report, with structural differences as findings: one for those of the same words."""
        shown: dict[tuple[str, str], Finding] = {}
        for s in structure:
            where = "" if s.event is None else trace.events[s.event].where()
            finding = Finding(s.kind, {"ours": s.ours, "theirs": s.theirs}, [], where)
            finding = shown.setdefault((s.kind, finding.sentence()), finding)
            finding.places += [s.name] if s.name else []
        return Report(
            spec=match.base.name if match else "the other network",
            sizes=sizes or [],
            dtype=self.network.dtype,
            structure=list(shown.values()),
            findings=findings,
            unexplained=unexplained or [],
            residual=residual,
            plain=plain,
            notes=self.notes,
            chosen=match is None or self.asked is not None,
        )


#: structural differences after which nothing else can be compared
FATAL = {"extra-block", "block-branches", "branch-layers", "extra-layer", "missing-layer"}


def fixed_pool(finding: Finding) -> bool:
    """Whether it is a last pool with a window of its own: right at the size that it is for."""
    words = str(finding.words.get("theirs", ""))
    return finding.name == "global-pool" and words.startswith("mean of the first")


def every_relu_acts(spec: Spec, weights: Weights) -> bool:
    """Whether each ReLU gets values of both signs, so that a missing one shows."""
    side = arithmetic.smallest_input(spec) or spec.input[1]
    small = spec.at(size=min(max(side, 33), spec.input[1]))
    x = np.random.RandomState(small.input[1]).uniform(0, 1, (IMAGES, *small.input))
    graph = build(small)
    values = graph.run(x, weights)
    acts = [values[node.inputs[0]] for node in graph.nodes.values() if node.kind == "act"]
    return all(float(v.min()) < 0 < float(v.max()) for v in acts)
