"""Finds the spec and the naming that a weight file fits, and its canonical weights.

A file may hold several dicts, and a name may begin with those of wrappers (`module.`, `model.`). A
part of a file is the tensors whose names begin alike, without that beginning. Each part is compared
by name with every naming, then by shape, order and place (`matching`). A file that has its graph is
compared with the function of each spec (`graphs`). Long because the sentences on what does not fit
stand beside the ways to find it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from common.errors import SpecError, WeightsError
from common.formats import graphs, matching
from common.formats.assembly import Ambiguous, Match, Mismatch, OtherClasses, OtherHead
from common.formats.downscale import downscales, undo_downscale_in_infer
from common.formats.family_names import PADDLE_V3, normalise
from common.formats.heads import (
    HEAD,
    NO_AUXILIARY,
    Headed,
    left_out,
    with_auxiliary,
    with_head,
    without_auxiliary,
)
from common.formats.naming import (
    FORMATS,
    LAYOUTS,
    NAMINGS,
    OWNERS,
    PADDLE_VISION,
    Format,
    belongs,
)
from common.formats.parts import LEAST, Part, nothing_under, parts
from common.formats.readers.base import File, Unreadable
from common.formats.readers.detect import TITLES
from common.formats.readings import Reading, named, readings, tensors
from common.spec import SPECS, Affine, Spec, find
from common.weights import Weights, with_eps

BY_SHAPE = "other names, matched by shape and place"
EXPORTED = re.compile(r"_\d+\.[wb]_\d$")  #: a name that Paddle gives by a count
BY_GRAPH = "other names, matched by the graph"


@dataclass(frozen=True)
class Known:
    """The weights of a file in canonical form, with their spec and naming."""

    spec: Spec  #: with the file's channels and classes, and the eps of its norms
    naming: str
    weights: Weights
    also: tuple[str, ...] = ()  #: other specs with the same tensors
    notes: tuple[str, ...] = ()  #: what was changed or left out, as sentences
    key: str = ""  #: where the weights lie in the file
    eps: str = "the spec's"  #: where the eps of the norms is from


def identify(
    file: File,
    spec_name: str | None,
    file_name: str,
    key: str | None = None,
    eps: float | None = None,
) -> Known:
    """Find the spec, or check the named one, and return the canonical weights.

    `key` chooses one of several dicts of weights; `eps` is that of the norms in training.
    WeightsError names the first tensor that is missing, extra or of another shape, and a spec that
    does fit. `file_name` is used in the message.
    """
    specs = [find(spec_name)] if spec_name else list(SPECS.values())
    try:
        file = normalise(file)
    except Unreadable as error:
        raise WeightsError(f"{file_name} {error}") from error
    source = "--eps" if eps is not None else "the file" if file.eps is not None else "the spec's"
    eps = file.eps if eps is None else eps
    if source == "--eps" and not any(spec.norm for spec in specs):
        raise SpecError(f"--eps is for networks with batch norm, and {spec_name} has none.")
    specs = [spec.at(eps=eps) if eps is not None and spec.norm else spec for spec in specs]
    if file.steps and not any(parts(file, key)):
        raise WeightsError(nothing_under(file_name, key, file))
    known = by_graph(file, specs)
    if not known:
        known = by_weights(file, specs, spec_name, file_name, key)
        if file.steps:
            raise WeightsError(other_function(file, [known.spec], file_name))
    if source == "--eps" and not known.spec.norm:
        raise SpecError(f"--eps is for networks with batch norm, and {known.spec.name} has none.")
    return replace(known, eps=source if known.spec.norm else "")


def by_weights(
    file: File, specs: list[Spec], spec_name: str | None, file_name: str, key: str | None
) -> Known:
    """The network in a file by the names, shapes and places of its tensors."""
    candidates = list(parts(file, key))
    if not candidates:
        raise WeightsError(nothing_under(file_name, key, file))
    found: list[tuple[Part, Known]] = []
    problem: Mismatch | None = None
    for reader in (by_naming, partial(by_backbone, candidates), by_shape):
        for part in candidates:
            if any(part.overlaps(other) for other, _ in found):
                continue
            try:
                known = reader(part, specs, bool(spec_name), file_name)
            except Mismatch as mismatch:
                problem = worse(problem, mismatch)
                continue
            if known and not any(same(known.weights, other.weights) for _, other in found):
                found.append((part, known))
            if known and not part.others:
                break
    if len(found) > 1:
        keys = ", ".join(f"`{one.key}`" for _, one in found)
        raise WeightsError(
            f"{file_name} holds the weights of several networks, under {keys}: choose one with "
            f"`--key {found[0][1].key}`."
        )
    if not found and isinstance(problem, OtherHead):
        raise WeightsError(f"{file_name} {file.unread or f'{problem}.'}")
    if not found:
        raise WeightsError(refusal(file, candidates, specs, spec_name, file_name, problem))
    ((_, known),) = found
    return known


def by_graph(file: File, specs: list[Spec]) -> Known | None:
    """The network whose function a file's graph computes; None if there is no such graph."""
    if not file.steps:
        return None
    for fit in graphs.fits(file, specs):
        match = fit.match
        own = all(name == match.names[name] for name in match.names)
        weights = match.weights(file.arrays, FORMATS[file.format])
        naming = "our names" if own and not match.filled else BY_GRAPH
        notes = [*match.notes, *file.steps.notes]
        part = Part("", file)
        return finish(match.spec, naming, weights, [], part, notes, not fit.downscaled)
    return None


