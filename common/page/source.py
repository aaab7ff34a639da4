"""Finds code of the backends by name in the parsed source, and aligns it as lines of HTML.

An address is a path of names inside a file: `Conv`, `GoogLeNet.forward` (each framework has its own
name for it), `GoogLeNet.__init__.head` (the assignment), `layer.MaxPool` (the body of that case).
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import lru_cache
from pathlib import Path

from markupsafe import Markup
from pygments.lexers import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, String, Token

from common.errors import PageError

FORWARD = ("forward", "call", "hybrid_forward")  # the frameworks' names for the same method
PROSE = ("c", "s")  # classes whose tokens are compared word by word
ALIKE = 0.4  # lines that share less of their words do not stand side by side

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


@lru_cache
def parse(path: Path) -> tuple[ast.Module, tuple[str, ...]]:
    """The syntax tree and the lines of a file; PageError if it cannot be parsed."""
    try:
        text = path.read_text()
        return ast.parse(text), tuple(text.splitlines())
    except (OSError, SyntaxError, ValueError) as error:
        raise PageError(f"{path} cannot be read as Python ({error}).") from error


def find(path: Path, address: str) -> list[ast.AST]:
    """The statements at an address; PageError if the file has no such address."""
    tree, _ = parse(path)
    found: list[ast.AST] = [tree]
    for name in address.split("."):
        found = [node for outer in found for node in _named(outer, name)]
    if not found:
        raise PageError(
            f"{path.parent.name}/{path.name} has no `{address}`, which the page shows: change the "
            "address in common/page/topics.py."
        )
    return found


def has(path: Path, address: str) -> bool:
    """Whether the file has that address."""
    try:
        return bool(find(path, address))
    except PageError:
        return False


def _named(outer: ast.AST, name: str) -> list[ast.AST]:
    names = FORWARD if name in FORWARD else (name,)
    for node in getattr(outer, "body", []):
        match node:
            case ast.FunctionDef() | ast.ClassDef() if node.name in names:
                return [node]
            case ast.Assign():
                targets = {getattr(each, "attr", getattr(each, "id", "")) for each in node.targets}
                if name in targets:
                    return [node]
            case ast.With():
                if inside := _named(node, name):
                    return inside
            case ast.Match():
                for case in node.cases:
                    pattern = case.pattern
                    either = pattern.patterns if isinstance(pattern, ast.MatchOr) else [pattern]
                    kinds = [each.cls for each in either if isinstance(each, ast.MatchClass)]
                    if name in [ast.unparse(kind).rpartition(".")[2] for kind in kinds]:
                        return list(case.body)
    return []


def cut(path: Path, address: str) -> list[str]:
    """The lines at an address, without their common indentation."""
    nodes = find(path, address)
    decorated = (nodes[0], *getattr(nodes[0], "decorator_list", []))
    begin = min(node.lineno for node in decorated)
    lines = parse(path)[1][begin - 1 : nodes[-1].end_lineno]  # type: ignore[attr-defined]
    return textwrap.dedent("\n".join(lines)).splitlines()


def is_block(path: Path, address: str) -> bool:
    """Whether the address is a function or a class, which gets blank lines around it."""
    return isinstance(find(path, address)[0], (ast.FunctionDef, ast.ClassDef))


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
    words = {name: [Counter(_words(line)) for line in rows] for name, rows in pieces.items()}
    rows: list[dict[str, int]] = []
    for column in columns:
        rows = _merge(rows, column.backend, words)
    number = {column.backend: index for index, column in enumerate(columns)}
    for row in rows:
        missing = [f"x{number[each]}" for each in number if each not in row]
        for column in columns:
            at = row.get(column.backend)
            if at is None:
                column.html.append(None)
                column.absent.append("")
                continue
            mine = pieces[column.backend][at]
            others = {
                f"n{number[each]}": pieces[each][row[each]]
                for each in row
                if each != column.backend
            }
            column.html.append(_marked(mine, others))
            column.absent.append(" ".join(missing))
    return columns


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


def _words(line: Sequence[Piece]) -> list[str]:
    return [piece.text for piece in line if piece.text.strip()]


def _merge(
    rows: list[dict[str, int]], name: str, words: Mapping[str, list[Counter[str]]]
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


def _alike(a: Counter[str], b: Counter[str]) -> float:
    """The share of common words; two blank lines score just above the limit."""
    count = a.total() + b.total()
    return 2 * (a & b).total() / count if count else ALIKE + 0.01


def _marked(mine: Sequence[Piece], others: Mapping[str, Sequence[Piece]]) -> Markup:
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


@lru_cache
def uses(path: Path) -> tuple[dict[str, str], list[tuple[int, str]]]:
    """The full name of each import, and every name that the file uses, with its line number."""
    tree, _ = parse(path)
    imported: dict[str, str] = {}
    names = []
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                imported |= {alias.asname or alias.name: alias.name for alias in node.names}
            case ast.ImportFrom():
                imported |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
            case ast.Attribute() | ast.Name():
                names.append((node.lineno, ast.unparse(node)))
    return imported, sorted(names)


def where_used(path: Path, call: str) -> tuple[int, str] | None:
    """The first line that uses a name such as `nn.Conv2d`, and the full name; None if unused."""
    imported, names = uses(path)
    for line, text in names:
        if text == call or text.endswith(f".{call}"):
            first, dot, rest = call.partition(".")
            return line, imported.get(first, first) + dot + rest
    return None
