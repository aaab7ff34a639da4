"""Which spec and which naming a file of weights fits, and its canonical weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from common.errors import SpecError, WeightsError
from common.formats.naming import FORMATS, NAMINGS, PADDLE_VISION, Layers
from common.formats.readers.base import File
from common.formats.readers.detect import TITLES
from common.spec import SPECS, Spec, find, float32
from common.weights import Weights, shapes


# --- from a file to canonical weights
@dataclass(frozen=True)
class Known:
    """The weights of a file, in canonical form, and what they are."""

    spec: Spec  #: for the file's own channels and classes
    naming: str
    weights: Weights


@dataclass(frozen=True)
class Reading:
    """A file held against one naming of one spec."""

    spec: Spec
    naming: str
    names: dict[str, str]  #: canonical: the file's
    mismatches: list[str]  #: what is wrong, as sentences without their end; the first one counts

    @property
    def score(self) -> int:
        """How many tensors are where they should be."""
        return len(self.names) - len(self.mismatches)


def identify(file: File, spec_name: str | None, called: str) -> Known:
    """Find the spec (or hold it against the named one) and give the canonical weights.

    WeightsError with the first tensor that is missing, misshapen or too many, and the spec that
    would fit if one does. `called` is the file's name for sentences.
    """
    form = FORMATS[file.format]
    for reading in readings(file, [spec_name] if spec_name else list(SPECS), likely=True):
        if not reading.mismatches:
            names = reading.names
            weights = {name: form.canonical(file.arrays[names[name]]) for name in names}
            if reading.naming == PADDLE_VISION:
                weights = undo_downscale_in_infer(reading.spec, weights)
            return Known(reading.spec, reading.naming, weights)
    raise WeightsError(refusal(file, spec_name, called))


def equivalent_specs(file: File, found: Spec) -> tuple[str, ...]:
    """The other specs that the file fits as well: they differ from `found` in what is no weight."""
    others = [name for name in SPECS if name != found.name]
    fits = [reading for reading in readings(file, others, likely=True) if not reading.mismatches]
    return tuple(dict.fromkeys(reading.spec.name for reading in fits))


def undo_downscale_in_infer(spec: Spec, weights: Weights) -> Weights:
    """The weights for a dropout that scales up in training, from those for one that scales down.

    paddle.vision's dropout is `downscale_in_infer`: training zeroes a share of the features, and
    evaluation multiplies them by the share that training keeps. Ours divides by that share in
    training instead, so its product with the heads' weights is the same in both modes. Paddle
    holds the share in float32.
    """
    drops = {"head.weight": spec.dropout}
    drops |= {f"auxiliary.{i}.head.weight": row.dropout for i, row in enumerate(spec.auxiliary)}
    return weights | {name: weights[name] * float32(1 - drop) for name, drop in drops.items()}


def readings(file: File, spec_names: list[str], likely: bool = False) -> Iterator[Reading]:
    """The file held against every naming of these specs; `likely`: of those that may well fit.

    A naming that has no word for some layer of a spec does not name it.
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
    """The file held against one naming of a spec."""
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
    """The spec with as many channels and classes as the file's first and last layers have."""
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


def refusal(file: File, spec_name: str | None, called: str) -> str:
    """Why no reading fits, by the one that comes closest, and which spec would fit."""
    every = list(readings(file, list(SPECS)))
    asked = [reading for reading in every if spec_name in (None, reading.spec.name)]
    best = max(asked, key=lambda reading: reading.score)
    fits = [reading.spec.name for reading in every if not reading.mismatches]
    if fits:
        return (
            f"{called} does not hold the weights of {spec_name}: {best.misfits[0]}; they are those "
            f"of {fits[0]}: use `--spec {fits[0]}`."
        )
    if not set(best.names.values()) & set(file.arrays):
        return (
            f"{called} is {TITLES[file.format]}, of a network that is not known here: its first "
            f"tensor is {next(iter(file.arrays))}; `googlenet specs` lists the networks."
        )
    if spec_name:
        return (
            f"{called} does not hold the weights of {spec_name}: {best.misfits[0]}; no spec fits."
        )
    closest = f"{best.spec.name} comes closest"
    return f"{called} holds the weights of no spec: {best.misfits[0]} ({closest})."
