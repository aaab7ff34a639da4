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
    """The whole file, and each part of it that has at least LEAST tensors; larger ones first.

    With a key, the tensors under it are the whole file.
    """
    start = re.compile("" if key is None else re.escape(key.rstrip("./")) + r"[./]")
    top = "" if key is None else key.rstrip("./")
    counts: dict[str, list[str]] = {}
    for name in filter(start.match, file.arrays):
        counts.setdefault(top, []).append(name)
        for at in re.compile(r"[./]").finditer(name, len(top) + bool(top)):
            counts.setdefault(name[: at.start()], []).append(name)
    for prefix in sorted(counts, key=lambda each: -len(counts[each])):
        names = counts[prefix]
        if prefix != top and len(names) < LEAST:
            continue
        arrays = {name[len(prefix) + bool(prefix) :]: file.arrays[name] for name in names}
        inside = set(names)
        others = [name for name in counts[top] if name not in inside]
        yield Part(prefix, replace(file, arrays=arrays), others)


def nothing_under(file_name: str, key: str | None, file: File) -> str:
    """The sentence for a key that is not there: the first words of the names."""
    tops = dict.fromkeys(re.split(r"[./]", name)[0] for name in file.arrays)
    return f"{file_name} holds nothing under {key!r}: it has {', '.join([*tops][:20])}."
