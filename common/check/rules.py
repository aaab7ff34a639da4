"""The update rules of the textbooks, fitted to the weights that a user's steps left.

A rule turns the gradients into a direction d, and a step is weight' = weight - rate * d. Every rule
works element by element, so a sample of each tensor is enough. What a rule has as a number (rate,
momentum, weight decay) is solved from the first two steps, and the others must then follow.
Sources: Sutskever et al. (2013), Kingma and Ba (2015), Loshchilov and Hutter (2019), and the
documentation of the four frameworks, which differ in where Adam's eps stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

Array = np.ndarray
Values = dict[str, Array]  #: by canonical name

KERNELS, BIASES, NORMS = "kernels", "biases", "norms"  #: the groups that weight decay is given to
EPS = (1e-8, 1e-7, 1e-3, 1e-6, 1e-5)
DECAYS = (1e-4, 5e-4, 1e-3, 4e-3, 1e-2, 5e-2)
BETAS = (0.9, 0.999)
EXACT = 1e-6  #: the error of a rule in float64, by length of a tensor
SMALLEST = {"float64": 1e-8, "float32": 2e-5}  #: weight decay that can be seen
#: where eps stands in Adam: PyTorch's and Paddle's place first, then Keras's and MXNet's
PLACES = {
    "outside": "outside the corrected root",
    "uncorrected": "beside the root before its correction",
    "inside": "inside the root",
    "raw": "outside the root, without bias correction",
}


@dataclass(frozen=True)
class Rule:
    """An update rule; `decay` is by group, `coupled` if it is added to the gradient."""

    kind: str = "sgd"
    momentum: float = 0.0
    nesterov: bool = False
    dampening: float = 0.0
    rate_inside: bool = False  #: the velocity holds rate * gradient, not the gradient
    betas: tuple[float, float] = BETAS
    eps: float = 1e-8
    place: str = "outside"  #: of eps
    kept: bool = False  #: the gradients are never cleared, so they add up
    decay: dict[str, float] = field(default_factory=dict)
    coupled: bool = True

    def words(self) -> str:
        """The rule in words, without rate and weight decay."""
        if self.kind == "sgd":
            if not self.momentum:
                return "SGD without momentum"
            name = "SGD with Nesterov momentum" if self.nesterov else "SGD with momentum"
            extra = f" and dampening {self.dampening:.6g}" if self.dampening else ""
            extra += ", the rate inside the velocity" if self.rate_inside else ""
            return f"{name} {self.momentum:.6g}{extra}"
        if self.kind == "rmsprop":
            return f"RMSprop {self.betas[1]:.6g}, eps {self.eps:.0e} {self.place} the root"
        usual = np.allclose(self.betas, BETAS, rtol=1e-6)
        betas = "" if usual else f" with {self.betas[0]:.6g} and {self.betas[1]:.6g}"
        return f"Adam{betas}, eps {self.eps:.0e} {PLACES[self.place]}"

    def decay_words(self) -> str:
        """The weight decay in words."""
        given = {group: value for group, value in self.decay.items() if value}
        if not given:
            return "no weight decay"
        values = sorted(set(given.values()), reverse=True)
        every = len(values) == 1 and len(given) == len(self.decay) > 1
        each = ", ".join(
            f"{value:.4g} on "
            + ("every weight" if every else " and ".join(g for g, v in given.items() if v == value))
            for value in values
        )
        way = "added to the gradient" if self.coupled else "beside the gradient's step"
        return f"weight decay {each}, {way}"


@dataclass
class Step:
    """One step of the user: weights before, what was subtracted, the reference's gradients."""

    weights: Values
    change: Values
    gradients: Values
    rate: float = 1.0  #: that the step was given; 1 if it was given none

    def of(self, name: str) -> Step:
        """The step of one weight."""
        weights, change, gradients = (
            {name: each[name]} for each in (self.weights, self.change, self.gradients)
        )
        return Step(weights, change, gradients, self.rate)


@dataclass
class Fitted:
    """A rule that gives the user's steps, its rate and its worst error, by length of a tensor."""

    rule: Rule
    rate: float
    error: float


