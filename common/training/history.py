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
    """What one epoch came to. Losses are means in nats; the training ones while it went on."""

    number: int  #: from 1
    loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    examples: int
    seconds: float  #: of training alone
    wait: float  #: seconds of these that the step waited for images
    backend: str
    version: str  #: of the framework
    device: str
    places: dict[str, list[str]]  #: where the tensors of the last step really lay
    losses: tuple[float, ...]  #: of every step


def speed(epochs: Sequence[Epoch]) -> float:
    """Training examples in a second of training, over all these epochs."""
    return sum(epoch.examples for epoch in epochs) / sum(epoch.seconds for epoch in epochs)


def signed(fields: dict[str, Any]) -> dict[str, Any]:
    """The same with a short digest of them."""
    digest = hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:16]
    return {**fields, "sha256": digest}


def epoch_from(found: dict[str, Any]) -> Epoch:
    """An epoch from what `json` read."""
    return Epoch(**{**found, "losses": tuple(found["losses"])})


def read_history(path: Path) -> list[Epoch]:
    """The epochs in a `history.jsonl`; RunError, with the line, for what is no history.

    A line is the epoch of its number, with its digest; what is cut off between lines is not missed.
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
                f"{path}, line {number}, is no epoch: `--resume` writes the file anew from the "
                "last checkpoint."
            ) from error
    return epochs