def other_function(file: File, specs: list[Spec], file_name: str) -> str:
    """The message for a graph that computes the function of none of these specs."""
    spec, difference = graphs.closest(file, specs)
    said = f"{file_name} computes another function than {spec.name}: {difference}"
    other = next(graphs.fits(file, list(SPECS.values())), None)
    return f"{said}; it is {other.match.spec.name}'s: leave out `--spec`." if other else f"{said}."


def same(one: Weights, other: Weights) -> bool:
    """Whether two networks have the same weights."""
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name], equal_nan=True) for name in one
    )


def worse(one: Mismatch | None, other: Mismatch) -> Mismatch:
    """The mismatch that says more: no head, an ambiguity, or the part that fits best."""

    def key(each: Mismatch) -> tuple[bool, bool, int]:
        return isinstance(each, OtherHead), isinstance(each, Ambiguous), each.score

    return max(one, other, key=key) if one else other


def by_naming(part: Part, specs: list[Spec], asked: bool, file_name: str) -> Known | None:
    """The weights in a part of a file whose names are known; None if they are others."""
    file = part.file
    for reading in readings(file, specs, likely=True):
        if not reading.mismatches:
            weights = canonical(file, reading)
            others = () if asked else readings(file, SPECS.values(), likely=True)
            also = [each.spec.name for each in others if not each.mismatches]
            return finish(reading.spec, reading.naming, weights, also, part, [])
    return None


def by_backbone(
    candidates: list[Part], part: Part, specs: list[Spec], asked: bool, file_name: str
) -> Known | None:
    """The weights in a part of a file whose names are known up to the head, or OtherHead."""
    found = list[Headed]()
    problem: Mismatch | None = None
    for spec in specs:
        for one in (spec, *(with_auxiliary(spec) if asked else ())):
            if tensors(one) - HEAD > len(part.file.arrays):
                continue
            for naming, layers in named(part.file.format, one):
                try:
                    headed = with_head(candidates, part, spec, one, naming, layers)
                except OtherHead as mismatch:
                    problem = worse(problem, mismatch)
                    continue
                found += [headed] if headed else []
    if problem and not found:
        raise problem
    if not found:
        return None
    first, also = found[0], [each.reading.spec.name for each in found]
    weights = canonical(first.file, first.reading)
    reading = first.reading
    return finish(
        reading.spec, reading.naming, weights, also, first.whole, first.notes, first.behind
    )


