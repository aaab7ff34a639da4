"""Aligns code of the four frameworks as lines of HTML: what matches stands in one row."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from markupsafe import Markup
from pygments.lexers import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, String, Token

from common.page.source import FORWARD

PROSE = ("c", "s")  # classes whose tokens are compared word by word
ALIKE = 0.5  # lines that share less of their words do not match

#: classes of the style sheet; a token has the class of its nearest ancestor in this table
CLASSES = {
    Comment: "c",
    Keyword: "k",
    Keyword.Constant: "m",
    Name.Function: "f",
    Name.Class: "f",
    Name.Builtin.Pseudo: "b",
    Number: "m",
    String: "s",
    String.Doc: "c",
}


@dataclass(frozen=True)
class Piece:
    """A part of one line that is one token for the lexer."""

    text: str
    css: str


@dataclass
class Column:
    """One framework's code in a topic, aligned with the other columns."""

    backend: str
    path: str
    code: str
    html: list[Markup | None] = field(default_factory=list)  #: each row's line with marks, or None
    absent: list[str] = field(
        default_factory=list
    )  #: for each row, classes of the columns without it


def tokens(lines: Sequence[str]) -> list[list[Piece]]:
    """The lines as pieces, coloured as parts of the whole code."""
    rows: list[list[Piece]] = [[]]
    for kind, text in PythonLexer(stripnl=False).get_tokens("\n".join(lines) + "\n"):
        while kind is not Token and kind not in CLASSES:
            kind = kind.parent
        css = CLASSES.get(kind, "")
        for index, part in enumerate(text.split("\n")):
            if index:
                rows.append([])
            words = re.findall(r"\s+|\S+", part) if css in PROSE else [part]
            rows[-1] += [Piece(word, css) for word in words if word]
    return rows[: len(lines)]


def align(snippets: Mapping[str, tuple[str, Sequence[str]]]) -> list[Column]:
    """The snippets (path and lines by backend) as columns with equal numbers of rows."""
    columns = [Column(name, path, "\n".join(code)) for name, (path, code) in snippets.items()]
    pieces = {name: tokens(code) for name, (_, code) in snippets.items()}
    words = {name: [_words(line) for line in rows] for name, rows in pieces.items()}
    groups: list[dict[str, int]] = []
    for column in columns:
        groups = _merge(groups, column.backend, words)
    number = {column.backend: index for index, column in enumerate(columns)}
    for row in _pack(groups):
        for column in columns:
            group = next((each for each in row if column.backend in each), None)
            if group is None:
                column.html.append(None)
                column.absent.append("")
                continue
            mine = pieces[column.backend][group[column.backend]]
            others = {
                f"n{number[each]}": pieces[each][group[each]]
                for each in group
                if each != column.backend
            }
            column.html.append(marked(mine, others))
            column.absent.append(
                " ".join(f"x{number[each]}" for each in number if each not in group)
            )
    return columns


def _pack(groups: Sequence[dict[str, int]]) -> list[list[dict[str, int]]]:
    """The fewest rows that keep each column in order; groups of different columns share one."""
    rows: list[list[dict[str, int]]] = []
    below: dict[str, int] = {}  # the first row that is free in each column
    for group in groups:
        at = max(below.get(name, 0) for name in group)
        if at == len(rows):
            rows.append([])
        rows[at].append(group)
        below |= dict.fromkeys(group, at + 1)
    return rows


def stack(parts: Sequence[tuple[list[Column], bool]]) -> list[Column]:
    """The columns of several parts, one below the other, with blank lines around blocks."""
    first, before = parts[0]
    for part, block in parts[1:]:
        for column, more in zip(first, part, strict=True):
            apart = bool((block or before) and column.code and more.code)
            if block or before:
                column.html.append(Markup("") if apart else None)
                column.absent.append("")
            column.code += "\n" * (bool(column.code and more.code) + apart) + more.code
            column.html += more.html
            column.absent += more.absent
        before = block
    return first


@dataclass(frozen=True)
class Words:
    """What lines are matched by: the words, and what the line defines or assigns, if anything."""

    count: Counter[str]
    defines: str


def _words(line: Sequence[Piece]) -> Words:
    text = "".join(piece.text for piece in line)
    found = re.match(r"\s*(?:(?:def|class) (\w+)|([\w.]+(?:, [\w.]+)*) = )", text)
    name = (found[1] or found[2]) if found else ""
    words = Counter(piece.text for piece in line if piece.text.strip())
    return Words(words, FORWARD[0] if name in FORWARD else name)


def _merge(
    rows: list[dict[str, int]], name: str, words: Mapping[str, list[Words]]
) -> list[dict[str, int]]:
    """The rows with one more column: lines that share most words stand side by side."""
    mine = words[name]
    if not rows:
        return [{name: index} for index in range(len(mine))]

    def alike(row: dict[str, int], index: int) -> float:
        scores = [_alike(words[other][at], mine[index]) for other, at in row.items()]
        return max(scores) - ALIKE

    height, width = len(rows), len(mine)
    best = [
        [0.0] * (width + 1) for _ in range(height + 1)
    ]  # score of the rest, below and to the right
    for y in reversed(range(height)):
        for x in reversed(range(width)):
            pair = best[y + 1][x + 1] + alike(rows[y], x)
            best[y][x] = max(pair, best[y + 1][x], best[y][x + 1])
    merged, y, x = [], 0, 0
    while y < height or x < width:
        if y < height and x < width and best[y][x] == best[y + 1][x + 1] + alike(rows[y], x):
            merged.append({**rows[y], name: x})
            y, x = y + 1, x + 1
        elif y < height and best[y][x] == best[y + 1][x]:
            merged.append(rows[y])
            y += 1
        else:
            merged.append({name: x})
            x += 1
    return merged


def _alike(a: Words, b: Words) -> float:
    """The share of common words. Lines that define the same name match, others' share is halved.

    Two blank lines score just above the limit.
    """
    total = a.count.total() + b.count.total()
    if not total:
        return ALIKE + 0.01
    share = 2 * (a.count & b.count).total() / total
    if a.defines and a.defines == b.defines:
        return max(share, 0.9)
    return share / 2 if a.defines or b.defines else share


def marked(mine: Sequence[Piece], others: Mapping[str, Sequence[Piece]] = {}) -> Markup:
    """The line; a piece that is not in another column's line gets that column's class."""
    texts = [piece.text for piece in mine]
    lacking: list[list[str]] = [[] for _ in mine]
    for css, line in others.items():
        matcher = SequenceMatcher(None, texts, [piece.text for piece in line], autojunk=False)
        shared = {
            index
            for block in matcher.get_matching_blocks()
            for index in range(block.a, block.a + block.size)
        }
        for index, text in enumerate(texts):
            if index not in shared and text.strip():
                lacking[index].append(css)
    out: list[tuple[str, str]] = []
    for piece, lacks in zip(mine, lacking, strict=True):
        css = " ".join([piece.css, *lacks]).strip()
        if out and out[-1][0] == css:
            out[-1] = (css, out[-1][1] + piece.text)
        else:
            out.append((css, piece.text))
    parts = [
        Markup('<span class="{}">{}</span>').format(css, text) if css else Markup.escape(text)
        for css, text in out
    ]
    return Markup("").join(parts)
