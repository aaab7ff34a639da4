"""Compares the names and shapes of a file's tensors with the namings of a spec."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from common.errors import SpecError
from common.formats.naming import FORMATS, NAMINGS, Layers, belongs
from common.formats.readers.base import File
from common.spec import Spec
from common.weights import shapes


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


def readings(file: File, specs: Iterable[Spec], likely: bool = False) -> Iterator[Reading]:
    """Compare the file with every naming that belongs to these specs.

    `likely` skips specs with another number of tensors and namings without a matching head.
    """
    form = FORMATS[file.format]
    for spec in specs:
        if likely and tensors(spec) != len(file.arrays):
            continue
        for naming, layers in named(file.format, spec):
            if likely and form.name(layers, "head.weight") not in file.arrays:
                continue
            yield read_as(file, fitted(file, spec, layers), naming, layers)


def named(form: str, spec: Spec) -> Iterator[tuple[str, Layers]]:
    """The namings of a format that belong to a spec and name all its layers."""
    needed = {name.rpartition(".")[0] for name in shapes(spec)}
    for naming, function in NAMINGS[form].items():
        for layers in function(spec) if belongs(naming, spec) else ():
            if needed <= layers.keys():
                yield naming, layers


@cache
def tensors(spec: Spec) -> int:
    """The number of tensors of a spec."""
    return len(shapes(spec))


def read_as(file: File, spec: Spec, naming: str, layers: Layers) -> Reading:
    """Compare the file with one naming of a spec."""
    form, names, mismatches = FORMATS[file.format], {}, []
    for canonical, shape in shapes(spec).items():
        names[canonical] = name = form.name(layers, canonical)
        also = "" if name == canonical else f" ({canonical})"
        wanted = form.shape(shape)
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