def by_shape(part: Part, specs: list[Spec], asked: bool, file_name: str) -> Known:
    """The weights in a part of a file by shape and place; Mismatch, with the best reason."""
    problem: Mismatch | None = None
    fits: list[tuple[Match, Format]] = []
    if part.others and sum(array.ndim == 4 for array in part.file.arrays.values()) < LEAST:
        raise Mismatch("it has too few convolutions")
    layouts = {
        layout: matching.prepare(part.file.arrays, FORMATS[layout])
        for layout in LAYOUTS[part.file.format]
    }
    for spec in specs:
        try:
            fits.append(matched(part.file, layouts, spec, asked))
        except Mismatch as mismatch:
            problem = worse(problem, mismatch)
    if not fits:
        assert problem
        raise problem
    match, form = fits[0]
    if not asked and (owner := foreign(part.file, match.spec)):
        raise WeightsError(
            f"{file_name} has {owner} and the layers of {match.spec.name}, which is another "
            f"network: if it pools and pads as {match.spec.name} does, use "
            f"`--spec {match.spec.name}`."
        )
    also = [other.spec.name for other, _ in fits]
    weights = match.weights(part.file.arrays, form)
    return finish(match.spec, BY_SHAPE, weights, also, part, match.notes)


def canonical(file: File, reading: Reading) -> Weights:
    """The weights in a file, as a reading that fits names them."""
    form, names = FORMATS[file.format], reading.names
    return {name: form.canonical(file.arrays[names[name]]) for name in names}


def finish(
    spec: Spec,
    naming: str,
    weights: Weights,
    also: list[str],
    part: Part,
    notes: list[str],
    behind: bool = False,
) -> Known:
    """The known weights in one dtype, with what a package's evaluation does to its head.

    `behind` the package's network stands another head: it does nothing to that.
    """
    kinds = {array.dtype.name for array in weights.values()}
    wide = "float64" if "float64" in kinds else "float32"
    weights = {name: array.astype(wide, copy=False) for name, array in weights.items()}
    notes = list(notes)
    if not behind and (
        naming in (PADDLE_VISION, PADDLE_V3)
        or (naming in (BY_SHAPE, BY_GRAPH) and downscales(spec))
    ):
        weights = undo_downscale_in_infer(spec, weights)
        notes.append("The heads' weights are scaled as paddle.vision scales them in evaluation.")
    if part.file.scales and not isinstance(spec.stage1[0], Affine):
        notes.append(
            f"It scales its images first ({part.file.scales}), which is left out: give the weights "
            "images that are scaled in the same way."
        )
    if part.others:
        first = part.others[0]
        notes.append(f"{len(part.others)} other tensor(s) are left out, the first is {first}.")
    names = tuple(dict.fromkeys(each for each in also if each != spec.name))
    return Known(spec, naming, weights, names, tuple(notes), part.prefix)


def matched(
    file: File, layouts: dict[str, matching.Prepared], spec: Spec, asked: bool
) -> tuple[Match, Format]:
    """The match of a file with a spec in one of the layouts that its format may have.

    Auxiliary heads with other classes than the head are left out, if a spec without them is known.
    """
    best: Mismatch | None = None
    for layout, prepared in layouts.items():
        form = FORMATS[layout]
        for one in (spec, *(with_auxiliary(spec) if asked else ())):
            try:
                found = matching.match(prepared, one, file.format == "onnx")
            except OtherClasses as mismatch:
                own = next(without_auxiliary(one), None)
                if own is None:
                    best = mismatch
                    continue
                found = matching.match(
                    matching.prepare(without_heads(file.arrays, prepared, one), form), own
                )
                found.notes.append(left_out(mismatch))
            except Mismatch as mismatch:
                best = best if best and best.score >= mismatch.score else mismatch
                continue
            if one is not spec and found.spec.auxiliary:
                found.names = {
                    name: found.names[name]
                    for name in found.names
                    if not name.startswith("auxiliary")
                }
                channels, classes = found.spec.input[0], found.spec.head.width
                found.spec = spec.at(channels=channels, classes=classes)
                found.notes.append(NO_AUXILIARY)
            return found, form
    assert best
    raise best


def without_heads(arrays: Weights, prepared: matching.Prepared, spec: Spec) -> Weights:
    """The arrays without the parts that have the layers of the spec's auxiliary heads."""
    matcher = matching.Matcher(*prepared[0], spec)
    return {name: arrays[name] for name in arrays if name not in matcher.auxiliary_tensors()}


