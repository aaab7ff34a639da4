"""Matches the layers of a file with those of a spec: by shape, order and place, not by name.

An Inception block is found as the part of the file that has exactly its convolutions: those whose
names begin alike, or else the next ones in the order of the file. A program builds all its blocks
with the same code, so a layer has the same place in each of them. Blocks whose convolutions all
differ in shape tell the places for the others. What is left open by this is decided by names that
begin alike within a branch, or refused with the candidates. Nothing is guessed.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

from common.errors import SpecError
from common.formats.assembly import Ambiguous, Match, Mismatch, assemble, note
from common.formats.layers import Layer, Unit, in_order, layers_of, units_of
from common.formats.naming import Format
from common.spec import Spec
from common.weights import Weights, shapes

Shape = tuple[int, ...]
MOST_SOLUTIONS = 24
CONVOLUTION_AS_HEAD = "Its head is a 1x1 convolution: it becomes a linear layer."


Prepared = list[tuple[list[Unit], list[Layer]]]


@dataclass
class Wanted:
    """A convolution or linear layer of the spec."""

    name: str
    block: str  #: `stage3.0`, `auxiliary.0`, or nothing in the stem
    shape: Shape

    @property
    def role(self) -> str:
        """Its place in the block."""
        return self.name.removeprefix(f"{self.block}.")


@cache
def wanted(spec: Spec) -> list[Wanted]:
    """The convolutions and linear layers of a spec; a layer is in a block if its name says so."""
    found = []
    for tensor, shape in shapes(spec).items():
        layer, _, leaf = tensor.rpartition(".")
        if leaf == "weight" and len(shape) > 1:
            first, _, rest = layer.partition(".")
            block = f"{first}.{rest.partition('.')[0]}" if rest else ""
            inside = layer.removeprefix(f"{block}.") not in (layer, "conv")
            found.append(Wanted(layer, block if inside else "", shape))
    return found


def prepare(arrays: Weights, form: Format) -> Prepared:
    """The units of a file in each order that they may have; for `match`."""
    return [units_of(layers_of(names, arrays), arrays, form) for names in in_order(arrays)]


def match(prepared: Prepared, spec: Spec, folded: bool = False) -> Match:
    """Find the layers of a spec in a file; the channels and classes are the file's own.

    `folded` accepts convolutions without norms, as an exporter leaves them after folding. Mismatch
    says what does not fit, Ambiguous which tensors could be exchanged.
    """
    failed: Mismatch | None = None
    found: list[Match] = []
    for units, rest in prepared:
        try:
            one = Matcher(units, rest, spec, folded).match()
        except Mismatch as mismatch:
            failed = failed if failed and failed.score >= mismatch.score else mismatch
            continue
        found.append(one)
        if not one.by_order:
            break
    if not found:
        assert failed
        raise failed
    if any(one.names != found[0].names for one in found):
        raise Ambiguous(
            "its layers can be taken in two orders, that of the file and that of their numbers"
        )
    return found[0]


class Matcher:
    """Matches units with a spec; an index counts them in their order."""

    def __init__(
        self, units: list[Unit], rest: list[Layer], spec: Spec, folded: bool = False
    ) -> None:
        self.units, self.rest, self.folded = units, rest, folded
        self.spec = self.fitted(spec)
        self.wanted = wanted(self.spec)
        self.score = sum(
            (
                Counter(each.shape for each in self.wanted) & Counter(unit.shape for unit in units)
            ).values()
        )

    def auxiliary_tensors(self) -> set[str]:
        """The names of the tensors in the parts that have the layers of the auxiliary heads."""
        blocks: dict[str, list[Wanted]] = defaultdict(list)
        for each in self.wanted:
            if each.block.startswith("auxiliary"):
                blocks[each.block].append(each)
        found = set[str]()
        for members in self.places(blocks).values():
            for index in members:
                unit = self.units[index]
                found |= {*unit.tensors.values()}
                found |= {*unit.norm.tensors.values()} if unit.norm else set()
        return found

    def mismatch(self, reason: str) -> Mismatch:
        """A mismatch with the score."""
        return Mismatch(reason, self.score)

    def fitted(self, spec: Spec) -> Spec:
        """The spec with the channels of the file's first convolution."""
        first = next(each.shape for each in wanted(spec) if len(each.shape) == 4)
        found = [
            unit.shape[1]
            for unit in self.units
            if (unit.shape[0], *unit.shape[2:]) == (first[0], *first[2:])
        ]
        if not found or first[1] in found:
            return spec
        try:
            own = spec.at(channels=found[0])
            own.channels()
        except SpecError:
            return spec
        return own

    def match(self) -> Match:
        """Assign every layer of the spec; Mismatch unless all of the file's are used."""
        self.require_shapes()
        blocks: dict[str, list[Wanted]] = defaultdict(list)
        for each in self.wanted:
            blocks[each.block].append(each)
        stem = blocks.pop("", [])
        places = self.places(blocks)
        assigned = dict[str, int]()
        for group in classes_of(blocks):
            assigned |= self.roles({name: (blocks[name], places[name]) for name in group})
        used = {index for members in places.values() for index in members}
        free = [index for index in range(len(self.units)) if index not in used]
        convs = [index for index in free if len(self.units[index].shape) == 4]
        (head,) = (each for each in stem if len(each.shape) == 2)
        linear = [index for index in free if index not in convs]
        if not linear:
            flat = {index: as_linear(self.units[index]) for index in convs}
            linear = [index for index in convs if flat[index].shape[1:] == head.shape[1:]]
            convs = [index for index in convs if index not in linear]
        assigned |= self.in_sequence([each for each in stem if each is not head], convs)
        assigned |= self.head(head, linear)
        if self.rest:
            name = next(iter(self.rest[0].tensors.values()))
            raise self.mismatch(f"{name} is one tensor too many")
        found = {each.name: self.units[assigned[each.name]] for each in self.wanted}
        converted = len(found[head.name].shape) == 4
        found[head.name] = as_linear(found[head.name])
        try:
            result = assemble(self.spec, found, self.folded, self.by_order)
        except Mismatch as mismatch:
            mismatch.score += self.score
            raise
        if converted:
            note(result, CONVOLUTION_AS_HEAD)
        return result

    def require_shapes(self) -> None:
        """Mismatch, with the first convolution of the spec that the file lacks."""
        lacking: Counter[Shape] = Counter()
        lacking.update(each.shape for each in self.wanted if len(each.shape) == 4)
        lacking.subtract(self.shapes(range(len(self.units))))
        for each in self.wanted:
            if lacking[each.shape] > 0:
                raise self.mismatch(f"it has no convolution {each.shape} for {each.name}.weight")

    # --- blocks
    def places(self, blocks: dict[str, list[Wanted]]) -> dict[str, list[int]]:
        """The units of each block, in their order."""
        self.by_order = False
        for separators in ("./", "./_"):
            found = self.by_prefix(blocks, separators)
            if found is not None:
                return found
        self.by_order = True
        return self.by_sequence(blocks)

    def by_prefix(
        self, blocks: dict[str, list[Wanted]], separators: str
    ) -> dict[str, list[int]] | None:
        """The blocks as parts of the file whose names begin alike; None if they are not."""
        parts: dict[str, list[int]] = defaultdict(list)
        for index, unit in enumerate(self.units):
            for at in re.finditer(f"[{separators}]", unit.path):
                parts[unit.path[: at.start()]].append(index)
        by_content: dict[object, list[list[int]]] = defaultdict(list)
        for members in parts.values():
            content = contents([self.units[index].shape for index in members])
            if members not in by_content[content]:
                by_content[content].append(members)
        alike: dict[object, list[str]] = defaultdict(list)
        for name, wanted_ in blocks.items():
            alike[contents([each.shape for each in wanted_])].append(name)
        found = dict[str, list[int]]()
        for content, names in alike.items():
            sets = sorted(by_content.get(content, []))
            if len(sets) != len(names):
                return None
            found |= dict(zip(names, sets, strict=True))
        used = [index for taken in found.values() for index in taken]
        return found if len(used) == len(set(used)) else None

    def by_sequence(self, blocks: dict[str, list[Wanted]]) -> dict[str, list[int]]:
        """The blocks as the next convolutions in the order of the file."""
        order = [index for index, unit in enumerate(self.units) if len(unit.shape) == 4]
        found, at = {}, 0
        stages = list(dict.fromkeys(each.block or each.name for each in self.wanted))
        for name in stages:
            members = blocks.get(name) or [each for each in self.wanted if each.name == name]
            if name.startswith("auxiliary") and name in blocks:
                raise Ambiguous(
                    "its auxiliary heads are not separated from the rest by their names",
                    self.score,
                )
            if any(len(each.shape) == 2 for each in members):
                continue
            taken = order[at : at + len(members)]
            at += len(members)
            if Counter(self.units[i].shape for i in taken) != Counter(e.shape for e in members):
                odd = (Counter(e.shape for e in members) - self.shapes(taken)).elements()
                missing = next(odd, members[-1].shape)
                each = next(each for each in members if each.shape == missing)
                raise self.mismatch(f"it has no convolution {missing} for {each.name}.weight")
            if name in blocks:
                found[name] = taken
        return found

    def shapes(self, indices: Sequence[int]) -> Counter[Shape]:
        """The shapes of these units."""
        return Counter(self.units[index].shape for index in indices)

    # --- places in a block
    def roles(self, group: dict[str, tuple[list[Wanted], list[int]]]) -> dict[str, int]:
        """The unit of each layer in blocks that are built alike."""
        ids = self.ids([members for _, members in group.values()])
        roles = [each.role for each in next(iter(group.values()))[0]]
        allowed: dict[str, set[str]] = {one: set(roles) for one in ids[0]}
        for (layers, members), local in zip(group.values(), ids, strict=True):
            for index, one in zip(members, local, strict=True):
                allowed[one] &= {
                    each.role for each in layers if fits(each, self.units[index].shape)
                }
        found = list(solutions(allowed))
        if not found:
            name = next(iter(group))
            raise self.mismatch(
                f"the layers of {name} do not have the places that they have in others"
            )
        best = self.decided(found, group)
        result = {}
        for name, (_, members) in group.items():
            local = ids[list(group).index(name)]
            for index, one in zip(members, local, strict=True):
                result[f"{name}.{best[one]}"] = index
        return result

    def ids(self, blocks: list[list[int]]) -> list[list[str]]:
        """The places of units in their blocks: their names without the block's, or numbers."""
        named = []
        for members in blocks:
            paths = [self.units[index].path for index in members]
            start = common_start(paths)
            start = start[: max(start.rfind(each) for each in "./_") + 1]
            named.append([path.removeprefix(start) for path in paths])
        if self.by_order or any(sorted(each) != sorted(named[0]) for each in named):
            return [[str(number) for number in range(len(members))] for members in blocks]
        return named

    def decided(
        self, found: list[dict[str, str]], group: dict[str, tuple[list[Wanted], list[int]]]
    ) -> dict[str, str]:
        """The solution in which the names of each branch begin alike; Ambiguous if none is best."""
        if len(found) == 1:
            return found[0]

        def alike(solution: dict[str, str]) -> int:
            branches: dict[str, list[str]] = defaultdict(list)
            for one, role in solution.items():
                branches[role.removesuffix(".conv").rpartition(".")[0]].append(one)
            return sum(len(common_start(names)) for names in branches.values() if names[1:])

        ranked = sorted(found, key=alike, reverse=True)
        if alike(ranked[0]) > alike(ranked[1]) and not ranked[0].keys() <= set(map(str, range(99))):
            return ranked[0]
        name, (_, members) = next(iter(group.items()))
        local = self.ids([members])[0]
        open_ = [one for one in local if len({solution[one] for solution in found}) > 1][:3]
        paths = [self.units[members[local.index(one)]].path for one in open_]
        roles = dict.fromkeys(solution[one] for one in open_ for solution in found)
        raise Ambiguous(
            f"{' and '.join(paths)} fit {' and '.join(f'{name}.{role}' for role in roles)} either "
            "way",
            self.score,
        )

    # --- the stem and the head
    def in_sequence(self, layers: list[Wanted], indices: list[int]) -> dict[str, int]:
        """The convolutions of the stem: in their order, or by shapes of which none occurs twice."""
        shapes_found = [self.units[index].shape for index in indices]
        if [each.shape for each in layers] == shapes_found:
            return {each.name: index for each, index in zip(layers, indices, strict=True)}
        found = {}
        left = list(indices)
        for each in layers:
            fit = [index for index in left if self.units[index].shape == each.shape]
            if not fit:
                raise self.mismatch(f"it has no convolution {each.shape} for {each.name}.weight")
            if len(fit) > 1:
                raise Ambiguous(
                    f"{' and '.join(self.units[index].path for index in fit)} fit {each.name}",
                    self.score,
                )
            found[each.name] = fit[0]
            left.remove(fit[0])
        if left:
            raise self.mismatch(f"{self.units[left[0]].path} is one layer too many")
        return found

    def head(self, head: Wanted, indices: list[int]) -> dict[str, int]:
        """The head: the linear layer over the features; its width is the number of classes."""
        fit = [index for index in indices if self.units[index].shape[1] == head.shape[1]]
        if not fit:
            raise self.mismatch(
                f"its head is missing: no linear layer has {head.shape[1]} features"
            )
        if len(indices) > 1:
            odd = next((index for index in indices if index not in fit), fit[-1])
            raise self.mismatch(f"{self.units[odd].path} is one linear layer too many")
        return {head.name: fit[0]}


