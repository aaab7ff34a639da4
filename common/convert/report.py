"""What `googlenet convert` did, as data and as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from common.errors import ParityError


@dataclass(frozen=True)
class Converted:
    """What was read, what was written, and the difference between source and destination."""

    source: str
    destination: str
    format: str  #: of the source
    stored: str  #: the dtypes in it
    names: str  #: the naming that it uses, in words
    spec: str
    also: tuple[str, ...]  #: other specs with the same tensors; only `--spec` can choose one
    channels: int
    classes: int
    tensors: int
    dtype: str  #: of the destination
    sha256: str  #: of the canonical weights, the same in both files
    not_finite: tuple[str, ...]  #: the canonical names of the tensors that hold NaN or infinity
    eps: float | None  #: of the norms in the destination
    assumed: list[str]  #: what the weights do not tell
    notes: list[str]  #: what was changed or left out
    expected: dict[str, Any] | None  #: the difference from the user's own logits
    check: dict[str, Any] | None  #: what ran the two files, and their largest difference


def render(found: Converted) -> str:
    """The result as text."""
    widened = "" if found.stored == found.dtype else f" (held as {found.stored})"
    text = (
        f"{found.source}: {found.format} with {found.names}, network {found.spec}, "
        f"{found.channels} channel(s), {found.classes} classes, {found.dtype}{widened}\n"
        f"{found.destination}: written, read again: {found.tensors} tensors, the same bits, "
        f"SHA-256 {found.sha256}"
    )
    text += "".join(f"\n{note}" for note in found.notes)
    text += "\nassumed, because weights do not tell:"
    text += "".join(f"\n  {line}" for line in found.assumed)
    if found.not_finite:
        text += (
            f"\nwarning: {len(found.not_finite)} tensors hold NaN or infinity, the first is "
            f"{found.not_finite[0]}: the network computes nothing useful with them."
        )
    if found.expected:
        text += (
            f"\nexpected: on {found.expected['images']} images the logits differ from yours by at "
            f"most {found.expected['difference']:.1e}, the largest is "
            f"{found.expected['largest']:.1e}"
        )
    if found.check is None:
        return text
    return (
        f"{text}\ncheck: {found.check['source']} and {found.check['destination']} on "
        f"{found.check['images']} images: logits differ by at most "
        f"{found.check['difference']:.1e}, the largest is {found.check['largest']:.1e}"
    )


def compared(
    source: str, first: Any, destination: str, second: Any, tolerance: float, failed: str
) -> dict[str, Any]:
    """The difference between the logits of both ends; ParityError if it is too large.

    `tolerance` is relative to the largest logit; `failed` begins the error.
    """
    want = first.astype(np.float64)
    largest, difference = float(np.abs(want).max()), float(np.abs(want - second).max())
    if not difference <= tolerance * largest:
        raise ParityError(
            f"{failed}: {source} and {destination} give logits that differ by {difference:.1e}, "
            f"and the largest logit is {largest:.1e}."
        )
    return {
        "source": source,
        "destination": destination,
        "images": len(first),
        "difference": difference,
        "largest": largest,
    }
