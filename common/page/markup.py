"""Small conversions from Markdown and numbers to the page's HTML."""

from __future__ import annotations

import re
from pathlib import Path

from markupsafe import Markup


def guide_titles(path: Path) -> dict[str, str]:
    """The heading of each section of the guide that has an anchor, by the anchor."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError):
        return {}
    anchored = r'<a id="([^"]+)"></a>\s*(?:#+ *([^\n]+))?|^#+ *([^\n]*?) *<a id="([^"]+)"></a>'
    found = {}
    for before, heading, title, after in re.findall(anchored, text, re.M):
        found[before or after] = heading or title or before or after
    return found


def markdown_table(text: str, head: str) -> list[list[str]]:
    """The cells of the first Markdown table with a column of that name; ValueError if none."""
    lines = text.splitlines()
    for at, line in enumerate(lines):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and head in cells and set(lines[at + 1]) <= set("|-: "):
            rows = [cells]
            for each in lines[at + 2 :]:
                if not each.startswith("|"):
                    break
                rows.append([cell.strip() for cell in each.strip().strip("|").split("|")])
            if any(len(row) != len(cells) for row in rows):
                break
            return rows
    raise ValueError(f"no table with a column {head!r}")


def inline(text: str) -> Markup:
    """Text with `code` and **strong** words as HTML."""
    parts = re.split(r"`([^`]+)`", text)
    out = Markup("")
    for index, part in enumerate(parts):
        if index % 2:
            out += Markup("<code>{}</code>").format(part)
        else:
            pieces = part.split("**")
            for at, piece in enumerate(pieces):
                out += (
                    Markup("<strong>{}</strong>").format(piece) if at % 2 else Markup.escape(piece)
                )
    return out


def science(value: float | None) -> str:
    """A number in the short form of a small error: 4e-15."""
    if value is None:
        return "–"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}" if abs(int(exponent)) > 3 else f"{value:.2g}"


def shape_text(shape: tuple[int, ...]) -> str:
    """The shape of a batch of N, as text."""
    return "(" + ", ".join(["N", *map(str, shape[1:])]) + ")"
