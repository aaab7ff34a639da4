"""The losses that a training step may use, right and wrong, and the reference's gradients of them.

Sources: the code of `torch.nn.functional.nll_loss`, of Keras's two cross-entropies for TensorFlow
(`keras/src/backend/tensorflow/nn.py`), of Gluon's `SoftmaxCrossEntropyLoss` and of Paddle's
`cross_entropy(use_softmax=False)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from backends.numpy.googlenet import Array, GoogLeNet, cross_entropy
from common.spec import Auxiliary, Row, Spec
from common.weights import Weights

NEVER = 10**9  #: no step is in evaluation mode
CLIP = 1e-7  #: Keras's epsilon
SHARES = (0.0, 0.4, 1.0)  #: of the auxiliary heads in the loss: left out, Inception v3's, a sum


@dataclass(frozen=True)
class Loss:
    """A loss that a step may use."""

    smoothing: float = 0.0
    form: str = "right"  #: a key of `FORMS`
    auxiliary: float = 1.0  #: the share of the auxiliary heads, over the spec's
    summed: bool = False  #: over the batch
    evaluation: int = NEVER  #: the first step whose norms use their running statistics
    cut: tuple[str, ...] = ()  #: the branches that pass no gradient on

    def gradient(self, logits: Array, labels: Array) -> Array:
        """The gradient of the loss at the logits of one head."""
        with np.errstate(all="ignore"):  # a logarithm of a negative number has a gradient
            found = FORMS[self.form].gradient(logits, labels, self.smoothing)
        return found * (len(labels) if self.summed else 1)


def losses(smoothing: float, share: float, norm: bool) -> Iterator[Loss]:
    """The losses to try: a recipe's label smoothing, then what is wrong or other, then pairs.

    `share` is that of the spec's auxiliary heads, 0 if it has none.
    """
    usual = Loss(smoothing)
    changes: list[dict[str, Any]] = []
    changes += [{"smoothing": each} for each in (0.0, 0.1) if each != smoothing]
    changes += [{"form": each} for each in FORMS if each != "right"]
    changes += [{"summed": True}]
    changes += [{"auxiliary": each / share} for each in SHARES if share and each != share]
    changes += [{"evaluation": first} for first in (0, 1) if norm]
    yield usual
    yield from (replace(usual, **change) for change in changes)
    for one, other in combinations(changes, 2):
        if one.keys() != other.keys():
            yield replace(usual, **one, **other)


# ---- gradients at the logits, of the mean over the batch


def softmax(logits: Array) -> Array:
    """The probabilities."""
    p = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(p / p.sum(1, keepdims=True))


def through_softmax(p: Array, dp: Array) -> Array:
    """The gradient at the logits, from that at their softmax p."""
    return np.asarray(p * (dp - (dp * p).sum(1, keepdims=True)))


def right(logits: Array, labels: Array, smoothing: float) -> Array:
    """Of the cross-entropy, which takes the softmax itself."""
    return cross_entropy(logits, labels, smoothing)[1]


def again(logits: Array, labels: Array, smoothing: float) -> Array:
    """Of the cross-entropy of a softmax."""
    p = softmax(logits)
    return through_softmax(p, right(p, labels, smoothing))


def target(logits: Array, labels: Array, smoothing: float) -> Array:
    """The target distributions over the batch size."""
    classes = logits.shape[1]
    share = np.eye(classes)[labels] * (1 - smoothing) + smoothing / classes
    return np.asarray(share / len(labels))


def as_logs(logits: Array, labels: Array, smoothing: float) -> Array:
    """Of -z[label]."""
    return -target(logits, labels, smoothing)


def probabilities_as_logs(logits: Array, labels: Array, smoothing: float) -> Array:
    """Of -softmax(z)[label]."""
    return through_softmax(softmax(logits), -target(logits, labels, smoothing))


def as_probabilities(logits: Array, labels: Array, smoothing: float) -> Array:
    """Of -log(z[label])."""
    return np.asarray(-target(logits, labels, smoothing) / logits)


def clipped(logits: Array, labels: Array, smoothing: float) -> Array:
    """Of Keras's sparse one: the cross-entropy of log(z), with z clipped to 0 to 1."""
    c = np.clip(logits, CLIP, 1 - CLIP)
    inside = (logits >= CLIP) & (logits <= 1 - CLIP)
    return np.asarray(right(np.log(c), labels, smoothing) / c * inside)