class Fit:
    """Fits rules to the steps of a user; `groups` has the group of each weight, by name."""

    def __init__(self, steps: list[Step], groups: dict[str, str], dtype: str) -> None:
        self.steps, self.groups = steps, groups
        self.limit, self.digits = (EXACT, 6) if dtype == "float64" else (2e-2, 2)
        self.dtype = dtype
        self.ulp = 0.0 if dtype == "float64" else 2.0**-23
        self.names = list(steps[0].gradients)

    def best(self, wanted: Rule | None = None) -> Fitted | None:
        """The first rule that gives all steps; None if there is none. The simplest come first.

        In float32 several may: then the first whose error is near the smallest.
        """
        found: list[Fitted] = []
        for rule in self.candidates(wanted):
            each = self.fitted(rule)
            if each is not None:
                found.append(each)
                if each.error <= EXACT:
                    break
        least = min((each.error for each in found), default=0.0)
        return next((each for each in found if each.error <= max(EXACT, 3 * least)), None)

    # ---- candidates

    def candidates(self, wanted: Rule | None) -> Iterator[Rule]:
        """The rules to try."""
        if wanted:
            yield wanted
        yield from self.sgd()
        eps = dict.fromkeys((*((wanted.eps,) if wanted else ()), *EPS))
        betas = dict.fromkeys((*((wanted.betas,) if wanted else ()), BETAS))
        plain = [
            Rule("adam", betas=pair, eps=each, place=place)
            for pair in betas
            for each in eps
            for place in PLACES
        ]
        plain += [
            Rule("rmsprop", betas=(0.0, rho), eps=each, place=place)
            for rho in (0.99, 0.9)
            for each in eps
            for place in ("outside", "inside")
        ]
        plain += [replace(rule, kept=True) for rule in plain if rule.kind == "adam"]
        for rule in plain:
            yield rule
            yield from self.beside(rule)
        amounts = dict.fromkeys((*(wanted.decay.values() if wanted else ()), *DECAYS))
        present = list(dict.fromkeys(self.groups.values()))
        for rule in plain:
            for amount in amounts:
                for only in ([KERNELS], present, [KERNELS, BIASES]):
                    if amount and not rule.kept:
                        yield replace(
                            rule, decay={g: amount if g in only else 0.0 for g in present}
                        )

    def sgd(self) -> Iterator[Rule]:
        """SGD: weight decay is solved from the first step, momentum from the second."""
        rate, decay = self.solve_decay({n: self.steps[0].gradients[n] for n in self.names})
        if rate is None:
            return
        for amounts in ({}, decay) if decay else ({},):
            for coupled in (True, False) if amounts else (True,):
                yield from self.momenta(rate, amounts, coupled)

    def momenta(self, rate: float, decay: dict[str, float], coupled: bool) -> Iterator[Rule]:
        """The rules of SGD whose momentum fits the second step."""
        base = Rule(decay=decay, coupled=coupled)
        first, second = self.steps[:2]
        old, new, change = [], [], []
        for name in self.names:
            old.append(self.decayed(base, name, first, first.gradients[name]))
            new.append(self.decayed(base, name, second, second.gradients[name]))
            rest = second.change[name] / second.rate
            if not coupled:
                rest = rest - rate * decay.get(self.groups[name], 0.0) * second.weights[name]
            change.append(rest)
        a, b = least_squares([flat(new), flat(old)], flat(change))
        if a is None or b is None:
            return
        yield base
        yield from self.with_momentum(base, b / rate, a / rate)

    def with_momentum(self, base: Rule, share: float, fresh: float) -> Iterator[Rule]:
        """Rules in which the old gradient has that share, and the new one `fresh`, of the rate."""
        first, second = self.steps[:2]
        mu = self.short(share)
        if 0 < mu < 1:
            yield replace(base, momentum=mu)
        mu = self.short(share * second.rate / first.rate)
        if first.rate != second.rate and 0 < mu < 1:
            yield replace(base, momentum=mu, rate_inside=True)
        if share > 0:  # share = mu^2 / (1 + mu)
            mu = self.short((share + np.sqrt(share**2 + 4 * share)) / 2)
            if 0 < mu < 1:  # the first step's rate was (1 + mu) times as large
                decay = {g: v if base.coupled else v * (1 + mu) for g, v in base.decay.items()}
                yield replace(base, momentum=mu, nesterov=True, decay=decay)
        if abs(share - 1) <= self.limit:
            yield replace(base, kept=True)
        mu = self.short(share - 1)
        if self.limit < mu < 1:
            yield replace(base, momentum=mu, kept=True)
        mu = self.short(share)
        if 0 < mu < 1 and fresh < 1 - 1e-3:
            yield replace(base, momentum=mu, dampening=self.short(1 - fresh))

    def beside(self, rule: Rule) -> Iterator[Rule]:
        """The rule with a weight decay beside it, solved from the first step."""
        state: dict[str, Values] = {name: {} for name in self.names}
        found = {n: self.direction(rule, n, 1, self.steps[0], state[n]) for n in self.names}
        _, decay = self.solve_decay(found)
        if decay:
            yield replace(rule, decay=decay, coupled=False)

    def solve_decay(self, directions: Values) -> tuple[float | None, dict[str, float]]:
        """The rate and the decay of each group that the first step shows."""
        step, rates, decay = self.steps[0], [], {}
        for group in dict.fromkeys(self.groups.values()):
            names = [name for name in self.names if self.groups[name] == group]
            if not names:
                continue
            d, w = flat([directions[n] for n in names]), flat([step.weights[n] for n in names])
            rate, product = least_squares([d, w], flat([step.change[n] for n in names]) / step.rate)
            if rate is None or product is None or rate <= 0:
                continue
            rates.append((d.size, rate))
            amount = self.short(product / rate)
            decay[group] = amount if amount > SMALLEST[self.dtype] else 0.0
        if not rates:
            return None, {}
        return max(rates)[1], decay if any(decay.values()) else {}

    def short(self, value: float) -> float:
        """A solved number with the digits that its precision supports."""
        return float(f"{value:.{self.digits}g}")

    # ---- trying

    def fitted(self, rule: Rule) -> Fitted | None:
        """The rate of a rule, from the first step, and its worst error over all steps."""
        state: dict[str, Values] = {name: {} for name in self.names}
        rate, worst = 0.0, 0.0
        for number, step in enumerate(self.steps, 1):
            found = {n: self.direction(rule, n, number, step, state[n]) for n in self.names}
            if not rule.coupled:
                for n in self.names:
                    found[n] = found[n] + rule.decay.get(self.groups[n], 0.0) * step.weights[n]
            d = flat(list(found.values())) * step.rate
            if number == 1:
                length = float(d @ d)
                rate = (
                    float(d @ flat([step.change[n] for n in self.names])) / length if length else 0
                )
                if not rate > 0:
                    return None
            for n in self.names:
                change = step.change[n]
                off = np.abs(rate * step.rate * found[n] - change)
                off = np.maximum(off - self.ulp * np.abs(step.weights[n]), 0)
                length, missed = float(np.linalg.norm(change)), float(np.linalg.norm(off))
                # a tensor may rest in one step: a ReLU in front of it is 0 everywhere
                ratio = missed / length if length else np.inf if missed else 0.0
                worst = ratio if not ratio <= worst else worst
            if not worst <= self.limit:  # NaN is no fit
                return None
        return Fitted(rule, rate, worst)

    def decayed(self, rule: Rule, name: str, step: Step, gradient: Array) -> Array:
        """The gradient with the weight decay that is added to it."""
        amount = rule.decay.get(self.groups[name], 0.0) if rule.coupled else 0.0
        return gradient + amount * step.weights[name] if amount else gradient

    def direction(self, rule: Rule, name: str, t: int, step: Step, state: Values) -> Array:
        """The direction of step t, counted from 1; `state` is the optimizer's for this tensor."""
        zero = np.zeros_like(step.gradients[name])
        g = step.gradients[name]
        if rule.kept:
            g = state["sum"] = state.get("sum", zero) + g
        g = self.decayed(rule, name, step, g)
        if rule.kind == "sgd":
            if not rule.momentum:
                return g
            new = g * (1 - rule.dampening * (t > 1))
            if rule.rate_inside:
                v = state["v"] = rule.momentum * state.get("v", zero) + step.rate * new
                return v / step.rate
            v = state["v"] = rule.momentum * state.get("v", zero) + new
            return g + rule.momentum * v if rule.nesterov else v
        first, second = rule.betas
        v = state["v"] = second * state.get("v", zero) + (1 - second) * g * g
        if rule.kind == "rmsprop":
            inside = rule.place == "inside"
            return g / (np.sqrt(v + rule.eps) if inside else np.sqrt(v) + rule.eps)
        m = state["m"] = first * state.get("m", zero) + (1 - first) * g
        c, s = 1 - first**t, 1 - second**t
        if rule.place == "uncorrected":
            return m / c * np.sqrt(s) / (np.sqrt(v) + rule.eps)
        if rule.place == "inside":
            return m / c / np.sqrt(v / s + rule.eps)
        if rule.place == "raw":
            return m / (np.sqrt(v) + rule.eps)
        return m / c / (np.sqrt(v / s) + rule.eps)


def flat(arrays: list[Array]) -> Array:
    """All the values in one row."""
    return np.concatenate([array.ravel() for array in arrays])


def least_squares(columns: list[Array], y: Array) -> tuple[float | None, ...]:
    """The factors of the columns whose sum is nearest to y; None where a column says nothing."""
    matrix = np.stack(columns, 1)
    lengths = np.linalg.norm(matrix, axis=0)
    if not all(lengths) or not np.isfinite(matrix).all():
        return (None,) * len(columns)
    found = np.linalg.lstsq(matrix / lengths, y, rcond=None)[0]
    return tuple(float(value / length) for value, length in zip(found, lengths, strict=True))
