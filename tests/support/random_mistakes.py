"""Random mistakes in `mini`: is each named, and is none named wrongly?

The user's network is the reference with one or two of its steps edited at random; `googlenet check`
sees its tensors as it sees those of a framework. `python tests/support/random_mistakes.py` draws
300 from a seed, the date by default, and prints it; the status is 1 if one is named wrongly, or
fewer than 99 % are reproduced.
"""

import argparse
import datetime
import random
import sys
import warnings
from dataclasses import dataclass, field

import numpy as np

from common.check.checker import Checker
from common.check.edits import names, variants
from common.check.findings import EXTRA
from common.check.graph import ACTIVATIONS, Graph, build
from common.parity.fixtures import draw_fixture
from common.spec import MINI

LEAVES = {"conv": ("weight", "bias"), "linear": ("weight", "bias")}
NORM = ("weight", "bias", "running_mean", "running_var")
MISSED = 0.01  #: the share of mistakes that may stay unexplained


class FakeNetwork:
    """The reference with edited steps, as a user's network that can be traced."""

    dtype, layout = "float64", "NCHW"

    def __init__(self, graph, spec=MINI):
        self.graph, self.notes = graph, []
        self.numbers, self.weights = {}, {}
        for name, array in draw_fixture(spec).weights.items():
            self.numbers[name] = len(self.numbers)
            self.weights[name] = array.astype(np.float64)

    def trace(self, x):
        """Every tensor of the edited graph, as events."""
        values = self.graph.run(x.astype(np.float64), self.weights)
        events, at = [], {"input": -1}
        for node in self.graph.nodes.values():
            inputs = [at[i] for i in node.inputs]
            if node.kind == "input" or (node.kind in ("out", "act") and unchanged(node)):
                at[node.name] = inputs[0] if inputs else -1
                continue
            if node.kind == "norm" and node.p["mode"] == "identity":
                at[node.name] = inputs[0]
                continue
            if node.kind == "pool" and node.p["fn"] == "none":
                at[node.name] = inputs[0]
                continue
            if node.kind == "concat":
                inputs = [inputs[i] for i in node.p["order"]]
            before = values[node.inputs[0]]
            for kind, p in node.p.get("before", ()):
                before = step(kind, p, before)
                events.append(event(kind, "", inputs[:1], {}, before))
                inputs = [len(events) - 1]
            leaves = {
                leaf: self.numbers[f"{node.name}.{leaf}"]
                for leaf in (NORM if node.kind == "norm" else LEAVES.get(node.kind, ()))
                if self.has(node, leaf)
            }
            kind = {"gap": "pool", "adaptive": "pool"}.get(node.kind, node.kind)
            events.append(event(kind, node.name, inputs, leaves, values[node.name]))
            at[node.name] = len(events) - 1
        outputs = [
            {"name": name, "event": at[name], "out": values[name]} for name in self.graph.outputs()
        ]
        return {"events": events, "outputs": outputs}

    def has(self, node, leaf):
        """Whether the edited step has such a weight."""
        if f"{node.name}.{leaf}" not in self.numbers:
            return False
        if node.kind != "norm":
            return leaf == "weight" or node.p["bias"]
        if leaf.startswith("running"):
            return node.p["mode"] != "batch"
        lacking = {"no scale": ("weight",), "no shift": ("bias",), False: ("weight", "bias")}
        return leaf not in lacking.get(node.p["affine"], ())

    def shapes(self):
        """The shapes of the weights."""
        return [self.weights[name].shape for name in self.numbers]

    def read(self):
        """The weights."""
        return [self.weights[name] for name in self.numbers]

    def write(self, arrays):
        """Take over weights."""
        names_ = list(self.numbers)
        for number, array in arrays.items():
            self.weights[names_[number]] = array

    def close(self):
        """Nothing is left to do."""


def event(op, name, inputs, leaves, out):
    empty = {"path": name, "layer": "", "line": ""}
    return {"op": op, "name": op, "inputs": inputs, "leaves": leaves, "out": out, **empty}


def unchanged(node):
    return node.p["fn"] == "none" and not node.p.get("before")


def step(kind, p, x):
    from common.check.graph import KINDS, Node

    return KINDS[kind](Node("step", kind, (), p), [x], {})


@dataclass
class Trial:
    """One draw: the edits, and what the check said."""

    made: list  # (step, names of its mistakes)
    report: object = None
    wrong: list = field(default_factory=list)

    @property
    def reproduced(self):
        """Whether the reference with the mistakes gives the outputs."""
        return self.report.residual is not None and self.report.residual < 1e-8

    @property
    def exact(self):
        """Whether every mistake is named, and nothing else."""
        return self.reproduced and not self.wrong

    @property
    def shorter(self):
        """Whether fewer mistakes give the same numbers: then they are as true as those made."""
        said = sum(len(finding.places) for finding in self.report.findings)
        return self.reproduced and 0 < said < len(self.made)