def as_linear(unit: Unit) -> Unit:
    """A 1x1 convolution without a norm as a linear layer."""
    plain = unit.shape[2:] == (1, 1) and not unit.norm
    return replace(unit, shape=unit.shape[:2]) if plain else unit


def common_start(names: Sequence[str]) -> str:
    """The longest text that all names begin with."""
    first, last = min(names), max(names)
    return next((first[:at] for at, each in enumerate(first) if last[at : at + 1] != each), first)


def contents(found: Sequence[Shape]) -> object:
    """What is compared of a block: its convolutions, and the features of its linear layers."""
    convs = Counter(shape for shape in found if len(shape) == 4)
    return frozenset(convs.items()), tuple(sorted(shape[1] for shape in found if len(shape) == 2))


def fits(each: Wanted, shape: Shape) -> bool:
    """Whether a unit may be this layer; the classes of a head are free."""
    if each.role == "head":
        return shape[1:] == each.shape[1:]
    return shape == each.shape


def classes_of(blocks: dict[str, list[Wanted]]) -> list[list[str]]:
    """The blocks that are built alike: equal places and kernels."""
    found: dict[object, list[str]] = defaultdict(list)
    for name, members in blocks.items():
        found[tuple((each.role, each.shape[2:]) for each in members)].append(name)
    return list(found.values())


def solutions(allowed: dict[str, set[str]]) -> Iterator[dict[str, str]]:
    """The ways to give every place one role, at most MOST_SOLUTIONS."""
    places = sorted(allowed, key=lambda one: len(allowed[one]))
    count = 0

    def extend(at: int, taken: dict[str, str]) -> Iterator[dict[str, str]]:
        nonlocal count
        if count >= MOST_SOLUTIONS:
            return
        if at == len(places):
            count += 1
            yield dict(taken)
            return
        for role in sorted(allowed[places[at]] - set(taken.values())):
            yield from extend(at + 1, {**taken, places[at]: role})

    yield from extend(0, {})
