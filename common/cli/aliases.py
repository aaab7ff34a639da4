"""Old spellings of options. They still work, and `--help` does not show them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

OLD_OPTIONS = {"--plant": "--inject"}  #: old spelling -> new spelling


def renamed(arguments: Sequence[str], options: Collection[str]) -> list[str]:
    """Return a command's arguments, with the new spelling of those of its `options`."""
    found = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        new = OLD_OPTIONS.get(option, option)
        found.append(new + equals + value if new in options else argument)
    return found
