"""What users call: `check_file` for a network in a file, `assert_same` for a live one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from common.check.against import Against
from common.check.checker import Checker, Progress
from common.check.process import Live, Process, UserError, backend_of, tracer
from common.check.report import Report
from common.check.training import TrainingCheck
from common.formats import sandbox
from common.formats.identify import identify
from common.recipe import Recipe
from common.spec import Spec, find
from common.weights import Weights


def check_file(
    target: str,
    backend: str,
    spec: str | None = None,
    size: int | None = None,
    python: str | None = None,
    say: Progress = lambda words: None,
    weights: Path | None = None,
    step: str | None = None,
    recipe: Recipe | None = None,
    key: str | None = None,
    eps: float | None = None,
) -> Report:
    """Check a network `FILE.py:NAME` of a backend, in a process of its own.

    `weights` is a file of weights that the network should have; any format that `convert` reads.
    `key` chooses one of several dicts in it, `eps` is that of its norms.
    `step` is the name of a function in the same file: of the network it makes a training step,
    which takes images, labels and, if it wants, a rate. Three of its steps are compared with the
    textbook rules, and with a recipe's if one is given.
    """
    known = None
    if weights:
        known = identify(sandbox.read_file(weights), spec, str(weights), key, eps)
    asked = known.spec if known else find(spec) if spec else None
    with Process(target, backend, python, step=step) as process:
        say(f"{target} is loaded")
        channels, side = open_with(process.open, asked, size)
        checker = Checker(process, asked, size, say, known.weights if known else None)
        report = checker.run(channels, side)
        report.target, report.backend, report.version = target, backend, process.version
        if step:
            say("three training steps")
            check_training(process, checker, report, step, recipe)
        return report


def check_training(
    process: Process, checker: Checker, report: Report, step: str, recipe: Recipe | None
) -> None:
    """Compare the training step of a network that was just checked."""
    at_end = [finding.name for finding in report.findings] == ["softmax-at-end"]
    if not report.function_same and not (at_end and report.outcome == "differs"):
        report.notes.append("The training step was not compared: mend the network first.")
        return
    match, weights = checker.fitted[report.spec]
    size = min(report.sizes[0], checker.opened)
    try:
        found = TrainingCheck(process, match, size, weights, recipe).run(step)
    except UserError as error:
        right = "" if at_end else f"Your network is {report.spec}'s function. "
        raise UserError(f"{right}{error}") from error
    found.recipe = recipe.name if recipe else ""
    report.training = found
    wrong = {"double-softmax", "from-logits"} & {each.name for each in found.findings}
    if at_end and found.rule and not wrong:
        words = report.findings[0].words
        report.findings, report.plain = [], report.residual  # the reference has the softmax too
        report.notes.append(
            f"Your network ends in a {words['theirs']} and your loss takes {words['what']}: "
            "together they are right."
        )


def check_against(
    target: str,
    backend: str,
    other: str,
    other_backend: str,
    size: int | None = None,
    python: str | None = None,
    other_python: str | None = None,
    say: Progress = lambda words: None,
) -> Report:
    """Compare a network with another one, each in a process of its own; `other` is the measure."""
    with (
        Process(target, backend, python) as process,
        Process(other, other_backend, other_python, option="--against-python") as first,
    ):
        say("both networks are loaded")
        channels, side = open_with(first.open, None, size)
        images = np.random.RandomState(1).uniform(0, 1, (2, channels, side, side))
        process.open(images.astype(np.float32))
        report = Against(first, process, say).compare_networks(channels, side)
        larger = next((s for s in SIDES if s > side), None)
        if report.warnings and larger and not size:
            with suppress(UserError):  # a network that does not take it
                report = Against(first, process, say).compare_networks(channels, larger)
        report.target, report.backend, report.version = target, backend, process.version
        report.spec = f"{other} ({other_backend} {first.version})"
        report.reference = "the other network"
        return report


def check_live(
    net: Any,
    backend: str | None = None,
    spec: Spec | str | None = None,
    size: int | None = None,
    weights: Weights | None = None,
) -> Report:
    """Check a live network, its class or a function that makes it, in this process.

    `weights` are canonical weights that the network should have.
    """
    name = backend or backend_of(net)
    asked = find(spec) if isinstance(spec, str) else spec
    opened: list[Live] = []

    def start(x: np.ndarray) -> None:
        try:
            opened[:] = [Live(net, name, x, os.getcwd())]
        except Exception as error:
            raise UserError(
                f"The network cannot be run: {type(error).__name__}: {error}"
            ) from error

    channels, side = open_with(start, asked, size)
    try:
        report = Checker(opened[0], asked, size, lambda words: None, weights).run(channels, side)
    finally:
        opened[0].close()
    report.target = getattr(net, "__name__", type(net).__name__)
    report.backend, report.version = name, tracer(name).VERSION
    return report


def assert_same(
    net: Any,
    spec: Spec | str | None = "d2l",
    size: int | None = None,
    backend: str | None = None,
) -> None:
    """AssertionError with the diagnosis, unless a live network is the spec's function.

    `net` is a network of any of the four frameworks, its class or a function that makes it. Its
    weights are as they were afterwards. `size` is the height and width of the images, the spec's
    own if None; `spec` None finds the closest spec. Only a function needs its `backend`.
    """
    __tracebackhide__ = True
    report = check_live(net, backend, spec, size)
    if not report.same:
        raise AssertionError("\n" + report.text())


SIDES = (224, 33, 299)  #: the image sizes that are tried beside the first one, in this order

#: how Keras says which size a network takes
KERAS_SIZE = re.compile(r"expected shape=\(\w+, (\d+), \1, \d+\)")


def open_with(
    start: Callable[[np.ndarray], Any], asked: Spec | None, size: int | None
) -> tuple[int, int]:
    """Find the channels and the size that the network accepts; its own errors if there are none."""
    errors: dict[int, UserError] = {}  # the first with each number of channels
    sides = [size] if size else [asked.input[1] if asked else 96]
    sides += [] if size else [s for s in SIDES if s not in sides]
    for side in sides:
        for channels in dict.fromkeys((asked.input[0] if asked else 1, 1, 3)):
            x = np.random.RandomState(1).uniform(0, 1, (2, channels, side, side))
            try:
                start(x.astype(np.float32))
                return channels, side
            except UserError as error:
                errors.setdefault(channels, error)
                own = KERAS_SIZE.search(str(error))
                if own and not size and int(own[1]) not in sides:
                    sides.append(int(own[1]))
    first = next(iter(errors.values()))
    tried = f"Images of {', '.join(f'{side}x{side}' for side in sides)} were tried."
    if len({str(error) for error in errors.values()}) == 1:
        raise UserError(f"{str(first).rstrip('.')}. {tried}") from first
    each = (f"with {channels} channel(s), {str(e).rstrip('.')}" for channels, e in errors.items())
    raise UserError(f"The network runs on no images: {'; '.join(each)}. {tried}") from first
