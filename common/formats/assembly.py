"""The weights of a spec in a file, once every layer has its place: what is filled in or refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from common.errors import SpecError
from common.formats.layers import NUMBERED, Unit
from common.formats.naming import Format
from common.spec import Spec
from common.weights import Weights, norm_name, shapes


class Mismatch(Exception):
    """The file does not have the layers of the spec; the message is a part of a sentence.

    `score` counts the layers that fit.
    """

    def __init__(self, reason: str, score: int = 0) -> None:
        super().__init__(reason)
        self.score = score


class Ambiguous(Mismatch):
    """Several assignments fit."""


class OtherHead(Mismatch):
    """The layers before the head have known names, but what is behind them is no head for them."""


class OtherClasses(Mismatch):
    """The auxiliary heads have other classes than the head."""


@dataclass
class Match:
    """The weights of a spec in a file."""

    spec: Spec
    names: dict[str, str]  #: canonical name: name in the file
    filled: dict[str, float] = field(default_factory=dict)  #: canonical name: the value of it
    notes: list[str] = field(default_factory=list)  #: what was changed, as sentences
    by_order: bool = False  #: names did not separate the blocks

    def weights(self, arrays: Mapping[str, np.ndarray], form: Format) -> Weights:
        """The canonical weights."""
        found: Weights = {}
        for name, shape in shapes(self.spec).items():
            if name in self.names:
                array = form.canonical(arrays[self.names[name]])
                found[name] = array[:, :, 0, 0] if array.ndim == 4 > len(shape) else array
            else:
                found[name] = np.full(shape, self.filled[name], np.float32)
        for name in self.names:
            if name not in found:  # the bias of a convolution that has none in the spec
                mean = f"{norm_name(name.removesuffix('.bias'))}.running_mean"
                found[mean] = found[mean] - arrays[self.names[name]]
        return found


def other_classes(auxiliary: int, classes: int) -> str:
    """The sentence part on auxiliary heads that have other classes."""
    return f"its auxiliary heads have {auxiliary} classes and its head has {classes}"


def assemble(spec: Spec, units: dict[str, Unit], folded: bool, by_order: bool) -> Match:
    """The tensors of the assigned units, with what is filled in."""
    classes = units["head"].shape[0]
    others = {
        unit.shape[0] for name, unit in units.items() if re.fullmatch(r"auxiliary.*head", name)
    }
    if others - {classes}:
        raise OtherClasses(other_classes(others.pop(), classes))
    try:
        spec = spec.at(classes=classes)
    except SpecError as error:
        raise Mismatch(str(error).rstrip(".")) from error
    found = Match(spec, {}, by_order=by_order)
    expected = shapes(spec)
    no_norms = folded and all(unit.norm is None for unit in units.values())
    no_biases = not any("bias" in unit.tensors for unit in units.values() if unit.shape[2:])
    for number, (name, unit) in enumerate(units.items()):
        try:
            layer(found, name, unit, expected, no_norms, no_biases)
        except Mismatch as mismatch:
            mismatch.score = number  # so many fit
            raise
    return found


def layer(
    found: Match,
    name: str,
    unit: Unit,
    expected: dict[str, tuple[int, ...]],
    no_norms: bool,
    no_biases: bool,
) -> None:
    """The tensors of one layer and its norm."""
    found.names[f"{name}.weight"] = unit.tensors["weight"]
    norm = norm_name(name)
    if no_norms and f"{norm}.weight" in expected:
        folded_norm(found, name, unit, f"{name}.bias" in expected)
        return
    bias(found, name, unit, f"{name}.bias" in expected, no_biases)
    if f"{norm}.weight" in expected:
        norm_of(found, norm, unit)
    elif unit.norm:
        raise Mismatch(f"{unit.norm.path} is a norm too many")


def bias(found: Match, name: str, unit: Unit, expected: bool, none: bool) -> None:
    """The bias of a layer, or zero where all convolutions before a norm have none."""
    if "bias" in unit.tensors:
        found.names[f"{name}.bias"] = unit.tensors["bias"]
        if not expected:
            if not unit.norm:
                raise Mismatch(f"{unit.tensors['bias']} is one tensor too many")
            note(found, "The biases before the norms are subtracted from their running means.")
    elif expected:
        if not (none and found.spec.norm and len(unit.shape) == 4):
            raise Mismatch(f"{unit.path} has no bias for {name}.bias")
        found.filled[f"{name}.bias"] = 0.0
        note(found, "Its convolutions have no bias: they get zeros, the same function.")


def folded_norm(found: Match, name: str, unit: Unit, biased: bool) -> None:
    """The bias of a convolution that has its norm in itself, and an identity for the norm.

    If the spec's convolution has no bias, it is the beta of the norm.
    """
    assert found.spec.norm
    norm, values = norm_name(name), (1.0, 0.0, 0.0, 1.0 - found.spec.norm.eps)
    found.filled |= {f"{norm}.{leaf}": v for leaf, v in zip(NUMBERED, values, strict=True)}
    place = f"{name}.bias" if biased else f"{norm}.bias"
    if "bias" in unit.tensors:
        found.filled.pop(place, None)
        found.names[place] = unit.tensors["bias"]
    else:
        found.filled[place] = 0.0
    note(found, "Its norms are folded into the convolutions: they become identities.")


def norm_of(found: Match, name: str, unit: Unit) -> None:
    """The norm of a convolution; without gamma or beta it has ones or zeros."""
    if not unit.norm:
        raise Mismatch(f"{unit.path} has no norm for {name}")
    for leaf, value in zip(NUMBERED, (1.0, 0.0, None, None), strict=True):
        if leaf in unit.norm.tensors:
            found.names[f"{name}.{leaf}"] = unit.norm.tensors[leaf]
        elif value is None:
            raise Mismatch(f"{unit.norm.path} has no {leaf} ({name}.{leaf} is missing)")
        else:
            found.filled[f"{name}.{leaf}"] = value
            word = "gamma" if leaf == "weight" else "beta"
            note(found, f"Its norms have no {word}: they get {value:.0f}, the same function.")


def note(found: Match, sentence: str) -> None:
    """Add a sentence once."""
    if sentence not in found.notes:
        found.notes.append(sentence)
