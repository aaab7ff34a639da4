"""The parts of a weight file that may be a network: its dicts, and what is behind a wrapper."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from common.formats.readers.base import File

LEAST = 8  #: tensors of a part of a file that may be a network


@dataclass(frozen=True)
class Part:
    """The tensors whose names begin with `prefix`, by the rest of their names."""

    prefix: str
    file: File
    others: list[str] = field(default_factory=list)  #: the names of the other tensors

    def overlaps(self, other: Part) -> bool:
        """Whether one of the two parts lies in the other."""
        one, two = (re.split(r"[./]", part.prefix) if part.prefix else [] for part in (self, other))
        count = min(len(one), len(two))
        return one[:count] == two[:count]


def parts(file: File, key: str | None = None) -> Iterator[Part]:
    """The whole file, and each part of it that has at least LEAST tensors; larger ones first."""
    if key is not None:
        inside = below(file, key)
        if inside:
            yield from parts(Part(key, inside).file)
        return
    counts: dict[str, list[str]] = {"": list(file.arrays)}
    for name in file.arrays:
        for at in re.finditer(r"[./]", name):
            counts.setdefault(name[: at.start()], []).append(name)
    for prefix in sorted(counts, key=lambda each: -len(counts[each])):
        names = counts[prefix]
        if prefix and len(names) < LEAST:
            continue
        arrays = {name[len(prefix) + bool(prefix) :]: file.arrays[name] for name in names}
        inside_ = set(names)
        others = [name for name in file.arrays if name not in inside_]
        yield Part(prefix, replace(file, arrays=arrays), others)


def below(file: File, key: str) -> File | None:
    """The tensors under a key, without it."""
    start = re.compile(re.escape(key.rstrip("./")) + r"[./]")
    arrays = {start.sub("", name, 1): a for name, a in file.arrays.items() if start.match(name)}
    return replace(file, arrays=arrays) if arrays else None


def tops(file: File) -> list[str]:
    """The first words of the names."""
    return list(dict.fromkeys(re.split(r"[./]", name)[0] for name in file.arrays))[:20]