def draw(rng, plain, count):
    """A graph with some edits; None if one of them does not change the network's output."""
    graph, values, x, weights = plain
    nodes = [n for n in graph.nodes.values() if n.kind not in ("input",)]
    edits = {}
    for node in rng.sample(nodes, count):
        inputs = [values[i] for i in node.inputs]
        options = []
        for p in variants(node, inputs[0].shape, values[node.name].shape):
            kinds = names(node, p)
            harmless = (
                node.kind == "conv" and ("missing-bias", {"theirs": ""}) in kinds
            )  # before a norm
            if kinds and not harmless and not any(k == "missing-global-pool" for k, _ in kinds):
                options.append((kinds[0][0], p))
        if node.kind in ("conv", "pool"):
            fn = rng.choice([f for f in ACTIVATIONS if f != "none"])
            options.append(("extra", {**node.p, "before": [("act", {"fn": fn})]}))
            scale = [rng.uniform(0.2, 3)] * inputs[0].shape[1]
            shift = [rng.uniform(-1, 1)] * inputs[0].shape[1]
            scaled = {**node.p, "before": [("affine", {"scale": scale, "shift": shift})]}
            options.append(("scaled", scaled))
        if not options:
            return None
        kind = rng.choice(sorted({k for k, _ in options}))
        edits[node.name] = rng.choice([p for k, p in options if k == kind])
    want = values["output"]
    for name, p in edits.items():  # each must change the output by itself
        try:
            got = graph.edited({name: p}).run(x, weights)["output"]
        except (ValueError, KeyError, IndexError):
            return None
        if got.shape != want.shape or not np.isfinite(got).all():
            return None
        if np.max(np.abs(got - want)) <= 1e-6 * np.max(np.abs(want)):
            return None
    try:
        together = graph.edited(edits).run(x, weights)["output"]
    except (ValueError, KeyError, IndexError):
        return None
    return edits if np.isfinite(together).all() and together.shape == want.shape else None


def trial(rng, plain):
    """Draw edits until they show, and check the network that has them."""
    graph = plain[0]
    edits = None
    while not edits:
        edits = draw(rng, plain, rng.choice((1, 2)))
    made = [
        (name, sorted({kind for kind, _ in names(graph.nodes[name], p)}))
        for name, p in edits.items()
    ]
    found = Trial(made)
    network = FakeNetwork(graph.edited(edits))
    found.report = Checker(network, MINI, 33, lambda words: None).run(1, 33)
    found.wrong = [] if found.shorter else wrongly_named(graph, found)
    return found


def wrongly_named(graph: Graph, found: Trial) -> list:
    """The names in a report that are not those of the mistakes made."""
    wrong = []
    places = {}
    for finding in found.report.findings:
        for place in finding.places:
            places.setdefault(place, set()).update({finding.name, *finding.others})
    if found.report.structure:
        wrong.append([(s.name, s.places) for s in found.report.structure])
    true = {}
    for name, kinds in found.made:
        for kind in kinds:
            node = graph.nodes[name]
            true.setdefault(node.inputs[0] if kind in EXTRA else name, set()).add(kind)
    for place, said in places.items():
        options = {part for each in said for part in each.split(" and ")}
        if not options & true.get(place, set()) and not same_place(graph, place, options, true):
            wrong.append((place, sorted(said)))
    if found.report.outcome in ("differs", "same"):
        for place, kinds in true.items():
            said = {part for each in places.get(place, ()) for part in each.split(" and ")}
            if not kinds & said and not same_place(graph, place, kinds, places):
                wrong.append((place, "not named", sorted(kinds)))
    return wrong


def same_place(graph: Graph, place, kinds, others) -> bool:
    """Whether a name is given at the step right before or behind: the same edge of the graph."""
    node = graph.nodes.get(place)
    near = [*(node.inputs if node else ()), *graph.users.get(place, ())]
    return any(kinds & {p for each in others.get(n, ()) for p in each.split(" and ")} for n in near)


def plain_network():
    """The graph of `mini`, its values, the images and the weights."""
    graph = build(MINI)
    weights = {n: a.astype(np.float64) for n, a in draw_fixture(MINI).weights.items()}
    x = np.random.RandomState(2).uniform(0, 1, (2, *MINI.input))
    return graph, graph.run(x, weights), x, weights


def run(seed, count, say=print):
    """So many trials from a seed."""
    rng, plain, found = random.Random(seed), plain_network(), []
    for _ in range(count):
        each = trial(rng, plain)
        found.append(each)
        if not each.exact:
            said = [(f.name, f.places, f.others) for f in each.report.findings]
            open_ = [u.name for u in each.report.unexplained]
            say(f"made {each.made}: said {said}, unexplained {open_}, wrong {each.wrong}")
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=int(f"{datetime.date.today():%Y%m%d}"))
    parser.add_argument("--count", type=int, default=300)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    found = run(given.seed, given.count)
    reproduced = sum(each.reproduced for each in found)
    wrong = sum(bool(each.wrong) for each in found)
    print(
        f"seed {given.seed}: {given.count} trials, {reproduced} reproduced to 1e-8, "
        f"{sum(each.exact for each in found)} named exactly, {wrong} named wrongly"
    )
    sys.exit(wrong > 0 or reproduced < (1 - MISSED) * given.count)


if __name__ == "__main__":
    main()
