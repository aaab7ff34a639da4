"""Holds a user's training step against the reference: three steps, and the rule that gives them.

The user's network has the fixture's weights. Before and after each of their steps its weights are
read. The reference's gradients at those weights, for the user's images and labels, then show which
loss and which update rule lead from one to the next; the running statistics show the norms'.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from backends.numpy.googlenet import Array
from common.check.losses import FORMS, NEVER, Loss, Pass, losses
from common.check.match import Match
from common.check.mistakes import MISTAKES
from common.check.process import Process
from common.check.report import Finding, Training
from common.check.rules import (
    BIASES,
    KERNELS,
    NORMS,
    Fit,
    Fitted,
    Rule,
    Step,
    flat,
    least_squares,
)
from common.recipe import Recipe
from common.spec import Branches, Inception, arithmetic, inner_rows
from common.weights import Weights, is_running, not_finite, shapes

STEPS, BATCH = 3, 4
SAMPLE = 300  #: values of a tensor
#: the rates of a step that takes one: a rate inside the velocity shows when the rate changes
RATES = (1.0, 0.5, 0.75)
UNSEEN = (
    "The running statistics of your own norm were not seen to change in a step: it may replace "
    "them, or never update them."
)
UNBIASED = (
    "PyTorch's norms divide the running variance by n - 1. The reference, TensorFlow, MXNet on a "
    "CPU and Paddle divide it by n. Training is the same; an evaluation after it differs a little: "
    f"{MISTAKES['norm-variance'].link}"
)


class TrainingCheck:
    """One check of a training step; the network is known to be the spec's function."""

    def __init__(
        self, process: Process, match: Match, size: int, weights: Weights, recipe: Recipe | None
    ) -> None:
        self.process, self.recipe = process, recipe
        self.spec = match.spec.at(size=size)
        known = shapes(match.spec)  # without a bias in front of a norm that the spec has not
        self.weights = {name: array for name, array in weights.items() if name in known}
        self.numbers = {
            f"{name}.{leaf}": number
            for name, layer in match.layers.items()
            for leaf, number in layer.leaves.items()
            if f"{name}.{leaf}" in self.weights
        }
        self.own = {name for name, layer in match.layers.items() if layer.own}
        self.findings: list[Finding] = []
        self.notes: list[str] = []

    def run(self, make_step: str) -> Training:
        """Make the user's step by that function of their file, run it, and explain it."""
        self.process.write({number: self.weights[n] for n, number in self.numbers.items()})
        takes_rate = self.process.start(make_step)
        base = self.recipe.lr if self.recipe else 0.01
        self.rates = [base * each for each in RATES] if takes_rate else []
        random = np.random.RandomState(3)
        shape = (STEPS, BATCH, *self.spec.input)
        images = random.uniform(0, 1, shape).astype(np.float32).astype(np.float64)
        labels = random.randint(0, self.spec.head.width, (STEPS, BATCH))
        states = self.states = [self.read()]
        for number in range(STEPS):
            rate = self.rates[number : number + 1]
            self.process.train(images[number], labels[number], *rate)
            states.append(self.read())
            odd = not_finite(states[-1])
            if odd:
                words = f"NaN or infinity in {odd[0]} after step {number + 1}"
                self.add("not-finite", [], theirs=words)
                return Training("", None, self.findings, self.notes)
        frozen = [
            n for n in self.trained() if all(np.array_equal(s[n], states[0][n]) for s in states)
        ]
        self.passes = [
            Pass(self.spec, state, x, y)
            for state, x, y in zip(states[:-1], images, labels, strict=True)
        ]
        moving, still = self.split(frozen)
        if not moving:
            words = f"no weight changes: does it train the network that {make_step} is given?"
            self.add("frozen-weights", [], theirs=words)
            if any(self.flat(Loss(form=form)) for form in FORMS):
                self.findings[-1].others = ["from-logits"]
            return Training("", None, self.findings, self.notes)
        found, loss = self.explain(moving)
        if found and still:  # some have no gradient with this loss
            first = [each.gradients(loss, n) for n, each in enumerate(self.passes)]
            still = [name for name in still if any(np.any(each[name]) for each in first)]
        if still:
            count = f"{len(still)} tensors" if len(still) > 1 else "one tensor"
            self.add("frozen-weights", still, theirs=f"{count} never changed")
        if self.spec.norm:
            self.statistics(found is not None)
        if found is None:
            self.notes.append(
                "A step with dropout is random: set its rate to 0 for this check. Clipped "
                "gradients, a rate that changes between the steps, AMSGrad, other losses, and "
                "auxiliary heads that run in training only are not known to it."
            )
        return self.report(found, loss)

    def read(self) -> Weights:
        """The user's weights by name; what they have not is as the reference has it."""
        arrays = self.process.read()
        own = {n: arrays[i].reshape(self.weights[n].shape) for n, i in self.numbers.items()}
        return {**self.weights, **own}  # a linear layer may be a convolution

    def trained(self) -> list[str]:
        """The names of the weights that steps change, in the spec's order."""
        return [name for name in self.weights if name in self.numbers and not is_running(name)]

    def split(self, frozen: list[str]) -> tuple[list[str], list[str]]:
        """The weights that change, and those that should and do not.

        Some have a gradient of 0 on paper, a bias in front of a norm: they are in neither.
        """
        gradients = self.passes[0].gradients(Loss(), 0)
        sizes = {name: float(np.abs(gradient).max()) for name, gradient in gradients.items()}
        acting = [n for n in self.trained() if sizes[n] > 1e-10 * max(sizes.values())]
        still = [name for name in acting if name in frozen]
        return [name for name in acting if name not in frozen], still

    def group(self, name: str) -> str:
        """The group of a weight, for weight decay."""
        if name.rpartition(".")[0].endswith("norm"):
            return NORMS
        return KERNELS if self.weights[name].ndim > 1 else BIASES

    # ---- loss and rule

    def explain(self, names: list[str]) -> tuple[Fitted | None, Loss]:
        """The loss and the rule that give the user's steps of these weights.

        The head's bias has the gradient of the logits, summed: a loss must fit it first.
        """
        wanted = wanted_rule(self.recipe) if self.recipe else None
        usual = self.recipe.label_smoothing if self.recipe else 0.0
        share = self.spec.auxiliary[0].share if self.spec.auxiliary else 0.0
        head = [name for name in names if name == "head.bias"]
        likely = []
        for loss in losses(usual, share, bool(self.spec.norm)):
            if not head or self.fit(head, loss, wanted):
                likely.append(loss)
                found = self.fit(names, loss, wanted)
                if found is not None:
                    return found, loss
        zero, one = Loss(), Loss(1.0)
        shares = [("smoothing", 1.0, self.between(names, zero, one))]
        if share:
            part = share * self.between(names, Loss(auxiliary=0), zero)
            shares.append(("auxiliary", share, part))
        for name, whole, part in shares:
            change: dict[str, Any] = {name: float(f"{part:.3g}") / whole}
            loss = replace(zero, **change)
            found = self.fit(names, loss, wanted) if 0 < part < 1 else None
            if found is not None:
                return found, loss
        return self.cut(names, likely[0], wanted) if likely and head else (None, zero)

    def cut(self, names: list[str], loss: Loss, wanted: Rule | None) -> tuple[Fitted | None, Loss]:
        """A branch that passes no gradient on: the weights in front of its block have another."""
        head = self.fit([name for name in names if name.startswith("head.")], loss, wanted)
        if head is None:
            return None, loss

        every, dtype = self.steps(names, loss), self.process.dtype

        def follows(name: str) -> bool:
            alone = Fit([step.of(name) for step in every], {name: self.group(name)}, dtype)
            found = alone.fitted(head.rule)
            return found is not None and bool(np.isclose(found.rate, head.rate, rtol=1e-3))

        off = {block_of(name) for name in names if not follows(name)}
        blocks = [f"{stage}.{n}" for stage, rows in self.spec.stages() for n in range(len(rows))]
        last = max((n for n, block in enumerate(blocks) if block in off), default=None)
        if last is None:
            return None, loss
        agree = [name for name in names if block_of(name) not in off]
        right = self.fit(agree, loss, wanted) or head
        branches = {
            f"{stage}.{n}": [branch for branch, _ in inner_rows(row)]
            for stage, rows in self.spec.stages()
            for n, row in enumerate(rows)
            if isinstance(row, (Inception, Branches))
        }
        behind = next((block for block in blocks[last + 1 :] if block in branches), "")
        its_own = branches.get(behind, [])
        cuts: list[tuple[str, ...]] = [(f"{behind}.{branch}",) for branch in its_own]
        cuts += [
            tuple(f"{block}.{branch}" for block, its in branches.items() if branch in its)
            for branch in its_own
        ]
        cuts += [(f"auxiliary.{number}",) for number in range(len(self.spec.auxiliary))]
        cuts += [tuple(f"auxiliary.{number}" for number in range(len(self.spec.auxiliary)))]
        for cut in filter(None, cuts):
            wrong = replace(loss, cut=cut)
            found = self.fitter(names, wrong).fitted(right.rule)
            if found is not None:
                return found, wrong
        self.notes.append(
            f"The weights behind {blocks[last]} follow a rule: {right.rule.words()}. Those of "
            f"{blocks[last]} have another gradient. Look between the two for a `detach`, a "
            "`no_grad` or a backward function of your own."
        )
        return None, loss

    def fitter(self, names: list[str], loss: Loss) -> Fit:
        """What fits rules to the user's steps of these weights, with the gradients of a loss."""
        groups = {name: self.group(name) for name in names}
        return Fit(self.steps(names, loss), groups, self.process.dtype)

    def steps(self, names: list[str], loss: Loss) -> list[Step]:
        """The user's steps of these weights, with the reference's gradients of a loss."""
        return [self.step(names, number, loss) for number in range(STEPS)]

    def fit(self, names: list[str], loss: Loss, wanted: Rule | None) -> Fitted | None:
        """The rule that gives the user's steps of these weights with a loss."""
        return self.fitter(names, loss).best(wanted)

    def step(self, names: list[str], number: int, loss: Loss) -> Step:
        """One of the user's steps, with the reference's gradients of a loss."""
        before, after = (self.sampled(names, each) for each in self.states[number : number + 2])
        change = {name: before[name] - after[name] for name in before}
        if names == ["head.bias"]:
            gradients = {"head.bias": self.passes[number].logits(loss, number)["head"].sum(0)}
        else:
            gradients = self.passes[number].gradients(loss, number)
        rate = self.rates[number] if self.rates else 1.0
        return Step(before, change, self.sampled(names, gradients), rate)

    def sampled(self, names: list[str], arrays: Weights) -> Weights:
        """A sample of each tensor, which the rules are fitted to; always the same one."""
        found = {}
        for name in names:
            flat = arrays[name].ravel()
            random = np.random.RandomState(flat.size)
            found[name] = flat[random.choice(flat.size, min(SAMPLE, flat.size), replace=False)]
        return found

    def between(self, names: list[str], low: Loss, high: Loss) -> float:
        """The share of `high` that SGD's first step shows: the gradient is linear in it."""
        none, all_ = (self.step(names, 0, loss) for loss in (low, high))
        columns: list[list[Array]] = [[], [], []]
        for name, gradient in none.gradients.items():
            columns[0].append(gradient)
            columns[1].append(all_.gradients[name] - gradient)
            columns[2].append(none.weights[name] * (self.group(name) == KERNELS))
        change = flat(list(none.change.values()))
        rate, share, _ = least_squares([flat(each) for each in columns], change)
        return share / rate if rate and share else 0.0

    def flat(self, loss: Loss) -> bool:
        """Whether a loss has no gradient at all in these steps."""
        found = [each.logits(loss, number)["head"] for number, each in enumerate(self.passes)]
        return not np.any(found)

    # ---- running statistics

    def statistics(self, explained: bool) -> None:
        """How the norms' running statistics moved in the first step.

        If nothing explains the step, it may have changed its images, and moves them rightly.
        """
        assert self.spec.norm is not None
        want = self.spec.norm.momentum
        batch = self.passes[0].statistics()
        count = {
            layer.name: BATCH * layer.shape[2] * layer.shape[3]
            for layer in arithmetic.layers(self.spec)
            if len(layer.shape) == 4
        }
        kinds: dict[tuple[str, str, str], list[str]] = {}
        unbiased_here = unseen = False
        for name in (n for n in self.weights if n in self.numbers and is_running(n)):
            layer, _, leaf = name.rpartition(".")
            old, new = self.states[0][name], self.states[1][name]
            if np.array_equal(old, new) and layer in self.own:
                unseen = True  # a step may put new arrays in the place of those that were read
                continue
            if np.array_equal(old, new):
                kinds.setdefault(("norm-not-updated", "", ""), []).append(name)
                continue
            n = count[layer]
            options = [(batch[name], False)]
            if leaf == "running_var":
                options.append((batch[name] * n / (n - 1), True))
            error, share, unbiased = min((*share_kept(old, new, b), u) for b, u in options)
            if not error <= (1e-6 if self.process.dtype == "float64" else 1e-3):
                if explained:
                    kinds.setdefault(("norm-statistics", "", ""), []).append(name)
                else:
                    self.notes.append(f"No momentum gives your {name}.")
                continue
            if abs(share - want) > 1e-3:
                reverse = abs(share - (1 - want)) < 1e-3
                what = ": the shares of old and new are exchanged" if reverse else ""
                kinds.setdefault(("norm-momentum", f"{share:.4g}", what), []).append(name)
            if unbiased and self.process.backend == "torch":
                unbiased_here = True
            elif unbiased:
                kinds.setdefault(("norm-variance", "", ""), []).append(name)
        self.notes += [UNBIASED] if unbiased_here else []
        self.notes += [UNSEEN] if unseen else []
        for (kind, theirs, what), names in kinds.items():
            layers = dict.fromkeys(name.rpartition(".")[0] for name in names)
            self.add(kind, list(layers), theirs=theirs, ours=f"{want:.4g}", what=what)

    # ---- reporting

    def add(self, kind: str, places: list[str], **words: str) -> None:
        """Note a mistake."""
        self.findings.append(Finding(kind, dict(words), places, ""))

    def report(self, found: Fitted | None, loss: Loss) -> Training:
        """The findings about loss and rule, the words of what the step is, and the rest."""
        if found is None:
            return Training("", None, self.findings, self.notes, unexplained=True)
        rule, rate, first = found.rule, found.rate, list(self.findings)
        self.findings = []
        form = FORMS[loss.form]
        if form.given:
            self.add("from-logits", [], theirs=form.given, what=form.wanted)
        elif loss.form != "right":
            self.add("double-softmax", [])
        if loss.summed:
            self.add("summed-loss", [], theirs=str(BATCH))
        if loss.evaluation != NEVER:
            since = f" from step {loss.evaluation + 1} on" if loss.evaluation else ""
            self.add("norm-evaluation-mode", [], theirs=since)
        if not loss.auxiliary:
            self.add("auxiliary-left-out", [])
        elif loss.auxiliary != 1:
            ours = self.spec.auxiliary[0].share
            shares = [f"{each:.4g}" for each in (loss.auxiliary * ours, ours)]
            self.add("auxiliary-share", [], theirs=shares[0], ours=shares[1])
        if loss.cut:
            self.add("detached-branch", list(loss.cut))
        if rule.kept:
            self.add("gradient-twice", [])
        if rule.rate_inside:
            self.add("rate-in-velocity", [])
        if self.recipe:
            self.against_recipe(self.recipe, rule, rate, loss)
        words = f"{rule.words()}, rate {rate * (self.rates or [1])[0]:.4g}, {rule.decay_words()}"
        if loss.smoothing:
            words += f", label smoothing {loss.smoothing:.4g}"
        return Training(words, found.error, self.findings + first, self.notes)

    def against_recipe(self, recipe: Recipe, rule: Rule, rate: float, loss: Loss) -> None:
        """The differences from a recipe."""
        want = wanted_rule(recipe)
        got = replace(rule, kept=False, rate_inside=False)
        if got.words() != want.words():
            self.add("update-rule", [], ours=want.words(), theirs=got.words())
        present = {self.group(name) for name in self.trained()}
        theirs = {group: value for group, value in rule.decay.items() if value}
        ours = {group: value for group, value in want.decay.items() if value and group in present}
        plain = got.kind == "sgd" and not got.momentum  # then both ways are the same step
        off = any(
            not np.isclose(theirs.get(g, 0), ours.get(g, 0), rtol=1e-3, atol=1e-9)
            for g in (*theirs, *ours)
        )
        if off or (theirs and not rule.coupled and not plain):
            self.add("weight-decay", [], ours=want.decay_words(), theirs=rule.decay_words())
        if not np.isclose(loss.smoothing, recipe.label_smoothing, atol=1e-6):
            shares = [f"{each:.4g}" for each in (recipe.label_smoothing, loss.smoothing)]
            self.add("label-smoothing", [], ours=shares[0], theirs=shares[1])
        asked = 1.0 if self.rates else recipe.lr
        if rule.kind == "sgd" and np.isclose(rate, asked * BATCH, rtol=1e-3):
            self.add("summed-loss", [], theirs=str(BATCH))
        elif rule.kind == "sgd" and np.isclose(rate, asked / BATCH, rtol=1e-3):
            self.add("step-divides", [], theirs=str(BATCH))
        elif not np.isclose(rate, asked, rtol=1e-3):
            self.add("learning-rate", [], ours=f"{asked:.4g}", theirs=f"{rate:.4g}")


def block_of(name: str) -> str:
    """The block or layer of the spec's table that a weight belongs to."""
    return ".".join(name.split(".")[:2])


def wanted_rule(recipe: Recipe) -> Rule:
    """The rule of a recipe."""
    return Rule(
        recipe.optimizer,
        recipe.momentum,
        recipe.nesterov,
        betas=(recipe.beta1, recipe.beta2),
        eps=recipe.eps,
        decay={KERNELS: recipe.weight_decay} if recipe.weight_decay else {},
    )


def share_kept(old: np.ndarray, new: np.ndarray, batch: np.ndarray) -> tuple[float, float]:
    """The share m in new = m old + (1 - m) batch, and the error of that; the error comes first."""
    d = old - batch
    share = float(d @ (new - batch) / (d @ d)) if d.any() else 0.0
    off = np.abs(share * d - (new - batch)).max() / max(np.abs(new).max(), 1e-30)
    return float(off), share
