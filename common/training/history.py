"""The history of a run: one line for each epoch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import RunError
from common.files import read_ordinary
from common.training.fields import listed, named, number, parse, plain, whole

LARGEST = 2**28  #: bytes of a history; one of three million steps has a quarter of them
MOST = 2**31  #: epochs, steps and examples that a run can have
NAME = "history.jsonl"  #: of the file in a run's folder
ROUNDING = 1e-3  #: what an accuracy may exceed 1 by, because workers sum shares in float32


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


def epoch_from(found: Any) -> Epoch:
    """Return an epoch from parsed JSON; ValueError that names the first field that is wrong."""
    found = named(Epoch, found, "epoch")
    whole("number", found["number"], 1, MOST)
    whole("examples", found["examples"], 1, MOST)
    for name in ("loss", "test_loss"):
        number(name, found[name])
    for name in ("train_accuracy", "test_accuracy"):
        number(name, found[name], 0, 1 + ROUNDING)
    if number("seconds", found["seconds"], 0) == 0:
        raise ValueError("its seconds are 0")
    number("wait", found["wait"], 0)
    for name in ("backend", "version", "device"):
        plain(name, found[name])
    places_from(found["places"])
    losses = losses_from(found["losses"])
    if not losses:
        raise ValueError("its losses are empty")
    return Epoch(**{**found, "losses": tuple(losses)})


def places_from(found: Any) -> dict[str, list[str]]:
    """Return the devices of tensors from parsed JSON; ValueError if it is something else."""
    if not isinstance(found, dict):
        raise ValueError("its places are not an object with fields")
    for name, devices in found.items():
        plain("places", name)
        for device in listed("places", devices, 1000):
            plain("places", device)
    return found


def losses_from(found: Any) -> list[float]:
    """Return the losses of an epoch from parsed JSON; ValueError if one is not a finite number."""
    return [number("losses", loss) for loss in listed("losses", found, MOST)]


def read_history(path: Path) -> list[Epoch]:
    """Return the epochs in a `history.jsonl`; RunError with the line number if one is invalid.

    Line N holds epoch N and its digest. Missing lines at the end are not detected.
    """
    try:
        lines = read_ordinary(path, LARGEST).decode().splitlines()
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise RunError(f"{path} cannot be read (it is not UTF-8).") from error
    epochs = []
    for line_number, line in enumerate(lines, 1):
        try:
            found = parse(line)
            digest = found.pop("sha256")
            if digest != signed(found)["sha256"]:
                raise ValueError("it is damaged")
            epoch = epoch_from(found)
            if epoch.number != line_number:
                raise ValueError(f"it is epoch {epoch.number}")
            epochs.append(epoch)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            if path.name != NAME:
                raise RunError(
                    f"{path} is not the history of a run: its line {line_number} is not an epoch."
                ) from error
            reason = str(error) if type(error) is ValueError else "it is damaged"
            raise RunError(
                f"{path}, line {line_number}, is not a valid epoch ({reason}): `--resume` rewrites "
                "the file from the last checkpoint."
            ) from error
    return epochs
