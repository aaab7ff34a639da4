"""`--expect`: compares a converted network with logits that the user's own program computed.

The reference computes the logits. If they differ, it also tries what weights do not tell: the other
usual eps, the other specs with the same tensors, and probabilities instead of logits.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backends.numpy import GoogLeNet
from common.errors import ParityError, SpecError, WeightsError
from common.files import read_ordinary
from common.formats.assumptions import DEFAULTS
from common.formats.identify import Known
from common.formats.readers.base import Unreadable
from common.formats.readers.npz import npy
from common.spec import Spec, find
from common.spec.arithmetic import layers
from common.weights import Weights

TOLERANCE = 1e-4  #: relative to the largest logit; a GPU may compute in a shorter format
MOST = 2**28  #: bytes of a file
BATCH = 8  #: images that the reference runs at once
KINDS = ("float16", "float32", "float64", "uint8")


@dataclass(frozen=True)
class Expected:
    """Inputs of a network, float64 (N, C, H, W) or (N, H, W, C), and its logits (N, classes)."""

    images: np.ndarray
    logits: np.ndarray
    names: tuple[str, str]

    @classmethod
    def read(cls, images: Path, logits: Path) -> Expected:
        """Read two `.npy` files; WeightsError if they are not such arrays."""
        x, y = array(images, 4), array(logits, 2)
        if len(x) != len(y):
            raise WeightsError(
                f"{images} holds {len(x)} images and {logits} {len(y)} rows of logits: give one "
                "row for each image."
            )
        return cls(x, y, (str(images), str(logits)))

    def compare(self, known: Known, made: Known, source: str) -> dict[str, Any]:
        """The largest difference; ParityError, with what fits better, if it is too large."""
        classes = known.spec.head.width
        if self.logits.shape[1] != classes:
            raise WeightsError(
                f"{self.names[1]} has {self.logits.shape[1]} columns, and the network has "
                f"{classes} classes."
            )
        x = self.inputs(known.spec)
        largest = float(np.abs(self.logits).max())
        difference = self.difference(made.spec, made.weights, x)
        if difference <= TOLERANCE * largest:
            return {"images": len(x), "difference": difference, "largest": largest}
        trials = []
        for spec, words in alternatives(known):
            with suppress(WeightsError):  # one that refuses images of this size
                trials.append((self.difference(spec, known.weights, x), words))
        text = (
            f"{source} gives other logits than {self.names[1]}: they differ by {difference:.1e}, "
            f"and the largest is {largest:.1e}"
        )
        best = min(trials, default=(np.inf, ""))
        if best[0] <= TOLERANCE * largest:
            raise ParityError(f"{text}; with {best[1]} they differ by {best[0]:.1e}: use it.")
        probabilities = self.difference(made.spec, made.weights, x, softmax=True)
        if probabilities <= TOLERANCE * largest:
            raise ParityError(f"{text}; yours are probabilities: give the logits before softmax.")
        raise ParityError(
            f"{text}: another padding (TensorFlow's 'same' at even sizes), another scale of the "
            "input, or training mode are the usual reasons."
        )

    def inputs(self, spec: Spec) -> np.ndarray:
        """The images as (N, C, H, W); WeightsError if they have other channels than the network."""
        channels = spec.input[0]
        if self.images.shape[1] == channels:
            return self.images
        if self.images.shape[3] == channels:
            return self.images.transpose(0, 3, 1, 2)
        raise WeightsError(
            f"{self.names[0]} has the shape {self.images.shape}, and the network takes images of "
            f"{channels} channel(s): (N, {channels}, height, width)."
        )

    def difference(
        self, spec: Spec, weights: Weights, x: np.ndarray, softmax: bool = False
    ) -> float:
        """The largest difference from the expected logits; WeightsError if x does not fit."""
        try:
            layers(replace(spec, input=x.shape[1:]))
        except SpecError as error:
            raise WeightsError(f"{self.names[0]} does not fit the network: {error}") from error
        network, starts = GoogLeNet(spec, weights), range(0, len(x), BATCH)
        logits = np.concatenate([network.forward(x[at : at + BATCH])["head"] for at in starts])
        if softmax:
            powers = np.exp(logits - logits.max(1, keepdims=True))
            logits = powers / powers.sum(1, keepdims=True)
        found = float(np.abs(logits - self.logits).max())
        return found if np.isfinite(found) else np.inf


def alternatives(known: Known) -> Iterator[tuple[Spec, str]]:
    """Other networks with the same weights, each with the option that chooses it."""
    sizes = {"channels": known.spec.input[0], "classes": known.spec.head.width}
    specs = [known.spec, *(find(name).at(**sizes) for name in known.also)]
    for spec in specs:
        option = "" if spec is known.spec else f"`--spec {spec.name}`"
        if option:
            yield spec, option
        for eps in DEFAULTS.values() if spec.norm else ():
            words = f"`--eps {eps:g}`"
            yield spec.at(eps=eps), f"{option} and {words}" if option else words


def array(path: Path, axes: int) -> np.ndarray:
    """The numbers in a `.npy` file as float64; WeightsError for anything else."""
    try:
        found = npy(read_ordinary(path, MOST))
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror or error}).") from error
    except (ValueError, Unreadable, struct.error) as error:
        raise WeightsError(f"{path} is not a .npy file of numbers.") from error
    if not isinstance(found, np.ndarray) or found.dtype.name not in KINDS or found.ndim != axes:
        raise WeightsError(f"{path} is not an array of numbers with {axes} axes.")
    if not len(found) or not np.isfinite(found).all():
        raise WeightsError(f"{path} is empty, or holds NaN or infinity.")
    return found.astype(np.float64)
