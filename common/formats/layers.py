"""The layers in a weight file, by the names and shapes of its tensors, whatever its program.

A name ends in the word for a tensor (`.weight`, `/kernel:0`, `_gamma`, `/vars/0`, `.w_0`); what
stands before is the layer. A convolution, its bias and its norm are one `Unit`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from common.formats.naming import Format

#: the words for a layer's tensors in the programs that are known, and their canonical leaves
LEAVES = {
    **dict.fromkeys(("weight", "kernel", "gamma", "scale"), "weight"),
    **dict.fromkeys(("bias", "beta"), "bias"),
    **dict.fromkeys(("running_mean", "moving_mean", "_mean", "mean"), "running_mean"),
    **dict.fromkeys(
        ("running_var", "moving_variance", "moving_var", "_variance", "variance", "var"),
        "running_var",
    ),
}
#: Paddle's own names, and Keras's numbers in a norm
PADDLE = {"w_0": "weight", "b_0": "bias", "w_1": "running_mean", "w_2": "running_var"}
NUMBERED = ("weight", "bias", "running_mean", "running_var")

NAME = re.compile(
    r"(?P<layer>.*?)(?:/vars/(?P<number>\d)|\.(?P<paddle>[wb]_\d)|[./_](?P<word>"
    + "|".join(sorted(LEAVES, key=len, reverse=True))
    + r")(?::\d+)?)"
)


@dataclass
class Layer:
    """The tensors of one layer: canonical leaf -> name in the file."""

    path: str
    kind: str = "other"  #: conv, linear, norm or other
    tensors: dict[str, str] = field(default_factory=dict)


@dataclass
class Unit:
    """A convolution with its norm, or a linear layer; the shape is canonical."""

    path: str
    shape: tuple[int, ...]
    tensors: dict[str, str]
    norm: Layer | None = None


def natural(name: str) -> list[str | int]:
    """A key that sorts numbers in names by their value."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def in_order(arrays: Mapping[str, np.ndarray]) -> list[list[str]]:
    """The orders that the tensors may have: that of the file, and that of the numbers in names.

    An alphabetical order is that of a format which sorts, and says nothing.
    """
    names = list(arrays)
    by_number = sorted(names, key=natural)
    return [by_number] if names in (sorted(names), by_number) else [names, by_number]


def layers_of(names: Iterable[str], arrays: Mapping[str, np.ndarray]) -> list[Layer]:
    """The layers, in the order of their first tensors."""
    found: dict[str, Layer] = {}
    numbered: dict[str, dict[int, str]] = {}
    for name in names:
        parts = NAME.fullmatch(name)
        if not parts:
            found[name] = Layer(name, "other", {"weight": name})
            continue
        layer = found.setdefault(parts["layer"], Layer(parts["layer"]))
        if parts["number"]:
            numbered.setdefault(layer.path, {})[int(parts["number"])] = name
            continue
        leaf = PADDLE.get(parts["paddle"] or "") or LEAVES.get(parts["word"] or "", name)
        layer.tensors[leaf if leaf not in layer.tensors else name] = name
    for path, by_number in numbered.items():
        found[path].tensors |= leaves_of(
            [by_number[number] for number in sorted(by_number)], arrays
        )
    for layer in found.values():
        layer.kind = kind_of(layer, arrays) if layer.path not in arrays else "other"
    return list(found.values())


def leaves_of(names: list[str], arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The leaves of a Keras layer, whose variables have numbers.

    Three vectors are a norm without gamma or without beta: which one is not known, so they keep
    their names and fit nothing.
    """
    leaves: list[str] = [*NUMBERED, *names[4:]][: len(names)]
    if arrays[names[0]].ndim == 1 and len(names) in (2, 3):
        leaves = [*NUMBERED[2:]] if len(names) == 2 else names
    return dict(zip(leaves, names, strict=True))


def kind_of(layer: Layer, arrays: Mapping[str, np.ndarray]) -> str:
    """The kind of a layer, by its leaves and the axes of its weight."""
    tensors = layer.tensors
    sizes = {leaf: arrays[name].ndim for leaf, name in tensors.items()}
    if not tensors.keys() <= {*NUMBERED}:
        return "other"
    if sizes.get("weight") in (2, 4) and tensors.keys() <= {"weight", "bias"}:
        return "conv" if sizes["weight"] == 4 else "linear"
    return "norm" if set(sizes.values()) == {1} else "other"


def units_of(
    layers: list[Layer], arrays: Mapping[str, np.ndarray], form: Format
) -> tuple[list[Unit], list[Layer]]:
    """The convolutions with their norms and the linear layers; what belongs to none of them.

    A norm belongs to a convolution if both are the first, the second, ... of the same container.
    """
    units, rest = dict[int, Unit](), list[Layer]()
    norms = {index: layer for index, layer in enumerate(layers) if layer.kind == "norm"}
    seen = set[tuple[tuple[int, ...], bytes]]()
    for index, layer in enumerate(layers):
        if layer.kind == "other":
            rest.append(layer)
        if layer.kind not in ("conv", "linear"):
            continue
        weight = arrays[layer.tensors["weight"]]
        if layer.kind == "linear" and weight.size > 1 and weight.min() < weight.max():
            key = (weight.shape, weight.tobytes())
            if key in seen:  # a layer that the program has under two names
                continue
            seen.add(key)
        shape = tuple(weight.shape[axis] for axis in np.argsort(form.axes(weight.ndim)))
        units[index] = Unit(layer.path, shape, layer.tensors)
    convs = {index: unit for index, unit in units.items() if len(unit.shape) == 4}
    ups = 0
    while convs and norms and ups < 20:
        ups += 1
        groups: dict[str, tuple[list[int], list[int]]] = {}
        for at, members in enumerate((list(convs), list(norms))):
            for index in members:
                groups.setdefault(above(layers[index].path, ups), ([], []))[at].append(index)
        for ours, theirs in groups.values():
            sizes = [units[index].shape[0] for index in ours]
            if sizes == [width_of(layers[index], arrays) for index in theirs]:
                for index, norm in zip(ours, theirs, strict=True):
                    convs.pop(index).norm = norms.pop(norm)
    return list(units.values()), rest + list(norms.values())


def above(path: str, levels: int) -> str:
    """The container of a path, so many levels up."""
    return "/".join(re.split(r"[./]", path)[:-levels])


def width_of(norm: Layer, arrays: Mapping[str, np.ndarray]) -> int:
    """The channels of a norm; 0 if its tensors differ in length."""
    widths = {len(arrays[name]) for name in norm.tensors.values()}
    return widths.pop() if len(widths) == 1 else 0
