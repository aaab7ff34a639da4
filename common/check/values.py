"""Compares the weights that a user's network has with those of a file: what a converter did."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import numpy as np

from common.check.graph import Array
from common.check.report import Finding
from common.check.steps import error
from common.weights import Weights

EQUAL = 1e-6  #: float32 rounds to 6e-8
ROUNDED = 2**-8  #: what float16 or bfloat16 on the way leaves of each value
SMALLEST = 2**-24  #: float16's
AXES = {4: ("out", "in", "height", "width"), 2: ("out", "in")}


def compare(own: Weights, want: Weights, lines: dict[str, str]) -> list[Finding]:
    """The tensors that differ, by what became of them; `lines` are the user's, by name."""
    found: dict[tuple[str, str], Finding] = {}
    for name, array in own.items():
        if name not in want or error(array, want[name]) <= EQUAL:
            continue
        kind, words = became(name, array, want)
        key = kind, str(words)
        finding = found.setdefault(key, Finding(kind, words, [], lines.get(name, "")))
        finding.places.append(name)
    return list(found.values())


def became(name: str, got: Array, weights: Weights) -> tuple[str, dict[str, Any]]:
    """What became of a tensor on its way: a mistake's name, and the fields of its words."""
    want = weights[name]
    if name.endswith(".bias") and not np.any(got):
        return "missing-bias", {"theirs": ": it was left at zero"}
    if got.shape == want.shape and want.ndim > 1:
        for axes, layout in layouts(want):
            if error(got, layout) <= EQUAL:
                if name.endswith("head.weight"):
                    return "transposed-head", {}
                order = ", ".join(AXES[want.ndim][i] for i in axes)
                return "other-weights", {
                    "theirs": f"the weight was reshaped, not transposed: it lies as ({order})"
                }
    for other, array in weights.items() if np.any(got) else ():
        if other != name and array.shape == got.shape and error(got, array) <= EQUAL:
            return "other-weights", {"theirs": f"it holds the values of {other}"}
    return "other-weights", {"theirs": difference(got, want)}


def layouts(want: Array) -> Iterator[tuple[tuple[int, ...], Array]]:
    """The tensor in other orders of its axes, reshaped to its own shape."""
    for axes in permutations(range(want.ndim)):
        if axes != tuple(range(want.ndim)):
            yield axes, want.transpose(axes).reshape(want.shape)
            yield axes, want.reshape([want.shape[i] for i in axes]).transpose(np.argsort(axes))


def difference(got: Array, want: Array) -> str:
    """How the values of a tensor differ, in words."""
    if not np.any(got):
        return "it was left at zero"
    if got.shape == want.shape and want.ndim == 4:
        for axes, words in (((2, 3), "by 180 degrees"), ((2,), "upside down"), ((3,), "sideways")):
            if error(got, np.flip(want, axes)) <= EQUAL:
                return f"the kernels are turned {words}"
    if got.shape == want.shape and np.any(want):
        factor = float((got * want).sum() / (want**2).sum())
        if abs(factor - 1) > EQUAL and error(got, factor * want) <= EQUAL:
            return f"it is multiplied by {factor:.6g}"
        off = got - want
        if np.all(np.abs(off) <= ROUNDED * np.abs(want) + SMALLEST):
            return f"it is rounded, off by {error(got, want):.0e}: float16 or bfloat16 on the way?"
        if off.size > 1 and np.ptp(off) <= EQUAL * np.max(np.abs(want)):
            return f"{off.mean():.6g} is added to it"
    same = got.size == want.size and np.allclose(np.sort(got.ravel()), np.sort(want.ravel()))
    return "it has the right values in another order" if same else "it has other values"