def normalised(logits: Array, labels: Array, smoothing: float) -> Array:
    """Of Keras's other one: -log(z[label]) with z divided by its sum, and clipped to 0 to 1."""
    total = logits.sum(1, keepdims=True)
    p = logits / total
    inside = (p >= CLIP) & (p <= 1 - CLIP)
    dp = np.where(inside, -target(logits, labels, smoothing) / p, 0)
    return np.asarray((dp - (dp * p).sum(1, keepdims=True)) / total)


class Form(NamedTuple):
    """What a loss does with logits; if it is given another thing than it wants, both in words."""

    gradient: Callable[[Array, Array, float], Array]
    given: str = ""
    wanted: str = ""


FORMS = {
    "right": Form(right),
    "softmax twice": Form(again),
    "logs": Form(as_logs, "logits", "log probabilities"),
    "clipped": Form(clipped, "logits", "probabilities"),
    "normalised": Form(normalised, "logits", "probabilities"),
    "plain": Form(as_probabilities, "logits", "probabilities"),
    "no logarithm": Form(probabilities_as_logs, "probabilities", "log probabilities"),
}


# ---- gradients of the weights


class Cut(GoogLeNet):
    """The reference, where the inputs of the parts named in `cut` get no gradient from them."""

    cut: tuple[str, ...] = ()

    def _rows(self, x: Array, rows: Sequence[Row], name: str, training: bool) -> Any:
        y, back = super()._rows(x, rows, name, training)
        return y, lambda dy: back(dy) * (name not in self.cut)

    def _auxiliary(self, x: Array, row: Auxiliary, name: str, training: bool) -> Any:
        y, back = super()._auxiliary(x, row, name, training)

        def backward(dy: Array) -> Array:
            dx = back(dy)
            return dy if name in self.cut else dx

        return y, backward


class Pass:
    """A forward pass of the reference at the user's weights, and its gradients for any loss."""

    def __init__(self, spec: Spec, weights: Weights, x: Array, labels: Array) -> None:
        self.spec, self.weights, self.x, self.labels = spec, weights, x, labels
        self.nets: dict[bool, Cut] = {}

    def net(self, training: bool) -> Cut:
        """The reference after its forward pass; with a momentum of 0 it keeps the batch's own."""
        if training not in self.nets:
            norm = self.spec.norm
            spec = replace(self.spec, norm=replace(norm, momentum=0.0)) if norm else self.spec
            net = Cut(spec, self.weights)
            net.forward(self.x, training)
            self.nets[training] = net
        return self.nets[training]

    def statistics(self) -> Weights:
        """The mean and the biased variance of the batch, under the running statistics' names."""
        return self.net(training=True).weights

    def logits(self, loss: Loss, number: int) -> Weights:
        """The gradients of the logits in the user's step of that number, by head."""
        outputs = self.net(number < loss.evaluation).outputs
        found = {"head": loss.gradient(outputs["head"], self.labels)}
        for index, row in enumerate(self.spec.auxiliary):
            name = f"auxiliary.{index}"
            its = loss.gradient(outputs[name], self.labels)
            found[name] = its * row.share * loss.auxiliary
        return found

    def gradients(self, loss: Loss, number: int) -> Weights:
        """The gradients of the weights in the user's step of that number."""
        net = self.net(number < loss.evaluation)
        net.cut = loss.cut
        return net.backward(self.logits(loss, number))
