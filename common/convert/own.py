"""Weights into a user's own network, and out of a file that only the user's network can read.

`common.check` finds the layers of the network and proves that it is the spec's function. Then the
weights go to the layers, whatever their names are, and the framework's own saving function writes
the file. Everything that runs the user's code is in a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backends import FRAMEWORKS
from backends.numpy import GoogLeNet
from common.check.anatomy import order_outputs
from common.check.api import open_with
from common.check.checker import Checker
from common.check.match import Match
from common.check.process import Process
from common.check.steps import aligned
from common.check.trace import of
from common.convert.report import compared
from common.errors import ParityError, WeightsError
from common.formats import sandbox
from common.formats.heads import without_auxiliary
from common.formats.identify import Known
from common.formats.naming import SUFFIXES
from common.formats.parts import nothing_under, parts
from common.formats.readers.base import File
from common.spec import Spec, find
from common.weights import Weights, is_scale, norm_name, not_finite, shapes

TOLERANCE = 1e-4  #: of the logits in float32, relative to the largest


@dataclass
class Own:
    """A user's network that is proved to be the function of a spec."""

    process: Process
    match: Match
    target: str
    side: int  #: of the images that it takes

    @property
    def spec(self) -> Spec:
        """The spec, with the network's channels and classes; without heads that it does not run."""
        fitted, found = self.match.spec, find(self.match.base.name)
        if not fitted.auxiliary:
            found = next(without_auxiliary(found), replace(found, auxiliary=()))
        return found.at(
            channels=fitted.input[0],
            classes=fitted.head.width,
            eps=fitted.norm.eps if fitted.norm else None,
        )

    def number(self, name: str) -> int | None:
        """The number of the user's tensor for a canonical name; None if there is none."""
        layer, _, leaf = name.rpartition(".")
        found = self.match.layers.get(layer)
        return None if found is None else found.leaves.get(leaf)

    def write(self, weights: Weights) -> list[str]:
        """Put canonical weights into the network; the answer is what was changed for that.

        WeightsError if the network has no tensor for one.
        """
        given, notes = dict(weights), []
        lacking = [
            name
            for name, array in weights.items()
            if self.number(name) is None and not (is_scale(name) and (array == 1).all())
        ]
        for name in lacking:
            layer, _, leaf = name.rpartition(".")
            mean = f"{norm_name(layer)}.running_mean"
            if leaf != "bias" or self.number(mean) is None:
                raise WeightsError(f"{self.target} has no tensor for {name}.")
            given[mean] = given[mean] - given.pop(name)  # the norm subtracts it after the bias
        folded = sum(bool(weights[name].any()) for name in lacking)
        if folded:
            notes.append(
                f"{folded} biases went into the running means of the norms behind them, because "
                "the network has no bias there: the same function in evaluation."
            )
        found = self.process.shapes()
        extra = {  # biases that the spec has not
            layer.leaves["bias"]: np.zeros(found[layer.leaves["bias"]])
            for name, layer in self.match.layers.items()
            if "bias" in layer.leaves and f"{name}.bias" not in weights
        }
        numbered = {self.number(name): array for name, array in given.items()}
        self.process.write({**extra, **{n: a for n, a in numbered.items() if n is not None}})
        return notes

    def read(self) -> tuple[Weights, list[str]]:
        """The canonical weights, float32, and what was changed for that.

        A bias that the network has not is 0, a norm's scale 1.
        """
        arrays, found, notes = self.process.read(), Weights(), list[str]()
        for name, shape in shapes(self.spec).items():
            number = self.number(name)
            fill = np.full(shape, float(is_scale(name)))
            array = fill if number is None else arrays[number].reshape(shape)
            found[name] = np.ascontiguousarray(array.astype(np.float32))
        for name, layer in self.match.layers.items():
            mean = f"{norm_name(name)}.running_mean"
            if "bias" in layer.leaves and f"{name}.bias" not in found and mean in found:
                less = found[mean] - arrays[layer.leaves["bias"]].ravel()
                found[mean] = less.astype(np.float32)
                notes = ["The biases before the norms are subtracted from their running means."]
        return found, notes

    def compare(self, weights: Weights, x: np.ndarray) -> dict[str, Any]:
        """The network's logits of x beside the reference's; ParityError if they differ."""
        events = of(self.process, x.astype(np.float32))
        head = events.layers[events.layer_at[self.match.layers["head"].event]]
        _, _, got = order_outputs(events, {"head": head})[0]
        want = GoogLeNet(self.spec, weights).forward(x.astype(np.float64))["head"]
        got, failed = aligned(got, want), "Nothing was written"
        return compared("the reference", want, self.target, got, TOLERANCE, failed)


