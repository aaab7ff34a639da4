"""Finds the spec and the naming that a weight file fits, and its canonical weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from common.errors import SpecError, WeightsError
from common.formats.family_names import PADDLE_V3, normalise, own_spec
from common.formats.naming import FORMATS, NAMINGS, PADDLE_VISION, Layers
from common.formats.readers.base import File
from common.formats.readers.detect import TITLES
from common.spec import SPECS, Spec, find, float32
from common.weights import Weights, shapes


@dataclass(frozen=True)
class Known:
    """The weights of a file in canonical form, with their spec and naming."""

    spec: Spec  #: with the file's channels and classes
    naming: str
    weights: Weights


@dataclass(frozen=True)
class Reading:
    """The comparison of a file with one naming of one spec."""

    spec: Spec
    naming: str
    names: dict[str, str]  #: canonical name: name in the file
    mismatches: list[str]  #: what does not fit, as parts of a sentence

    @property
    def score(self) -> int:
        """How many tensors fit."""
        return len(self.names) - len(self.mismatches)


def identify(file: File, spec_name: str | None, file_name: str) -> Known:
    """Find the spec, or check the named one, and return the canonical weights.

    WeightsError names the first tensor that is missing, extra or of another shape, and a spec that
    does fit. `file_name` is used in the message.
    """
    form, file = FORMATS[file.format], normalise(file)
    for reading in readings(file, [spec_name] if spec_name else list(SPECS), likely=True):
        if not reading.mismatches:
            names, own = reading.names, own_spec(reading.naming, reading.spec)
            weights = {name: form.canonical(file.arrays[names[name]]) for name in names}
            if reading.naming in (PADDLE_VISION, PADDLE_V3):
                weights = undo_downscale_in_infer(own, weights)
            return Known(reading.spec if spec_name else own, reading.naming, weights)
    raise WeightsError(refusal(file, spec_name, file_name))


def equivalent_specs(file: File, found: Spec) -> tuple[str, ...]:
    """The other specs that fit the file: they have the same tensors as `found`."""
    file, others = normalise(file), [name for name in SPECS if name != found.name]
    fits = [reading for reading in readings(file, others, likely=True) if not reading.mismatches]
    return tuple(dict.fromkeys(reading.spec.name for reading in fits))


def undo_downscale_in_infer(spec: Spec, weights: Weights) -> Weights:
    """The weights of paddle.vision's heads, converted for our dropout.

    paddle.vision's dropout is `downscale_in_infer`: evaluation multiplies the features by the share
    that training keeps. Our dropout divides by that share in training. Multiplying the heads'
    weights by the share gives the same function in both modes. Paddle stores the share in float32.
    """
    drops = {"head.weight": spec.dropout}
    drops |= {f"auxiliary.{i}.head.weight": row.dropout for i, row in enumerate(spec.auxiliary)}
    return weights | {name: weights[name] * float32(1 - drop) for name, drop in drops.items()}


def readings(file: File, spec_names: list[str], likely: bool = False) -> Iterator[Reading]:
    """Compare the file with every naming of these specs.

    `likely` skips specs with another number of tensors and namings without a matching head. A
    naming that does not name every layer of a spec is skipped.
    """
    form = FORMATS[file.format]
    for spec in map(find, spec_names):
        if likely and len(shapes(spec)) != len(file.arrays):
            continue
        needed = {name.rpartition(".")[0] for name in shapes(spec)}
        for naming, namings in NAMINGS[file.format].items():
            for layers in namings(spec):
                if likely and form.name(layers, "head.weight") not in file.arrays:
                    continue
                if needed <= layers.keys():
                    yield read_as(file, fitted(file, spec, layers), naming, layers)


def read_as(file: File, spec: Spec, naming: str, layers: Layers) -> Reading:
    """Compare the file with one naming of a spec."""
    form, names, mismatches = FORMATS[file.format], {}, []
    for canonical, shape in shapes(spec).items():
        names[canonical] = name = form.name(layers, canonical)
        also = "" if name == canonical else f" ({canonical})"
        wanted = tuple(shape[axis] for axis in form.axes(len(shape)))
        if name not in file.arrays:
            mismatches.append(f"{name}{also} is missing")
        elif file.arrays[name].shape != wanted:
            found = file.arrays[name].shape
            mismatches.append(f"{name}{also} has shape {found} where {wanted} is expected")
    known = set(names.values())
    mismatches += [f"{name} is one tensor too many" for name in file.arrays if name not in known]
    return Reading(spec, naming, names, mismatches)


def fitted(file: File, spec: Spec, layers: Layers) -> Spec:
    """The spec with the channels of the file's first layer and the classes of its last."""
    form, (first, *_) = FORMATS[file.format], shapes(spec)
    sizes = {}
    places = (("channels", first, 4, 1), ("classes", "head.weight", 2, 0))
    for size, canonical, ndim, axis in places:
        array = file.arrays.get(form.name(layers, canonical))
        if array is not None and array.ndim == ndim:
            sizes[size] = array.shape[form.axes(ndim).index(axis)]
    try:
        own = spec.at(**sizes)
        own.channels()
    except SpecError:
        return spec
    return own


def refusal(file: File, spec_name: str | None, file_name: str) -> str:
    """The message when no reading fits: the closest reading, and a spec that does fit."""
    every = list(readings(file, list(SPECS)))
    asked = [reading for reading in every if spec_name in (None, reading.spec.name)]
    best = max(asked, key=lambda reading: reading.score)
    fits = [reading.spec.name for reading in every if not reading.mismatches]
    if fits:
        return (
            f"{file_name} does not hold the weights of {spec_name}: {best.mismatches[0]}; it holds "
            f"those of {fits[0]}: use `--spec {fits[0]}`."
        )
    if not set(best.names.values()) & set(file.arrays):
        return (
            f"{file_name} is {TITLES[file.format]} of an unknown network: its first "
            f"tensor is {next(iter(file.arrays))}; `googlenet specs` lists the networks."
        )
    if spec_name:
        return (
            f"{file_name} does not hold the weights of {spec_name}: {best.mismatches[0]}; "
            "no spec fits."
        )
    closest = f"{best.spec.name} comes closest"
    return f"{file_name} holds the weights of no spec: {best.mismatches[0]} ({closest})."
