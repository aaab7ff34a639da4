"""What users call: `check_file` for a network in a file."""

from __future__ import annotations

import numpy as np

from common.check.checker import Checker, Progress
from common.check.process import Process, UserError
from common.check.report import Report
from common.spec import find


def check_file(
    target: str,
    backend: str,
    spec: str | None = None,
    size: int | None = None,
    python: str | None = None,
    say: Progress = lambda words: None,
) -> Report:
    """Check a network `FILE.py:NAME` of a backend, in a process of its own."""
    asked = find(spec) if spec else None
    with Process(target, backend, python) as process:
        say(f"{target} is loaded")
        channels, side = open_with(process, asked, size)
        checker = Checker(process, spec, size, say)
        report = checker.run(channels, side)
        report.target, report.backend, report.version = target, backend, process.version
        return report


def open_with(process: Process, asked, size: int | None) -> tuple[int, int]:  # type: ignore[no-untyped-def]
    """Find the channels and the size that the network accepts; its own error if there are none."""
    first: UserError | None = None
    sides = [size] if size else [asked.input[1] if asked else 96]
    sides += [] if size else [s for s in (224, 33, 299) if s not in sides]
    for side in sides:
        for channels in dict.fromkeys((asked.input[0] if asked else 1, 1, 3)):
            x = np.random.RandomState(1).uniform(0, 1, (2, channels, side, side))
            try:
                process.open(x.astype(np.float32))
                return channels, side
            except UserError as error:
                first = first or error
    assert first is not None
    raise first
