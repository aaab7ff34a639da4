"""Finds the spec whose function a file's graph computes, and the layers in their places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from common.errors import SpecError
from common.formats.assembly import Match, Mismatch, assemble
from common.formats.downscale import downscales
from common.formats.flow import Comparison, compare, shown
from common.formats.layers import NUMBERED, Layer, Unit
from common.formats.matching import CONVOLUTION_AS_HEAD, as_linear
from common.formats.readers.base import File
from common.spec import Affine, Spec
from common.weights import norm_name, shapes


@dataclass(frozen=True)
class Fit:
    """A spec with the weights of a file, whose graph computes the spec's function."""

    match: Match
    downscaled: bool  #: its heads multiply their features by the share that dropout keeps


def fits(file: File, specs: list[Spec]) -> Iterator[Fit]:
    """The specs that fit, those first that leave out nothing."""
    assert file.steps
    for exact in (True, False):
        for spec in specs:
            for downscaled in downscaling(spec):
                comparison = compare(file.steps, spec, downscaled, exact)
                if comparison.difference:
                    continue
                try:
                    match = assembled(file, spec, comparison)
                except (Mismatch, SpecError):
                    continue
                if more := file.steps.results[1 + len(spec.auxiliary) :]:
                    first = shown(file.steps.steps[more[0]].name)
                    match.notes.append(
                        f"Its other results ({len(more)}) are left out, the first is of `{first}`."
                    )
                yield Fit(match, downscaled)


def downscaling(spec: Spec) -> tuple[bool, ...]:
    """Whether the heads may scale their features in evaluation, as those of paddle.vision do."""
    return (True, False) if downscales(spec) else (False,)


def closest(file: File, specs: list[Spec]) -> tuple[Spec, str]:
    """The spec that most of a graph's steps fit, and the first difference from it."""
    assert file.steps
    found = [
        (compare(file.steps, spec, downscaled, isinstance(spec.stage1[0], Affine)), spec)
        for spec in specs
        for downscaled in downscaling(spec)
    ]
    best, spec = max(found, key=lambda each: each[0].alike)
    return spec, best.difference or "its layers have other shapes"


def assembled(file: File, spec: Spec, comparison: Comparison) -> Match:
    """The weights of a spec, whose layers are known; Mismatch if one has another shape."""
    units, expected = dict[str, Unit](), shapes(spec)
    for name, layer in comparison.layers.items():
        if name.rpartition(".")[2] == "norm":
            continue
        tensors = leaves(file, layer)
        norm = comparison.layers.get(norm_name(name))
        own = Layer(norm, "norm", leaves(file, norm)) if norm else None
        if "bias" in tensors and not own and not file.arrays[tensors["bias"]].any():
            tensors = tensors if f"{name}.bias" in expected else {"weight": tensors["weight"]}
        units[name] = Unit(layer, file.arrays[tensors["weight"]].shape, tensors, own)
    notes = [CONVOLUTION_AS_HEAD] if len(units["head"].shape) == 4 else []
    units["head"] = as_linear(units["head"])
    first = next(iter(expected)).removesuffix(".weight")
    spec = spec.at(channels=units[first].shape[1])
    spec.channels()
    found = assemble(spec, units, True, False)
    for name, shape in shapes(found.spec).items():
        layer = name.rpartition(".")[0]
        if name.endswith("weight") and layer in units and units[layer].shape != shape:
            raise Mismatch(f"{layer} has another shape")
    found.notes += notes
    return found


def leaves(file: File, layer: str) -> dict[str, str]:
    """The names of a layer's tensors, by their canonical leaves."""
    return {leaf: f"{layer}.{leaf}" for leaf in NUMBERED if f"{layer}.{leaf}" in file.arrays}