def foreign(file: File, spec: Spec) -> str | None:
    """The naming that has all names of the file, if it belongs to other specs."""
    paths = {re.sub(r"[./](\w+)$", "", name) for name in file.arrays}
    for namings in NAMINGS.values():
        for naming, function in namings.items():
            if naming in OWNERS and not belongs(naming, spec):
                for layers in function(spec):
                    if paths <= set(layers.values()):
                        return naming
    return None


def with_own_eps(known: Known) -> Known:
    """The same function for a class whose norms have the spec's own eps."""
    own = find(known.spec.name).norm
    if not (known.spec.norm and own) or known.spec.norm.eps == own.eps:
        return known
    note = (
        f"The class's own eps is {own.eps:.6g}: gamma is multiplied by "
        f"sqrt((var + {own.eps:.6g}) / (var + {known.spec.norm.eps:.6g})), which is exact in "
        "evaluation."
    )
    return replace(
        known,
        spec=known.spec.at(eps=own.eps),
        weights=with_eps(known.weights, known.spec.norm.eps, own.eps),
        notes=(*known.notes, note),
    )


# --- what does not fit
def refusal(
    file: File,
    candidates: list[Part],
    specs: list[Spec],
    spec_name: str | None,
    file_name: str,
    problem: Mismatch | None,
) -> str:
    """The message when no reading fits: the closest reading, and a spec that does fit."""
    if isinstance(problem, Ambiguous) and file.steps:
        return other_function(file, specs, file_name)
    if isinstance(problem, Ambiguous) and all(EXPORTED.search(name) for name in file.arrays):
        return (
            f"{file_name} numbers its layers, and does not say which is which: {problem}; save "
            "`paddle.save(net.state_dict(), 'NAME.pdparams')`, or export the network as ONNX."
        )
    if isinstance(problem, Ambiguous):
        return (
            f"{file_name} has the layers of a known network, but which tensor is which is not "
            f"clear: {problem}; name the layers of all blocks alike, or choose with `--spec`."
        )
    largest = len(candidates[0].file.arrays)
    likely = [part for part in candidates if len(part.file.arrays) > largest / 2]
    asked = [each for part in likely for each in readings(part.file, specs)]
    best = max(asked, key=lambda reading: (reading.score, -len(reading.mismatches)))
    if spec_name:
        others = (other for other in SPECS if other != spec_name and fits_spec(candidates, other))
        if other := next(others, None):
            why = best.mismatches[0] if best.mismatches else str(problem)
            return (
                f"{file_name} does not hold the weights of {spec_name}: {why}; it holds those of "
                f"{other}: use `--spec {other}`."
            )
    if file.unread:
        return f"{file_name} {file.unread}"
    by_name = best.score > -len(file.arrays) and any(
        set(best.names.values()) & set(part.file.arrays) for part in likely
    )
    if not by_name and (not problem or problem.score < LEAST):
        return (
            f"{file_name} is {TITLES[file.format]} of an unknown network: its first "
            f"tensor is {next(iter(file.arrays))}; `googlenet specs` lists the networks."
        )
    reason = best.mismatches[0] if by_name and best.mismatches else str(problem)
    headless = [each for each in best.mismatches if re.search(r"\bhead\.weight\b", each)]
    if headless and all("head." in each or "auxiliary." in each for each in best.mismatches):
        reason = f"its head is missing: {headless[-1]}"
    if by_name and problem and len(best.mismatches) > len(best.names) / 2:
        reason = str(problem)
    if spec_name:
        return f"{file_name} does not hold the weights of {spec_name}: {reason}; no spec fits."
    closest = f" ({best.spec.name} comes closest)" if by_name else ""
    return f"{file_name} holds the weights of no spec: {reason}{closest}."


def fits_spec(candidates: list[Part], name: str) -> bool:
    """Whether a part of the file fits a spec."""
    for part in candidates:
        try:
            specs = [find(name)]
            if by_naming(part, specs, True, "") or by_backbone(candidates, part, specs, True, ""):
                return True
            by_shape(part, specs, True, "")
            return True
        except Mismatch:
            continue
    return False
