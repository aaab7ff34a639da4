"""Compares two tensors, and identifies the simple step that turns one into the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from common.check.edits import variants
from common.check.graph import ACTIVATIONS, Array, Node, Params, compute

SAMPLE = 3  #: channels that a trial computes first
FEWEST = 12  #: values that a fitted scale and shift need, to prove something


def error(got: Array, want: Array) -> float:
    """The largest difference over the largest wanted value; inf for other shapes and for NaN."""
    got = aligned(got, want)
    if got.shape != want.shape or not want.size:
        return float("inf")
    difference = float(np.max(np.abs(got - want)))
    scale = float(np.max(np.abs(want)))
    found = difference / scale if scale else (0.0 if not difference else float("inf"))
    return found if found >= 0 else float("inf")


def aligned(a: Array, b: Array) -> Array:
    """`a` in the shape of `b`, if only axes of length 1 or a flattening differ."""
    fits = a.shape != b.shape and a.size == b.size and a.shape[:1] == b.shape[:1]
    return a.reshape(b.shape) if fits and 2 in (a.ndim, b.ndim) else a


def identify(x: Array, y: Array, tolerance: float) -> tuple[str, Params] | None:
    """The step that turns x into y, if it is a simple one: activation, scale, dropout or pool."""
    if x.shape == y.shape:
        scale = float(np.max(np.abs(y))) or 1.0

        def agrees(z: Array) -> bool:
            return float(np.max(np.abs(z - y))) <= tolerance * scale

        for fn, function in ACTIVATIONS.items():
            if fn != "none" and agrees(function(x)):
                return "act", {"fn": fn}
        for kind in (_scaled, _masked, _clipped, _reordered):
            if step := kind(x, y, agrees):
                return step
    if x.ndim == y.ndim == 4 and x.shape[:2] == y.shape[:2]:
        plain = {
            "kernel": (3, 3),
            "stride": (1, 1),
            "pad": (1, 1, 1, 1),
            "fill": "-inf",
            "ceil": False,
            "fn": "max",
        }
        node = Node("pool", "pool", (), plain)
        for p in (plain, *variants(node, x.shape, y.shape)):
            try:
                small = compute(replace(node, p=p), [x[:, :SAMPLE]], {})
            except ValueError:
                continue
            near = small.shape == y[:, :SAMPLE].shape and error(small, y[:, :SAMPLE]) <= tolerance
            if near and error(compute(replace(node, p=p), [x], {}), y) <= tolerance:
                return "pool", p
    return None


def affine(x: Array, y: Array, tolerance: float) -> Params | None:
    """The scale and shift of each channel that turn x into y."""
    scale = float(np.max(np.abs(y))) or 1.0
    found = _scaled(x, y, lambda z: float(np.max(np.abs(z - y))) <= tolerance * scale)
    return found[1] if found else None


def _scaled(x: Array, y: Array, agrees: Callable[[Array], bool]) -> tuple[str, Params] | None:
    """y = a x + b, with one pair for all values or one for each channel."""
    channels = x.shape[1]
    flat, other = (np.moveaxis(a, 1, 0).reshape(channels, -1) for a in (x, y))
    for one in (True, False):
        a, b = (flat.reshape(1, -1), other.reshape(1, -1)) if one else (flat, other)
        spread = a - a.mean(1, keepdims=True)
        power = (spread**2).sum(1)
        if not np.all(power > 0) or a.shape[1] < FEWEST:
            return None
        scale = (spread * b).sum(1) / power
        shift = b.mean(1) - scale * a.mean(1)
        shift[np.abs(shift) < 1e-12 * np.abs(b).max()] = 0
        if not np.all(scale):
            return None
        scale, shift = np.broadcast_to(scale, channels), np.broadcast_to(shift, channels)
        shape = (1, -1, *(1,) * (x.ndim - 2))
        if agrees(x * scale.reshape(shape) + shift.reshape(shape)):
            return "affine", {"scale": scale.tolist(), "shift": shift.tolist()}
    return None


def _clipped(x: Array, y: Array, agrees: Callable[[Array], bool]) -> tuple[str, Params] | None:
    """y = x, but for an end at a lowest and a highest value."""
    low, high = float(y.min()), float(y.max())
    if np.count_nonzero((x > low) & (x < high)) < FEWEST or not agrees(np.clip(x, low, high)):
        return None
    return "clip", {"low": low, "high": high}


def _reordered(x: Array, y: Array, agrees: Callable[[Array], bool]) -> tuple[str, Params] | None:
    """The channels in another order, or height and width exchanged."""
    if x.ndim != 4:
        return None
    if x.shape[2] == x.shape[3] and agrees(x.swapaxes(2, 3)):
        return "turn", {}
    ours, theirs = (np.argsort(a.sum((0, 2, 3)), kind="stable") for a in (x, y))
    order = ours[np.argsort(theirs)]
    return ("channels", {"order": order.tolist()}) if agrees(x[:, order]) else None


def _masked(x: Array, y: Array, agrees: Callable[[Array], bool]) -> tuple[str, Params] | None:
    """y = m x, where m is 0 at some places and one number elsewhere: dropout."""
    kept = (y != 0) & (x != 0)
    gone = (y == 0) & (x != 0)
    if not kept.any() or not gone.any():
        return None
    factor = float(np.median(y[kept] / x[kept]))
    mask = np.where(gone, 0.0, factor)
    return ("mask", {"mask": mask}) if factor > 0 and agrees(x * mask) else None
