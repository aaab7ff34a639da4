"""Checks of what is read from the JSON of a run. Its files may come from anyone.

Each check raises ValueError with a sentence that names the field, and returns the value.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import MISSING, fields
from typing import Any

LONGEST = 200  #: characters of a name
MOST_TEXT = 2**26  #: characters of JSON in a file: the losses of about three million steps
MOST_PARTS = 10**6  #: lists and objects in it


def parse(text: str) -> Any:
    """Return the value of a JSON text; ValueError if it is none, or would fill the memory."""
    if len(text) > MOST_TEXT or text.count("[") + text.count("{") > MOST_PARTS:
        raise ValueError("its JSON is larger than that of any run")
    return json.loads(text)


def named(kind: type, found: Any, what: str) -> dict[str, Any]:
    """Return an object whose keys are the fields of a dataclass; fields with a default may lack."""
    if not isinstance(found, dict):
        raise ValueError(f"its {what} is {shown(found)}, not an object with fields")
    known = fields(kind)
    for name in found.keys() - {each.name for each in known}:
        raise ValueError(
            f"its {what} has the field {shown(name)}, which this version does not know: update "
            "this program"
        )
    for each in known:
        optional = each.default is not MISSING or each.default_factory is not MISSING
        if each.name not in found and not optional:
            raise ValueError(f"its {what} lacks the field {each.name}")
    return found


def whole(name: str, value: Any, least: int, most: int) -> int:
    """Check an integer in a range."""
    holds = type(value) is int and least <= value <= most
    checked: int = _checked(holds, name, value, f"a whole number from {least} to {most}")
    return checked


def number(name: str, value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    """Check a finite number in a range."""
    finite = type(value) in (int, float) and abs(value) <= sys.float_info.max
    holds = finite and least <= value <= most
    bounds = "" if math.isinf(least) else f", at least {least:g}"
    bounds += "" if math.isinf(most) else f" and at most {most:g}"
    checked: float = _checked(holds, name, value, f"a finite number{bounds}")
    return checked


def text(name: str, value: Any, longest: int = LONGEST) -> str:
    """Check a text. It may hold any character: who prints it must use `printable`."""
    holds = isinstance(value, str) and len(value) <= longest
    checked: str = _checked(holds, name, value, f"a text of at most {longest} characters")
    return checked


def plain(name: str, value: Any) -> str:
    """Check a short text without control characters, such as a version."""
    holds = isinstance(value, str) and value.isprintable() and len(value) <= LONGEST
    checked: str = _checked(holds, name, value, f"a printable text of at most {LONGEST} characters")
    return checked


def listed(name: str, value: Any, most: int) -> list[Any]:
    """Check a list."""
    holds = isinstance(value, (list, tuple)) and len(value) <= most
    checked: list[Any] = _checked(holds, name, value, f"a list of at most {most} values")
    return checked


def shown(value: Any) -> str:
    """Return the beginning of a value of any size and kind, for a message."""
    if isinstance(value, (dict, list, tuple)):
        return f"a list or object of {len(value)}"
    return ascii(value[:40] if isinstance(value, str) else value)[:60]


def _checked(holds: bool, name: str, value: Any, rule: str) -> Any:
    if not holds:
        raise ValueError(f"its {name} is {shown(value)}: it must be {rule}")
    return value