@contextmanager
def opened(target: str, backend: str, spec: Spec | None, python: str | None) -> Iterator[Own]:
    """A user's network in its process, once it is proved to be the function of a spec.

    UserError if it does not run; ParityError if it is another function.
    """
    with Process(target, backend, python, dtype="float32") as process:
        channels, side = open_with(process.open, spec, None)
        process.require_weights()
        checker = Checker(process, spec, None, lambda words: None)
        report = checker.run(channels, side)
        if not report.same:
            found = [*report.structure, *report.findings, *report.elsewhere]
            first = f": {found[0].name}, {found[0].sentence()}" if found else ""
            words = f"{target} --backend {backend} --spec {report.spec}"
            words += f" --python {python}" if python else ""
            raise ParityError(
                f"{target} is another function than {report.spec}{first}. `googlenet check {words}`"
                " says more."
            )
        yield Own(process, checker.fitted[report.spec][0], target, side)


def read_into(process: Process, path: Path, key: str | None = None) -> File:
    """Read a file into a user's network. Our own reader comes first: it trusts no file.

    `key` chooses one of several dicts in the file. WeightsError if there is none of that name;
    UserError if the network cannot take the weights.
    """
    file = sandbox.read_file(path)
    if process.backend == "tf":
        if key:
            raise WeightsError(f"{path} is read by Keras, which knows no `--key`: leave it out.")
        process.put(path=str(path.resolve()))
        return file
    part = next(parts(file, key), None)
    if part is None:
        raise WeightsError(nothing_under(str(path), key, file))
    process.put(arrays=part.file.arrays)
    return part.file


def known_from(own: Own, source: Path, key: str | None) -> tuple[File, Known]:
    """The weights of a file that a user's network reads, and the file as our reader sees it.

    WeightsError if the network leaves out heads that no spec is without.
    """
    if not own.spec.auxiliary and find(own.spec.name).auxiliary:
        raise WeightsError(
            f"{own.target} returns no auxiliary heads in evaluation, and {own.spec.name} has them: "
            "let it return them."
        )
    file = read_into(own.process, source, key)
    weights, notes = own.read()
    if any(array.dtype == np.float64 for array in file.arrays.values()):
        notes.append("The weights are rounded to float32, as the network has them.")
    names = f"the names of {own.target}"
    return file, Known(own.spec, names, weights, notes=tuple(notes), eps="your network's")


def save_into(own: Own, known: Known, written: Path, x: np.ndarray) -> tuple[Known, dict[str, Any]]:
    """Put weights into a user's network and let it write its file; it is read again and run.

    WeightsError if the network takes other images or has other classes.
    """
    if odd := not_finite(known.weights):
        raise WeightsError(
            f"{odd[0]} holds NaN or infinity, so nothing can be proved: nothing was written."
        )
    for what, theirs, ours in (
        ("input channels", own.match.spec.input[0], known.spec.input[0]),
        ("classes", own.match.spec.head.width, known.spec.head.width),
    ):
        if theirs != ours:
            raise WeightsError(f"{own.target} has {theirs} {what}, and the weights are for {ours}.")
    if known.spec.auxiliary and not own.match.spec.auxiliary:
        known = replace(
            known,
            weights={n: a for n, a in known.weights.items() if not n.startswith("auxiliary.")},
            notes=(*known.notes, "The auxiliary heads are left out: the network runs none."),
        )
    if known.weights["head.weight"].dtype != np.float32:
        known = replace(
            known,
            weights={n: a.astype(np.float32) for n, a in known.weights.items()},
            notes=(*known.notes, "The weights are rounded to float32, as the network has them."),
        )
    notes = own.write(known.weights)
    before = own.process.read()
    own.process.save(str(written))
    own.process.write({n: np.zeros_like(array) for n, array in enumerate(before)})
    file = read_into(own.process, written)
    if (rest := len(file.arrays) - len(before)) > 0:
        notes.append(
            f"{rest} tensors of your network do not run in evaluation: the file has its initial "
            "values for them."
        )
    for one, other in zip(before, own.process.read(), strict=True):
        if not np.array_equal(one, other, equal_nan=True):
            raise WeightsError("A tensor changed when the file was read back: nothing was written.")
    check = own.compare(known.weights, x)
    return replace(known, notes=(*known.notes, *notes)), check


def require_suffix(path: Path, backend: str, option: str) -> None:
    """WeightsError unless the path ends as this framework's files do."""
    endings = tuple(suffix for suffix, form in SUFFIXES.items() if form == backend)
    if not path.name.endswith(endings):
        raise WeightsError(
            f"{path}: with `{option}` and {FRAMEWORKS[backend]} it must end in "
            f"{' or '.join(endings)}."
        )
