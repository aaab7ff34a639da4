"""The heads of a network whose other layers are known: its own, and the auxiliary ones.

Fine-tuning replaces the head of a package's network, or puts a new one behind it. Then the layers
before the head have the package's names, and the head is the only layer beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from common.formats.assembly import OtherHead, other_classes
from common.formats.matching import CONVOLUTION_AS_HEAD, as_linear, prepare
from common.formats.naming import FORMATS, Layers
from common.formats.parts import LEAST, Part
from common.formats.readers.base import File
from common.formats.readings import Reading, fitted, read_as
from common.spec import SPECS, Spec
from common.weights import Weights, shapes

HEAD = 2  #: tensors
NO_AUXILIARY = "The auxiliary heads are left out, as the spec has none."


def left_out(reason: object) -> str:
    """The note on auxiliary heads that are left out."""
    return f"The auxiliary heads are left out: {reason}. Evaluation does not use them."


@dataclass(frozen=True)
class Headed:
    """A backbone with its head under the name that the naming has for it."""

    reading: Reading
    file: File
    whole: Part  #: the part of the file that has both
    notes: list[str]
    behind: bool  #: the head is not in the place of the package's own


@dataclass(frozen=True)
class Head:
    """The layer behind a backbone."""

    whole: Part  #: as in Headed
    path: str  #: the name of the layer in it
    weights: Weights  #: by leaf, canonical
    notes: list[str]


def head_of(part: Part, candidates: list[Part], backbone: Weights, spec: Spec) -> Head | None:
    """The only layer beside these tensors in a part, or else in the parts around it.

    None if there is more than a head. OtherHead if there is nothing, or it is not one linear layer.
    """
    form, features = FORMATS[part.file.format], shapes(spec)["head.weight"][1]
    own = {id(array) for array in backbone.values()}
    around = [each for each in candidates if len(each.prefix) <= len(part.prefix)]
    for whole in reversed([each for each in around if each.overlaps(part)]):
        arrays = whole.file.arrays
        rest = {name: arrays[name] for name in arrays if id(arrays[name]) not in own}
        if rest:
            break
    if len(rest) > LEAST:
        return None
    units, odd = prepare(rest, form)[0]
    paths = " and ".join(f"`{unit.path}`" for unit in units)
    reason = ""
    if len(units) > 1:
        reason = f"its head is not one layer: {paths}; leave in the file the one that you need"
    elif not units or (head := as_linear(units[0])).shape[1:] != (features,):
        reason = f"its head is missing: no linear layer has {features} features"
    elif odd:
        reason = f"{next(iter(odd[0].tensors.values()))} is one tensor too many"
    elif head.tensors.keys() != {"weight", "bias"}:
        reason = f"its head {paths} has no bias"
    if reason:
        raise OtherHead(f"has the layers of {spec.name}, but {reason}", len(backbone))
    notes = [] if head is units[0] else [CONVOLUTION_AS_HEAD]
    weights = {leaf: form.canonical(rest[name]) for leaf, name in head.tensors.items()}
    weights["weight"] = weights["weight"].reshape(head.shape)
    return Head(whole, head.path, weights, notes)


def without_auxiliary(spec: Spec) -> Iterator[Spec]:
    """The known spec that is this one without its auxiliary heads."""
    for other in SPECS.values():
        alike = (spec.norm is None) == (other.norm is None)
        if (
            alike
            and not other.auxiliary
            and replace(spec, auxiliary=(), name=other.name) == replace(other, norm=spec.norm)
        ):
            yield replace(other, norm=spec.norm)


def with_auxiliary(spec: Spec) -> Iterator[Spec]:
    """The known specs that are this one with auxiliary heads."""
    for other in SPECS.values():
        bare = replace(other, auxiliary=(), name=spec.name, norm=spec.norm)
        alike = (spec.norm is None) == (other.norm is None)
        if alike and other.auxiliary and bare == spec:
            yield replace(other, norm=spec.norm)


def with_head(
    candidates: list[Part], part: Part, spec: Spec, one: Spec, naming: str, layers: Layers
) -> Headed | None:
    """A part whose names up to the head are those of a naming; None if they are others.

    `one` is the spec, or the spec with auxiliary heads: they are left out. So are those that have
    other classes than the head.
    """
    file, form, notes = part.file, FORMATS[part.file.format], list[str]()
    backbone = [name for name in shapes(one) if not name.startswith("head.")]
    if not all(form.name(layers, name) in file.arrays for name in backbone):
        return None
    arrays = {name: file.arrays[form.name(layers, name)] for name in backbone}
    expected = shapes(fitted(file, one, layers))
    body = [name for name in backbone if ".head." not in name]
    if any(arrays[name].shape != form.shape(expected[name]) for name in body):
        return None
    head = head_of(part, candidates, arrays, one)
    if not head:
        return None
    arrays |= {f"head.{leaf}": form.native(head.weights[leaf]) for leaf in head.weights}
    classes = len(arrays["head.bias"])
    others = {len(arrays[name]) for name in backbone if name.endswith(".head.bias")} - {classes}
    if one is not spec:
        notes.append(NO_AUXILIARY)
    elif others:
        reason = other_classes(others.pop(), classes)
        notes.append(left_out(reason))
        whole, spec = spec, next(without_auxiliary(spec), spec)
        if spec is whole:
            raise OtherHead(f"has the layers of {spec.name}, but {reason}", len(backbone))
    if head.whole is not part or head.path != layers["head"]:
        notes.append(f"Its head is `{head.path}`.")
    notes += head.notes
    own = replace(file, arrays={form.name(layers, name): arrays[name] for name in shapes(spec)})
    reading = read_as(own, fitted(own, spec, layers), naming, layers)
    behind = head.whole is not part or not f"{head.path}.".startswith(f"{layers['head']}.")
    return None if reading.mismatches else Headed(reading, own, head.whole, notes, behind)
