"""The history of a run: one line for each epoch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from common.errors import RunError, one_line


@dataclass(frozen=True)
class Epoch:
    """The results of one epoch.

    Losses are means in nats. Training loss and accuracy are measured during the epoch.
    """

    number: int  #: from 1
    loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    examples: int
    seconds: float  #: of training, without evaluation
    wait: float  #: part of `seconds` spent waiting for images
    backend: str
    version: str  #: the framework's version
    device: str
    places: dict[str, list[str]]  #: devices of the last step's tensors, as measured
    losses: tuple[float, ...]  #: of each step


def speed(epochs: Sequence[Epoch]) -> float:
    """Return training examples per second of training, over all epochs."""
    return sum(epoch.examples for epoch in epochs) / sum(epoch.seconds for epoch in epochs)


def signed(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with a short digest of them added."""
    digest = hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:16]
    return {**fields, "sha256": digest}


def epoch_from(found: dict[str, Any]) -> Epoch:
    """Return an epoch from parsed JSON."""
    return Epoch(**{**found, "losses": tuple(found["losses"])})


def read_history(path: Path) -> list[Epoch]:
    """Return the epochs in a `history.jsonl`; RunError with the line number if one is invalid.

    Line N holds epoch N and its digest. Missing lines at the end are not detected.
    """
    known = {each.name for each in fields(Epoch)}
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read ({one_line(error)}).") from error
    epochs = []
    for number, line in enumerate(lines, 1):
        try:
            found = json.loads(line)
            digest = found.pop("sha256")
            if set(found) != known or found["number"] != number:
                raise ValueError("other fields")
            if digest != signed(found)["sha256"]:
                raise ValueError("damaged")
            epochs.append(epoch_from(found))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise RunError(
                f"{path}, line {number}, is not a valid epoch: `--resume` rewrites the file from "
                "the last checkpoint."
            ) from error
    return epochs
